"""All methods by name."""

from secateur.errors import require_choice
from secateur.pruning.adaptive import Adaptive
from secateur.pruning.baselines import Full, Random
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Method
from secateur.pruning.multimodal import Multimodal

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "random": Random,
    "adaptive": Adaptive,
    "multimodal": Multimodal,
}


def check_method(name: str) -> None:
    """Check that a method is known.

    Raises:
        InputError: It is not.
    """
    require_choice("method", name, METHODS)


def make_method(config: PruneConfig) -> Method:
    """The method that a configuration names."""
    check_method(config.method)
    return METHODS[config.method](config)
