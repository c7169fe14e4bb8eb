"""The registry: a git repository that holds DVC pointers, and a DVC remote, the store, that holds the data.

.dvc/config                     where the store is, so that `git clone` and `dvc pull` bring back what was published
masks/<version>/                one folder for each version, see `secateur.records.registry.versions`
tables/<data digest>/           the data set that versions were made from, see `secateur.records.registry.tables`
withdrawn.json                  samples that were withdrawn, see `secateur.records.registry.withdrawal`
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from secateur.errors import InputError
from secateur.records.git import GitError, author, git, hide_password, is_url, without_credentials

BRANCH = "main"
REMOTE = "store"
IGNORED_BY_GIT = "/config.local\n/tmp\n/cache\n"
FILE_SCHEME = "file://"
ATTEMPTS = 30

Result = TypeVar("Result")


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
    location = absolute(location)
    if is_url(location):
        if not has_commit(location):
            require(store is not None, "store must be given for a new registry at a URL, got none")
            lay_foundation(location, str(store))
        return location
    path = Path(location)
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


def absolute(location: str | Path) -> str:
    """A location that means the same in any folder; `file://` is a path.

    >>> absolute("file:///srv/registry.git"), absolute("git@example.org:registry.git")
    ('/srv/registry.git', 'git@example.org:registry.git')
    """
    location = str(location).removeprefix(FILE_SCHEME)
    return location if is_url(location) else str(Path(location).absolute())


def require(fine: bool, sentence: str) -> None:
    """Raise an `InputError` unless all is fine."""
    if not fine:
        raise InputError(sentence)


def has_commit(location: str) -> bool:
    """Whether a git repository has a commit.

    Raises:
        InputError: There is no git repository.
    """
    with tempfile.TemporaryDirectory(prefix="secateur-registry-") as temporary:
        url, settings = hide_password(location, Path(temporary))
        try:
            return bool(git(*as_options(settings), "ls-remote", "--", url))
        except GitError as error:
            raise unusable(location, error) from error


def as_options(settings: Sequence[str]) -> tuple[str, ...]:
    """Settings as git takes them, before or behind its command."""
    return tuple(part for setting in settings for part in ("-c", setting))


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

    url = absolute(store)
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


def check_store(tree: Path, store: str) -> None:
    """Check that a registry has the store that somebody asks for.

    Args:
        tree: What `opened` gave.
        store: Path or URL.

    Raises:
        InputError: It has another one.
    """
    from dvc.config import Config

    settings = Config(str(tree / ".dvc"))
    existing = str(settings["remote"][settings["core"]["remote"]]["url"])
    wanted, has = (
        place.rstrip("/") if is_url(place) else os.path.realpath(place) for place in (absolute(store), existing)
    )
    require(
        wanted == has,
        f"store must be the one of the registry, {without_credentials(existing)}, got {without_credentials(store)}",
    )


@contextmanager
def clone(location: str) -> Iterator[Path]:
    """A working tree of the registry's newest state, without its history, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="secateur-registry-") as temporary:
        tree = Path(temporary) / "tree"
        url, settings = hide_password(location, Path(temporary))
        depth = ("--depth=1",) if is_url(location) else ()  # of a path, git copies all by links, which is quicker
        try:
            git("clone", "--quiet", "--no-tags", *depth, *as_options(settings), "--", url, str(tree))
        except GitError as error:
            raise unusable(location, error) from error
        yield tree


@contextmanager
def opened(location: str) -> Iterator[Path]:
    """The same, of a registry that holds something.

    Raises:
        InputError: It is none.
    """
    with clone(location) as tree:
        configured = (tree / ".dvc" / "config").is_file()
        require(configured, f"registry must hold a DVC configuration, got none in {without_credentials(location)!r}")
        yield tree


def commit(tree: Path, message: str) -> None:
    """Commit all that is new."""
    git("add", "--all", folder=tree)
    git(*author(tree), "commit", "--quiet", f"--message={message}", folder=tree)


def settle(tree: Path, location: str, change: Callable[[], tuple[Result, Sequence[str]]]) -> Result:
    """Make a commit on top of the newest state and push it; where somebody else was quicker, again on top of theirs.

    Args:
        tree: What `opened` gave.
        location: Of the registry.
        change: Commits in the tree, or finds that there is nothing to do; gives a result, and the tags made for it.

    Raises:
        InputError: The registry takes no push.
    """
    for _ in range(ATTEMPTS):
        result, tags = change()
        if git("rev-parse", "HEAD", folder=tree) == git("rev-parse", "@{upstream}", folder=tree):
            return result
        try:
            push(tree, tags)
        except GitError as error:
            if not refresh(tree, tags) and "lock" not in str(error):
                raise unusable(location, error) from error
            time.sleep(random.uniform(0.05, 0.3))  # so that those who collide do not do so again
            continue
        return result
    place = without_credentials(location)
    raise InputError(f"registry must hold still for a moment, got {ATTEMPTS} pushes by others in {place!r}")


def push(tree: Path, tags: Sequence[str]) -> None:
    """Push the new commit and its tags, all or nothing."""
    git("push", "--quiet", "--atomic", "origin", "HEAD", *(f"refs/tags/{name}" for name in tags), folder=tree)


def refresh(tree: Path, tags: Sequence[str]) -> bool:
    """Go back to what the registry holds now, without the tags made here; whether that is anything new."""
    before = git("rev-parse", "@{upstream}", folder=tree)
    if tags:
        git("tag", "--delete", *tags, folder=tree)
    shallow = git("rev-parse", "--is-shallow-repository", folder=tree) == "true"
    git("fetch", "--quiet", "--no-tags", *(("--depth=1",) if shallow else ()), "origin", folder=tree)
    git("reset", "--quiet", "--hard", "@{upstream}", folder=tree)
    return git("rev-parse", "HEAD", folder=tree) != before
