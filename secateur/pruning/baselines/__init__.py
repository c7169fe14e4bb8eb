"""Methods that the others are judged by."""
