"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from harness.checkpoint import write_text
from harness.command import run_command
from harness.logs import terminal
from harness.output import keep_earlier, tell_if_nothing_to_resume

from .evaluate import entropy_bits, measure_mi, measure_swap, train_classifier
from .options import parser
from .report import Row, measured, results, table
from .settings import Settings
from .study import PART, Study, load_study, plan
from .train import train


def _folder(output: Path, name: str, settings: Settings) -> Path:
    return output / f"seed{settings.seed}" / name.replace(" ", "_")


def _bars(options: argparse.Namespace) -> bool:
    """Whether to show short bars; the training, which is long, writes lines to a log instead."""
    return not options.quiet and terminal()


def _measure(
    study: Study, name: str, settings: Settings, classifier: torch.nn.Module, figures: Path | None
) -> Row:
    options = study.options
    start = time.perf_counter()
    vae, history = train(
        settings,
        study.data,
        _folder(options.output, name, settings),
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
        progress=_bars(options),
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
    drawing = argparse.Namespace(**{**vars(options), "quiet": not _bars(options)})
    study = replace(load_study(drawing), options=options)
    print(_describe(study), flush=True)
    if options.resume:
        folders = (_folder(options.output, name, settings) for name, settings in runs)
        tell_if_nothing_to_resume(options.output, folders)
    classifier, scores = train_classifier(
        study.data,
        epochs=options.classifier_epochs,
        seed=0,
        device=study.device,
        progress=_bars(options),
    )
    accuracy = dict(zip(study.data.attribute_names, scores, strict=True))
    entropy = _entropy(study)
    rows: list[Row] = []
    for name, settings in runs:
        several = where is not None and len(options.seeds) > 1
        own = where / f"seed{settings.seed}" if several else where
        rows.append(_measure(study, name, settings, classifier, own))
        text = results(study, rows, entropy, accuracy, command)
        if len(rows) == 1 and not options.resume:
            keep_earlier(options.output / "results.json")
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
