"""The layer below all rooms: random streams, files, errors."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import secateur.errors
import secateur.pruning.selection
import secateur.streams
from secateur.errors import InputError, require_range
from secateur.files import replacing, write_json
from secateur.streams import sample_keys, shuffled, uniform


@pytest.mark.parametrize("module", [secateur.errors, secateur.streams, secateur.pruning.selection])
def test_doctests(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_uniform_looks_uniform_and_streams_are_unrelated():
    key_N = sample_keys([str(i) for i in range(20_000)])
    a, b = uniform(key_N, "order", 0, 1), uniform(key_N, "order", 0, 2)
    counts, _ = np.histogram(a, bins=20, range=(0, 1))
    # 1,000 expected in each of 20 bins; the 99.99 % point of chi-squared with 19 degrees of freedom is 52.
    assert ((counts - 1000) ** 2 / 1000).sum() < 52
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert a.min() >= 0
    assert a.max() < 1


def test_streams_are_pinned():
    """Masks that were published can only be made again if the streams never change."""
    key_N = sample_keys(["a", "b"])
    assert key_N.tolist() == [3405396810240292928, 8453121595177857668]
    assert uniform(key_N, "selection", 3, 7).tolist() == [0.1315611675977989, 0.7406733857065305]


@given(st.sets(st.integers(0, 999), min_size=1), st.integers(0, 5), st.integers(0, 50))
def test_a_subset_meets_the_order_of_the_whole(members, seed, epoch):
    key_N = sample_keys([str(i) for i in range(1000)])
    inside = np.zeros(1000, dtype=bool)
    inside[list(members)] = True
    whole = shuffled(key_N, "order", seed, epoch)
    subset = np.flatnonzero(inside)[shuffled(key_N[inside], "order", seed, epoch)]
    assert whole[inside[whole]].tolist() == subset.tolist()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail():
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.json").read_text() == '{\n "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for name in ("first", "second"):
        with replacing(tmp_path / "out") as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["second"]


@pytest.mark.parametrize(
    ("value", "bounds", "text"),
    [
        (0, {"low": 0, "high": 1, "open_low": True}, r"keep must be in \(0, 1\], got 0"),
        (-1, {"low": 0}, r"keep must be in \[0, inf\), got -1"),
        (float("nan"), {"low": 0, "high": 1}, r"keep must be in \[0, 1\], got nan"),
    ],
)
def test_ranges(value, bounds, text):
    with pytest.raises(InputError, match=text):
        require_range("keep", value, **bounds)
