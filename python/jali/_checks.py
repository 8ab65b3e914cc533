"""Checks of what people give, before the compiled part sees it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Optional, Union

from ._errors import BadInput

PathLike = Union[str, "os.PathLike[str]"]


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number within bounds."""
    try:
        number = int(value.__index__())
    except AttributeError:
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}") from None
    if not low <= number <= high:
        raise BadInput(f"{name} is {number}: {low} to {high} are possible")
    return number


def text(name: str, value: Any) -> str:
    """Text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, not {type(value).__name__}")
    return value


def seconds(name: str, value: Any) -> float:
    """A time, more than nothing."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None
    if math.isnan(number) or not 0 < number <= 1e9:
        raise BadInput(f"{name} is {number}: it must be a number of seconds above 0, at most 1e9")
    return number


def path(name: str, value: Any) -> Path:
    """A path."""
    if isinstance(value, (str, os.PathLike)) and not isinstance(os.fspath(value), bytes):
        if not os.fspath(value):
            raise BadInput(f"{name} is an empty path")
        return Path(value)
    raise TypeError(f"{name} must be a path, not {type(value).__name__}")


def maybe_path(name: str, value: Any) -> Optional[Path]:
    """A path, or nothing."""
    return None if value is None else path(name, value)
