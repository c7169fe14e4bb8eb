from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_outputs import CLASSES, Outputs
from safetensors import deserialize
from safetensors.numpy import save

from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, open_table, write_table
from secateur.pruning.method import Reason
from secateur.records.describing import REASONS, describe, make_cards, weights_digest
from secateur.records.outputs import read_outputs


@pytest.fixture
def said(outputs: Outputs) -> dict:
    return describe(read_outputs(**outputs.files), outputs.files["dataset_folder"], "f00", "http://a:b@example.org")


def test_classes_add_up(said: dict, outputs: Outputs) -> None:
    labels = open_table(outputs.files["dataset_folder"]).part("train").label
    for label, row in enumerate(said["per_class"]):
        assert row["class"] == CLASSES[label]
        assert row["samples"] == (labels == label).sum() == sum(row["reasons"].values())
        assert row["kept"] == outputs.mask.kept[labels == label].sum()
    total = sum((Counter(row["reasons"]) for row in said["per_class"]), Counter())
    assert total == outputs.mask.reasons == said["reasons"]


def test_no_password_is_published(said: dict) -> None:
    assert said["mlflow"]["tracking_uri"] == "http://example.org"


def test_every_reason_is_explained() -> None:
    assert set(REASONS) == set(Reason)


def test_cards_say_what_was_dropped_and_what_it_is_worth(said: dict) -> None:
    cards = make_cards(said)
    assert list(cards) == ["DATA_CARD.md", "MODEL_CARD.md"]
    data, model = cards.values()
    for text in (
        "8\nof 12 (66.7 %; 70.0 % were asked for)",
        "| redundant | 4 |",
        "| owl | 4 | 2 | 50.0 % | redundant 2 |",
    ):
        assert text in data
    for text in ("| random | 66.0 % | 65.0 % ± 1.0 % | 2 | 20 |", "* 20.0 points above `random`, with 1.00 times"):
        assert text in model
    for card in cards.values():
        assert "{version}" in card
        assert "{{" not in card
        assert "scores do not discriminate" in card
        assert not [line for line in card.splitlines() if len(line.split("|")) > 1 and not line.endswith("|")]


def test_a_class_name_cannot_break_a_table(said: dict) -> None:
    said["per_class"][0]["class"] = "a|b\n<script>"
    data = make_cards(said)["DATA_CARD.md"]
    assert "| a\\|b &lt;script> | 4 |" in data


def test_weights_have_one_digest_whatever_they_are_called_or_shared() -> None:
    one, two = np.arange(4, dtype=np.float32), np.ones(3, np.float32)

    def digest(**tensors: np.ndarray) -> str:
        return weights_digest(entry["data"] for _, entry in deserialize(save(tensors)))

    assert digest(a=one, b=two) == digest(x=two, y=one, z=one)
    assert digest(a=one, b=two) != digest(a=one, b=two + 1)


def test_a_mask_of_other_samples_is_refused(outputs: Outputs, tmp_path: Path) -> None:
    rows = [Row(encode_bmp(np.full((2, 2), i, np.uint8)), i % 3, "train", str(i)) for i in range(12)]
    write_table(tmp_path / "data", rows, name="others", classes=CLASSES)
    with pytest.raises(ValueError, match="mask must have the training samples of its data set"):
        describe(read_outputs(**outputs.files), tmp_path / "data", "f00", "")
