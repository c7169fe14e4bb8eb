"""One of the processes that do a step together: `torchrun -m secateur.training.worker FOLDER` does the folder's job."""

import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.logs import peak_memory_mb, sentence
from secateur.pruning.config import PruneConfig
from secateur.training import runs
from secateur.training.config import TrainConfig
from secateur.training.distributed import JOB_FILE, LOG_FILE, RESULT_FILE, Echo

STEPS = {"warm_up": (runs.warm_up, TrainConfig), "prune": (runs.prune, PruneConfig)}


def die_with_parent() -> None:
    """End this process when the one that started it is no more: torchrun's launcher gives each a session of its own."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def do(job: dict[str, Any]) -> Any:
    """Do this process's part in a job."""
    step, config = STEPS[job["step"]]
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    arguments = [
        config(**{name: tuple(v) if isinstance(v, list) else v for name, v in a.items()}) if isinstance(a, dict) else a
        for a in job["arguments"]
    ]
    return step(*arguments)  # type: ignore[operator]


def main(folder: Path) -> int:
    """Do a job, and leave its result or its error in its folder; the first process leaves its log there too."""
    rank = int(os.environ["RANK"])
    threading.Thread(target=die_with_parent, daemon=True).start()
    logger = logging.getLogger("secateur")
    logger.addHandler(logging.NullHandler() if rank else Echo(folder / LOG_FILE))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        result = do(read_json(folder / JOB_FILE))
    except Exception as error:
        what = {"message": sentence(error), "traceback": traceback.format_exc(), "input": isinstance(error, InputError)}
        write_json(folder / f"error-{rank}.json", {"rank": rank, "time": time.time()} | what)
        return 1
    if rank == 0:
        logger.info("first of %s processes, peak memory %.0f MB", os.environ["WORLD_SIZE"], peak_memory_mb())
        write_json(folder / RESULT_FILE, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
