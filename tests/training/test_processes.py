"""Steps that several processes do together: started as a pipeline's step starts them, by torchrun, and by a test."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.errors import InputError
from secateur.files import read_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.mask import MASK_FILE, TRAJECTORY_FILE, read_mask
from secateur.state import STATE_VARIABLE
from secateur.training.checkpoint import load
from secateur.training.distributed import PROCESSES_VARIABLE, failure_of, process_count, steady
from secateur.training.runs import prune, warm_up
from tests.forked import in_processes
from tests.training.together import KILLED_AFTER, PRUNE, TRAIN, warm_up_in

WITH_EXTRAS = PruneConfig(method="forgetting", keep=0.6, epochs=3, retrain=True)


@pytest.fixture(scope="module")
def alone(digits_folder, tmp_path_factory):
    """The warm-up and both prunings by one process."""
    out = tmp_path_factory.mktemp("alone")
    warm_up(digits_folder, TRAIN, out / "warm")
    prune(digits_folder, [], out / "warm", PRUNE, out / "model", out / "mask")
    prune(digits_folder, [], out / "warm", WITH_EXTRAS, out / "extras-model", out / "extras-mask")
    return out


def files(folder, *names):
    return [(folder / name).read_bytes() for name in names]


def same_outcome(one, other, prefix=""):
    for folder, names in (
        (f"{prefix}mask", (MASK_FILE, TRAJECTORY_FILE)),
        (f"{prefix}model", ("seed-0/weights.safetensors",)),
    ):
        assert files(one / folder, *names) == files(other / folder, *names)


def test_four_processes_warm_up_to_the_same_bytes(digits_folder, alone, tmp_path):
    in_processes(warm_up_in, 4, digits_folder, tmp_path, count=4)
    figures = [read_json(tmp_path / f"figures-{rank}.json") for rank in range(4)]
    one, other = (load((out / "warm" / "seed-0.pt").read_bytes(), "seed-0.pt") for out in (alone, tmp_path))
    states = [state["trainer"]["network"] for state in (one, other)]
    assert list(states[0]) == list(states[1])
    assert any("running_var" in name for name in states[0])
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    for a, b in zip(one["trainer"]["momenta"], other["trainer"]["momenta"], strict=True):
        assert torch.equal(a, b)
    for name in ("last", "mean", "visits"):
        assert np.array_equal(one["losses"][name], other["losses"][name], equal_nan=True)
    assert [f["train_loss"] for f in figures] == [one["history"][-1]["train_loss"]] * 4
    assert read_json(tmp_path / "warm" / "warmup.json")["versions"]["processes"] == 4


def test_two_processes_prune_and_retrain_to_the_same_bytes(digits_folder, alone, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(PROCESSES_VARIABLE, "2")
    with caplog.at_level(logging.INFO):
        figures = prune(
            digits_folder, [], alone / "warm", WITH_EXTRAS, tmp_path / "extras-model", tmp_path / "extras-mask"
        )
    same_outcome(alone, tmp_path, "extras-")
    told = [record.curve[1] for record in caplog.records if hasattr(record, "curve")]  # what MLflow is told
    assert [len(history) for history in told] == [2, 3, 4, 5, 6, 7, 8]  # once for each epoch
    assert told[-1][-1]["train_loss"] == figures["train_loss"]
    one, other = (read_json(out / "extras-model" / "run.json") for out in (alone, tmp_path))
    assert (one["versions"]["processes"], other["versions"]["processes"]) == (1, 2)
    for name in ("forward_samples", "backward_samples"):
        assert one["cost"][name] == other["cost"][name]


@pytest.fixture(scope="module")
def killed(digits_folder, alone, tmp_path_factory):
    """Where torchrun's two processes have pruned, and died in the midst of doing so again."""
    out = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(Path(__file__).with_name("together.py")), str(digits_folder), str(alone / "warm"), str(out)]
    environment = os.environ | {STATE_VARIABLE: str(out / "state"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert (out / "plain-mask").is_dir(), done.stderr
    assert done.returncode != 0
    return out


def test_a_killed_run_goes_on_with_another_number_of_processes(digits_folder, alone, killed, monkeypatch, caplog):
    assert not (killed / "mask").exists()
    assert list((killed / "state" / "checkpoints").iterdir())
    monkeypatch.setenv(STATE_VARIABLE, str(killed / "state"))
    with caplog.at_level(logging.INFO):
        prune(digits_folder, [], alone / "warm", PRUNE, killed / "model", killed / "mask")
    assert f"adaptive seed 0 goes on after epoch {KILLED_AFTER + TRAIN.warmup_epochs}" in caplog.text
    same_outcome(alone, killed)


def test_plain_processes_keep_the_budget_and_the_ratio(killed):
    mask, run = read_mask(killed / "plain-mask"), read_json(killed / "plain-model" / "run.json")
    assert mask.kept.sum() == round(0.6 * len(mask))
    assert run["versions"]["processes"] == 2
    assert run["cost"]["backward_samples"] == (606 // 64 + round(5 * 606 / 64 * 0.6)) * 64
    assert mask.epochs_used.sum() == run["cost"]["backward_samples"]


def test_what_is_wrong_in_a_process_is_the_steps_error(digits_folder, tmp_path, monkeypatch):
    monkeypatch.setenv(PROCESSES_VARIABLE, "2")
    with pytest.raises(InputError, match=r"^loss must be finite, got \w+ for sample \d+; try a lower rate") as caught:
        warm_up(digits_folder, replace(TRAIN, learning_rate=1e9, warmup_epochs=2), tmp_path / "warm")
    assert "in settle" in caught.value.__notes__[0]
    assert not (tmp_path / "warm").exists()


def test_the_error_that_began_it_is_told(tmp_path):
    def says(codes, **errors):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for rank, (time, known, message) in errors.items():
            told = {"rank": int(rank[1:]), "time": time, "input": known, "message": message, "traceback": ""}
            (folder / f"error-{rank}.json").write_text(json.dumps(told))
        error = failure_of(folder, codes, 2)
        return type(error), str(error)

    lost, mended = (2.0, False, "RuntimeError: connection closed"), (3.0, True, "keep must be in (0, 1], got 2")
    assert says({0: 1}, r0=lost, r1=(1.0, False, "KeyError: 'x'")) == (RuntimeError, "process 2 of 2: KeyError: 'x'")
    assert says({0: 1, 1: 1}, r0=lost, r1=mended) == (InputError, mended[2])
    out_of_memory = "process 2 of 2 was ended by SIGKILL; its memory may have run out"
    assert says({0: 1, 1: -9}, r0=lost) == (RuntimeError, out_of_memory)
    assert says({1: 3}) == (RuntimeError, "a process of 2 ended with exit code 3")


def test_the_number_of_processes(monkeypatch):
    monkeypatch.delenv(PROCESSES_VARIABLE, raising=False)
    assert process_count() == max(1, torch.cuda.device_count())
    monkeypatch.setenv(PROCESSES_VARIABLE, "3")
    assert process_count() == 3
    monkeypatch.setenv(PROCESSES_VARIABLE, "-1")
    with pytest.raises(InputError, match="SECATEUR_PROCESSES must be a whole number from 0, got '-1'"):
        process_count()


def test_one_thread_while_it_is_deterministic():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with steady(False):
        assert torch.get_num_threads() == 2
    with steady(True):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
