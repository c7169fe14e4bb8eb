"""The process that sends what steps have to say to MLflow, and `secateur sync`, which sends what was left.

Sending twice does no harm: a point that is there is not sent again (`secateur.records.tracking.runs.log_metrics`).
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlflow.exceptions import MlflowException

from secateur.errors import InputError
from secateur.files import read_json, write_json
from secateur.records.git import without_credentials
from secateur.records.places import Places, ask, places
from secateur.records.tracking import runs, spool
from secateur.records.tracking.bundles import send_bundle
from secateur.records.tracking.live import PATIENCE
from secateur.records.tracking.spool import Message
from secateur.state import STATE_VARIABLE

log = logging.getLogger(__name__)

INTERVAL = 1.0  # seconds between looks at the files
QUIET = 600.0  # seconds after which a folder without a sender has no writer either
REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE")  # also next time


class AwayError(Exception):
    """The server does not answer."""


class Sender:
    """Sends the messages of one pipeline run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, spool.sent_bytes(folder)
        self.runs: dict[str, runs.TrackedRun] = {}

    def send(self) -> None:
        """Send all that is there and has not been sent.

        Raises:
            AwayError: The server does not answer; what was not sent stays.
            InputError: The run, or its experiment, cannot be used.
        """
        target = spool.read_target(self.folder)
        where = reached(target)
        try:
            if not self.runs:
                self.runs[""] = runs.open_run(where, target.name or target.key)
                spool.note_run(self.folder, self.runs[""].run_id)
            for file in spool.message_files(self.folder):
                self._send_file(file)
            bundle = self.folder / spool.BUNDLE
            if bundle.is_dir():
                send_bundle(self.runs[""], bundle)
                drop_copy(self.folder)
                shutil.rmtree(bundle.rename(bundle.with_name(".bundle-sent")))
        except (MlflowException, OSError) as error:  # the latter from its transfer of artifacts
            raise AwayError(without_credentials(str(error))) from error

    def end(self, status: str) -> None:
        """Say how the run ended.

        Raises:
            AwayError: The server does not answer.
        """
        try:
            runs.end_run(self.runs[""], status)
        except MlflowException as error:
            raise AwayError(without_credentials(str(error))) from error

    def _send_file(self, file: Path) -> None:
        messages, offset = spool.read_messages(file, self.sent.get(file.name, 0))
        for arm in dict.fromkeys(message.arm for message in messages):
            self._send_messages(arm, [m for m in messages if m.arm == arm])
        if messages:
            self.sent[file.name] = offset
            write_json(self.folder / spool.SENT_FILE, self.sent)

    def _send_messages(self, arm: str, messages: list[Message]) -> None:
        run = self.runs.get(arm) or runs.open_arm(self.runs[""], arm, arm.rpartition("-")[0])
        self.runs[arm] = run
        try:
            runs.log_params(run, merged([m.params for m in messages]))
            runs.set_tags(run, merged([m.tags for m in messages]))
            runs.log_metrics(run, [point for m in messages for point in m.points], {})
        except MlflowException as error:
            if error.error_code not in REFUSED:
                raise
            log.warning("MLflow refuses what run %s is told: %s", run.run_id, without_credentials(str(error)))


def merged(entries: list[Mapping[str, str]]) -> dict[str, str]:
    """All entries in one, the last of each name."""
    return {name: value for entry in entries for name, value in entry.items()}


def reached(target: spool.Target) -> Places:
    """The places of a target, with the credentials of this process.

    Raises:
        AwayError: The server does not answer.
    """
    where = places()
    if without_credentials(where.tracking_uri) != target.tracking_uri:
        where = replace(where, tracking_uri=target.tracking_uri)
    if where.tracking_uri.startswith(("http://", "https://")) and (problem := ask(where.tracking_uri)):
        raise AwayError(problem)
    return replace(where, experiment=target.experiment, run_id=target.run_id, key=target.key)


def serve(folder: Path, ended: threading.Event, own: Path | None) -> bool:
    """Send what appears in a folder until somebody says that it is over, and for `PATIENCE` after that.

    Returns:
        Whether all was sent.
    """
    sender, helped, deadline = Sender(folder), False, float("inf")
    while True:
        over = ended.is_set()  # asked first: what was written before it is sent below
        deadline = min(deadline, time.monotonic() + PATIENCE) if over else deadline
        try:
            sender.send()
            if over:
                conclude(sender, own)
                return True
            if not helped:
                helped = True
                send_leftovers(folder)
        except (AwayError, InputError) as error:
            log.warning("cannot send to MLflow yet: %s", without_credentials(str(error)))
            if over and (isinstance(error, InputError) or time.monotonic() > deadline):
                return False
        ended.wait(INTERVAL) if not over else time.sleep(INTERVAL / 2)


def conclude(sender: Sender, own: Path | None) -> None:
    """Say how the run ended, where that is known, and remove what was sent."""
    status = sender.folder / spool.STATUS_FILE
    if status.is_file():
        sender.end(read_json(status)["status"])
    drop_copy(sender.folder)
    if own is None:
        spool.forget(sender.folder)
    else:
        own.unlink(missing_ok=True)


def send_leftovers(folder: Path) -> None:
    """Send what earlier runs had to leave, to the same server."""
    uri = spool.read_target(folder).tracking_uri
    for other in spool.folders(folder.parent):
        with suppress(InputError, FileNotFoundError):  # the latter where its own sender has just removed it
            if other != folder and spool.read_target(other).tracking_uri == uri:
                send_folder(other)


def send_folder(folder: Path) -> bool:
    """Send what a folder holds and remove it, unless another process is at it; whether that was done.

    Raises:
        AwayError: The server does not answer.
        InputError: The run cannot be used.
        FileNotFoundError: Another process has removed the folder.
    """
    with spool.sole_sender(folder) as alone:
        if not alone:
            return False
        # A run that is just starting has a target only; one with a bundle is over.
        begun = 0.0 if (folder / spool.BUNDLE).is_dir() else (folder / spool.TARGET_FILE).stat().st_mtime
        sender = Sender(folder)
        sender.send()
        newest = max([begun, *(file.stat().st_mtime for file in spool.message_files(folder))])
        if (folder / spool.STATUS_FILE).is_file() or time.time() - newest > QUIET:
            conclude(sender, None)
        else:
            drop_copy(folder)
    return True


def sync(*spools: Path) -> tuple[int, list[str]]:
    """Send everything that is left in some spools, and, by way of the first, in a state elsewhere.

    Returns:
        How many messages and bundles were sent, and a sentence for each run whose could not be.
    """
    bring_back(spools[0])
    sent, problems = 0, []
    for folder in (folder for place in dict.fromkeys(spools) for folder in spool.folders(place)):
        try:
            target, before = spool.read_target(folder), spool.waiting(folder)
            sent += before if send_folder(folder) else 0
        except FileNotFoundError:  # its own sender has just removed it
            continue
        except (AwayError, InputError) as error:
            reason = without_credentials(str(error))
            problems.append(f"{before} of run {target.key} cannot be sent to {target.tracking_uri}: {reason}")
    return sent, problems


def bring_back(spool_folder: Path) -> None:
    """Fetch what pods left in a state elsewhere."""
    state = os.environ.get(STATE_VARIABLE, "")
    if "://" in state:
        spool.bring_back(spool_folder, state)


def drop_copy(folder: Path) -> None:
    """Remove from a state elsewhere what was sent; one that is away holds nothing up, for sent twice does no harm."""
    state = os.environ.get(STATE_VARIABLE, "")
    if "://" in state:
        try:
            spool.drop_copy(folder, state)
        except OSError as error:
            log.warning("what was sent stays in the state: %s", without_credentials(str(error)))


def main(folder: Path, silent: str, own: Path | None = None) -> None:
    """Send until standard input ends; what it said, or else `silent`, is how the run ended."""
    said: list[str] = []
    ended = threading.Event()

    def listen() -> None:
        said.append(sys.stdin.read().strip() or silent)
        if said[0] != "RUNNING":
            write_json(folder / spool.STATUS_FILE, {"status": said[0]})
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    bring_back(folder.parent)
    while True:
        with spool.sole_sender(folder) as alone:
            if alone:
                serve(folder, ended, own)
                return
        if ended.wait(INTERVAL):  # another process sends, also what this one was to
            return


if __name__ == "__main__":
    # Here it is known how to wait; MLflow is not to do so too. It reads its environment at every request.
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:]))
