"""Steps of a local run in containers of this machine, by any engine that speaks Docker's API, found by DOCKER_HOST.

As a program, `python -m secateur.pipelines.containers IMAGE [OPTIONS OF secateur run]`, it runs the pipeline in
processes and in containers, and compares the masks.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.errors import InputError
from secateur.files import read_json

if TYPE_CHECKING:
    from docker import DockerClient
    from kfp.local import DockerRunner

LABEL = "io.secateur.run"
# Beginnings of the variables that a container finds too; most choose among kernels, which differ in the last bits.
PASSED_ON = ("SECATEUR_", "MLFLOW_", "AWS_", "HF_TOKEN", "OPENBLAS_", "MKL_", "OMP_", "ATEN_", "ONEDNN_", "NPY_")
SHARED_MEMORY = "1g"  # for the workers that load pictures


def find_image(image: str) -> str:
    """The name that the engine itself has for an image: podman puts "localhost/" before it.

    Raises:
        InputError: There is no engine, or it has no such image.
    """
    from docker.errors import DockerException, NotFound

    try:
        with engine() as client:
            tags = client.images.get(image).tags
    except NotFound as error:
        raise InputError(f"image must be one that the engine has (`make images` builds it), got {image!r}") from error
    except DockerException as error:
        host = os.environ.get("DOCKER_HOST") or "the usual socket"
        sentence = f"DOCKER_HOST must lead to a container engine that runs, got {host}: {root_cause(error)}"
        raise InputError(sentence) from error
    return next((tag for tag in tags if tag.endswith(f"/{image}")), image)


def root_cause(error: BaseException) -> str:
    """What the system said, of an error that libraries have wrapped; else what the error says."""
    inner: BaseException | None = error
    while inner is not None and not (isinstance(inner, OSError) and inner.strerror):
        inner = inner.__cause__ or inner.__context__
    return str(inner.strerror if isinstance(inner, OSError) else error)


def container_options(
    home: Path, run: str, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """What the containers of a run are started with: the same paths and the same settings as processes.

    Args:
        home: The run's home; containers write there.
        run: The run's name.
        arguments: Of the pipeline; files and folders among them are there to read.
        environment: What the steps of this run find in their environment; a folder or SQLite file among it is written.

    Returns:
        JSON for `docker_runner`; of the settings only the names, since their values may be secret.
    """
    own = {k: v for k, v in environment.items() if k not in ("PATH", "TMPDIR")}
    user = home / "user"  # caches of what the steps download
    user.mkdir(parents=True, exist_ok=True)
    written = [home, *(folder for value in own.values() if (folder := local_folder(value)) and folder != home)]
    read = {Path(v) for v in arguments.values() if isinstance(v, str) and Path(v).is_absolute() and Path(v).exists()}
    mounts = dict.fromkeys((str(f) for f in written if f == home or home not in f.parents), False)
    return {
        "environment": sorted({name for name in os.environ if name.startswith(PASSED_ON)} | own.keys()),
        "home": str(user),
        "mounts": {str(path): True for path in sorted(read) if str(path) not in mounts} | mounts,
        "labels": {LABEL: run},
    }


def local_folder(setting: str) -> Path | None:
    """The folder that a setting names: itself, or the one of a SQLite file; None if it names none that is there.

    >>> local_folder("sqlite:////tmp/mlflow.db"), local_folder("https://mlflow.example.org")
    (PosixPath('/tmp'), None)
    """
    path = Path(setting.removeprefix("sqlite:///").removeprefix("file://"))
    if not path.is_absolute():
        return None
    return path if path.is_dir() else path.parent if setting.startswith("sqlite:///") else None


def docker_runner(options: Mapping[str, Any]) -> "DockerRunner":
    """KFP's runner for containers, which from now on learns of a failure from every engine.

    Args:
        options: From `container_options`; the values of the settings come from this process's environment.
    """
    from docker.types import Mount
    from kfp.local import DockerRunner, docker_task_handler

    docker_task_handler.run_docker_container = run_container
    with engine() as client:
        user = own_user(client.info())
    return DockerRunner(
        user=user,
        environment={name: os.environ[name] for name in options["environment"]}
        | {"HOME": options["home"], "USER": "secateur"},  # the user need not be known to the image
        mounts=[Mount(path, path, "bind", read_only) for path, read_only in options["mounts"].items()],
        labels=options["labels"],
        network_mode="host",  # an MLflow server on this machine has the same address
        shm_size=SHARED_MEMORY,
        healthcheck={"test": ["NONE"]},
    )


def own_user(engine: Mapping[str, Any]) -> str:
    """Who has to be the user in a container, so that what it writes belongs to the user of this process.

    Args:
        engine: What it says of itself. To one that is not root, the root of its containers is who runs the engine.

    >>> own_user({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]})  # Docker's
    '0:0'
    """
    rootless = engine.get("Rootless") or "name=rootless" in (engine.get("SecurityOptions") or ())
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"


def run_container(client: "DockerClient", image: str, command: list[str], volumes: object, **options: Any) -> int:
    """Run a container to its end, print what it says, and give its exit code.

    KFP's own function lets containers remove themselves, and where the engine is quick takes a failure for success.
    """
    container = client.containers.run(image, command, volumes=volumes, detach=True, **options)
    try:
        for lines in container.logs(stream=True):
            print(lines.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def remove_containers(run: str) -> None:
    """Remove what a run has left; the engine would let it go on when the run is dead."""
    from docker.errors import DockerException

    with suppress(DockerException), engine() as client:
        for container in client.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL}={run}"}):
            with suppress(DockerException):  # it has ended meanwhile
                container.remove(force=True)


@contextmanager
def engine() -> "Iterator[DockerClient]":
    """The engine that DOCKER_HOST leads to."""
    import docker

    client = docker.from_env()
    try:
        yield client
    finally:
        client.close()


def run_once(home: Path, options: list[str]) -> dict[str, str]:
    """Run the pipeline anew by the command line; digests of the mask and of the files that it is in."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("SECATEUR_", "MLFLOW_"))}
    command = [str(Path(sys.executable).with_name("secateur")), "run", "--home", str(home), *options]
    # Containers see no GPU, so the processes are not to see one either.
    if code := subprocess.run(command, env=settings | {"CUDA_VISIBLE_DEVICES": ""}, check=False).returncode:
        sys.exit(code)
    outputs = read_json(next(home.glob("runs/*/outputs.json")))
    files = sorted(file for file in Path(outputs["mask"]).rglob("*") if file.is_file())
    return {"mask": outputs["mask_digest"]} | {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def main() -> None:
    """Run the pipeline both ways, and end with 1 unless the masks are the same, byte for byte."""
    image, *options = sys.argv[1:]
    try:
        find_image(image)  # before the first run, not after
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    digests = []
    with tempfile.TemporaryDirectory(prefix="secateur-") as folder:
        for name, where in (("processes", []), ("containers", ["--image", image])):
            print(f"\nIn {name}:", flush=True)
            began = time.monotonic()
            digests.append(run_once(Path(folder).resolve() / name, [*where, *options]))
            print(f"{time.monotonic() - began:.0f} s in {name}")
    print()
    for name, processes in digests[0].items():
        print(f"{name:20} {processes}\n{'  in containers':20} {digests[1].get(name)}")
    if digests[0] != digests[1]:
        sys.exit("error: the masks must be the same, byte for byte, got different digests")
    print("the masks are the same, byte for byte")


if __name__ == "__main__":
    main()
