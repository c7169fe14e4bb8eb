"""The library's preliminary runs (EL2N, forgetting, proxy) with the recipe's networks, kept for all that they serve."""

from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.recipes import Recipe, make_network
from secateur.dataset import ImageTable
from secateur.dataset.loader import Pictures
from secateur.files import replacing
from secateur.pruning.config import PruneConfig
from secateur.pruning.methods import METHODS
from secateur.training.config import TrainConfig
from secateur.training.preliminary import Preliminary, Scout


def run(
    recipe: Recipe,
    cache: str,
    seed: int,
    config: PruneConfig,
    train_config: TrainConfig,
    table: ImageTable,
    pictures: Pictures,
) -> Preliminary:
    """Make the scores that an arm's method needs, or take them from the cache."""
    names = [need for need in METHODS[config.method].needs if need not in ("semantics", "validation")]
    if not names:
        return Preliminary()
    share = f"-{config.keep:g}" if "proxy" in names else ""
    stem = f"{'-'.join(names)}-{recipe.name}-{config.epochs}-{table.info.digest[:12]}-seed{seed}{share}"
    file = Path(cache) / f"{stem}.npz"
    if not file.is_file():
        make = partial(make_network, recipe, len(table.info.classes), pictures)
        scout = Scout(
            table.part("train"),
            train_config,
            config,
            recipe.size,
            seed,
            pictures,
            make,
            partial(make, proxy=True),
        )
        found = scout.find(names)
        with replacing(file) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, **found.scores, **{f"cost {k}": np.array(v) for k, v in found.cost.items()})
    with np.load(file) as saved:
        scores = {name: saved[name] for name in names}
        cost = {name[5:]: float(saved[name]) for name in saved.files if name.startswith("cost ")}
    return Preliminary(scores, cost)
