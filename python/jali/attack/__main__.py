"""`python3 -m jali.attack`, in the folder of a view. JALI_ATTACK_EFFORT=0.1 trains a tenth of the time."""

import os
import warnings
from pathlib import Path

import torch

from . import guests, procedures
from .view import View


def effort() -> float:
    text = os.environ.get("JALI_ATTACK_EFFORT", "1")
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise SystemExit(f'JALI_ATTACK_EFFORT must be a number above 0 (0.1: a tenth of the time), not "{text}"')
    return value


def main() -> None:
    warnings.filterwarnings("ignore")
    if not Path("task.json").is_file():
        raise SystemExit("There is no view of an attacker here: jali-audit run --attacker 'python3 -m jali.attack' makes one.")
    length = effort()
    view = View.read(".")
    torch.manual_seed(view.seed)
    attack = guests.attack if view.guests else procedures.attack
    attack(view, length).save("surrogate.onnx")


main()
