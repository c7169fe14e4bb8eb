"""The default data set under DVC: `data.dvc` at the root of the repository says what `data/` must hold."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException

from secateur.dataset.sources import IngestConfig, ingest
from secateur.errors import InputError
from secateur.records.dvc_repo import open_repo

log = logging.getLogger(__name__)

FOLDER = "data"
POINTER = "data.dvc"


def track_default(root: str | Path, *, accept: bool = False) -> None:
    """Build the embedded digits in `data/` and bring them into DVC's cache; quick where that was done before.

    What was built is compared with `data.dvc` before anything is added: DVC itself would take any bytes.

    Args:
        root: The repository.
        accept: Write `data.dvc` anew from what was built, for whoever changes the digits on purpose.

    Raises:
        InputError: No `data.dvc`, no DVC repository, or bytes other than it says.
    """
    root = Path(root)
    if not accept and not (root / POINTER).is_file():
        raise InputError(f"root must hold {POINTER}, got none in {str(root)!r}")
    try:
        with open_repo(root) as repo:
            if accept:
                build(root)
                repo.add([str(root / FOLDER)])
            elif repo.status([str(root / POINTER)]):
                build(root)
                check(repo, root)
                repo.commit(str(root / POINTER))
    except DvcException as error:
        raise InputError(f"root must be a DVC repository in git, got {str(root)!r}: {error}") from error


def build(root: Path) -> None:
    """Write the table of the digits; their clean labels stay out of it, and out of the repository."""
    with tempfile.TemporaryDirectory(prefix="secateur-data-") as temporary:
        ingest(IngestConfig(), root / FOLDER, Path(temporary) / "clean_labels.parquet")


def check(repo: Any, root: Path) -> None:
    """Check that `data/` is what `data.dvc` says.

    Raises:
        InputError: It is something else.
    """
    (stage,) = repo.stage.collect(str(root / POINTER))
    (out,) = stage.outs
    wanted, built = out.hash_info.value, out.get_hash().value
    if built != wanted:
        raise InputError(f"{FOLDER}/ must have the DVC hash {wanted} that {POINTER} says, got {built}")
