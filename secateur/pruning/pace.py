"""The pruning performance controller (PPC) of AdaPruner: how fast samples may go, for the model to stay good."""

from secateur.pruning.losses import State

DEADLINE = 0.9  # fraction of pruning by which the kept fraction must have arrived, however the model does


def worsened(loss: float | None, best: float, tolerance: float) -> bool:
    """Whether a validation loss is above the best one by more than the fraction `tolerance`; an infinite one is never.

    >>> worsened(1.06, 1.0, 0.05), worsened(1.04, 1.0, 0.05), worsened(None, 1.0, 0.05)
    (True, False, False)
    """
    return loss is not None and loss > best * (1 + tolerance)


def overdue(done: float, ramp: float) -> float:
    """The least position at `done` of pruning, in [0, 1], that still leads to 1 at the deadline.

    It is 0 for as long as a walk of the length `ramp` has time, but at most half the way to the deadline.

    >>> overdue(0.45, 0.5), overdue(0.9, 0.5)
    (0.0, 1.0)
    """
    late = min(ramp, DEADLINE / 2)
    return min(1.0, max(0.0, (done - late) / (DEADLINE - late)))


class Pace:
    """How far the walk from keeping all to keeping `keep` has come: its `position`, from 0 to 1.

    The walk takes a fraction `ramp` of pruning. It waits, and takes a step back, while the validation loss is worse
    than the best so far by more than `tolerance`; a deadline sees to it that it arrives.
    """

    def __init__(self, ramp: float, tolerance: float) -> None:
        self.ramp, self.tolerance = ramp, tolerance
        self.position = 0.0  # 0 keeps all, 1 keeps `keep`
        self.done = 0.0
        self.best = float("inf")
        self.waits = 0

    def step(self, done: float, validation_loss: float | None) -> float:
        """Move on to `done` of the pruning phase and give the new position, in [0, 1]."""
        stride = (done - self.done) / self.ramp
        self.done = done
        worse = worsened(validation_loss, self.best, self.tolerance)
        if validation_loss is not None:
            self.best = min(self.best, validation_loss)
        if worse and self.position < 1:
            self.waits += 1
            stride = -stride
        self.position = min(1.0, max(0.0, overdue(done, self.ramp), self.position + stride))
        return self.position

    def state_dict(self) -> State:
        """Where the walk is."""
        return {name: getattr(self, name) for name in ("position", "done", "best", "waits")}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state."""
        for name, value in state.items():
            setattr(self, name, value)
