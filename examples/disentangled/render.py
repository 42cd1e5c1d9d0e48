r"""The dSprites re-render: 64 x 64 binary pictures of a square, an ellipse and a heart.

The figures are polygons, drawn as a graphics card without antialiasing draws them: corners are
rounded to 1/256 pixel, and a pixel is white when its centre lies inside. Everything after the
rounding is integer arithmetic, so that the pictures are the same on every machine.

The constants are round numbers for which the re-render is identical to all 320 frames of the
official animation (see ``README.md``); none of them is fitted to a single frame.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "ROW", "SIDE", "SIZES", "VALUES", "outline", "pack", "render", "unpack"]

SIDE = 64
ROW = SIDE * SIDE // 8  # bytes of a packed picture
NAMES = ("color", "shape", "scale", "orientation", "posX", "posY")
SIZES = (1, 3, 6, 40, 32, 32)
VALUES: tuple[NDArray[np.float64], ...] = (
    np.array([1.0]),
    np.array([1.0, 2.0, 3.0]),
    np.linspace(0.5, 1.0, 6),
    np.linspace(0.0, 2.0 * math.pi, 40),
    np.linspace(0.0, 1.0, 32),
    np.linspace(0.0, 1.0, 32),
)

_HALF = 0.15 * SIDE  # half the side of the square of scale 1
_SNAP = 256  # corners lie on a grid of 1/256 pixel
_ASPECT = 1.33  # of the ellipse, whose area is that of the circle of radius _HALF
# First j pixels of a row of 64, as bits of a word whose highest bit is the first pixel.
_FIRST = np.array([(2**SIDE - 1) ^ (2 ** (SIDE - j) - 1) for j in range(SIDE + 1)], np.uint64)


def outline(shape: str) -> NDArray[np.float64]:
    r"""The corners of a figure at scale 1 and orientation 0, about its centre of rotation.

    The heart is the curve :math:`(16 \sin^3 s,\; 13 \cos s - 5 \cos 2s - 2 \cos 3s - \cos 4s)` of
    150 corners, the first number divided by 16, the second by 14.5 and moved by 0.15, in units of
    half the square's side.

    Args:
        shape: ``square``, ``ellipse`` or ``heart``; or ``triangle``, which dSprites does not have.

    Returns:
        ``(corners, 2)``, x to the right and y down, in pixels.

    Raises:
        ValueError: If the shape is unknown.
    """
    if shape == "square":
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64)
    elif shape == "ellipse":
        s = 2.0 * math.pi * np.arange(100) / 100
        corners = np.stack([_ASPECT * np.cos(s), np.sin(s) / _ASPECT], 1)
    elif shape == "heart":
        s = 2.0 * math.pi * np.arange(150) / 150
        up = 13 * np.cos(s) - 5 * np.cos(2 * s) - 2 * np.cos(3 * s) - np.cos(4 * s)
        corners = np.stack([np.sin(s) ** 3, -up / 14.5 - 0.15], 1)
    elif shape == "triangle":
        s = 2.0 * math.pi * np.arange(3) / 3
        corners = 1.2 * np.stack([np.sin(s), -np.cos(s)], 1)
    else:
        raise ValueError(
            f"expected shape square, ellipse, heart or triangle, got {shape!r}"
        )  # fmt: skip
    return _HALF * corners


def _snapped(centres: NDArray[np.float64], offsets: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(_SNAP * (centres[:, None] + offsets)).astype(np.int64)


def _fill(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Rows of the polygons with corners at all x (A, n) and all y (B, n): (A, B, 64) words."""
    # A row is inside to the left of an odd number of edges: each edge that crosses the row's
    # centre line flips all pixels to its left.
    half, (columns, rows) = _SNAP // 2, (len(x), len(y))
    dx, dy = np.roll(x, -1, 1) - x, np.roll(y, -1, 1) - y
    upper, lower = np.minimum(y, y + dy), np.maximum(y, y + dy)
    first, end = -((half - upper) // _SNAP), -((half - lower) // _SNAP)  # rounded up
    counts = (end - first).ravel()
    which = np.repeat(np.arange(counts.size), counts)
    place, edge = np.divmod(which, y.shape[1])
    row = (
        first.ravel()[which] + np.arange(len(which)) - np.repeat(counts.cumsum() - counts, counts)
    )
    # The crossing is at x + (line - y) dx / dy; as many pixel centres lie to its left as the
    # quotient, rounded up, says.
    sign = np.sign(dy).ravel()[which]
    rise = (half + _SNAP * row - y[place, edge]) * sign
    over = np.abs(dy).ravel()[which]
    left = -((-(x[:, edge] - half) * over - rise * dx[:, edge]) // (_SNAP * over))  # (A, K)
    order = np.argsort(place * SIDE + row, kind="stable")
    words = _FIRST[np.clip(left[:, order], 0, SIDE)]
    line = (place * SIDE + row)[order]
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    filled = np.zeros((columns, rows * SIDE), np.uint64)
    filled[:, line[starts]] = np.bitwise_xor.reduceat(words, starts, axis=1)
    return filled.reshape(columns, rows, SIDE)


def render(
    shape: str | int,
    scale: int,
    orientation: int,
    pos_x: NDArray[np.integer] | None = None,
    pos_y: NDArray[np.integer] | None = None,
) -> NDArray[np.uint8]:
    """Packed pictures of one figure at all positions asked for.

    Args:
        shape: A class (0 square, 1 ellipse, 2 heart) or a name of :func:`outline`.
        scale: Class 0 to 5.
        orientation: Class 0 to 39; 39 is a full turn and the same picture as 0.
        pos_x: Classes of x, default all 32.
        pos_y: Classes of y, default all 32.

    Returns:
        ``(len(pos_x), len(pos_y), 512)``, eight pixels a byte, as ``numpy.packbits`` has them.
    """
    name = ("square", "ellipse", "heart")[shape] if isinstance(shape, int) else shape
    u, v = (VALUES[2][scale] * outline(name)).T
    turn = VALUES[3][orientation % 39]
    c, s = math.cos(turn), math.sin(turn)
    centres = [16.0 + 32.0 * VALUES[4 + i][slice(None) if p is None else p]
               for i, p in enumerate((pos_x, pos_y))]  # fmt: skip
    words = _fill(_snapped(centres[0], c * u + s * v), _snapped(centres[1], c * v - s * u))
    return words.astype(">u8").view(np.uint8).reshape(*words.shape[:2], ROW)


def unpack(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures of zeros and ones, ``(..., 64, 64)``, from packed ones, ``(..., 512)``."""
    return np.unpackbits(packed, axis=-1).reshape(*packed.shape[:-1], SIDE, SIDE)


def pack(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of :func:`unpack`: ``(..., 512)`` bytes from ``(..., 64, 64)``."""
    return np.packbits(images.reshape(*images.shape[:-2], SIDE * SIDE), axis=-1)
