"""How a model is trained, before and while its data are pruned."""

from dataclasses import dataclass

from secateur.errors import InputError, require_choice, require_range

SHARDS = 8  # of a batch, where training is deterministic; a power of 2


@dataclass(frozen=True)
class TrainConfig:
    """The model and its optimisation; one for the warm-up and all that follows it."""

    model: str = "convnet"  # "convnet", or any classifier of timm or torchvision by its name there
    image_size: int = 0  # pixels of a side; 0 takes the size of the pictures, which must then all be equal
    augment: str = "shift"  # "none", "shift" (by up to an eighth of the side), "shift-flip" (half of them mirrored too)
    warmup_epochs: int = 6  # epochs on all samples before pruning begins
    batch_size: int = 32  # samples per step
    learning_rate: float = 0.1  # highest rate of SGD with Nesterov momentum, reached in the warm-up
    momentum: float = 0.9  # of SGD
    weight_decay: float = 5e-4  # of SGD
    precision: str = "auto"  # "fp32", "bf16", or "auto": bf16 where a GPU is, else fp32
    deterministic: bool = False  # same bytes on 1, 2, 4 or 8 processes; slower, batch norm sees an eighth of each batch
    seeds: tuple[int, ...] = (0, 1, 2)  # one model each; the first one's mask is the one published

    def __post_init__(self) -> None:
        if self.image_size:
            require_range("image_size", self.image_size, 4, 4096)
        require_choice("augment", self.augment, ("none", "shift", "shift-flip"))
        require_range("warmup_epochs", self.warmup_epochs, 1)
        require_range("batch_size", self.batch_size, 2 * SHARDS if self.deterministic else 2)
        require_range("learning_rate", self.learning_rate, 0, open_low=True)
        require_range("momentum", self.momentum, 0, 1, open_high=True)
        require_range("weight_decay", self.weight_decay, 0)
        require_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds must be one or more different whole numbers, got {list(self.seeds)}")

    def check_epochs(self, epochs: int) -> None:
        """Check that a whole run leaves epochs for pruning.

        Raises:
            InputError: It ends with the warm-up.
        """
        if epochs <= self.warmup_epochs:
            raise InputError(f"epochs must be more than warmup_epochs ({self.warmup_epochs}), got {epochs}")
