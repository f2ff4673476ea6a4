"""What a user touches besides Python: the command line, the main job, runs on disk."""
