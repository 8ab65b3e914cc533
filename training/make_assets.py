#!/usr/bin/env python3
"""Cuts the bundled samples out of the full data sets (scripts/fetch-data must have run).

    python training/make_assets.py --data data

Writes, for each of cifar10 and mnist: into crates/jali/bundled the first 1 000 test images (label byte, then channels x
height x width bytes, the canonical CIFAR-10 binary format) and the first 100 training images for calibration; into
assets/images a dozen test images as PNG.
"""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def mnist(folder, part):
    x = np.fromfile(folder / f"{part}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 784)
    y = np.fromfile(folder / f"{part}-labels-idx1-ubyte", np.uint8)[8:]
    return np.concatenate([y[:, None], x], axis=1)


def cifar10(folder, part):
    name = "data_batch_1.bin" if part == "train" else "test_batch.bin"
    return np.fromfile(folder / name, np.uint8).reshape(-1, 3073)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundled", type=Path, default=ROOT / "crates/jali/bundled", metavar="DIR")
    parser.add_argument("--images", type=Path, default=ROOT / "assets/images", metavar="DIR")
    args = parser.parse_args()
    for dataset, load, shape in [("cifar10", cifar10, (3, 32, 32)), ("mnist", mnist, (28, 28))]:
        test, train = load(args.data / dataset, "t10k" if dataset == "mnist" else "test"), load(args.data / dataset, "train")
        (args.bundled / f"{dataset}-test-1000.bin").write_bytes(test[:1000].tobytes())
        (args.bundled / f"{dataset}-calibration-100.bin").write_bytes(train[:100].tobytes())
        images = args.images / dataset
        images.mkdir(parents=True, exist_ok=True)
        for i in range(12):
            pixels = test[i, 1:].reshape(shape)
            pixels = pixels.transpose(1, 2, 0) if len(shape) == 3 else pixels
            label = NAMES[test[i, 0]] if dataset == "cifar10" else str(test[i, 0])
            Image.fromarray(pixels).save(images / f"{i:02}-{label}.png", optimize=True)


if __name__ == "__main__":
    main()
