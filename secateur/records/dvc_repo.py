"""DVC in this process: its command line costs two seconds a call."""

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo


@contextmanager
def open_repo(root: str | Path, scratch: str | Path | None = None) -> Iterator[Any]:
    """Open a DVC repository, silently.

    Args:
        root: Its working tree.
        scratch: Where DVC keeps what it knows about this tree, for one that is soon gone; None for DVC's own place.
    """
    name_user()
    messages = logging.getLogger("dvc")
    level = messages.level
    messages.setLevel(logging.ERROR)
    try:
        with Repo(str(root), config={"core": {"site_cache_dir": str(scratch)}} if scratch else None) as repo:
            yield repo
    finally:
        messages.setLevel(level)


def name_user() -> None:
    """Give this process a user name where it has none, as in a pod under an arbitrary user id; DVC wants one."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
