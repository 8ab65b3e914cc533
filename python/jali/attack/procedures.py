"""What an attacker does with a view: the procedures of `jali-audit`, by name."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from . import fills, lines, norm, own, span
from .training import Recipe, Targets, fit, predict
from .view import Copy, View, linear_layers

DRAWS = 16


def attack(view: View, effort: float = 1.0) -> Copy:
    """Runs the procedure that the task names."""
    name = view.task["attacker"]
    if name not in PROCEDURES:
        raise SystemExit(f'jali.attack has no attacker "{name}"; it has {", ".join(sorted(PROCEDURES))}')
    return view.copy(PROCEDURES[name](view, effort))


def recipe(view: View, effort: float, **changes: Any) -> Recipe:
    """How long and how fast copies are trained, by the number of images."""
    count = max(1, len(view.images))
    passes, batch = (15_000, 10) if count <= 100 else (40_000, 25) if count <= 1_000 else (20 * count, 50)
    colours = view.images.dim() == 4 and view.images.shape[1] == 3
    usual = {"shift": 4 if colours else 2, "mirrors": colours, "hole": 8 if colours else 0}
    decay = 5e-3 if count <= 1_000 else 2e-3
    usual = {"rate": 0.05, "decay": decay, "pull": 0.05, **usual, **changes}
    return Recipe(passes=int(passes * effort), batch=batch, **usual)


def labels(view: View) -> Targets:
    return Targets(view.labels)


def logits(view: View) -> Targets:
    return Targets(view.labels, view.logits)


def generator(view: View, draw: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(view.seed * DRAWS + draw)


def zero(view: View, _effort: float) -> nn.Module:
    fills.zeros(view)
    return view.network


def statistics(view: View, _effort: float) -> nn.Module:
    fills.statistics(view, generator(view))
    return view.network


def best_of(view: View, _effort: float) -> nn.Module:
    """The best of zeros and several draws on the images."""
    best, most = view.network, -1
    for draw in range(DRAWS):
        if draw == 0:
            fills.zeros(view)
        else:
            fills.statistics(view, generator(view, draw))
        right = (predict(view.network, view.images).argmax(1) == view.labels).sum().item()
        if right > most:
            best, most = copy.deepcopy(view.network), right
    return best


def trained(view: View, effort: float, targets: Targets, keeps: bool = False, **changes: Any) -> nn.Module:
    """Normalises, trains, folds. `keeps` the layers in front of the first with anything hidden exactly as they are."""
    network = view.network
    if len(view.images) < 2:
        return network
    first = next((i for i, layer in enumerate(view.layers) if layer.hidden.any()), 0) if keeps else 0
    for module in linear_layers(network)[:first]:
        module.requires_grad_(False)
    norm.insert(network, view.layers, view.images[:256], first)
    fit(network, view.layers, view.images, targets, recipe(view, effort, **changes), view.seed)
    return norm.fold(network)


def tune_hidden(view: View, effort: float) -> nn.Module:
    fills.sparse(view, generator(view))
    return trained(view, effort, labels(view), freezes=True, mixes=0.4)


def tune_all(view: View, effort: float) -> nn.Module:
    fills.sparse(view, generator(view))
    return trained(view, effort, labels(view), mixes=0.4)


def distil(view: View, effort: float) -> nn.Module:
    """On logits. A hidden last layer behind an open network is solved for; where rows of a layer are hidden and others
    open, the hidden ones are combinations of those first."""
    fills.sparse(view, generator(view))
    if len(view.images) < 2:
        return view.network
    if lines.is_affine_end(view):
        # As many equations as unknowns leave nothing to train.
        if lines.solve(view, view.images, view.logits):
            return view.network
    span.fit(view, logits(view), recipe(view, effort), generator(view))
    return trained(view, effort, logits(view), keeps=True)


def own_network(view: View, effort: float, images: Tensor | None = None, targets: Targets | None = None) -> nn.Module:
    network = own.network(view.task["input"], view.task["classes"], generator(view))
    images, targets = (view.images, logits(view)) if images is None or targets is None else (images, targets)
    mixes = 0.4 if targets.logits is None else 0.0
    fit(network, [], images, targets, recipe(view, effort, mixes=mixes), view.seed)
    return norm.fold(network)


def any_of(view: View, effort: float) -> nn.Module:
    """What a fifth of the images says is best, trained again on all of them."""
    names = ["zero", "best-of", "tune-hidden", "tune-all", "distil"] + (["own"] if view.is_black_box else [])
    if len(view.images) < 10:
        return statistics(view, effort)
    kept = max(2, len(view.images) // 5)
    scores = {}
    for name in names:
        trial = copy.deepcopy(view)
        trial.images, trial.labels, trial.logits = view.images[:-kept], view.labels[:-kept], view.logits[:-kept]
        said = predict(PROCEDURES[name](trial, effort / 4), view.images[-kept:]).argmax(1)
        scores[name] = (said == view.labels[-kept:]).sum().item()
    return PROCEDURES[max(scores, key=lambda name: scores[name])](view, effort)


PROCEDURES = {
    "zero": zero,
    "statistics": statistics,
    "best-of": best_of,
    "tune-hidden": tune_hidden,
    "tune-all": tune_all,
    "distil": distil,
    "span": distil,
    "own": own_network,
    "command": any_of,
}
