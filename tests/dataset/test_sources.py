import os
import subprocess
import sys
import unicodedata

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from secateur.dataset import open_table
from secateur.dataset.digits import NOISE, read_pixels
from secateur.dataset.images import decode, encode_bmp
from secateur.dataset.sources import IngestConfig, ingest
from secateur.dataset.sources.state import states
from secateur.dataset.splits import cut_splits
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
    assert sum(info.counts.values()) == 20
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


def splits_of(folder):
    table = open_table(folder)
    return dict(zip(table.sample_id, table.split, strict=True))


def test_a_grown_folder_keeps_ids_and_splits(tmp_path):
    make_folder(tmp_path / "pets", each=40)
    ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")
    before = splits_of(tmp_path / "t")
    assert set(before.values()) == {"train", "validation", "test"}
    rng = np.random.default_rng(7)
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(tmp_path / "pets" / "cat" / f"new{i}.png")
    ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")
    after = splits_of(tmp_path / "t")
    assert len(after) == len(before) + 9
    assert {i: after[i] for i in before} == before


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 9), st.sets(st.integers(0, 59)), st.floats(0.01, 0.5))
def test_splits_hang_on_the_picture_alone(count, classes, seed, taken, test):
    """Where pictures come or go, the others stay, but for those that a class cannot do without."""
    hashes = [f"picture {i}" for i in range(count)]
    label_N = np.arange(count) % classes
    shares = {"test": test, "validation": 0.1, "seed": seed}
    none_N = np.full(count, "", dtype=object)
    whole_N = cut_splits(hashes, label_N, none_N, **shares)
    assert set(label_N) == set(label_N[whole_N == "train"])
    part = np.array([i for i in range(count) if i not in taken], dtype=int)
    part_N = cut_splits([hashes[i] for i in part], label_N[part], none_N[part], **shares)
    moved = part[part_N != whole_N[part]]
    for i in moved:
        needed = label_N[part][part_N == "train"].tolist().count(label_N[i]) == 1
        assert needed or (whole_N[label_N == label_N[i]] == "train").sum() == 1


def test_shares_of_the_splits():
    hashes = [str(i) for i in range(20_000)]
    none_N = np.full(len(hashes), "", dtype=object)
    split_N = cut_splits(hashes, np.zeros(len(hashes), int), none_N, test=0.2, validation=0.1, seed=0)
    share = {split: float((split_N == split).mean()) for split in ("train", "validation", "test")}
    # Six standard deviations of a share among 20,000 are under 0.017.
    assert share == pytest.approx({"train": 0.72, "validation": 0.08, "test": 0.2}, abs=0.017)
    given_N = np.where(np.arange(len(hashes)) < 5000, "test", "train").astype(object)
    split_N = cut_splits(hashes, np.zeros(len(hashes), int), given_N, test=0.2, validation=0.1, seed=0)
    assert (split_N[:5000] == "test").all()
    assert (split_N[5000:] == "validation").mean() == pytest.approx(0.1, abs=0.017)


def test_copies_of_a_picture_are_in_one_split(tmp_path):
    make_folder(tmp_path / "pets", each=30)
    for file in list((tmp_path / "pets" / "cat").iterdir()):
        (file.parent / f"copy {file.name}").write_bytes(file.read_bytes())
    ingest(IngestConfig(source=str(tmp_path / "pets")), tmp_path / "t", tmp_path / "c.parquet")
    splits = splits_of(tmp_path / "t")
    copies = [i for i in splits if i.endswith("-1")]
    assert len(copies) == 30
    assert [splits[i] for i in copies] == [splits[i.removesuffix("-1")] for i in copies]


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
    with pytest.raises(InputError, match=r"source must be 'digits', a folder or a file, got .* which is not there"):
        IngestConfig(source=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="which is empty"):
        IngestConfig(source=str(tmp_path / "empty"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="source must hold pictures in class folders"):
        ingest(IngestConfig(source=str(tmp_path / "other")), tmp_path / "t", tmp_path / "c.parquet")


def read(source, tmp_path, **settings):
    info = ingest(IngestConfig(source=str(source), **settings), tmp_path / "table", tmp_path / "clean.parquet")
    table = open_table(tmp_path / "table")
    return info, table, [table.source(i) for i in range(len(table))]


def test_names_of_every_kind(tmp_path):
    names = [
        "a b.png",
        'it\'s "so".PNG',
        "two\nlines.png",
        "猫 и кот.png",
        "; rm -rf $HOME.png",
        "%s{0}.png",
        "x.y.png",
    ]
    make_folder(tmp_path / "pets", each=4)
    content = (tmp_path / "pets" / "cat" / "0.png").read_bytes()
    for name in names:
        (tmp_path / "pets" / "cat" / name).write_bytes(content)
    (tmp_path / "pets" / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(content)
    info, table, sources = read(tmp_path / "pets", tmp_path)
    assert {f"cat/{name}" for name in names} | {"cat/caf\\xe9.png"} <= set(sources)
    assert len(table) == 8 + len(names) + 1
    (tmp_path / "pets" / os.fsdecode(b"\xff")).mkdir()
    (tmp_path / "pets" / os.fsdecode(b"\xff") / "1.png").write_bytes(content)
    assert read(tmp_path / "pets", tmp_path)[0].classes == ("\\xff", "cat", "dog")
    assert info.unreadable == ()


def test_links_pipes_and_hidden_files(tmp_path, caplog):
    make_folder(tmp_path / "pets", each=4)
    cats = tmp_path / "pets" / "cat"
    (tmp_path / "elsewhere").mkdir()
    (cats / "0.png").rename(tmp_path / "elsewhere" / "0.png")
    (cats / "linked.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (cats / "nothing.png").symlink_to(tmp_path / "nowhere.png")
    (cats / "loop").symlink_to(cats)
    (cats / "folder.png").mkdir()
    os.mkfifo(cats / "pipe.png")
    (cats / "._0.png").write_bytes(b"what macOS leaves behind")
    (cats / ".hidden").mkdir()
    (cats / ".hidden" / "1.png").write_bytes(b"")
    (tmp_path / "pets" / "loose.png").write_bytes(b"")
    (tmp_path / "pets" / "linked").symlink_to(tmp_path / "pets" / "dog")
    info, _, sources = read(tmp_path / "pets", tmp_path, max_unreadable=0.2)
    assert sources == [f"{c}/{i}.png" for c, i in [*(("cat", i) for i in (1, 2, 3, "linked")),
                                                   *(("dog", i) for i in range(4)),
                                                   *(("linked", i) for i in range(4))]]  # fmt: skip
    assert info.unreadable == ("cat/nothing.png",)
    assert "set aside 'cat/nothing.png': it cannot be read: No such file or directory" in caplog.text
    assert "left out 'loose.png': it is in no class folder" in caplog.text


def test_linked_folders_are_followed_once(tmp_path):
    make_folder(tmp_path / "far", each=4)
    (tmp_path / "pets").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).symlink_to(tmp_path / "far" / name)
    (tmp_path / "far" / "cat" / "more").symlink_to(tmp_path / "far" / "dog")
    (tmp_path / "far" / "dog" / "back").symlink_to(tmp_path / "far" / "cat")
    _, _, sources = read(tmp_path / "pets", tmp_path)
    assert len([name for name in sources if name.startswith("cat/more/")]) == 4
    assert len(sources) == 4 * 4
    before = list(states(str(tmp_path / "pets")))
    (tmp_path / "far" / "cat" / "0.png").write_bytes(b"other")
    assert list(states(str(tmp_path / "pets"))) != before


def test_wrong_extensions(tmp_path):
    make_folder(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "0.png").rename(tmp_path / "pets" / "cat" / "0.jpg")
    (tmp_path / "pets" / "cat" / "notes.png").write_text("no picture")
    info, table, _ = read(tmp_path / "pets", tmp_path, max_unreadable=0.1)
    assert len(table) == 20
    assert info.unreadable == ("cat/notes.png",)


def test_a_class_may_be_called_train(tmp_path):
    make_folder(tmp_path / "vehicles", classes=("bus", "train"))
    assert read(tmp_path / "vehicles", tmp_path)[0].classes == ("bus", "train")


def test_folders_beside_those_of_the_splits_are_named(tmp_path, caplog):
    make_folder(tmp_path / "pets", split="train")
    make_folder(tmp_path / "pets", each=3, split="val")
    (tmp_path / "pets" / "annotations").mkdir()
    info, *_ = read(tmp_path / "pets", tmp_path)
    assert info.counts["validation"] == 6
    assert "left out the folder 'annotations': it is beside those of the splits" in caplog.text


def test_class_names_in_two_unicode_forms(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    make_folder(tmp_path / "a", classes=(composed, "tea"), split="train")
    make_folder(tmp_path / "a", classes=(decomposed, "tea"), split="test", each=3)
    assert read(tmp_path / "a", tmp_path)[0].classes == (composed, "tea")
    make_folder(tmp_path / "b", classes=(composed, decomposed))
    with pytest.raises(InputError, match="class names must differ by more than Unicode form, got the folders"):
        read(tmp_path / "b", tmp_path)


def test_class_names_in_two_cases_are_warned_of(tmp_path, caplog):
    make_folder(tmp_path / "pets", classes=("Cat", "cat"))
    assert read(tmp_path / "pets", tmp_path)[0].classes == ("Cat", "cat")
    assert "the classes 'Cat' and 'cat' differ in case alone" in caplog.text


def test_a_class_of_few_pictures_keeps_one_for_training(tmp_path):
    make_folder(tmp_path / "pets", classes=[str(i) for i in range(40)], each=1)
    info, *_ = read(tmp_path / "pets", tmp_path)
    assert info.counts["train"] == 40
    assert info.classes[:3] == ("0", "1", "10")  # the order of the folders


GROWTH = """
import sys
from secateur.dataset.sources import IngestConfig, ingest
from secateur.logs import peak_memory_mb
for folder in sys.argv[1:]:
    ingest(IngestConfig(source=folder), folder + ".table", folder + ".clean")
    print(peak_memory_mb())
"""


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    """120 MB more of pictures; 64 MiB of them are written at once."""
    noise = encode_bmp(np.random.default_rng(0).integers(0, 255, (577, 578, 3), dtype=np.uint8))  # 1 MB
    for count in (100, 220):
        folder = tmp_path / str(count) / "noise"
        folder.mkdir(parents=True)
        (folder / "0.bmp").write_bytes(noise)
        for i in range(1, count):
            os.link(folder / "0.bmp", folder / f"{i}.bmp")
    command = [sys.executable, "-c", GROWTH, str(tmp_path / "100"), str(tmp_path / "220")]
    small, large = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert large - small < 60
