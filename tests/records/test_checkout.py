import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import enter_workplace
from made_outputs import CLASSES, TRAIN, Outputs
from made_registry import make_registry
from PIL import Image
from torch.utils.data import DataLoader

import secateur
from secateur.dataset.sources import IngestConfig, ingest
from secateur.dataset.table import image_ids, open_table
from secateur.errors import InputError
from secateur.records.registry.checkout import Opened, check_out, check_request, open_version

NAME = "my-pets/multimodal-0.7/v1"


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory, outputs: Outputs) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        work = enter_workplace(monkeypatch, tmp_path_factory.mktemp("registry"))
        yield make_registry(work, outputs)


@pytest.fixture(scope="module")
def version(location: str) -> Iterator[Opened]:
    with open_version(location, NAME) as opened:
        yield opened


@pytest.fixture
def kept(outputs: Outputs) -> dict[str, tuple[bytes, int]]:
    """Picture and label of each kept sample, straight from what was published."""
    table = open_table(outputs.files["dataset_folder"])
    wanted = set(outputs.mask.sample_id[outputs.mask.kept])
    rows = [i for i, sample_id in enumerate(table.sample_id) if sample_id in wanted]
    assert 0 < len(rows) < TRAIN
    return {str(table.sample_id[i]): (table.image(i), int(table.label[i])) for i in rows}


def test_folder_has_classes_and_names_of_the_source(version: Opened, kept: dict, tmp_path: Path) -> None:
    says = check_out(version, tmp_path / "out", "folder")
    files = [file for file in (tmp_path / "out").rglob("*") if file.suffix == ".bmp"]
    assert {image_ids([f.read_bytes()])[0]: CLASSES.index(f.parent.name) for f in files} == {
        sample_id: label for sample_id, (_, label) in kept.items()
    }
    assert {file.name for file in files} == {f"{i}.bmp" for i in range(8)}
    assert says["counts"] == {"withdrawn": 0, "train": len(kept)}
    assert json.loads((tmp_path / "out" / "checkout.json").read_text()) == says


def test_folder_with_all_splits_can_be_ingested(version: Opened, kept: dict, tmp_path: Path) -> None:
    check_out(version, tmp_path / "out", "folder", ["train", "test"])
    info = ingest(IngestConfig(source=str(tmp_path / "out"), validation=0), tmp_path / "table", tmp_path / "clean")
    assert (info.counts["train"], info.counts["test"]) == (len(kept), 6)
    assert set(open_table(tmp_path / "table").part("train").sample_id) == set(kept)


def test_parquet_has_pictures_labels_and_names(version: Opened, kept: dict, tmp_path: Path) -> None:
    check_out(version, tmp_path / "out", "parquet", ["train", "test"])
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert {row["sample_id"]: (row["image"], row["label"]) for row in rows} == kept
    assert all(row["class"] == CLASSES[row["label"]] for row in rows)
    assert pq.read_metadata(tmp_path / "out" / "test.parquet").num_rows == 6


def test_hf_says_which_columns_are_pictures_and_classes(version: Opened, kept: dict, tmp_path: Path) -> None:
    check_out(version, tmp_path / "out", "hf")
    table = pq.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "ClassLabel", "names": list(CLASSES)}
    assert {r["sample_id"]: (r["image"]["bytes"], r["label"]) for r in table.to_pylist()} == kept
    assert set(features) == set(table.column_names)


def test_webdataset_groups_files_by_sample(version: Opened, kept: dict, tmp_path: Path) -> None:
    check_out(version, tmp_path / "out", "webdataset")
    check_out(version, tmp_path / "again", "webdataset")
    shard = tmp_path / "out" / "train-000000.tar"
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            file = tar.extractfile(member)
            assert file is not None
            found.setdefault(key, {})[suffix] = file.read()
    assert {key: (files["bmp"], int(files["cls"])) for key, files in found.items()} == kept
    assert all(json.loads(files["json"])["class"] == CLASSES[int(files["cls"])] for files in found.values())
    assert shard.read_bytes() == (tmp_path / "again" / shard.name).read_bytes()


def test_ids_are_those_of_the_mask(version: Opened, kept: dict, outputs: Outputs, tmp_path: Path) -> None:
    check_out(version, tmp_path / "out", "ids")
    lines = (tmp_path / "out" / "ids.txt").read_text().split()
    assert lines == outputs.mask.sample_id[outputs.mask.kept].tolist()


def test_torch_gives_pictures_to_workers(version: Opened, kept: dict, tmp_path: Path) -> None:
    check_out(version, tmp_path / "out", "torch")
    pictures = secateur.load_pictures(tmp_path / "out", transform=np.array)
    loader = DataLoader(pictures, batch_size=None, num_workers=1)
    got = [(picture.tolist(), int(label)) for picture, label in loader]
    decoded = {
        sample_id: (np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).tolist(), label)
        for sample_id, (image, label) in kept.items()
    }
    assert got == [decoded[sample_id] for sample_id in pictures.sample_id]
    assert {label: CLASSES[label] for label in pictures.label} == pictures.classes
    assert len(secateur.load_mask(tmp_path / "out")) == TRAIN
    with pytest.raises(InputError, match=r"folder must be a checkout as torch with test\.arrow"):
        secateur.load_pictures(tmp_path / "out", split="test")


def test_a_subset_of_ones_own_data_set(location: str, kept: dict, outputs: Outputs) -> None:
    mask = secateur.load_mask(NAME, registry=location)
    assert mask.digest == outputs.digest
    own = open_table(outputs.files["dataset_folder"])
    in_order = [str(sample_id) for sample_id in own.part("train").sample_id]
    assert list(mask.subset(in_order)) == list(kept)  # type: ignore[arg-type]
    everything = [str(sample_id) for sample_id in own.sample_id]
    assert list(mask.subset(everything, everything)) == list(kept)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dataset must have 12 samples"):
        mask.subset(everything)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dataset must have 2 samples, some of them the mask's"):
        mask.subset(["a", "b"], ["a", "b"])  # type: ignore[arg-type]


def test_a_table_of_something_else_is_refused(version: Opened, other_outputs: Outputs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data set must be a folder with"):
        check_out(version, tmp_path / "out", "folder", table_folder=tmp_path)
    assert not (tmp_path / "out").exists()


def test_without_pictures_in_the_store_a_table_is_asked_for(
    workplace: Path, outputs: Outputs, kept: dict, tmp_path: Path
) -> None:
    location = make_registry(workplace, outputs, pictures=False)
    with open_version(location, NAME) as version:
        check_out(version, tmp_path / "ids", "ids")
        with pytest.raises(InputError, match="table must be given, as the registry does not hold that of data set"):
            check_out(version, tmp_path / "out", "folder")
        says = check_out(version, tmp_path / "out", "folder", table_folder=outputs.files["dataset_folder"])
    assert says["counts"]["train"] == len(kept)


def test_a_store_that_was_moved_with_the_registry_is_found(workplace: Path, outputs: Outputs, tmp_path: Path) -> None:
    make_registry(workplace / "then", outputs)
    (workplace / "then").rename(workplace / "now")
    with open_version(str(workplace / "now" / "registry.git"), NAME) as version:
        assert version.published_mask().digest == outputs.digest
    shutil.move(workplace / "now" / "store", workplace / "elsewhere")
    with pytest.raises(InputError, match="store must be the folder that the registry names"):
        open_version(str(workplace / "now" / "registry.git"), NAME).__enter__()
    with open_version(str(workplace / "now" / "registry.git"), NAME, str(workplace / "elsewhere")) as version:
        assert version.published_mask().digest == outputs.digest


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_data_are_not_checked_out(workplace: Path, outputs: Outputs, tmp_path: Path, damage: str) -> None:
    location = make_registry(workplace, outputs)
    for file in [f for f in (workplace / "store").rglob("*") if f.is_file() and f.suffix != ".dir"]:
        file.chmod(0o644)
        if damage == "gone":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    with open_version(location, NAME) as version, pytest.raises(InputError, match=r"store must hold .* with the MD5"):
        check_out(version, tmp_path / "out", "folder")
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize(
    ("kind", "splits", "sentence"),
    [
        ("zip", ["train"], "as must be one of folder, hf, ids, parquet, torch, webdataset, got 'zip'"),
        ("folder", ["dev"], "splits must be one of"),
        ("ids", ["test"], "splits must be train for ids"),
        ("folder", ["train"], "DIR must be a new or an empty folder"),
    ],
)
def test_a_wrong_request_is_said_first(tmp_path: Path, kind: str, splits: list[str], sentence: str) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(InputError, match=sentence):
        check_request(tmp_path, kind, splits)


def test_a_mount_point_is_refused() -> None:
    with pytest.raises(InputError, match="DIR must be a folder that can be replaced, got the mount point '/'"):
        check_request("/", "folder", ["train"])


def test_an_unknown_version_is_said_with_those_like_it(location: str) -> None:
    with pytest.raises(InputError, match=f"such as {NAME}, got 'my-pets/multimodel-0.7/v1'"):
        open_version(location, "my-pets/multimodel-0.7/v1").__enter__()
