"""The benchmark harness: data, comparisons, resumed grids, and toy runs of what needs a GPU."""

import json
import math

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from benchmarks import checking_out, cost_of_choosing, embedding, grid, scale, speedrun
from benchmarks.arms import ARMS
from benchmarks.data import CLASSES, cifar10, symmetric_noise
from benchmarks.recipes import RECIPES, cifar_resnet18, forward_flops, small_convnet, whiten
from benchmarks.report import compare, equals_full_at
from benchmarks.runs import Job, Setting, load_data, run
from benchmarks.semantics import degraded, noise_level, similarities
from secateur.pruning.config import PruneConfig

PICTURES, TRAIN = 3600, 3000


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory):
    """A made-up CIFAR-10: one colour a class, in the files that the harness reads; no two pictures are equal."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 10, PICTURES).astype(np.int8)
    images = rng.integers(0, 200, (10, 3))[label_N][:, None, None] + rng.integers(0, 50, (PICTURES, 32, 32, 3))
    for i, part in enumerate(np.array_split(np.arange(PICTURES), 3)):
        np.savez(folder / f"cifar10-part{i}.npz", images=images[part].astype(np.uint8), labels=label_N[part])
    logit_NC = 4 * np.eye(10)[label_N[:TRAIN]] + rng.standard_normal((TRAIN, 10))
    np.savez(folder / "cifar10_similarity.npz", logits=logit_NC.astype(np.float16))
    noisy_N = label_N[:TRAIN].copy()
    noisy_N[100:200] = (noisy_N[100:200] + 1) % 10
    np.savez(folder / "cifar10n.npz", aggre=noisy_N, random1=noisy_N)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_label_sets_share_pictures_and_splits_and_leave_test_labels_clean(cifar_folder, cache):
    clean, noisy = (cifar10(name, cifar_folder, cache, toy=400) for name in ("clean", "random1"))
    assert clean.table.sample_id.tolist() == noisy.table.sample_id.tolist()
    assert clean.table.split.tolist() == noisy.table.split.tolist()
    different_N = clean.table.label != noisy.table.label
    assert set(np.flatnonzero(different_N)) <= set(range(100, 200))
    assert not different_N[clean.table.split == "test"].any()
    assert noisy.wrong_N.tolist() == different_N[noisy.original_N].tolist()
    assert not clean.wrong_N.any()


def test_symmetric_noise_is_exact_and_never_gives_the_same_class():
    label_N = np.arange(1000) % len(CLASSES)
    key_N = np.random.default_rng(1).integers(0, 2**63, 1000).astype(np.uint64)
    noisy_N = symmetric_noise(label_N, key_N, 0.3, "a stream")
    assert (noisy_N != label_N).sum() == 300
    assert noisy_N.min() >= 0
    assert noisy_N.max() < 10
    assert (symmetric_noise(label_N, key_N, 0.3, "a stream") == noisy_N).all()
    assert (symmetric_noise(label_N, key_N, 0.3, "another") != noisy_N).any()


def test_degraded_semantics_reach_the_auroc_they_are_named_after(cifar_folder):
    from sklearn.metrics import roc_auc_score

    logit_NC = np.load(cifar_folder / "cifar10_similarity.npz")["logits"].astype(float)
    clean_N = np.concatenate([np.load(f)["labels"] for f in sorted(cifar_folder.glob("cifar10-part*"))])[:TRAIN]
    given_N = clean_N.astype(int).copy()
    wrong_N = np.random.default_rng(9).random(TRAIN) < 0.3
    given_N[wrong_N] = (given_N[wrong_N] + np.random.default_rng(8).integers(1, 10, wrong_N.sum())) % 10
    weak_NC = degraded(logit_NC, noise_level(str(cifar_folder), 0.90))
    log_p_NC = torch.from_numpy(weak_NC).log_softmax(1).numpy()
    assert roc_auc_score(wrong_N, -log_p_NC[np.arange(TRAIN), given_N]) == pytest.approx(0.90, abs=0.015)


def test_whitened_patches_have_equal_variance_and_both_signs():
    torch.manual_seed(0)
    pictures = functional.avg_pool2d(torch.randn(300, 3, 18, 18), 3, stride=1)
    conv = nn.Conv2d(3, 2 * 12, 2)
    whiten(conv, pictures)
    out = conv(pictures).transpose(0, 1).flatten(1)[:12]
    covariance = torch.cov(out)
    variance = covariance.diagonal()
    assert (variance.max() / variance.min()).item() < 1.2
    assert (covariance - covariance.diag().diag()).abs().max() < 0.02 * variance.max()
    assert torch.equal(conv.weight[:12], -conv.weight[12:])


def test_networks_give_logits_and_flops_count_the_convolutions():
    assert cifar_resnet18(10)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert small_convnet(7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    sides = [(3 * 16, 32, 16), (32 * 9, 64, 16), (64 * 9, 128, 8), (128 * 9, 128, 8)]
    by_hand = sum(2 * inputs * outputs * side * side for inputs, outputs, side in sides) + 2 * 128 * 10
    assert forward_flops(RECIPES["cpu"], 10) == by_hand


def results(*accuracies):
    return {seed: {"test_accuracy": accuracy} for seed, accuracy in enumerate(accuracies)}


def test_comparison_is_the_one_sided_paired_t_test():
    arm, reference = results(86.0, 86.4, 85.9), results(85.0, 85.6, 85.5)
    found = compare(arm, reference, margin=0.2)
    difference = np.array([1.0, 0.8, 0.4])
    t = (difference.mean() + 0.2) / (difference.std(ddof=1) / math.sqrt(3))
    # Student's t with two degrees of freedom has a closed form.
    assert found.p == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)), abs=1e-9)
    assert found.mean == pytest.approx(difference.mean())
    assert found.pairs == 3
    assert math.isnan(compare(results(86.0), reference).p)
    assert compare(arm, {}).pairs == 0


@pytest.mark.parametrize(
    ("accuracy", "says"), [(80.0, "50"), (82.0, "75"), (84.0, "100"), (79.0, "< 50"), (85.0, "> 100")]
)
def test_arms_are_placed_on_the_full_data_curve(accuracy, says):
    assert equals_full_at(accuracy, [(0.5, 80.0), (1.0, 84.0)]) == says


def test_arms_have_settings_that_exist():
    for arm in ARMS.values():
        PruneConfig(method="full", **arm.prune)


def test_a_grid_of_two_arms_is_resumed_and_reported(tmp_path, cache, capsys):
    command = ["--arms", "random", "--seeds", "0,1", "--curve", "0.7", "--epochs", "3", "--workers", "1"]
    command += ["--cache", str(cache), "--out", str(tmp_path), "--references", "random"]
    grid.main(command)
    files = sorted((tmp_path / "runs").glob("*.json"))
    assert len(files) == 2 * 4  # full at three budgets, and random
    spared = files[0].read_bytes()
    files[1].unlink()
    capsys.readouterr()
    grid.main(command)
    assert "1/1" in capsys.readouterr().out
    assert files[0].read_bytes() == spared
    text = (tmp_path / "README.md").read_text()
    assert "| random | 2 |" in text
    assert "Against random" in text
    assert "nan" not in text
    assert (tmp_path / "accuracy-digits-0.5.svg").read_text().startswith("<svg xmlns=")
    rows = {r["arm"]: r for r in map(json.loads, (f.read_text() for f in files)) if r["keep"] == 0.5 and not r["seed"]}
    assert rows["full"]["backward_samples"] == rows["random"]["backward_samples"]
    assert rows["random"]["keep_achieved"] == pytest.approx(0.5, abs=1e-3)


def test_a_run_says_the_same_twice(cache):
    setting = Setting("digits", None, str(cache), epochs=3)
    job = Job("digits", "random", 0.5, 0, "clip")
    first, second = run(setting, job), run(setting, job)
    assert first["test_accuracy"] == second["test_accuracy"]
    assert first["validation_curve"] == second["validation_curve"]
    assert first["wrong_curve"][0] == pytest.approx(load_data(setting, "digits").wrong_N.mean())


@pytest.mark.parametrize("recipe", ["cpu", "gpu"], ids=["small-convnet", "resnet18"])
def test_cifar_recipes_work_at_toy_size(recipe, cifar_folder, cache):
    setting = Setting(recipe, str(cifar_folder), str(cache), epochs=2, toy=100)
    result = run(setting, Job("random1", "multimodal", 0.5, 0, "similarity"))
    assert result["semantics_figures"]["name"] == "similarity"
    assert 0 <= result["test_accuracy"] <= 100


def test_the_speedrun_works_at_toy_size(cifar_folder, cache, tmp_path):
    for target in ("94", "96"):
        where = ["--data", str(cifar_folder), "--cache", str(cache), "--out", str(tmp_path)]
        speedrun.main([*where, "--toy", "400", "--seeds", "1", "--methods", "none,random", "--target", target])
        runs = json.loads((tmp_path / "runs.json").read_text())["runs"]
        assert [r["method"] for r in runs] == ["none", "random"]
        assert runs[1]["steps"] < runs[0]["steps"]


def test_the_published_sampler_draws_half_of_the_easy_ones_and_weighs_them_twice():
    loss_N = np.random.default_rng(0).gamma(0.5, size=1000)
    peer = cost_of_choosing.Peer(loss_N)
    active = peer.active()
    easy_N = loss_N < loss_N.mean()
    assert set(np.flatnonzero(~easy_N)) <= set(active)
    assert len(active) == (~easy_N).sum() + easy_N.sum() // 2
    assert len(set(active)) == len(active)
    assert peer.weight_N[active].sum() == pytest.approx(1000, abs=1)
    assert sorted(peer.shuffled()) != sorted(active)


def test_cost_of_choosing_writes_a_table_and_counts_bytes(tmp_path):
    cost_of_choosing.main(["--sizes", "2000", "--rounds", "2", "--out", str(tmp_path)])
    assert "| random |" in (tmp_path / "README.md").read_text()
    found = json.loads((tmp_path / "results.json").read_text())["results"]["2000"]
    assert found["random"]["bytes_per_sample"] == pytest.approx(
        4 + 4 + 2 + 8 + 4, abs=0.2
    )  # losses, visits, key, label


def test_embedding_writes_a_table_and_semantics_come_from_a_clip(cifar_folder, cache, tmp_path):
    model = {
        "embed_dim": 8,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (cifar_folder / "cifar-clip").mkdir()
    (cifar_folder / "cifar-clip" / "cifar-clip.json").write_text(json.dumps(model))
    save_file(open_clip.CLIP(**model).state_dict(), cifar_folder / "cifar-clip" / "cifar-clip.safetensors")
    small = ["--models", "cifar-clip", "--pictures", "70", "--rounds", "2"]
    embedding.main(["--data", str(cifar_folder), *small, "--out", str(tmp_path)])
    assert (tmp_path / "README.md").read_text().count("| cifar-clip | 70 ") == 2
    found = json.loads((tmp_path / "results.json").read_text())["results"]
    assert all(min(r["ratio"], r["cpu_ratio"], r["ours"]) > 0 for r in found)
    data = cifar10("clean", cifar_folder, cache, toy=60)
    similarity_NC = similarities("clip", data, cifar_folder, cache)
    assert similarity_NC.shape == (len(data.original_N), 10)
    assert np.abs(similarity_NC).max() <= 1 + 1e-6


def test_scale_is_exact_and_writes_a_table(tmp_path):
    scale.main(["--sizes", "80000", "--ranks", "3", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [r["equal_to_one_process"] for r in found] == [True, True]
    assert found[0]["samples_per_rank"] == 26666
    assert found[0]["held_bytes_per_rank"] == 24 * 26666
    assert found[0]["messages"] < found[1]["messages"]
    assert (tmp_path / "README.md").read_text().count("| 80,000 |") == 2


@pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")  # DVC's
def test_checking_out_times_every_format(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc-site"))
    checking_out.main(["--pictures", "40", "--out", str(tmp_path / "record")])
    seconds = json.loads((tmp_path / "record" / "results.json").read_text())["seconds"]
    assert set(seconds) == {*checking_out.KINDS, checking_out.PEER}
    assert "| folder | " in (tmp_path / "record" / "README.md").read_text()
