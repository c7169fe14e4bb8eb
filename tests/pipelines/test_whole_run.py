"""The whole pipeline on the digits, through the command line: real KFP, training, MLflow and DVC, only shorter."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from secateur.pruning.mask import read_mask
from secateur.semantics.config import EMBEDDED

SHORT = ("--epochs", "5", "--warmup-epochs", "2", "--seeds", "0", "--baselines", "random")


@dataclass
class Run:
    code: int
    out: str
    err: str

    def place(self, name: str) -> Path:
        """Where the last lines say that something is."""
        found = re.search(rf"^{name} +(\S+)", self.out, re.MULTILINE)
        assert found, self.out + self.err
        return Path(found[1])


Begin = Callable[..., "subprocess.Popen[str]"]
Command = Callable[..., Run]


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory, digits_clip_state: Path) -> Begin:
    """Starts `secateur run` in one folder, where the CLIP of the digits is trained already."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(digits_clip_state / EMBEDDED, folder / ".secateur" / "state" / EMBEDDED)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SECATEUR_", "MLFLOW_"))}

    def start(*options: str) -> "subprocess.Popen[str]":
        arguments = [str(Path(sys.executable).parent / "secateur"), "run", *SHORT, *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            arguments,
            cwd=folder,
            env=kept,
            stdout=pipe,
            stderr=pipe,
            text=True,
            # A shell that runs the tests in the background has interrupts ignored, by all that it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.fixture(scope="module")
def command(begin: Begin) -> Command:
    """Runs it to its end."""

    def call(*options: str) -> Run:
        with begin(*options) as process:
            out, err = process.communicate()
        return Run(process.returncode, out, err)

    return call


@pytest.fixture(scope="module")
def first(command: Command) -> Run:
    return command()


@pytest.fixture(scope="module")
def second(command: Command, first: Run) -> Run:
    assert first.code == 0
    return command("--keep", "0.5")


def test_a_run_ends_with_its_results(first: Run) -> None:
    assert (first.code, first.err) == (0, "")
    assert [line.split()[0] for line in first.out.splitlines() if re.search(r"± | % +\d+,\d{3} ", line)] == [
        "multimodal",
        "random",
    ]
    assert "reusing the small CLIP that was trained before" in first.place("log").read_text()
    assert re.search(r"Of \d+ wrong labels the mask found \d+ inconsistent \(recall \d+ %", first.out)
    assert "<html" in first.place("report").read_text()
    mask = read_mask(first.place("mask"))
    assert f"digest {mask.digest[:12]}" in first.out
    assert abs(float(mask.kept.mean()) - 0.7) < 1e-3


def test_arms_have_the_same_budget(first: Run) -> None:
    results = json.loads((first.place("report").parent / "results.json").read_text())
    assert len({arm["backward_samples"] for arm in results["arms"]}) == 1


def test_the_mask_is_a_version_of_the_registry(first: Run) -> None:
    registry = first.out.split(" in ")[-1].split("\n")[0]
    tags = subprocess.run(["git", "-C", registry, "tag"], capture_output=True, text=True, check=True).stdout.split()
    assert "digits/multimodal-0.7/v1" in tags


def test_another_ratio_reuses_what_does_not_hang_on_it(second: Run) -> None:
    assert second.code == 0
    assert "Reused from earlier runs: ingest, embed, warmup." in second.out
    assert "prune multimodal: done in" in second.out


def test_the_same_again_gives_the_same_bytes_also_when_interrupted_after(begin: Begin, second: Run) -> None:
    lost = second.place("mask").rename(second.place("mask").with_name("lost"))
    runs = lost.parents[2]
    before = set(runs.iterdir())
    with begin("--keep", "0.5") as again:
        while not (made := [m for run in set(runs.iterdir()) - before for m in run.glob("prune/mask")]):
            assert again.poll() is None
            time.sleep(0.1)
        again.send_signal(signal.SIGINT)
        out, err = again.communicate(timeout=30)
    assert (again.returncode, err) == (130, "error: interrupted\n")
    # Whether the baseline's turn came before the interruption is the runner's choice.
    assert {f"{step}: reused from an earlier run" for step in ("ingest", "embed", "warmup")} <= set(out.splitlines())
    for name in ("mask.parquet", "trajectory.parquet"):
        assert (made[0] / name).read_bytes() == (lost / name).read_bytes()


def test_too_many_pictures_that_do_not_decode(command: Command, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cat" / "bad.png").write_bytes(b"no picture")
    done = command("--source", str(tmp_path))
    assert done.code == 1
    assert re.match(
        r"error: ingest: max_unreadable must .* got 1 of 7, the first 'cat/bad.png': it does not decode: .*\n", done.err
    )
