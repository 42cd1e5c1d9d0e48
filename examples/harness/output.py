"""The folder of results: whether it can be written, what earlier runs left in it."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from .checkpoint import CheckpointError

__all__ = ["check_folder", "check_results", "keep_earlier", "tell_if_nothing_to_resume"]

LEFT = ("checkpoint.pt", "checkpoint.pt.previous", "measured.json")
"""Files in the folder of a run from which ``--resume`` goes on."""


def check_folder(folder: Path) -> None:
    """Fail now, not after an hour of training.

    Raises:
        ValueError: If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--output: cannot write to {folder}: {error.strerror}") from None


def check_results(paths: Iterable[Path]) -> None:
    """Whether each file of ``--draw`` can be read.

    Raises:
        ValueError: If one cannot.
    """
    for path in paths:
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ValueError(
                f"--draw: expected a results file, got {path}: {error.strerror}"
            ) from None


def keep_earlier(path: Path) -> None:
    """Rename the results of an earlier run, and the ``.npz`` beside them, before new ones come.

    ``results.json`` becomes ``results.1.json``, or the first number that is free for both files;
    a line on stdout says so. Where there are none, nothing happens.

    Raises:
        CheckpointError: If they cannot be renamed.
    """
    both = (path, path.with_suffix(".npz"))
    earlier = [file for file in both if file.exists()]
    if not earlier:
        return
    number = next(
        n
        for n in itertools.count(1)
        if not any(os.path.lexists(_numbered(file, n)) for file in both)
    )
    try:
        for file in earlier:
            file.rename(_numbered(file, number))
    except OSError as error:
        raise CheckpointError(
            f"cannot keep the earlier results as {_numbered(path, number)}: {error.strerror}"
        ) from error
    names = " and ".join(_numbered(file, number).name for file in earlier)
    print(f"kept the results of an earlier run as {names}", flush=True)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def tell_if_nothing_to_resume(output: Path, runs: Iterable[Path]) -> None:
    """Say on stdout that ``--resume`` finds nothing of any of the runs' folders."""
    if not any((run / name).exists() for run in runs for name in LEFT):
        print(f"nothing to resume in {output}: starting from the beginning", flush=True)
