"""The container image that every component runs in."""

import hashlib
import os
import re
from importlib import metadata
from pathlib import Path

import secateur

IMAGE = os.environ.get("SECATEUR_IMAGE") or f"secateur:{secateur.__version__}"


def source_image() -> str:
    """Name an image after the library's source and the packages that it stands on.

    A local run opens no image, but KFP's cache reads its name: with this one, a step whose code changed is run again.
    """
    digest = hashlib.sha256()
    # Extras are left out: they may not be installed, and no step's result depends on them.
    for requirement in sorted(text for text in metadata.requires("secateur") or () if "extra ==" not in text):
        name = re.split(r"[^\w.-]", requirement)[0]
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    package = Path(secateur.__file__).parent
    files = {
        file for file in package.rglob("*") if file.relative_to(package).parts[0] not in ("components", "pipelines")
    }
    files.update((package / "components").glob("*.py"))  # KFP's cache sees the source of a component, not its helpers
    for file in sorted(files):
        name = file.relative_to(package).as_posix()
        if file.is_file() and "__pycache__" not in name:
            digest.update(name.encode() + b"\n" + file.read_bytes())
    return f"secateur:{secateur.__version__}-{digest.hexdigest()[:12]}"


if __name__ == "__main__":
    print(source_image())
