"""The component `embed`."""
