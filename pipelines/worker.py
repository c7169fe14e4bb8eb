"""The process in which kfp.local runs a pipeline; `secateur.pipelines.local` starts it and reads what it prints.

kfp.local starts the steps as its children and forgets them when it dies. Here it leads a process group of its own,
which dies with the command that started it, however that went: the pipe at this process's standard input then closes.
"""

import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

from secateur.files import read_json, write_json
from secateur.pipelines.containers import docker_runner, remove_containers

JOB_FILE = "job.json"
OUTPUTS_FILE = "outputs.json"


def die_with_parent(folder: Path) -> None:
    """Wait until the pipe at standard input closes, then kill the whole group, this process and its containers too."""
    while os.read(0, 1024):
        pass
    try:
        if read_json(folder / JOB_FILE)["containers"]:
            remove_containers(folder.name)
    finally:
        os.killpg(0, signal.SIGKILL)


def run(folder: Path) -> None:
    """Run the pipeline of a job, and write where its outputs are.

    Args:
        folder: The run's folder, with `job.json`: pipeline ("module:name"), arguments, cache (a folder or null), and
            containers (`container_options`, or null for processes).
    """
    from kfp import local
    from kfp.local import executor_input_utils

    job = read_json(folder / JOB_FILE)
    module, name = job["pipeline"].split(":")
    pipeline = getattr(importlib.import_module(module), name)
    forget_retries(pipeline.pipeline_spec)
    # KFP would name the folder of the run by itself; the log and the steps' outputs are to lie in one.
    executor_input_utils.get_local_pipeline_resource_name = lambda _: folder.name
    # KFP puts this in the place of "python3" in all arguments, even within a path; the same word changes nothing.
    if Path(sys.executable).with_name("python3").exists():
        sys.executable = "python3"
    local.init(
        docker_runner(job["containers"]) if job["containers"] else local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder.parent),
        enable_caching=job["cache"] is not None,
        cache_root=job["cache"],
    )
    outputs = pipeline(**job["arguments"]).outputs
    write_json(folder / OUTPUTS_FILE, {key: getattr(value, "path", value) for key, value in outputs.items()})


def forget_retries(spec: object) -> None:
    """Take the retries out of a pipeline: here a step fails for good, and somebody waits for the reason."""
    for component in [spec.root, *spec.components.values()]:  # type: ignore[attr-defined]
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")


def main() -> None:
    """Run the job in the folder named on the command line."""
    threading.Thread(target=die_with_parent, args=(Path(sys.argv[1]),), daemon=True).start()
    # KFP sets up its own logging around each step and takes it down after; in between, "cache hit" would be lost.
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s - %(levelname)s - %(message)s")
    warnings.simplefilter("ignore")
    run(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
