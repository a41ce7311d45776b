"""Check what Python callers pass: one line of TypeError or ValueError, before anything is computed."""

from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Integral, Real
from typing import Any


def as_lines(lines: Iterable[str], name: str = "lines") -> list[str]:
    """Return any iterable of strings (a generator, a file, an array, a pandas Series) as a list, without line ends.

    Errors: TypeError for a lone string, which would be read letter by letter, for a mapping or a table, whose keys or
    column names would be read, and for an element that is no string, a missing value among them.
    """
    if isinstance(lines, str):
        raise TypeError(f"{name}: is one string, which would be read letter by letter; pass a list of strings")
    if isinstance(lines, (bytes, Mapping)) or getattr(lines, "ndim", 1) != 1:
        raise TypeError(f"{name}: must be an iterable of strings, not {type(lines).__name__}")
    try:
        strings = iter(lines)
    except TypeError:
        raise TypeError(f"{name}: must be an iterable of strings, not {type(lines).__name__}") from None
    checked = []
    for row, line in enumerate(strings):
        if not isinstance(line, str):
            raise TypeError(f"{name}[{row}]: must be a string, not {type(line).__name__} ({line!r:.40})")
        checked.append(line.removesuffix("\n"))
    return checked


def as_count(value: Any, name: str, *, least: int = 1) -> int:
    """Return an integer, NumPy's too, as int. Errors: TypeError for all else, bool too; ValueError below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r:.40}: must be an integer, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}={value}: must be at least {least}")
    return int(value)


def as_number(value: Any, name: str, *, positive: bool = False) -> float:
    """Return a real number as float. Errors: TypeError for all else; ValueError unless it is finite and at least 0.

    positive: 0 is refused too.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r:.40}: must be a number, not {type(value).__name__}")
    number = float(value)
    if not isfinite(number) or number < 0 or positive and number == 0:
        raise ValueError(f"{name}={number}: must be finite and {'greater than' if positive else 'at least'} 0")
    return number
