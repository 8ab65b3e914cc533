"""`python3 -m jali.attack`, in the folder of a view. JALI_ATTACK_EFFORT=0.1 trains a tenth of the time."""

import os
import warnings

import torch

from . import guests, procedures
from .view import View


def main() -> None:
    warnings.filterwarnings("ignore")
    view = View.read(".")
    torch.manual_seed(view.seed)
    effort = float(os.environ.get("JALI_ATTACK_EFFORT", "1"))
    attack = guests.attack if view.guests else procedures.attack
    attack(view, effort).save("surrogate.onnx")


main()
