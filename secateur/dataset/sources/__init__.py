"""Where a data set comes from, a module for each kind of source, and reading any of them into a table."""

from secateur.dataset.sources.config import IngestConfig
from secateur.dataset.sources.ingesting import ingest, write_clean_labels

__all__ = ["IngestConfig", "ingest", "write_clean_labels"]
