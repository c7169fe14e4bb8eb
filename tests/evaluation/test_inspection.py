import csv
import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_inspection import CLASSES, make_inspection, make_table, source

from secateur.errors import InputError
from secateur.evaluation.findings_file import write_findings
from secateur.evaluation.inspection import InspectConfig, inspect
from secateur.semantics.embeddings import Embeddings, unit


@pytest.mark.parametrize(
    ("text", "limit"), [("", None), ("5%", 0.05), ("5 %", 0.05), ("0.05", 0.05), (".5%", 0.005), ("0", 0), ("100%", 1)]
)
def test_the_limit_is_a_fraction_or_a_percentage(text, limit):
    assert InspectConfig(fail_above=text).limit() == limit


@pytest.mark.parametrize("text", ["5", "-1%", "101%", "five", "%", "1/2", "nan", "1e-2"])
def test_other_limits_are_refused(text):
    with pytest.raises(InputError, match=r"^fail_above must be a fraction in \[0, 1\] or a percentage, got "):
        InspectConfig(fail_above=text)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("suspect_above", 1.0, "suspect_above must be in [0, 1), got 1"),
        ("correct_above", -0.1, "correct_above must be in [0, 1), got -0.1"),
        ("audit", -1, "audit must be in [0, inf), got -1"),
        ("export", "both", "export must be one of corrected, filtered, none, got 'both'"),
        ("audited", "nowhere.csv", "audited must be a file, got 'nowhere.csv', which is not there"),
    ],
)
def test_wrong_settings_are_refused(field, value, sentence):
    with pytest.raises(InputError) as refused:
        InspectConfig(**{field: value})
    assert str(refused.value) == sentence


def test_suspects_come_with_the_most_probable_first_and_a_person_is_believed(tmp_path):
    found = make_inspection(tmp_path / "t")
    assert found.suspects(0.5).tolist() == [0, 7, 14, 21, 28, 35]
    assert found.suspects(0.9).tolist() == [0, 7, 14]
    audited_N = found.audited.copy()
    audited_N[[0, 3]] = 0, 1
    judged = replace(found, audited=audited_N)
    assert judged.suspects(0.5).tolist() == [3, 7, 14, 21, 28, 35]
    assert judged.probability_suggested[[0, 3]].tolist() == [0, 0]
    assert judged.probability_suggested[7] == pytest.approx(0.93, abs=1e-3)


def test_of_a_label_that_a_person_found_wrong_the_suggested_class_has_its_share_among_the_others(tmp_path):
    found = make_inspection(tmp_path / "t")
    posterior_NC, suggested_N, audited_N = (
        value.copy() for value in (found.findings.posterior_NC, found.findings.suggested_N, found.audited)
    )
    posterior_NC[3], suggested_N[3], audited_N[3] = (0.5, 0.375, 0.125), 1, 1
    judged = replace(
        found, audited=audited_N, findings=replace(found.findings, posterior_NC=posterior_NC, suggested_N=suggested_N)
    )
    assert judged.label[3] == 0
    assert judged.probability_suggested[3] == pytest.approx(0.75)


def test_findings_can_be_read_in_both_forms_whatever_the_names(tmp_path):
    found = make_inspection(tmp_path / "t")
    write_findings(found, tmp_path)
    table = pq.read_table(tmp_path / "findings.parquet")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "findings.csv").read_text(encoding="utf-8"), newline="")))
    assert [row["source"] for row in rows] == table["source"].to_pylist() == [source(i) for i in range(39)]
    assert {row["given"] for row in rows} == set(CLASSES)
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["given"], first["suggested"], first["split"]) == (CLASSES[0], CLASSES[1], "train")
    assert first["probability_wrong"] == pytest.approx(0.95)
    assert np.exp(first["log_probability_clip"]) == pytest.approx(0.05)
    assert table["diversity"].to_pylist() == found.findings.diversity_N.tolist()
    assert table["duplicate_group"].to_pylist()[:6] == [0, None, None, None, None, 1]
    assert np.flatnonzero(table["leak"].to_pylist()).tolist() == [5]
    known = json.loads(table.schema.metadata[b"secateur"])
    assert known["dataset"]["digest"] == found.table.info.digest
    assert known["rate"] == {"value": 0.1, "low": 0.08, "high": 0.12}
    before = [(tmp_path / name).read_bytes() for name in ("findings.parquet", "findings.csv")]
    write_findings(found, tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("findings.parquet", "findings.csv")] == before


def clusters(label_N: np.ndarray, seed: int = 0) -> Embeddings:
    """Embeddings whose class is plain to see; texts that lie where their classes do."""
    random = np.random.default_rng(seed)
    text_CD = unit(np.eye(3, 16))
    image_ND = unit(text_CD[label_N] + 0.15 * random.standard_normal((len(label_N), 16)))
    return Embeddings(image_ND, text_CD, {"model": "made"})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """240 pictures in three classes; every tenth label is wrong; the last 60 are the test split."""
    from secateur.dataset import open_table
    from secateur.dataset.images import encode_bmp
    from secateur.dataset.table import Row, write_table

    folder, random = tmp_path_factory.mktemp("world"), np.random.default_rng(1)
    clean_N = random.integers(0, 3, 240)
    given_N = np.where(np.arange(240) % 10 == 0, (clean_N + 1) % 3, clean_N)
    rows = [
        Row(
            encode_bmp(random.integers(0, 256, (8, 8)).astype(np.uint8)),
            int(given_N[i]),
            "test" if i >= 180 else "train",
            str(i),
        )
        for i in range(240)
    ]
    write_table(folder / "t", rows, name="world", classes=CLASSES)
    return folder, rows, open_table(folder / "t"), clusters(clean_N), clean_N


def test_wrong_labels_are_found(world):
    _, _, table, embeddings, clean_N = world
    found = inspect(table, embeddings)
    first = found.suspects(0.05)[:24]
    assert sorted(first.tolist()) == list(range(0, 240, 10))
    surest = found.suspects(0.5)
    assert len(surest) >= 15
    assert np.array_equal(found.findings.suggested_N[surest], clean_N[surest])
    assert found.findings.rate.low <= 0.1 <= found.findings.rate.high


def test_without_the_test_split_its_labels_have_no_say(world):
    from secateur.dataset import open_table
    from secateur.dataset.table import write_table

    folder, rows, table, embeddings, _ = world
    found = inspect(table, embeddings, test=False)
    assert found.row.tolist() == list(range(180))
    changed = [replace(row, label=(row.label + 1) % 3) if row.split == "test" else row for row in rows]
    write_table(folder / "changed", changed, name="world", classes=CLASSES)
    again = inspect(open_table(folder / "changed"), embeddings, test=False)
    assert np.array_equal(found.probability_wrong, again.probability_wrong)
    assert np.array_equal(found.findings.suggested_N, again.findings.suggested_N)


def test_a_person_calibrates_the_rate(world):
    _, _, table, embeddings, clean_N = world
    ids = table.sample_id[::5]
    audited = {i: bool(w) for i, w in zip(ids, (table.label != clean_N)[::5], strict=True)}
    found = inspect(table, embeddings, audited)
    assert found.findings.audited == len(ids)
    assert np.flatnonzero(found.audited >= 0).tolist() == list(range(0, 240, 5))
    assert found.probability_wrong[[0, 5]].tolist() == [1, 0]
    assert found.findings.rate.low <= 0.1 <= found.findings.rate.high


def test_reference_pictures_are_not_judged(tmp_path):
    table = make_table(tmp_path / "t")
    embeddings = clusters(table.label[:39])
    found = inspect(table, embeddings)
    assert found.row.tolist() == list(range(39))
    assert set(found.split) == {"train", "validation", "test"}
