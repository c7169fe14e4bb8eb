"""Publishers in processes of their own: at the same moment, and killed at every step."""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_outputs import Outputs, write_outputs
from made_registry import publish_version

from secateur.files import read_json
from secateur.pruning.mask import read_mask
from secateur.records import git as git_module
from secateur.records.git import git
from secateur.records.registry.checkout import open_version
from secateur.records.registry.repository import open_or_create
from secateur.records.registry.store import Store
from secateur.records.registry.withdrawal import withdraw

LINE = "my-pets/multimodal-0.7"
PUBLISHERS = 4


@pytest.fixture
def location(workplace: Path) -> str:
    return open_or_create("registry.git")


def in_child(work: Callable[[], Any]) -> int:
    """Do something in a process of its own; its exit code, or minus the signal that killed it."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def state(location: str) -> tuple[list[str], list[str]]:
    """Tags, and versions on the branch."""
    folders = git("ls-tree", "-r", "--name-only", "main", folder=location).split()
    return git("tag", folder=location).split(), [
        str(Path(f).parent).removeprefix("masks/") for f in folders if f.endswith("version.json")
    ]


def test_publishers_at_the_same_moment_all_succeed(location: str, tmp_path: Path) -> None:
    made = [write_outputs(tmp_path / str(kept), kept_first=kept) for kept in range(5, 5 + PUBLISHERS)]
    context = multiprocessing.get_context("fork")
    start = context.Barrier(PUBLISHERS + 1)

    def publish(outputs: Outputs) -> None:
        start.wait()
        publish_version(location, outputs)

    def take_back() -> None:
        start.wait()
        withdraw_when_there(location, str(made[0].mask.sample_id[0]))

    processes = [context.Process(target=publish, args=(outputs,)) for outputs in made]
    processes.append(context.Process(target=take_back))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    tags, folders = state(location)
    assert tags == folders == [f"{LINE}/v{number}" for number in range(1, PUBLISHERS + 1)]
    assert {held_mask(location, name) for name in tags} == {outputs.digest for outputs in made}
    # One commit each, on top of the other: the foundation, the versions, the withdrawal.
    assert git("rev-list", "--count", "main", folder=location) == str(1 + PUBLISHERS + 1)
    assert git("rev-list", "--count", "--merges", "main", folder=location) == "0"


def withdraw_when_there(location: str, sample_id: str) -> None:
    while not state(location)[0]:
        pass
    withdraw(location, sample_id)


def held_mask(location: str, name: str) -> str:
    with open_version(location, name) as version:
        return version.published_mask().digest


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill this process in the given one of its steps: before or after a call of git, or of the store."""
    done = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            for when in ("before", "after"):
                done += 1
                if done == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                if when == "before":
                    result = call(*arguments, **named)
            return result

        return run

    monkeypatch.setattr(git_module.subprocess, "run", counted(subprocess.run))
    monkeypatch.setattr(Store, "put", counted(Store.put))


def test_a_publisher_killed_at_any_step_leaves_no_half_version(
    location: str, outputs: Outputs, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(step: int) -> None:
        die_at(step, monkeypatch)
        publish_version(location, outputs)

    seen, step = [], 1
    while True:
        code = in_child(lambda step=step: publish(step))
        tags, folders = state(location)
        assert tags == folders  # nothing, or the whole version
        seen.append(len(tags))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        step += 1
    # It was killed before the push, after it, and in every later attempt that found the version there.
    assert step > 20
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}
    assert publish_version(location, outputs).created is False
    git("clone", "--quiet", location, "copy")
    assert read_json(f"copy/masks/{LINE}/v1/version.json")["mask_digest"] == outputs.digest
    with open_version(location, f"{LINE}/v1") as version:
        assert version.table().info.digest == outputs.mask.meta["dataset"]["digest"]
    assert read_mask(outputs.files["mask_folder"]).digest == outputs.digest
