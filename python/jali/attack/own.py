"""A black box's own architecture: nine layers with residuals, as small as two cores can train in a minute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 24


def _conv(inputs: int, outputs: int, pools: bool = False) -> nn.Sequential:
    # Pairs of their own, as norm.fold finds them.
    pair = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
    return nn.Sequential(pair, nn.ReLU(), *([nn.MaxPool2d(2)] if pools else []))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), _conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def network(shape: list[int], classes: int, generator: torch.Generator) -> nn.Module:
    """A network for images of this shape, with random weights."""
    channels, height, width = shape
    net = nn.Sequential(
        _conv(channels, WIDTH),
        _conv(WIDTH, 2 * WIDTH, True),
        Residual(2 * WIDTH),
        _conv(2 * WIDTH, 4 * WIDTH, True),
        _conv(4 * WIDTH, 8 * WIDTH, True),
        Residual(8 * WIDTH),
        nn.MaxPool2d((height // 8, width // 8)),
        nn.Flatten(),
        nn.Linear(8 * WIDTH, classes),
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
    return net
