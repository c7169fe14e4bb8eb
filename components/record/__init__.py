"""The component `record`."""
