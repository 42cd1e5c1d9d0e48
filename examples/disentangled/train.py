"""A training run of several models, with checkpoints and logs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harness.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_text
from harness.logs import as_csv, progress_bar

from .data import Pictures
from .settings import Settings
from .trainer import Trainer

__all__ = ["train"]


def _milestones(steps: int, count: int) -> list[int]:
    return sorted({round(steps * k / count) for k in range(1, count + 1)})


def train(
    runs: Sequence[Settings],
    data: Pictures,
    output: Path,
    *,
    device: torch.device,
    resume: bool = False,
    progress: bool = True,
    every: int = 5000,
    rows: int = 200,
) -> tuple[Trainer, float]:
    """Train models together, each with checkpoints and a log of its own.

    Args:
        runs: What to train.
        data: What on.
        output: Folder of the runs' folders.
        device: Where to compute.
        resume: Go on from the checkpoints, which must be of one step.
        progress: Show a progress bar.
        every: Steps between checkpoints.
        rows: Rows of the log.

    Returns:
        The trainer at the end, and the seconds that it took.

    Raises:
        CheckpointError: If a checkpoint cannot be read, written or continued.
    """
    trainer = Trainer(runs, data, device)
    paths = [output / run.folder / "checkpoint.pt" for run in runs]
    if resume:
        wanted = [trainer.state(i)["settings"] for i in range(len(runs))]
        states = [load_checkpoint(p, own) for p, own in zip(paths, wanted, strict=True)]
        known = [state for state in states if state is not None]
        if known and len(known) < len(states):
            raise CheckpointError(
                f"cannot resume: expected a checkpoint of each of {len(runs)} models that are "
                f"trained together, got {len(known)}"
            )
        if known:
            try:
                trainer.restore(known)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise CheckpointError(
                    f"cannot resume from {paths[0]}: expected the state of these networks and "
                    f"optimizers, got another ({type(error).__name__}: {error})"
                ) from error
    total = trainer.first.steps
    probes = set(_milestones(total, trainer.first.probes) if trainer.first.probes else [])
    noted = set(_milestones(total, min(rows, total))) | probes
    text = runs[0].name if len(runs) == 1 else f"{len(runs)} models"
    start = time.perf_counter()
    with progress_bar(text, total=total, initial=trainer.step, show=progress) as bar:
        while trainer.step < total:
            trainer.train_step()
            bar.update()
            if trainer.step in noted:
                trainer.write_row(probe=trainer.step in probes)
                last = [history[-1]["nll"] for history in trainer.history if history]
                bar.set_postfix(nll=f"{np.mean(last):.1f}", refresh=False)
            if trainer.step % every == 0 or trainer.step == total:
                _save(trainer, paths)
    return trainer, time.perf_counter() - start


def _save(trainer: Trainer, paths: Sequence[Path]) -> None:
    for i, path in enumerate(paths):
        if i in trainer.failed:  # the last checkpoint is from before it
            continue
        save_checkpoint(path, trainer.state(i))
        write_text(path.with_name("log.csv"), as_csv(trainer.history[i]))
