"""The client in Ray Data, and an audit as remote tasks. Needs Ray: ``pip install 'jali[ray]'``.

    import jali.ray, ray

    ds = ray.data.from_numpy(images)
    ds.map_batches(
        jali.ray.Predictor,
        fn_constructor_kwargs=dict(client="/secrets/sealed/client", url="https://host:8433"),
        batch_size=64,
        num_cpus=1,
        concurrency=2,
    )

Keys are read from each node's own path: only the path goes through Ray's object store. A block that is tried again is
masked anew, with fresh secrets.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from . import _jali
from ._errors import BadInput, Error, FileFailure
from ._checks import PathLike
from ._roles import Client

__all__ = ["Predictor", "audit"]


class Predictor:
    """Classifies batches: a callable class for ``Dataset.map_batches``.

    client
        Path of the client's bundle on every node.
    url, options
        As for ``jali.Client``: ``ca_cert``, ``token_file``, ``deadline``, ...
    column
        Where the images are: (n, *input_shape). Every other column is kept.
    output
        Name of the column for the classes, int64.
    probabilities
        Name of a column for the probabilities, (n, classes) float32, if they are wanted.
    passphrase_file
        A file on every node whose first line unlocks the bundle.
    """

    def __init__(
        self,
        client: PathLike,
        url: str,
        *,
        column: str = "data",
        output: str = "label",
        probabilities: Optional[str] = None,
        passphrase_file: Optional[PathLike] = None,
        **options: Any,
    ) -> None:
        cpus = _assigned_cpus()
        if cpus is not None:
            # One worker may come here several times: the number stays as it is then.
            _jali.set_threads(cpus)
        if passphrase_file is not None:
            options["passphrase"] = _first_line(Path(passphrase_file))
        self._client = Client(client, url, **options)
        self._column, self._output, self._probabilities = column, output, probabilities

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Adds a column of classes to a batch."""
        if self._column not in batch:
            raise BadInput(f"there is no column {self._column!r}, only {', '.join(batch)}: column names it")
        images = batch[self._column]
        if images.dtype == object:
            # What Ray gives for blocks of several shapes.
            images = np.stack(list(images))
        done = dict(batch)
        if self._probabilities is None:
            done[self._output] = self._client.predict(images)
        else:
            outputs = self._client.predict_proba(images)
            done[self._probabilities] = outputs
            done[self._output] = outputs.argmax(axis=1)
        return done


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise ImportError(f"jali.ray needs Ray ({e}): pip install 'jali[ray]'") from e
    return ray


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError as e:
        raise FileFailure(f"cannot read {path}: {e.strerror}") from None
    if not lines or not lines[0]:
        raise BadInput(f"{path}: its first line is empty")
    return lines[0]


def _assigned_cpus() -> Optional[int]:
    """The number of processors that Ray gave this worker, at least 1."""
    ray = _ray()
    context: Any = ray.get_runtime_context()
    resources = context.get_assigned_resources()
    cpus = resources.get("CPU")
    return None if cpus is None else max(1, int(cpus))


def audit(folder: PathLike, *, command: str = "jali-audit", num_cpus: float = 1) -> list[str]:
    """Runs the open cells of an audit as Ray tasks, one for each cell, and returns their names.

    folder
        A run that ``jali-audit run ... --prepare`` has begun, on a disk that every node sees.
    command
        The command ``jali-audit``, by name or path, on every node.
    num_cpus
        Processors for a cell; it computes with as many threads.

    A cell that has a result is never computed again, so a run that was interrupted goes on. ``jali-audit report`` makes
    table and page afterwards. Raises ``Error`` with what the command says if a cell fails.
    """
    ray = _ray()
    path, threads = str(Path(folder).resolve()), str(max(1, int(num_cpus)))

    @ray.remote(num_cpus=num_cpus)  # type: ignore[untyped-decorator]
    def cell(name: str) -> str:
        done = subprocess.run([command, "cell", name, "--out", path, "--threads", threads], capture_output=True, text=True)
        if done.returncode != 0:
            raise Error(f"cell {name}: {done.stderr.strip() or done.stdout.strip()}")
        return name

    listed = subprocess.run([command, "cells", "--list", "--out", path], capture_output=True, text=True)
    if listed.returncode != 0:
        raise Error(f"{path}: {listed.stderr.strip()}")
    names: list[str] = ray.get([cell.remote(name) for name in listed.stdout.split()])
    return names
