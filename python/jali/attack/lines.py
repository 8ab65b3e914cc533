"""Hidden weights of a last layer by least squares: logits are lines in them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from . import fills
from .training import predict
from .view import View, linear_layers


def unknowns(view: View) -> int:
    """The most hidden weights of one row of the last layer."""
    return int(view.layers[-1].hidden.flatten(1).sum(1).max())


@torch.no_grad()
def is_affine_end(view: View) -> bool:
    """Whether all that is hidden is in a fully connected last layer without a kink behind it."""
    *before, _last = view.layers
    *_, module = linear_layers(view.network)
    if any(layer.hidden.any() for layer in before) or not isinstance(module, nn.Linear):
        return False
    # With twice the weights and no bias, twice the logits.
    trial = copy.deepcopy(view)
    fills.statistics(trial, torch.Generator().manual_seed(0))
    *_, module = linear_layers(trial.network)
    module.bias.data.zero_()
    inputs = view.images[:4] if view.prefix is None else torch.rand(4, *view.guests["shape"])
    once = predict(trial.network, inputs)
    module.weight.data *= 2.0
    return torch.allclose(predict(trial.network, inputs), 2.0 * once, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def solve(view: View, inputs: Tensor, logits: Tensor) -> bool:
    """Replaces the hidden weights; where there are too few equations, by those that change least. Says whether they are
    all known now."""
    *_, module = linear_layers(view.network)
    hidden = view.layers[-1].hidden
    # Behind a softmax logits are known up to a sum: rows can be solved for one by one if nothing of them is fixed.
    if logits.mean(1).abs().max() < 1e-3:
        if not hidden.all():
            return False
        module.bias.data -= module.bias.data.mean()
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().double().cpu()))
    got = predict(view.network, inputs).double()
    hook.remove()
    features, rest = torch.cat(seen), logits.double() - got
    for row, unknown in enumerate(hidden):
        if unknown.any():
            # Directions that hardly occur would only carry rounding errors.
            change = torch.linalg.lstsq(features[:, unknown], rest[:, row], rcond=1e-6, driver="gelsd").solution
            module.weight.data[row, unknown] += change.float()
    return len(inputs) > unknowns(view)
