from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_inspection import CLASSES, make_inspection

from secateur.dataset import open_table
from secateur.errors import InputError
from secateur.evaluation.inspection import InspectConfig
from secateur.evaluation.view import corrected_labels, filtered, write_view

SPLITS = ("train", "validation", "test")


@st.composite
def samples(draw):
    size = draw(st.integers(1, 25))
    split_N = np.array(draw(st.lists(st.sampled_from(SPLITS), min_size=size, max_size=size)), dtype=object)
    wrong_N = np.array(draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.6, 1.0]), min_size=size, max_size=size)))
    owner_N = np.array(draw(st.lists(st.integers(0, 8), min_size=size, max_size=size)))
    groups = [tuple(np.flatnonzero(owner_N == g).tolist()) for g in range(8) if (owner_N == g).sum() > 1]
    return split_N, wrong_N, groups, draw(st.booleans())


@given(samples())
@settings(deadline=None)
def test_what_a_filtered_view_leaves(made):
    split_N, wrong_N, groups, change_test = made
    changeable_N = (split_N != "test") | change_test
    stays_N = filtered(wrong_N, groups, split_N, changeable_N, 0.5)
    assert stays_N[~changeable_N].all()
    assert not (stays_N & changeable_N & (wrong_N > 0.5)).any()
    in_groups = {i for members in groups for i in members}
    for i in range(len(split_N)):
        if i not in in_groups:
            assert stays_N[i] == (not changeable_N[i] or wrong_N[i] <= 0.5)
    for members in groups:
        left = [i for i in members if stays_N[i]]
        candidates = [i for i in members if not changeable_N[i] or wrong_N[i] <= 0.5]
        assert bool(left) == bool(candidates)
        assert sum(bool(changeable_N[i]) for i in left) <= 1
        if any(split_N[i] == "test" for i in candidates):
            assert {split_N[i] for i in left} == {"test"}
        elif left:
            best = min(left, key=lambda i: wrong_N[i])
            same_split = [i for i in candidates if split_N[i] == split_N[best]]
            assert split_N[best] == ("validation" if "validation" in split_N[candidates] else "train")
            assert wrong_N[best] == min(wrong_N[i] for i in same_split)


@given(samples(), st.floats(0, 0.99))
@settings(deadline=None)
def test_what_a_corrected_view_changes(made, above):
    split_N, certainty_N, _, change_test = made
    changeable_N = (split_N != "test") | change_test
    label_N = np.zeros(len(split_N), dtype=np.int32)
    corrected_N = corrected_labels(label_N, label_N + 1, certainty_N, changeable_N, above)
    for i in range(len(split_N)):
        assert corrected_N[i] == int((split_N[i] != "test" or change_test) and certainty_N[i] > above)


def views(tmp_path, **settings):
    found = make_inspection(tmp_path / "t")
    write_view(found, found, InspectConfig(**settings), tmp_path / "view")
    return found.table, open_table(tmp_path / "view")


def test_a_corrected_table_differs_in_the_probable_labels_of_training_and_validation(tmp_path):
    before, after = views(tmp_path, export="corrected", correct_above=0.8)
    assert np.flatnonzero(before.label != after.label).tolist() == [0, 7, 14, 21, 28]
    assert after.label[[0, 7]].tolist() == [1, 2]
    for same in ("sample_id", "split"):
        assert np.array_equal(getattr(before, same), getattr(after, same))
    assert after.captions() == before.captions()
    assert [after.source(i) for i in range(42)] == [before.source(i) for i in range(42)]
    old, new = before.info, after.info
    assert (new.name, new.classes, new.prompts, len(new.shards)) == (old.name, old.classes, old.prompts, 2)
    assert new.digest != old.digest


def test_a_curator_may_have_test_labels_changed(tmp_path):
    before, after = views(tmp_path, export="corrected", correct_above=0.8, change_test=True)
    assert np.flatnonzero(before.label != after.label).tolist() == [0, 7, 14, 21, 28, 35]


def test_a_filtered_table_lacks_suspects_copies_and_the_training_side_of_leaks(tmp_path):
    before, after = views(tmp_path, export="filtered")
    gone = [0, 5, 7, 14, 21, 28]  # of the copies 0 and 20, the former's label is suspected
    assert [after.source(i) for i in range(len(after))] == [before.source(i) for i in range(42) if i not in gone]
    assert after.captions()[-3:] == ["a cat"] * 3


def test_labels_that_are_not_judged_stay(tmp_path):
    found = make_inspection(tmp_path / "t")
    part = replace(found, row=found.row[:0], findings=replace(
        found.findings, probability_wrong_N=np.zeros(0), suggested_N=np.zeros(0, np.int32),
        posterior_NC=np.zeros((0, 3), np.float16), margin_N=np.zeros(0)), audited=found.audited[:0])  # fmt: skip
    write_view(part, found, InspectConfig(export="corrected"), tmp_path / "view")
    assert open_table(tmp_path / "view").info.digest == found.table.info.digest


def test_a_class_that_would_be_empty_is_named(tmp_path):
    found = make_inspection(tmp_path / "t")
    wrong_N = np.where(found.label == 2, 0.9, 0.0)
    emptied = replace(found, findings=replace(found.findings, probability_wrong_N=wrong_N))
    with pytest.raises(InputError, match="every class must have a training sample, got none for class 'say"):
        write_view(emptied, emptied, InspectConfig(export="filtered"), tmp_path / "view")
    assert not (tmp_path / "view").exists()
    assert CLASSES[2].startswith("say")
