"""The options of `secateur run` and `inspect`: one for each field of each config, made from the config itself."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar

import typer

from secateur.components.settings import sentences
from secateur.dataset.sources import IngestConfig
from secateur.errors import InputError
from secateur.pruning.config import PruneConfig
from secateur.records.publishing import PublishConfig
from secateur.semantics.config import ClipConfig
from secateur.training.config import TrainConfig

Config = TypeVar("Config")

PANELS: dict[str, type] = {
    "Data": IngestConfig,
    "CLIP": ClipConfig,
    "Training": TrainConfig,
    "Pruning": PruneConfig,
    "Where": PublishConfig,
}


def option(name: str, kind: Any, default: Any, text: str, panel: str) -> inspect.Parameter:
    """A keyword argument that Typer shows as an option."""
    annotation = Annotated[kind, typer.Option(help=text, rich_help_panel=panel)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_config_options(
    command: Callable[..., None], panels: Mapping[str, type] = PANELS, without: Collection[str] = ()
) -> Callable[..., None]:
    """Give a command an option for each field of all configs; it gets them in its `**settings`.

    A field that holds several values is an option with commas between them.

    Args:
        command: What to call.
        panels: The configs, by the heading that `--help` has above their options.
        without: Fields that get no option.
    """
    made = []
    for panel, config in panels.items():
        texts, kinds = sentences(config), typing.get_type_hints(config)
        for field in (f for f in dataclasses.fields(config) if f.name not in without):
            kind, default = kinds[field.name], field.default
            if isinstance(default, tuple):
                kind, default = str, ",".join(map(str, default))
            made.append(option(field.name, kind, default, texts[field.name], panel))
    own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters = [*made, *(p.replace(kind=p.KEYWORD_ONLY) for p in own)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def build(config: type[Config], settings: dict[str, Any]) -> Config:
    """Build a config from the options.

    Raises:
        InputError: A value that the config does not take.
    """
    values = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = settings[field.name]
        values[field.name] = whole_numbers(field.name, value) if isinstance(field.default, tuple) else value
    return config(**values)


def names(text: str) -> list[str]:
    """Split a list at its commas.

    >>> names("full, random,")
    ['full', 'random']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Read a list of whole numbers.

    Raises:
        InputError: Something in it is none.
    """
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise InputError(f"{name} must be whole numbers with commas between them, got {text!r}") from None
