"""`python -m entroflow` is the command `entroflow`."""

import sys

from entroflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
