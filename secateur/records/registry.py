"""The registry: a git repository that holds DVC pointers, and a DVC remote, the store, that holds the data.

The store's location is committed, so that `git clone` and `dvc pull` bring back what was published.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secateur.errors import InputError
from secateur.records.git import GitError, author, git, is_url, without_credentials

BRANCH = "main"
REMOTE = "store"
IGNORED_BY_GIT = "/config.local\n/tmp\n/cache\n"


def open_or_create(location: str | Path, store: str | None = None) -> str:
    """Find the registry, or make one.

    Args:
        location: Path or URL of the git repository; made as a bare one where there is nothing at a path.
        store: Path or URL of the DVC remote of a new registry; None for a folder `store` beside it.

    Returns:
        The location, a path as an absolute one.

    Raises:
        InputError: There is something else, or no right to write.
    """
    location = str(location)
    if is_url(location):
        if not has_commit(location):
            require(store is not None, "store must be given for a new registry at a URL, got none")
            lay_foundation(location, str(store))
        return location
    path = Path(location).absolute()
    store = store or str(path.parent / "store")
    try:
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            create(path, store)
    except OSError as error:
        raise InputError(f"registry must be a folder that can be written, got {location!r}: {error}") from error
    require(not (path / ".git").exists(), f"registry must be a bare git repository, got a working tree at {location!r}")
    if not has_commit(str(path)):
        lay_foundation(str(path), store)
    require(os.access(path / "refs", os.W_OK), f"registry must be a folder that can be written, got {location!r}")
    return str(path)


def require(fine: bool, sentence: str) -> None:
    """Raise an `InputError` unless all is fine."""
    if not fine:
        raise InputError(sentence)


def has_commit(location: str) -> bool:
    """Whether a git repository has a commit.

    Raises:
        InputError: There is no git repository.
    """
    try:
        return bool(git("ls-remote", "--", location))
    except GitError as error:
        raise unusable(location, error) from error


def unusable(location: str, error: Exception) -> InputError:
    """The sentence for a repository that git cannot read or write."""
    reason = " ".join(str(error).split())
    return InputError(f"registry must be a git repository, got {without_credentials(location)!r}: {reason}")


def create(path: Path, store: str) -> None:
    """Make a bare repository with its first commit; of two processes that do so at once, one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        made = Path(temporary) / "registry"
        git("init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(made))
        lay_foundation(str(made), store)
        try:
            made.rename(path)
        except OSError:
            if not path.exists() or not any(path.iterdir()):
                raise


def lay_foundation(location: str, store: str) -> None:
    """Push the first commit: the DVC configuration."""
    from dvc.config import Config

    url = store if is_url(store) else str(Path(store).absolute())
    public = without_credentials(url)
    require(url == public, f"store must be a URL without a user name and password, got one for {public}")
    with clone(location) as tree:
        dvc_folder = tree / ".dvc"
        dvc_folder.mkdir()
        (dvc_folder / ".gitignore").write_text(IGNORED_BY_GIT)
        Config.init(str(dvc_folder))
        with Config(str(dvc_folder)).edit(level="repo") as settings:
            settings["core"] = {"remote": REMOTE, "analytics": False, "check_update": False}
            settings["remote"] = {REMOTE: {"url": url}}
        if not is_url(url):
            try:
                Path(url).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"store must be a folder that can be written, got {url!r}: {error}") from error
        commit(tree, "Begin a registry")
        try:
            git("push", "--quiet", "origin", "HEAD", folder=tree)
        except GitError as error:
            if not has_commit(location):
                raise unusable(location, error) from error


@contextmanager
def clone(location: str) -> Iterator[Path]:
    """A working tree of the registry's newest state, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="secateur-registry-") as temporary:
        tree = Path(temporary) / "tree"
        try:
            git("clone", "--quiet", "--no-tags", "--", location, str(tree))
        except GitError as error:
            raise unusable(location, error) from error
        yield tree


def commit(tree: Path, message: str) -> None:
    """Commit all that is new."""
    git("add", "--all", folder=tree)
    git(*author(tree), "commit", "--quiet", f"--message={message}", folder=tree)
