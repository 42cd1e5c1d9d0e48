"""The official CelebA folder: aligned pictures, attribute list, partition and a decoded cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.command import errors_of

from .attributes import (
    FRACTIONS,
    PARTS,
    AttributeImages,
    as_binary,
    balanced_rows,
    pick_names,
    pillow,
    random_split,
)
from .faces import SIZE, bar

LAYOUT = "img_align_celeba/000001.jpg ... and list_attr_celeba.txt"
ALIGNED = (178, 218)  # width, height of an aligned picture
CROP = 138  # side of the centre square that is kept


@errors_of("--data")
def load_celeba(
    root: str | Path,
    attributes: Sequence[str] = ("Eyeglasses",),
    *,
    limit: int | None = None,
    balance: float | None = None,
    fractions: Sequence[float] = FRACTIONS,
    sequential: bool = False,
    seed: int = 0,
    cache: str | Path | None = None,
    on_error: str = "raise",
    progress: bool = True,
) -> AttributeImages:
    """Load CelebA, cut the centre 138 x 138 out of each aligned picture and resize it to 64 x 64.

    The split is that of `list_eval_partition.txt` where the file exists, else a seeded one.
    Decoded pictures are kept in `cache` and mapped from there, not held in memory.

    Args:
        root: the folder with `img_align_celeba/`, `list_attr_celeba.txt` and, if wanted,
            `list_eval_partition.txt`.
        attributes: any of the names in the attribute list, in the order wanted.
        limit: use this many pictures, drawn at random after the balance.
        balance: wanted share of rows with the first attribute in each official part;
            surplus rows are dropped. CelebA-Glasses, one in three, is `balance=1/3`.
        fractions: shares of train, val and test where there is no official partition.
        sequential: then split in the order of the list instead of at random.
        seed: seed of the balance, the limit and the split.
        cache: folder of the decoded pictures; `root/cache` if not given.
        on_error: 'raise', or 'skip' to leave out unreadable pictures with a warning.
        progress: show a progress bar while decoding.

    Raises:
        FileNotFoundError: if the folder or a file of the layout is missing.
        ValueError: if lists and pictures do not fit together, or a picture is unreadable.
        ImportError: if pictures must be decoded and pillow is missing.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"expected on_error 'raise' or 'skip', got {on_error!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"--images: expected limit >= 1, got {limit}")
    root = Path(root)
    folder, listing = root / "img_align_celeba", root / "list_attr_celeba.txt"
    for path, there in ((root, root.is_dir()), (folder, folder.is_dir()),
                        (listing, listing.is_file())):  # fmt: skip
        if not there:
            raise FileNotFoundError(f"--data: expected {LAYOUT} in {root}, got no {path}")
    files, labels = _read_attributes(listing, attributes)
    _match_pictures(folder, files, on_error)
    parts = _read_partition(root / "list_eval_partition.txt", files)

    rows = np.arange(len(files))
    if balance is not None:
        groups = [rows] if parts is None else [rows[parts == p] for p in np.unique(parts)]
        with errors_of("--balance"):
            rows = np.concatenate(
                [group[balanced_rows(labels[group, 0] == 1, balance, seed)] for group in groups]
            )
    if limit is not None and limit < len(rows):
        rows = np.random.default_rng([seed, 3]).choice(rows, limit, replace=False)
    rows = np.sort(rows)

    cache = root / "cache" if cache is None else Path(cache)
    store = _decoded(folder, [files[row] for row in rows], cache, on_error, progress)
    rows = rows[store.kept]
    if parts is None:
        split = random_split(len(rows), fractions, seed, sequential=sequential)
    else:
        split = {part: np.flatnonzero(parts[rows] == p) for p, part in enumerate(PARTS)}
    return AttributeImages(
        store.images,
        labels[rows],
        tuple(attributes),
        split,
        f"{len(rows)} of CelebA in {root.resolve().name}",
    )


def _read_attributes(path: Path, wanted: Sequence[str]) -> tuple[list[str], NDArray[np.int8]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise ValueError(
            f"expected a count, a line of names and one row a picture in {path}, "
            f"got {len(lines)} lines that start with {lines[0] if lines else ''!r}"
        )
    names, rows = lines[1].split(), [line.split() for line in lines[2:]]
    with errors_of("--attributes"):
        columns = pick_names(names, wanted)
    if int(lines[0]) != len(rows):
        raise ValueError(
            f"expected {lines[0].strip()} rows in {path}, as its count line says, got {len(rows)}"
        )
    for number, row in enumerate(rows, start=3):
        if len(row) != len(names) + 1:
            raise ValueError(
                f"expected a file name and {len(names)} values in line {number} of {path}, "
                f"got {len(row)} entries"
            )
    try:
        table = np.array([[int(row[1 + c]) for c in columns] for row in rows])
    except ValueError as error:
        raise ValueError(f"expected values in {{-1, 1}} in {path}, got {error}") from None
    return [row[0] for row in rows], as_binary(table, wanted)


def _match_pictures(folder: Path, files: list[str], on_error: str) -> None:
    found = {entry.name for entry in os.scandir(folder) if entry.name.endswith(".jpg")}
    extra, missing = sorted(found - set(files)), [name for name in files if name not in found]
    # A picture that is missing is skipped like one that cannot be read; one that has no
    # attributes means that list and folder do not belong together.
    if extra or (missing and on_error == "raise"):
        example = extra[0] if extra else missing[0]
        raise ValueError(
            f"expected one picture in {folder} for each of {len(files)} attribute rows, "
            f"got {len(found)} pictures, {len(missing)} rows without a picture and "
            f"{len(extra)} pictures without a row, such as {example}"
        )


def _read_partition(path: Path, files: list[str]) -> NDArray[np.int64] | None:
    if not path.is_file():
        return None
    part: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        entries = line.split()
        if not entries:
            continue
        if len(entries) != 2 or entries[1] not in ("0", "1", "2"):
            raise ValueError(
                f"expected '000001.jpg 0', '1' or '2' in line {number} of {path}, got {line!r}"
            )
        part[entries[0]] = int(entries[1])
    missing = [name for name in files if name not in part]
    if missing:
        raise ValueError(
            f"expected a row for each of {len(files)} pictures in {path}, "
            f"got none for {len(missing)}, such as {missing[0]}"
        )
    return np.array([part[name] for name in files])


class _Store(NamedTuple):
    images: NDArray[np.uint8]  # (len(kept), 64, 64, 3), a memory map
    kept: list[int]  # positions of the pictures that could be read


def _decoded(folder: Path, files: list[str], cache: Path, on_error: str, progress: bool) -> _Store:
    key = hashlib.sha256(json.dumps([str(folder.resolve()), SIZE, CROP, files]).encode())
    array = cache / f"celeba-{SIZE}-{key.hexdigest()[:16]}.npy"
    note = array.with_suffix(".json")
    state = _state(folder, files)
    store = _cached(array, note, state)
    if store is not None and (on_error == "skip" or len(store.kept) == len(files)):
        _warn_skipped(len(files) - len(store.kept), files, store.kept)
        return store

    image = pillow()
    cache.mkdir(parents=True, exist_ok=True)
    # The array is written beside its place and moved there whole, the note last: a run that is
    # cut short leaves at most an array without a note, which the next run replaces.
    with tempfile.TemporaryDirectory(dir=cache, prefix="decoding-") as scratch:
        draft = Path(scratch) / "images.npy"
        shape = (len(files), SIZE, SIZE, 3)
        images = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
        kept: list[int] = []
        for position, name in enumerate(bar(files, "decoding CelebA", progress)):
            try:
                images[len(kept)] = _decode(image, folder / name)
            except ValueError:
                if on_error == "raise":
                    raise
                continue
            kept.append(position)
        if not kept:
            raise ValueError(f"expected a readable picture in {folder}, got none of {len(files)}")
        images.flush()
        if len(kept) < len(files):
            draft = Path(scratch) / "kept.npy"
            np.save(draft, images[: len(kept)])
        del images
        text = Path(scratch) / "note.json"
        text.write_text(json.dumps({"state": state, "kept": kept}), encoding="utf-8")
        note.unlink(missing_ok=True)
        os.replace(draft, array)
        os.replace(text, note)
    _warn_skipped(len(files) - len(kept), files, kept)
    return _Store(np.load(array, mmap_mode="r"), kept)


def _state(folder: Path, files: list[str]) -> str:
    """Digest of size and time of every picture, so that a replaced picture shows."""
    digest = hashlib.sha256()
    for name in files:
        try:
            stat = os.stat(folder / name)
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        except FileNotFoundError:
            digest.update(f"{name} missing\n".encode())
    return digest.hexdigest()


def _cached(array: Path, note: Path, state: str) -> _Store | None:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        images = np.load(array, mmap_mode="r")  # fails where the file is shorter than its header
        kept = content["kept"]
        fits = images.dtype == np.uint8 and images.shape == (len(kept), SIZE, SIZE, 3)
        return _Store(images, kept) if fits and content["state"] == state else None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _warn_skipped(count: int, files: list[str], kept: list[int]) -> None:
    if count:
        first = files[min(set(range(len(files))) - set(kept))]
        warnings.warn(
            f"skipped {count} of {len(files)} pictures that cannot be read, such as {first}",
            stacklevel=4,
        )


def _decode(image, path: Path) -> NDArray[np.uint8]:
    try:
        with image.open(path) as picture:
            size, rgb = picture.size, picture.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"expected a whole picture, got {path}: {error}") from error
    if size != ALIGNED:
        raise ValueError(f"expected an aligned picture of size {ALIGNED}, got {size} in {path}")
    left, top = (ALIGNED[0] - CROP) // 2, (ALIGNED[1] - CROP) // 2
    box = (left, top, left + CROP, top + CROP)
    return np.asarray(rgb.resize((SIZE, SIZE), image.Resampling.LANCZOS, box=box))
