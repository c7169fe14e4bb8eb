"""SeTa (CVPR 2025, arXiv 2503.13385): a random subset, in which a window slides from easy to hard."""

import numpy as np
import numpy.typing as npt

from secateur.pruning.baselines.chance import ANNEALING_FROM, by_chance, draw
from secateur.pruning.baselines.infobatch import last_losses
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import State
from secateur.pruning.method import Method, Progress, Samples, Selection, Verdict
from secateur.pruning.selection import Floats, Singles

RATIO = 0.1  # r: fraction that chance leaves out
GROUPS = 5
STEPS = 1024
WINDOW = 0.9  # fraction of the groups that the window spans


def loss_groups(loss_N: Singles, groups: int) -> npt.NDArray[np.int64]:
    """Cluster losses by k-means, and number the clusters from easy to hard, int (N,) in [0, groups).

    In one dimension the best clusters are intervals, and dynamic programming finds them; it takes 1,024 equal steps
    between the lowest and the highest loss as one each. There are fewer groups where there are fewer steps in use.
    """
    low, high = float(loss_N.min()), float(loss_N.max())
    wide = max(high - low, 1e-12)
    step_N = np.minimum(((loss_N - low) * (STEPS / wide)).astype(np.int64), STEPS - 1)
    count_S = np.bincount(step_N, minlength=STEPS)
    used = np.flatnonzero(count_S)
    sum_S, square_S = (np.bincount(step_N, loss_N.astype(np.float64) ** power, STEPS) for power in (1, 2))
    count_M, sum_M, square_M = (np.concatenate([[0.0], np.cumsum(x_S[used])]) for x_S in (count_S, sum_S, square_S))
    ends = best_cuts(count_M, sum_M, square_M, min(groups, len(used)))
    group_S = np.zeros(STEPS, dtype=np.int64)
    group_S[used] = np.searchsorted(ends, np.arange(len(used)), side="right")
    return group_S[step_N]


def best_cuts(count_M: Floats, sum_M: Floats, square_M: Floats, groups: int) -> list[int]:
    """First place of the second group, of the third, and so on, with the least squared distances within groups.

    Args:
        count_M: Number of values before each place, and of all, increasing.
        sum_M: Their sum.
        square_M: The sum of their squares.
        groups: At most one less than places.
    """
    count_MM, sum_MM, square_MM = (x_M[None, :] - x_M[:, None] for x_M in (count_M, sum_M, square_M))
    spread_MM = np.where(count_MM > 0, square_MM - sum_MM**2 / np.where(count_MM > 0, count_MM, 1), np.inf)
    best_M, starts = spread_MM[0], []
    for _ in range(groups - 1):
        total_MM = best_M[:, None] + spread_MM
        starts.append(total_MM.argmin(axis=0))
        best_M = total_MM.min(axis=0)
    cuts = [len(count_M) - 1]
    for start_M in reversed(starts):
        cuts.insert(0, int(start_M[cuts[0]]))
    return cuts[:-1]


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
