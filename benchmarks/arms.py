"""Arms of the grid: a name, the method's settings, and those of training that differ from the recipe's."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One way to choose samples."""

    method: str
    prune: dict[str, Any] = field(default_factory=dict)  # of PruneConfig
    train: dict[str, Any] = field(default_factory=dict)  # of TrainConfig


METHODS = (
    "full", "random", "random-annealed", "static-random", "clip-threshold", "hardest", "el2n", "forgetting",
    "infobatch", "seta", "proxy", "confident", "gate-random", "relabel-random", "relabel-full", "adaptive",
    "adaptive-released", "multimodal",
)  # fmt: skip

ABLATIONS = {
    "multimodal, no CLIP": Arm("multimodal", {"semantic_weight": 0.0, "gate": 0.0, "relabel": False}),
    "multimodal, no difficulty": Arm("multimodal", {"difficulty_weight": 0.0}),
    "multimodal, no consistency": Arm("multimodal", {"semantic_weight": 0.0}),
    "multimodal, no gate": Arm("multimodal", {"gate": 0.0}),
    "multimodal, gated": Arm("multimodal", {"relabel": False}),
    "multimodal, relabelled": Arm("multimodal", {"relabel": True}),
    "multimodal, no annealing": Arm("multimodal", {"annealing": 0.0}),
    "multimodal, no floor": Arm("multimodal", {"class_floor": 0.0}),
    "multimodal, hard selection": Arm("multimodal", {"scale_start": 1e4, "scale_end": 1e4}),
    "multimodal, soft to the end": Arm("multimodal", {"scale_start": 4.0, "scale_end": 4.0}),
    "multimodal, newest scores only": Arm("multimodal", {"rate": 1.0}),
    "multimodal, budget curve": Arm("multimodal", {"curve": 0.5}),
    "adaptive, no L_classification": Arm("adaptive", {"classification_weight": 0.0}),
    "adaptive, no L_selection": Arm("adaptive", {"selection_weight": 0.0}),
    "adaptive, no PPC": Arm("adaptive", {"ramp": 1e-6, "tolerance": 1e9}),
    "adaptive, no floor": Arm("adaptive", {"class_floor": 0.0}),
    "adaptive, retrained": Arm("adaptive", {"retrain": True}),
}

ARMS = {name: Arm(name) for name in METHODS} | ABLATIONS

# Arms whose figures every record has: whatever is claimed is measured against these.
ALWAYS = ("full", "random")
