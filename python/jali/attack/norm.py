"""Batch normalisation behind every linear layer but the last while a copy is trained, folded into it afterwards."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .view import LINEAR, Layer

# Most spreads that a unit's mean may lie away from where it switches, if weights of it are missing.
REACH = 1.0


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    *path, leaf = name.split(".")
    for part in path:
        network = getattr(network, part)
    setattr(network, leaf, module)


@torch.no_grad()
def insert(network: nn.Module, layers: list[Layer], inputs: Tensor, first: int = 0) -> None:
    """Inserts normalisations that leave open rows' outputs on `inputs` as they are, from the layer `first` on.

    Rows of which most is hidden get the scale and the shift that are usual among the layer's open rows.
    """
    named = [(name, m) for name, m in network.named_modules() if isinstance(m, LINEAR)]
    network.eval()
    for (name, module), layer in list(zip(named, layers))[first:-1]:
        outputs: list[Tensor] = []
        hook = module.register_forward_hook(lambda _m, _i, out, to=outputs: to.append(out))
        network(inputs)
        hook.remove()
        out = outputs[0].float()
        over = (0, 2, 3) if out.dim() == 4 else (0,)
        kind = nn.BatchNorm2d if isinstance(module, nn.Conv2d) else nn.BatchNorm1d
        norm = kind(out.shape[1]).to(out.device)
        mean, var = out.mean(over), out.var(over, unbiased=False)
        gain, shift = (var + norm.eps).sqrt(), mean.clone()
        hidden = (layer.hidden.flatten(1).float().mean(1) > 0.5).to(out.device)
        if hidden.any():
            gain[hidden] = gain[~hidden].median() if (~hidden).any() else 1.0
            shift[hidden] = shift[~hidden].median() if (~hidden).any() else 0.0
        # What is hidden is missing in the spread: units that seem to be always on or off are not.
        partly = (layer.hidden.flatten(1).any(1)).to(out.device) & ~hidden
        gain = torch.where(partly, torch.maximum(gain, shift.abs() / REACH), gain)
        norm.weight.data, norm.bias.data = gain, shift
        norm.running_mean, norm.running_var = mean, var
        _replace(network, name, nn.Sequential(module, norm))


def fold(network: nn.Module) -> nn.Module:
    """The same network without normalisations."""
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.modules.batchnorm._BatchNorm):
            fuse = fuse_conv_bn_eval if isinstance(module[0], nn.Conv2d) else fuse_linear_bn_eval
            _replace(network, name, fuse(module[0], module[1]))
    return network
