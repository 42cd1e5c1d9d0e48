"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from vaereg.metrics import MIEstimate, SwapAccuracy

from .attributes import AttributeImages
from .checkpoint import CheckpointError, write_text
from .data import load_builtin, load_celeba, load_npz
from .evaluate import QUANTITIES, entropy_bits, measure_mi, measure_swap, train_classifier
from .models import MODELS
from .options import parser
from .train import Settings, train

# Faces for the measurements are drawn with a seed that no training set uses.
MEASURE_SEED = 1_000_003


@dataclass(frozen=True)
class Study:
    """What is trained and measured: images, where they are measured, and on which device."""

    data: AttributeImages
    measured: AttributeImages
    part: str
    device: torch.device
    options: argparse.Namespace


@dataclass(frozen=True)
class Row:
    """One trained model and its measurements."""

    name: str
    settings: Settings
    mi: dict[str, MIEstimate]
    swap: dict[str, SwapAccuracy]
    history: list[dict[str, float]]
    seconds: float


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device: expected an available device, got {name!r}: {error}"
        ) from None
    return device


def _study(options: argparse.Namespace) -> Study:
    """Load or draw the images."""
    show, names = not options.quiet, options.attributes
    device = _device(options.device)
    source = options.data
    if source == "builtin":
        n = 6000 if options.images is None else options.images
        if n < 50 or options.measure_images < 300:
            raise ValueError(
                "--images and --measure-images: expected at least 50 and 300 faces, got "
                f"{n} and {options.measure_images}"
            )
        data = load_builtin(n, names, 0, balance=options.balance, progress=show)
        fresh = load_builtin(
            options.measure_images,
            names,
            MEASURE_SEED,
            fractions=(0.01, 0.01, 0.98),
            balance=options.balance,
            progress=show,
        )
        return Study(data, fresh, "test", device, options)
    path = Path(source)
    if path.is_dir():
        data = load_celeba(
            path,
            names,
            limit=options.images,
            balance=options.balance,
            on_error="skip" if options.skip_unreadable else "raise",
            progress=show,
        )
    else:
        keys = {"label_key": options.label_key} if options.label_key else {}
        data = load_npz(
            path, None if keys else names, balance=options.balance, progress=show, **keys
        )
    # All rows that the model was not trained on: the fresh critics need as many as they can get.
    held = dict(data.split)
    held["held out"] = _joined(data, "val", "test")
    return Study(data, replace(data, split=held), "held out", device, options)


def _joined(data: AttributeImages, *parts: str) -> Any:
    import numpy as np

    return np.sort(np.concatenate([data.split[part] for part in parts]))


def _plan(options: argparse.Namespace) -> list[tuple[str, Settings]]:
    """The runs: a name and settings each."""
    common = {
        name: getattr(options, name)
        for name in Settings.__dataclass_fields__
        if name not in ("model", "seed")
    }
    plan: list[tuple[str, Settings]] = []
    for seed in options.seeds:
        if options.sweep:
            weight, *values = options.sweep
            if weight not in ("alpha", "beta", "gamma") or not values:
                raise ValueError(
                    f"--sweep: expected alpha, beta or gamma and values, got {options.sweep}"
                )
            for value in values:
                settings = Settings("mmvae", seed=seed, **{**common, weight: float(value)})
                plan.append((f"mmvae {weight}={float(value):g}", settings))
        else:
            for model in MODELS if options.model == "all" else (options.model,):
                plan.append((model, Settings(model, seed=seed, **common)))
    return plan


def _measure(
    study: Study, name: str, settings: Settings, classifier: torch.nn.Module, several: bool
) -> Row:
    options = study.options
    folder = options.output / f"seed{settings.seed}" / name.replace(" ", "_")
    start = time.perf_counter()
    vae, history = train(
        settings,
        study.data,
        folder,
        device=study.device,
        resume=options.resume,
        progress=not options.quiet,
        tensorboard=options.tensorboard,
    )
    seconds = time.perf_counter() - start
    mi = measure_mi(
        vae,
        study.measured,
        study.part,
        runs=options.mi_runs,
        seed=settings.seed,
        progress=not options.quiet,
    )
    swap = measure_swap(vae, classifier, study.measured, study.part, seed=settings.seed)
    if not options.no_figures:
        from . import figures

        where = options.output / "figures" / (f"seed{settings.seed}" if several else "")
        ceiling = entropy_bits(_labels(study.measured, study.part))
        label = name.replace(" ", "_")
        for draw in (figures.scatter, figures.grid, figures.pairs, figures.swap):
            draw(vae, study.measured, study.part, label, where)
        figures.trends(history, mi, ceiling, label, where)
    return Row(name, settings, mi, swap, history, seconds)


def _labels(data: AttributeImages, part: str) -> torch.Tensor:
    return torch.from_numpy(data.attributes[data.split[part]])


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def table(rows: list[Row], entropy: float, accuracy: dict[str, float]) -> str:
    """The comparison as text: bits by fresh critics, and swap accuracy.

    With several seeds the spread is over the seeds' means, else over the fresh critics.
    """
    header = ["model", *(f"{q} bits" for q in QUANTITIES)]
    header += [f"swap {name}" for name in accuracy]
    lines = [header]
    for name in dict.fromkeys(row.name for row in rows):
        own = [row for row in rows if row.name == name]
        cells = [name]
        for q in QUANTITIES:
            if len(own) > 1:
                cells.append(_spread([row.mi[q].mean for row in own]))
            else:
                cells.append(f"{own[0].mi[q].mean:.3f} ± {own[0].mi[q].std:.3f}")
        for attribute in accuracy:
            cells.append(_spread([100 * row.swap[attribute].accuracy for row in own]) + "%")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    real = ", ".join(f"{name} {100 * value:.2f}%" for name, value in accuracy.items())
    text.insert(1, "  ".join("-" * w for w in widths))
    text.append(f"H(y) = {entropy:.3f} bits; the classifier on real test images: {real}")
    return "\n".join(text)


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _results(study: Study, rows: list[Row], entropy: float, accuracy: dict[str, float]) -> str:
    device = study.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    content = {
        "commit": _commit(),
        "torch": str(torch.__version__),
        "device": name,
        "threads": torch.get_num_threads(),
        "command": " ".join(sys.argv[1:]),
        "data": study.data.source,
        "attributes": list(study.data.attribute_names),
        "images": {part: len(index) for part, index in study.data.split.items()},
        "measured_on": {
            "data": study.measured.source,
            "rows": len(study.measured.split[study.part]),
        },
        "entropy_bits": entropy,
        "classifier_accuracy_on_real_images": accuracy,
        "runs": [
            {
                "name": row.name,
                "settings": asdict(row.settings),
                "seconds": round(row.seconds, 1),
                "mi_bits": {q: asdict(estimate) for q, estimate in row.mi.items()},
                "swap": {attribute: asdict(value) for attribute, value in row.swap.items()},
                "history": row.history,
            }
            for row in rows
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def run(options: argparse.Namespace) -> list[Row]:
    """Train, measure, write; what is finished is written even if a later run fails."""
    plan = _plan(options)
    study = _study(options)
    print(
        f"{study.data.source}: {study.data.images.shape[0]} images, {study.data.attribute_names}"
    )
    classifier, scores = train_classifier(
        study.data,
        epochs=options.classifier_epochs,
        seed=0,
        device=study.device,
        progress=not options.quiet,
    )
    accuracy = dict(zip(study.data.attribute_names, scores, strict=True))
    entropy = entropy_bits(_labels(study.measured, study.part))
    rows: list[Row] = []
    for name, settings in plan:
        rows.append(_measure(study, name, settings, classifier, len(options.seeds) > 1))
        text = _results(study, rows, entropy, accuracy)
        write_text(options.output / "results.json", text)
    print("\n" + table(rows, entropy, accuracy))
    if not options.no_figures:
        from . import figures

        where = options.output / "figures"
        if options.sweep:
            figures.sweep(
                {getattr(row.settings, options.sweep[0]): row.mi for row in rows},
                options.sweep[0],
                where,
            )
        else:
            figures.comparison({row.name: row.mi for row in rows}, entropy, where)
        print(f"figures: {where}")
    print(f"results: {options.output / 'results.json'}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the example; errors that the user can mend are one line each.

    Returns:
        The exit status: 0, or 2 after such an error.
    """
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (CheckpointError, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"mmvae_celeba.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nmmvae_celeba.py: stopped; --resume goes on from the last whole epoch",
            file=sys.stderr,
        )
        return 130
    return 0
