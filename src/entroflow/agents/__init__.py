"""What a user imports: agents that learn on a task, and trained ones from disk."""
