"""What an evaluation measured: the numbers of `results.json`, and what the report needs beside them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.evaluation.scores import accuracy

FOUND = ("inconsistent", "relabelled")  # reasons that say a label is probably wrong
SAME_BUDGET = 0.01  # fraction by which the samples of two arms may differ and still be the same budget


@dataclass(frozen=True)
class Arm:
    """One method at one ratio, over all its seeds."""

    name: str  # the method
    role: str  # "pruned" for the run that is judged, "baseline" for the others
    keep: float  # fraction of the training samples asked for
    keep_achieved: float  # fraction reached
    seeds: tuple[int, ...]
    accuracy: tuple[float, ...]  # on the test split, one per seed, in [0, 1]
    forward_samples: int  # samples through the network forwards, mean over seeds
    backward_samples: int  # samples through the network backwards, mean over seeds
    seconds: float  # of training, mean over seeds

    @property
    def accuracy_mean(self) -> float:
        """Mean test accuracy over the seeds."""
        return statistics.fmean(self.accuracy)

    @property
    def accuracy_sd(self) -> float | None:
        """Standard deviation of the test accuracy over the seeds; None for a single one."""
        return statistics.stdev(self.accuracy) if len(self.accuracy) > 1 else None

    def budget_ratio(self, reference: "Arm") -> float:
        """Samples trained on, as a multiple of another arm's."""
        return self.backward_samples / max(1, reference.backward_samples)

    def same_budget(self, reference: "Arm") -> bool:
        """Whether two arms trained on the same number of samples, but for the last steps of an epoch."""
        return abs(self.budget_ratio(reference) - 1) <= SAME_BUDGET


@dataclass(frozen=True)
class Noise:
    """How the mask treats wrong labels, where clean ones are known; NaN where a figure is not defined."""

    known: int  # training samples whose true label is known
    wrong: int  # of those, how many were given another label
    found_wrong: int  # wrong labels that are inconsistent or relabelled in the mask
    recall: float  # found_wrong as a fraction of the wrong ones
    precision: float  # found_wrong as a fraction of all that are inconsistent or relabelled
    dropped_wrong_all: int  # wrong labels dropped for any reason
    recall_all: float
    precision_all: float
    auroc_score: float  # of a low score, as evidence of a wrong label
    auroc_label_probability: float  # of a low probability that the label is right


@dataclass(frozen=True)
class Results:
    """All that `results.json` says."""

    dataset: Mapping[str, Any]  # name, digest, classes
    arms: tuple[Arm, ...]  # the pruned one first
    reasons: Mapping[str, int]  # training samples per reason of the mask
    noise: Noise | None  # None where no clean label is known
    mask_digest: str
    alarms: tuple[str, ...]
    per_class: tuple[float, ...]  # test accuracy per class, pruned arm, first seed; NaN: no test sample
    confusion: tuple[tuple[int, ...], ...]  # test samples by label and prediction, pruned arm, first seed

    def to_json(self) -> dict[str, Any]:
        """The same as plain values; what is not defined becomes null."""
        value = asdict(self)
        for arm, fields in zip(self.arms, value["arms"], strict=True):
            fields.update(accuracy_mean=arm.accuracy_mean, accuracy_sd=arm.accuracy_sd)
        cleaned: dict[str, Any] = without_nan(value)
        return cleaned


@dataclass(frozen=True)
class ArmRun:
    """A run folder and how its networks do on the test split, one entry per seed."""

    info: Mapping[str, Any]  # run.json
    histories: Sequence[Sequence[Mapping[str, Any]]]  # history.json
    confusions: Sequence[npt.NDArray[np.int64]]  # (C, C), rows are labels

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Test accuracy of each seed."""
        return tuple(map(accuracy, self.confusions))


def without_nan(value: Any) -> Any:
    """Replace NaN by None, all the way down.

    >>> without_nan({"a": (float("nan"), 1)})
    {'a': [None, 1]}
    """
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value
