"""Training of a copy: one procedure for every attacker and every black-box twin."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .view import DEVICE, Layer, linear_layers

# bfloat16 halves the time of convolutions on processors and GPUs that have it; copies are scored in 32 bits.
LOW = torch.bfloat16


def _has_low() -> bool:
    if DEVICE.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "avx512_bf16" in _flags()


def _flags() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""


CASTS = _has_low()
State = dict[str, Tensor]


@dataclass(frozen=True)
class Targets:
    """What is to be learnt of each input: classes, or logits at several temperatures."""

    labels: Tensor
    logits: Tensor | None = None
    smoothing: float = 0.1

    def loss(self, got: Tensor, chosen: Tensor) -> Tensor:
        if self.logits is None:
            return F.cross_entropy(got, self.labels[chosen], label_smoothing=self.smoothing)
        wanted = self.logits[chosen]
        # Hinton et al. 2015: the gradients of a temperature T are smaller by its square.
        at = lambda t: t * t * F.kl_div(F.log_softmax(got / t, 1), F.softmax(wanted / t, 1), reduction="batchmean")
        return at(1.0) + at(4.0)


@dataclass(frozen=True)
class Recipe:
    """How a copy is trained."""

    passes: int  # images in all
    batch: int
    rate: float  # at its highest; it warms up to that and falls to zero along a cosine
    decay: float = 5e-3  # pulls hidden weights to zero
    pull: float = 0.0  # pulls open weights back to what they are
    freezes: bool = False  # open weights do not move at all
    shift: int = 4  # pixels either way
    mirrors: bool = True
    hole: int = 8  # pixels of the square that is cut out
    mixes: float = 0.0  # of the Beta distribution that says how much of another image is mixed in; 0 mixes nothing


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Random shifts, mirrors and square holes."""
    n, _, h, w = images.shape
    pad = recipe.shift
    padded = F.pad(images, (pad,) * 4)
    down, right = (torch.randint(0, 2 * pad + 1, (n,), generator=generator) for _ in range(2))
    rows = (down[:, None] + torch.arange(h))[:, None, :, None]
    columns = right[:, None] + torch.arange(w)
    if recipe.mirrors:
        mirrored = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    channels = torch.arange(images.shape[1])[None, :, None, None]
    out = padded[torch.arange(n)[:, None, None, None], channels, rows, columns[:, None, None, :]]
    if recipe.hole:
        y, x = (torch.randint(0, size, (n, 1), generator=generator) for size in (h, w))
        near = lambda size, at: (torch.arange(size) - at).abs() < recipe.hole // 2
        out = out.masked_fill((near(h, y)[:, :, None] & near(w, x)[:, None])[:, None], 0.0)
    return out


@torch.no_grad()
def predict(network: nn.Module, inputs: Tensor) -> Tensor:
    """What a network says about inputs, in evaluation mode. Networks are in main memory before and after."""
    network.to(DEVICE).eval()
    said = torch.cat([network(part.to(DEVICE)).float().cpu() for part in inputs.split(500)])
    network.to("cpu")
    return said


def fit(network: nn.Module, layers: list[Layer], inputs: Tensor, targets: Targets, recipe: Recipe, seed: int) -> None:
    """Trains a network in place. A run that dies starts again, more slowly."""
    begin = copy.deepcopy(network.state_dict())
    for attempt in range(3):
        _run(network, layers, inputs, targets, replace(recipe, rate=recipe.rate / 4**attempt), seed + 1000 * attempt)
        said = predict(network, inputs[:500])
        classes = said.shape[1]
        agrees = (said.argmax(1) == targets.labels[:500]).float().mean().item()
        if said.isfinite().all() and agrees > 1.5 / classes:
            return
        network.load_state_dict(begin)


def _run(network: nn.Module, layers: list[Layer], inputs: Tensor, targets: Targets, recipe: Recipe, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    network.to(DEVICE, memory_format=torch.channels_last)
    weights = [m.weight for m in linear_layers(network)]
    starts = [w.detach().clone() for w in weights]
    hidden = [layer.hidden.to(DEVICE) for layer in layers] if layers else [torch.ones_like(w, dtype=torch.bool) for w in weights]
    optimiser = torch.optim.SGD(network.parameters(), lr=recipe.rate, momentum=0.9, nesterov=True)
    count, batch = len(inputs), min(recipe.batch, len(inputs))
    steps = max(1, count // batch)
    rounds = max(1, recipe.passes // (steps * batch))
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=rounds * steps, pct_start=0.15)
    images = inputs.dim() == 4 and inputs.shape[2] > 8 and (recipe.shift or recipe.mirrors or recipe.hole)
    draws = np.random.default_rng(seed)
    mean: tuple[State, int] | None = None
    for turn in range(rounds):
        network.train()
        order = torch.randperm(count, generator=generator)
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]
            batch_in = augment(inputs[chosen], recipe, generator) if images else inputs[chosen]
            share, other = 1.0, torch.randperm(len(chosen), generator=generator)
            if recipe.mixes:
                share = float(draws.beta(recipe.mixes, recipe.mixes))
                batch_in = share * batch_in + (1 - share) * batch_in[other]
            if batch_in.dim() == 4:
                batch_in = batch_in.to(memory_format=torch.channels_last)
            with torch.autocast(DEVICE.type, dtype=LOW, enabled=CASTS):
                got = network(batch_in.to(DEVICE))
            optimiser.zero_grad()
            got = got.float().cpu()
            loss = share * targets.loss(got, chosen)
            if share < 1.0:
                loss = loss + (1 - share) * targets.loss(got, chosen[other])
            loss.backward()
            for weight, start, h in zip(weights, starts, hidden):
                if weight.grad is None:  # it is known, and stays as it is
                    continue
                towards = torch.where(h, recipe.decay * weight.data, recipe.pull * (weight.data - start))
                weight.grad = torch.where(h, weight.grad + towards, 0.0 if recipe.freezes else weight.grad + towards)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            rates.step()
        if turn >= 0.9 * rounds:
            mean = _averaged(mean, network)
    if mean is not None:
        network.load_state_dict({name: total / mean[1] if total.is_floating_point() else total for name, total in mean[0].items()})


def _averaged(mean: tuple[State, int] | None, network: nn.Module) -> tuple[State, int]:
    """Sums of the last states, and their number."""
    state: State = {name: value.detach().clone() for name, value in network.state_dict().items()}
    if mean is None:
        return state, 1
    sums, count = mean
    return {name: sums[name] + v if v.is_floating_point() else v for name, v in state.items()}, count + 1
