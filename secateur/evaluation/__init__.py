"""What a pruned run is worth: its scores beside baselines, and the report."""
