"""What a training run shows and writes besides its checkpoint."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

__all__ = ["as_csv", "progress_bar", "tensorboard_writer"]


def progress_bar(text: str, *, total: int, initial: int, show: bool) -> Any:
    """A bar over all steps of a run, which starts where a resumed run does."""
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        initial=min(initial, total),
        desc=text,
        unit="step",
        disable=not show,
        dynamic_ncols=True,
    )


def tensorboard_writer(folder: Path) -> Any:
    """A writer of TensorBoard events.

    Raises:
        ImportError: With the command that installs it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("--tensorboard needs tensorboard: pip install tensorboard") from error
    return SummaryWriter(str(folder / "tensorboard"))


def as_csv(history: list[dict[str, float]]) -> str:
    """A history as CSV text: a header and a row an epoch."""
    names = list(dict.fromkeys(name for row in history for name in row))
    out = io.StringIO()
    table = csv.DictWriter(out, names, lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    return out.getvalue()
