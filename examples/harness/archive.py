"""Arrays from ``.npz`` files, with errors that say what was expected of which option."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_names", "damaged", "no_array", "read_array"]

_DAMAGED = (EOFError, NotImplementedError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises."""


def damaged(path: Path, option: str = "--data") -> ValueError:
    """The error of a file that is no archive, or not a whole one."""
    return ValueError(
        f"{option}: expected an .npz archive, got {path.name}: not a whole .npz file at {path}"
    )


def no_array(path: Path, name: str, option: str = "--data") -> ValueError:
    """The error of an archive in which a name stands for something else than numbers."""
    return ValueError(
        f"{option}: expected an .npz archive, got {path.name}, where {name!r} holds Python "
        "objects or no array"
    )


def array_names(path: Path, *, option: str = "--data") -> list[str]:
    """Names of the arrays in an archive, in its order.

    Args:
        path: The archive.
        option: What to put in front of errors.

    Raises:
        ValueError: If it cannot be read or is no archive.
    """
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):  # numpy would take it for a pickle
                raise damaged(path, option)
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{option}: cannot read {path}: {error.strerror}") from error
    except (*_DAMAGED, ValueError) as error:
        raise damaged(path, option) from error


def read_array(path: Path, name: str, *, option: str = "--data") -> NDArray[Any]:
    """One array of an archive.

    Args:
        path: The archive.
        name: One of :func:`array_names`.
        option: What to put in front of errors.

    Raises:
        ValueError: If the archive is damaged or the array is one of Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: Any = archive[name]
    except ValueError as error:  # numpy's own words are about pickles
        raise no_array(path, name, option) from error
    except _DAMAGED as error:
        raise damaged(path, option) from error
    if isinstance(found, bytes):  # of a member that is no .npy
        raise no_array(path, name, option)
    return found
