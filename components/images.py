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
    for requirement in sorted(metadata.requires("secateur") or ()):
        name = re.split(r"[^\w.-]", requirement)[0]
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    package = Path(secateur.__file__).parent
    for file in sorted(package.rglob("*")):
        parts = file.relative_to(package).parts
        if file.is_file() and "__pycache__" not in parts and parts[0] not in ("components", "pipelines"):
            digest.update("/".join(parts).encode() + b"\n" + file.read_bytes())
    return f"secateur:{secateur.__version__}-{digest.hexdigest()[:12]}"
