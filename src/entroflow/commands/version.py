"""The command version."""

from importlib.metadata import version

from ..options import VersionOptions


def run(options: VersionOptions) -> int:
    """Print the version; return the exit code."""
    del options
    print(version("entroflow"))
    return 0
