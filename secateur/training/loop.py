"""The one training loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.sgd import sgd

from secateur.dataset import ImageTable
from secateur.dataset.loader import Pictures, Positions, augment
from secateur.streams import shuffled, stream_seed
from secateur.training.config import TrainConfig

PREDICT_BATCH = 512


def pick_device() -> torch.device:
    """The GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16 where that is safe."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


@dataclass
class EpochResult:
    """What one epoch gave."""

    steps: int
    samples: int
    loss: float  # mean over the samples visited, unweighted
    accuracy: float  # on the given labels, in training mode


class Sgd:
    """SGD with Nesterov momentum and weight decay.

    The arithmetic is PyTorch's. Its Optimizer class is left out because making one imports the compiler, which takes
    as long as all the rest of a step's start.
    """

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.momenta: list[Tensor | None] = [None] * len(self.parameters)
        self.config = config

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the parameters against their gradients, and drop the gradients."""
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        momenta = [self.momenta[i] for i in used]
        sgd(
            [self.parameters[i] for i in used],
            [self.parameters[i].grad for i in used],  # type: ignore[misc]
            momenta,
            weight_decay=self.config.weight_decay,
            momentum=self.config.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=self.config.momentum > 0,
            maximize=False,
            foreach=True,
        )
        for i, momentum in zip(used, momenta, strict=True):
            self.momenta[i] = momentum
            self.parameters[i].grad = None


class Trainer:
    """A network, its optimiser and its data; it is told which samples to visit and says what each of them lost."""

    def __init__(
        self,
        network: nn.Module,
        table: ImageTable,
        size: int,
        config: TrainConfig,
        seed: int,
        pictures: Pictures | None = None,
    ) -> None:
        """Get ready.

        Args:
            network: Float pictures in [0, 1] to logits.
            table: Training rows.
            size: Pixels of a side.
            config: Optimisation.
            seed: Of order, augmentation and dropout.
            pictures: Of the table, where they have been read already.
        """
        self.device = pick_device()
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.sgd, self.config, self.seed, self.table = Sgd(self.network, config), config, seed, table
        self.pictures = pictures or Pictures(table, size, self.device)
        self.label_N = torch.from_numpy(table.label.astype(np.int64)).to(self.device)
        self.bf16 = wants_bf16(config.precision, self.device)

    def batches(self, active_N: npt.NDArray[np.bool_], epoch: int) -> list[Positions]:
        """Cut an epoch's samples, in their order, into full batches; one smaller batch where there are too few."""
        order = shuffled(self.table.key, "order", self.seed, epoch)
        order = order[active_N[order]]
        size = self.config.batch_size
        full = len(order) // size * size
        return list(order[:full].reshape(-1, size)) if full else [order]

    def epoch(
        self,
        batches: list[Positions],
        epoch: int,
        learning_rates: Iterator[float],
        objective: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> EpochResult:
        """Visit the batches once.

        Args:
            batches: Positions of the samples of each step.
            epoch: Since training began; names the augmentation.
            learning_rates: One for each step.
            objective: From positions (B,), plain losses (B,) and logits (B, C) to the number to go backward from.
        """
        self.network.train()
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(stream_seed("dropout", self.seed, epoch))
            for index_B, pictures_B3HW in zip(batches, self.pictures.batches(batches), strict=True):
                position_B, loss_B, logits_BC = self.losses(index_B, pictures_B3HW, epoch)
                objective(position_B, loss_B, logits_BC).backward()  # type: ignore[no-untyped-call]
                self.sgd.step(next(learning_rates))
                loss_sum += loss_B.detach().sum()
                right += (logits_BC.detach().argmax(1) == self.label_N[position_B]).sum()
        samples = sum(len(index_B) for index_B in batches)
        return EpochResult(len(batches), samples, float(loss_sum) / samples, int(right) / samples)

    def losses(self, index_B: Positions, pictures_B3HW: Tensor, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Go forward on the augmented pictures of a batch: positions (B,), plain losses (B,) and logits (B, C)."""
        position_B = torch.from_numpy(index_B).to(self.device)
        pictures = augment(pictures_B3HW, self.table.key[index_B], self.config.augment, self.seed, epoch)
        logits_BC = self.forward(pictures)
        loss_B = functional.cross_entropy(logits_BC, self.label_N[position_B], reduction="none")
        return position_B, loss_B, logits_BC

    def forward(self, pictures_B3HW: Tensor) -> Tensor:
        """Logits in float32, whatever the precision inside."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            pictures_B3HW = pictures_B3HW.to(torch.float32, memory_format=torch.channels_last) / 255
            logits: Tensor = self.network(pictures_B3HW)
        return logits.float()

    def predict(self, pictures: Pictures) -> npt.NDArray[np.float32]:
        """Logits of all pictures in their order, in evaluation mode, float32 (N, C)."""
        return predict_pictures(self.network, pictures)

    def state_dict(self) -> dict[str, Any]:
        """Weights and momenta."""
        return {"network": self.network.state_dict(), "momenta": list(self.sgd.momenta)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(state["network"])
        self.sgd.momenta = [None if m is None else m.to(self.device) for m in state["momenta"]]


def predict_pictures(network: nn.Module, pictures: Pictures) -> npt.NDArray[np.float32]:
    """Logits of all pictures in their order, in evaluation mode, float32 (N, C)."""
    return np.concatenate(predict_batches(network, pictures, predict_order(len(pictures.decoded))))


def predict_order(pictures: int) -> list[Positions]:
    """Positions of the pictures in their order, in batches."""
    return np.array_split(np.arange(pictures), range(PREDICT_BATCH, pictures, PREDICT_BATCH))


@torch.no_grad()
def predict_batches(network: nn.Module, pictures: Pictures, batches: list[Positions]) -> list[npt.NDArray[np.float32]]:
    """Logits of some pictures, in evaluation mode, float32 (B, C) for each batch of positions."""
    network.eval()
    return [network(batch.to(torch.float32) / 255).float().cpu().numpy() for batch in pictures.batches(batches)]


def scores(logit_NC: npt.NDArray[np.float32], label_N: npt.NDArray[np.int32]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    loss = functional.cross_entropy(torch.from_numpy(logit_NC), torch.from_numpy(label_N.astype(np.int64)))
    return float(loss), float((logit_NC.argmax(axis=1) == label_N).mean())
