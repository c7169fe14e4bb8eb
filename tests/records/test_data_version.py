import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secateur.dataset import digits, open_table
from secateur.errors import InputError
from secateur.records import data_version
from secateur.records.data_version import track_default
from secateur.records.git import git

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(workplace: Path) -> Path:
    """A repository with this one's DVC configuration and `data.dvc`."""
    git("init", "--quiet")
    (workplace / ".dvc").mkdir()
    for name in (".gitignore", ".dvcignore", "data.dvc", ".dvc/config", ".dvc/.gitignore"):
        shutil.copyfile(ROOT / name, workplace / name)
    return workplace


def status(root: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_fresh_clone_is_up_to_date_after_the_build(root: Path) -> None:
    pointer = (root / "data.dvc").read_bytes()
    track_default(root)
    assert status(root) == "Data and pipelines are up to date."
    assert (root / "data.dvc").read_bytes() == pointer
    assert git("status", "--porcelain", "--untracked-files=all", folder=root).split() == [
        *("??", ".dvc/.gitignore", "??", ".dvc/config", "??", ".dvcignore", "??", ".gitignore", "??", "data.dvc")
    ]
    assert sum(open_table(root / "data").info.counts.values()) == 1797
    assert not [p for p in (root / "data").iterdir() if "clean" in p.name]


def test_a_second_time_builds_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track_default(root)
    monkeypatch.setattr(data_version, "build", lambda _: pytest.fail("built again"))
    track_default(root)


def test_what_somebody_changed_is_built_again(root: Path) -> None:
    track_default(root)
    info = root / "data" / "dataset.json"
    good = info.read_bytes()
    info.write_text("{}")
    track_default(root)
    assert info.read_bytes() == good


def test_other_bytes_are_refused_before_they_are_added(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = (root / "data.dvc").read_text()
    wanted = pointer.split("md5: ")[1].split()[0]
    monkeypatch.setattr(digits, "PROMPTS", ("a {}.",))
    with pytest.raises(InputError, match=rf"must have the DVC hash {wanted} that data.dvc says, got \w+\.dir"):
        track_default(root)
    assert (root / "data.dvc").read_text() == pointer
    assert not (root / ".dvc" / "cache").exists()


def test_a_change_on_purpose_is_accepted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = (root / "data.dvc").read_text()
    monkeypatch.setattr(digits, "PROMPTS", ("a {}.",))
    track_default(root, accept=True)
    assert (root / "data.dvc").read_text() != pointer
    assert status(root) == "Data and pipelines are up to date."


def test_a_root_without_pointer_is_left_alone(workplace: Path) -> None:
    with pytest.raises(InputError, match=r"root must hold data\.dvc"):
        track_default(workplace)
    assert list(workplace.iterdir()) == []


def test_a_root_without_git_is_said(workplace: Path) -> None:
    shutil.copyfile(ROOT / "data.dvc", workplace / "data.dvc")
    with pytest.raises(InputError, match="root must be a DVC repository in git"):
        track_default(workplace)
    assert [p.name for p in workplace.iterdir()] == ["data.dvc"]
