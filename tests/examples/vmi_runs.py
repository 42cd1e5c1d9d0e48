"""Small data, settings and runs of the VMI example."""

import numpy as np
import torch

from vmi.data import Pictures
from vmi.main import main
from vmi.settings import Settings

CPU = torch.device("cpu")
FEW = ["--epochs", "2", "--batch", "16", "--quiet"]


def blobs(train=48, test=24, side=8, classes=3):
    """Bright stripes whose row is the class."""
    rng = np.random.default_rng(0)
    images, labels = {}, {}
    for part, n in (("train", train), ("test", test)):
        labels[part] = np.arange(n) % classes
        images[part] = rng.integers(0, 40, (n, side, side), dtype=np.uint8)
        images[part][np.arange(n), 1 + 2 * labels[part]] += 200
    return Pictures(images, labels, "stripes")


def npz(path, data=None, held="test", **changes):
    data = blobs() if data is None else data
    arrays = {}
    for part, name in (("train", "train"), ("test", held)):
        arrays |= {f"{name}_images": data.images[part], f"{name}_labels": data.labels[part]}
    arrays |= changes
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    return path


def settings(**changes):
    return Settings(**{"epochs": 2, "batch": 16, "z": 4, "k": 3, **changes})


def start(output, *options):
    return main([*FEW, "--output", str(output), *map(str, options)])
