"""Where pictures come from: the dSprites re-render, the official archive, any npz."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from harness.archive import array_names, damaged, no_array, read_array
from harness.command import errors_of
from harness.logs import terminal

from .data import Pictures, factors_of
from .render import NAMES, ROW, SIDE, SIZES, pack, render

__all__ = ["cache_folder", "load", "load_npz", "rerender"]

RERENDER = "dSprites re-render"


def cache_folder() -> Path:
    """Where rendered pictures are kept unless an option says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vaereg"


def _grid() -> NDArray[np.int8]:
    return factors_of(np.arange(prod(SIZES)), SIZES).astype(np.int8)


def _figures() -> Iterator[tuple[int, int, int]]:
    return ((int(a), int(b), int(c)) for a, b, c in np.ndindex(*SIZES[1:4]))


def _bar(steps: Any, text: str, total: int, show: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(
        steps, desc=text, total=total, disable=not (show and terminal()), dynamic_ncols=True
    )


def rerender(cache: Path | None = None, *, progress: bool = False) -> Pictures:
    """All 737,280 pictures of the dSprites re-render, rendered once and mapped from the cache.

    Args:
        cache: Folder of the file (377 MB); :func:`cache_folder` if not given.
        progress: Show a progress bar while rendering.

    Raises:
        OSError: If the file cannot be written.
    """
    # Another rendering is another file: the name says which.
    probe = b"".join(render(s, 3, 7).tobytes() for s in range(3))
    key = hashlib.sha256(probe).hexdigest()[:12]
    path = (cache_folder() if cache is None else cache) / f"dsprites-rerender-{key}.npy"
    shape = (prod(SIZES), ROW)
    store = _mapped(path, shape)
    if store is None:

        def pictures() -> Iterator[NDArray[np.uint8]]:
            bar = _bar(_figures(), "rendering", prod(SIZES[1:4]), progress)
            return (render(*figure).reshape(-1, ROW) for figure in bar)

        store = _written(path, shape, pictures())
    return Pictures(store, _grid(), NAMES, RERENDER)


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        store = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # none yet, or cut short
        return None
    return store if store.shape == shape and store.dtype == np.uint8 else None


def _written(
    path: Path, shape: tuple[int, ...], parts: Iterator[NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Write an array beside its place and move it there whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--cache: cannot write to {path.parent}: {error.strerror}") from None
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="writing-") as scratch:
        draft = Path(scratch) / path.name
        array = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
        done = 0
        for part in parts:
            array[done : done + len(part)] = part
            done += len(part)
        array.flush()
        del array
        os.replace(draft, path)
    store = _mapped(path, shape)
    assert store is not None
    return store


def load(data: str, cache: Path | None = None, *, progress: bool = False) -> Pictures:
    """``rerender`` or an .npz file; see :func:`load_npz`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its content is not as described.
    """
    if data == "rerender":
        return rerender(cache, progress=progress)
    return load_npz(Path(data), cache, progress=progress)


@errors_of("--data")
def load_npz(path: Path, cache: Path | None = None, *, progress: bool = False) -> Pictures:
    """Pictures and factors from an .npz file, without ever holding all pixels in memory.

    The official dSprites archive has ``imgs``, ``latents_classes`` and ``latents_names`` (in its
    pickled metadata, which is not read). Any other file has ``images``, uint8 or bool
    ``(N, 64, 64[, C])`` of 0 and 1 or of 0 to 255, and ``factors``, integers ``(N, K)``, and may
    have ``factor_names`` ``(K,)``.

    Pictures of two values and one channel are packed into the cache; others are held in memory.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the content is not as described.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--data: expected 'rerender' or an .npz file, got no {path}")
    found = array_names(path)
    official = "imgs" in found and "latents_classes" in found
    wanted = ("imgs", "latents_classes") if official else ("images", "factors")
    if not set(wanted) <= set(found):
        raise ValueError(f"expected the arrays {wanted} in {path.name}, got {found}")
    factors = read_array(path, wanted[1])
    names = read_array(path, "factor_names") if "factor_names" in found else None
    try:
        store = _stored(path, wanted[0], cache, progress)
    except KeyError as error:  # a member of this name that is no .npy
        raise no_array(path, wanted[0]) from error
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path) from error
    if factors.ndim == 1:
        factors = factors[:, None]
    if factors.dtype.kind not in "iu":
        raise ValueError(f"expected integers as factors, got {factors.dtype} in {path.name}")
    columns = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    known = NAMES if official else tuple(f"factor {k}" for k in range(len(columns)))
    labels = known if names is None else tuple(map(str, names.ravel()))
    source = "dSprites, official archive" if official else path.name
    return Pictures(store, np.stack(columns, 1).astype(np.int32), labels, source)


def _stored(path: Path, name: str, cache: Path | None, progress: bool) -> NDArray[np.uint8]:
    """The pictures of an archive: packed in the cache where they are binary, else in memory."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    kept = (cache_folder() if cache is None else cache) / f"packed-{key.hexdigest()[:16]}.npy"
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        shape, dtype = _header(stream)
        if dtype.hasobject:
            raise no_array(path, name)
        if dtype not in (np.dtype(np.uint8), np.dtype(bool)) or shape[1:3] != (SIDE, SIDE):
            raise ValueError(
                f"expected {name} uint8 or bool (N, {SIDE}, {SIDE}[, C]), channels last, got "
                f"{dtype} {shape}"
            )
        packed = (shape[0], ROW)
        single = len(shape) == 3 or shape[3:] == (1,)
        found = _mapped(kept, packed) if single else None
        if found is not None:
            return found
        chunks = _chunks(stream, shape, progress)
        first = next(chunks)
        binary = single and int(first.max()) <= 1
        if binary:
            return _written(kept, packed, map(_packed, itertools.chain([first], chunks)))
        images = np.concatenate(list(itertools.chain([first], chunks)))
    if dtype == np.dtype(bool) or int(images.max()) <= 1:
        images *= 255
    return images.reshape(shape[:3]) if single else images


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    if fortran or len(shape) not in (3, 4) or not shape[0]:
        raise ValueError(f"expected pictures in C order, got shape {shape}")
    return shape, dtype


def _chunks(
    stream: IO[bytes], shape: tuple[int, ...], progress: bool
) -> Iterator[NDArray[np.uint8]]:
    rows, size = 8192, prod(shape[1:])
    starts = range(0, shape[0], rows)
    for start in _bar(starts, "reading pictures", len(starts), progress):
        count = min(rows, shape[0] - start)
        content = stream.read(count * size)
        if len(content) < count * size:
            raise EOFError("the pictures end early")
        yield np.frombuffer(content, np.uint8).reshape(count, *shape[1:])


def _packed(chunk: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if int(chunk.max()) > 1:
        raise ValueError("expected pictures of 0 and 1 throughout, as the first are, got others")
    return pack(chunk.reshape(-1, SIDE, SIDE))
