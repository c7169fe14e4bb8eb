"""Makes a mask again, in a process of its own: `python again.py JOB.json`.

It may run with the library of another commit, and so asks only for what that always had: the functions of the steps.
"""

import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any


def make(job: dict[str, Any], folder: Path) -> None:
    """Embed, warm up and prune as a version did; the mask comes to be in `folder/mask`, the models in `folder/model`.

    Args:
        job: `dataset` (a folder), `shards`, `train_config`, `prune_config`, and `clip`, None for no embeddings.
        folder: Where to.
    """
    from secateur.pruning.config import PruneConfig
    from secateur.training.config import TrainConfig
    from secateur.training.runs import prune, warm_up

    embeddings = []
    if job["clip"] is not None:
        from secateur.semantics.config import ClipConfig
        from secateur.semantics.embed import embed_shard

        known = {field.name for field in dataclasses.fields(ClipConfig)}
        clip = ClipConfig(**{name: value for name, value in job["clip"].items() if name in known})
        for shard in job["shards"]:
            embeddings.append(folder / "embeddings" / Path(shard).stem)
            embed_shard(job["dataset"], shard, clip, embeddings[-1])
    train = TrainConfig(**job["train_config"] | {"seeds": tuple(job["train_config"]["seeds"])})
    warm_up(job["dataset"], train, folder / "warmup")
    config = PruneConfig(**job["prune_config"])
    prune(job["dataset"], embeddings, folder / "warmup", config, folder / "model", folder / "mask")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("secateur").setLevel(logging.INFO)
    make(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[1]).parent)
