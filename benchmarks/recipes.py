"""Recipes: a network, its optimisation, and how many epochs ordinary training has. The loop is the library's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from secateur.dataset.loader import Pictures
from secateur.streams import stream_seed
from secateur.training.config import TrainConfig
from secateur.training.models import Classifier, ConvNet


@dataclass(frozen=True)
class Recipe:
    """How every arm trains."""

    name: str
    build: Callable[[int], nn.Module]  # from the number of classes to a network on normalised pictures
    proxy: Callable[[int], nn.Module]  # the small network of the proxy filter
    train: TrainConfig
    epochs: int  # of ordinary training, warm-up included
    size: int  # pixels of a side
    compiled: bool = False


WHITENED_PICTURES = 2000
WHITENED_SCALE = 0.5


def forward_flops(recipe: Recipe, classes: int, proxy: bool = False) -> int:
    """Floating-point operations of one picture's way forward; a step takes three times that."""
    network = (recipe.proxy if proxy else recipe.build)(classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, recipe.size, recipe.size))
    return int(counter.get_total_flops())


class Scaled(nn.Linear):
    """A linear layer without bias whose output is scaled down, so that early logits do not saturate."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.scale = scale

    def forward(self, value_BD: Tensor) -> Tensor:
        """Logits."""
        return self.scale * super().forward(value_BD)


def conv_block(inputs: int, outputs: int, pool: bool) -> list[nn.Module]:
    """Convolution, pooling where wanted, batch norm, ReLU."""
    pooling = [nn.MaxPool2d(2)] if pool else []
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        *pooling,
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def small_convnet(classes: int, widths: Sequence[int] = (32, 64, 128, 128), scale: float = 0.15) -> nn.Module:
    """Four convolutions, the first over 4x4 patches at stride 2: the quickest that learns CIFAR-10 well on a CPU."""
    stem, *rest = widths
    return nn.Sequential(
        nn.Conv2d(3, stem, 4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        *conv_block(stem, rest[0], pool=True),
        *conv_block(rest[0], rest[1], pool=False),
        *conv_block(rest[1], rest[2], pool=True),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        Scaled(rest[2], classes, scale),
    )


def tiny_convnet(classes: int) -> nn.Module:
    """The same at about a quarter of the work."""
    return small_convnet(classes, (16, 32, 64, 64))


def cifar_resnet18(classes: int) -> nn.Module:
    """ResNet-18 whose stem keeps the resolution of small pictures."""
    import torchvision

    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


CPU = TrainConfig(
    augment="shift-flip", warmup_epochs=1, batch_size=256, learning_rate=0.4, weight_decay=5e-4, precision="bf16"
)
GPU = TrainConfig(augment="shift-flip", warmup_epochs=1, batch_size=512, learning_rate=0.4, weight_decay=5e-4)
DIGITS = TrainConfig(warmup_epochs=1, precision="fp32")

RECIPES = {
    "digits": Recipe("digits", ConvNet, lambda classes: ConvNet(classes, width=8), DIGITS, 16, 8),
    "cpu": Recipe("cpu", small_convnet, tiny_convnet, CPU, 16, 32),
    "gpu": Recipe("gpu", cifar_resnet18, small_convnet, GPU, 30, 32, compiled=True),
}


@torch.no_grad()
def whiten(conv: nn.Conv2d, pictures_B3HW: Tensor) -> None:
    """Set a convolution to the principal components of picture patches, at equal variance, each in both signs."""
    side, half = conv.kernel_size[0], conv.out_channels // 2
    patch_BDL = functional.unfold(pictures_B3HW, side, stride=conv.stride, padding=conv.padding)
    patch_PD = patch_BDL.transpose(1, 2).flatten(0, 1)
    variance_D, component_DD = torch.linalg.eigh(torch.cov(patch_PD.T))
    filters = (component_DD.T / (variance_D + 1e-3).sqrt()[:, None]).flip(0)[:half]
    filters = WHITENED_SCALE * filters.reshape(half, 3, side, side)
    conv.weight.copy_(torch.cat([filters, -filters]))
    assert conv.bias is not None
    conv.bias.zero_()


def make_network(recipe: Recipe, classes: int, pictures: Pictures, seed: int, proxy: bool = False) -> nn.Module:
    """A network with random weights that depend on the seed alone, and a stem that depends on the pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("initialisation", seed))
        network = Classifier((recipe.proxy if proxy else recipe.build)(classes), recipe.size)
    stem = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    if stem.bias is not None:  # of the small networks; no label is read
        first = next(pictures.batches([np.arange(min(WHITENED_PICTURES, len(pictures.decoded)))]))
        whiten(stem, (first.cpu().float() / 255 - network.mean) / network.std)
    if recipe.compiled and torch.cuda.is_available():
        network.compile()
    return network
