"""Attackers in PyTorch for `jali-audit run --attacker "python3 -m jali.attack"`.

They run in a folder with the attacker's view (docs/auditing.md) and write surrogate.onnx there. Which procedure runs is
`attacker` in task.json; all of them see the same and train in the same way, and a black-box twin is the same procedure
with everything hidden.

    pip install jali torch onnx onnx2torch

A GPU is used where there is one. `JALI_ATTACK_EFFORT` (1 by default) multiplies how long they train.
"""
