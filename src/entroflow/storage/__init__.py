"""Everything on disk: checkpoints, run folders, tables. It is data, and reading it runs nothing."""
