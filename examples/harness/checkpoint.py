"""Checkpoints that are written whole or not at all, and of which two generations are kept."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint", "write_text"]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read, or continued with these options."""


class _Damaged(CheckpointError):
    """A file that was read but is no checkpoint of this program."""


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def _atomically(path: Path, write: Callable[[Path], object], *, keep: Path | None = None) -> None:
    """Write beside the path and move the whole file there; the old one moves to ``keep``."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        with open(scratch, "r+b") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        CheckpointError: If the file cannot be written; what was there before is untouched.
    """
    try:
        _atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error}; the file that was there before is untouched"
        ) from error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; the one before it stays as ``<name>.previous``.

    Raises:
        CheckpointError: If it cannot be written (e.g. the disk is full); the checkpoint before
            it is untouched, and training can go on from there once there is room.
    """
    try:
        _atomically(path, lambda scratch: torch.save(state, scratch), keep=_previous(path))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        kept = next((file for file in (path, _previous(path)) if file.exists()), None)
        raise CheckpointError(
            f"cannot write checkpoint {path}: {_first_line(error)}; "
            + (f"the one before it is untouched: {kept}" if kept else "there is none before it")
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, IsADirectoryError, MemoryError) as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {_first_line(error)}") from error
    except Exception as error:  # torch raises many kinds on a damaged file
        raise _Damaged(
            f"cannot read checkpoint {path}: expected a file written by this program, got a "
            f"damaged or foreign one ({type(error).__name__}: {_first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
        raise _Damaged(
            f"cannot read checkpoint {path}: expected a file written by this program, got one "
            "without its settings"
        )
    return state


def _newest(path: Path) -> dict[str, Any] | None:
    reasons: list[str] = []
    for file in (path, _previous(path)):
        if not file.exists():
            continue
        try:
            state = _read(file)
        except _Damaged as error:
            aside = file.with_name(file.name + ".damaged")
            os.replace(file, aside)
            reasons.append(f"{error}; it was moved aside as {aside.name}")
            continue
        if reasons:
            warnings.warn(f"{reasons[0]}; going on from {file.name}", stacklevel=4)
        return state
    if reasons:
        raise CheckpointError(
            "; ".join(reasons) + "; there is no earlier one: start again without --resume"
        )
    return None


def load_checkpoint(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The newest readable checkpoint, or ``None`` where there is none yet.

    A damaged one is reported, kept under ``<name>.damaged``, and the one before it used.

    Args:
        path: The checkpoint.
        settings: The options that training would go on with; all that the checkpoint knows must
            agree but ``epochs``.

    Raises:
        CheckpointError: If no generation can be read, or an option differs.
    """
    state = _newest(path)
    if state is None:
        return None
    old = state["settings"]
    differ = {
        name: (then, settings.get(name))
        for name, then in old.items()
        if name != "epochs" and json.dumps(then) != json.dumps(settings.get(name))
    }
    if differ:
        lines = ", ".join(f"{n}: {a!r} then, {b!r} now" for n, (a, b) in differ.items())
        raise CheckpointError(
            f"cannot resume from {path}: expected the options it was trained with, got {lines}; "
            "choose another --output or the same options"
        )
    return state
