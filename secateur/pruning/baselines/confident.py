"""Confident learning (Northcutt et al., JAIR 2021) as a filter, by the authors' own library."""

import numpy as np

from secateur.errors import InputError
from secateur.pruning.baselines.clip import COST, draw_accepted, filtered, semantics_of
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict
from secateur.pruning.selection import Bools, Ints, Values


def label_issues(label_N: Ints, probability_NC: Values) -> Bools:
    """What cleanlab holds for wrong labels, bool (N,), with its own defaults.

    Args:
        label_N: Given labels.
        probability_NC: Probability of every class from a model that was not trained on these labels.

    Raises:
        InputError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise InputError(
            "method 'confident' must have cleanlab, got none: install it with `pip install 'secateur[cleanlab]'`"
        ) from error
    return np.asarray(find_label_issues(label_N, probability_NC.astype(np.float64), n_jobs=1), dtype=bool)


class Confident(Method):
    """Chance, among the labels that confident learning does not doubt."""

    summary = "a new random subset every epoch, without what confident learning holds for wrong labels"
    paper = "confident learning, arXiv 1911.00068, by cleanlab"
    cost = COST
    needs = ("semantics",)

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.accepted_N: Bools | None = None

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Filter once, then draw evenly from the rest.

        Raises:
            InputError: cleanlab is not installed, or the semantics do not say how likely each class is.
        """
        if self.accepted_N is None:
            probability_NC = semantics_of(samples).probability_NC
            if probability_NC is None:
                raise InputError("method 'confident' must have probability_NC in its semantics, got none")
            self.accepted_N = ~label_issues(samples.label_N, probability_NC)
        return Selection(draw_accepted(self, samples, progress, self.accepted_N))

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last draw."""
        assert self.accepted_N is not None
        return filtered(selection.active_N, semantics_of(samples).consistency_N, self.accepted_N)

    def state_dict(self) -> State:
        """What the filter accepts."""
        return super().state_dict() | {"accepted": self.accepted_N}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.accepted_N = None if state["accepted"] is None else as_array(state["accepted"]).astype(bool)
