"""Errors that a user can mend: one sentence that names the field, the rule and the value."""

from collections.abc import Collection


class InputError(ValueError):
    """Something that the user gave cannot be used; the message says what, and what would be accepted."""


def require_range(
    name: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Check that a number lies in an interval.

    Args:
        name: The field, as the user knows it.
        value: What was given.
        low: Lower end, or None for none.
        high: Upper end, or None for none.
        open_low: Leave the lower end itself out.
        open_high: Leave the upper end itself out.

    Raises:
        InputError: The value lies outside, or is not a number.

    >>> require_range("keep", 1.4, 0, 1, open_low=True)
    Traceback (most recent call last):
    secateur.errors.InputError: keep must be in (0, 1], got 1.4
    """
    above = low is None or (value > low if open_low else value >= low)
    below = high is None or (value < high if open_high else value <= high)
    if not (above and below):
        left = "(-inf" if low is None else f"{'(' if open_low else '['}{low:g}"
        right = "inf)" if high is None else f"{high:g}{')' if open_high else ']'}"
        raise InputError(f"{name} must be in {left}, {right}, got {value:g}")


def require_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that a name is one of those known.

    Raises:
        InputError: It is not.

    >>> require_choice("method", "best", ["full", "random"])
    Traceback (most recent call last):
    secateur.errors.InputError: method must be one of full, random, got 'best'
    """
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(sorted(choices))}, got {value!r}")
