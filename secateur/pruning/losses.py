"""The loss of every sample, kept by position in the data set, as training visits it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError

State = dict[str, Any]

PENDING = 256  # batches that wait; each has to come from its device, and more of them would take memory


def as_array(values: Any) -> npt.NDArray[Any]:
    """A NumPy array of a list, an array or a tensor on any device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        values = values.float() if values.is_floating_point() and values.element_size() < 4 else values
        return np.asarray(values.numpy())
    return np.asarray(values)


def as_tensors(value: Any) -> Any:
    """Arrays as tensors and NumPy's numbers as Python's, all the way down, for a file read with `weights_only`."""
    import torch  # methods at work do without

    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: as_tensors(part) for key, part in value.items()}
    return [as_tensors(part) for part in value] if isinstance(value, list | tuple) else value


class SampleLosses:
    """Last loss, moving average and number of visits of each sample.

    Attributes:
        last_N: Plain cross-entropy of the last visit (no smoothing, mixup or weight), float32 (N,); NaN before.
        mean_N: Moving average, mean <- (mean + last) / 2 at each visit, float32 (N,); NaN before the first.
        visits_N: Number of visits, uint16 (N,).
    """

    def __init__(self, samples: int) -> None:
        self.last_N = np.full(samples, np.nan, dtype=np.float32)
        self.mean_N = np.full(samples, np.nan, dtype=np.float32)
        self.visits_N = np.zeros(samples, dtype=np.uint16)
        self._pending: list[tuple[Any, Any]] = []

    def record(self, index_B: Any, loss_B: Any) -> None:
        """Note the losses of one batch; tensors stay on their device until `settle`.

        Args:
            index_B: Positions of the samples, int (B,).
            loss_B: Their losses, float (B,).
        """
        self._pending.append((index_B, loss_B.detach() if hasattr(loss_B, "detach") else loss_B))
        if len(self._pending) >= PENDING:
            self.settle()

    def settle(self) -> None:
        """Take up what was recorded.

        Raises:
            InputError: A loss is NaN or infinite, or a position is outside the data set.
        """
        pending, self._pending = self._pending, []
        for index, loss in pending:
            index_B, loss_B = as_array(index), as_array(loss).astype(np.float32)
            if len(index_B) and not (index_B.min() >= 0 and index_B.max() < len(self.last_N)):
                bad = index_B.min() if index_B.min() < 0 else index_B.max()
                raise InputError(f"sample index must be in [0, {len(self.last_N) - 1}], got {bad}")
            if not np.isfinite(loss_B).all():
                bad = int(np.flatnonzero(~np.isfinite(loss_B))[0])
                raise InputError(f"loss must be finite, got {loss_B[bad]} for sample {index_B[bad]}; try a lower rate")
            first_B = self.visits_N[index_B] == 0
            self.mean_N[index_B] = np.where(first_B, loss_B, 0.5 * self.mean_N[index_B] + 0.5 * loss_B)
            self.last_N[index_B] = loss_B
            self.visits_N[index_B] += 1

    def difficulty(self) -> npt.NDArray[np.float32]:
        """The moving averages with unvisited samples at the largest one, so that they come up soon, float32 (N,)."""
        seen_N = self.visits_N > 0
        if seen_N.all():
            return self.mean_N
        largest = self.mean_N[seen_N].max() if seen_N.any() else np.float32(1)
        return np.where(seen_N, self.mean_N, largest)

    def state_dict(self) -> State:
        """Everything that is needed to go on."""
        self.settle()
        return {"last": self.last_N.copy(), "mean": self.mean_N.copy(), "visits": self.visits_N.copy()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            InputError: The state is of another number of samples.
        """
        if len(state["last"]) != len(self.last_N):
            raise InputError(f"saved losses must be of {len(self.last_N)} samples, got {len(state['last'])}")
        self._pending = []
        self.last_N = as_array(state["last"]).astype(np.float32)
        self.mean_N = as_array(state["mean"]).astype(np.float32)
        self.visits_N = as_array(state["visits"]).astype(np.uint16)
