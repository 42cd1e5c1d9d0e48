"""What the examples share around their training: checkpoints, logs, the command line."""
