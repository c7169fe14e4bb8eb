"""SeTa (CVPR 2025, arXiv 2503.13385): a random subset, in which a window slides from easy to hard."""

import numpy as np
import numpy.typing as npt

from secateur.pruning.baselines.chance import ANNEALING_FROM, by_chance, draw
from secateur.pruning.baselines.infobatch import last_losses
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict
from secateur.pruning.selection import Singles

RATIO = 0.1  # r: fraction that chance leaves out
GROUPS = 5
WINDOW = 0.9  # fraction of the groups that the window spans


def loss_groups(loss_N: Singles, groups: int) -> npt.NDArray[np.int64]:
    """Cluster losses by k-means, and number the clusters from easy to hard, int (N,) in [0, groups)."""
    from sklearn.cluster import KMeans  # takes a second to import, and most runs do without

    found = KMeans(min(groups, len(np.unique(loss_N))), n_init=1, random_state=0).fit(loss_N[:, None])
    place_K = np.argsort(np.argsort(found.cluster_centers_[:, 0]))
    return np.asarray(place_K[found.labels_], dtype=np.int64)


def window(turn: int, groups: int, span: float) -> tuple[int, int]:
    """First group, and the one after the last, at a turn; the first turn has all.

    >>> [window(turn, 5, 0.5) for turn in range(6)]
    [(0, 5), (1, 3), (2, 4), (3, 5), (0, 2), (1, 3)]
    """
    if turn == 0:
        return 0, groups
    size = max(1, round(groups * span))
    start = turn % (groups - size + 1)
    return start, start + size


class SeTa(Method):
    """A random subset every epoch, of which a window over the groups of similar loss is visited.

    It cannot be told how much to keep: it is run as it is, and stopped when the budget is spent. After 7/8 of it the
    random subset is visited as a whole.
    """

    summary = "a window over loss groups of a random subset that slides from easy to hard; ignores keep"
    paper = "SeTa, arXiv 2503.13385"

    def __init__(self, config: PruneConfig) -> None:
        super().__init__(config)
        self.turn = 0

    def select(self, samples: Samples, progress: Progress) -> Selection:
        """Draw evenly, then leave out the groups beside the window."""
        active_N = draw(samples, progress, max(1, int((1 - RATIO) * len(samples))))
        if progress.done >= ANNEALING_FROM:
            return Selection(active_N, phase="anneal")
        drawn = np.flatnonzero(active_N)
        group = loss_groups(last_losses(samples.losses)[drawn], GROUPS)
        start, end = window(self.turn, int(group.max()) + 1, WINDOW)
        active_N[drawn] = (group >= start) & (group < end)
        self.turn += 1
        return Selection(active_N)

    def verdict(self, samples: Samples, selection: Selection) -> Verdict:
        """The last epoch's samples."""
        return by_chance(selection.active_N)

    def state_dict(self) -> State:
        """The turn."""
        return super().state_dict() | {"turn": self.turn}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        super().load_state_dict(state)
        self.turn = int(state["turn"])
