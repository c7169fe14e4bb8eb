"""How results are published."""

from dataclasses import dataclass

from secateur.errors import InputError


@dataclass(frozen=True)
class PublishConfig:
    """How results are published; where to is up to the environment, see `secateur.records.places`."""

    model_name: str = ""  # name in MLflow's model registry; empty: the data set's and the model's, as digits-convnet

    def __post_init__(self) -> None:
        if "/" in self.model_name or ":" in self.model_name:
            raise InputError(f"model_name must be without '/' and ':', got {self.model_name!r}")
