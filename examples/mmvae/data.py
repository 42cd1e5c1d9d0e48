"""Labelled 64 x 64 pictures for the MMVAE example: where they come from, and their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.archive import array_names, read_array
from harness.command import errors_of

from .attributes import (
    FRACTIONS,
    AttributeImages,
    as_binary,
    balanced_rows,
    pick_names,
    pillow,
    random_split,
)
from .celeba import load_celeba
from .faces import ATTRIBUTES, SIZE, bar, faces

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AttributeImages", "batches", "load_builtin", "load_celeba", "load_npz"]


def load_builtin(
    n: int,
    attributes: Sequence[str] = ("Eyeglasses",),
    seed: int = 0,
    *,
    fractions: Sequence[float] = FRACTIONS,
    sequential: bool = False,
    balance: float | None = None,
    progress: bool = False,
) -> AttributeImages:
    """Draw `n` procedural faces and label them with some of 'Eyeglasses' and 'Smiling'.

    Args: as for `load_npz`; `seed` also draws the faces.

    Raises:
        ValueError: for a misspelt attribute, an impossible split or an impossible balance.
    """
    with errors_of("--attributes"):
        columns = pick_names(ATTRIBUTES, attributes)  # fail before the drawing
    drawn = faces(n, seed, progress=progress)
    labels = drawn.attributes[:, columns]
    images, labels = _balanced(drawn.images, labels, balance, seed)
    split = random_split(len(images), fractions, seed, sequential=sequential)
    source = f"{n} procedural faces, seed {seed}"
    return AttributeImages(images, labels, tuple(attributes), split, source)


@errors_of("--data")
def load_npz(
    path: str | Path,
    attributes: Sequence[str] | None = None,
    *,
    label_key: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    sequential: bool = False,
    balance: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> AttributeImages:
    """Load pictures and attributes from an .npz file.

    Args:
        path: a file with `images` uint8 [N, H, W, 3] or [N, H, W] and, unless `label_key` is
            given, `attributes` [N, K] in {0, 1} or {-1, 1} and `attribute_names` [K].
            Pictures of another size are resized to 64 x 64, whatever their proportions.
        attributes: the names wanted, in the order wanted.
        label_key: take the one array of this name, [N] in {0, 1} or {-1, 1}, as the attribute.
        fractions: shares of train, val and test.
        sequential: split in the order of the file instead of a seeded random order.
        balance: wanted share of rows with the first attribute; surplus rows are dropped.
        seed: seed of the split and of the balance.
        progress: show a progress bar while resizing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the content is not as described.
        ImportError: if pictures must be resized and pillow is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"--data: expected an .npz file with 'images', got no file at {path}"
        )
    if label_key is None and attributes is None:
        raise ValueError("expected attributes or label_key, got neither")
    if label_key is None:
        images, table, names = _read_npz(path, ["images", "attributes", "attribute_names"])
        names = [str(name) for name in names.ravel()]
    else:
        images, table = _read_npz(path, ["images", label_key])
        names, table = [label_key], table[:, None] if table.ndim == 1 else table
    _check_images(images, path)
    wanted = (label_key,) if attributes is None else tuple(attributes)
    if table.shape != (len(images), len(names)):
        raise ValueError(
            f"expected attributes of shape {(len(images), len(names))} for {len(images)} images "
            f"and {len(names)} names, got {table.shape} in {path}"
        )
    with errors_of("--label-key" if label_key else "--attributes"):
        columns = pick_names(names, wanted)
    labels = as_binary(table[:, columns], wanted)
    images, labels = _balanced(images, labels, balance, seed)
    images = _as_rgb64(images, progress)
    split = random_split(len(images), fractions, seed, sequential=sequential)
    return AttributeImages(images, labels, wanted, split, path.name)


def batches(
    data: AttributeImages,
    split: str,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (images (B, 3, 64, 64) float32 in [0, 1], attributes (B, k) int64), one epoch.

    The order depends on `seed` and `epoch` alone, so a resumed run sees the same batches.

    Raises:
        ValueError: for an unknown split, a batch size below 1, or no full batch to yield.
    """
    if split not in data.split:
        raise ValueError(f"expected split in {tuple(data.split)}, got {split!r}")
    rows = data.split[split]
    if batch_size < 1 or (drop_last and batch_size > len(rows)):
        raise ValueError(
            f"expected 1 <= batch_size <= {len(rows)} rows of {split!r}, got {batch_size}"
            if drop_last
            else f"expected batch_size >= 1, got {batch_size}"
        )
    if shuffle:
        rows = np.random.default_rng([seed, epoch]).permutation(rows)
    stop = len(rows) - batch_size + 1 if drop_last else len(rows)
    chunks = [rows[start : start + batch_size] for start in range(0, stop, batch_size)]
    return _tensors(data, chunks)


def _tensors(data: AttributeImages, chunks: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
    import torch

    for rows in chunks:
        x = torch.from_numpy(np.asarray(data.images[rows])).permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(data.attributes[rows].astype(np.int64))
        yield x.float().div_(255), y


def _balanced(images, labels, share: float | None, seed: int):
    if share is None:
        return images, labels
    with errors_of("--balance"):
        rows = balanced_rows(labels[:, 0] == 1, share, seed)
    return images[rows], labels[rows]


def _read_npz(path: Path, keys: Sequence[str]) -> list[np.ndarray]:
    found = array_names(path)
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"expected the arrays {list(keys)} in {path}, got {found}: no {missing}")
    return [read_array(path, key) for key in keys]


def _check_images(images: np.ndarray, path: Path) -> None:
    fits = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)
    if images.dtype != np.uint8 or not fits:
        raise ValueError(
            f"expected images uint8 of shape (N, H, W, 3) or (N, H, W), "
            f"got {images.dtype} of shape {images.shape} in {path}"
        )


def _as_rgb64(images: np.ndarray, progress: bool) -> NDArray[np.uint8]:
    if images.shape[1:3] != (SIZE, SIZE):
        image = pillow()
        box, antialias = (SIZE, SIZE), image.Resampling.LANCZOS
        resized = [
            np.asarray(image.fromarray(picture).resize(box, antialias))
            for picture in bar(images, "resizing", progress)
        ]
        images = np.stack(resized)
    return np.repeat(images[..., None], 3, axis=-1) if images.ndim == 3 else images
