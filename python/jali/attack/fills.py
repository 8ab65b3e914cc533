"""What stands where a weight is hidden before anything is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .view import Layer, View, linear_layers

# Open weights of a layer from which its spread can be estimated.
ENOUGH = 32


def zeros(view: View) -> None:
    for module, layer in zip(linear_layers(view.network), view.layers):
        module.weight.data[layer.hidden] = 0.0


def statistics(view: View, generator: torch.Generator) -> None:
    """Normal draws with the spread of the layer's open weights, relative to what each row can hold at most.

    Where single weights of the largest magnitude are hidden, they exceed every open one: magnitudes are drawn between
    the largest open weight and the row's limit, signs at random.
    """
    threshold = 0.0
    if view.task["policy"] == "magnitude-weights":
        known = [m.weight.data[~layer.hidden].abs() for m, layer in zip(linear_layers(view.network), view.layers)]
        threshold = max((w.max().item() for w in known if w.numel()), default=0.0)
    for module, layer in zip(linear_layers(view.network), view.layers):
        weight = module.weight.data
        normal = torch.randn(weight.shape, generator=generator)
        if threshold > 0:
            upper = torch.clamp(layer.limit - threshold, min=0.0)
            tail = torch.rand(weight.shape, generator=generator) ** 2
            draw = torch.copysign(threshold + upper * tail, normal)
        else:
            draw = normal * spread(weight, layer) * layer.limit
            draw = torch.maximum(torch.minimum(draw, layer.limit), -layer.limit)
        weight[layer.hidden] = draw[layer.hidden]


def spread(weight: Tensor, layer: Layer) -> float:
    """Standard deviation of a layer's weights in parts of their row's limit."""
    relative = (weight / layer.limit.clamp_min(1e-30))[~layer.hidden]
    if relative.numel() >= ENOUGH:
        return relative.square().mean().sqrt().item()
    # The largest of n normal values is expected near sqrt(2 ln n) standard deviations.
    return 1.0 / math.sqrt(2.0 * math.log(max(weight[0].numel(), 2)))


def sparse(view: View, generator: torch.Generator) -> None:
    """Zeros in rows that are partly open, draws in rows of which nothing is known: those would be dead otherwise."""
    statistics(view, generator)
    for module, layer in zip(linear_layers(view.network), view.layers):
        partly = ~layer.hidden.flatten(1).all(1).view(-1, *[1] * (module.weight.dim() - 1))
        module.weight.data[layer.hidden & partly] = 0.0
