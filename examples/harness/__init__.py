"""What the examples share around their training: files, checkpoints, logs, the command line."""
