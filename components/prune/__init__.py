"""The component `prune`."""
