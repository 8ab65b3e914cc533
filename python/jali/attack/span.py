"""Hidden weights as combinations of what the layer's other rows have open in the same place.

Where hidden rows depend on open ones, a handful of coefficients is unknown instead of all weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .training import CASTS, LOW, Recipe, Targets
from .view import DEVICE, View, linear_layers


class Combination(nn.Module):
    """The weights of a layer: known ones, and a trained matrix times those in the place of the others."""

    def __init__(self, weight: Tensor, hidden: Tensor, generator: torch.Generator):
        super().__init__()
        rows = weight.shape[0]
        self.register_buffer("hidden", hidden)
        self.register_buffer("open", torch.where(hidden, torch.zeros_like(weight), weight))
        self.matrix = nn.Parameter(torch.randn(rows, rows, generator=generator) / rows**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        mixed = (self.matrix @ self.open.flatten(1)).view_as(self.open)
        return weight + torch.where(self.hidden, mixed, torch.zeros_like(mixed))


def fit(view: View, targets: Targets, recipe: Recipe, generator: torch.Generator) -> None:
    """Trains the combinations alone, and leaves them as the network's weights."""
    matrices = []
    for module, layer in zip(linear_layers(view.network), view.layers):
        whole = layer.hidden.flatten(1).all(1)
        if whole.any() and not whole.all():
            combination = Combination(module.weight.data, layer.hidden, generator)
            parametrize.register_parametrization(module, "weight", combination)
            matrices.append(combination.matrix)
    if not matrices:
        return
    optimiser = torch.optim.Adam(matrices, lr=2e-2)
    count = len(view.images)
    batch = min(recipe.batch, count)
    steps = max(1, recipe.passes // 4 // batch)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    view.network.to(DEVICE, memory_format=torch.channels_last).eval()
    for _ in range(steps):
        chosen = torch.randint(count, (batch,), generator=generator)
        with torch.autocast(DEVICE.type, dtype=LOW, enabled=CASTS):
            got = view.network(view.images[chosen].to(DEVICE))
        loss = targets.loss(got.float().cpu(), chosen)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(matrices, 5.0)
        optimiser.step()
        rates.step()
    view.network.to("cpu")
    for module in linear_layers(view.network):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
