import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from secateur.dataset import open_table
from secateur.dataset.table import Row, write_table
from secateur.errors import InputError
from secateur.semantics import contrastive, digits_clip
from secateur.semantics.config import ClipConfig, ContrastiveConfig
from secateur.semantics.consistency import log_softmax
from secateur.semantics.digits_clip import embedded_clip
from secateur.semantics.embed import embed_shard, open_embeddings
from secateur.state import STATE_VARIABLE, DurableState

QUICK = ContrastiveConfig(steps=8, groups=2)


@pytest.fixture(scope="module")
def embedded(digits_folder, clean_labels_file, digits_clip_state, tmp_path_factory):
    """Similarities, given labels and true labels of the training pictures."""
    train = open_table(digits_folder).part("train")
    out = tmp_path_factory.mktemp("digits-embeddings") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(digits_clip_state))
        embed_shard(digits_folder, train.info.shards[0], ClipConfig(), out)
    embeddings = open_embeddings([out], train)
    clean = pq.read_table(clean_labels_file)
    label_of = dict(zip(clean["sample_id"].to_pylist(), clean["label"].to_pylist(), strict=True))
    true_N = np.array([label_of[i] for i in train.sample_id])
    return embeddings.image_ND @ embeddings.text_CD.T, train.label, true_N


def test_it_knows_the_digits(embedded):
    similarity_NC, _, true_N = embedded
    assert (similarity_NC.argmax(1) == true_N).mean() >= 0.97


def test_it_finds_the_wrong_labels(embedded):
    similarity_NC, label_N, true_N = embedded
    log_p_N = log_softmax(15 * similarity_NC)[np.arange(len(label_N)), label_N]
    wrong_N = label_N != true_N
    assert roc_auc_score(wrong_N, -log_p_N) >= 0.99
    assert recall_score(wrong_N, log_p_N < np.log(0.5)) >= 0.95
    assert precision_score(wrong_N, log_p_N < np.log(0.5)) >= 0.88


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(digits_clip, "TRAINING", QUICK)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path


def test_it_is_trained_once(quick, digits_folder, monkeypatch):
    state = DurableState(quick / "out")
    one = embedded_clip(ClipConfig(clip="digits-clip"), digits_folder, state, quick / "one")

    def refuse(*args):
        raise AssertionError("it was trained again")

    with monkeypatch.context() as patch:
        patch.setattr(digits_clip, "train", refuse)
        other = embedded_clip(ClipConfig(clip="digits-clip"), digits_folder, state, quick / "other")
    names = ("digits-clip.safetensors", "digits-clip.json")
    for name in names:
        assert (quick / "one" / name).read_bytes() == (quick / "other" / name).read_bytes()
    assert (one.checkpoint, one.clip_config) == tuple(str(quick / "one" / name) for name in names)
    assert (other.checkpoint, other.clip_config) == tuple(str(quick / "other" / name) for name in names)


def test_another_training_is_another_file(quick, digits_folder, monkeypatch):
    reference = open_table(digits_folder).part("reference")
    key = digits_clip.training_key(reference)
    monkeypatch.setattr(digits_clip, "TRAINING", ContrastiveConfig(steps=9, groups=2))
    assert digits_clip.training_key(reference) != key
    monkeypatch.setattr(digits_clip, "TRAINING", QUICK)
    assert digits_clip.training_key(reference) == key


def test_the_same_bytes_whatever_the_threads_and_seeds_around(quick, digits_folder):
    reference = open_table(digits_folder).part("reference")
    before = torch.get_num_threads()
    written = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        random_state = torch.get_rng_state()
        digits_clip.train(reference, quick / str(threads))
        assert torch.get_num_threads() == threads
        assert torch.get_rng_state().equal(random_state)
        written.append((quick / str(threads) / "digits-clip.safetensors").read_bytes())
    torch.set_num_threads(before)
    assert written[0] == written[1]


def test_it_sees_the_captioned_pictures_alone(quick, digits_folder, monkeypatch):
    seen = {}

    def look(model, picture_N3HW, caption_N, prompts, config):
        seen.update(pictures=picture_N3HW, captions=caption_N, prompts=prompts)
        return {"x": torch.zeros(1)}

    monkeypatch.setattr(contrastive, "train_clip", look)
    table = open_table(digits_folder)
    digits_clip.train(table.part("reference"), quick / "seen")
    assert seen["pictures"].shape == (599, 3, 32, 32)
    assert seen["captions"] == [c for c in table.captions() if c]
    assert seen["prompts"] == table.info.prompts


def test_no_pictures_of_one_caption_are_set_against_each_other(monkeypatch):
    seen = []

    class Spy(open_clip.ClipLoss):
        def forward(self, image_CD, text_CD, scale):
            seen.append((len(image_CD), len(torch.unique(text_CD.detach(), dim=0))))
            return super().forward(image_CD, text_CD, scale)

    monkeypatch.setattr(open_clip, "ClipLoss", Spy)
    picture_N3HW = torch.rand(12, 3, 32, 32)
    captions = ["cat", "dog", "dog", "owl", "owl", "owl"] * 2
    contrastive.train_clip(digits_clip.MODEL, picture_N3HW, captions, ["a {}", "the {}"], QUICK)
    assert seen == [(3, 3)] * (QUICK.steps * QUICK.groups)


def test_augmentation_of_nothing_changes_nothing():
    picture_B3HW = torch.rand(4, 3, 8, 8)
    still = ContrastiveConfig(rotation=0, scale=0, shift=0, noise=0)
    same_B3HW = contrastive.augment(picture_B3HW, np.random.default_rng(0), still)
    torch.testing.assert_close(same_B3HW, picture_B3HW)


def test_augmentation_shifts_by_at_most_what_it_says():
    picture_B3HW = torch.zeros(200, 3, 16, 16)
    picture_B3HW[:, :, 8, 8] = 1
    config = ContrastiveConfig(rotation=0, scale=0, shift=0.125, noise=0)
    moved_BHW = contrastive.augment(picture_B3HW, np.random.default_rng(0), config)[:, 0]
    place_H = torch.arange(16.0)
    for axis in (1, 2):
        mass_BH = moved_BHW.sum(axis)
        centre_B = (mass_BH * place_H).sum(1) / mass_BH.sum(1)
        assert (centre_B - 8).abs().max() <= 2.001
        assert (centre_B - 8).abs().max() > 1.5


def test_a_data_set_without_captions_has_no_clip_of_its_own(tmp_path, digits_folder):
    rows = [Row(open_table(digits_folder).image(0), 0, "train", "x")]
    info = write_table(tmp_path / "data", rows, name="things", classes=["thing"])
    with pytest.raises(InputError, match="clip must not be 'digits-clip' for a data set without captioned pictures"):
        embed_shard(tmp_path / "data", info.shards[0], ClipConfig(clip="digits-clip"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
