"""Several processes at one step: how many, how they are started and heard, and which of them writes."""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import timedelta
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from secateur.errors import InputError
from secateur.files import read_json, replacing, write_json
from secateur.pruning.distributed import place

P = ParamSpec("P")
R = TypeVar("R")

PROCESSES_VARIABLE = "SECATEUR_PROCESSES"
JOB_FILE, LOG_FILE, RESULT_FILE = "job.json", "log.jsonl", "result.json"
PATIENCE = timedelta(days=1)  # with preliminary runs, which the first process makes alone; who dies is noticed at once
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def process_count() -> int:
    """How many processes a step is to use: what SECATEUR_PROCESSES says, else one for each GPU, and one on a CPU.

    Raises:
        InputError: The variable holds no whole number.
    """
    text = os.environ.get(PROCESSES_VARIABLE) or "0"
    if not text.isdecimal():
        raise InputError(f"{PROCESSES_VARIABLE} must be a whole number from 0, got {text!r}")
    return int(text) or max(1, torch.cuda.device_count())


def in_processes(step: Callable[P, R]) -> Callable[P, R]:
    """Let a step of `secateur.training.worker` be done by several processes, where there are to be several.

    Under torchrun the step is this process's part in it. Arguments are paths, lists of paths, and configs.
    """

    @wraps(step)
    def together(*arguments: P.args, **named: P.kwargs) -> R:
        if dist.is_initialized():
            return step(*arguments, **named)
        if dist.is_torchelastic_launched():
            with joined():
                return step(*arguments, **named)
        count = process_count()
        if count == 1:
            return step(*arguments, **named)
        result: R = launch(step.__name__, signature(step).bind(*arguments, **named).args, count)
        return result

    return together


@contextmanager
def joined() -> Iterator[None]:
    """Be one of torchrun's processes while the block runs; one that fails is left to end, with the others."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    yield
    dist.destroy_process_group()


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary place that replaces `path`, to the first process; what others write there is thrown away."""
    if place()[0] == 0:
        with replacing(path) as temporary:
            yield temporary
    else:
        with tempfile.TemporaryDirectory(prefix="secateur-") as scratch:
            yield Path(scratch) / "unused"


@contextmanager
def steady(deterministic: bool) -> Iterator[None]:
    """Compute with one thread and with cuDNN's repeatable algorithms, if asked to, while the block runs."""
    threads, repeatable = torch.get_num_threads(), torch.backends.cudnn.deterministic
    if deterministic:
        torch.set_num_threads(1)
        torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = repeatable


def write_job(folder: Path, step: str, arguments: Sequence[Any], threads: int) -> None:
    """Describe a step to the processes that are to do it.

    Args:
        folder: Where the job lies.
        step: Name of a step of `secateur.training.worker`.
        arguments: Its arguments.
        threads: Of each process; 0 to leave that to the machine.
    """
    plain = [asdict(a) if is_dataclass(a) and not isinstance(a, type) else a for a in arguments]
    plain = [str(a) if isinstance(a, Path) else [str(p) for p in a] if isinstance(a, list) else a for a in plain]
    write_json(folder / JOB_FILE, {"step": step, "arguments": plain, "threads": threads})


def launch(step: str, arguments: Sequence[Any], count: int) -> Any:
    """Have processes on this machine do a step, by torchrun's launcher.

    Args:
        step: Name of a step of `secateur.training.worker`.
        arguments: Its arguments.
        count: How many processes.

    Returns:
        What it gives in the first process.

    Raises:
        InputError: One of them raised it.
        RuntimeError: One of them failed otherwise.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="secateur-") as scratch:
        folder = Path(scratch)
        write_job(folder, step, arguments, max(1, torch.get_num_threads() // count))
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
        )
        ended = None
        try:
            with own_signals(), heard(folder):
                elastic_launch(config, sys.executable)("-m", "secateur.training.worker", str(folder))
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            raise failure_of(folder, codes, count) from None
        except SignalException as error:
            ended = error
        result = None if ended else read_json(folder / RESULT_FILE)
    if ended:
        os.kill(os.getpid(), ended.sigval)  # to this process as to those that it started
        raise ended
    return result


@contextmanager
def own_signals() -> Iterator[None]:
    """Put this process's signal handlers back when the block ends; the launcher leaves its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Echo(logging.Handler):
    """Keeps the log records of one process for another, as lines of JSON."""

    def __init__(self, file: Path) -> None:
        super().__init__(logging.INFO)
        self.file, self.usual = file.open("a", encoding="utf-8"), set(vars(logging.makeLogRecord({})))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, with what it holds beside the usual."""
        more = {name: value for name, value in vars(record).items() if name not in self.usual}
        said = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self.file.write(json.dumps(more | said | {"msg": record.getMessage()}) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()


@contextmanager
def heard(folder: Path) -> Iterator[None]:
    """Log here what the first process of a job logs, while the block runs."""
    over, file = threading.Event(), folder / LOG_FILE
    file.touch()

    def listen() -> None:
        rest = ""
        with file.open(encoding="utf-8") as lines:
            while True:
                last = over.is_set()
                *whole, rest = (rest + lines.read()).split("\n")
                for line in whole:
                    record = logging.makeLogRecord(json.loads(line))
                    logging.getLogger(record.name).handle(record)
                if last:
                    return
                over.wait(0.1)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        over.set()
        listener.join()


def failure_of(folder: Path, codes: Mapping[int, int], count: int) -> Exception:
    """The error that began it all: one that a user can mend, else a death by a signal, else the first.

    Args:
        folder: Of the job, where processes leave their errors.
        codes: Exit codes of those that failed, by rank; negative for a signal.
        count: How many processes there were.
    """
    errors = sorted(
        (read_json(file) for file in folder.glob("error-*.json")), key=lambda e: (not e["input"], e["time"])
    )
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    if killed and not (errors and errors[0]["input"]):
        rank, number = next(iter(killed.items()))
        cause = "; its memory may have run out" if number == signal.SIGKILL else ""
        return RuntimeError(f"process {rank + 1} of {count} was ended by {signal.Signals(number).name}{cause}")
    if not errors:
        return RuntimeError(f"a process of {count} ended with exit code {next(iter(codes.values()), 'unknown')}")
    first = errors[0]
    where = f"process {first['rank'] + 1} of {count}: "
    error = InputError(first["message"]) if first["input"] else RuntimeError(where + first["message"])
    error.add_note(first["traceback"])
    return error
