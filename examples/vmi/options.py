"""The command line of the example."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from .settings import MODELS, PRESETS, Settings

WEIGHTS: dict[str, list[float]] = {"joint": [Settings.mi, 0.0], "gaussian": [0.0, 1.0, 5.0]}
"""Of the term, where none are given: a weight that the joint model wants ruins a Gaussian code."""

TEXTS = {
    "z": "width of the Gaussian code",
    "k": "categories of c (joint model)",
    "drawn": "weight of I(c; x') of pictures drawn from the prior, relative to --mi",
    "balance": "weight of KL(q(c) || p(c)) of the batch mean, relative to --mi",
    "kl": "weight of the KL of z",
    "temperature": "of the Gumbel-softmax sample, at the start",
    "temperature_end": "the same at the end",
    "rotation": "range of the views' rotation, degrees",
    "scale": "range of the views' log-scale",
    "shear": "range of the views' shear",
    "shift": "range of the views' shift, a share of the width",
    "mirror": "share of the views that are mirrored",
    "contrast": "range of the log of the exponent of the views' grey values",
    "lr": "highest learning rate of encoder and decoder",
    "critic_lr": "learning rate of the critic (Gaussian model)",
    "critic_steps": "critic steps a step (Gaussian model)",
    "epochs": "passes over the training images",
    "batch": "images a step",
}


def parser() -> argparse.ArgumentParser:
    """All options, grouped; the defaults are those of the run on scikit-learn's digits."""
    p = argparse.ArgumentParser(
        prog="vmi_digits.py",
        allow_abbrev=False,
        description=(
            "Train a joint VAE (Gaussian z, categorical c) with and without the variational "
            "mutual-information term, or a Gaussian VAE with the term on (z_1, z_2); score c as "
            "an unsupervised classifier, and write tables and figures. Without options it runs on "
            "scikit-learn's digits and needs no download."
        ),
        epilog=(
            "examples: vmi_digits.py --output runs/demo | vmi_digits.py --data mnist.npz --preset "
            "mnist --seeds 0 1 2 3 4 | vmi_digits.py --data mnist.npz --preset mnist "
            "--model gaussian --epochs 4"
        ),
    )
    data = p.add_argument_group("data")
    data.add_argument(
        "--data",
        default="digits",
        help="'digits' (scikit-learn's), a folder with the four IDX files of MNIST or "
        "Fashion-MNIST, or an .npz with train_images, train_labels and test_* or holdout_* (or "
        "Keras' x_train, y_train, x_test, y_test), images uint8 (N, H, H), labels 0, 1, ... that "
        "only the final score reads; floats in [0, 1] are rounded to uint8. E.g. "
        "np.savez('mine.npz', train_images=a, train_labels=b, test_images=c, test_labels=d) "
        "(default %(default)s)",
    )
    data.add_argument(
        "--images", type=int, metavar="N", help="use the first N training images only"
    )
    model = p.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="joint", help="default: %(default)s")
    model.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        default="digits",
        help="values of the options below that are not given (default %(default)s)",
    )
    model.add_argument(
        "--mi",
        type=float,
        nargs="+",
        metavar="X",
        help="weights of the mutual-information term, one run each; 0: the ELBO alone "
        f"(default: {_list(WEIGHTS['joint'])}; {_list(WEIGHTS['gaussian'])} for the gaussian "
        "model)",
    )
    for name, text in TEXTS.items():
        kind = type(getattr(Settings, name))
        model.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar="N" if kind is int else "X",
            help=f"{text} (default: {_defaults(name)})",
        )
    run = p.add_argument_group("run")
    run.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    run.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)"
    )
    run.add_argument(
        "--output",
        type=Path,
        default=Path("runs/vmi"),
        help="folder (default %(default)s); without --resume the results.json of an earlier run "
        "there is kept as results.1.json, .2, ... (with its .npz); checkpoints and figures are "
        "replaced",
    )
    run.add_argument(
        "--resume", action="store_true", help="go on from the checkpoints in the output folder"
    )
    run.add_argument("--quiet", action="store_true", help="no progress bars or lines")
    run.add_argument("--no-figures", action="store_true", help="tables and JSON only")
    run.add_argument(
        "--draw",
        type=Path,
        nargs="+",
        metavar="JSON",
        help="train nothing: draw the figures of stored results (with the .npz beside each) "
        "into the output folder",
    )
    return p


def _list(weights: list[float]) -> str:
    return " ".join(f"{weight:g}" for weight in weights)


def _defaults(name: str) -> str:
    """The default, and the presets that differ from it."""
    usual = getattr(Settings, name)
    own = {p: values[name] for p, values in PRESETS.items() if values.get(name, usual) != usual}
    if name == "z":
        own["gaussian model"] = 32
    return ", ".join([f"{usual:g}", *(f"{value:g} for {p}" for p, value in own.items())])


def settings_of(options: argparse.Namespace) -> list[Settings]:
    """The settings of each run, the seeds outermost.

    Raises:
        ValueError: If a value is out of range or given twice.
    """
    values: dict[str, Any] = {"model": options.model, **PRESETS[options.preset]}
    if options.model == "gaussian":
        values["z"] = 32
    for field in fields(Settings):
        given = getattr(options, field.name, None)
        if given is not None and field.name != "mi":
            values[field.name] = given
    weights = WEIGHTS[options.model] if options.mi is None else options.mi
    for name, several in (("--mi", weights), ("--seeds", options.seeds)):
        if len(set(several)) < len(several):
            raise ValueError(f"{name}: expected different values, got {several}")
    return [Settings(**values | {"mi": w, "seed": s}) for s in options.seeds for w in weights]
