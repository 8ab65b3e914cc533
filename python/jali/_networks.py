"""Networks, plans and sealing: the owner's side of the keyed mode."""

from __future__ import annotations

import html
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

import numpy.typing as npt

from . import _jali
from ._arrays import as_images
from ._checks import PathLike, whole
from ._checks import path as _path
from ._errors import BadInput, FileFailure
from ._progress import bar
from ._roles import Client, Floats, Labels

if TYPE_CHECKING:
    from ._guests import SealedForGuests


class Network:
    """A trained network, with its weights. ``jali.load`` and ``jali.from_torch`` make it.

    >>> import jali
    >>> net = jali.samples.network("mnist")
    >>> net
    Network('mnist', input (1, 28, 28), 421408 weights)
    """

    def __init__(self, native: _jali.Network, name: Optional[str] = None) -> None:
        self._native = native
        self._name = name

    @property
    def name(self) -> str:
        """Its name."""
        return self._name or self._native.name

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image as the network takes it, without a batch: usually (channels, height, width)."""
        return tuple(self._native.input_shape)

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of its outputs, without a batch."""
        return [tuple(shape) for shape in self._native.output_shapes]

    @property
    def classes(self) -> Optional[int]:
        """How many classes its output names, if it names any."""
        return self._native.classes

    @property
    def weights(self) -> int:
        """Number of its weights, without biases."""
        return self._native.weights

    @property
    def layers(self) -> list[str]:
        """Names of its linear layers: those that the server computes."""
        return self._native.layers

    def inspect(self, link: Optional[str] = None) -> Inspection:
        """Says what will become of it: who computes what, bytes, and expected times with everything hidden.

        ``link`` is ``"lan"``, ``"wan"`` or ``"RTT,MBPS"`` (ms, Mbit/s), between client and server.
        """
        return Inspection(json.loads(self._native.inspect(link)))

    def read_images(self, path: Union[PathLike, list[PathLike]], limit: int = 1000) -> Floats:
        """Reads image files (PNG, JPEG, .npy) as inputs: (n, *input_shape), float32.

        ``path`` is a file, a folder, whose images are taken by name up to ``limit``, or a list of files.

        Raises ``BadInput`` for an image of another size, ``FileFailure`` for a file that cannot be read.
        """
        limit = whole("limit", limit, 1, 10_000_000)
        if isinstance(path, list):
            files = [_path("path", file) for file in path]
        elif _path("path", path).is_dir():
            inside = sorted(file for file in Path(path).rglob("*") if file.is_file())
            files = [Path(file) for file in _jali.images_among(inside)][:limit]
            if not files:
                raise FileFailure(f"{path}: it holds no images (PNG, JPEG, .npy)")
        else:
            files = [Path(path)]
        return self._native.read_images(files)

    def predict(self, images: Any) -> Labels:
        """Classes of images, computed here in the clear and in float: (n,) int64. To compare with."""
        return self._native.predict(as_images(images, self._native.input_shape))

    def outputs(self, images: Any) -> list[Floats]:
        """All outputs of images, computed here in the clear and in float: each (n, ...), float32."""
        return self._native.run(as_images(images, self._native.input_shape))

    def seal(
        self,
        calibration: Any,
        *,
        plan: Optional[Plan] = None,
        passphrase: Optional[str] = None,
        link: Optional[str] = None,
        progress: Optional[bool] = None,
    ) -> Sealed:
        """Quantises it to 8 bits with typical images, and seals it with fresh keys.

        calibration
            Typical images, (n, *input_shape), or a file or folder of them (``read_images``). A hundred are plenty.
        plan
            What may be open. Without it, everything is hidden.
        passphrase
            Locks the client's bundle when it is saved.
        link
            As for ``inspect``: fewer bytes and more work for a slow one.

        Raises ``BadInput``, ``UnsupportedModel``, ``OutOfMemory``.

        >>> import jali
        >>> net, (images, labels) = jali.samples.network("mnist"), jali.samples.images("mnist", 20)
        >>> client = net.seal(images).in_process()
        >>> bool((client.predict(images) == labels).mean() > 0.9)
        True
        """
        images = self._calibration(calibration)
        with bar(len(self.layers), "sealing", progress) as at:
            return Sealed(self._native.seal(images, _native(plan), passphrase, link, at))

    def seal_for_guests(
        self,
        calibration: Any,
        folder: PathLike,
        *,
        plan: Optional[Plan] = None,
        output: Literal["logits", "top1"] = "logits",
        passphrase: Optional[str] = None,
        link: Optional[str] = None,
    ) -> SealedForGuests:
        """Seals it for guests, who may use it and must not have it: writes ``folder/owner`` and ``folder/server``.

        output
            What guests learn of an output: all numbers, or the class alone (fewer bits a ticket).
        passphrase
            Locks the owner's file.
        plan, link
            As for ``seal``. Open means public: guests and the server have these weights.

        Raises ``UnsupportedModel`` with every node that guests cannot run.
        """
        from ._guests import SealedForGuests

        if output not in ("logits", "top1"):
            raise BadInput(f"output is {output!r}: \"logits\" or \"top1\"")
        images = self._calibration(calibration)
        bits, hidden = self._native.seal_for_guests(
            images, _path("folder", folder), _native(plan), output == "top1", passphrase, link
        )
        return SealedForGuests(Path(folder), bits, hidden)

    def _calibration(self, calibration: Any) -> npt.NDArray[Any]:
        if isinstance(calibration, (str, os.PathLike)):
            calibration = self.read_images(calibration)
        return as_images(calibration, self._native.input_shape)

    def __repr__(self) -> str:
        return f"Network({self.name!r}, input {self.input_shape}, {self.weights} weights)"


class Plan:
    """What may be open of a network: a permission for each weight. Everything else is hidden.

    >>> import jali
    >>> net = jali.samples.network("mnist")
    >>> jali.Plan.hide_last(net, 1)
    Plan(layers /convs.0/Conv, /convs.1/Conv, /fc1/Gemm: 99.7 % may be open)
    """

    def __init__(self, native: _jali.Plan) -> None:
        self._native = native

    @classmethod
    def hide_all(cls, net: Network) -> Plan:
        """Nothing may be open."""
        return cls(_jali.Plan.hide_all(_of(net)))

    @classmethod
    def open_all(cls, net: Network) -> Plan:
        """Everything may be open."""
        return cls(_jali.Plan.open_all(_of(net)))

    @classmethod
    def random_rows(cls, net: Network, fraction: float, seed: int = 0) -> Plan:
        """Random rows that hold this fraction of the weights may be open: what costs least per weight."""
        return cls(_jali.Plan.random_rows(_of(net), fraction, whole("seed", seed, 0, 2**64 - 1)))

    @classmethod
    def hide_last(cls, net: Network, layers: int) -> Plan:
        """The last linear layers are hidden, the others may be open."""
        return cls._open(net, _of(net).layers[: _count(net, layers, "hide_last")])

    @classmethod
    def hide_first(cls, net: Network, layers: int) -> Plan:
        """The first linear layers are hidden, the others may be open."""
        return cls._open(net, _of(net).layers[len(net.layers) - _count(net, layers, "hide_first") :])

    @classmethod
    def open_layers(cls, net: Network, names: list[str]) -> Plan:
        """The layers of these names may be open (``net.layers`` has them all)."""
        return cls._open(net, list(names))

    @classmethod
    def _open(cls, net: Network, names: list[str]) -> Plan:
        return cls(_jali.Plan.open_layers(_of(net), names))

    @classmethod
    def load(cls, path: PathLike, net: Network) -> Plan:
        """Reads a plan of this network, as ``save`` and ``jali plan`` write it.

        Raises ``BadInput`` for a plan of another network.
        """
        return cls(_jali.Plan.load(_path("path", path), _of(net)))

    def save(self, path: PathLike) -> None:
        """Writes it as JSON."""
        self._native.save(_path("path", path))

    @property
    def fraction_open(self) -> float:
        """Fraction of the weights that may be open, 0 to 1."""
        return self._native.fraction_open

    def __repr__(self) -> str:
        return repr(self._native)


def _count(net: Network, hidden: int, name: str) -> int:
    """How many layers are open."""
    return len(net.layers) - whole(f"{name}: layers", hidden, 0, len(net.layers))


def _native(plan: Optional[Plan]) -> Optional[_jali.Plan]:
    if plan is not None and not isinstance(plan, Plan):
        raise TypeError(f"plan must be a jali.Plan, not {type(plan).__name__}: Plan.load reads one from a file")
    return None if plan is None else plan._native


def _of(net: Network) -> _jali.Network:
    if not isinstance(net, Network):
        raise TypeError(f"net must be a jali.Network, not {type(net).__name__}: jali.load reads one from a file")
    return net._native


class Sealed:
    """A sealed network in memory: what the server gets, and what the client gets.

    Whoever has the client's part can recover the network. It cannot be pickled.
    """

    def __init__(self, native: _jali.Sealed) -> None:
        self._native = native

    @property
    def model_id(self) -> str:
        """Public id of the sealed network, 32 hexadecimal digits."""
        return self._native.model_id

    @property
    def fraction_hidden(self) -> float:
        """Fraction of the weights that are hidden, 0 to 1."""
        return self._native.fraction_hidden

    def save(self, folder: PathLike) -> str:
        """Writes ``folder/server`` (nothing in it is secret) and ``folder/client`` (its owner's alone).

        Returns the client's content hash: with ``Client(..., content_hash=...)`` no other file takes its place.
        """
        return self._native.save(_path("folder", folder))

    def in_process(self) -> Client:
        """Starts both sides in this process, and returns the client. The sealed network is gone then."""
        return Client._of(self._native.in_process())

    def __reduce__(self) -> Any:
        raise TypeError("a sealed network holds keys and cannot be pickled: save it, and open it where it is needed")

    def __repr__(self) -> str:
        return repr(self._native)


class Inspection:
    """What will become of a network: a table on a terminal and in a notebook, and its figures as ``data``.

    ``data`` has the fields of ``jali inspect --json``: docs/json.md describes them.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @property
    def supported(self) -> bool:
        """Whether it can be sealed."""
        return bool(self.data["supported"])

    def _rows(self) -> list[list[str]]:
        rows = []
        for node in self.data["nodes"]:
            layer = node.get("layer")
            shape = "x".join(map(str, node["output_shape"])) or "1"
            row = [node["name"], node["operator"], node["side"], shape]
            if layer is None:
                row += [""] * 5
            else:
                ms = layer["predicted_client_ms"] + layer["predicted_server_ms"]
                row += [str(layer["weights"]), *(_bytes(layer[k]) for k in ("sealed_bytes", "bytes_up", "bytes_down"))]
                row.append(f"{ms:.2f}")
            rows.append(row)
        return rows

    def _notes(self) -> list[str]:
        notes = []
        for what in ("everything_hidden", "everything_open"):
            totals = self.data.get(what)
            if totals:
                ms = totals["predicted_client_ms"] + totals["predicted_server_ms"] + totals["predicted_link_ms"]
                up, down = _bytes(totals["bytes_up"]), _bytes(totals["bytes_down"])
                notes.append(f"{what.replace('_', ' ')}: about {ms:.1f} ms an image, {up} up, {down} down")
        notes += [f"warning: {warning}" for warning in self.data["warnings"]]
        notes += [
            f"in the way: {o['node']} ({o['operator']}): {o['reason']}; what to do: {o['remedy']}"
            for o in self.data["offences"]
        ]
        return notes

    _HEADER = ("node", "operator", "side", "output", "weights", "sealed", "up", "down", "ms")

    def __str__(self) -> str:
        rows = [list(self._HEADER), *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self._HEADER))]
        lines = []
        for row in rows:
            cells = [c.ljust(w) if i < 4 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self._notes()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        def row(cells: Any, tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self._rows())
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._notes())
        return f"<table><thead>{row(self._HEADER, 'th')}</thead><tbody>{body}</tbody></table>{notes}"


def _bytes(n: int) -> str:
    if n < 1000:
        return f"{n} B"
    return f"{n / 1e3:.1f} kB" if n < 1_000_000 else f"{n / 1e6:.2f} MB"


def load(path: PathLike, *, preprocess: Optional[dict[str, Any]] = None) -> Network:
    """Reads a network from an ONNX file.

    preprocess
        How pixels (0 to 255) become inputs: ``mean``, ``std``, ``input_scale``, ``layout``, ``channels``, ``resize``,
        as docs/commands.md describes them. Without it, ``preprocess.json`` beside the file counts, or pixels are
        divided by 255. Arrays of floats are inputs already.

    Raises ``FileFailure``, and ``UnsupportedModel`` with every node that is in the way and what to do about it.
    """
    return Network(_jali.Network.open(_path("path", path), _json(preprocess)))


def _json(preprocess: Optional[dict[str, Any]]) -> Optional[str]:
    try:
        return None if preprocess is None else json.dumps(preprocess)
    except (TypeError, ValueError) as e:
        raise BadInput(f"preprocess: {e}: numbers, text and lists of them are taken") from None


def from_torch(
    module: Any,
    example: Any,
    *,
    name: str = "network",
    preprocess: Optional[dict[str, Any]] = None,
) -> Network:
    """Exports a PyTorch module through ONNX and reads it.

    module
        A ``torch.nn.Module``. Its mode (train or eval) is as before afterwards; it is exported in eval mode.
    example
        One input with a batch of any size, such as ``torch.zeros(1, 3, 32, 32)``.

    Raises ``UnsupportedModel`` for operators that jali does not run, ``ImportError`` without torch or onnx.
    """
    try:
        import onnx  # noqa: F401
        import torch
    except ImportError as e:
        raise ImportError(f"jali.from_torch needs torch and onnx ({e}): pip install 'jali[torch]'") from e
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    example = torch.as_tensor(example)[:1]
    training = module.training
    with tempfile.TemporaryDirectory(prefix="jali-") as folder:
        path = Path(folder) / "network.onnx"
        try:
            module.eval()
            with torch.no_grad():
                _export(torch, module, example, path)
        finally:
            module.train(training)
        return Network(_jali.Network.open(path, _json(preprocess)), name)


def _export(torch: Any, module: Any, example: Any, path: Path) -> None:
    """Writes an ONNX file with the exporter that needs nothing but torch, where there is one."""
    import inspect
    import warnings

    options: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"], "opset_version": 17}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with warnings.catch_warnings():
        # What the exporter says about itself is of no use to whoever called us.
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), str(path), **options)
