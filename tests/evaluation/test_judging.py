import csv
from dataclasses import replace

import numpy as np
import pytest
from made_inspection import CLASSES, make_inspection, source

from secateur.errors import InputError
from secateur.evaluation.judging import AUDIT_FILE, check_audit, draw, read_audit, write_audit

KNOWN = np.array(["a", "b", "c"], dtype=object)


def fill(file, answers):
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    for row, answer in zip(rows, answers, strict=False):
        row["wrong"] = answer
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def test_a_file_that_is_filled_in_comes_back(tmp_path):
    found, file = make_inspection(tmp_path / "t"), tmp_path / AUDIT_FILE
    write_audit(found, np.array([0, 7, 3, 35]), file)
    check_audit(file, 20, 39)
    rows = fill(file, ["yes", "No", "", "1"])
    assert [row["source"] for row in rows] == [source(i) for i in (0, 7, 3, 35)]
    assert [(row["given"], row["suggested"]) for row in rows[:2]] == [
        (CLASSES[0], CLASSES[1]),
        (CLASSES[1], CLASSES[2]),
    ]
    ids = found.table.sample_id
    assert read_audit(file, ids[found.row]) == {ids[0]: True, ids[7]: False, ids[35]: True}
    with pytest.raises(InputError, match="audit must not replace a file that is filled in, got "):
        check_audit(file, 20, 39)
    check_audit(tmp_path / "nowhere.csv", 39, 39)


@pytest.mark.parametrize("count", [1, 19, 40])
def test_an_audit_of_too_few_or_too_many_is_refused(tmp_path, count):
    with pytest.raises(InputError, match=rf"^audit must be in \[20, 39\], got {count}$"):
        check_audit(tmp_path / AUDIT_FILE, count, 39)


@pytest.mark.parametrize(
    "text",
    [
        "sample_id,wrong\na,yes\nb,0\n",
        "\ufeffsample_id;given;wrong\r\na;x;TRUE\r\nb;y; False \r\n",
        "wrong\tsample_id\n1\ta\nno\tb\n\tc\n",
        "sample_id,wrong\na,yes\nb,no\nc\n",
    ],
)
def test_it_may_come_from_a_spreadsheet(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    assert read_audit(tmp_path / "a.csv", KNOWN) == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"sample_id,wrong\nd,yes\n", "audited must name samples of this data set, got 'd' in line 2"),
        (b"sample_id,wrong\na,no\nb,maybe\n", "audited must say yes, no, true, false, 1, 0 or nothing, got 'maybe' in line 3"),  # noqa: E501
        (b"sample_id,wrong\na,no\na,yes\n", "audited must name a sample once, got 'a' again in line 3"),
        (b"sample_id,wrong\na,\n", "audited must have a line that is filled in, got none in "),
        (b"", "audited must have a column 'sample_id', got none in "),
        (b"sample_id,right\na,no\n", "audited must have a column 'wrong', got none in "),
        (b"sample_id,wrong\n\xff\xfe,no\n", "audited must be a CSV file, got "),
        (b"PAR1\x00\x01\xfe", "audited must be a CSV file, got "),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path, content, sentence):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_audit(tmp_path / "a.csv", KNOWN)
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_samples_are_drawn_once_each_and_not_again_once_judged(tmp_path):
    found = make_inspection(tmp_path / "t")
    position_A = draw(found, 20)
    assert len(set(position_A.tolist())) == len(position_A) == 20
    assert np.array_equal(position_A, draw(found, 20))
    audited_N = found.audited.copy()
    audited_N[position_A[:15]] = 1
    more = draw(replace(found, audited=audited_N), 20)
    assert len(more) == 20
    assert not np.isin(position_A[:15], more).any()
    assert np.isin(position_A[15:], more).all()
    assert len(draw(replace(found, audited=np.ones_like(found.audited)), 20)) == 0
