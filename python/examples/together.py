"""An attacker for `jali-audit run --attacker`: three trainings of `python3 -m jali.attack`, and the sum of their logits.

    pip install '.[attack]'
    jali-audit run net.onnx --data data/cifar10 --plan plan.json --attackers distil,own --attacker "python3 $PWD/together.py" --out audit

A surrogate may be any network, so also several with one end.
"""

import json
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import compose, helper

task = json.loads(Path("task.json").read_text())
seed, parts = task["seed"], []
for training in range(3):
    Path("task.json").write_text(json.dumps({**task, "seed": 1000 * training + seed}))
    subprocess.run([sys.executable, "-m", "jali.attack"], check=True)
    parts.append(compose.add_prefix(onnx.load("surrogate.onnx"), f"{training}_"))

image, output = parts[0].graph.input[0], parts[0].graph.output[0]
nodes, weights, logits = [], [], []
for part in parts:
    for node in part.graph.node:
        node.input[:] = [image.name if name == part.graph.input[0].name else name for name in node.input]
    nodes += part.graph.node
    weights += part.graph.initializer
    logits.append(part.graph.output[0].name)
nodes.append(helper.make_node("Add", logits[:2], ["two"]))
nodes.append(helper.make_node("Add", ["two", logits[2]], ["three"]))
output.name = "three"
graph = helper.make_graph(nodes, "together", [image], [output], weights)
onnx.save(helper.make_model(graph, opset_imports=parts[0].opset_import, ir_version=parts[0].ir_version), "surrogate.onnx")
