"""Everything on disk: checkpoints, run folders, tables. It is data, and reading it runs nothing.

Here is what reads and writes the record of a run, without JAX; checkpoints are in `entroflow.storage.checkpoint`.
"""

from .records import Record, Writer, create, read, resume
from .tables import Table, read_table

__all__ = ["Record", "Table", "Writer", "create", "read", "read_table", "resume"]
