import shutil
from pathlib import Path

import pytest

import secateur
from secateur.components.images import source_image


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's source that `source_image` looks at."""
    package = tmp_path / "secateur"
    ignored = shutil.ignore_patterns("components", "pipelines", "__pycache__")
    shutil.copytree(Path(secateur.__file__).parent, package, ignore=ignored)
    monkeypatch.setattr(secateur, "__file__", str(package / "__init__.py"))
    return package


def test_the_name_hangs_on_the_librarys_source(copy: Path) -> None:
    before = source_image()
    assert before == source_image()
    assert before.startswith(f"secateur:{secateur.__version__}-")
    with (copy / "streams.py").open("a") as file:
        file.write("# changed\n")
    assert source_image() != before


def test_the_name_does_not_hang_on_what_runs_around_the_library(copy: Path) -> None:
    before = source_image()
    for name in ("pipelines/cli.py", "components/images.py", "__pycache__/streams.pyc"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("changed")
    assert source_image() == before


def test_the_name_hangs_on_the_packages_below(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_image()
    monkeypatch.setattr("secateur.components.images.metadata.version", lambda name: f"{name} 99")
    assert source_image() != before
