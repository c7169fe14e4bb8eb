import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import enter_workplace
from made_outputs import Outputs
from made_registry import make_registry
from mlflow import MlflowClient

from secateur.records.git import author, git
from secateur.records.publishing import Published
from secateur.records.registry.checkout import open_version
from secateur.records.verifying import verify

PARTS = ["tag", "mask", "trajectory", "index", "table", "run", "run's mask", "model"]


def wrong(registry: str, name: str, tracking_uri: str) -> dict[str, str]:
    """What is not fine, and why."""
    with open_version(registry, name) as version:
        checks = list(verify(version, tracking_uri))
    return {check.what: check.detail for check in checks if not check.fine}


@pytest.fixture
def moved(published: tuple[Path, Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What was published, on another machine: the place that it was published from is gone."""
    work, _ = published
    enter_workplace(monkeypatch, tmp_path)
    there = tmp_path / "there"
    shutil.copytree(work / ".secateur", there)
    away = work.with_name("away")
    work.rename(away)
    try:
        yield there
    finally:
        away.rename(work)


@pytest.mark.parametrize("by_environment", [False, True])
def test_all_that_a_version_names_is_there(
    moved: Path, published: tuple[Path, Published], monkeypatch: pytest.MonkeyPatch, *, by_environment: bool
) -> None:
    _, made = published
    uri = f"sqlite:///{moved}/mlflow.db"
    if by_environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with open_version(str(moved / "registry.git"), made.version) as version:
        checks = list(verify(version, None if by_environment else uri))
    assert [(check.what, check.fine) for check in checks] == [(part, True) for part in PARTS], checks
    assert checks[1].detail == checks[6].detail == made.mask_digest


def test_what_is_damaged_is_named(moved: Path, published: tuple[Path, Published]) -> None:
    _, made = published
    (program,) = (moved / "mlartifacts").rglob("model.pt2")
    content = program.read_bytes()
    middle = content.index(b"weight_0") + 400
    program.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    (mask,) = (moved / "mlartifacts").rglob("mask.parquet")
    mask.unlink()
    client = MlflowClient(f"sqlite:///{moved}/mlflow.db")
    client.set_tag(made.run_id, "mask_digest", "another")
    repository = moved / "registry.git"
    git(*author(repository), "tag", "--force", "--annotate", "--message=x", made.version, "main~1", folder=repository)
    found = wrong(str(moved / "registry.git"), made.version, f"sqlite:///{moved}/mlflow.db")
    assert sorted(found) == ["model", "run", "run's mask", "tag"]
    assert found["run"] == f"mask_digest of run {made.run_id} must be {made.mask_digest[:12]}, got 'another'"
    assert "mask.parquet" in found["run's mask"]


def test_a_damaged_store_is_named(moved: Path, published: tuple[Path, Published]) -> None:
    _, made = published
    for file in (moved / "store").rglob("*.dir"):
        file.unlink()
    found = wrong(str(moved / "registry.git"), made.version, f"sqlite:///{moved}/mlflow.db")
    assert list(found) == ["table"]
    assert "it is not there" in found["table"]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///nowhere/mlflow.db"])
def test_a_server_away_is_one_check_that_is_not_fine(workplace: Path, outputs: Outputs, uri: str) -> None:
    location = make_registry(workplace, outputs)
    found = wrong(location, "my-pets/multimodal-0.7/v1", uri)
    assert list(found) == ["MLflow"]
    assert "tracking_uri must be" in found["MLflow"]
    assert not Path("nowhere").exists()
