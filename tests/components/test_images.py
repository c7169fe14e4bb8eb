import re
import runpy
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import PIL
import pytest

import secateur
from secateur.components.images import source_image

ROOT = Path(__file__).parents[2]


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
    for name in ("pipelines/cli.py", "components/embed/component.py", "__pycache__/streams.pyc"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("changed")
    assert source_image() == before


def test_the_name_hangs_on_the_packages_below(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_image()
    monkeypatch.setattr("secateur.components.images.metadata.version", lambda name: f"{name} 99")
    assert source_image() != before


def test_extras_need_not_be_installed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source_image()
    real = metadata.requires("secateur") or []
    wanted = [*real, "never-installed>=1; extra == 'more'"]
    monkeypatch.setattr("secateur.components.images.metadata.requires", lambda name: wanted)
    assert source_image() == before


def test_the_name_hangs_on_the_helpers_of_components(copy: Path) -> None:
    before = source_image()
    (copy / "components").mkdir(exist_ok=True)
    (copy / "components" / "trainjob.py").write_text("changed")
    assert source_image() != before


def test_the_build_has_what_it_copies() -> None:
    lines = (ROOT / "images" / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if re.match("COPY (?!--from)", line) for name in line.split()[1:-1]]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, pattern) for pattern in allowed), name


def test_both_images_run_as_a_user_that_kubernetes_can_tell_from_root() -> None:
    stages = re.split(r"^FROM ", (ROOT / "images" / "Dockerfile").read_text(), flags=re.MULTILINE)
    for target in ("cpu", "gpu"):
        [stage] = [stage for stage in stages if stage.startswith(f"runtime AS {target}\n")]
        [user] = re.findall(r"^USER (\S+)$", stage, re.MULTILINE)
        assert int(user.split(":")[0]) > 0  # by number: of a name, Kubernetes does not know whose it is


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="images hold Linux, and its shared libraries")


@LINUX
def test_the_cpu_image_keeps_what_is_linked(tmp_path: Path) -> None:
    # Pillow in PyTorch's place: _imaging links libjpeg, and only _webp links libwebp.
    libraries = Path(PIL.__file__).parents[1] / "pillow.libs"
    [jpeg], [webp] = libraries.glob("libjpeg-*.so*"), libraries.glob("libwebp-*.so*")
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "lib" / "a.so").symlink_to(next(Path(PIL.__file__).parent.glob("_imaging.*.so")))
    (tmp_path / "nvidia" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "lib" / "linked.so").symlink_to(jpeg)
    (tmp_path / "nvidia" / "lib" / "opened.so").symlink_to(webp)
    (tmp_path / "nvidia" / "__init__.py").touch()
    spare = runpy.run_path(str(ROOT / "images" / "without_gpu.py"))["spare"]
    assert spare(tmp_path) == [tmp_path / "nvidia" / "lib" / "opened.so"]


@LINUX
@pytest.mark.skipif(
    not shutil.which("ld"), reason="stubs are made with binutils, which the build of the image installs"
)
def test_a_stub_loads_in_a_librarys_place_and_its_functions_fail(tmp_path: Path) -> None:
    # Again Pillow: _imaging and libtiff ask for versioned functions of libjpeg.
    pillow = Path(PIL.__file__).parent
    shutil.copytree(pillow.parent / "pillow.libs", tmp_path / "pillow.libs")
    (tmp_path / "PIL").mkdir()
    extension = Path(shutil.copy(next(pillow.glob("_imaging.*.so")), tmp_path / "PIL"))
    [jpeg], [tiff] = (list((tmp_path / "pillow.libs").glob(f"lib{name}-*.so*")) for name in ("jpeg", "tiff"))
    tools = runpy.run_path(str(ROOT / "images" / "without_gpu.py"))
    given, asked = tools["names"]([jpeg], "--defined-only"), tools["names"]([extension, tiff], "--undefined-only")
    tools["hollow"](jpeg, {name: given[name] for name in given.keys() & asked.keys()})

    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(ctypes.CDLL(sys.argv[2]).jpeg_start_decompress(None))"
    load = [sys.executable, "-c", code, str(extension), str(jpeg)]
    assert subprocess.run(load, capture_output=True, text=True, check=True).stdout == "1\n"
    tools["hollow"](jpeg, {"jpeg_start_decompress": given["jpeg_start_decompress"]})
    assert "undefined symbol: jpeg_" in subprocess.run(load, capture_output=True, text=True, check=False).stderr
