import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_outputs import Outputs

from secateur.errors import InputError
from secateur.pruning.mask import read_mask
from secateur.records.git import git
from secateur.records.registry import repository
from secateur.records.registry.repository import open_or_create
from secateur.records.registry.versions import Version, publish_mask

LINE = "my-pets/multimodal-0.7"


@pytest.fixture
def location(workplace: Path) -> str:
    return open_or_create("registry.git")


def publish(location: str, outputs: Outputs, run_id: str = "mine") -> Version:
    facts = {"mask_digest": outputs.digest, "run_id": run_id}
    return publish_mask(location, outputs.files["mask_folder"], LINE, facts)


def tags(location: str) -> list[str]:
    return git("tag", folder=location).split()


def test_clone_and_pull_bring_the_mask_back(location: str, outputs: Outputs, workplace: Path) -> None:
    version = publish(location, outputs)
    assert version == Version(f"{LINE}/v1", outputs.digest, created=True)
    subprocess.run(["git", "clone", "--quiet", location, "copy"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd="copy", check=True)
    folder = workplace / "copy" / "masks" / version.name
    assert read_mask(folder).digest == outputs.digest
    for name in ("mask.parquet", "trajectory.parquet"):
        assert (folder / name).read_bytes() == (outputs.files["mask_folder"] / name).read_bytes()
    assert json.loads((folder / "version.json").read_text()) == {
        "version": version.name,
        "mask_digest": outputs.digest,
        "run_id": "mine",
    }


def test_data_lie_in_the_store_and_not_in_git(location: str, outputs: Outputs, workplace: Path) -> None:
    publish(location, outputs)
    in_git = git("ls-tree", "-r", "--name-only", "main", folder=location).split()
    assert not [name for name in in_git if name.endswith(".parquet")]
    assert len([p for p in (workplace / "store").rglob("*") if p.is_file()]) == 2


def test_a_version_is_one_commit_with_an_annotated_tag(location: str, outputs: Outputs) -> None:
    before = git("rev-parse", "main", folder=location)
    publish(location, outputs)
    assert git("rev-parse", "main~1", folder=location) == before
    assert git("rev-parse", f"{LINE}/v1^{{commit}}", folder=location) == git("rev-parse", "main", folder=location)
    assert git("cat-file", "-t", f"{LINE}/v1", folder=location) == "tag"
    assert git("log", "-1", "--format=%an", folder=location) == "secateur"


def test_the_same_mask_keeps_its_version(location: str, outputs: Outputs, other_outputs: Outputs) -> None:
    publish(location, outputs)
    assert publish(location, other_outputs).name == f"{LINE}/v2"
    before = git("show-ref", folder=location)
    assert publish(location, outputs) == Version(f"{LINE}/v1", outputs.digest, created=False)
    assert git("show-ref", folder=location) == before


def interrupt(monkeypatch: pytest.MonkeyPatch, location: str, others: list[Outputs]) -> None:
    """Let others publish between this one's clone and its push."""
    real = repository.push

    def push(tree: Path, tags: Sequence[str]) -> None:
        if others:
            publish(location, others.pop(), run_id="theirs")
        real(tree, tags)

    monkeypatch.setattr(repository, "push", push)


def test_a_push_in_between_leads_to_the_next_number(
    location: str, outputs: Outputs, other_outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, location, [other_outputs])
    assert publish(location, outputs) == Version(f"{LINE}/v2", outputs.digest, created=True)
    assert tags(location) == [f"{LINE}/v1", f"{LINE}/v2"]
    # On top of the other's, nothing lost and nothing merged.
    assert git("rev-parse", "main~1", folder=location) == git("rev-parse", f"{LINE}/v1^{{commit}}", folder=location)
    for number, holder in ((1, other_outputs), (2, outputs)):
        text = git("show", f"main:masks/{LINE}/v{number}/version.json", folder=location)
        assert json.loads(text)["mask_digest"] == holder.digest


def test_a_push_of_the_same_mask_in_between_is_the_version(
    location: str, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, location, [outputs])
    assert publish(location, outputs) == Version(f"{LINE}/v1", outputs.digest, created=False)
    assert tags(location) == [f"{LINE}/v1"]


def test_a_registry_that_never_holds_still_is_given_up(
    location: str, outputs: Outputs, other_outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "ATTEMPTS", 1)
    interrupt(monkeypatch, location, [other_outputs])
    with pytest.raises(InputError, match="registry must hold still"):
        publish(location, outputs)


def test_a_refused_push_leaves_neither_commit_nor_tag(location: str, outputs: Outputs) -> None:
    hook = Path(location) / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    before = git("show-ref", folder=location)
    with pytest.raises(InputError, match="not today"):
        publish(location, outputs)
    assert git("show-ref", folder=location) == before


def test_a_repository_of_something_else_is_said(workplace: Path, outputs: Outputs) -> None:
    git("init", "--quiet", "--initial-branch=main", "tree")
    git("-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "--allow-empty", "--message=x", folder="tree")
    git("clone", "--quiet", "--bare", "tree", "other.git")
    with pytest.raises(InputError, match="registry must hold a DVC configuration"):
        publish(open_or_create("other.git"), outputs)


def test_a_store_that_is_gone_is_not_begun_anew(location: str, outputs: Outputs, workplace: Path) -> None:
    (workplace / "store").rename(workplace / "moved")
    with pytest.raises(InputError, match="store must be the folder that the registry names"):
        publish(location, outputs)
    assert tags(location) == []
    assert not (workplace / "store").exists()


def test_a_store_that_takes_nothing_is_said_before_git_is_touched(
    location: str, outputs: Outputs, workplace: Path
) -> None:
    (workplace / "store" / "files").write_text("in the way")
    with pytest.raises(InputError, match="store must take data"):
        publish(location, outputs)
    assert tags(location) == []


def test_nothing_is_left_behind(
    location: str, outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    publish(location, outputs)
    assert os.listdir(scratch) == []
