"""Tables whose shards lie in one place that everybody sees."""

import os
import shutil
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from secateur.dataset.shared import complete
from secateur.dataset.sources import IngestConfig, ingest
from secateur.dataset.table import ImageTable, open_table
from secateur.errors import InputError


@pytest.fixture(params=["folder", "memory://"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shared place: a folder, or a URL whose files are fetched into a temporary folder of the test's own."""
    where = str(tmp_path / "volume") if request.param == "folder" else f"memory://{tmp_path.name}"
    monkeypatch.setenv("SECATEUR_DATA", where)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return where


def ingested(folder: Path, shards: int = 2) -> Path:
    ingest(IngestConfig(shards=shards), folder / "table", folder / "clean.parquet")
    return folder / "table"


def same(one: ImageTable, other: ImageTable) -> bool:
    pictures = all(one.image(i) == other.image(i) for i in range(0, len(one), 100))
    return pictures and np.array_equal(one.sample_id, other.sample_id) and one.info.digest == other.info.digest


def test_a_step_hands_on_no_pictures(place: str, tmp_path: Path, digits_folder: Path) -> None:
    table = ingested(tmp_path)
    assert [file.name for file in table.iterdir()] == ["dataset.json"]
    assert same(open_table(table), open_table(digits_folder))
    assert len(open_table(table, "shard-00001-of-00002.arrow")) < len(open_table(table))


def test_a_second_ingest_leaves_what_is_there(place: str, tmp_path: Path) -> None:
    fs, root = fsspec.core.url_to_fs(place)
    ingested(tmp_path)
    before = {file: fs.info(file).get("mtime") or fs.created(file) for file in fs.find(root)}
    ingested(tmp_path)
    assert {file: fs.info(file).get("mtime") or fs.created(file) for file in fs.find(root)} == before
    assert len(before) == 2


def test_a_shard_that_was_cut_short_is_written_anew(place: str, tmp_path: Path) -> None:
    fs, root = fsspec.core.url_to_fs(place)
    ingested(tmp_path)
    for file in fs.find(root):
        fs.pipe_file(file, b"cut")
    assert len(open_table(ingested(tmp_path))) > 0


def test_a_table_that_is_whole_needs_no_place(place: str, digits_folder: Path) -> None:
    assert len(open_table(digits_folder)) > 0


def test_a_place_that_lost_a_shard(place: str, tmp_path: Path) -> None:
    table = ingested(tmp_path)
    fs, root = fsspec.core.url_to_fs(place)
    fs.rm(root, recursive=True)
    with pytest.raises(InputError, match="is damaged"):
        open_table(table)


def test_the_whole_table_for_those_who_store_it(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = open_table(ingested(tmp_path)).info
    with complete(tmp_path / "table", info.digest, info.shards) as whole:
        shutil.copytree(whole, tmp_path / "copy")
    monkeypatch.delenv("SECATEUR_DATA")
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(["dataset.json", *info.shards])
    assert open_table(tmp_path / "copy").info == info
