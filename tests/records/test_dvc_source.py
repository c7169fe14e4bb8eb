"""Data sets in DVC repositories, by revision and by pointer."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateur.dataset import open_table
from secateur.dataset.sources import IngestConfig
from secateur.dataset.sources.location import parse, written
from secateur.errors import InputError
from secateur.records.dvc_repo import open_repo
from secateur.records.dvc_source import ingest, pinned
from secateur.records.git import author, git


def add_pictures(folder: Path, count: int, first: int = 0) -> None:
    for i in range(first, first + count):
        pixels = np.random.default_rng(i).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        file = folder / ("cat", "dog")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def commit(root: Path, tag: str) -> str:
    with open_repo(root) as repo:
        repo.add([str(root / "pets")])
        repo.push()
    git("add", "--all", folder=root)
    git(*author(root), "commit", "--quiet", "--message", tag, folder=root)
    git("tag", tag, folder=root)
    return git("rev-parse", "HEAD", folder=root)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A repository whose data have grown once, with a remote at a relative path; and its two commits."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("dvc")
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        root = folder / "repository"
        root.mkdir()
        git("init", "--quiet", "--initial-branch=main", folder=root)
        (root / ".dvc").mkdir()
        (root / ".dvc" / "config").write_text("[core]\n    remote = near\n['remote \"near\"']\n    url = ../../store\n")
        (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        add_pictures(root / "pets", 20)
        (root / "plain").mkdir()
        (root / "plain" / "all.csv").write_text("path,label\n../pets/cat/0.png,cat\n")
        commits = [commit(root, "v1")]
        add_pictures(root / "pets", 6, first=20)
        return root, [*commits, commit(root, "v2")]


def read(source: str, out: Path) -> tuple[int, str, str]:
    info = ingest(IngestConfig(source=source), out / "table", out / "clean.parquet")
    return len(open_table(out / "table")), info.revision, info.name


def test_any_revision_can_be_had(made: tuple[Path, list[str]], workplace: Path) -> None:
    root, (first, second) = made
    shutil.rmtree(root / ".dvc" / "cache", ignore_errors=True)  # what is left is the remote
    assert read(f"dvc:{root}#pets@v1", workplace) == (20, first, "pets")
    assert read(f"dvc:{root}#pets@main", workplace) == (26, second, "pets")
    assert read(f"dvc:{root}#pets", workplace) == (26, second, "pets")
    assert read(f"dvc:{root}#pets@{first[:9]}", workplace) == (20, first, "pets")


def test_from_a_url(made: tuple[Path, list[str]], workplace: Path) -> None:
    root, (first, _) = made
    config = (root / ".dvc" / "config").read_text().replace("../../store", str(root.parent / "store"))
    shutil.copytree(root / ".git", workplace / "far.git")
    git("config", "core.bare", "true", folder=workplace / "far.git")
    git("clone", "--quiet", str(workplace / "far.git"), "tree")
    tree = workplace / "tree"
    (tree / ".dvc" / "config").write_text(config)
    git("add", "--all", folder=tree)
    git(*author(tree), "commit", "--quiet", "--message", "absolute", folder=tree)
    git("push", "--quiet", folder=tree)
    head = git("rev-parse", "HEAD", folder=tree)
    source = f"dvc:file://{workplace}/far.git#pets"
    assert read(source, workplace) == (26, head, "pets")
    assert written(pinned(parse(source))) == f"{source}@{head}"
    assert pinned(parse(f"{source}@v1")).revision == first
    assert pinned(parse(f"{source}@{first[:9]}")).revision == first[:9]


def test_a_revision_is_pinned_before_the_work(made: tuple[Path, list[str]]) -> None:
    root, (first, second) = made
    assert pinned(parse(f"dvc:{root}#pets")).revision == second
    assert pinned(parse(f"dvc:{root}#pets@v1")).revision == first
    assert pinned(parse(f"dvc:{root}#pets@{first}")).revision == first
    with pytest.raises(InputError, match=r"source must be a DVC repository with revision 'v9', got '.*repository'"):
        pinned(parse(f"dvc:{root}#pets@v9"))
    with pytest.raises(InputError, match="source must be a DVC repository with revision 'HEAD', got 'file:///nowhere'"):
        pinned(parse("dvc:file:///nowhere#pets"))


def test_a_pointer(made: tuple[Path, list[str]], workplace: Path) -> None:
    root, _ = made
    tree = workplace / "tree"
    git("clone", "--quiet", str(root), str(tree))
    (tree / ".dvc" / "config").write_text((root / ".dvc" / "config").read_text().replace("../..", str(root.parent)))
    count, revision, name = read(str(tree / "pets.dvc"), workplace)
    assert (count, name) == (26, "pets")
    assert revision in (tree / "pets.dvc").read_text()
    with open_repo(tree) as repo:
        repo.pull()
    (tree / ".dvc" / "config").write_text("")
    shutil.rmtree(tree / ".dvc" / "cache")
    assert read(str(tree / "pets.dvc"), workplace) == (26, revision, "pets")
    next((tree / "pets" / "cat").iterdir()).unlink()
    with pytest.raises(InputError, match=rf"pets must have the DVC hash {revision} that pets\.dvc says, got \w+\.dir"):
        read(str(tree / "pets.dvc"), workplace)


def test_a_table_keeps_its_digest_and_gets_the_revision(
    made: tuple[Path, list[str]], workplace: Path, digits_folder: Path
) -> None:
    git("init", "--quiet", folder=workplace)
    shutil.copytree(digits_folder, workplace / "digits")
    git("add", "--all", folder=workplace)
    git(*author(workplace), "commit", "--quiet", "--message", "plain git", folder=workplace)
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc" / "config").write_text("")
    git("add", "--all", folder=workplace)
    git(*author(workplace), "commit", "--quiet", "--message", "DVC", folder=workplace)
    info = ingest(IngestConfig(source=f"dvc:{workplace}#digits"), workplace / "table", workplace / "clean.parquet")
    assert info.digest == open_table(digits_folder).info.digest
    assert info == open_table(workplace / "table").info
    assert info.revision == git("rev-parse", "HEAD", folder=workplace)


def test_what_cannot_be_fetched(made: tuple[Path, list[str]], workplace: Path) -> None:
    root, _ = made
    with pytest.raises(InputError, match="source must name a path in the DVC repository, got 'dogs', which is not"):
        read(f"dvc:{root}#dogs", workplace)
    with pytest.raises(
        InputError, match=r"source must be data that DVC can fetch, got 'pets' of .* at revision 'v9': "
    ):
        read(f"dvc:{root}#pets@v9", workplace)
    with pytest.raises(InputError, match="source must be data that DVC can fetch, got 'pets' of 'file:///nowhere': "):
        read("dvc:file:///nowhere#pets", workplace)
    (workplace / "pets.dvc").write_text("outs: []\n")
    with pytest.raises(InputError, match=r"source must be data that DVC can fetch, got .*pets\.dvc': "):
        read("pets.dvc", workplace)
    assert not (workplace / "table").exists()


def test_passwords_do_not_show(workplace: Path) -> None:
    source = f"dvc:file://secret@/{workplace}/nowhere#pets"
    for attempt in (lambda: read(source, workplace), lambda: pinned(parse(source))):
        with pytest.raises(InputError) as raised:
            attempt()
        assert "secret" not in str(raised.value)


def test_other_sources_are_read_as_ever(workplace: Path) -> None:
    add_pictures(workplace / "pets", 20)
    assert read("pets", workplace) == (20, "", "pets")
