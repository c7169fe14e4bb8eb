"""The sentence beside a config's field, for everyone who shows it: KFP's input descriptions and `--help`."""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

FIELD = re.compile(r"^ {4}(\w+): .+?(?:\(\n.+?)?  # (.+)$", re.MULTILINE)


def sentences(config: type) -> dict[str, str]:
    """The comment beside each field of a config class, by the field's name."""
    found = dict(FIELD.findall(inspect.getsource(config)))
    return {field.name: found[field.name] for field in dataclasses.fields(config)}


def documented(*configs: type) -> Callable[[Function], Function]:
    """Describe those arguments of a function that are fields of configs, in its docstring, where KFP looks for them.

    Args:
        configs: Config classes; all their fields are arguments of the function.
    """

    def describe(function: Function) -> Function:
        text = inspect.getdoc(function) or ""
        head, _, arguments = text.partition("Args:\n")
        lines = [f"    {name}: {sentence}" for config in configs for name, sentence in sentences(config).items()]
        function.__doc__ = "\n".join([f"{head.rstrip()}\n\nArgs:", *lines, arguments])
        return function

    return describe
