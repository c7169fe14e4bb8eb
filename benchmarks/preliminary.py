"""The library's preliminary runs (EL2N, forgetting, proxy) with the recipe's networks, kept for all that they serve."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.recipes import make_network
from secateur.files import replacing
from secateur.pruning.config import PruneConfig
from secateur.pruning.methods import METHODS
from secateur.training.config import TrainConfig
from secateur.training.preliminary import Preliminary, Scout

if TYPE_CHECKING:
    from benchmarks.runs import Job, Setting


def run(setting: "Setting", job: "Job", config: PruneConfig, train_config: TrainConfig) -> Preliminary:
    """Make the scores that an arm's method needs, or take them from the cache."""
    from benchmarks.runs import load_data, load_pictures

    names = [need for need in METHODS[config.method].needs if need not in ("semantics", "validation")]
    if not names:
        return Preliminary()
    table, recipe = load_data(setting, job.labels).table, setting.chosen
    share = f"-{config.keep:g}" if "proxy" in names else ""
    stem = f"{'-'.join(names)}-{recipe.name}-{config.epochs}-{table.info.digest[:12]}-seed{job.seed}{share}"
    file = Path(setting.cache) / f"{stem}.npz"
    if not file.is_file():
        pictures = load_pictures(setting, job.labels, "train")
        make = partial(make_network, recipe, len(table.info.classes), pictures)
        scout = Scout(
            table.part("train"),
            train_config,
            config,
            recipe.size,
            job.seed,
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
