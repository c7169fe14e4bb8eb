"""The pruner: takes the losses of a training loop, and says which samples come next."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.errors import InputError
from secateur.pruning.alarms import restless
from secateur.pruning.config import PruneConfig
from secateur.pruning.losses import SampleLosses, State, as_array
from secateur.pruning.mask import Mask
from secateur.pruning.method import REASONS, Progress, Samples, Selection, Semantics, Verdict, explain
from secateur.pruning.methods import make_method
from secateur.pruning.selection import Bools, Ints
from secateur.streams import sample_keys

SETTLED = 0.6  # fraction of the pruning phase after which a learned mask should have come to rest


class Pruner:
    """A method at work on one data set under one seed.

    It knows no loop: tell it losses with `record`, ask it for the samples of the next epoch with `next_epoch`.
    """

    def __init__(
        self,
        config: PruneConfig,
        sample_ids: Sequence[str] | None,
        labels: Sequence[int] | npt.NDArray[Any],
        *,
        seed: int = 0,
        semantics: Semantics | None = None,
        scores: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Bind a method to a data set.

        Args:
            config: Method and ratio.
            sample_ids: A name for each sample that stays the same from run to run; None for its position.
            labels: Given labels, int (N,).
            seed: Of the random draws.
            semantics: What CLIP says, for the methods that need it.
            scores: What a preliminary run found, by name, for the methods that need it.

        Raises:
            InputError: An unknown method, no sample, or a method that lacks what it needs.
        """
        size = len(labels)
        if not size or (sample_ids is not None and len(sample_ids) != size):
            given = size if sample_ids is None else len(sample_ids)
            raise InputError(f"labels must be one for each of one or more samples, got {size} for {given}")
        self.method = make_method(config)
        self.config, self.seed = config, seed
        self.sample_ids = None if sample_ids is None else list(sample_ids)
        key_N = sample_keys(np.arange(size) if self.sample_ids is None else self.sample_ids)
        label_N = check_labels(labels)
        self.samples = Samples(key_N, label_N, SampleLosses(size), semantics, scores or {})
        check_needs(config.method, self.method.needs, self.samples)
        self.selection: Selection | None = None
        self.trajectory: list[dict[str, Any]] = []  # seed, epoch, phase, count, and `active` as packed bits

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
        if self.method.settles and done > SETTLED and len(self.trajectory) > 1:
            self._watch_churn()
        return self.selection

    def _watch_churn(self) -> None:
        """Raise the alarm where the method still chooses anew in each epoch."""
        before, now = self.trajectory[-2:]
        if before["phase"] == now["phase"] == "prune" and restless(before["active"], now["active"], len(self.samples)):
            self.method.alarm("churn: late in the run, each epoch's samples are still as good as drawn anew by chance")

    def _enter(self, epoch: int, phase: str, active_N: Bools) -> Bools:
        row = {"epoch": epoch, "phase": phase, "count": np.count_nonzero(active_N), "active": np.packbits(active_N)}
        self.trajectory.append({"seed": self.seed, **row})
        return active_N

    def verdict(self) -> Verdict:
        """The mask after the last selection update; everything, before the first."""
        self.samples.losses.settle()
        if self.selection is not None:
            return self.method.verdict(self.samples, self.selection)
        all_N = np.ones(len(self.samples), dtype=bool)
        return Verdict(all_N, all_N.astype(np.float32), explain(all_N, self.samples.losses.difficulty()))

    def mask(self, dataset: dict[str, str] | None = None) -> Mask:
        """The mask after the last selection update.

        Args:
            dataset: Name and digest of the data set, for the metadata.
        """
        size, verdict, says = len(self.samples), self.verdict(), self.samples.semantics
        unknown_N = np.full(size, np.nan, dtype=np.float32)
        ids = [str(i) for i in range(size)] if self.sample_ids is None else self.sample_ids
        return Mask(
            sample_id=np.array(ids, dtype=object),
            kept=verdict.kept_N,
            reason=np.array([reason.value for reason in REASONS], dtype=object)[verdict.reason_N],
            score=verdict.score_N.astype(np.float32),
            loss=self.samples.losses.mean_N.copy(),
            consistency=says.consistency_N.astype(np.float32) if says else unknown_N,
            label_probability=says.label_probability_N.astype(np.float32) if says else unknown_N,
            suggested_label=says.suggested_N.astype(np.int32) if says else np.full(size, -1, dtype=np.int32),
            epochs_used=self.samples.losses.visits_N.astype(np.int32),
            meta={
                "dataset": dataset or {},
                "method": self.config.method,
                "config": asdict(self.config),
                "keep_requested": self.config.keep,
                "keep_achieved": float(verdict.kept_N.mean()),
                "seed": self.seed,
            },
        )

    def state_dict(self) -> State:
        """Everything that is needed to go on, also in the midst of an epoch."""
        chosen = self.selection
        return {
            "losses": self.samples.losses.state_dict(),
            "method": self.method.state_dict(),
            "selection": None
            if chosen is None
            else {
                "active": np.packbits(chosen.active_N),
                "weight": chosen.weight_N,
                "relabelled": None if chosen.relabelled_N is None else np.packbits(chosen.relabelled_N),
                "phase": chosen.phase,
            },
            "trajectory": [dict(row) for row in self.trajectory],
            "samples": self._identity(),
            "settings": self._settings(),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a saved state.

        Raises:
            InputError: The state is of other samples or labels, or of another method, keep or seed.
        """
        if state["samples"] != self._identity():
            raise InputError(
                f"state must be of this data set ({self._identity()}: samples and a hash of ids and labels), "
                f"got one of {state['samples']}"
            )
        if state["settings"] != self._settings():
            raise InputError(f"state must be of {self._settings()}, got one of {state['settings']}")
        self.samples.losses.load_state_dict(state["losses"])
        self.method.load_state_dict(state["method"])
        chosen = state["selection"]
        self.selection = chosen and Selection(
            self._unpack(chosen["active"]),
            None if chosen["weight"] is None else as_array(chosen["weight"]).astype(np.float32),
            None if chosen["relabelled"] is None else self._unpack(chosen["relabelled"]),
            chosen["phase"],
        )
        self.trajectory = [{**row, "active": as_array(row["active"]).astype(np.uint8)} for row in state["trajectory"]]

    def _unpack(self, bits: Any) -> Bools:
        return np.unpackbits(as_array(bits).astype(np.uint8), count=len(self.samples)).astype(bool)

    def _settings(self) -> str:
        """What a state cannot be carried over to another of."""
        return f"method {self.config.method!r}, keep {self.config.keep:g}, seed {self.seed}"

    def _identity(self) -> str:
        """Number of samples and a hash of ids and labels."""
        places = np.arange(len(self.samples), dtype=np.uint64)
        tied = sample_keys(places) ^ self.samples.key_N
        summary = np.bitwise_xor.reduce(sample_keys(tied + self.samples.label_N.astype(np.uint64)))
        return f"{len(self.samples)}-{int(summary):016x}"


def check_labels(labels: Sequence[int] | npt.NDArray[Any]) -> Ints:
    """The given labels as int32 (N,).

    Raises:
        InputError: They are not one whole number from 0 for each sample.
    """
    label_N = as_array(labels)
    if label_N.ndim != 1 or (label_N.size and label_N.dtype.kind not in "iub"):
        raise InputError(
            f"labels must be one whole number for each sample, got {label_N.dtype} of shape {label_N.shape}"
        )
    if label_N.size and label_N.min() < 0:
        raise InputError(f"labels must be 0 or above, got {label_N.min()}")
    return label_N.astype(np.int32)


def check_needs(name: str, needs: Sequence[str], samples: Samples) -> None:
    """Check that a method has what it needs to know.

    Raises:
        InputError: Semantics or a score are missing, or are of another number of samples.
    """
    if "semantics" in needs and samples.semantics is None:
        raise InputError(f"method {name!r} must have semantics, got none: pass the CLIP embeddings of the data set")
    for score in needs:
        if score not in ("semantics", "validation") and score not in samples.scores:
            raise InputError(f"method {name!r} must have the score {score!r} of a preliminary run, got none")
    sizes = {"semantics": samples.semantics.consistency_N.shape[0]} if samples.semantics else {}
    sizes |= {score: values.shape[-1] for score, values in samples.scores.items()}
    for what, size in sizes.items():
        if size != len(samples):
            raise InputError(f"{what} must be of the {len(samples)} samples, got {size}")
