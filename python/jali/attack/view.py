"""What an attacker sees, and the copy that it makes of it."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx2torch import convert
from torch import Tensor, nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LINEAR = (nn.Conv2d, nn.Linear)


def linear_layers(network: nn.Module) -> list[nn.Module]:
    """The convolutions and fully connected layers, in their order."""
    return [m for m in network.modules() if isinstance(m, LINEAR)]


@dataclass
class Layer:
    """What is known of a linear layer: weights, where `hidden` is False, and what each row can hold at most."""

    hidden: Tensor
    limit: Tensor


@dataclass
class View:
    """The folder that `jali-audit` made.

    `layers` are those of `network`, or of `suffix` behind an open `prefix` if the attacker is a guest. A guest has no
    `labels` and `logits`, they are empty: it asks.
    """

    folder: Path
    task: dict[str, Any]
    network: nn.Module
    prefix: nn.Module | None
    layers: list[Layer]
    images: Tensor
    labels: Tensor
    logits: Tensor

    @classmethod
    def read(cls, folder: str | Path) -> View:
        """Reads a view; open weights are in the network, hidden ones are zero until they are filled."""
        folder = Path(folder)
        task = json.loads((folder / "task.json").read_text())
        is_guest = "guests" in task
        network = convert(onnx.load(folder / ("suffix.onnx" if is_guest else "view.onnx")))
        prefix = convert(onnx.load(folder / "prefix.onnx")).eval() if (folder / "prefix.onnx").exists() else None
        masks, limits = np.load(folder / "mask.npz"), np.load(folder / "scales.npz")
        first = len(task["layers"]) - len(linear_layers(network))
        layers = []
        for index, module in enumerate(linear_layers(network), first):
            hidden = torch.from_numpy(masks[str(index)]).bool().view_as(module.weight)
            limit = torch.from_numpy(limits[str(index)]).view(-1, *[1] * (module.weight.dim() - 1))
            layers.append(Layer(hidden, limit))
            module.weight.data[hidden] = 0.0
        array = lambda name: torch.from_numpy(np.load(folder / name)) if (folder / name).exists() else torch.empty(0)
        images = array("images.npy")
        return cls(folder, task, network, prefix, layers, images, array("labels.npy"), array("logits.npy"))

    @property
    def seed(self) -> int:
        return self.task["seed"]

    @property
    def guests(self) -> dict[str, Any]:
        """What a guest is told; empty for an attacker that is none."""
        return self.task.get("guests", {})

    @property
    def is_black_box(self) -> bool:
        """Whether no weight is open; a prefix may hold none."""
        is_bare = self.prefix is None or not linear_layers(self.prefix)
        return is_bare and all(layer.hidden.all() for layer in self.layers)

    @property
    def open_share(self) -> float:
        count = sum(layer.hidden.numel() for layer in self.layers)
        return sum((~layer.hidden).sum().item() for layer in self.layers) / max(1, count)

    def copy(self, network: nn.Module) -> Copy:
        """A copy of the victim: a network behind the open prefix, if there is one."""
        return Copy(network, self.prefix, self.task["input"])


@dataclass
class Copy:
    """What an attacker ends with."""

    network: nn.Module
    prefix: nn.Module | None
    input: list[int]

    def save(self, path: str) -> None:
        whole = self.network if self.prefix is None else nn.Sequential(self.prefix, self.network)
        whole = copy.deepcopy(whole).to("cpu", memory_format=torch.contiguous_format).eval()
        # Through another name, so that there never is half a copy.
        torch.onnx.export(whole, torch.zeros(1, *self.input), path + ".part", dynamo=False)
        Path(path + ".part").rename(path)
