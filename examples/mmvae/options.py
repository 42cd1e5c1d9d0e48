"""The command line of the example."""

from __future__ import annotations

import argparse
from pathlib import Path

from .models import MODELS, PRESETS
from .settings import Settings

DEFAULTS = Settings(model="mmvae")


def parser() -> argparse.ArgumentParser:
    """All options, grouped; the defaults are those of the small run on the built-in faces."""
    p = argparse.ArgumentParser(
        prog="mmvae_celeba.py",
        allow_abbrev=False,
        description=(
            "Train r-CVAE, CSVAE and MMVAE on faces with binary attributes, measure I(c;y), "
            "I(z;y) and I(z;c) with fresh critics, test attribute swaps, and write tables and "
            "figures. "
            "Without options it draws its own faces and needs no download."
        ),
        epilog=(
            "examples: mmvae_celeba.py --output runs/demo | mmvae_celeba.py --data CELEBA_FOLDER "
            "--attributes Male Eyeglasses --preset full --epochs 100 --device cuda"
        ),
    )
    data = p.add_argument_group("data")
    data.add_argument(
        "--data",
        default="builtin",
        help="'builtin' (faces drawn by the program), a CelebA folder (img_align_celeba/, "
        "list_attr_celeba.txt), or an .npz with images, attributes, attribute_names",
    )
    data.add_argument(
        "--attributes", nargs="+", default=["Eyeglasses"], metavar="NAME", help="one or several"
    )
    data.add_argument("--label-key", metavar="KEY", help="name of a 0/1 label array in the .npz")
    data.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="images to draw (built-in; default 8000) or to use at most (CelebA folder)",
    )
    data.add_argument(
        "--measure-images",
        type=int,
        default=6000,
        metavar="N",
        help="fresh faces for the measurements (built-in; default %(default)s)",
    )
    data.add_argument(
        "--held-out",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="images of a folder or .npz kept from training for the measurements, where no "
        "partition file says so (default %(default)s)",
    )
    data.add_argument(
        "--balance",
        type=float,
        metavar="SHARE",
        help="drop surplus images until this share has the first attribute",
    )
    data.add_argument(
        "--skip-unreadable", action="store_true", help="leave out pictures that cannot be read"
    )
    model = p.add_argument_group("model")
    model.add_argument("--model", choices=[*MODELS, "all"], default="all", help="default: all")
    model.add_argument(
        "--preset", choices=sorted(PRESETS), default=DEFAULTS.preset, help="default: %(default)s"
    )
    for name, text in (
        ("alpha", "weight of the reward I(c;y)"),
        ("beta", "weight of the penalty I(z;y)"),
        ("gamma", "weight of the penalty I(z;c)"),
        ("pixel_std", "standard deviation of the pixel likelihood"),
        ("lr", "learning rate of encoder and decoder, x 0.75 at epochs 1, 2, 4, 8, ..."),
        ("c_lr", "the same for the head of c"),
        ("critic_lr", "learning rate of the critics"),
        ("warmup", "epochs over which beta and gamma rise from 0"),
    ):
        model.add_argument(
            f"--{name.replace('_', '-')}",
            type=float,
            default=getattr(DEFAULTS, name),
            metavar="X",
            help=f"{text} (default %(default)s)",
        )
    for name, text in (
        ("critic_steps", "critic steps an encoder step"),
        ("epochs", "passes over the training images"),
        ("batch", "images a step"),
    ):
        model.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=getattr(DEFAULTS, name),
            metavar="N",
            help=f"{text} (default %(default)s)",
        )
    run = p.add_argument_group("run")
    run.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    run.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)"
    )
    run.add_argument(
        "--output",
        type=Path,
        default=Path("runs/mmvae"),
        help="folder (default %(default)s); without --resume the results.json of an earlier run "
        "there is kept as results.1.json, .2, ...; checkpoints and figures are replaced",
    )
    run.add_argument(
        "--resume", action="store_true", help="go on from the checkpoints in the output folder"
    )
    run.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    run.add_argument("--quiet", action="store_true", help="no progress bars or lines")
    run.add_argument(
        "--mi-runs", type=int, default=3, metavar="N", help="fresh critics each (default 3)"
    )
    run.add_argument(
        "--classifier-epochs", type=int, default=8, metavar="N", help="default %(default)s"
    )
    run.add_argument(
        "--sweep",
        nargs="+",
        metavar=("NAME", "X"),
        help="train mmvae once for each value of alpha, beta or gamma, e.g. --sweep gamma 0 1 4",
    )
    run.add_argument("--no-figures", action="store_true", help="tables and JSON only")
    return p
