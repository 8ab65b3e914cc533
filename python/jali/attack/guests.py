"""A guest that wants the model: it computes the open beginning itself, and chooses what it sends on.

Nothing checks that what a guest puts in place of the open beginning's output comes from an image. `command` asks about
values of its own choice; the other procedures ask about the guest's images alone, as an honest guest would.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import fills, lines, norm, procedures
from .training import Targets, fit, predict
from .view import DEVICE, Copy, View


class Oracle:
    """Answers for tickets: what is written to ask/N.npy is answered in answer/N.npy."""

    def __init__(self, folder: Path):
        self.folder, self.asked = folder, 0

    def ask(self, values: Tensor) -> Tensor:
        """Logits `[n, classes]`, or classes `[n]`, for `n` values."""
        self.asked += 1
        path = self.folder / "ask" / f"{self.asked}.npy"
        with open(f"{path}.part", "wb") as file:
            np.save(file, values.float().numpy())
        Path(f"{path}.part").rename(path)
        answer = self.folder / "answer" / path.name
        while not answer.exists():
            time.sleep(0.02)
        return torch.from_numpy(np.load(answer))


class Behind(nn.Module):
    """A network behind an open prefix, which is computed as it is and never trained."""

    def __init__(self, prefix: nn.Module | None, network: nn.Module):
        super().__init__()
        # In a list, so that it is none of this module's parts.
        self._prefix, self.network = [prefix.to(DEVICE)] if prefix else [], network

    def forward(self, images: Tensor) -> Tensor:
        for prefix in self._prefix:
            with torch.no_grad():
                images = prefix(images)
        return self.network(images)


NAMES = ("zero", "statistics", "distil", "own", "command")


def targets(answers: Tensor) -> Targets:
    """Logits, or classes alone."""
    return Targets(answers.argmax(1), answers) if answers.dim() == 2 else Targets(answers)


def attack(view: View, effort: float = 1.0) -> Copy:
    """Uses up the tickets as the task's attacker would, then trains what is hidden."""
    name, tickets = view.task["attacker"], view.guests["tickets"]
    if name not in NAMES:
        raise SystemExit(f'jali.attack has no attacker "{name}" of guests; it has {", ".join(NAMES)}')
    images, oracle = view.images[:tickets], Oracle(view.folder)
    if name in ("zero", "statistics") or len(images) < 2:
        return view.copy(procedures.PROCEDURES["zero" if name == "zero" else "statistics"](view, effort))
    own = predict(view.prefix, images) if view.prefix else images
    if name == "own":
        # It takes images itself: the prefix serves to ask alone.
        network = procedures.own_network(view, effort, images, targets(oracle.ask(own)))
        return Copy(network, None, view.task["input"])
    fills.sparse(view, procedures.generator(view))
    is_line = lines.is_affine_end(view)
    if name != "command":
        asked = own
    elif is_line:
        asked = spread_out(own, tickets, view.seed)
    else:
        asked = choose(own, tickets, view.seed)
    answers = oracle.ask(asked)
    if is_line and answers.dim() == 2:
        if lines.solve(view, asked, answers) or (name == "command" and view.layers[-1].hidden.all()):
            return view.copy(view.network)
    return view.copy(train(view, images, own, asked, answers, effort))


def train(view: View, images: Tensor, own: Tensor, asked: Tensor, answers: Tensor, effort: float) -> nn.Module:
    """Trains on the guest's images, moved about in front of the prefix; then on all that was asked, as it was."""
    network, usual = view.network, procedures.recipe(view, effort)
    norm.insert(network, view.layers, own[:256])
    honest = sum(1 for a, b in zip(asked, own) if torch.equal(a, b))
    mixes = 0.0 if answers.dim() == 2 else 0.4
    recipe = replace(usual, mixes=mixes)
    fit(Behind(view.prefix, network), view.layers, images[:honest], targets(answers[:honest]), recipe, view.seed)
    if honest < len(asked):
        recipe = replace(usual, rate=0.01, passes=usual.passes // 2, shift=0, mirrors=False, hole=0)
        fit(network, view.layers, asked, targets(answers), recipe, view.seed + 1)
    return norm.fold(network)


def choose(own: Tensor, tickets: int, seed: int) -> Tensor:
    """Half of the guest's own values; for the rest lines between two of them, and patchworks of two."""
    generator = torch.Generator().manual_seed(seed)
    count = tickets - min(max(2, tickets // 2), len(own))
    first, second = (own[torch.randint(len(own), (count,), generator=generator)] for _ in range(2))
    single = [1] * (own.dim() - 1)
    share = torch.rand(count, *single, generator=generator)
    patches = torch.rand(own[:1].expand(count, *own.shape[1:]).shape, generator=generator) < share
    lines, patchworks = share * first + (1 - share) * second, torch.where(patches, first, second)
    mixed = torch.where((torch.arange(count) % 2 == 0).view(-1, *single), lines, patchworks)
    return torch.cat([own[: tickets - count], mixed])


def spread_out(own: Tensor, tickets: int, seed: int) -> Tensor:
    """The guest's own values first, then uniform draws in their range: together they leave no direction out."""
    generator = torch.Generator().manual_seed(seed)
    count = tickets - min(max(2, tickets // 4), len(own))
    low, high = own.amin(0), own.amax(0)
    draws = low + (high - low) * torch.rand(count, *own.shape[1:], generator=generator)
    return torch.cat([own[: tickets - count], draws])
