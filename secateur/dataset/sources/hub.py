"""A data set of Hugging Face's hub by its name: fetched to the hub's own cache, and read from there."""

import re
import threading
from dataclasses import replace
from pathlib import Path

from secateur.dataset.sources.location import Location
from secateur.errors import InputError

PATIENCE = 5.0  # seconds
COMMIT = re.compile(r"[0-9a-f]{40}")


def pinned(location: Location) -> Location:
    """The same data set at the commit that its revision means now; where that is one, the hub is not asked.

    Raises:
        InputError: See `find_commit`.
    """
    return location if COMMIT.fullmatch(location.revision) else replace(location, revision=find_commit(location))


def find_commit(location: Location) -> str:
    """Ask the hub for the commit that a revision means, within 5 seconds; its own client would try for half a minute.

    Raises:
        InputError: The hub does not answer, or knows no such data set or revision.
    """
    from huggingface_hub import HfApi

    answers: list[str | Exception] = []

    def ask() -> None:
        try:
            info = HfApi().dataset_info(location.place, revision=location.revision or None, timeout=PATIENCE)
            answers.append(info.sha or "")
        except Exception as error:  # whatever the client in use calls it
            answers.append(error)

    # A thread of its own, since no timeout covers the look-up of a name; a daemon, so that the step can end without it.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    answer = answers[0] if answers else TimeoutError(f"no answer in {PATIENCE:g} s")
    if isinstance(answer, Exception):
        raise refusal(location, answer) from answer
    return answer


def fetch(location: Location) -> tuple[Path, str]:
    """Fetch the files of a data set to the hub's own cache; what is there already is not fetched again.

    Returns:
        The folder, or what lies at the path inside; and the commit.

    Raises:
        InputError: They cannot be fetched, or there is nothing at the path inside.
    """
    from huggingface_hub import snapshot_download

    inside, commit = location.inside.strip("/"), find_commit(location)
    try:
        folder = snapshot_download(
            location.place,
            repo_type="dataset",
            revision=commit,
            allow_patterns=[inside, f"{inside}/**"] if inside else None,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise refusal(location, error) from error
    found = Path(folder, inside)
    if not found.exists():
        raise InputError(f"source must name a path in {location.place}, got {location.inside!r}, which is not there")
    return found, commit


def refusal(location: Location, error: Exception) -> InputError:
    """What to say when the hub gives nothing."""
    from huggingface_hub import constants

    return InputError(
        f"source must be a data set that {constants.ENDPOINT} gives, got {location.place!r} at revision "
        f"{location.revision or 'main'!r}: {' '.join(str(error).split())[:200]}"
    )
