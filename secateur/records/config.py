"""How results are published."""

import math
from dataclasses import dataclass

from secateur.errors import InputError


@dataclass(frozen=True)
class PublishConfig:
    """How results are published; where to is up to the environment, see `secateur.records.places`."""

    model_name: str = ""  # name in MLflow's model registry; empty: the data set's and the model's, as digits-convnet
    store_data: bool = True  # keep the data set itself in the registry's store, once for all versions made from it
    promote_accuracy: float = 0.0  # least test accuracy of a champion, in [0, 1]
    promote_loss: float = 0.01  # largest loss of test accuracy against the champion; 0.01: one point
    promote_class_loss: float = 0.1  # largest loss of test accuracy against the champion on any class
    promote_cost: float = 0.0  # most samples trained on, as a multiple of the champion's; 0: any number
    promote_recall: float = 0.0  # least fraction of wrong labels that a champion's mask found; 0: any
    promote_untested: bool = False  # let a candidate replace a champion that was judged on another test split

    def __post_init__(self) -> None:
        if set(self.model_name) & set("/:'\""):
            raise InputError(f"model_name must be without '/', ':' and quotes, got {self.model_name!r}")
        for name in ("promote_accuracy", "promote_loss", "promote_class_loss", "promote_recall"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be in [0, 1], got {getattr(self, name):g}")
        if not 0 <= self.promote_cost < math.inf:
            raise InputError(f"promote_cost must be 0 or more, got {self.promote_cost:g}")
