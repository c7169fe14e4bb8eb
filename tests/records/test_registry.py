from pathlib import Path

import pytest
from made_outputs import Outputs

from secateur.errors import InputError
from secateur.records.git import git
from secateur.records.registry.repository import create, open_or_create
from secateur.records.registry.versions import publish_mask


@pytest.fixture
def location(workplace: Path) -> str:
    return open_or_create("registry.git")


def publish(location: str, outputs: Outputs) -> None:
    publish_mask(location, outputs.files["mask_folder"], "pets/random-1", {"mask_digest": outputs.digest})


def test_opening_again_changes_nothing(location: str, workplace: Path) -> None:
    before = git("rev-parse", "main", folder=location)
    assert open_or_create(location, store="elsewhere") == location == str(workplace / "registry.git")
    assert git("rev-parse", "main", folder=location) == before
    assert not Path("elsewhere").exists()


def test_of_two_who_make_a_registry_the_first_wins(location: str, workplace: Path) -> None:
    before = git("rev-parse", "main", folder=location)
    create(Path(location), str(workplace / "other"))
    assert git("rev-parse", "main", folder=location) == before
    assert [p.name for p in workplace.iterdir() if p.name.startswith(".registry")] == []


def test_an_empty_repository_becomes_a_registry(workplace: Path, outputs: Outputs) -> None:
    git("init", "--quiet", "--bare", "--initial-branch=trunk", "given.git")
    publish(open_or_create("given.git", "given-store"), outputs)
    assert git("ls-tree", "--name-only", "trunk", folder="given.git").split() == [".dvc", "masks"]
    assert (workplace / "given-store" / "files").is_dir()


def test_an_odd_path_to_the_store_survives(workplace: Path, outputs: Outputs) -> None:
    odd = workplace / "a, b #c 'd'"
    publish(open_or_create("registry.git", str(odd)), outputs)
    assert (odd / "files").is_dir()


@pytest.mark.parametrize("kind", ["folder", "file", "below a file", "working tree"])
def test_what_is_no_registry_is_said(workplace: Path, kind: str) -> None:
    place = workplace / "place"
    if kind == "folder":
        place.mkdir()
        (place / "notes").touch()
    elif kind == "working tree":
        git("init", "--quiet", "place")
    else:
        place.touch()
    path = place / "registry.git" if kind == "below a file" else place
    with pytest.raises(InputError, match=r"^registry must be .*place"):
        open_or_create(path)


def test_an_unknown_url_is_said_without_its_password(workplace: Path) -> None:
    with pytest.raises(InputError, match="registry must be a git repository") as caught:
        open_or_create("http://ada:secret@localhost:1/registry.git")
    assert "secret" not in str(caught.value)


def test_a_password_of_the_store_is_not_committed(workplace: Path) -> None:
    with pytest.raises(InputError, match="store must be a URL without a user name and password") as caught:
        open_or_create("registry.git", "https://ada:hunter2@example.org/store")
    assert "hunter2" not in str(caught.value)
    assert list(workplace.iterdir()) == []
