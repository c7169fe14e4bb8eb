"""The pruner: takes the losses of a training loop, and says which samples come next."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses, State, as_array
from secateur.pruning.mask import Mask
from secateur.pruning.method import Progress, Reason, Samples, Selection, Semantics
from secateur.pruning.methods import METHODS, make_method
from secateur.pruning.selection import Bools
from secateur.streams import sample_keys


class Pruner:
    """A method at work on one data set under one seed.

    It knows no loop: tell it losses with `record`, ask it for the samples of the next epoch with `next_epoch`.
    """

    def __init__(
        self,
        config: PruneConfig,
        sample_ids: Sequence[str],
        labels: Sequence[int] | npt.NDArray[Any],
        *,
        seed: int = 0,
        semantics: Semantics | None = None,
    ) -> None:
        """Bind a method to a data set.

        Args:
            config: Method and ratio.
            sample_ids: A name for each sample that stays the same from run to run.
            labels: Given labels, int (N,).
            seed: Of the random draws.
            semantics: What CLIP says, for the methods that need it.

        Raises:
            InputError: An unknown method, no sample, or a method that lacks what it needs.
        """
        if len(sample_ids) != len(labels) or not len(labels):
            raise InputError(
                f"labels must be one for each of one or more samples, got {len(labels)} for {len(sample_ids)}"
            )
        self.method = make_method(config)
        if "semantics" in METHODS[config.method].needs and semantics is None:
            raise InputError(
                f"method {config.method!r} must have semantics, got none: pass the CLIP embeddings of the data set"
            )
        self.config, self.seed, self.sample_ids = config, seed, list(sample_ids)
        label_N = as_array(labels).astype(np.int32)
        self.samples = Samples(sample_keys(self.sample_ids), label_N, SampleLosses(len(label_N)), semantics)
        self.selection: Selection | None = None
        self.trajectory: list[dict[str, Any]] = []

    @property
    def alarms(self) -> list[str]:
        """What a person should know about the selection."""
        return self.method.alarms

    def record(self, index_B: Any, loss_B: Any) -> None:
        """Tell the plain loss of each sample of a batch; see `SampleLosses.record`."""
        self.samples.losses.record(index_B, loss_B)

    def warm_up(self, epoch: int) -> Bools:
        """All samples, before the method has its say, bool (N,)."""
        return self._enter(epoch, "warm-up", np.ones(len(self.samples), dtype=bool))

    def next_epoch(self, epoch: int, done: float, validation_loss: float | None = None) -> Selection:
        """Choose the samples of an epoch.

        Args:
            epoch: Epochs since training began.
            done: Fraction of the pruning phase that is over, in [0, 1).
            validation_loss: Of the epoch before, where there is a validation split.

        Raises:
            InputError: A loss was NaN or infinite.
        """
        self.samples.losses.settle()
        self.selection = self.method.select(self.samples, Progress(epoch, done, self.seed, validation_loss))
        self._enter(epoch, self.selection.phase, self.selection.active_N)
        return self.selection

    def _enter(self, epoch: int, phase: str, active_N: Bools) -> Bools:
        self.trajectory.append({"seed": self.seed, "epoch": epoch, "phase": phase, "active": active_N})
        return active_N

    def mask(self, dataset: dict[str, str] | None = None) -> Mask:
        """The mask after the last selection update.

        Args:
            dataset: Name and digest of the data set, for the metadata.
        """
        self.samples.losses.settle()
        size, chosen, says = len(self.samples), self.selection, self.samples.semantics
        unknown_N = np.full(size, np.nan, dtype=np.float32)
        kept_N = chosen.kept_N if chosen else np.ones(size, dtype=bool)
        return Mask(
            sample_id=np.array(self.sample_ids, dtype=object),
            kept=kept_N,
            reason=chosen.reason_N if chosen else np.full(size, Reason.KEPT.value, dtype=object),
            score=(chosen.score_N if chosen else np.ones(size)).astype(np.float32),
            loss=self.samples.losses.mean_N.copy(),
            consistency=says.consistency_N.astype(np.float32) if says else unknown_N,
            label_probability=says.label_probability_N.astype(np.float32) if says else unknown_N,
            suggested_label=says.suggested_N if says else np.full(size, -1, dtype=np.int32),
            epochs_used=self.samples.losses.visits_N.copy(),
            meta={
                "dataset": dataset or {},
                "method": self.config.method,
                "config": asdict(self.config),
                "keep_requested": self.config.keep,
                "keep_achieved": float(kept_N.mean()),
                "seed": self.seed,
            },
        )

    def state_dict(self) -> State:
        """Everything that is needed to go on at the start of an epoch."""
        return {
            "losses": self.samples.losses.state_dict(),
            "method": self.method.state_dict(),
            "selection": None if self.selection is None else _pack(self.selection),
            "trajectory": [{**row, "active": np.packbits(row["active"])} for row in self.trajectory],
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            InputError: The state is of another number of samples.
        """
        self.samples.losses.load_state_dict(state["losses"])
        self.method.load_state_dict(state["method"])
        self.selection = None if state["selection"] is None else _unpack(state["selection"])
        self.trajectory = [
            {**row, "active": np.unpackbits(as_array(row["active"]), count=len(self.samples)).astype(bool)}
            for row in state["trajectory"]
        ]


def _pack(selection: Selection) -> State:
    """A selection as arrays and texts; the epoch's weights are not needed again."""
    return {
        "active": selection.active_N.astype(np.uint8),
        "kept": selection.kept_N.astype(np.uint8),
        "score": selection.score_N,
        "reason": selection.reason_N.tolist(),
        "phase": selection.phase,
    }


def _unpack(state: State) -> Selection:
    return Selection(
        active_N=as_array(state["active"]).astype(bool),
        kept_N=as_array(state["kept"]).astype(bool),
        score_N=as_array(state["score"]).astype(np.float64),
        reason_N=np.array(state["reason"], dtype=object),
        phase=state["phase"],
    )
