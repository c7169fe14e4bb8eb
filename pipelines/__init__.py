"""Pipelines, and everything to run them: the command line and the local runner."""
