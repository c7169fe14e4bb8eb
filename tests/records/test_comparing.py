import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.pruning.mask import Mask
from secateur.records.registry.comparing import WAYS, changes, difference

IDS = [f"{i:032x}" for i in range(12)]
CLASS_OF = {sample_id: "cat" if i % 2 else "dog" for i, sample_id in enumerate(IDS)}


def made(kept: dict[str, bool]) -> Mask:
    n = len(kept)
    return Mask(
        sample_id=np.array(list(kept), dtype=object),
        kept=np.array(list(kept.values()), dtype=bool),
        reason=np.array(["kept" if k else "hard" for k in kept.values()], dtype=object),
        score=np.zeros(n, np.float32),
        loss=np.zeros(n, np.float32),
        consistency=np.zeros(n, np.float32),
        label_probability=np.zeros(n, np.float32),
        suggested_label=np.zeros(n, np.int32),
        epochs_used=np.zeros(n, np.int32),
        meta={},
    )


masks = st.dictionaries(st.sampled_from(IDS), st.booleans(), max_size=12).map(made)


@settings(max_examples=100, deadline=None)
@given(masks, masks)
def test_the_slow_way_finds_the_same(first: Mask, second: Mask) -> None:
    found = difference(first, second, CLASS_OF)
    a, b = (dict(zip(m.sample_id, m.kept, strict=True)) for m in (first, second))
    common = [i for i in IDS if i in a and i in b]
    assert found.samples == len(common)
    assert found.apart == (len(a) - len(common), len(b) - len(common))
    assert found.dropped["both"] == tuple(i for i in common if not a[i] and not b[i])
    assert found.dropped["first"] == tuple(i for i in common if not a[i] and b[i])
    assert found.dropped["second"] == tuple(i for i in common if a[i] and not b[i])
    assert sum(count for here in found.per_class.values() for count in here.values()) == sum(
        len(found.dropped[way]) for way in WAYS
    )
    assert sum(found.reasons.values()) == len(found.dropped["first"]) + len(found.dropped["second"])
    if common:
        assert found.agreement == pytest.approx(sum(a[i] == b[i] for i in common) / len(common))


def test_a_mask_agrees_with_itself() -> None:
    mask = made({sample_id: i % 3 > 0 for i, sample_id in enumerate(IDS)})
    found = difference(mask, dataclasses.replace(mask), CLASS_OF)
    assert found.agreement == 1
    assert found.reasons == {}
    assert found.per_class == {"cat": {"both": 2, "first": 0, "second": 0}, "dog": {"both": 2, "first": 0, "second": 0}}


def test_figures_that_only_one_has_are_left_out() -> None:
    arm = {"accuracy_mean": 0.9, "backward_samples": 10, "forward_samples": 12, "seconds": 1.0}
    facts = {"arms": [arm], "keep_achieved": 0.7, "noise": None}
    better = facts | {"arms": [arm | {"accuracy_mean": 0.95}], "noise": {"recall": 0.5}}
    found = changes(facts, better)
    assert found["accuracy"] == (0.9, 0.95)
    assert "recall of wrong labels" not in found
