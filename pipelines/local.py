"""Runs a pipeline on this machine: kfp.local in a process group of its own, its output turned into events."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.components.images import source_image
from secateur.files import read_json, write_json
from secateur.pipelines.containers import container_options, remove_containers
from secateur.pipelines.events import Event, LogParser
from secateur.pipelines.worker import JOB_FILE, OUTPUTS_FILE
from secateur.records.places import Places
from secateur.records.tracking.live import tracked_run, unsent

PIPELINE = "secateur.pipelines.prune:prune_pipeline"
LOG_FILE = "log.txt"
SENDING_FILE = "mlflow.txt"  # what the process that sends to MLflow has to say
GRACE_SECONDS = 2.0


class StepError(Exception):
    """A step failed; the message is one sentence.

    Attributes:
        event: The failure; its task is "pipeline" where no step is to blame.
        log: The file with all that was printed.
        traceback: The step's traceback.
    """

    def __init__(self, event: Event, log: Path, traceback: str) -> None:
        super().__init__(event.text)
        self.event, self.log, self.traceback = event, log, traceback


@dataclass(frozen=True)
class Home:
    """Where a local run keeps everything."""

    folder: Path  # absolute

    @property
    def runs(self) -> Path:
        """Outputs and log of every run, in a folder each; later runs reuse them."""
        return self.folder / "runs"

    @property
    def spool(self) -> Path:
        """What MLflow is still to be told."""
        return self.folder / "spool"

    @property
    def cache(self) -> Path:
        """KFP's notes of which outputs belong to which inputs."""
        return self.folder / "cache"

    def new_run(self) -> Path:
        """Make the folder of a new run."""
        run = self.runs / f"{time.strftime('%Y-%m-%d-%H-%M-%S')}-{os.getpid()}"
        run.mkdir(parents=True)
        return run


def run_pipeline(
    home: Home,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    watch: Callable[[Event], None],
    *,
    where: Places | None = None,
    name: str = "",
    pipeline: str = PIPELINE,
    cache: bool = True,
    image: str = "",
) -> dict[str, Any]:
    """Run a pipeline to its end.

    Args:
        home: Where.
        arguments: Of the pipeline.
        environment: Added to this process's own, for the steps.
        watch: Called with everything that happens.
        where: MLflow's store; None for a run that it is not told of.
        name: Of the run in MLflow.
        pipeline: "module:name".
        cache: Reuse the outputs of earlier runs.
        image: Container image that the steps run in, as the engine names it; empty for processes.

    Returns:
        The pipeline's outputs: values of parameters, paths of artifacts; "log", the path of the log; and "unsent", how
        much MLflow could not be told.

    Raises:
        StepError: A step failed.
    """
    run = home.new_run()
    where = where and replace(where, key=run.name, spool=home.spool)
    environment = {**step_environment(), "SECATEUR_RUN": run.name, "SECATEUR_SPOOL": str(home.spool), **environment}
    environment["SECATEUR_IMAGE"] = image or environment["SECATEUR_IMAGE"]
    options = container_options(home.folder, run.name, arguments, environment) if image else None
    job = {"pipeline": pipeline, "arguments": dict(arguments), "cache": str(home.cache) if cache else None}
    write_json(run / JOB_FILE, job | {"image": environment["SECATEUR_IMAGE"], "containers": options})
    with tracked_run(where, name, run / SENDING_FILE) if where else nullcontext():
        try:
            run_worker(run, environment, watch)
        finally:
            if image:
                remove_containers(run.name)
    outputs = {**read_json(run / OUTPUTS_FILE), "log": str(run / LOG_FILE)}
    return outputs | {"unsent": unsent(where) if where else 0}


def run_worker(run: Path, environment: Mapping[str, str], watch: Callable[[Event], None]) -> None:
    """Run the job in a folder to its end.

    Raises:
        StepError: A step failed.
    """
    log_file, parser, failure = run / LOG_FILE, LogParser(), None
    with (
        log_file.open("w", encoding="utf-8") as log,
        tempfile.TemporaryDirectory(prefix="secateur-") as scratch,  # KFP leaves a temporary folder for every step
        worker(run, {**environment, "TMPDIR": scratch}) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            for event in parser.feed(line):
                watch(event)
                failure = failure or (event if event.kind == "failed" else None)
            if failure:
                break
        else:
            process.wait()
    if not failure and process.returncode != 0:
        sentence = parser.exception or f"the runner ended with exit code {process.returncode}"
        failure = Event("failed", "pipeline", text=sentence)
    if failure:
        raise StepError(failure, log_file, "\n".join(parser.traceback))


@contextmanager
def worker(run: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start the process that runs the job in a folder; when the block ends, nothing that it started is left."""
    with subprocess.Popen(
        [sys.executable, "-m", "secateur.pipelines.worker", str(run)],
        stdin=subprocess.PIPE,  # kept open and never written: the worker dies when it closes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            end_group(process)


def step_environment() -> dict[str, str]:
    """What every step finds in its environment."""
    threads = max(1, (os.cpu_count() or 1) // 2)  # two steps run side by side
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "OMP_WAIT_POLICY": "passive",
        "SECATEUR_IMAGE": source_image(),
    }


def end_group(process: subprocess.Popen[str]) -> None:
    """End a worker and all that it started: asked first, so that git takes its locks away, then forced."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_SECONDS
        alive = signal_group(process.pid, number)
        while alive and time.monotonic() < deadline:
            time.sleep(0.02)
            process.poll()  # takes the worker's own remains away
            alive = signal_group(process.pid, 0)


def signal_group(group: int, number: int) -> bool:
    """Send a signal to all processes of a group (0 sends none); tell whether there is any."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says the latter when only remains are left
        return False
    return True
