"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from mmvae.checkpoint import CheckpointError, write_text

from .options import parser
from .report import as_json, pictures, results, table
from .study import load_study, rows_of, write_arrays

PROGRAM = "disentangled_dsprites.py"


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Train, measure, write; what is finished is written even if a later run fails."""
    where = options.output / "figures"
    if options.draw or not options.no_figures:
        from . import figures  # without matplotlib fail now, not after the training
    if options.draw:
        figures.draw(options.draw, where)
        print(f"figures: {where}")
        return {}
    study = load_study(options)
    sizes = ", ".join(f"{n} {s}" for n, s in zip(study.data.names, study.data.sizes, strict=True))
    print(f"{study.data.source}: {len(study.data)} pictures; factors {sizes}", flush=True)
    path = options.output / "results.json"
    content: dict[str, Any] = {}
    failed: list[str] = []
    for rows, failed in rows_of(study):
        if rows:
            content = results(study, rows, failed, command)
            write_arrays(path.with_suffix(".npz"), pictures(study, rows))
            write_text(path, as_json(content))
    if not content:
        raise FloatingPointError("; ".join(failed))
    if not options.no_figures:
        figures.draw(path, where)
        print(f"figures: {where}")
    print(f"results: {path}\n\n{table(content)}")
    return content


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
        print(
            f"{PROGRAM}: expected room on the device, got none; lower --together or --batch",
            file=sys.stderr,
        )
        return 2
    except (CheckpointError, ValueError, OSError, FloatingPointError, ImportError) as error:
        print(f"{PROGRAM}: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: stopped; --resume goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0
