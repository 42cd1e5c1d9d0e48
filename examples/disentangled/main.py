"""The example's entry: data, training, measurements, tables, figures, results.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.checkpoint import write_text
from harness.command import run_command
from harness.output import check_folder, check_results, keep_earlier, tell_if_nothing_to_resume

from .options import parser
from .report import as_json, pictures, results, table
from .settings import Settings
from .study import finished, load_study, rows_of, write_arrays

PROGRAM = "disentangled_dsprites.py"


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Train, measure, write; what is finished is written even if a later run fails."""
    where = options.output / "figures"
    if options.draw or not options.no_figures:
        from . import figures  # without matplotlib fail now, not after the training
    if options.draw:
        check_results([options.draw])
        check_folder(options.output)
        figures.draw(options.draw, where)
        print(f"figures: {where}")
        return {}
    study = load_study(options)
    sizes = ", ".join(f"{n} {s}" for n, s in zip(study.data.names, study.data.sizes, strict=True))
    print(f"{study.data.source}: {len(study.data)} pictures; factors {sizes}", flush=True)
    if options.resume and not options.gather:
        folders = (options.output / run.folder for run in study.runs)
        tell_if_nothing_to_resume(options.output, folders)
    path = options.output / "results.json"
    content: dict[str, Any] = {}
    failed: list[str] = []
    for rows, failed in [(finished(study), [])] if options.gather else rows_of(study):
        if rows:
            first, content = not content, results(study, rows, failed, command)
            # Of a resumed study some runs are still to come.
            known = [row.settings for row in rows] + ([] if options.gather else study.runs)
            again = options.resume or options.gather
            if first and not (again and _holds_only(path, content, known)):
                keep_earlier(path)
            write_arrays(path.with_suffix(".npz"), pictures(study, rows))
            write_text(path, as_json(content))
    if not content:
        raise FloatingPointError("; ".join(failed))
    if not options.no_figures:
        figures.draw(path, where)
        print(f"figures: {where}")
    print(f"results: {path}\n\n{table(content)}")
    return content


def _holds_only(path: Path, content: dict[str, Any], known: Sequence[Settings]) -> bool:
    """Whether the results that are there, if any, are of these runs, pictures and measure only."""
    settings = [asdict(own) for own in known]
    now = json.loads(as_json({name: content[name] for name in ("data", "pictures", "measured")}))
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        same = all(earlier[name] == value for name, value in now.items())
        return same and all(run["settings"] in settings for run in earlier["runs"])
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):  # whatever it is: it is kept
        return False


def main(arguments: list[str] | None = None) -> int:
    """Run the example; the exit status."""
    return run_command(
        PROGRAM,
        parser(),
        run,
        arguments,
        smaller="--together or --batch",
        kept="the last checkpoint",
    )
