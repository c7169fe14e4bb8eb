import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from secateur.dataset import open_table
from secateur.dataset.digits import NOISE, read_pixels
from secateur.dataset.images import decode
from secateur.dataset.sources import IngestConfig, ingest
from secateur.errors import InputError


def make_folder(root, classes=("cat", "dog"), each=10, split=""):
    rng = np.random.default_rng(len(split))
    for name in classes:
        folder = root / split / name
        folder.mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


def clean_labels(file):
    return dict(zip(*(c.to_pylist() for c in pq.read_table(file).columns), strict=True))


def test_the_digits_are_scikit_learns():
    pixels, labels = read_pixels()
    bunch = load_digits()
    assert np.array_equal(labels, bunch.target)
    assert np.array_equal(pixels, np.rint(bunch.images * 255 / 16))


def test_the_digits_table(digits_folder, clean_labels_file):
    table, clean = open_table(digits_folder), clean_labels(clean_labels_file)
    assert len(table) == 1797
    assert table.info.counts == {"train": 606, "validation": 143, "test": 449, "reference": 599}
    wrong = np.array([clean[i] for i in table.sample_id]) != table.label
    trained = np.isin(table.split, ["train", "validation"])
    assert wrong[trained].sum() == round(NOISE * trained.sum())
    assert not wrong[~trained].any()
    captions = table.captions()
    for caption, split, label in zip(captions, table.split, table.label, strict=True):
        assert caption == (table.info.classes[label] if split == "reference" else "")
    pixels, _ = read_pixels()
    assert np.array_equal(np.asarray(decode(table.image(5)))[:, :, 0], pixels[5])


def test_every_ingest_of_the_digits_is_the_same(digits_folder, tmp_path):
    info = ingest(IngestConfig(), tmp_path / "again", tmp_path / "clean.parquet")
    assert info == open_table(digits_folder).info
    for shard in info.shards:
        assert (tmp_path / "again" / shard).read_bytes() == (digits_folder / shard).read_bytes()


def test_another_seed_splits_otherwise(digits_folder, tmp_path):
    info = ingest(IngestConfig(split_seed=1), tmp_path / "other", tmp_path / "clean.parquet")
    assert info.digest != open_table(digits_folder).info.digest
    assert info.counts["reference"] == 599


def test_a_folder_without_splits(tmp_path):
    make_folder(tmp_path / "pets")
    info = ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "clean.parquet")
    table = open_table(tmp_path / "t")
    assert info.name == "pets"
    assert info.classes == ("cat", "dog")
    assert info.counts == {"train": 14, "validation": 2, "test": 4, "reference": 0}
    assert {table.source(i).split("/")[0] for i in range(len(table)) if table.label[i] == 1} == {"dog"}
    assert clean_labels(tmp_path / "clean.parquet") == {}


def test_a_folder_with_splits_keeps_them(tmp_path):
    make_folder(tmp_path / "pets", split="train")
    make_folder(tmp_path / "pets", each=3, split="test")
    info = ingest(IngestConfig(source=str(tmp_path / "pets"), validation=0.0), tmp_path / "t", tmp_path / "c.parquet")
    assert info.counts == {"train": 20, "validation": 0, "test": 6, "reference": 0}


def test_a_table_is_taken_as_it_is(digits_folder, tmp_path):
    info = ingest(IngestConfig(source=str(digits_folder)), tmp_path / "t", tmp_path / "clean.parquet")
    assert info == open_table(digits_folder).info


def test_a_grown_folder_keeps_ids_and_splits(tmp_path):
    make_folder(tmp_path / "pets", each=40)
    ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")
    before = set(open_table(tmp_path / "t").sample_id)
    Image.new("RGB", (6, 6), "red").save(tmp_path / "pets" / "cat" / "new.png")
    ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")
    after = set(open_table(tmp_path / "t").sample_id)
    assert before < after
    assert len(after) == len(before) + 1


def test_undecodable_pictures_are_set_aside(tmp_path):
    make_folder(tmp_path / "pets", each=60)
    good = (tmp_path / "pets" / "cat" / "1.png").read_bytes()
    (tmp_path / "pets" / "cat" / "cut.png").write_bytes(good[: len(good) // 2])
    info = ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")
    assert info.unreadable == ("cat/cut.png",)
    assert sum(info.counts.values()) == 120
    (tmp_path / "pets" / "dog" / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"at most 0.01 of the pictures may fail to decode, got 2 of 122"):
        ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t2", tmp_path / "c.parquet")
    assert not (tmp_path / "t2").exists()


def test_a_class_folder_without_a_picture(tmp_path):
    make_folder(tmp_path / "pets")
    (tmp_path / "pets" / "mouse").mkdir()
    with pytest.raises(InputError, match="every class must have a training sample, got none for class 'mouse'"):
        ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"source must be 'digits' or a folder, got .* which is not there"):
        IngestConfig(source=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="which is empty"):
        IngestConfig(source=str(tmp_path / "empty"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="source must hold pictures in class folders"):
        ingest(IngestConfig(source=str(tmp_path / "other")), tmp_path / "t", tmp_path / "c.parquet")
