"""MLflow: what steps tell of their work while it goes on, what `publish` tells at the end, and how that gets there."""
