from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.pruning.mask import MASK_FILE, read_mask, read_trajectory, write_mask, write_trajectory
from secateur.pruning.method import Semantics
from secateur.pruning.pruner import Pruner


def make_mask(semantics=True):
    says = Semantics(np.log([0.5, 0.9, 0.1]), np.array([0.9, 0.99, 0.2]), np.array([0, 1, 2], np.int32))
    pruner = Pruner(
        PruneConfig(method="random", keep=0.67), ["a", "b", "c"], [0, 1, 1], semantics=says if semantics else None
    )
    pruner.record([0, 1], [0.5, 2.0])
    pruner.next_epoch(0, 0.0)
    return pruner.mask({"name": "tiny", "digest": "d" * 64})


@pytest.mark.parametrize("semantics", [True, False])
def test_what_is_written_is_read(tmp_path, semantics):
    mask = make_mask(semantics)
    write_mask(tmp_path, mask)
    back = read_mask(tmp_path)
    assert back.digest == mask.digest
    assert back.meta == mask.meta | {"schema_version": 1}
    assert back.kept.dtype == bool
    assert back.suggested_label.tolist() == ([0, 1, 2] if semantics else [-1, -1, -1])
    assert back.loss[:2].tolist() == [0.5, 2.0]
    assert np.isnan(back.loss[2])
    assert back.epochs_used.tolist() == [1, 1, 0]
    assert back.meta["keep_achieved"] == 2 / 3


def test_anybody_can_read_it(tmp_path):
    write_mask(tmp_path, make_mask(semantics=False))
    frame = pd.read_parquet(tmp_path / MASK_FILE)
    assert frame["consistency"].isna().all()
    assert frame["suggested_label"].isna().all()
    assert frame["kept"].sum() == 2


def test_the_same_mask_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_mask(tmp_path / name, make_mask())
    assert (tmp_path / "a" / MASK_FILE).read_bytes() == (tmp_path / "b" / MASK_FILE).read_bytes()


def test_the_digest_is_over_the_columns_alone():
    mask = make_mask()
    assert replace(mask, meta={}).digest == mask.digest
    assert replace(mask, kept=~mask.kept).digest != mask.digest
    assert replace(mask, score=mask.score + 1).digest != mask.digest
    assert replace(mask, sample_id=mask.sample_id[::-1]).digest != mask.digest


def test_files_that_are_no_masks(tmp_path):
    with pytest.raises(InputError, match=r"mask must be a folder with mask\.parquet"):
        read_mask(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / MASK_FILE)
    with pytest.raises(InputError, match="mask must be a file that secateur wrote"):
        read_mask(tmp_path)
    table = pa.table({"x": [1]}).replace_schema_metadata({"secateur": '{"schema_version": 7}'})
    pq.write_table(table, tmp_path / MASK_FILE)
    with pytest.raises(InputError, match="mask schema version must be 1, got 7"):
        read_mask(tmp_path)


def test_any_epoch_can_be_rebuilt(tmp_path):
    rng = np.random.default_rng(0)
    drawn = rng.random((6, 13)) < 0.5
    rows = [
        {"seed": i // 3, "epoch": i % 3, "phase": "prune", "count": active.sum(), "active": np.packbits(active)}
        for i, active in enumerate(drawn)
    ]
    write_trajectory(tmp_path, rows)
    for active, before, after in zip(drawn, rows, read_trajectory(tmp_path, 13), strict=True):
        assert np.array_equal(active, after["active"])
        assert after["count"] == active.sum()
        assert (after["seed"], after["epoch"]) == (before["seed"], before["epoch"])
