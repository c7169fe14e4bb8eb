import pytest

import secateur
from secateur.dataset import open_table
from secateur.dataset.sources import IngestConfig, ingest
from secateur.errors import InputError
from secateur.state import STATE_VARIABLE


def test_a_table_in_shards(tmp_path, monkeypatch, digits_clip_state):
    monkeypatch.setenv(STATE_VARIABLE, str(digits_clip_state))
    ingest(IngestConfig(shards=3), tmp_path / "table", tmp_path / "clean.parquet")
    train = secateur.TrainConfig(warmup_epochs=1, seeds=(4,))
    run = secateur.prune_while_training(str(tmp_path / "table"), tmp_path / "out", keep=0.5, epochs=4, train=train)
    assert len(list((tmp_path / "out" / "embeddings").iterdir())) == 3
    assert run.mask.kept.mean() == pytest.approx(0.5, abs=0.001)
    assert run.mask.sample_id.tolist() == open_table(tmp_path / "table").part("train").sample_id.tolist()
    assert run.seeds == (4,)
    assert run.network().image_size == 8


def test_wrong_settings_come_before_any_work(tmp_path):
    with pytest.raises(InputError, match="method must be one of"):
        secateur.prune_while_training("digits", tmp_path / "out", method="best")
    with pytest.raises(InputError, match="keep must be in"):
        secateur.prune_while_training("digits", tmp_path / "out", keep=0)
    with pytest.raises(InputError, match="epochs must be more than warmup_epochs"):
        secateur.prune_while_training("digits", tmp_path / "out", method="full", epochs=6)
    assert not (tmp_path / "out").exists()
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        secateur.prune  # noqa: B018
