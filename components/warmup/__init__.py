"""The component `warmup`."""
