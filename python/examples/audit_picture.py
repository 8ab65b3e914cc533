"""What open weights give away: a picture of an audit's results. Needs matplotlib.

    python audit_picture.py docs/results/torch/vgg3/results.json picture.png
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

results = json.loads(Path(sys.argv[1]).read_text())
lines: dict = {}
for row in results["summary"]:
    if row["policy"] == "random-rows":
        lines.setdefault(row["budget"], []).append((100 * row["opened"], 100 * row["accuracy"], 100 * row["black_box"]))

figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for colour, (budget, points) in zip(["tab:blue", "tab:orange", "tab:green", "tab:red"], sorted(lines.items())):
    opened, accuracy, black_box = zip(*sorted(points))
    axes.plot(opened, accuracy, marker="o", color=colour, label=f"{budget} labelled images and the open weights")
    axes.plot(opened, black_box, linestyle=":", color=colour, label=f"{budget} labelled images alone")
axes.axhline(100 * results["victim_accuracy"], color="black", linewidth=1, label="the network itself")
axes.set(xlabel="weights open, % (random rows)", ylabel="accuracy of the best copy, %", xlim=(0, 100), ylim=(0, 100))
axes.set_title(f"{Path(results['model']).stem}: what a server makes of open weights")
axes.legend(fontsize="small")
figure.savefig(sys.argv[2], dpi=150)
print(f"{sys.argv[2]}: {sum(map(len, lines.values()))} points")
