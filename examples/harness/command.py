"""The command line around an example: its device, its commit, and errors in one line each."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .checkpoint import CheckpointError
from .output import check_folder

__all__ = ["check_folder", "commit", "device_of", "errors_of", "run_command"]


def device_of(name: str) -> torch.device:
    """The device of ``--device``; ``auto`` is CUDA where there is one.

    Raises:
        ValueError: If it is not available.
    """
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


@contextmanager
def errors_of(option: str) -> Generator[None, None, None]:
    """Put an option in front of the text of a ValueError that names none yet."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("--") else f"{option}: {text}") from error


def _naming(text: str, options: argparse.Namespace) -> str:
    """The text of an error, with the option where it starts with the name of a setting."""
    word = re.match(r"(\w+)(?=:| ')", text)
    if word:
        name = next((n for n in (word[1], f"{word[1]}s") if n in vars(options)), None)
        if name:
            return f"--{name.replace('_', '-')}{text[word.end() :]}"
    return text


def commit() -> str:
    """The commit that is checked out, ``-changed`` where a module differs from it or is not in it;
    ``unknown`` outside of a repository.
    """

    def git(*words: str) -> str:
        folder = Path(__file__).parents[1]
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        root = git("rev-parse", "--show-toplevel")
        # A module that git does not know belongs to no commit; results and notes are no code.
        changed = git("-C", root, "status", "--porcelain", "--untracked-files=all", "--", "*.py")
        return git("rev-parse", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run_command(
    program: str,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, str], Any],
    arguments: list[str] | None,
    *,
    smaller: str,
    kept: str,
) -> int:
    """Run an example; errors that the user can mend are one line each.

    Args:
        program: Its name, in front of errors.
        parser: Of its options.
        run: Receives the options, and the command as results keep it.
        arguments: Words of the command line; default the process's own.
        smaller: What to lower where the device has no room.
        kept: Where ``--resume`` goes on from.

    Returns:
        The exit status: 0, 2 after such an error, 130 after an interrupt.
    """
    options = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    # Results are passed on: where the data lay on one machine is nobody's business.
    command = shlex.join(Path(w).name if Path(w).is_absolute() else w for w in words)
    try:
        run(options, command)
    except torch.OutOfMemoryError:
        print(
            f"{program}: expected room on the device, got none; lower {smaller}", file=sys.stderr
        )
        return 2
    except (CheckpointError, ValueError, OSError, FloatingPointError, ImportError) as error:
        text = " ".join(str(error).splitlines())
        if isinstance(error, ValueError):
            text = _naming(text, options)
        print(f"{program}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{program}: stopped; --resume goes on from {kept}", file=sys.stderr)
        return 130
    return 0
