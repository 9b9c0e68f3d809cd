"""What the value of a key must be: each check returns the value as it is kept, or says what is wrong."""

import math
from collections.abc import Callable
from dataclasses import field
from itertools import pairwise


def a_text(value):
    """Check a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return value


def a_texts(value):
    """Check a text, or a list of them."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError('must be a text or a list of texts, such as ["flux_*"]')
    return tuple(map(a_text, values))


def a_flag(value):
    """Check a truth value."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def a_number(low=-math.inf, high=math.inf, *, above=False, integer=False) -> Callable:
    """Check a number within [low, high], above `low` where it is strict."""
    bounds = [f"above {low:g}" if above else f"at least {low:,g}"] if low > -math.inf else []
    bounds += [f"at most {high:,g}"] if high < math.inf else []
    words = f"must be {'an integer' if integer else 'a number'} {' and '.join(bounds)}".rstrip()

    def check(value):
        right = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
        if not (right and math.isfinite(value) and low <= value <= high) or (above and value == low):
            raise ValueError(words)
        return value if integer else float(value)

    return check


def a_list(each: Callable, *, distinct=False, increasing=False) -> Callable:
    """Check every item of a list that is not empty."""

    def check(value):
        if not isinstance(value, (list, tuple)) or not value:
            raise ValueError("must be a list that is not empty")
        values = tuple(map(each, value))
        if distinct and len(set(values)) < len(values):
            raise ValueError("names a value twice")
        if increasing and any(after <= before for before, after in pairwise(values)):
            raise ValueError("must increase")
        return values

    return check


def a_wave(value):
    """Check wavelengths, or where they are."""
    return a_text(value) if isinstance(value, str) else a_list(a_number(), increasing=True)(value)


def key(default, check):
    """Make a field of a section, with the check of its value."""
    return field(default=default, metadata={"check": check})
