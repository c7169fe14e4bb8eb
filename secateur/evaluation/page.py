"""What all pages share: how figures are written, and how a template becomes one self-contained HTML page."""

from pathlib import Path
from typing import Any

import jinja2
import numpy as np

SPACE = "\N{NO-BREAK SPACE}"


def percent(value: float | None, places: int = 1) -> str:
    """A fraction as a percentage; a dash for what is not defined.

    >>> percent(0.9642).replace(SPACE, " ")
    '96.4 %'
    """
    return "\N{EN DASH}" if value is None or np.isnan(value) else f"{100 * value:.{places}f}{SPACE}%"


def chance(value: float) -> str:
    """A probability as a percentage that never rounds to none or all.

    >>> chance(0.99999).replace(SPACE, " ")
    '> 99.9 %'
    """
    if value < 0.001:
        return f"<{SPACE}{percent(0.001)}"
    return f">{SPACE}{percent(0.999)}" if value > 0.999 else percent(value)


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(value: float) -> str:
    """A whole number with thousands set apart."""
    return f"{round(value):,}"


def render(template: str, **context: Any) -> str:
    """Fill a template of this folder; the same context gives the same text, and names from data are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, chance=chance, count=count)
    return environment.get_template(template).render(context)
