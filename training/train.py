#!/usr/bin/env python3
"""Trains the two reference networks of Jali and exports them to ONNX.

    python training/train.py vgg3  --data data/cifar10 --out crates/jali/bundled/vgg3.onnx
    python training/train.py mnist --data data/mnist   --out crates/jali/bundled/mnist.onnx

Input convention of the exported files: N x C x H x W, pixels divided by 255, nothing else. Batch norm is used while
training and folded into the convolution in front of it before the export, so that the file holds only Conv, Gemm,
Relu, MaxPool and Flatten. Users of Jali never need this script: its results are committed under crates/jali/bundled/.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


class Vgg3(nn.Module):
    """Three blocks of two 3x3 convolutions (32, 64, 128 channels), then 2048 -> 128 -> 10."""

    def __init__(self):
        super().__init__()
        widths = [3, 32, 32, 64, 64, 128, 128]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.fc1, self.fc1_norm, self.fc2 = nn.Linear(2048, 128), nn.BatchNorm1d(128), nn.Linear(128, 10)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = F.relu(norm(conv(x)))
            if i % 2 == 1:
                x = F.max_pool2d(x, 2)
        x = self.drop(torch.flatten(x, 1))
        return self.fc2(F.relu(self.fc1_norm(self.fc1(x))))


class Mnist(nn.Module):
    """conv3x3 32, pool, conv3x3 64, pool, 3136 -> 128 -> 10."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(32), nn.BatchNorm2d(64)])
        self.fc1, self.fc1_norm, self.fc2 = nn.Linear(3136, 128), nn.BatchNorm1d(128), nn.Linear(128, 10)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        x = self.drop(torch.flatten(x, 1))
        return self.fc2(F.relu(self.fc1_norm(self.fc1(x))))


def fold(net):
    """Replaces every batch norm by an adjusted weight and bias of the layer in front of it."""
    net.eval()
    net.convs = nn.ModuleList(fuse_conv_bn_eval(c, n) for c, n in zip(net.convs, net.norms))
    net.norms = nn.ModuleList(nn.Identity() for _ in net.norms)
    net.fc1 = fuse_linear_bn_eval(net.fc1, net.fc1_norm)
    net.fc1_norm = nn.Identity()
    net.drop = nn.Identity()
    return net


def load_cifar10(folder):
    def read(names):
        raw = np.concatenate([np.fromfile(folder / n, np.uint8).reshape(-1, 3073) for n in names])
        return torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(raw[:, 0].astype(np.int64))

    return read([f"data_batch_{i}.bin" for i in range(1, 6)]), read(["test_batch.bin"])


def load_mnist(folder):
    def read(part):
        x = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 1, 28, 28)
        y = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
        return torch.from_numpy(x.copy()), torch.from_numpy(y)

    return read("train"), read("t10k")


def augment(x, pad, flip, cut, gen):
    """Random shift by up to `pad` pixels, mirror, and one erased square of `cut` pixels (uint8 in, float out)."""
    n, c, h, w = x.shape
    x = F.pad(x.float().div_(255), (pad,) * 4)
    dy, dx = (torch.randint(0, 2 * pad + 1, (n,), generator=gen) for _ in range(2))
    rows = (dy[:, None] + torch.arange(h))[:, None, :, None]
    cols = dx[:, None] + torch.arange(w)
    if flip:
        mirrored = torch.rand(n, generator=gen) < 0.5
        cols = torch.where(mirrored[:, None], cols.flip(1), cols)
    x = x[torch.arange(n)[:, None, None, None], torch.arange(c)[None, :, None, None], rows, cols[:, None, None, :]]
    if cut:
        cy, cx = (torch.randint(0, s, (n, 1), generator=gen) for s in (h, w))
        hole = ((torch.arange(h) - cy).abs() < cut // 2)[:, :, None] & ((torch.arange(w) - cx).abs() < cut // 2)[:, None]
        x = x.masked_fill(hole[:, None], 0.0)
    return x.to(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(net, x, y):
    net.eval()
    right = 0
    for i in range(0, len(x), 500):
        right += (net(x[i : i + 500].float().div(255)).argmax(1) == y[i : i + 500]).sum().item()
    return 100.0 * right / len(x)


SETUPS = {
    # network, loader, epochs, batch, peak rate, (shift, mirror, erased square)
    "vgg3": (Vgg3, load_cifar10, 28, 128, 0.1, (3, True, 0)),
    "mnist": (Mnist, load_mnist, 8, 128, 0.05, (2, False, 0)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", choices=SETUPS)
    parser.add_argument("--data", type=Path, required=True, help="folder written by scripts/fetch-data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    build, load, epochs, batch, rate, (pad, flip, cut) = SETUPS[args.network]
    epochs = args.epochs or epochs
    torch.manual_seed(args.seed)
    torch.set_flush_denormal(True)
    gen = torch.Generator().manual_seed(args.seed)
    (x, y), (tx, ty) = load(args.data)
    net = build().to(memory_format=torch.channels_last)
    averaged = torch.optim.swa_utils.AveragedModel(
        net, avg_fn=lambda old, new, n: old + (new - old) / min(500, n + 1), use_buffers=True
    )
    compiled, steps = torch.compile(net), len(x) // batch
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps * epochs, pct_start=0.2)
    start, log = time.time(), []
    for epoch in range(epochs):
        net.train()
        order, total = torch.randperm(len(x), generator=gen), 0.0
        # The last epochs see whole images: the erased square is a training aid, not what the test shows.
        hole = cut if epoch < epochs - 4 else 0
        for i in range(steps):
            pick = order[i * batch : (i + 1) * batch]
            loss = F.cross_entropy(compiled(augment(x[pick], pad, flip, hole, gen)), y[pick], label_smoothing=0.1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            averaged.update_parameters(net)
            total += loss.item()
        line = {"epoch": epoch + 1, "loss": round(total / steps, 4), "seconds": round(time.time() - start)}
        if (epoch + 1) % 4 == 0 or epoch + 1 == epochs:
            line["raw_accuracy"] = accuracy(net, tx, ty)
            line["test_accuracy"] = accuracy(averaged, tx, ty)
        log.append(line)
        print(line, flush=True)

    final = fold(averaged.module)
    result = {
        "network": args.network,
        "test_accuracy": accuracy(final, tx, ty),
        "test_images": len(tx),
        "parameters": sum(p.numel() for p in final.parameters()),
        "epochs": epochs,
        "seed": args.seed,
        "torch": torch.__version__,
        "seconds": round(time.time() - start),
        "log": log,
    }
    final = final.to(memory_format=torch.contiguous_format)
    example = torch.zeros(1, *x.shape[1:])
    torch.onnx.export(
        final, example, args.out, dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
    )  # fmt: skip
    (Path(__file__).parent / f"{args.network}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{args.network}: {result['test_accuracy']:.2f} % of {len(tx)} test images, written to {args.out}")


if __name__ == "__main__":
    main()
