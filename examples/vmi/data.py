"""Grey pictures with a class each, which nothing but the final score reads."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.archive import array_names, read_array

__all__ = ["Pictures", "load", "load_digits", "load_idx", "load_npz"]

IDX_PARTS = {"train": "train", "test": "t10k"}
LAYOUTS = (
    ("test", ("train_images", "train_labels", "test_images", "test_labels")),
    ("holdout", ("train_images", "train_labels", "holdout_images", "holdout_labels")),
    ("test", ("x_train", "y_train", "x_test", "y_test")),
)
"""The part that is scored and the names of the arrays of an .npz; the last are those of Keras."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size in two parts.

    Attributes:
        images: Grey images of the parts ``train`` and ``test``, each uint8 ``(N, H, W)``.
        labels: The class of each image, 0, 1, ... ``classes - 1``, each ``(N,)``. The score alone
            reads them.
        source: Where they come from, without folders.
    """

    images: dict[str, NDArray[np.uint8]]
    labels: dict[str, NDArray[np.int64]]
    source: str

    @property
    def size(self) -> int:
        """Height and width."""
        return self.images["train"].shape[1]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return 1 + max(int(labels.max()) for labels in self.labels.values())

    def first(self, n: int | None) -> Pictures:
        """The same with the first ``n`` training images only."""
        if n is None:
            return self
        if not 1 <= n <= len(self.images["train"]):
            raise ValueError(
                f"--images: expected 1 to {len(self.images['train'])} training images, got {n}"
            )
        images = {**self.images, "train": self.images["train"][:n]}
        labels = {**self.labels, "train": self.labels["train"][:n]}
        return replace(self, images=images, labels=labels)

    def tensor(self, part: str) -> Tensor:
        """Images of one part, ``(N, 1, H, W)`` in [0, 1]."""
        return torch.from_numpy(self.images[part]).float()[:, None] / 255.0

    def chunks(self, part: str, size: int = 500) -> Iterator[Tensor]:
        """The same in chunks, in order."""
        x = self.tensor(part)
        for start in range(0, len(x), size):
            yield x[start : start + size]


def _pictures(
    images: dict[str, NDArray[np.uint8]], labels: dict[str, NDArray[np.int64]], source: str
) -> Pictures:
    for part, array in images.items():
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[1] != array.shape[2]:
            raise ValueError(
                f"--data: expected {part} images of shape (N, H, H) or (N, 1, H, H), uint8 or "
                f"float in [0, 1], got {array.dtype} {array.shape}"
            )
        if labels[part].shape != array.shape[:1]:
            raise ValueError(
                f"--data: expected {len(array)} {part} labels, got shape {labels[part].shape}"
            )
        numbers = labels[part].dtype.kind in "biuf"
        if len(array) == 0 or not numbers or not (labels[part] >= 0).all():
            raise ValueError(
                f"--data: expected {part} images with labels 0, 1, ..., got {len(array)} images "
                f"and labels {labels[part].dtype} such as {np.unique(labels[part])[:3].tolist()}"
            )
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise ValueError(
            f"--data: expected images of one size, got {images['train'].shape[1:]} and "
            f"{images['test'].shape[1:]}"
        )
    return Pictures(images, {p: y.astype(np.int64) for p, y in labels.items()}, source)


def load_digits() -> Pictures:
    """The 1,797 digits of 8 x 8 pixels that come with scikit-learn: 1,437 to train, 360 to test.

    Raises:
        ImportError: With the command that installs scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError as error:
        raise ImportError("--data digits needs scikit-learn: pip install scikit-learn") from error
    bunch = bundled()
    images = np.round(bunch.images * (255.0 / 16.0)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1437], order[1437:]
    return _pictures(
        {"train": images[train], "test": images[test]},
        {"train": labels[train], "test": labels[test]},
        "scikit-learn digits",
    )


def _idx(folder: Path, stem: str, dimensions: int) -> NDArray[np.uint8]:
    names = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"))
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise FileNotFoundError(f"--data: expected {stem} or {stem}.gz in {folder}, got neither")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        kind, ndim = raw[2], raw[3]
        shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
        data = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
        whole = raw[:2] == b"\0\0" and kind == 8 and ndim == dimensions
        whole = whole and data.size == int(np.prod(shape))
    except (EOFError, IndexError, ValueError, struct.error, gzip.BadGzipFile) as error:
        raise ValueError(f"--data: expected a whole IDX file, got {path.name}: {error}") from error
    if not whole:
        raise ValueError(
            f"--data: expected an IDX file of {dimensions} dimensions of bytes, got {path.name}"
        )
    return data.reshape(shape)


def load_idx(folder: Path) -> Pictures:
    """MNIST or Fashion-MNIST in the four IDX files they are published in, packed or not.

    A folder that holds them under ``MNIST/raw`` or ``FashionMNIST/raw``, as torchvision leaves
    them, is fine too.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If a file is damaged.
    """
    for inner in ("MNIST/raw", "FashionMNIST/raw", "raw"):
        if (folder / inner).is_dir():
            folder = folder / inner
            break
    images = {p: _idx(folder, f"{n}-images-idx3-ubyte", 3) for p, n in IDX_PARTS.items()}
    labels = {p: _idx(folder, f"{n}-labels-idx1-ubyte", 1) for p, n in IDX_PARTS.items()}
    name = folder.parent.name if folder.name == "raw" else folder.name
    return _pictures(images, {p: y.astype(np.int64) for p, y in labels.items()}, name)


def _grey(images: NDArray[Any], part: str) -> NDArray[np.uint8]:
    """Without a channel of its own, and grey values in [0, 1] as the nearest of 256."""
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.dtype.kind != "f" or not images.size:
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):  # not a number is in no range
        raise ValueError(
            f"--data: expected {part} images uint8 or float in [0, 1], got {images.dtype} from "
            f"{low:g} to {high:g}"
        )
    return np.round(images * 255.0).astype(np.uint8)


def load_npz(path: Path) -> Pictures:
    """An archive of pictures with their classes.

    It has ``train_images``, ``train_labels`` and either ``test_*`` or ``holdout_*``, or the arrays
    of Keras' archives, ``x_train``, ``y_train``, ``x_test``, ``y_test``. Images are ``(N, H, H)``
    or ``(N, 1, H, H)``, uint8 or float in [0, 1], which is rounded to uint8.

    Raises:
        ValueError: If the file cannot be read or is no archive, or an array is missing or not as
            described.
    """
    found = array_names(path)
    # The layout of which the most is there: its missing arrays are the ones to name.
    held, names = max(LAYOUTS, key=lambda layout: len(set(layout[1]) & set(found)))
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"--data: expected the arrays {', '.join(names)} in {path.name}, got no "
            f"{' and no '.join(missing)} but {', '.join(found) or 'an empty archive'}"
        )
    x_train, y_train, x_test, y_test = (read_array(path, name) for name in names)
    return _pictures(
        {"train": _grey(x_train, "train"), "test": _grey(x_test, "test")},
        {"train": y_train, "test": y_test},
        f"{path.name}, {held}",
    )


def load(name: str) -> Pictures:
    """``digits``, a folder of IDX files, or an ``.npz``.

    Raises:
        FileNotFoundError: If there is no such place.
    """
    if name == "digits":
        return load_digits()
    path = Path(name)
    if path.is_dir():
        return load_idx(path)
    if path.exists():
        return load_npz(path)
    raise FileNotFoundError(
        f"--data: expected 'digits', a folder of IDX files or an .npz file, got no {path}"
    )
