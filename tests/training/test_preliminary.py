import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional

from secateur.dataset import open_table
from secateur.dataset.loader import augment
from secateur.errors import InputError
from secateur.files import read_json
from secateur.pruning.config import PruneConfig
from secateur.state import STATE_VARIABLE
from secateur.streams import shuffled
from secateur.training import preliminary
from secateur.training.config import TrainConfig
from secateur.training.preliminary import Scout, learning_rate, small_network
from secateur.training.runs import prune, warm_up

TRAIN = TrainConfig(warmup_epochs=2, seeds=(0,))
ROWS, STEPS = 606, 606 // 32  # of the digits


def make_scout(table, epochs=8, keep=0.4, seed=0, **others):
    config = PruneConfig(method="el2n", keep=keep, epochs=epochs)
    return Scout(table.part("train"), TRAIN, config, 8, seed, **others)


@pytest.fixture(scope="module")
def noisy(digits_folder, clean_labels_file):
    """The digits, and which of their training labels are wrong."""
    table = open_table(digits_folder)
    clean = pq.read_table(clean_labels_file).to_pydict()
    true_label = dict(zip(clean["sample_id"], clean["label"], strict=True))
    train = table.part("train")
    return table, np.array([true_label[i] for i in train.sample_id]) != train.label


def area(score_N, positive_N):
    """Share of pairs in which the positive one has the higher score."""
    higher = score_N[positive_N][:, None] > score_N[~positive_N]
    same = score_N[positive_N][:, None] == score_N[~positive_N]
    return float((higher + 0.5 * same).mean())


def test_wrong_labels_have_large_errors_early_and_are_forgotten(noisy, monkeypatch):
    table, wrong_N = noisy
    monkeypatch.setattr(preliminary, "EL2N_NETWORKS", 2)
    scout = make_scout(table, epochs=30)
    found = scout.find(("validation", "el2n", "forgetting"))
    assert set(found.scores) == {"el2n", "forgetting"}
    assert area(found.scores["el2n"], wrong_N) > 0.85
    assert area(found.scores["forgetting"], wrong_N) > 0.7
    steps = 2 * 3 * STEPS + 30 * STEPS  # two networks for a tenth of the epochs, and a whole run
    assert found.cost["backward_samples"] == 32 * steps
    assert found.cost["forward_samples"] == 32 * steps + 2 * ROWS
    assert found.cost["seconds"] > 0


def test_the_same_seed_finds_the_same_and_the_run_itself_is_not_disturbed(noisy, monkeypatch):
    monkeypatch.setattr(preliminary, "EL2N_NETWORKS", 1)
    torch.manual_seed(3)
    one = make_scout(noisy[0]).find(("el2n", "proxy"))
    after = torch.rand(1)
    again, other = (make_scout(noisy[0], seed=seed).find(("el2n", "proxy")) for seed in (0, 1))
    for name, score in one.scores.items():
        assert np.array_equal(score, again.scores[name])
        assert not np.array_equal(score, other.scores[name])
    torch.manual_seed(3)
    assert torch.rand(1) == after


def test_the_proxy_marks_the_highest_losses_of_the_pictures_that_the_run_will_meet(noisy):
    """The marks of the first batch by hand; after it the network has moved."""
    train, scout = noisy[0].part("train"), make_scout(noisy[0])
    marks_EN = scout.proxy()
    assert (marks_EN.sum(1) == round(0.4 * ROWS)).all()
    steps = round(6 * ROWS / 32 * 0.4)
    assert len(marks_EN) == 2 + -(-steps // (round(0.4 * ROWS) // 32))
    assert scout.forward == scout.backward == len(marks_EN) * ROWS
    batch = np.array_split(shuffled(train.key, "order", 0, 0), round(0.4 * ROWS / 32))[0]
    pictures = scout.pictures.resident_N3HW[torch.from_numpy(batch)]
    pictures = augment(pictures, train.key[batch], "shift", 0, 0).to(torch.float32) / 255
    logits = small_network(10, 8, 0).train()(pictures)
    loss_B = functional.cross_entropy(logits, torch.from_numpy(train.label[batch].astype(int)), reduction="none")
    hardest = batch[np.argsort(-loss_B.detach().numpy())[: round(0.4 * len(batch))]]
    assert set(hardest) == set(batch[marks_EN[0, batch]])


def test_the_learning_rate_is_that_of_an_ordinary_run():
    config = TrainConfig(warmup_epochs=4, learning_rate=0.2)
    rates = [learning_rate(config, 10, at) for at in (0, 1, 2, 4, 7, 10)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.2, 0.1, 0])


def test_a_need_that_nothing_makes(noisy):
    assert make_scout(noisy[0]).find(("semantics", "validation")).scores == {}
    with pytest.raises(
        InputError, match=r"method 'el2n' must need semantics, validation or a score out of .*got 'magic'"
    ):
        make_scout(noisy[0]).find(("magic",))


@pytest.fixture(scope="module")
def warm(digits_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("warm") / "warmup"
    warm_up(digits_folder, TRAIN, folder)
    return folder


@pytest.mark.parametrize("method", ["el2n", "forgetting", "proxy", "infobatch", "seta"])
def test_a_run_makes_what_its_method_needs_and_pays_for_it(method, digits_folder, warm, tmp_path, monkeypatch):
    monkeypatch.setattr(preliminary, "EL2N_NETWORKS", 2)
    config = PruneConfig(method=method, keep=0.5, epochs=6)
    prune(digits_folder, [], warm, config, tmp_path / "model", tmp_path / "mask")
    run = read_json(tmp_path / "model" / "run.json")
    last = read_json(tmp_path / "model" / "seed-0" / "history.json")[-1]
    extra = {"el2n": 2 * STEPS * 32, "forgetting": 6 * STEPS * 32}.get(method, 0)
    if method == "proxy":
        extra = ROWS * (2 + -(-round(4 * ROWS / 32 * 0.5) // (ROWS // 2 // 32)))
    assert last["samples"] == (2 * STEPS + round(4 * ROWS / 32 * 0.5)) * 32
    assert run["cost"]["backward_samples"] == last["samples"] + extra
    assert run["preliminary"].get("backward_samples", 0) == extra
    assert run["cost"]["forward_samples"] == last["forward_samples"] + run["preliminary"].get("forward_samples", 0)


def test_a_killed_run_does_not_go_first_again(digits_folder, warm, tmp_path, monkeypatch):
    monkeypatch.setattr(preliminary, "EL2N_NETWORKS", 1)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    config = PruneConfig(method="el2n", keep=0.5, epochs=6)
    with monkeypatch.context() as patch:
        patch.setattr("secateur.training.runs.drive", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prune(digits_folder, [], warm, config, tmp_path / "model", tmp_path / "mask")
    monkeypatch.setattr(Scout, "el2n", lambda _: pytest.fail("the scores were there"))
    prune(digits_folder, [], warm, config, tmp_path / "model", tmp_path / "mask")
    assert read_json(tmp_path / "model" / "run.json")["preliminary"]["backward_samples"] == STEPS * 32
