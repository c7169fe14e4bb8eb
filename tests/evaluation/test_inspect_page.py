import re
from dataclasses import replace

import numpy as np
import pytest
from html_page import Page
from made_inspection import CLASSES, make_inspection, source

from secateur.evaluation import inspect_page
from secateur.evaluation.inspect_page import commonest, copy_groups, in_turn, render_audit, render_inspection


@pytest.fixture
def found(tmp_path):
    return make_inspection(tmp_path / "t")


def words(text: str) -> str:
    return " ".join("".join(Page(text).texts).split())


def test_the_report_is_one_page_with_all_it_shows_and_escapes_names(found):
    text = render_inspection(found, 0.5)
    page = Page(text)
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(page.tags)
    assert "<script>" not in text
    assert "<i>" not in text
    assert "<b>co" not in text
    assert all(image["alt"] for image in page.images)
    assert page.tags.count("h1") == 1
    seen = words(text)
    assert all(" ".join(name.split()) in seen for name in (*CLASSES, source(7), "pets & <b>co</b>"))
    assert text == render_inspection(found, 0.5)


def test_the_report_says_what_was_found(found):
    seen = words(render_inspection(found, 0.5))
    assert "At least 4 of 39 labels are probably wrong" in seen
    assert "10.0 %, interval 8.0 % to 12.0 %" in seen
    assert "This is a lower bound" in seen
    assert "CLIP fits: its & the" in seen
    assert "The 6 most suspicious of 6" in seen
    assert "Leaks: training pictures that the test split has too" in seen
    judged = words(render_inspection(replace(found, findings=replace(found.findings, audited=12)), 0.5))
    assert "About 4 of 39 labels are probably wrong" in judged
    assert "calibrated by 12 samples that a person judged" in judged
    assert "lower bound" not in judged


def test_a_clip_that_does_not_fit_is_an_alarm(tmp_path):
    text = render_inspection(make_inspection(tmp_path / "t", fits=False), 0.5)
    assert "CLIP does not fit: its & the" in words(text)
    assert 'class="alarms"' in text


def test_a_clean_data_set_has_a_report_too(found):
    clean = replace(
        found, groups=(), exact=np.zeros(39, bool), leak=np.zeros(39, bool),
        findings=replace(found.findings, probability_wrong_N=np.zeros(39), clip_fit=None, signal={}),
    )  # fmt: skip
    seen = words(render_inspection(clean, 0.5))
    assert "No label is wrong with more than" in seen
    assert "No picture has a copy." in seen


def test_suspects_are_shown_most_suspicious_first_and_not_too_many(found, monkeypatch):
    monkeypatch.setattr(inspect_page, "SUSPECTS", 2)
    page = Page(render_inspection(found, 0.5))
    shown = [image["alt"] for image in page.images]
    assert shown[0] == f"Picture labelled {CLASSES[0]}, suggested {CLASSES[1]}, {source(0)}"
    assert shown[1] == f"Picture labelled {CLASSES[1]}, suggested {CLASSES[2]}, {source(7)}"
    assert source(14) not in "".join(shown)


def test_classes_are_listed_with_the_worst_first(found):
    rows = inspect_page.class_rows(found, 0.5)
    assert [row.name for row in rows] == [CLASSES[int(c)] for c in np.argsort(
        [-found.probability_wrong[found.label == c].mean() for c in range(3)])]  # fmt: skip
    assert sum(row.samples for row in rows) == 39
    assert sum(row.suspected for row in rows) == 6
    assert {row.name: row.suggestions for row in rows}[CLASSES[0]] == [(CLASSES[1], 2)]


def test_the_commonest_changes():
    given_S = np.array([0, 0, 1, 2, 0, 2])
    suggested_S = np.array([1, 1, 2, 2, 2, 1])
    assert commonest(given_S, suggested_S, "abc")[0] == ("a", "b", 2)
    assert sorted(commonest(given_S, suggested_S, "abc")[1:]) == [("a", "c", 1), ("b", "c", 1), ("c", "b", 1)]


def test_a_large_leak_shows_both_sides_and_all_labels(found):
    members = (*range(1, 15), 32)
    found = replace(found, groups=((0, 20), members))
    found.leak[list(range(1, 15))] = True
    (group,) = copy_groups(found, leaks=True)
    assert group.count == 15
    assert {p.split for p in group.pictures} == {"train", "test"}
    assert {p.given for p in group.pictures} == set(CLASSES)
    assert len(group.pictures) == inspect_page.COPIES
    (other,) = copy_groups(found, leaks=False)
    assert other.kind == "identical files, 2 different labels"


def test_the_pictures_of_an_audit_stand_beside_their_lines(found):
    position_A = np.array([0, 21, 7, 4])
    text = render_audit(found, position_A, "audit.csv")
    page = Page(text)
    assert len(page.images) == 4
    assert "<script>" not in text
    seen = words(text)
    places = [seen.index(f"line {line}{' '.join(source(i).split())}") for line, i in enumerate(position_A, start=2)]
    assert places == sorted(places)
    assert page.tags.count("h3") == 2


def test_members_of_a_group_take_turns_by_split_and_label(found):
    members = np.random.default_rng(0).permutation(len(found)).tolist()
    kind = list(zip(found.split, found.label, strict=True))

    def earlier(i):
        return sum(kind[j] == kind[i] for j in range(i))

    assert in_turn(found, members) == sorted(members, key=lambda i: (earlier(i), i))
