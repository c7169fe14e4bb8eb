"""Takes out of an environment what only a GPU needs; the image `cpu` is smaller by it, at the same bits.

PyTorch's locked build does not load without the libraries of CUDA that it links. The large ones are called only when
there is a GPU: a stub takes the place of each, with the same names, whose functions all say that they failed. What
PyTorch opens only when there is a GPU goes altogether, and Triton. It needs binutils.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

LARGE = (
    "cublas", "cublasLt", "cufft", "curand", "cusolver", "cusparse", "cusparseLt", "nccl", "nvJitLink", "nvrtc",
    "nvshmem_host",
)  # fmt: skip
RETURN_1 = {"x86_64": ".byte 0xb8, 1, 0, 0, 0, 0xc3", "aarch64": "mov w0, 1\nret"}  # an error, to each of them


def compiled(packages: Path) -> list[Path]:
    """PyTorch's shared libraries under `packages`, a folder of installed packages."""
    return [file for name in ("torch", "torchvision") for file in (packages / name).rglob("*.so")]


def linked(libraries: Iterable[Path]) -> set[Path]:
    """Files that the loader needs for shared libraries, themselves included."""
    paths = [str(library.resolve()) for library in libraries]
    lines = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False).stdout.splitlines()
    found = (line.split()[2] for line in lines if " => /" in line)
    return {Path(os.path.realpath(path)) for path in (*paths, *found)}


def spare(packages: Path) -> list[Path]:
    """Files that PyTorch opens only when there is a GPU."""
    needed = linked(compiled(packages))
    files = (file for file in (packages / "nvidia").rglob("*") if file.is_file() and file.suffix != ".py")
    return sorted(file for file in files if file.resolve() not in needed)


def names(libraries: Iterable[Path], which: str) -> dict[str, str]:
    """C functions that libraries give ("--defined-only") or ask for ("--undefined-only"), and versions, if any."""
    command = ["nm", "--dynamic", which, "--format=just-symbols", *map(str, libraries)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = (line.replace("@@", "@").partition("@") for line in lines if line and not line.startswith("_"))
    return {name: version for name, _, version in found if name.isidentifier()}  # with several, a heading for each


def hollow(library: Path, functions: Mapping[str, str]) -> None:
    """Put a stub in a library's place, with these functions, by name, in these versions; they return 1."""
    listed = sorted(functions)
    versions = {version: [n for n in listed if functions[n] == version] for version in functions.values() if version}
    with tempfile.TemporaryDirectory() as folder:
        source, program, script = (Path(folder) / name for name in ("stub.s", "stub.o", "stub.map"))
        labels = [f".globl {name}\n.type {name}, %function\n{name}:" for name in listed]
        source.write_text("\n".join([*labels, RETURN_1[os.uname().machine], '.section .note.GNU-stack,"",%progbits\n']))
        script.write_text("".join(f"{version} {{ {'; '.join(own)}; }};\n" for version, own in versions.items()))
        subprocess.run(["as", "-o", program, source], check=True)
        library.unlink()
        given = ["--version-script", script] if versions else []
        subprocess.run(["ld", "-shared", "-soname", library.name, *given, "-o", library, program], check=True)


def size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Change the environment that runs this."""
    packages = Path(sysconfig.get_path("purelib"))
    before = size(packages)
    for file in spare(packages):
        file.unlink()
    for folder in (packages / "triton", *packages.glob("triton-*.dist-info")):
        shutil.rmtree(folder)
    asked = names(compiled(packages), "--undefined-only")
    for library in [file for name in LARGE for file in (packages / "nvidia").rglob(f"lib{name}.so.*")]:
        given = names([library], "--defined-only")
        hollow(library, {name: given[name] for name in asked.keys() & given.keys()})
    print(f"{(before - size(packages)) / 1e9:.2f} GB that only a GPU needs are gone")


if __name__ == "__main__":
    main()
