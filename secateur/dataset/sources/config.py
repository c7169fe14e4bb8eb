"""How a data set is read."""

from dataclasses import dataclass

from secateur.dataset.sources.location import check, parse
from secateur.errors import require_range


@dataclass(frozen=True)
class IngestConfig:
    """How a data set is read."""

    source: str = "digits"  # "digits", a folder, a CSV, Parquet, Arrow or tar file, torchvision:..., hf:... or dvc:...
    validation: float = 0.08  # fraction of the training pictures held out to steer pruning, where the source has none
    test: float = 0.2  # fraction of all pictures held out for the evaluation, where the source has no test split
    max_unreadable: float = 0.01  # fraction of pictures that may fail to decode before the step fails
    shards: int = 1  # files of the table; each is embedded by a task of its own
    split_seed: int = 0  # seed of the splits, and of the wrong labels in the digits

    def __post_init__(self) -> None:
        require_range("validation", self.validation, 0, 0.5)
        require_range("test", self.test, 0, 0.5, open_low=True)
        require_range("max_unreadable", self.max_unreadable, 0, 1)
        require_range("shards", self.shards, 1)
        check(parse(self.source))
