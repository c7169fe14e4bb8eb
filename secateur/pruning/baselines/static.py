"""Methods that choose once."""

from abc import abstractmethod

from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State, as_array
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict, explain
from secateur.pruning.selection import Bools, Values, top


class Static(Method):
    """Chooses before the first pruned epoch, and stays with that."""

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.chosen_N: Bools | None = None

    @abstractmethod
    def choose(self, samples: Samples, progress: Progress) -> Bools:
        """The samples of all epochs, bool (N,)."""

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """What was chosen at the first call."""
        if self.chosen_N is None:
            self.chosen_N = self.choose(samples, progress)
        return Selection(self.chosen_N)

    def state_dict(self) -> State:
        """The choice."""
        return super().state_dict() | {"chosen": self.chosen_N}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.chosen_N = None if state["chosen"] is None else as_array(state["chosen"]).astype(bool)


class Highest(Static):
    """The samples with the highest of a score that does not change."""

    @abstractmethod
    def score(self, samples: Samples) -> Values:
        """The higher, the rather kept, float (N,)."""

    def choose(self, samples: Samples, progress: Progress) -> Bools:
        """The top of the score."""
        return top(self.score(samples), self.count(samples), samples.key_N)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The choice, with its score."""
        kept_N = selection.active_N
        return Verdict(kept_N, self.score(samples), explain(kept_N, samples.losses.difficulty()))
