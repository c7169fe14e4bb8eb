"""Processes that do something together, forked from one that has imported PyTorch: each would need seconds to."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import start_processes


def in_processes(work: Callable[..., None], *arguments: Any, count: int = 2) -> None:
    """Call `work(rank, *arguments)` in each, and wait for all."""
    multiprocessing.set_forkserver_preload(["secateur.training.runs"])
    start_processes(work, arguments, nprocs=count, start_method="forkserver")
