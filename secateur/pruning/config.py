"""How samples are chosen while a model trains."""

from dataclasses import dataclass

from secateur.errors import InputError, require_choice, require_range


@dataclass(frozen=True)
class PruneConfig:
    """One method at one ratio, with the settings of all built-in methods; each reads those that it knows."""

    method: str = "multimodal"  # a name out of `secateur methods`
    keep: float = 0.7  # fraction of the training samples kept; also sets the budget, the same for every method
    epochs: int = 30  # epochs of an ordinary run, warm-up included; pruning shortens those after the warm-up to `keep`
    class_floor: float = 0.2  # fraction of `keep` left to every class at least, as far as its samples pass the gate
    rate: float = 0.5  # eta: weight of the newest scores in the mask, in (0, 1]
    scale_start: float = 4.0  # alpha of the soft mask after the warm-up
    scale_end: float = 400.0  # alpha at the end; the mask is then all but hard
    gate: float = 0.5  # methods with CLIP: a label that is right with less than this probability is refused; 0 for none
    relabel: bool = False  # multimodal: train samples with refused labels towards CLIP's soft ones, instead of none
    semantics: str = (
        "clip"  # multimodal: "clip"; the same "adapted" to the labels; "combined" with a probe; "neighbours"
    )
    difficulty_weight: float = 1.0  # multimodal: weight of the rank of the loss
    semantic_weight: float = 1.0  # multimodal: lambda, weight of the rank of semantic consistency
    curve: float = 0.0  # multimodal: how much more is kept early and late than in the middle, in [0, 1); 0 for evenly
    annealing: float = 0.125  # multimodal: last fraction of pruning that draws evenly from what the gate accepts
    classification_weight: float = 3.0  # adaptive: a, weight of the loss itself, which pushes hard samples out
    selection_weight: float = 1.0  # adaptive: b, weight of the negative log-loss, which pushes easy samples out
    ramp: float = 0.5  # adaptive: fraction of pruning in which the kept fraction walks from 1 to `keep`
    tolerance: float = 0.05  # adaptive: fraction by which the validation loss may worsen before the walk waits
    retrain: bool = False  # afterwards train a new model on the kept samples alone, for as many epochs

    def __post_init__(self) -> None:
        require_range("keep", self.keep, 0, 1, open_low=True)
        require_range("epochs", self.epochs, 2)
        require_range("class_floor", self.class_floor, 0, 1)
        require_range("rate", self.rate, 0, 1, open_low=True)
        require_range("scale_start", self.scale_start, 0, open_low=True)
        if self.scale_end < self.scale_start:
            raise InputError(f"scale_end must be at least scale_start ({self.scale_start:g}), got {self.scale_end:g}")
        require_range("gate", self.gate, 0, 1, open_high=True)
        require_choice("semantics", self.semantics, ("clip", "adapted", "combined", "neighbours"))
        require_range("difficulty_weight", self.difficulty_weight, 0)
        require_range("semantic_weight", self.semantic_weight, 0)
        require_range("curve", self.curve, 0, 1, open_high=True)
        require_range("annealing", self.annealing, 0, 0.5)
        require_range("classification_weight", self.classification_weight, 0)
        require_range("selection_weight", self.selection_weight, 0)
        require_range("ramp", self.ramp, 0, 1, open_low=True)
        require_range("tolerance", self.tolerance, 0)
