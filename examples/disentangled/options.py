"""The command line of the example."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from .evaluate import DEPTHS
from .objectives import NAMES
from .settings import PLANS, PRESETS, Settings

TEXTS = {
    "z": "numbers of the code",
    "steps": "steps of encoder and decoder",
    "batch": "pictures a step",
    "lr": "learning rate of encoder and decoder",
    "critic_lr": "learning rate of critics",
    "critic_width": "units of a critic's hidden layers",
    "critic_depth": "a critic's hidden layers",
    "critic_steps": "critic steps a step",
    "probes": "exact measurements of the KL's parts on the way",
}


def parser() -> argparse.ArgumentParser:
    """All options, grouped; the defaults are those of the small form of the study."""
    names = "; ".join(f"{name} ({m.text}; {m.default:g})" for name, m in NAMES.items())
    p = argparse.ArgumentParser(
        prog="disentangled_dsprites.py",
        allow_abbrev=False,
        description=(
            "Train VAEs with any objectives on pictures with known factors, several seeds each, "
            "measure how disentangled their codes are, and write tables and figures. Without "
            "options it renders its own dSprites (a re-render, not the official archive) and runs "
            "a small form of the study in minutes."
        ),
        epilog=(
            f"objectives, with default weights: {names}. Joined by +: beta:4+dip2:10. Examples: "
            "disentangled_dsprites.py --objective beta:4 tc:6 factor:10+dip2:5 --steps 20000 | "
            "disentangled_dsprites.py --preset full --device cuda --together 32 --resume"
        ),
    )
    data = p.add_argument_group("data")
    data.add_argument(
        "--data",
        default="rerender",
        help="'rerender' (dSprites re-rendered by the program), the official dSprites .npz, or an "
        ".npz with images (N, 64, 64[, C]) and integer factors (N, K) (default %(default)s)",
    )
    data.add_argument(
        "--cache", type=Path, metavar="FOLDER",
        help="where rendered pictures are kept, 377 MB (default: vaereg in $XDG_CACHE_HOME or "
        "~/.cache)",
    )  # fmt: skip
    model = p.add_argument_group("model")
    model.add_argument(
        "--objective", nargs="+", metavar="NAME:WEIGHT", help="one or several; see below"
    )
    model.add_argument(
        "--preset", choices=sorted(PRESETS), default="small",
        help="objectives, seeds and values of options that are not given (default %(default)s)",
    )  # fmt: skip
    model.add_argument(
        "--likelihood", choices=("bernoulli", "gaussian"), help="default: bernoulli"
    )
    model.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="of encoder and decoder in training; 16 bits are faster on processors that have "
        "them (default: float32)",
    )  # fmt: skip
    for name, text in TEXTS.items():
        kind = type(getattr(Settings, name))
        model.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar="N" if kind is int else "X",
            help=f"{text} (default: {_defaults(name)})",
        )
    run = p.add_argument_group("run")
    run.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: 0 1 with small")
    run.add_argument(
        "--together", type=int, metavar="N",
        help="models trained at once (default: 1 on a CPU, 16 on a GPU)",
    )  # fmt: skip
    run.add_argument(
        "--measure", choices=sorted(DEPTHS),
        help="how much work the measurements are (default: small with small, else full)",
    )  # fmt: skip
    run.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)"
    )
    run.add_argument(
        "--output", type=Path, default=Path("runs/disentangled"),
        help="folder (default %(default)s); without --resume the results.json of an earlier run "
        "there is kept as results.1.json, .2, ... (with its .npz); checkpoints and figures are "
        "replaced",
    )  # fmt: skip
    run.add_argument(
        "--resume", action="store_true", help="go on from what there is in the output folder"
    )
    run.add_argument(
        "--gather", action="store_true",
        help="train nothing: results and figures of all finished runs in the output folder, such "
        "as those of several processes, that were measured as --measure says",
    )  # fmt: skip
    run.add_argument(
        "--checkpoint-every", type=int, default=5000, metavar="N", help="steps (default 5000)"
    )
    run.add_argument(
        "--keep-codes", action="store_true", help="keep the codes of all pictures that are encoded"
    )
    run.add_argument("--quiet", action="store_true", help="no progress bars or lines")
    run.add_argument(
        "--pages", action="store_true",
        help="write a page about each model that is trained, pages/*.html (a minute or two each)",
    )  # fmt: skip
    run.add_argument("--no-figures", action="store_true", help="tables and JSON only")
    run.add_argument(
        "--draw", type=Path, metavar="JSON",
        help="train nothing: draw the figures of stored results (with the .npz beside them) into "
        "the output folder",
    )  # fmt: skip
    return p


def _defaults(name: str) -> str:
    usual = getattr(Settings, name)
    own = {p: values[name] for p, values in PRESETS.items() if values.get(name, usual) != usual}
    return ", ".join([f"{usual:g}", *(f"{value:g} with {p}" for p, value in own.items())])


def settings_of(options: argparse.Namespace) -> list[Settings]:
    """The settings of each run, the seeds outermost.

    Raises:
        ValueError: If a value is out of range or given twice.
    """
    values: dict[str, Any] = dict(PRESETS[options.preset])
    for field in fields(Settings):
        given = getattr(options, field.name, None)
        if given is not None and field.name != "objective":
            values[field.name] = given
    objectives, seeds = PLANS[options.preset]
    objectives, seeds = options.objective or objectives, options.seeds or seeds
    runs = [Settings(**values, objective=o, seed=s) for s in seeds for o in objectives]
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"--objective and --seeds: expected different runs, got {twice[0]} twice")
    return runs
