"""The store of a registry: files and folders under their hash, in any place that DVC knows."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from secateur.errors import InputError
from secateur.files import replacing
from secateur.records.git import is_url, without_credentials
from secateur.records.registry.repository import REMOTE, require

log = logging.getLogger(__name__)

SUFFIX = ".dvc"
FOLDER_SUFFIX = ".dir"  # by which DVC tells the list of a folder's files from a file
READERS = 8


@dataclass(frozen=True)
class Pointer:
    """What a `.dvc` file says of one file or folder."""

    name: str
    md5: str  # of the file; of the list of files, and with its suffix, for a folder
    size: int  # bytes in all
    files: int | None = None  # of a folder

    def text(self) -> str:
        """The contents of its `.dvc` file."""
        out: dict[str, Any] = {"md5": self.md5, "size": self.size, "hash": "md5", "path": self.name}
        return yaml.safe_dump({"outs": [out | ({} if self.files is None else {"nfiles": self.files})]}, sort_keys=False)

    @staticmethod
    def read(path: Path) -> "Pointer":
        """Read a `.dvc` file.

        Raises:
            InputError: There is none, or it is damaged.
        """
        try:
            (out,) = yaml.safe_load(path.read_text())["outs"]
            return Pointer(out["path"], out["md5"], out["size"], out.get("nfiles"))
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"registry must hold the pointer {path.name}, got none that can be read") from error


@dataclass(frozen=True)
class Store:
    """A store that is open."""

    repo: Any  # dvc.repo.Repo
    url: str  # without credentials

    def put(self, path: Path, name: str) -> Pointer:
        """Store a file or folder, what is there already is left; nothing of it is kept here.

        Args:
            path: Where it is.
            name: What it will be called.

        Raises:
            InputError: The store does not take it.
        """
        from dvc.fs import localfs
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer

        with self.trouble("take data"):
            staged, meta, found = build(self.repo.cache.local, str(path), localfs, "md5")
            done = transfer(staged, self.repo.cloud.get_remote_odb(), {found.hash_info}, shallow=False)
            if done.failed:
                raise OSError(f"{len(done.failed)} files failed")
        return Pointer(name, str(found.hash_info.value), int(meta.size or 0), meta.nfiles)

    def get(self, pointer: Pointer, path: Path) -> Path:
        """Bring a file or folder here, and check every byte of it.

        Args:
            pointer: What is wanted.
            path: Where to.

        Raises:
            InputError: It is not there, or something else.
        """
        with replacing(path) as temporary:
            if pointer.files is None:
                self.get_file(pointer.name, pointer.md5, temporary)
                return path
            listed = temporary.with_name(f"{temporary.name}.list")
            self.get_file(pointer.name, pointer.md5, listed)
            entries = json.loads(listed.read_text())
            listed.unlink()
            temporary.mkdir()
            with ThreadPoolExecutor(READERS) as pool:
                for done in [
                    pool.submit(self.get_file, f"{pointer.name}/{e['relpath']}", e["md5"], inside(temporary, e))
                    for e in entries
                ]:
                    done.result()
        return path

    def get_file(self, name: str, md5: str, path: Path) -> None:
        """Bring one file here, and check it."""
        place = self.repo.cloud.get_remote_odb()
        with self.trouble(f"hold {name} with the MD5 {md5}"):
            source = place.oid_to_path(md5)
            if not place.fs.exists(source):
                raise FileNotFoundError("it is not there")
            path.parent.mkdir(parents=True, exist_ok=True)
            place.fs.get_file(source, str(path))
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != md5.removesuffix(FOLDER_SUFFIX):
                path.unlink()
                raise OSError(f"its MD5 is {found}")

    @contextmanager
    def trouble(self, rule: str) -> Iterator[None]:
        """Say in one sentence what went wrong; each kind of remote has exceptions of its own."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            reason = without_credentials(" ".join(str(error).split()) or type(error).__name__)
            raise InputError(f"store must {rule}, got {self.url!r}: {reason}") from error


def inside(folder: Path, entry: dict[str, str]) -> Path:
    """Where a listed file goes.

    Raises:
        InputError: Out of the folder.
    """
    path = folder / entry["relpath"]
    require(path.resolve().is_relative_to(folder.resolve()), f"store must list files of a folder, got {entry}")
    return path


@contextmanager
def open_store(tree: Path, location: str, moved: str | None = None) -> Iterator[Store]:
    """Open the store that the registry in a working tree names.

    Args:
        tree: What `registry.opened` gave.
        location: Of the registry; where the store's folder is gone, one beside the registry is taken.
        moved: Where the store is now, if not where the registry says.

    Raises:
        InputError: There is none.
    """
    from secateur.records.dvc_repo import open_repo

    with open_repo(tree, scratch=tree.parent / "dvc") as repo:
        name = repo.config["core"].get("remote")
        require(name in repo.config["remote"], "registry must name a DVC remote, got none in its .dvc/config")
        url = moved or find_store(str(repo.config["remote"][name]["url"]), location)
        public = without_credentials(url)
        # DVC would make the folder anew, and older versions would seem to have lost their data.
        require(
            is_url(url) or Path(url).is_dir(), f"store must be the folder that the registry names, got no {public!r}"
        )
        repo.config["remote"][name]["url"] = url
        yield Store(repo, public)


def find_store(named: str, location: str) -> str:
    """The store's place: as the registry names it, or beside the registry where both were moved together."""
    beside = Path(location).parent / REMOTE
    if is_url(named) or Path(named).is_dir() or is_url(location) or not os.path.isdir(beside):
        return named
    log.info("the registry's store %s is not there; taking the one beside it", named)
    return str(beside)
