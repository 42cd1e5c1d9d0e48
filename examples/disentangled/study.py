"""The runs of a study: which are still to be done, which are trained together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.checkpoint import load_checkpoint, write_text
from harness.command import check_folder, commit, device_of
from harness.output import keep_earlier

from .data import Pictures
from .evaluate import DEPTHS, Codes, Depth, measure
from .objectives import order
from .options import settings_of
from .pages import page_name, write_page
from .settings import Settings
from .shifts import repeated
from .sources import load
from .train import train
from .trainer import Trainer, identity

__all__ = ["Row", "Study", "finished", "load_study", "rows_of"]


@dataclass(frozen=True)
class Study:
    """What is trained and measured, on what and where."""

    runs: list[Settings]
    data: Pictures
    depth: Depth
    depth_name: str
    device: torch.device
    together: int
    options: argparse.Namespace


@dataclass(frozen=True)
class Row:
    """One trained model and its measurements.

    Attributes:
        settings: Of the run.
        values: All that was measured.
        history: Of the training.
        seconds: Of the training, shared evenly among the models trained together.
        together: Models that were trained together.
        commit: Of the code that trained and measured it.
    """

    settings: Settings
    values: dict[str, Any]
    history: list[dict[str, float]]
    seconds: float
    together: int
    commit: str = ""


def load_study(options: argparse.Namespace) -> Study:
    """Read the options, find the device, the output folder and the pictures.

    Raises:
        ValueError: If one of them cannot be used.
    """
    runs = settings_of(options)
    for name in ("together", "checkpoint_every"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    device = device_of(options.device)
    check_folder(options.output)
    data = load(options.data, options.cache, progress=not options.quiet)
    if runs[0].batch > len(data):
        raise ValueError(f"--batch: expected at most {len(data)} pictures, got {runs[0].batch}")
    name = options.measure or ("small" if options.preset == "small" else "full")
    _check_factors(data, DEPTHS[name])
    together = options.together or (16 if device.type == "cuda" else 1)
    return Study(runs, data, DEPTHS[name], name, device, together, options)


def _check_factors(data: Pictures, depth: Depth) -> None:
    """Fail now, not after the training.

    Raises:
        ValueError: If no score can be read on the factors of the pictures that are measured.
    """
    y = data.factors[data.spread(depth.rows or len(data), grid=depth.grid)]
    kept = np.flatnonzero(y.min(0) != y.max(0))
    if not len(kept):
        raise ValueError(
            f"--data: expected a factor with several values, got one value of each of {data.names}"
        )
    if not len(repeated(y[:, kept])):
        lone = max(kept, key=lambda k: len(np.unique(y[:, k])))
        raise ValueError(
            f"--data: expected values of factors that several of {len(y)} pictures share, got "
            f"{len(np.unique(y[:, lone]))} values of {data.names[lone]!r}"
        )


def _what(study: Study, run: Settings) -> dict[str, Any]:
    """What a stored measurement must agree in to be taken again."""
    measured = {"measured": study.depth_name, "keep_codes": study.options.keep_codes}
    return asdict(run) | identity(study.data) | measured


def _stored(study: Study, run: Settings, *, codes: bool = True) -> Row | None:
    """The measurements of a run that is finished; without ``codes`` whichever of them it kept."""
    path = study.options.output / run.folder / "measured.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wanted = _what(study, run)
        if not codes:
            wanted["keep_codes"] = found["what"]["keep_codes"]
        if found["what"] != wanted:
            return None
        own = (found[name] for name in ("values", "history", "seconds", "together"))
        return Row(run, *own, commit=found.get("commit", ""))
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None


def finished(study: Study) -> list[Row]:
    """All runs of the output folder on these pictures and of this measure, whoever trained them.

    Raises:
        ValueError: If there are none, or they differ in more than objective and seed.
    """
    rows: list[Row] = []
    output = study.options.output
    for path in output.glob("*/*/measured.json"):
        try:
            own = Settings(**json.loads(path.read_text(encoding="utf-8"))["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        row = _stored(study, own, codes=False)
        if row is not None and output / own.folder == path.parent:
            rows.append(row)
    if not rows:
        raise ValueError(
            f"--gather: expected finished runs on {study.data.source} with --measure "
            f"{study.depth_name} in {output}, got none"
        )
    for field in set(asdict(rows[0].settings)) - {"objective", "seed"}:
        values = {getattr(row.settings, field) for row in rows}
        if len(values) > 1:
            raise ValueError(
                f"--gather: expected runs in {output} that differ in objective and seed only, got "
                f"{field} {' and '.join(sorted(map(str, values)))}"
            )
    late_pages(study, [row.settings for row in rows])
    return sorted(rows, key=lambda row: (row.settings.seed, order(row.settings.objective)))


def _groups(study: Study, runs: list[Settings]) -> list[list[Settings]]:
    """Runs that are trained together: as many as allowed, all at one step."""
    steps: dict[int, list[Settings]] = {}
    for run in runs:
        state = None
        if study.options.resume:
            path = study.options.output / run.folder / "checkpoint.pt"
            state = load_checkpoint(path, asdict(run) | identity(study.data))
        steps.setdefault(0 if state is None else state["step"], []).append(run)
    size = study.together
    return [own[k : k + size] for own in steps.values() for k in range(0, len(own), size)]


def rows_of(study: Study) -> Iterator[tuple[list[Row], list[str]]]:
    """Train and measure what is still to be done; all rows so far, after each group.

    Yields:
        Rows in the order of the runs, and a line for each run that failed.
    """
    done: dict[str, Row] = {}
    failed: list[str] = []
    if study.options.resume:
        found = {run.name: _stored(study, run) for run in study.runs}
        done = {name: row for name, row in found.items() if row is not None}
    pending = [run for run in study.runs if run.name not in done]
    late_pages(study, [run for run in study.runs if run.name in done])
    if not pending:
        yield [done[run.name] for run in study.runs], failed
    for group in _groups(study, pending):
        try:
            trainer, seconds = train(
                group,
                study.data,
                study.options.output,
                device=study.device,
                resume=study.options.resume,
                progress=not study.options.quiet,
                every=study.options.checkpoint_every,
            )
        except FloatingPointError as error:
            failed.append(str(error))
        else:
            failed += [f"{group[i].name}: {why}" for i, why in trainer.failed.items()]
            for i, run in enumerate(group):
                if i not in trainer.failed:
                    done[run.name] = _measured(study, trainer, i, seconds / len(group))
        yield [done[run.name] for run in study.runs if run.name in done], failed


def _measured(study: Study, trainer: Trainer, i: int, seconds: float) -> Row:
    run = trainer.runs[i]
    values, codes, pictures = measure(
        trainer.encoder, trainer.decoder, i, trainer.source, run.likelihood, study.depth
    )
    folder = study.options.output / run.folder
    if study.options.pages:
        write_page(trainer, i, _page(study, run), progress=not study.options.quiet)
    kept = codes if study.options.keep_codes else codes.some(study.depth.histogram)
    write_arrays(folder / "codes.npz", _arrays(kept))
    write_arrays(folder / "pictures.npz", pictures)
    row = Row(run, values, trainer.history[i], seconds, len(trainer.runs), commit())
    content = asdict(row) | {"what": _what(study, run)}
    if study.options.resume and _stored(study, run) is None:
        keep_earlier(folder / "measured.json")  # of another measure: it may have taken hours
    write_text(folder / "measured.json", json.dumps(content, allow_nan=False) + "\n")
    return row


def _page(study: Study, run: Settings) -> Path:
    return study.options.output / "pages" / page_name(run.objective, run.seed)


def late_pages(study: Study, runs: Sequence[Settings]) -> None:
    """Pages of runs that were finished before pages were asked for; a line where none can be."""
    for run in runs if study.options.pages else ():
        page, path = _page(study, run), study.options.output / run.folder / "checkpoint.pt"
        # A page from before the last checkpoint may be of another model.
        fresh = page.exists() and not (
            path.exists() and path.stat().st_mtime > page.stat().st_mtime
        )
        if not fresh:
            _late_page(study, run, path)


def _late_page(study: Study, run: Settings, path: Path) -> None:
    state = load_checkpoint(path, asdict(run) | identity(study.data))
    if state is None or state["step"] < run.steps:
        print(f"{run.name}: no page, for {path} is not there or not of the last step", flush=True)
        return
    trainer = Trainer([run], study.data, study.device)
    trainer.restore([state])
    write_page(trainer, 0, _page(study, run), progress=not study.options.quiet)


def _arrays(codes: Codes) -> dict[str, NDArray[Any]]:
    return {
        "mean": codes.mean.numpy(),
        "logvar": codes.logvar.numpy(),
        "factors": codes.factors,
        "names": np.array(codes.names),
    }


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    with open(scratch, "wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
    scratch.replace(path)
