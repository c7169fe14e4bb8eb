import json
import logging
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from secateur.dataset.images import decode
from secateur.errors import InputError
from secateur.files import read_json
from secateur.training.models import make_network


def accuracy_by_hand(world, run, seed):
    network = make_network("convnet", 3, 8, 99)
    network.load_state_dict(load_file(world.folder / run / f"seed-{seed}" / "weights.safetensors"))
    network.eval()
    test, right = world.table.part("test"), 0
    for i in range(len(test)):
        pixels = np.asarray(decode(test.image(i)), dtype=np.float32) / 255
        with torch.no_grad():
            logits = network(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        right += int(logits.argmax()) == int(test.label[i])
    return right / len(test)


def test_accuracies_are_those_of_the_networks_one_picture_at_a_time(world):
    results = json.loads(world.text("results.json"))
    assert [(arm["name"], arm["role"]) for arm in results["arms"]] == [
        ("multimodal", "pruned"), ("full", "baseline"), ("random", "baseline"),
    ]  # fmt: skip
    for run, arm in zip(["model", "full", "random"], results["arms"], strict=True):
        assert arm["accuracy"] == pytest.approx([accuracy_by_hand(world, run, seed) for seed in (0, 1)])
        assert arm["accuracy_mean"] == pytest.approx(sum(arm["accuracy"]) / 2)
        assert arm["accuracy_sd"] == pytest.approx(abs(arm["accuracy"][0] - arm["accuracy"][1]) / math.sqrt(2))
    assert len({tuple(arm["accuracy"]) for arm in results["arms"]}) > 1


def test_results_hold_what_their_readers_rely_on(world):
    results = json.loads(world.text("results.json"))
    confusion = np.array(results["confusion"])
    assert confusion.sum(axis=1).tolist() == [10, 10, 10]
    assert results["per_class"] == pytest.approx((np.diagonal(confusion) / 10).tolist())
    assert np.trace(confusion) / 30 == pytest.approx(results["arms"][0]["accuracy"][0])
    assert results["reasons"] == {"inconsistent": 12, "kept": 42, "redundant": 6}
    assert results["mask_digest"] == world.mask.digest
    assert results["dataset"]["digest"] == world.table.info.digest
    assert results["arms"][0] | {"accuracy": 0, "accuracy_mean": 0, "accuracy_sd": 0} == {
        "name": "multimodal", "role": "pruned", "keep": 0.7, "keep_achieved": 0.7, "seeds": [0, 1], "accuracy": 0,
        "accuracy_mean": 0, "accuracy_sd": 0, "forward_samples": 500, "backward_samples": 420, "seconds": 1.25,
    }  # fmt: skip


def test_noise_scores_by_hand(world):
    from sklearn.metrics import roc_auc_score

    # Wrong are 0, 6, 12, ..., 54. Inconsistent are those ending in 0 or 1: of the wrong ones 0, 30. Ending in 2, and
    # so redundant: 12, 42.
    noise = json.loads(world.text("results.json"))["noise"]
    assert (noise["known"], noise["wrong"], noise["found_wrong"], noise["dropped_wrong_all"]) == (60, 10, 2, 4)
    assert (noise["recall"], noise["precision"]) == pytest.approx((2 / 10, 2 / 12))
    assert (noise["recall_all"], noise["precision_all"]) == pytest.approx((4 / 10, 4 / 18))
    wrong_N = np.arange(60) % 6 == 0
    assert noise["auroc_score"] == pytest.approx(roc_auc_score(wrong_N, -world.mask.score))
    assert noise["auroc_label_probability"] == pytest.approx(roc_auc_score(wrong_N, -world.mask.label_probability))


def test_unknown_truth_gives_no_noise_scores(world):
    world.change_clean([], [])
    assert world.evaluate().noise is None
    assert read_json(world.folder / "out" / "results.json")["noise"] is None
    assert "True labels are not known" in world.text("report.html")
    assert "True labels are not known" in world.text("summary.md")
    assert "by truth" not in world.text("report.html")
    assert "truth:" not in world.text("report.html")


def test_truth_known_in_part_is_scored_on_that_part(world):
    train = world.table.part("train")
    world.change_clean(train.sample_id[:12].tolist(), [int((y + (i == 0)) % 3) for i, y in enumerate(train.label[:12])])
    noise = world.evaluate().noise
    # Of the first twelve 0, 1, 10 and 11 are inconsistent, 2 redundant; only 0 is wrong.
    assert (noise.known, noise.wrong, noise.found_wrong) == (12, 1, 1)
    assert (noise.precision, noise.precision_all) == (1 / 4, 1 / 5)
    assert "not known (48)" in world.text("report.html")


def test_a_test_label_known_to_be_wrong_counts_as_its_true_one(world):
    test = world.table.part("test")
    world.change_clean(test.sample_id.tolist(), [1] * len(test))
    confusion = np.array(world.evaluate().confusion)
    assert confusion.sum(axis=1).tolist() == [0, 30, 0]
    assert read_json(world.folder / "out" / "results.json")["per_class"][0] is None


def test_a_mask_without_clip_has_no_auroc_of_the_label_probability(world):
    nan_N = np.full(60, np.nan, dtype=np.float32)
    world.change_mask(label_probability=nan_N, consistency=nan_N, suggested_label=np.full(60, -1, dtype=np.int32))
    world.change_run("model", semantics=None)
    world.evaluate()
    assert read_json(world.folder / "out" / "results.json")["noise"]["auroc_label_probability"] is None
    assert "Label probability, by" not in world.text("report.html")


@pytest.mark.parametrize("name", ["model", "full", "random"])
def test_a_run_of_another_data_set_is_an_error_and_nothing_is_written(world, name):
    world.change_run(name, dataset={"name": "pets", "digest": "f" * 64})
    who = "model" if name == "model" else "baseline"
    with pytest.raises(
        InputError, match=f"^{who} must be of data set {world.table.info.digest[:12]}, got ffffffffffff$"
    ):
        world.evaluate("new")
    assert not (world.folder / "new").exists()


def test_a_mask_of_another_data_set_is_an_error(world):
    meta = world.mask.meta | {"dataset": {"name": "pets", "digest": "e" * 64}}
    world.change_mask(meta=meta)
    with pytest.raises(InputError, match=r"^mask must be of data set [0-9a-f]{12}, got eeeeeeeeeeee$"):
        world.evaluate()


def test_a_mask_of_another_run_or_other_samples_is_an_error(world):
    world.change_mask(meta=world.mask.meta | {"keep_requested": 0.5})
    with pytest.raises(
        InputError, match=r"^mask must be the model's own, multimodal at keep 0\.7, got multimodal at keep 0\.5$"
    ):
        world.evaluate()
    world.change_mask(meta=world.mask.meta | {"keep_requested": 0.7}, sample_id=world.mask.sample_id[::-1])
    with pytest.raises(InputError, match="mask must hold the 60 training samples in their order"):
        world.evaluate()


def test_clean_labels_that_cannot_be_used_are_an_error(world):
    world.change_clean([world.table.sample_id[0]], [3])
    with pytest.raises(InputError, match=r"clean labels must be in \[0, 2\], got 3"):
        world.evaluate()
    (world.folder / "clean.parquet").write_text("sample_id,label\n")
    with pytest.raises(InputError, match="clean labels must be a Parquet file"):
        world.evaluate()


def test_a_folder_that_is_no_run_is_an_error(world):
    (world.folder / "random" / "run.json").unlink()
    with pytest.raises(InputError, match=r"baseline must be a folder with run.json, got .*random"):
        world.evaluate()


def test_alarms_are_passed_on_and_unequal_budgets_raise_one(world):
    world.change_run("model", alarms=["over-pruning: it had to wait"])
    world.change_run("full", alarms=["something odd"])
    world.change_run("random", cost={"forward_samples": 500, "backward_samples": 525, "seconds": 1.0})
    alarms = world.evaluate().alarms
    assert alarms[:2] == ("over-pruning: it had to wait", "full (baseline): something odd")
    assert "random (baseline) trained on 1.25 times as many samples as multimodal" in alarms[2]
    for text in (world.text("report.html"), world.text("summary.md")):
        assert all(alarm in text for alarm in alarms)
    assert "which trained on 1.25 times as many samples" in world.text("report.html")


def test_one_seed_has_no_deviation(world):
    for name in ("model", "full", "random"):
        world.change_run(name, seeds=[1])
    world.evaluate()
    assert read_json(world.folder / "out" / "results.json")["arms"][0]["accuracy_sd"] is None


def test_a_line_per_arm_is_logged(world, caplog):
    with caplog.at_level(logging.INFO, "secateur.evaluation"):
        results = world.evaluate()
    lines = [r.getMessage() for r in caplog.records if "test accuracy" in r.getMessage()]
    mean = 100 * results.arms[0].accuracy_mean
    assert lines[0].startswith(f"multimodal: test accuracy {mean:.1f} % (")
    assert lines[0].endswith("70.0 % kept, 500 samples forward, 420 backward, 1.2 s")
    assert [line.split(":")[0] for line in lines] == ["multimodal", "full", "random"]
