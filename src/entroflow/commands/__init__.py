"""What the commands do, one module a command; `entroflow.cli` is their table."""
