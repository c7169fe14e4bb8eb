"""Two versions beside each other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.pruning.mask import Mask

WAYS = ("both", "first", "second")  # dropped by both, by the first only, by the second only


@dataclass(frozen=True)
class Difference:
    """What two masks drop."""

    samples: int  # training samples that both masks are about
    apart: tuple[int, int]  # training samples that only the first, only the second is about
    dropped: Mapping[str, tuple[str, ...]]  # sample ids, by WAYS
    per_class: Mapping[str, Mapping[str, int]]  # number of samples, by class and WAYS
    reasons: Mapping[tuple[str, str], int]  # number of samples whose reason changed, by old and new reason

    @property
    def agreement(self) -> float:
        """Fraction of the common samples that both masks keep, or both drop."""
        return 1 - (len(self.dropped["first"]) + len(self.dropped["second"])) / max(1, self.samples)


def difference(first: Mask, second: Mask, class_of: Mapping[str, str]) -> Difference:
    """Compare two masks.

    Args:
        first: One of them.
        second: The other.
        class_of: Name of the class of each sample.
    """
    ids = sorted(set(first.sample_id.tolist()) & set(second.sample_id.tolist()))
    (kept_a, reason_a), (kept_b, reason_b) = (aligned(mask, ids) for mask in (first, second))
    ways = {"both": ~kept_a & ~kept_b, "first": ~kept_a & kept_b, "second": kept_a & ~kept_b}
    id_N = np.array(ids, dtype=object)
    dropped = {way: tuple(id_N[there].tolist()) for way, there in ways.items()}
    classes = {way: Counter(class_of[sample_id] for sample_id in found) for way, found in dropped.items()}
    changed = Counter(zip(reason_a.tolist(), reason_b.tolist(), strict=True))
    return Difference(
        samples=len(ids),
        apart=(len(first) - len(ids), len(second) - len(ids)),
        dropped=dropped,
        per_class={
            name: {way: classes[way][name] for way in WAYS} for name in sorted({c for w in WAYS for c in classes[w]})
        },
        reasons={pair: count for pair, count in changed.most_common() if pair[0] != pair[1]},
    )


def aligned(mask: Mask, ids: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.object_]]:
    """Kept or not, and why, in the order of some ids."""
    row_of = {sample_id: row for row, sample_id in enumerate(mask.sample_id.tolist())}
    rows = np.array([row_of[sample_id] for sample_id in ids], dtype=np.int64)
    return mask.kept[rows], mask.reason[rows]


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Accuracy and cost of two versions; what only one of them has is left out.

    Args:
        first: What `version.json` says.
        second: The same of the other.
    """
    sides = [
        {
            "accuracy": facts["arms"][0]["accuracy_mean"],
            "kept": facts["keep_achieved"],
            "samples trained on": facts["arms"][0]["backward_samples"],
            "samples passed forward": facts["arms"][0]["forward_samples"],
            "seconds of training": facts["arms"][0]["seconds"],
            "recall of wrong labels": (facts.get("noise") or {}).get("recall"),
        }
        for facts in (first, second)
    ]
    return {n: (sides[0][n], sides[1][n]) for n in sides[0] if sides[0][n] is not None and sides[1][n] is not None}
