"""What processes do in `test_processes`; torchrun's, a plain run to its end, then one that is killed in its midst."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from secateur.files import write_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.distributed import place
from secateur.training import phases
from secateur.training.config import TrainConfig
from secateur.training.distributed import joined
from secateur.training.runs import prune, warm_up

TRAIN = TrainConfig(warmup_epochs=1, batch_size=64, seeds=(0,), deterministic=True)
PRUNE = PruneConfig(method="adaptive", keep=0.6, epochs=6)
KILLED_AFTER = 3  # epochs of pruning


def warm_up_in(rank: int, count: int, data: Path, out: Path) -> None:
    """Warm up as one of several."""
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=count)
    write_json(out / f"figures-{rank}.json", warm_up(data, TRAIN, out / "warm"))
    dist.destroy_process_group()


def main(data: Path, warm: Path, out: Path) -> None:
    """Train together, and die."""
    with joined():
        warm_up(data, replace(TRAIN, deterministic=False), out / "plain-warm")
        prune(data, [], out / "plain-warm", PRUNE, out / "plain-model", out / "plain-mask")
        phases.CHECKPOINT_SECONDS = -1.0
        epoch, count = phases.Pruning.epoch, []

        def dies(self):
            if len(count) == KILLED_AFTER:
                if place()[0] == 0:
                    os.kill(os.getppid(), signal.SIGKILL)  # torchrun itself, which starts each in a session of its own
                os.kill(os.getpid(), signal.SIGKILL)
            count.append(1)
            return epoch(self)

        phases.Pruning.epoch = dies
        prune(data, [], warm, PRUNE, out / "model", out / "mask")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
