"""secateur: prune a labelled image data set while you train on it."""

import importlib
from importlib import metadata
from typing import Any

__version__ = metadata.version("secateur")

_PLACES = {
    "InputError": "secateur.errors",
    "PruneConfig": "secateur.pruning.config",
    "PruningSampler": "secateur.pruning.sampler",
    "TrainConfig": "secateur.training.config",
    "ClipConfig": "secateur.semantics.config",
    "Method": "secateur.pruning.method",
    "Selection": "secateur.pruning.method",
    "Semantics": "secateur.pruning.method",
    "fit_label_model": "secateur.semantics.mixture",
    "load_mask": "secateur.records.registry.loading",
    "load_pictures": "secateur.records.registry.loading",
    "open_table": "secateur.dataset",
    "prune_while_training": "secateur.training.one_call",
    "read_mask": "secateur.pruning.mask",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: PyTorch takes seconds, and the command line needs none of it."""
    if name not in _PLACES:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
