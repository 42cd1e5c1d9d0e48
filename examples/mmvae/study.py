"""What is trained and where it is measured, with all checks that can be made beforehand."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from harness.command import check_folder, device_of

from .attributes import AttributeImages
from .data import load_builtin, load_celeba, load_npz
from .models import MODELS
from .settings import Settings

# Faces for the measurements are drawn with a seed that no training set uses.
MEASURE_SEED = 1_000_003
PART = "test"  # of the measured images
LEAST = 50  # rows that the fresh critics need


@dataclass(frozen=True)
class Study:
    """What is trained and measured: images, where they are measured, and on which device."""

    data: AttributeImages
    measured: AttributeImages  # its part PART
    device: torch.device
    options: argparse.Namespace


def plan(options: argparse.Namespace) -> list[tuple[str, Settings]]:
    """The runs: a name and settings each.

    Raises:
        ValueError: If an option is out of range or does not fit another.
    """
    for name in ("mi_runs", "classifier_epochs"):
        if getattr(options, name) < 1:
            got = getattr(options, name)
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {got}")
    _check_different("--seeds", options.seeds)
    common = {
        name: getattr(options, name)
        for name in Settings.__dataclass_fields__
        if name not in ("model", "seed")
    }
    names = MODELS if options.model == "all" else (options.model,)
    runs = [(name, {**common, "model": name}) for name in names]
    if options.sweep:
        weight, values = _sweep(options)
        runs = [(f"mmvae {weight}={x:g}", {**common, "model": "mmvae", weight: x}) for x in values]
    return [(name, Settings(**own, seed=seed)) for seed in options.seeds for name, own in runs]


def _sweep(options: argparse.Namespace) -> tuple[str, list[float]]:
    weight, *words = options.sweep
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if weight not in ("alpha", "beta", "gamma") or not values:
        raise ValueError(
            "--sweep: expected alpha, beta or gamma and numbers, got " + " ".join(options.sweep)
        )
    if options.model not in ("all", "mmvae"):
        raise ValueError(f"--sweep: expected --model mmvae with it, got {options.model}")
    _check_different("--sweep", values)
    return weight, values


def _check_different(option: str, values: Sequence[float]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{option}: expected different values, got {twice[0]:g} twice")


def load_study(options: argparse.Namespace) -> Study:
    """Find the device, the output folder and the images.

    Raises:
        ValueError: If the device, the folder or the images cannot be used.
        OSError: If a file cannot be read.
    """
    device = device_of(options.device)
    check_folder(options.output)
    data, measured = _builtin(options) if options.data == "builtin" else _from_disk(options)
    train, held = len(data.split["train"]), len(measured.split[PART])
    if train < options.batch:
        raise ValueError(
            f"--batch: expected at most the {train} training images, got {options.batch}"
        )
    if held < LEAST:
        raise ValueError(f"--data: expected at least {LEAST} images to measure on, got {held}")
    for images, part in ((data, "train"), (measured, PART)):
        rows = images.attributes[images.split[part]]
        for name, column in zip(images.attribute_names, rows.T, strict=True):
            if len(np.unique(column)) < 2:
                raise ValueError(
                    f"--data: expected {name!r} to take both values among the {len(rows)} images "
                    f"to {'train' if part == 'train' else 'measure'} on, got {column[0]} in all"
                )
    return Study(data, measured, device, options)


def _builtin(options: argparse.Namespace) -> tuple[AttributeImages, AttributeImages]:
    n = 8000 if options.images is None else options.images
    if n < 50 or options.measure_images < 300:
        raise ValueError(
            "--images and --measure-images: expected at least 50 and 300 faces, got "
            f"{n} and {options.measure_images}"
        )
    common = {"balance": options.balance, "progress": not options.quiet}
    data = load_builtin(n, options.attributes, 0, **common)
    fresh = load_builtin(
        options.measure_images,
        options.attributes,
        MEASURE_SEED,
        fractions=(0.01, 0.01, 0.98),
        **common,
    )
    return data, fresh


def _from_disk(options: argparse.Namespace) -> tuple[AttributeImages, AttributeImages]:
    path = Path(options.data)
    share = options.held_out / 2
    if not 0 < share < 0.5:
        raise ValueError(f"--held-out: expected a share in (0, 1), got {options.held_out}")
    common = {
        "balance": options.balance,
        "progress": not options.quiet,
        "fractions": (1 - 2 * share, share, share),
    }
    if path.is_dir():
        data = load_celeba(
            path,
            options.attributes,
            limit=options.images,
            on_error="skip" if options.skip_unreadable else "raise",
            **common,
        )
    elif path.exists():
        names = None if options.label_key else options.attributes
        data = load_npz(path, names, label_key=options.label_key, **common)
    else:
        raise FileNotFoundError(
            f"--data: expected 'builtin', a CelebA folder or an .npz file, got no {path}"
        )
    # All rows that the model was not trained on: the fresh critics need as many as they can get.
    held = np.sort(np.concatenate([data.split["val"], data.split["test"]]))
    return data, replace(data, split={**data.split, PART: held})
