"""How a bundle gets to MLflow: at once, or later if MLflow has gone away since the pipeline run began."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from secateur.errors import InputError
from secateur.records.places import Places, check_server, places
from secateur.records.tracking import spool
from secateur.records.tracking.bundles import send_bundle
from secateur.state import STATE_VARIABLE

if TYPE_CHECKING:
    from secateur.records.tracking.runs import TrackedRun

UNDECIDED = "undecided: MLflow is away; what it is to be told is kept, and sent by the next run or `secateur sync`"

Pack = Callable[[str, Mapping[str, str]], Path | None]


@dataclass(frozen=True)
class Delivered:
    """What became of a bundle."""

    run_id: str  # of MLflow
    promotion: str  # whether the model became champion, and why; empty where there is none


def ready() -> Places:
    """Where results go, with the MLflow run as far as it is known here.

    Raises:
        InputError: MLflow does not answer, and the pipeline run has no run there.
    """
    where = places()
    where = replace(where, run_id=spool.known_run(where))
    is_away(where)
    return where


def is_away(where: Places) -> bool:
    """Whether MLflow does not answer now, although the pipeline run has a run there.

    Raises:
        InputError: It does not answer, and has no run.
    """
    try:
        check_server(where.tracking_uri)
    except InputError:
        if where.run_id is None:
            raise
        return True
    return False


def deliver(where: Places, name: str, pack: Pack) -> Delivered:
    """Send a bundle to MLflow, or keep it.

    Args:
        where: What `ready` gave.
        name: Of a run that is made new.
        pack: Given the run's id and tags, writes the bundle and gives its folder; None where all was sent before.
    """
    if is_away(where):
        assert where.run_id is not None
        return keep(where, pack(where.run_id, {}))
    from mlflow.exceptions import MlflowException  # only now: MLflow takes seconds to import

    with tracked(where, name) as run:
        folder = pack(run.run_id, run.tags)
        if folder is None:
            return Delivered(run.run_id, run.tags.get("promotion", ""))
        try:
            decision = send_bundle(run, folder)
        except (MlflowException, OSError):  # the latter from its transfer of artifacts
            known = replace(where, run_id=run.run_id)
            if not is_away(known):
                raise
            return keep(known, folder)
    return Delivered(run.run_id, decision.sentence if decision else "")


def keep(where: Places, bundle: Path | None) -> Delivered:
    """Keep a bundle where what could not be sent waits."""
    assert where.run_id is not None
    assert bundle is not None
    folder = spool.begin(where)
    spool.keep_bundle(folder, bundle)
    state = os.environ.get(STATE_VARIABLE, "")
    if "://" in state:
        spool.carry_off(folder, state)
    return Delivered(where.run_id, UNDECIDED)


@contextmanager
def tracked(where: Places, name: str) -> Iterator["TrackedRun"]:
    """The MLflow run; one begun here ends as failed if the block fails, another's is left for a second attempt."""
    from secateur.records.tracking import runs

    run = runs.open_run(where, name)
    try:
        yield run
    except BaseException:
        if run.created:
            runs.end_run(run, "FAILED")
        raise
