"""What a run is told of its source before it starts."""

from pathlib import Path

import pytest

from secateur.dataset.sources import IngestConfig, hub
from secateur.dataset.sources.location import Location
from secateur.pipelines.checks import absolute_source, snapshot
from secateur.records.git import author, git
from secateur.semantics.config import ClipConfig


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def absolute(source: str) -> str:
    return absolute_source(IngestConfig(source=source)).source


def test_paths_are_absolute(place: Path) -> None:
    for name in ("all.csv", "0.tar", "1.tar", "pets.dvc", "pets/cat/0.png"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"")
    for source in ("all.csv", "{0..1}.tar", "pets.dvc", "pets"):
        assert absolute(source) == f"{place}/{source}"
        assert absolute(absolute(source)) == absolute(source)
    assert absolute("torchvision:MNIST:pets") == f"torchvision:MNIST:{place}/pets"
    assert absolute("memory://far/all.csv") == "memory://far/all.csv"
    assert absolute("digits") == "digits"


def test_revisions_are_fixed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("init", "--quiet", "repository")
    git(*author("repository"), "commit", "--quiet", "--allow-empty", "--message", "one", folder="repository")
    head = git("rev-parse", "HEAD", folder="repository")
    assert absolute("dvc:repository#data") == f"dvc:{place}/repository#data@{head}"
    monkeypatch.setattr(hub, "pinned", lambda location: Location("hf", location.place, location.inside, "c0ffee"))
    assert absolute("hf:ada/pets#train@main") == "hf:ada/pets#train@c0ffee"
    assert absolute("hf:ada/pets") == "hf:ada/pets@c0ffee"


def test_the_state_of_a_manifest_covers_its_pictures(place: Path) -> None:
    (place / "0.png").write_bytes(b"1")
    (place / "all.csv").write_text("path,label\n0.png,cat\n")
    before = snapshot("all.csv", ClipConfig())
    assert before == snapshot("all.csv", ClipConfig())
    (place / "0.png").write_bytes(b"22")
    assert snapshot("all.csv", ClipConfig()) != before
    assert snapshot("digits", ClipConfig()) == ""
