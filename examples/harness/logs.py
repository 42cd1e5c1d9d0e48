"""What a training run shows and writes besides its checkpoint."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["as_csv", "progress_bar", "tensorboard_writer", "terminal"]


class _Lines:
    """Stands for a bar where there is no terminal: a line on stderr for each tenth of a run."""

    def __init__(self, text: str, total: int, done: int) -> None:
        self.text, self.total, self.done = text, total, done
        self.tenth = self._tenths()
        self.note = ""
        self.start = time.perf_counter()

    def _tenths(self) -> int:
        return 10 * self.done // max(self.total, 1)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        self.done += n
        if self._tenths() > self.tenth:
            self.tenth = self._tenths()
            seconds = time.perf_counter() - self.start
            print(
                f"{self.text}: {10 * self.tenth} %, step {self.done} of {self.total}, "
                f"{seconds:.0f} s{self.note}",
                file=sys.stderr,
                flush=True,
            )

    def set_postfix(self, *, refresh: bool = True, **values: object) -> None:
        self.note = "".join(f", {name} {value}" for name, value in values.items())


def terminal() -> bool:
    """Whether there is a terminal to show bars on: in a file they would be a line a step."""
    return sys.stderr is not None and sys.stderr.isatty()


def progress_bar(text: str, *, total: int, initial: int, show: bool) -> Any:
    """A bar over all steps of a run, which starts where a resumed run does.

    Where stderr is no terminal, a plain line for each tenth of the steps instead.
    """
    if show and not terminal():
        return _Lines(text, total, min(initial, total))
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
