import json
import re
from pathlib import Path

import numpy as np
import pytest

from secateur.errors import InputError
from secateur.evaluation.comparison import Compared, Comparison, compare, ordered, render_comparison, render_table
from secateur.evaluation.results import Arm


def arm(name: str, keep: float, accuracy: tuple[float, ...], cost: int = 0, recall: float | None = None) -> Compared:
    made = Arm(
        name=name,
        role="compared",
        keep=keep,
        keep_achieved=keep,
        seeds=tuple(range(len(accuracy))),
        accuracy=accuracy,
        forward_samples=2000,
        backward_samples=cost or round(1000 * keep),
        seconds=1.0,
    )
    return Compared(made, f"{name}-{keep}".ljust(64, "0"), recall)


ARMS = (
    arm("multimodal", 0.5, (0.9, 0.92), recall=0.95),
    arm("<b>odd</b>|", 0.5, (0.8,)),
    arm("full", 0.5, (0.85, 0.85)),
    arm("random", 0.5, (0.84, 0.86), cost=900),
    arm("full", 1.0, (0.93, 0.95)),
)
COMPARISON = Comparison({"name": "pets <i>", "digest": "d" * 64, "classes": ["cat"]}, ARMS)


def test_references_are_those_of_the_same_ratio_and_cost() -> None:
    assert COMPARISON.beside(ARMS[0], "full") is ARMS[2].arm
    assert COMPARISON.beside(ARMS[0], "random") is None  # it trained on more
    assert COMPARISON.beside(ARMS[2], "full") is None  # itself
    assert COMPARISON.beside(ARMS[4], "full") is None
    assert COMPARISON.methods == ["multimodal", "<b>odd</b>|", "full", "random"]


def test_rows_go_from_all_data_down_and_from_the_best_down() -> None:
    entries = [(e.arm.keep, e.arm.accuracy_mean) for e in ordered(COMPARISON)]
    assert entries == sorted(entries, reverse=True)


def test_the_table_says_what_the_numbers_are() -> None:
    lines = render_table(COMPARISON).splitlines()
    row = next(line for line in lines if "multimodal" in line)
    assert [c.strip() for c in row.strip("|").split("|")] == [
        "multimodal", "0.5", "91.0 ± 1.4 %", "+6.0", "\N{EN DASH}", "500", "95.0\N{NO-BREAK SPACE}%",
    ]  # fmt: skip
    assert all(line.count("|") == 8 for line in lines[2:])


def test_the_page_holds_every_arm_and_escapes_names() -> None:
    page = render_comparison(COMPARISON)
    assert "<b>odd" not in page
    assert "<i>" not in page
    assert page.count("<svg") >= 2
    assert len(re.findall(r'<tr><th scope="row"', page)) == len(ARMS)
    assert "Highest at each ratio: multimodal has 91.0\N{NO-BREAK SPACE}% at keep 0.5." in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert page == render_comparison(COMPARISON)


def test_numbers_are_kept_as_plain_values() -> None:
    entry = json.loads(json.dumps(COMPARISON.to_json(), allow_nan=False))["arms"][0]
    assert (entry["accuracy_mean"], entry["recall"]) == (pytest.approx(0.91), 0.95)
    assert entry["accuracy_sd"] == pytest.approx(np.std([0.9, 0.92], ddof=1))


def test_a_run_without_its_file_is_said(digits_folder: Path, clean_labels_file: Path, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("results", "report", "summary")]
    with pytest.raises(InputError, match=r"model must be a folder with run\.json"):
        compare(digits_folder, clean_labels_file, [tmp_path], [tmp_path], *places)
    assert not any(p.exists() for p in places)
