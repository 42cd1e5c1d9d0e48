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


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(scratch)
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
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
    previous = path.with_name(path.name + ".previous")
    try:
        _atomically(path.with_name(path.name + ".new"), lambda part: torch.save(state, part))
        if path.exists():
            os.replace(path, previous)
        os.replace(path.with_name(path.name + ".new"), path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        kept = path if path.exists() else previous if previous.exists() else None
        raise CheckpointError(
            f"cannot write checkpoint {path}: {error}; "
            + (f"the one before it is untouched: {kept}" if kept else "there is none before it")
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on a damaged file
        raise CheckpointError(
            f"cannot read checkpoint {path}: expected a file written by this program, got a "
            f"damaged or foreign one ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(state, dict) or "settings" not in state:
        raise CheckpointError(f"cannot read checkpoint {path}: expected 'settings' inside of it")
    return state


def load_checkpoint(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The newest readable checkpoint, or ``None`` where there is none yet.

    A damaged one is reported, kept under ``<name>.damaged``, and the one before it used.

    Args:
        path: The checkpoint.
        settings: The options that training would go on with; all must agree but ``epochs``.

    Raises:
        CheckpointError: If no generation can be read, or an option differs.
    """
    previous = path.with_name(path.name + ".previous")
    state = None
    if path.exists():
        try:
            state = _read(path)
        except CheckpointError as error:
            os.replace(path, path.with_name(path.name + ".damaged"))
            if not previous.exists():
                raise CheckpointError(
                    f"{error}; it was moved aside as {path.name}.damaged, and there is no earlier "
                    "one: start again without --resume"
                ) from error
            warnings.warn(f"{error}; going on from {previous.name}", stacklevel=2)
    if state is None and previous.exists():
        state = _read(previous)
    if state is None:
        return None
    old = state["settings"]
    differ = {
        name: (old.get(name), settings.get(name))
        for name in sorted(old.keys() | settings.keys())
        if name != "epochs" and json.dumps(old.get(name)) != json.dumps(settings.get(name))
    }
    if differ:
        lines = ", ".join(f"{n}: {a!r} then, {b!r} now" for n, (a, b) in differ.items())
        raise CheckpointError(
            f"cannot resume from {path}: expected the options it was trained with, got {lines}; "
            "choose another --output or the same options"
        )
    return state
