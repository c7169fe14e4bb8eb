import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from secateur.dataset import open_table
from secateur.dataset.images import encode_bmp
from secateur.dataset.table import INFO_FILE, Row, write_table
from secateur.errors import InputError
from secateur.files import read_json, write_json


def picture(value: int) -> bytes:
    return encode_bmp(np.full((4, 4), value, dtype=np.uint8))


def rows(labels=(0, 1, 0, 1), splits=("train", "train", "test", "validation")):
    return [
        Row(picture(i), label, split, f"{i}.bmp") for i, (label, split) in enumerate(zip(labels, splits, strict=True))
    ]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, rows(), name="tiny", classes=["x", "y"], shards=2)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == ["dataset.json", "shard-00000-of-00002.arrow", "shard-00001-of-00002.arrow"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_is_written_is_read(tmp_path):
    info = write_table(tmp_path / "t", rows(), name="tiny", classes=["x", "y"], shards=3, unreadable=["bad.png"])
    table = open_table(tmp_path / "t")
    assert table.info == info
    assert table.info.counts == {"train": 2, "validation": 1, "test": 1, "reference": 0}
    assert table.label.tolist() == [0, 1, 0, 1]
    assert [table.image(i) for i in range(4)] == [picture(i) for i in range(4)]
    train = table.part("train")
    assert [train.source(i) for i in range(len(train))] == ["0.bmp", "1.bmp"]
    shard = open_table(tmp_path / "t", info.shards[1])
    assert set(shard.sample_id) < set(table.sample_id)


def test_equal_pictures_have_ids_of_their_own(tmp_path):
    doubled = [Row(picture(7), 0, "train", "a"), Row(picture(7), 1, "train", "b"), Row(picture(7), 0, "test", "c")]
    write_table(tmp_path / "t", doubled, name="tiny", classes=["x", "y"])
    ids = open_table(tmp_path / "t").sample_id.tolist()
    assert len(set(ids)) == 3
    assert ids[1:] == [f"{ids[0]}-1", f"{ids[0]}-2"]


def test_the_digest_covers_labels_splits_classes_and_pictures(tmp_path):
    def digest(rows, classes=("x", "y")):
        return write_table(tmp_path / "t", rows, name="tiny", classes=classes).digest

    others = [
        digest(rows(labels=(0, 1, 1, 1))),
        digest(rows(splits=("train", "train", "test", "test"))),
        digest(rows(), ("x", "z")),
        digest([*rows()[:3], Row(picture(200), 1, "validation", "3.bmp")]),
    ]
    assert len({digest(rows()), *others}) == 5


def test_a_table_travels_to_other_processes_as_a_folder(tmp_path):
    write_table(tmp_path / "t", rows(), name="tiny", classes=["x", "y"])
    part = open_table(tmp_path / "t").part("train")
    content = pickle.dumps(part)
    assert picture(0) not in content
    assert pickle.loads(content).sample_id.tolist() == part.sample_id.tolist()


@pytest.mark.parametrize(
    ("labels", "classes", "text"),
    [
        ((0, 1, 2, 1), ("x", "y"), r"label must be in \[0, 1\] for 2 classes, got 2 in row 2"),
        ((0, -1, 0, 1), ("x", "y"), r"label must be in \[0, 1\] for 2 classes, got -1 in row 1"),
        ((0, 0, 1, 1), ("x", "y"), "every class must have a training sample, got none for class 'y'"),
        ((0, 1, 0, 1), ("x", "x"), "class names must differ, got 'x' twice"),
    ],
)
def test_labels_that_cannot_be_learned(tmp_path, labels, classes, text):
    with pytest.raises(InputError, match=text):
        write_table(tmp_path / "t", rows(labels), name="tiny", classes=classes)
    assert not (tmp_path / "t").exists()


def test_a_changed_table_is_refused(tmp_path):
    write_table(tmp_path / "t", rows(), name="tiny", classes=["x", "y"])
    info = read_json(tmp_path / "t" / INFO_FILE)
    write_json(tmp_path / "t" / INFO_FILE, info | {"classes": ["x", "z"]})
    with pytest.raises(InputError, match="is damaged: its digest must be"):
        open_table(tmp_path / "t")
    write_json(tmp_path / "t" / INFO_FILE, info | {"schema_version": 99})
    with pytest.raises(InputError, match="schema version must be 1, got 99"):
        open_table(tmp_path / "t")
    (tmp_path / "t" / info["shards"][0]).write_bytes(b"no arrow")
    write_json(tmp_path / "t" / INFO_FILE, info)
    with pytest.raises(InputError, match="is damaged"):
        open_table(tmp_path / "t")


def test_no_table(tmp_path):
    with pytest.raises(InputError, match=r"data set must be a folder with dataset\.json"):
        open_table(tmp_path)


def test_counts_agree_with_the_rows(digits_folder):
    table = open_table(digits_folder)
    counted = Counter(table.split.tolist())
    assert table.info.counts == {s: counted[s] for s in table.info.counts}


def test_a_part_leaves_the_pictures_on_disk(tmp_path):
    large = [
        Row(encode_bmp(np.full((512, 512), i, np.uint8)), i % 2, split, f"{i}.bmp", f"no. {i}")
        for i, split in enumerate(["test", "train", "train", "validation", "train", "test"] * 2)
    ]
    write_table(tmp_path / "t", large, name="large", classes=["x", "y"], shards=2)
    table = open_table(tmp_path / "t")
    before = pa.total_allocated_bytes()
    part = table.part("train").part("train")
    assert pa.total_allocated_bytes() - before < len(large[0].image) / 4
    wanted = [row for row in large if row.split == "train"]
    for seen in (part, pickle.loads(pickle.dumps(part))):
        assert [seen.image(i) for i in range(len(seen))] == [row.image for row in wanted]
        assert [seen.source(i) for i in range(len(seen))] == [row.source for row in wanted]
        assert seen.captions() == [row.caption for row in wanted]
        assert seen.label.tolist() == [row.label for row in wanted]
    assert part.image(-1) == wanted[-1].image
    assert len(part.part("test")) == 0
