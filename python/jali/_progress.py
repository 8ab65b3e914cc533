"""Bars of progress, where tqdm is installed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Optional


@contextlib.contextmanager
def bar(total: int, what: str, show: Optional[bool] = None) -> Iterator[Optional[Callable[[int], None]]]:
    """Gives a function that takes the number of steps done, or nothing where no bar is shown.

    ``show=None`` shows one on a terminal or in a notebook, if tqdm is installed.
    """
    if show is False:
        yield None
        return
    try:
        with warnings.catch_warnings():
            # A notebook without widgets gets a bar of text, and need not hear of it.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        yield None
        return
    made: Any = tqdm(total=total, desc=what, disable=None if show is None else False, leave=False)

    def at(done: int) -> None:
        made.update(done - made.n)

    try:
        yield at
    finally:
        made.close()
