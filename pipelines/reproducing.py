"""Making a published mask again, and comparing it with what was published."""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import secateur
from secateur.errors import InputError
from secateur.files import file_digest, read_json, write_json
from secateur.pruning.mask import MASK_FILE, Mask, read_mask
from secateur.records.git import GitError, git
from secateur.records.outputs import code_version
from secateur.records.registry.catalogue import fetch
from secateur.records.registry.checkout import Opened
from secateur.records.registry.comparing import difference
from secateur.records.registry.withdrawal import among

JOB_FILE = "job.json"
COMMIT = re.compile(r"\+g([0-9a-f]{7,40})(-dirty)?$")


@dataclass(frozen=True)
class Outcome:
    """How a mask came out the second time."""

    version: str
    identical: bool  # the mask: the same samples, scores, losses and reasons, to the last bit
    same_file: bool  # its file too, byte for byte
    agreement: float  # fraction of the samples kept in both, or dropped in both
    mask_digest: str  # of the mask that was made now
    differences: tuple[str, ...]  # what was not as it was then

    @property
    def sentence(self) -> str:
        """The same in words."""
        if self.identical:
            file = "byte for byte" if self.same_file else "in every column; the file was written in another way"
            return f"{self.version}: the mask is identical, {file} (digest {self.mask_digest[:12]})"
        why = "; ".join(self.differences) or "nothing that is known of; another kind of processor rounds otherwise"
        return f"{self.version}: the masks agree on {100 * self.agreement:.2f} % of the samples. What differs: {why}"


def reproduce(version: Opened, table_folder: str | None, clip_files: Mapping[str, str]) -> Outcome:
    """Make the mask of a version again.

    Args:
        version: What `open_version` gave.
        table_folder: Its data set, if the registry's store lacks it.
        clip_files: Fields of `ClipConfig` with files that are not published.

    Raises:
        InputError: The data cannot be had any more, or making it again failed.
    """
    facts = version.facts
    table = version.table(table_folder)
    gone = sum(among(table.sample_id.tolist(), version.withdrawn))
    if gone:
        raise InputError(f"version must hold no withdrawn picture to be made again, got {gone} in {facts['version']}")
    dataset = table_folder or str(fetch(version.store, version.tree, facts, "table"))
    job = {
        "dataset": str(Path(dataset).absolute()),
        "shards": list(table.info.shards),
        "train_config": facts["train_config"],
        "prune_config": facts["config"],
        "clip": facts["clip"] and {**facts["clip"], **clip_files},
    }
    with tempfile.TemporaryDirectory(prefix="secateur-reproduce-") as temporary:
        folder = Path(temporary)
        write_json(folder / JOB_FILE, job)
        code = checkout_code(facts["code_version"], folder / "code")
        run_again(folder, code, facts["versions"].get("threads"))
        path = fetch(version.store, version.tree, facts, MASK_FILE)
        then, now = version.published_mask(), read_mask(folder / "mask")
        same_file = file_digest(path) == file_digest(folder / "mask" / MASK_FILE)
        differs = differences(facts, read_json(folder / "model" / "run.json"), code)
    return compare(facts["version"], then, now, same_file, differs)


def compare(version: str, then: Mask, now: Mask, same_file: bool, differs: tuple[str, ...]) -> Outcome:
    """Compare what was published with what was made now."""
    found = difference(then, now, dict.fromkeys(then.sample_id.tolist(), ""))
    return Outcome(version, then.digest == now.digest, same_file, found.agreement, now.digest, differs)


def checkout_code(wanted: str, folder: Path) -> Path | None:
    """Bring the library of another commit into a folder, out of the repository that this code runs from.

    Args:
        wanted: What `code_version` gave then.
        folder: Where to.

    Returns:
        The folder; None where this code has to do, as it is the same or the other one cannot be had.
    """
    commit = COMMIT.search(wanted)
    if wanted == code_version() or commit is None:
        return None
    try:
        root = git("rev-parse", "--show-toplevel", folder=Path(secateur.__file__).parent)
        archive = folder.with_suffix(".tar")
        git("archive", "--format=tar", f"--output={archive}", commit[1], folder=root)
    except GitError:
        return None
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run_again(folder: Path, code: Path | None, threads: int | None) -> None:
    """Run the job in a folder; what it says goes to stderr.

    Raises:
        InputError: It failed.
    """
    environment = {
        **os.environ,
        "SECATEUR_STATE_URI": str(folder / "state"),
        "TMPDIR": str(folder),  # PyTorch leaves a folder there
        "PYTHONSAFEPATH": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    if code:
        environment["PYTHONPATH"] = str(code)
    command = [sys.executable, str(Path(__file__).with_name("again.py")), str(folder / JOB_FILE)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        for line in process.stdout or ():
            print(line, end="", file=sys.stderr)
        if process.wait():
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
            raise InputError(f"version must be one that can be made again here, got: {last[0]}")


def differences(facts: Mapping[str, Any], run: Mapping[str, Any], code: Path | None) -> tuple[str, ...]:
    """What was not as it was when a version was made.

    Args:
        facts: What `version.json` says.
        run: What `run.json` says now.
        code: The library of the version's commit; None where the present one did the work.
    """
    found = []
    if code is None and facts["code_version"] != code_version():
        found.append(f"code {facts['code_version']}, now {code_version()}")
    if facts["code_version"].endswith("-dirty"):
        found.append("the code had changes that were never committed")
    for name, value in facts["versions"].items():
        other = run["versions"].get(name)
        if other != value and name != "secateur":
            found.append(f"{name} {value}, now {other}")
    then, now = ((said or {}) for said in (facts["clip"], run.get("semantics")))
    found += [
        f"{name} of CLIP {then.get(name, 'unknown')[:12]}, now {now.get(name, 'unknown')[:12]}"
        for name in ("weights", "texts")
        if then.get(name) != now.get(name)
    ]
    return tuple(found)
