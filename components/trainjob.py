"""A step on several machines: a Kubeflow Trainer TrainJob, which the step creates, watches, and ends with.

The environment of the step says so, as it is about machines and not about the result: SECATEUR_NODES above 1, and
SECATEUR_SHARED, a volume claim that this pod and those of the TrainJob mount at the same path.
"""

import contextlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from secateur.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

NODES_VARIABLE = "SECATEUR_NODES"
PATH_VARIABLE = "SECATEUR_SHARED_PATH"
OUTPUTS = ("out_folder", "model_folder", "mask_folder")  # arguments that a step writes to
PASSED_ON = ("SECATEUR_STATE_URI", "OMP_NUM_THREADS", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")  # never a secret
POLL_SECONDS, LONGEST_SECONDS = 10, 30 * 24 * 3600


@dataclass(frozen=True)
class Nodes:
    """What the environment says of the machines."""

    count: int  # SECATEUR_NODES
    gpus: int  # SECATEUR_NODE_GPUS: of each, with a process each; 0 for one process on the CPU
    cpu: str  # SECATEUR_NODE_CPU: cores of each; empty for what the runtime gives
    memory: str  # SECATEUR_NODE_MEMORY: of each, as "64Gi"; empty for what the runtime gives
    claim: str  # SECATEUR_SHARED: the volume claim
    path: Path  # SECATEUR_SHARED_PATH: where it is mounted, here and there
    runtime: str  # SECATEUR_RUNTIME: a training runtime for PyTorch
    image: str  # of the step

    @classmethod
    def from_environment(cls) -> "Nodes":
        """Read it.

        Raises:
            InputError: Something is missing, or no whole number.
        """
        from secateur.components.images import IMAGE

        def number(name: str, default: str) -> int:
            text = os.environ.get(name) or default
            if not text.isdecimal():
                raise InputError(f"{name} must be a whole number from 0, got {text!r}")
            return int(text)

        def text(name: str, default: str = "") -> str:
            return os.environ.get(f"SECATEUR_{name}") or default

        count, claim, path = number(NODES_VARIABLE, "1"), text("SHARED"), Path(text("SHARED_PATH", "/shared"))
        if count > 1 and not claim:
            raise InputError(f"SECATEUR_SHARED must name a volume claim that {count} nodes share, got none")
        if count > 1 and not path.is_dir():
            raise InputError(f"{PATH_VARIABLE} must be where the volume claim {claim!r} is mounted, got {path}")
        gpus, runtime = number("SECATEUR_NODE_GPUS", "0"), text("RUNTIME", "torch-distributed")
        return cls(count, gpus, text("NODE_CPU"), text("NODE_MEMORY"), claim, path, runtime, IMAGE)

    @property
    def resources(self) -> dict[str, str]:
        """Of each node, as the Trainer's SDK has them."""
        return {k: v for k, v in (("gpu", str(self.gpus or "")), ("cpu", self.cpu), ("memory", self.memory)) if v}

    @property
    def processes(self) -> int:
        """Of each node."""
        return max(1, self.gpus)


def on_nodes(step: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Do a step of `secateur.training` here, or on several machines if the environment says so.

    Raises:
        InputError: What the step raises, or an environment that cannot be used.
        RuntimeError: The TrainJob failed for another reason.
    """
    nodes = Nodes.from_environment()
    if nodes.count <= 1:
        return step(*arguments, **named)
    given = signature(step).bind(*arguments, **named).arguments
    result: R = run_trainjob(nodes, step.__name__, given)
    return result


def run_trainjob(nodes: Nodes, step: str, arguments: dict[str, Any]) -> Any:
    """Create a TrainJob for a step, say what it says, wait for its end, and fetch what it wrote."""
    try:
        from kubeflow.trainer import TrainerClient
    except ImportError:
        raise InputError(f"{NODES_VARIABLE} must go with the extra secateur[trainer], got none of it") from None
    from secateur.files import read_json, replacing
    from secateur.training.distributed import RESULT_FILE, failure_of, heard, write_job

    name = f"secateur-{step.replace('_', '-')}-{uuid.uuid4().hex[:10]}"
    folder, client = nodes.path / "secateur-jobs" / name, TrainerClient()
    folder.mkdir(parents=True)
    try:
        staged = {key: stage(value, nodes.path, folder, key) for key, value in arguments.items()}
        write_job(folder, step, list(staged.values()), threads=0)
        with heard(folder), created(client, nodes, name, folder):
            log.info("TrainJob %s: %d nodes with %d processes each", name, nodes.count, nodes.processes)
            last, status = watch(client, name)
        if status == "Failed":
            error = failure_of(folder, {}, nodes.count * nodes.processes)
            raise (
                error if any(folder.glob("error-*")) else RuntimeError(f"TrainJob {name} failed{last and f': {last}'}")
            )
        for key in set(arguments) & set(OUTPUTS):
            with replacing(arguments[key]) as temporary:
                shutil.copytree(staged[key], temporary)
        return read_json(folder / RESULT_FILE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stage(value: Any, shared: Path, folder: Path, key: str) -> Any:
    """An argument as the nodes see it: outputs beside the job, inputs where they are if that is shared, else copied."""
    if isinstance(value, list):
        return [stage(part, shared, folder, f"{key}-{place}") for place, part in enumerate(value)]
    if not isinstance(value, str | Path):
        return value
    if key in OUTPUTS:
        return str(folder / key)
    if Path(value).resolve().is_relative_to(shared.resolve()):
        return str(value)
    shutil.copytree(value, folder / key)
    return str(folder / key)


@contextlib.contextmanager
def created(client: Any, nodes: Nodes, name: str, folder: Path) -> Iterator[None]:
    """Have a TrainJob while the block runs."""
    from kubeflow.trainer import CustomTrainerContainer, options

    mount = {"name": "shared", "mountPath": str(nodes.path)}
    claim = {"name": "shared", "persistentVolumeClaim": {"claimName": nodes.claim}}
    pod = options.PodSpecPatch(volumes=[claim], containers=[options.ContainerPatch(name="node", volume_mounts=[mount])])
    job = options.JobTemplatePatch(spec=options.JobSpecPatch(template=options.PodTemplatePatch(spec=pod)))
    jobs = options.JobSetSpecPatch(replicated_jobs=[options.ReplicatedJobPatch(name="node", template=job)])
    patch = options.TrainingRuntimeSpecPatch(template=options.JobSetTemplatePatch(spec=jobs))
    command = ["torchrun", f"--nproc-per-node={nodes.processes}", "-m", "secateur.training.worker", str(folder)]
    client.train(
        runtime=nodes.runtime,
        trainer=CustomTrainerContainer(
            image=nodes.image,
            num_nodes=nodes.count,
            resources_per_node=nodes.resources or None,
            env={key: os.environ[key] for key in PASSED_ON if key in os.environ},
        ),
        options=[
            options.Name(name),
            options.Labels({"app.kubernetes.io/name": "secateur"}),
            options.TrainerCommand(command),
            options.RuntimePatch(patch),
        ],
    )
    try:
        yield
    finally:
        client.delete_job(name)


def watch(client: Any, name: str) -> tuple[str, str]:
    """Log what the first pod of a TrainJob prints, until the job ends; gives the last line and the status."""
    lines = [""]

    def follow() -> None:
        try:
            client.wait_for_job_status(name, {"Running", "Complete", "Failed"}, LONGEST_SECONDS, POLL_SECONDS)
            for line in client.get_job_logs(name, follow=True):
                lines[0] = line.strip() or lines[0]
                log.info("%s | %s", name, line)
        except (RuntimeError, TimeoutError) as error:
            log.warning("the log of TrainJob %s is cut off: %s", name, error)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    job = client.wait_for_job_status(name, {"Complete", "Failed"}, LONGEST_SECONDS, POLL_SECONDS)
    follower.join(POLL_SECONDS)
    return lines[0], job.status
