"""An attacker for `jali-audit run --attacker`: fills what is hidden with noise, then trains everything.

    pip install numpy torch torchvision onnx onnx2torch
    jali-audit run net.onnx --data data/cifar10 --plan plan.json --attacker "python3 $PWD/attack.py" --out audit

It runs in a folder with the attacker's view (docs/auditing.md) and writes surrogate.onnx there.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx2torch import convert

task = json.loads(Path("task.json").read_text())
torch.manual_seed(task["seed"])
model, random = onnx.load("view.onnx"), np.random.default_rng(task["seed"])
for tensor in model.graph.initializer:
    values = onnx.numpy_helper.to_array(tensor).copy()
    hidden = np.isnan(values) if values.dtype == np.float32 else np.zeros(values.shape, bool)
    if hidden.any():
        spread = values[~hidden].std() if (~hidden).sum() > 1 else (2 / values[0].size) ** 0.5
        values[hidden] = random.normal(0, spread, hidden.sum())
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

network = convert(model)
images, labels = torch.from_numpy(np.load("images.npy")), torch.from_numpy(np.load("labels.npy"))
optimizer = torch.optim.Adam(network.parameters(), 1e-3)
for step in range(300 if len(images) else 0):
    chosen = torch.randint(len(images), (32,))
    loss = torch.nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.onnx.export(network, torch.zeros(1, *task["input"]), "surrogate.onnx", dynamo=False)
