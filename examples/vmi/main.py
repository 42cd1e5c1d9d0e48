"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from harness.checkpoint import write_text
from harness.command import device_of, run_command
from harness.output import check_folder, check_results, keep_earlier, tell_if_nothing_to_resume

from .data import Pictures, load
from .evaluate import measure
from .options import parser, settings_of
from .report import Row, as_json, pictures, results, table, write_pictures
from .settings import Settings
from .train import train

PROGRAM = "vmi_digits.py"


def _folder(output: Path, settings: Settings) -> Path:
    return output / f"seed{settings.seed}" / f"{settings.model}_mi={settings.mi:g}"


def _row(
    settings: Settings, data: Pictures, device: torch.device, options: argparse.Namespace
) -> Row:
    done = train(
        settings,
        data,
        _folder(options.output, settings),
        device=device,
        resume=options.resume,
        progress=not options.quiet,
    )
    return Row(settings, measure(done.vae, data, settings), done.history, done.seconds)


def run(options: argparse.Namespace, command: str) -> list[Row]:
    """Train, measure, write; what is finished is written even if a later run fails."""
    if not options.no_figures or options.draw:
        from . import figures  # without matplotlib fail now, not after the training
    where = options.output / "figures"
    if options.draw:
        check_results(options.draw)
        check_folder(options.output)
        figures.draw(options.draw, where)
        print(f"figures: {where}")
        return []
    runs = settings_of(options)
    device = device_of(options.device)
    check_folder(options.output)
    data = load(options.data).first(options.images)
    parts = ", ".join(f"{len(images)} {part}" for part, images in data.images.items())
    print(f"{data.source}: {parts} images of {data.size} x {data.size}", flush=True)
    if options.resume:
        tell_if_nothing_to_resume(options.output, (_folder(options.output, s) for s in runs))
    rows: list[Row] = []
    path = options.output / "results.json"
    content = {}
    for settings in runs:
        rows.append(_row(settings, data, device, options))
        content = results(data, rows, device, command)
        if len(rows) == 1 and not options.resume:
            keep_earlier(path)
        write_pictures(path.with_suffix(".npz"), pictures(rows))
        write_text(path, as_json(content))
    if not options.no_figures:
        figures.draw([path], where)
        print(f"figures: {where}")
    print(f"results: {path}\n\n{table(content)}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    return run_command(
        PROGRAM, parser(), run, arguments, smaller="--batch", kept="the last whole epoch"
    )
