"""A step's figures on their way to MLflow while it works, at no cost to the work.

The step appends them to a file; another process, which alone imports MLflow, sends them. A local run has one such
process for all steps; in a pod, each step has its own. A server that is away holds nothing up: what could not be sent
is kept, and goes with the next step, with `publish`, or with `secateur sync`.
"""

import atexit
import contextlib
import dataclasses
import logging
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from secateur.logs import sentence
from secateur.records.places import Places, places
from secateur.records.tracking.facts import arm_key, arm_params, epoch_points, step_points
from secateur.records.tracking.spool import Message, SpoolFile, begin, carry_off, waiting
from secateur.state import STATE_VARIABLE

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

FAILURE = "failure"  # tag: which step failed, and why
SPOOL_VARIABLE = "SECATEUR_SPOOL"  # where it is set, whoever set it sends
PATIENCE = 10.0  # seconds that a step or run waits at its end for what is not sent yet


class Live(logging.Handler):
    """Speaks to MLflow for one step; a log handler, for the epochs come with the records that `drive` logs."""

    def __init__(self, file: SpoolFile | None, step: str, arm: Mapping[str, Any] | None = None) -> None:
        """Begin.

        Args:
            file: Where messages are kept; None for a step that nobody listens to.
            step: Name of the component.
            arm: The pruning's config as plain values, where the figures are those of one arm.
        """
        super().__init__(logging.INFO)
        self.file, self.step, self.told = file, step, dict[int, int]()
        self.arm = arm_key(arm) if arm else ""
        if arm:
            self.write(Message(self.arm, params=arm_params(arm)))

    def write(self, message: Message) -> None:
        """Keep a message."""
        if self.file:
            self.file.write(message)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the epochs of a record's seed that are not told yet, those of earlier steps and attempts too."""
        if not hasattr(record, "curve"):
            return
        seed, history = record.curve
        points = epoch_points(seed, history, self.told.get(seed, 0), "" if self.arm else f"{self.step}/")
        self.told[seed] = len(history)
        self.write(Message(self.arm, points=points))

    def figures(self, figures: Mapping[str, Any], part: str = "") -> None:
        """Tell the step's figures, as `step/name`.

        Args:
            figures: Anything but numbers is left out.
            part: The shard, if the step has that only; its number becomes the point's.
        """
        self.write(Message(points=step_points(self.step, figures, shard_number(part))))


def shard_number(name: str) -> int:
    """The number of a shard, which its file name says; 0 where it says none.

    >>> shard_number("shard-00003-of-00010.arrow")
    3
    """
    found = re.search(r"\d+", name)
    return int(found[0]) if found else 0


def follow(step: str, part: str = "", arm: "DataclassInstance | None" = None) -> Live:
    """Let MLflow know how this process's step is going, if the environment names a pipeline run and a server.

    Args:
        step: Name of the component.
        part: What tells steps of the same component apart.
        arm: The pruning's config, for a step that is an arm of its own.
    """
    where = places()
    if not os.environ.get("MLFLOW_TRACKING_URI") or (where.key is None and where.run_id is None):
        return Live(None, step)
    try:
        folder = begin(where)
        name = re.sub(r"[^\w.-]+", "-", f"{step} {part}".strip())
        file = folder / f"{name}-{uuid.uuid4().hex[:8]}.jsonl"
        live = Live(SpoolFile(file), step, dataclasses.asdict(arm) if arm else None)
    except OSError as error:
        log.warning("MLflow will know of this step only at the end: %s", error)
        return Live(None, step)
    logging.getLogger("secateur").addHandler(live)
    sys.excepthook = telling(live, f"{step} {part}".strip(), sys.excepthook)
    if not os.environ.get(SPOOL_VARIABLE):
        stack = contextlib.ExitStack()
        stack.enter_context(sender(folder, "RUNNING", own=file))
        atexit.register(lambda: finish(stack, folder))
    return live


def telling(live: Live, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook for the error that ends a process: MLflow hears which step failed, and why, and then the usual hook."""

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        live.write(Message(tags={FAILURE: f"{name}: {sentence(error)}"[:5000]}))
        hook(kind, error, trace)

    return tell


def finish(stack: contextlib.ExitStack, folder: Path) -> None:
    """Wait for the sender of a pod's step, within bounds, and keep what it could not send."""
    stack.close()
    state = os.environ.get(STATE_VARIABLE, "")
    if not folder.exists() or not waiting(folder):
        return
    if "://" in state:
        carry_off(folder, state)
    log.warning("MLflow is away; what it is still to be told is kept, and sent by a later step or `secateur sync`")


@contextmanager
def sender(
    folder: Path,
    silent: str,
    *,
    own: Path | None = None,
    messages: Path | None = None,
    tracking_uri: str | None = None,
) -> Iterator[list[str]]:
    """Send what appears in a folder, in another process, until the block ends, and for a while after that.

    Args:
        folder: What `begin` gave.
        silent: The MLflow run's status, should this process die: FAILED, or RUNNING to leave it as it is.
        own: The file that is removed once it is sent; None for the whole folder.
        messages: File for what MLflow prints; None for standard error.
        tracking_uri: The store, with its credentials, where the environment has another.

    Yields:
        A list; the status that the run has at the block's end is to be put into it.
    """
    status: list[str] = []
    with open(messages or os.devnull, "ab") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "secateur.records.tracking.sending",
                str(folder),
                silent,
                *([str(own)] if own else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=file if messages else None,
            env=os.environ | ({"MLFLOW_TRACKING_URI": tracking_uri} if tracking_uri else {}),
            start_new_session=True,  # an interrupt is for the run; this one is then told how it ended
        )
    try:
        yield status
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired, BrokenPipeError):
            process.communicate("".join(status).encode(), timeout=PATIENCE + 5)
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def tracked_run(where: Places, name: str, messages: Path) -> Iterator[None]:
    """Have a local pipeline run in MLflow from its first second to its last, with the status that it ends with.

    Of a run that somebody else began, the arms alone get that status.

    Args:
        where: Store, and the key of the run.
        name: Of the MLflow run.
        messages: File for what MLflow prints.
    """
    with sender(begin(where, name), "FAILED", messages=messages, tracking_uri=where.tracking_uri) as status:
        try:
            yield
        except KeyboardInterrupt:
            status.append("KILLED")
            raise
        status.append("FINISHED")


def unsent(where: Places) -> int:
    """How many messages of the pipeline run could not be sent yet."""
    folder = where.spool / (where.key or where.run_id or "")
    return waiting(folder) if folder.is_dir() else 0
