"""The component `finish`."""
