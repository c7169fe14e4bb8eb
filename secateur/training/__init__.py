"""One training loop, its models, its checkpoints."""
