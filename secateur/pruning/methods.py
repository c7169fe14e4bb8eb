"""All methods by name: the built-in ones, and those that other distributions bring.

A distribution brings one by an entry point in the group `secateur.methods`, from the name to a subclass of `Method`.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract, isclass

from secateur.errors import InputError, require_choice
from secateur.pruning.adaptive import Adaptive
from secateur.pruning.baselines.chance import Full, Random, RandomAnnealed, StaticRandom
from secateur.pruning.baselines.clip import ClipThreshold, GateRandom, RelabelFull, RelabelRandom
from secateur.pruning.baselines.confident import Confident
from secateur.pruning.baselines.difficulty import El2n, Forgetting, Hardest, Proxy
from secateur.pruning.baselines.infobatch import InfoBatch
from secateur.pruning.baselines.seta import SeTa
from secateur.pruning.config import PruneConfig
from secateur.pruning.method import Method
from secateur.pruning.multimodal import Multimodal
from secateur.pruning.released import AdaptiveReleased

METHODS: dict[str, type[Method]] = {
    "full": Full,
    "random": Random,
    "random-annealed": RandomAnnealed,
    "static-random": StaticRandom,
    "clip-threshold": ClipThreshold,
    "hardest": Hardest,
    "el2n": El2n,
    "forgetting": Forgetting,
    "infobatch": InfoBatch,
    "seta": SeTa,
    "proxy": Proxy,
    "confident": Confident,
    "gate-random": GateRandom,
    "relabel-random": RelabelRandom,
    "relabel-full": RelabelFull,
    "adaptive": Adaptive,
    "adaptive-released": AdaptiveReleased,
    "multimodal": Multimodal,
}


GROUP = "secateur.methods"


@cache
def brought() -> tuple[EntryPoint, ...]:
    """The entry points of other distributions, by name; nothing of theirs is imported."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: entry.name))


def find_method(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        InputError: No such method, two of that name, or one of another distribution that is broken.
    """
    theirs = [entry for entry in brought() if entry.name == name]
    require_choice("method", name, {*METHODS, *(entry.name for entry in brought())})
    if not theirs:
        return METHODS[name]
    if name in METHODS or len(theirs) > 1:
        other = "a built-in method" if name in METHODS else owner(theirs[0])
        raise InputError(f"method {name!r} of {owner(theirs[-1])} must have a name of its own, got that of {other}")
    return load(theirs[0])


def load(entry: EntryPoint) -> type[Method]:
    """Import a method of another distribution.

    Raises:
        InputError: It cannot be imported, or is no method.
    """
    says = f"method {entry.name!r} of {owner(entry)} must"
    try:
        found = entry.load()
    except Exception as error:  # whatever goes wrong in code that is not ours
        raise InputError(f"{says} be importable, got {type(error).__name__}: {error}") from error
    if not isclass(found) or not issubclass(found, Method) or isabstract(found):
        raise InputError(f"{says} be a subclass of Method with `select`, got {found!r}")
    for field in ("summary", "paper"):
        if not isinstance(getattr(found, field, None), str):
            raise InputError(f"{says} have a text in `{field}`, got {getattr(found, field, None)!r}")
    return found


def owner(entry: EntryPoint) -> str:
    """Name and version of the distribution that brings a method."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def all_methods() -> tuple[dict[str, type[Method]], list[str]]:
    """Every method by name, and for those of other distributions that cannot be used a sentence that says why."""
    found, errors = dict(METHODS), []
    for name in dict.fromkeys(entry.name for entry in brought()):
        try:
            found[name] = find_method(name)
        except InputError as error:
            errors.append(str(error))
    return found, errors


def check_method(name: str) -> None:
    """Check that a method is known and can be used.

    Raises:
        InputError: It is not.
    """
    find_method(name)


def make_method(config: PruneConfig) -> Method:
    """The method that a configuration names.

    Raises:
        InputError: It is not known, or cannot be used.
    """
    return find_method(config.method)(config)
