import io
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from secateur.dataset import open_table
from secateur.dataset.sources import IngestConfig, ingest
from secateur.errors import InputError
from secateur.files import read_json
from secateur.pruning.config import PruneConfig
from secateur.pruning.mask import MASK_FILE, TRAJECTORY_FILE, read_mask, read_trajectory
from secateur.pruning.method import CODE, Reason, Semantics, Verdict
from secateur.pruning.pruner import Pruner
from secateur.state import STATE_VARIABLE
from secateur.training import phases
from secateur.training.checkpoint import CheckpointStore, dump, load
from secateur.training.config import TrainConfig
from secateur.training.runs import prune, warm_up
from secateur.training.saved import load_network, predict
from secateur.training.seed import Seed

TRAIN = TrainConfig(warmup_epochs=2, seeds=(0, 1))
PRUNE = PruneConfig(method="adaptive", keep=0.6, epochs=7)


@pytest.fixture(scope="module")
def warm(digits_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm") / "warmup"
    figures = warm_up(digits_folder, TRAIN, folder)
    return folder, figures


@pytest.fixture(scope="module")
def pruned(digits_folder, warm, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned")
    prune(digits_folder, [], warm[0], PRUNE, out / "model", out / "mask")
    return out


def test_the_warm_up_learns_and_says_what_it_did(warm, digits_folder):
    folder, figures = warm
    assert figures["train_loss"] < np.log(10)
    assert figures["samples"] == 2 * (606 // 32) * 32
    record = read_json(folder / "warmup.json")
    assert record["dataset"]["digest"] == open_table(digits_folder).info.digest
    assert record["architecture"] == {"model": "convnet", "image_size": 8}
    state = load((folder / "seed-1.pt").read_bytes(), "seed-1.pt")
    assert len(state["history"]) == 2
    assert int(state["losses"]["visits"].int().max()) == 2


def test_a_run_says_what_it_did(pruned, digits_folder):
    run = read_json(pruned / "model" / "run.json")
    assert (run["method"], run["keep"], run["seeds"]) == ("adaptive", 0.6, [0, 1])
    history = read_json(pruned / "model" / "seed-1" / "history.json")
    assert [e["phase"] for e in history[:3]] == ["warm-up", "warm-up", "prune"]
    assert history[-1]["samples"] == run["cost"]["backward_samples"] < run["cost"]["forward_samples"]
    assert history[-1]["forward_samples"] == history[-1]["samples"] + 143 * len(history)
    mask = read_mask(pruned / "mask")
    train = open_table(digits_folder).part("train")
    assert mask.sample_id.tolist() == train.sample_id.tolist()
    assert mask.meta["keep_achieved"] == run["keep_achieved"] == pytest.approx(0.6, abs=0.001)
    assert mask.meta["train_config"]["seeds"] == [0, 1]
    logits = predict(load_network(pruned / "model", 1), open_table(digits_folder).part("test"))
    assert (logits.argmax(1) == open_table(digits_folder).part("test").label).mean() > 0.5


def test_the_trajectory_and_the_mask_agree(pruned):
    mask = read_mask(pruned / "mask")
    rows = read_trajectory(pruned / "mask", len(mask))
    assert {row["seed"] for row in rows} == {0, 1}
    mine = [row for row in rows if row["seed"] == 0]
    assert [row["epoch"] for row in mine] == list(range(len(mine)))
    active = sum(row["active"].astype(int) for row in mine)
    assert (mask.epochs_used <= active).all()
    assert mask.epochs_used.sum() % 32 == 0  # full batches


@pytest.mark.parametrize("method", ["full", "random", "adaptive"])
def test_every_method_spends_the_same_budget(method, digits_folder, warm, tmp_path):
    prune(digits_folder, [], warm[0], replace(PRUNE, method=method), tmp_path / "model", tmp_path / "mask")
    run = read_json(tmp_path / "model" / "run.json")
    steps = 2 * (606 // 32) + round(5 * 606 / 32 * 0.6)
    assert run["cost"]["backward_samples"] == steps * 32


def test_keep_1_is_ordinary_training(digits_folder, warm, tmp_path):
    """Whatever the method, with nothing dropped the weights are those of `full`, to the last bit."""
    weights = {}
    for method in ("full", "random"):
        config = PruneConfig(method=method, keep=1.0, epochs=4)
        prune(digits_folder, [], warm[0], config, tmp_path / method, tmp_path / f"{method}-mask")
        weights[method] = load_file(tmp_path / method / "seed-0" / "weights.safetensors")
    for name, tensor in weights["full"].items():
        assert torch.equal(tensor, weights["random"][name]), name


def same_outcome(a, b):
    assert (a / "mask" / MASK_FILE).read_bytes() == (b / "mask" / MASK_FILE).read_bytes()
    assert (a / "mask" / TRAJECTORY_FILE).read_bytes() == (b / "mask" / TRAJECTORY_FILE).read_bytes()
    for seed in ("seed-0", "seed-1"):
        weights = "weights.safetensors"
        assert (a / "model" / seed / weights).read_bytes() == (b / "model" / seed / weights).read_bytes()


def test_the_same_inputs_give_the_same_bytes(digits_folder, warm, pruned, tmp_path):
    prune(digits_folder, [], warm[0], PRUNE, tmp_path / "model", tmp_path / "mask")
    same_outcome(pruned, tmp_path)


@pytest.mark.parametrize("stop_after", [2, 8])
def test_a_killed_step_goes_on_and_ends_the_same(
    digits_folder, warm, pruned, tmp_path, monkeypatch, caplog, stop_after
):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(phases, "CHECKPOINT_SECONDS", -1.0)
    epoch, count = phases.Pruning.epoch, []

    def dies(self):
        if len(count) == stop_after:
            raise KeyboardInterrupt
        count.append(1)
        return epoch(self)

    monkeypatch.setattr(phases.Pruning, "epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        prune(digits_folder, [], warm[0], PRUNE, tmp_path / "model", tmp_path / "mask")
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "mask").exists()

    monkeypatch.setattr(phases.Pruning, "epoch", epoch)
    with caplog.at_level(logging.INFO):
        prune(digits_folder, [], warm[0], PRUNE, tmp_path / "model", tmp_path / "mask")
    assert "adaptive seed 0 goes on after epoch" in caplog.text
    same_outcome(pruned, tmp_path)
    assert not list((tmp_path / "state" / "checkpoints").iterdir())


def test_a_killed_warm_up_goes_on_and_ends_the_same(digits_folder, warm, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(phases, "CHECKPOINT_SECONDS", -1.0)
    epoch, count = phases.WarmUp.epoch, []

    def dies(self):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(1)
        return epoch(self)

    monkeypatch.setattr(phases.WarmUp, "epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        warm_up(digits_folder, TRAIN, tmp_path / "warmup")
    monkeypatch.setattr(phases.WarmUp, "epoch", epoch)
    warm_up(digits_folder, TRAIN, tmp_path / "warmup")
    for seed in ("seed-0.pt", "seed-1.pt"):
        one, other = (load((folder / seed).read_bytes(), seed) for folder in (warm[0], tmp_path / "warmup"))
        for name, tensor in one["trainer"]["network"].items():
            assert torch.equal(tensor, other["trainer"]["network"][name])
        assert torch.equal(one["losses"]["mean"].nan_to_num(), other["losses"]["mean"].nan_to_num())


RETRAIN = replace(PRUNE, retrain=True)


@pytest.fixture(scope="module")
def retrained(digits_folder, warm, tmp_path_factory):
    out = tmp_path_factory.mktemp("retrained")
    prune(digits_folder, [], warm[0], RETRAIN, out / "model", out / "mask")
    return out


def test_retraining_counts_and_leaves_the_mask_as_it_was(retrained, pruned):
    before, after = (read_json(out / "model" / "seed-1" / "history.json") for out in (pruned, retrained))
    count = len(before)
    assert [(e["phase"], e["samples"]) for e in before] == [(e["phase"], e["samples"]) for e in after[:count]]
    steps = 2 * (round(0.6 * 606) // 32) + round(5 * 606 / 32 * 0.6)
    assert {e["phase"] for e in after[count:]} == {"retrain"}
    assert [e["epoch"] for e in after] == list(range(len(after)))
    assert after[-1]["samples"] - before[-1]["samples"] == steps * 32
    assert after[-1]["forward_samples"] == after[-1]["samples"] + 143 * len(after)
    assert after[-1]["seconds"] > before[-1]["seconds"]
    assert after[count]["train_loss"] > before[-1]["train_loss"]  # the network is a new one
    assert after[-1]["train_loss"] < after[count]["train_loss"] / 2
    rates = [e["learning_rate"] for e in after[count:]]
    assert rates[0] == rates[1] == 0.1
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.005
    run = read_json(retrained / "model" / "run.json")
    assert run["cost"]["backward_samples"] == after[-1]["samples"]
    masks = [read_mask(out / "mask") for out in (pruned, retrained)]
    for column in ("kept", "reason", "score", "loss", "epochs_used"):
        one, other = (getattr(mask, column) for mask in masks)
        assert one.tolist() == other.tolist(), column


def test_retraining_on_everything_is_ordinary_training(digits_folder, warm, tmp_path):
    for retrain in (False, True):
        config = PruneConfig(method="full", keep=1.0, epochs=4, retrain=retrain)
        prune(digits_folder, [], warm[0], config, tmp_path / f"model-{retrain}", tmp_path / f"mask-{retrain}")
    weights = "seed-1/weights.safetensors"
    one, other = (load_file(tmp_path / f"model-{retrain}" / weights) for retrain in (False, True))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_killed_retraining_goes_on_and_ends_the_same(digits_folder, warm, retrained, tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(phases, "CHECKPOINT_SECONDS", -1.0)
    epoch, count = phases.Retraining.epoch, []

    def dies(self):
        if len(count) == 4:
            raise KeyboardInterrupt
        count.append(1)
        return epoch(self)

    monkeypatch.setattr(phases.Retraining, "epoch", dies)
    with pytest.raises(KeyboardInterrupt):
        prune(digits_folder, [], warm[0], RETRAIN, tmp_path / "model", tmp_path / "mask")
    monkeypatch.setattr(phases.Retraining, "epoch", epoch)
    prune(digits_folder, [], warm[0], RETRAIN, tmp_path / "model", tmp_path / "mask")
    same_outcome(retrained, tmp_path)


def test_retraining_sees_the_kept_samples_and_their_soft_labels(digits_folder, monkeypatch):
    """The verdict says which are relabelled; every batch's loss is compared with the definition."""
    table = open_table(digits_folder)
    work = Seed(table, TRAIN, 8, 0)
    size = len(work.trainer.table)
    rng = np.random.default_rng(0)
    posterior_NC = rng.dirichlet(np.ones(10), size).astype(np.float16)
    ones_N = np.ones(size, dtype=np.float32)
    semantics = Semantics(-ones_N, ones_N, posterior_NC.argmax(1).astype(np.int32), posterior_NC)
    pruner = Pruner(PRUNE, None, work.trainer.table.label, semantics=semantics)
    kept_N = rng.random(size) < 0.5
    reason_N = np.where(kept_N & (rng.random(size) < 0.3), CODE[Reason.RELABELLED], CODE[Reason.KEPT])
    monkeypatch.setattr(pruner, "verdict", lambda: Verdict(kept_N, ones_N, reason_N))
    phase = phases.Retraining(work, pruner, PRUNE, [])
    seen, objective = [], phase.objective

    def checked(index_B, loss_B, logits_BC):
        found = objective(index_B, loss_B, logits_BC)
        index, log_p = index_B.numpy(), logits_BC.detach().log_softmax(1).double().numpy()
        soft = reason_N[index] == CODE[Reason.RELABELLED]
        wanted = np.where(soft, -(posterior_NC[index] * log_p).sum(1), loss_B.detach().numpy())
        assert found.item() == pytest.approx(wanted.mean(), rel=1e-5)
        seen.extend(index)
        return found

    monkeypatch.setattr(phase, "objective", checked)
    entry = phase.epoch()
    assert entry["phase"] == "retrain"
    assert entry["kept"] == kept_N.mean()
    assert kept_N[seen].all()
    assert len(set(seen)) == len(seen) == kept_N.sum() // 32 * 32
    monkeypatch.setattr(pruner, "verdict", lambda: Verdict(~ones_N.astype(bool), ones_N, reason_N))
    with pytest.raises(InputError, match=f"retrain must have samples that the mask keeps, got none of {size}"):
        phases.Retraining(work, pruner, PRUNE, [])


def test_a_warm_up_of_another_data_set(digits_folder, warm, tmp_path):
    other = ingest(IngestConfig(split_seed=5), tmp_path / "other", tmp_path / "clean.parquet")
    mine = open_table(digits_folder).info.digest
    with pytest.raises(InputError, match=f"warm-up must be of data set {other.digest[:12]}, got {mine[:12]}"):
        prune(tmp_path / "other", [], warm[0], PRUNE, tmp_path / "model", tmp_path / "mask")


def test_wrong_settings(digits_folder, warm, tmp_path):
    def go(config):
        prune(digits_folder, [], warm[0], config, tmp_path / "model", tmp_path / "mask")

    with pytest.raises(InputError, match=r"epochs must be more than warmup_epochs \(2\), got 2"):
        go(PruneConfig(method="full", epochs=2))
    with pytest.raises(InputError, match="method must be one of"):
        go(PruneConfig(method="best"))
    with pytest.raises(InputError, match="method 'multimodal' must have semantics"):
        go(PruneConfig(epochs=4))
    assert not (tmp_path / "model").exists()
    with pytest.raises(InputError, match="loss must be finite"):
        warm_up(digits_folder, TrainConfig(learning_rate=1e9, warmup_epochs=2), tmp_path / "warmup")
    for wrong in ({"seeds": ()}, {"seeds": (1, 1)}, {"batch_size": 1}, {"augment": "cutout"}, {"precision": "fp8"}):
        with pytest.raises(InputError, match=f"^{next(iter(wrong))} must be"):
            TrainConfig(**wrong)


def test_checkpoints_hold_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path))
    store = CheckpointStore(tmp_path / "out", step="test")
    assert store.load("seed-0") is None
    state = {"a": np.arange(3), "b": {"c": [1.5, None, "text"]}, "d": torch.ones(2)}
    store.save("seed-0", state)
    back = store.load("seed-0")
    assert back["a"].tolist() == [0, 1, 2]
    assert back["b"] == {"c": [1.5, None, "text"]}
    assert CheckpointStore(tmp_path / "out", step="other").load("seed-0") is None

    class Evil:
        def __reduce__(self):
            return print, ("code ran",)

    content = dump({"evil": 1})
    buffer = io.BytesIO()
    torch.save({"evil": Evil()}, buffer)
    for wrong in (buffer.getvalue(), content[:100], b"text"):
        with pytest.raises(InputError, match="checkpoint must be a file that secateur wrote, got 'x'"):
            load(wrong, "x")


def test_without_a_durable_place_checkpoints_lie_beside_the_output(tmp_path):
    store = CheckpointStore(tmp_path / "out" / "model", step="test")
    store.save("seed-0", {"a": 1})
    assert len(list((tmp_path / "out" / "state" / "checkpoints").iterdir())) == 1
    assert CheckpointStore(tmp_path / "out" / "model", step="test").load("seed-0") == {"a": 1}
    store.clear()
    assert store.load("seed-0") is None
