from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.dataset.images import encode_bmp
from secateur.dataset.table import Row, open_table, write_table
from secateur.records.registry import formats
from secateur.records.registry.formats import distinct, extension, file_name, safe_name

names = st.text(max_size=300)


@settings(max_examples=50, deadline=None)
@given(st.lists(names, max_size=20))
def test_class_folders_differ_whatever_the_classes_are_called(classes: list[str]) -> None:
    made = distinct(classes, "class")
    assert len({name.casefold() for name in made}) == len(classes)
    for name in made:
        assert name not in ("", ".", "..")
        assert not set(name) & set('/\\:*?"<>|\0\n')
        assert len(name.encode(errors="replace")) < 200


@settings(max_examples=50, deadline=None)
@given(st.lists(names, max_size=20))
def test_picture_names_differ_and_stay_in_their_folder(sources: list[str]) -> None:
    image = encode_bmp(np.zeros((2, 2), np.uint8))
    taken: set[str] = set()
    made = [file_name(source, image, f"{i:032x}", taken) for i, source in enumerate(sources)]
    assert len({name.casefold() for name in made}) == len(sources)
    folder = Path("/checkout/class")
    for name in made:
        assert (folder / name).parent == folder
        assert len(name.encode(errors="replace")) < 256


def test_own_names_are_kept() -> None:
    taken: set[str] = set()
    assert file_name("train/cats/Mimi 1.PNG", b"", "a", taken) == "Mimi 1.png"
    assert file_name("val/cats/mimi 1.png", b"", "b", taken) == "mimi 1-b.png"
    assert file_name("https://example.org/mimi.jpg?size=3", b"", "c", taken) == "mimi.jpg"
    assert safe_name("..") == ""


def test_a_picture_without_a_suffix_gets_its_own() -> None:
    assert extension("row 7", encode_bmp(np.zeros((2, 2), np.uint8))) == ".bmp"


def test_large_shards_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SHARD_SAMPLES", 3)
    pictures = [encode_bmp(np.full((2, 2), i, np.uint8)) for i in range(8)]
    rows = [Row(image, 0, "train", f"{i}.bmp") for i, image in enumerate(pictures)]
    write_table(tmp_path / "table", rows, name="grey", classes=["grey"])
    table = open_table(tmp_path / "table")
    cut = list(formats.shards(table, np.arange(8)))
    assert cut == [[0, 1, 2], [3, 4, 5], [6, 7]]
    monkeypatch.setattr(formats, "SHARD_BYTES", 2 * len(pictures[0]))
    assert [len(shard) for shard in formats.shards(table, np.arange(8))] == [2, 2, 2, 2]
