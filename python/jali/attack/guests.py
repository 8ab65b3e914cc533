"""A guest that wants the model: it computes the open beginning itself, and chooses what it sends on.

Nothing checks that what a guest puts in place of the open beginning's output comes from an image. `command` asks about
values of its own choice; the other procedures ask about the guest's images alone, as an honest guest would.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import fills, lines, procedures
from .training import predict
from .view import Copy, View


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


def attack(view: View, effort: float = 1.0) -> Copy:
    """Uses up the tickets as the task's attacker would, then trains what is hidden."""
    name, tickets = view.task["attacker"], view.guests["tickets"]
    own = view.images if view.prefix is None else predict(view.prefix, view.images) if len(view.images) else view.images
    chosen = name == "command"
    if name in ("zero", "statistics") or tickets < 2:
        return view.copy(procedures.PROCEDURES["zero" if name == "zero" else "statistics"](view, effort))
    fills.sparse(view, procedures.generator(view))
    oracle, is_line = Oracle(view.folder), chosen and lines.is_affine_end(view)
    values = spread_out(own, tickets, view.seed) if is_line else choose(own, tickets, view.seed) if chosen else own[:tickets]
    answers = oracle.ask(values)
    if is_line and answers.dim() == 2:
        lines.solve(view, values, answers)
        return view.copy(view.network)
    view.images = values
    view.labels = answers.argmax(1) if answers.dim() == 2 else answers
    view.logits = answers if answers.dim() == 2 else None
    if chosen:
        name = "distil" if view.logits is not None else "tune-all"
    elif view.logits is None and name in ("distil", "span"):
        name = "tune-all"
    return view.copy(procedures.PROCEDURES[name](view, effort))


def choose(own: Tensor, tickets: int, seed: int) -> Tensor:
    """Half of the guest's own values; for the rest lines between two of them, and patchworks of two."""
    generator = torch.Generator().manual_seed(seed)
    count = tickets - min(tickets // 2, len(own))
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
    count = tickets - min(tickets // 4, len(own))
    low, high = own.amin(0), own.amax(0)
    draws = low + (high - low) * torch.rand(count, *own.shape[1:], generator=generator)
    return torch.cat([own[: tickets - count], draws])
