"""Whatever holds images, as the arrays that the compiled part takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._errors import BadInput


def as_images(images: Any, shape: list[int]) -> npt.NDArray[Any]:
    """Returns images as (n, ...) float32 inputs, or as float64 pixels if they are integers."""
    if hasattr(images, "detach") and hasattr(images, "cpu"):
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise BadInput("images have masked values: fill them in first")
    try:
        array = np.asarray(images)
    except (TypeError, ValueError) as e:
        raise BadInput(f"images must be an array, or make one of one shape: {e}") from None
    if array.shape == (0,):
        # A list without images.
        array = np.empty((0, *shape), np.float32)
    if array.dtype.kind not in "fiub":
        raise BadInput(f"images have the type {array.dtype}: floats (inputs) or integers (pixels, 0 to 255) are taken")
    wanted = tuple(shape)
    without_channel = wanted[1:] if len(wanted) > 1 and wanted[0] == 1 else None
    if array.shape == wanted or (without_channel is not None and array.shape == without_channel):
        array = array[np.newaxis]
    elif array.ndim != len(wanted) + 1 and not (without_channel is not None and array.shape[1:] == without_channel):
        raise BadInput(f"images have the shape {array.shape}, (n, {', '.join(map(str, wanted))}) is needed")
    if array.size == 0 and (array.shape[0] != 0 or array.shape[1:] not in (wanted, without_channel)):
        raise BadInput(f"images have the shape {array.shape}, (n, {', '.join(map(str, wanted))}) is needed")
    kind = np.float32 if array.dtype.kind == "f" else np.float64
    with np.errstate(over="ignore"):
        # Values beyond float32 become infinite, and are refused as such.
        return np.ascontiguousarray(array, dtype=kind)
