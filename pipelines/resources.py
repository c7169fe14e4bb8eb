"""What each step asks of a node, and what all of them find there, in one typed place."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from secateur.errors import InputError

QUANTITY = re.compile(r"[1-9]\d*(Ki|Mi|Gi|Ti|K|M|G|T)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
TOLERATION = {"key", "operator", "value", "effect"}
ALL = "all"  # in the place of a step's name
STEPS = "steps"  # in a settings file, the part that is about steps

Config = TypeVar("Config")


@dataclass(frozen=True)
class Resources:
    """What a step asks of the node that it runs on."""

    cpu: int = 1  # CPU cores, asked for and never exceeded; also the number of threads
    memory: str = "4Gi"  # memory, asked for and never exceeded
    gpus: int = 0  # GPUs; a step that trains runs one process on each
    gpu: str = "nvidia.com/gpu"  # name under which the nodes offer their GPUs
    nodes: int = 1  # machines with these resources; several are a TrainJob, which the step's pod only watches
    shm: str = ""  # size of /dev/shm, a part of the memory; empty: as the container engine has it, mostly 64 MB
    scratch: str = ""  # size of /tmp, on the node's disk; empty: without a limit of its own
    node_selector: Mapping[str, str] = field(default_factory=dict)  # labels that the node must have
    tolerations: Sequence[Mapping[str, str]] = ()  # taints that do not matter: key, operator, value, effect
    retries: int = 2  # times that a failed step is tried again; it goes on from its last checkpoint
    retry_wait: int = 30  # seconds before the first of these, doubled for each further one
    hours: float = 24.0  # after which a try is ended

    def __post_init__(self) -> None:
        for name, least in (("cpu", 1), ("gpus", 0), ("nodes", 1), ("retries", 0), ("retry_wait", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("memory", "shm", "scratch"):
            size = getattr(self, name)
            if not QUANTITY.fullmatch(size) and (size or name == "memory"):
                raise InputError(f"{name} must be a size such as 16Gi, got {size!r}")
        if not self.hours > 0:
            raise InputError(f"hours must be more than 0, got {self.hours:g}")
        for toleration in self.tolerations:
            if not set(toleration) <= TOLERATION:
                raise InputError(f"tolerations must hold only {', '.join(sorted(TOLERATION))}, got {dict(toleration)}")


GPU_SMALL = Resources(cpu=4, memory="16Gi", gpus=1, shm="2Gi", hours=6.0)
GPU_MIDDLE = Resources(cpu=16, memory="64Gi", gpus=1, shm="16Gi", scratch="50Gi")
GPU_LARGE = Resources(cpu=64, memory="512Gi", gpus=8, shm="128Gi", scratch="50Gi", hours=96.0)
LIGHT = Resources(hours=1.0)

# By name; steps that a preset does not name get its `all`.
PRESETS: dict[str, dict[str, Resources]] = {
    "cpu": {ALL: LIGHT, **dict.fromkeys(("embed", "warmup", "prune"), Resources(cpu=4, memory="8Gi", shm="1Gi"))},
    "cifar": {ALL: LIGHT, **dict.fromkeys(("embed", "warmup", "prune", "evaluate", "compare"), GPU_SMALL)},
    "imagenet": {
        ALL: Resources(cpu=2, memory="16Gi", scratch="50Gi", hours=12.0),
        "ingest": Resources(cpu=16, memory="64Gi", scratch="200Gi"),
        **dict.fromkeys(("embed", "evaluate", "compare"), GPU_MIDDLE),
        **dict.fromkeys(("warmup", "prune"), GPU_LARGE),
    },
}


@dataclass(frozen=True)
class Cluster:
    """What all steps of a pipeline find on the cluster."""

    image: str = ""  # container image of all steps; empty: the one that SECATEUR_IMAGE names
    config_map: str = "secateur"  # ConfigMap whose keys are settings in the steps' environment; it may be missing
    secret: str = "secateur"  # Secret whose keys are credentials in the steps' environment; it may be missing
    secret_files: str = ""  # Secret whose keys are files in /etc/secateur; empty: none
    claim: str = ""  # PersistentVolumeClaim that all steps have at /data, tables lie there once; empty: none
    image_pull_secrets: Sequence[str] = ()  # Secrets for the registry of the image
    image_pull_policy: str = ""  # Always, IfNotPresent or Never; empty: as Kubernetes has it
    labels: Mapping[str, str] = field(default_factory=dict)  # of the pods
    preset: str = "cpu"  # resources of the steps: cpu, cifar or imagenet
    steps: Mapping[str, Resources] = field(default_factory=dict)  # the steps' resources, by name; `all` for others

    def __post_init__(self) -> None:
        for name in ("config_map", "secret", "secret_files", "claim"):
            value = getattr(self, name)
            if value and not NAME.fullmatch(value):
                raise InputError(f"{name} must be a name that Kubernetes takes, got {value!r}")
        if self.image_pull_policy not in ("", "Always", "IfNotPresent", "Never"):
            raise InputError(f"image_pull_policy must be Always, IfNotPresent or Never, got {self.image_pull_policy!r}")

    def step(self, name: str) -> Resources:
        """The resources of a step."""
        return self.steps[name if name in self.steps else ALL]


def read_cluster(file: Path | None = None, settings: Sequence[str] = (), preset: str = "") -> Cluster:
    """What a user says about the cluster: a preset, changed by a file, changed by single settings.

    Args:
        file: YAML with the fields of `Cluster`, and under `steps` the fields of `Resources` by step.
        settings: Texts as `prune.gpus=2`, `all.hours=48` or `claim=data`.
        preset: Instead of the file's.

    Raises:
        InputError: A field or value that there is not.
    """
    found = read_settings(file) if file else {}
    steps: dict[str, dict[str, Any]] = {name: dict(fields or {}) for name, fields in found.pop(STEPS, {}).items()}
    for text in settings:
        name, given, value = text.partition("=")
        step, dotted, field_name = name.rpartition(".")
        if not given or not name:
            raise InputError(f"set must be as prune.gpus=2, got {text!r}")
        (steps.setdefault(step, {}) if dotted else found)[field_name] = yaml.safe_load(value)
    cluster = changed(Cluster(), found | ({"preset": preset} if preset else {}), "cluster")
    if cluster.preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {cluster.preset!r}")
    cluster = dataclasses.replace(cluster, steps=step_resources(PRESETS[cluster.preset], steps))
    if not cluster.claim and any(resources.nodes > 1 for resources in cluster.steps.values()):
        raise InputError("claim must name a volume claim that the nodes of a step share, got none")
    return cluster


def read_settings(file: Path) -> dict[str, Any]:
    """Read a settings file.

    Raises:
        InputError: It is none.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cluster must be a YAML file, got {str(file)!r}: {' '.join(str(error).split())}") from error
    steps = found.get(STEPS, {}) if isinstance(found, dict) else None
    if not isinstance(steps, dict) or not all(isinstance(fields, dict | None) for fields in steps.values()):
        raise InputError(f"cluster must be a file of settings by name, got something else in {str(file)!r}")
    return found


def step_resources(preset: Mapping[str, Resources], steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Resources]:
    """A preset with changes: those for all steps first, then those of each."""
    general = steps.get(ALL, {})
    found = {name: changed(resources, general, ALL) for name, resources in preset.items()}
    for name, fields in steps.items():
        if name != ALL:
            found[name] = changed(found.get(name, found[ALL]), fields, name)
    return found


def changed(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """A config with other values, all of the kinds that it has.

    Raises:
        InputError: One that it has not.
    """
    known: dict[str, Any] = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known or name == STEPS:
            raise InputError(f"{where} must have only {', '.join(n for n in known if n != STEPS)}, got {name!r}")
        if not fits(value, known[name]):
            kind = type(known[name]).__name__.replace("tuple", "list")
            raise InputError(f"{where}.{name} must be of the kind {kind}, got {value!r}")
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def fits(value: object, like: object) -> bool:
    """Whether a value from YAML is of the kind of another."""
    if isinstance(like, str | int | float):
        return not isinstance(value, bool) and isinstance(
            value, (int, float) if isinstance(like, float) else type(like)
        )
    return isinstance(value, dict if isinstance(like, dict) else list | tuple)
