"""What a step prints while it runs.

Every line names its step, so that the log of a pod reads well, and so that the local runner can tell steps that run
side by side apart:

    07:25:03 secateur [prune full] started
    07:25:04 secateur [prune full]: seed 0, epoch 1 of 30 ...
    07:25:31 secateur [prune full] done, peak memory 812 MB

A step that fails says why in one sentence, in a line of its own above the traceback.
"""

import atexit
import logging
import re
import resource
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType

from secateur.errors import InputError

LINE = re.compile(
    r"secateur \[(?P<step>[\w-]+)(?: (?P<part>[^\]]+))?\]"
    r"(?:: (?P<text>.*)|: ?$| (?P<event>started|done)\b.*| failed: (?P<reason>.*)| \| (?P<trace>.*))$"
)


class StepHandler(logging.Handler):
    """Prints the messages of one step, one line each."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.INFO)
        self.prefix = f"secateur [{name}]"

    def say(self, *lines: str) -> None:
        """Print lines in one go, so that no other process comes between them."""
        now = time.strftime("%H:%M:%S")
        sys.stdout.write("".join(f"{now} {self.prefix}{line}\n" for line in lines))
        sys.stdout.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message of the library."""
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        self.say(*(f": {mark}{line}" for line in self.format(record).splitlines()))


def configure(step: str, part: str = "") -> None:
    """Let this process print what its step does; each component calls it once, when its imports are done.

    Args:
        step: Name of the component.
        part: What tells tasks of the same component apart: the method, or the shard.
    """
    handler = StepHandler(f"{step} {part}".strip())
    logger = logging.getLogger("secateur")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False  # KFP's own handler would print every line a second time

    failed = False

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        nonlocal failed
        failed = True
        lines = "".join(traceback.format_exception(kind, error, trace)).splitlines()
        handler.say(f" failed: {sentence(error)}", *(f" | {line}" for line in lines))

    def finish() -> None:
        if not failed:
            handler.say(f" done, peak memory {peak_memory_mb():.0f} MB")

    sys.excepthook = report
    atexit.register(finish)
    handler.say(" started")


def sentence(error: BaseException) -> str:
    """What went wrong, on one line; errors other than those that a user can mend are named.

    >>> sentence(InputError("keep must be in (0, 1], got 1.4"))
    'keep must be in (0, 1], got 1.4'
    >>> sentence(KeyError("mask"))
    "KeyError: 'mask'"
    """
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    try:
        # Not from getrusage: there, Linux counts the process that this one was started by.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 1e3
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS, in bytes
