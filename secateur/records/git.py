"""Git, called so that it never asks anything and needs nothing of the user's configuration."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from secateur.errors import InputError

NAME, EMAIL = "secateur", "secateur@localhost"
SETTINGS = ("commit.gpgsign=false", "tag.gpgsign=false", "core.hooksPath=/dev/null", "advice.detachedHead=false")
CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
WITH_PASSWORD = re.compile(r"(https?://)([^/\s]+:[^/\s]*@)(.*)")


class GitError(RuntimeError):
    """Git refused; the message is what it said, without credentials."""


def git(*arguments: str, folder: str | Path | None = None) -> str:
    """Run git and give its output.

    Args:
        arguments: Command and options.
        folder: The working tree or repository to run it in.

    Raises:
        GitError: Git failed.
        InputError: There is no git.
    """
    options = [part for setting in SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *options, *arguments],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise InputError("git must be installed, got no such command") from error
    if done.returncode:
        raise GitError(without_credentials(done.stderr.strip() or f"git {arguments[0]} failed"))
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """The environment for git: no questions, English messages, the repository of the working directory."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    return inherited | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def author(folder: str | Path) -> tuple[str, ...]:
    """Options that name an author, where the user's configuration names none."""
    options: list[str] = []
    for key, value in (("user.name", NAME), ("user.email", EMAIL)):
        try:
            git("config", key, folder=folder)
        except GitError:
            options += ["-c", f"{key}={value}"]
    return tuple(options)


def is_url(location: str) -> bool:
    """Whether a repository lies elsewhere, at a URL or at `host:path`.

    >>> is_url("https://example.org/registry.git"), is_url("git@example.org:registry.git"), is_url("a/registry.git")
    (True, True, False)
    """
    return "://" in location or re.match(r"[\w.-]+@[\w.-]+:", location) is not None


def hide_password(location: str, folder: Path) -> tuple[str, tuple[str, ...]]:
    """Give git the password of a URL by a file, since everybody can read the arguments of a process.

    Args:
        location: A path or URL.
        folder: Where the file may lie; nobody else's.

    Returns:
        The location without the password, and settings (`key=value`) that say where it is.
    """
    found = WITH_PASSWORD.fullmatch(location)
    if found is None:
        return location, ()
    scheme, credentials, rest = found.groups()
    file = folder / "credentials"
    file.touch(mode=0o600)
    file.write_text(f"{scheme}{credentials}{rest.partition('/')[0]}\n")
    return scheme + rest, (f"credential.helper=store --file={shlex.quote(str(file))}",)


def without_credentials(text: str) -> str:
    """Take user names and passwords out of the URLs in a text.

    >>> without_credentials("no access to https://ada:secret@example.org/registry.git")
    'no access to https://example.org/registry.git'
    """
    return CREDENTIALS.sub("", text)
