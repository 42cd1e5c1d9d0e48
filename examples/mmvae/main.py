"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from harness.checkpoint import write_text
from harness.command import run_command

from .evaluate import entropy_bits, measure_mi, measure_swap, train_classifier
from .options import parser
from .report import Row, measured, results, table
from .settings import Settings
from .study import PART, Study, load_study, plan
from .train import train


def _measure(
    study: Study, name: str, settings: Settings, classifier: torch.nn.Module, figures: Path | None
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
        PART,
        runs=options.mi_runs,
        seed=settings.seed,
        progress=not options.quiet,
    )
    swap = measure_swap(vae, classifier, study.measured, PART, seed=settings.seed)
    if figures is not None:
        from .figures import grid, pairs, scatter, trends
        from .figures import swap as swaps

        for draw in (scatter, grid, pairs, swaps):
            draw(vae, study.measured, PART, name, figures)
        trends(history, mi, _entropy(study), name, figures)
    return Row(name, settings, mi, swap, history, seconds)


def _entropy(study: Study) -> float:
    rows = study.measured.split[PART]
    return entropy_bits(torch.from_numpy(study.measured.attributes[rows]))


def _describe(study: Study) -> str:
    parts = ", ".join(f"{len(rows)} {part}" for part, rows in study.data.split.items())
    names = ", ".join(study.data.attribute_names)
    return (
        f"{study.data.source}: {parts}; attributes {names}; "
        f"measured on {len(study.measured.split[PART])}, none of them trained on"
    )


def run(options: argparse.Namespace, command: str) -> list[Row]:
    """Train, measure, write; what is finished is written even if a later run fails."""
    runs = plan(options)
    where = None if options.no_figures else options.output / "figures"
    if where is not None:
        from . import figures  # without matplotlib fail now, not after the training
    study = load_study(options)
    print(_describe(study), flush=True)
    classifier, scores = train_classifier(
        study.data,
        epochs=options.classifier_epochs,
        seed=0,
        device=study.device,
        progress=not options.quiet,
    )
    accuracy = dict(zip(study.data.attribute_names, scores, strict=True))
    entropy = _entropy(study)
    rows: list[Row] = []
    for name, settings in runs:
        several = where is not None and len(options.seeds) > 1
        own = where / f"seed{settings.seed}" if several else where
        rows.append(_measure(study, name, settings, classifier, own))
        text = results(study, rows, entropy, accuracy, command)
        write_text(options.output / "results.json", text)
    print("\n" + table(rows, entropy, accuracy))
    if where is not None:
        if options.sweep:
            weight = options.sweep[0]
            values = list(dict.fromkeys(getattr(settings, weight) for _, settings in runs))
            figures.sweep(measured(rows), values, weight, where)
        else:
            figures.comparison(measured(rows), entropy, where)
        print(f"figures: {where}")
    print(f"results: {options.output / 'results.json'}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    return run_command(
        "mmvae_celeba.py",
        parser(),
        run,
        arguments,
        smaller="--batch or --preset",
        kept="the last whole epoch",
    )
