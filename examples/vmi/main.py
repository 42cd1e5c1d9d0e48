"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import torch

from mmvae.checkpoint import CheckpointError, write_text

from .data import Pictures, load
from .evaluate import measure
from .options import parser, settings_of
from .report import Row, as_json, pictures, results, table, write_pictures
from .settings import Settings
from .train import train

PROGRAM = "vmi_digits.py"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device: expected an available device, got {name!r}: {reason}"
        ) from None
    return device


def _check_folder(folder: Path) -> None:
    """Fail now, not after an epoch of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--output: expected a folder that can be written, got {folder}: {error.strerror}"
        ) from None


def _row(
    settings: Settings, data: Pictures, device: torch.device, options: argparse.Namespace
) -> Row:
    folder = options.output / f"seed{settings.seed}" / f"{settings.model}_mi={settings.mi:g}"
    done = train(
        settings,
        data,
        folder,
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
        figures.draw(options.draw, where)
        print(f"figures: {where}")
        return []
    runs = settings_of(options)
    device = _device(options.device)
    _check_folder(options.output)
    data = load(options.data).first(options.images)
    parts = ", ".join(f"{len(images)} {part}" for part, images in data.images.items())
    print(f"{data.source}: {parts} images of {data.size} x {data.size}", flush=True)
    rows: list[Row] = []
    path = options.output / "results.json"
    content = {}
    for settings in runs:
        rows.append(_row(settings, data, device, options))
        content = results(data, rows, device, command)
        write_pictures(path.with_suffix(".npz"), pictures(rows))
        write_text(path, as_json(content))
    if not options.no_figures:
        figures.draw([path], where)
        print(f"figures: {where}")
    print(f"results: {path}\n\n{table(content)}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the example; errors that the user can mend are one line each.

    Returns:
        The exit status: 0, or 2 after such an error.
    """
    options = parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    # Results are passed on: where the data lay on one machine is nobody's business.
    command = shlex.join(Path(w).name if Path(w).is_absolute() else w for w in words)
    try:
        run(options, command)
    except torch.OutOfMemoryError:
        print(f"{PROGRAM}: expected room on the device, got none; lower --batch", file=sys.stderr)
        return 2
    except (CheckpointError, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"{PROGRAM}: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped; --resume goes on from the last whole epoch", file=sys.stderr)
        return 130
    return 0
