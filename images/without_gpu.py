"""Takes out of an environment what only a GPU needs; the image `cpu` is smaller by it, at the same bits.

PyTorch's locked build links CUDA's libraries, so those stay; what it opens only when there is a GPU goes, and Triton.
"""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path


def linked(libraries: Iterable[Path]) -> set[Path]:
    """Files that the loader needs for shared libraries, themselves included."""
    paths = [str(library.resolve()) for library in libraries]
    lines = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False).stdout.splitlines()
    found = (line.split()[2] for line in lines if " => /" in line)
    return {Path(os.path.realpath(path)) for path in (*paths, *found)}


def spare(packages: Path) -> list[Path]:
    """Files under `packages`, a folder of installed packages, that are there for a GPU alone."""
    needed = linked(file for name in ("torch", "torchvision") for file in (packages / name).rglob("*.so"))
    files = (file for file in (packages / "nvidia").rglob("*") if file.is_file() and file.suffix != ".py")
    return sorted(file for file in files if file.resolve() not in needed)


def main() -> None:
    """Remove them from the environment that runs this."""
    packages = Path(sysconfig.get_path("purelib"))
    files = spare(packages)
    size = sum(file.stat().st_size for file in files)
    for file in files:
        file.unlink()
    for folder in (packages / "triton", *packages.glob("triton-*.dist-info")):
        size += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder)
    print(f"{size / 1e9:.2f} GB that only a GPU needs are gone")


if __name__ == "__main__":
    main()
