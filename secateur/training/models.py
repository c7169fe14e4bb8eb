"""Classifiers by name: one small network of our own, and all of timm and torchvision."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateur.errors import InputError
from secateur.streams import stream_seed


class ConvNet(nn.Sequential):
    """Three convolutions with batch norm and a linear layer; for small pictures."""

    def __init__(self, classes: int, width: int = 32) -> None:
        def block(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]

        super().__init__(
            *block(3, width),
            *block(width, 2 * width),
            nn.MaxPool2d(2),
            *block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * width, classes),
        )


class Classifier(nn.Module):
    """A network behind the normalisation of its pictures: float32 (B, 3, H, W) in [0, 1] to logits (B, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        self.network, self.image_size = network, image_size
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))

    def forward(self, pictures_B3HW: Tensor) -> Tensor:
        """Classify."""
        logits: Tensor = self.network((pictures_B3HW - self.mean) / self.std)
        return logits


def make_network(name: str, classes: int, image_size: int, seed: int) -> Classifier:
    """Build a classifier with random weights that depend on the seed alone.

    Args:
        name: "convnet", a model of timm, or one of torchvision.
        classes: Number of logits.
        image_size: Pixels of a side that it is trained at.
        seed: Of the initialisation; the caller's random state is left as it was.

    Raises:
        InputError: No such model.
    """
    build = find_builder(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("initialisation", seed))
        return Classifier(build(classes), image_size)


def find_builder(name: str) -> Callable[[int], nn.Module]:
    """A function from the number of classes to a network."""
    if name == "convnet":
        return ConvNet
    import timm
    import torchvision

    if timm.is_model(name):
        return lambda classes: timm.create_model(name, num_classes=classes)
    if name in torchvision.models.list_models(module=torchvision.models):
        return lambda classes: torchvision.models.get_model(name, num_classes=classes)
    near = timm.list_models(f"*{name}*")[:5]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise InputError(f"model must be 'convnet' or a classifier of timm or torchvision, got {name!r}{hint}")
