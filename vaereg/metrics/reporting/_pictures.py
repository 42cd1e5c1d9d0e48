"""Data, reconstructions and traversals as strips of pictures, or as curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.metrics._encoding import evaluating
from vaereg.metrics.reporting._codes import Coded
from vaereg.metrics.reporting._gather import Gathered, cut, reason

__all__ = ["Canvas", "Walk", "canvas_of", "pillow", "reconstructions", "samples", "walks"]

SPAN, STEPS, SHOWN = 3.0, 9, 10


@dataclass(frozen=True)
class Canvas:
    """How rows of data are shown.

    Attributes:
        shape: ``(C, H, W)`` of a picture; None for curves.
        low: Value that is black, or at the bottom.
        high: Value that is white, or at the top.
    """

    shape: tuple[int, int, int] | None
    low: float
    high: float

    def strip(self, rows: Tensor, text: str, *, over: Tensor | None = None) -> str:
        """Rows side by side, as HTML.

        Args:
            rows: ``(n, *event)``.
            text: What they are, for readers who do not see them.
            over: Rows to be drawn behind them, where they are curves.
        """
        if self.shape is None:
            return self._curves(rows, text, over)
        scaled = (rows.detach().cpu().float() - self.low) / max(self.high - self.low, 1e-12)
        images = scaled.clamp(0.0, 1.0).reshape(-1, *self.shape)
        c, h, w = self.shape
        gap = max(1, h // 32)
        sheet = torch.zeros(4, h, len(images) * (w + gap) - gap)  # clear between the pictures
        for k, image in enumerate(images):
            place = slice(k * (w + gap), k * (w + gap) + w)
            sheet[:3, :, place] = image.expand(3, h, w) if c == 1 else image
            sheet[3, :, place] = 1.0
        pixels = (255.0 * sheet).round().byte().movedim(0, -1).numpy()
        return (
            f'<img class="strip" src="{_png(pixels)}" alt="{escape(text)}" '
            f'width="{pixels.shape[1]}" height="{pixels.shape[0]}">'
        )

    def difference(self, a: Tensor, b: Tensor, text: str) -> str:
        """The absolute difference of pictures, as :meth:`strip`."""
        height = self.high - self.low
        return Canvas(self.shape, 0.0, height).strip((a.cpu() - b.cpu()).abs(), text)

    def _curves(self, rows: Tensor, text: str, over: Tensor | None) -> str:
        drawn = "".join(
            self._curve(row, None if over is None else over[k]) for k, row in enumerate(rows)
        )
        return f'<div class="strip curves" role="img" aria-label="{escape(text)}">{drawn}</div>'

    def _curve(self, row: Tensor, behind: Tensor | None) -> str:
        lines = "".join(
            f'<polyline class="{name}" points="{self._points(values)}"/>'
            for name, values in (("data", behind), ("own", row))
            if values is not None
        )
        shape = 'viewBox="0 0 100 60" preserveAspectRatio="none"'
        return f'<svg {shape} aria-hidden="true">{lines}</svg>'

    def _points(self, row: Tensor) -> str:
        y = row.detach().cpu().float().flatten().numpy()
        y = y[np.linspace(0, len(y) - 1, min(len(y), 200)).round().astype(int)]
        share = np.clip((y - self.low) / max(self.high - self.low, 1e-12), 0.0, 1.0)
        x = np.linspace(1.0, 99.0, len(y)) if len(y) > 1 else np.array([50.0])
        pairs = zip(x, 58.0 - 56.0 * share, strict=True)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)


def canvas_of(x: Tensor, shape: Sequence[int] | None) -> Canvas:
    """How to show data ``(N, *event)``: pictures where they are some, else curves.

    Raises:
        ValueError: If ``shape`` is no picture's, or does not hold a row.
    """
    low, high = float(x.detach().min()), float(x.detach().max())
    for bottom, top in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        # Small numbers from 0 on would all be black on the scale of bytes.
        if bottom <= low and high <= top and (top < 2.0 or high > 0.1 * top):
            low, high = bottom, top
            break
    high = high if high > low else low + 1.0
    event = tuple(x.shape[1:])
    if shape is not None:
        given = (1, *shape) if len(shape) == 2 else tuple(shape)
        fits = len(given) == 3 and given[0] in (1, 3) and min(given) > 0
        if not fits or np.prod(given) != np.prod(event):
            raise ValueError(
                "image_shape: expected (H, W), (1, H, W) or (3, H, W) of "
                f"{int(np.prod(event))} numbers, got {tuple(shape)}"
            )
        return Canvas((given[0], given[1], given[2]), low, high)
    if len(event) == 2 and min(event) > 1:
        return Canvas((1, event[0], event[1]), low, high)
    if len(event) == 3 and event[0] in (1, 3):
        return Canvas((event[0], event[1], event[2]), low, high)
    return Canvas(None, low, high)


def pillow() -> Any:
    """What writes pictures.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        raise ImportError(
            'report: pictures need Pillow; run pip install "vaereg[report]"'
        ) from error


def _png(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    pillow().fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


# ---- what is decoded


def _decode(
    model: Any, seen: Gathered, values: Mapping[str, Tensor], observed: Mapping[str, Any]
) -> Tensor:
    inputs = {name: value.to(seen.where) for name, value in values.items()}
    try:
        with torch.no_grad(), evaluating(model):
            decoded: Any = model.decode(inputs, **observed)
    except Exception as error:
        seen.broken.append(reason(error))  # what is skipped may have other causes
        raise
    shape = (len(next(iter(inputs.values()))), *seen.x.shape[1:])
    if not isinstance(decoded, Tensor) or decoded.shape != shape:
        got = tuple(decoded.shape) if isinstance(decoded, Tensor) else type(decoded).__name__
        raise ValueError(f"decoded: expected the data's shape {shape}, got {got}")
    if not bool(torch.isfinite(decoded).all()):
        seen.broken.append("decoded: expected finite values, got nan or inf")
        raise ValueError("decoded: expected finite values, got nan or inf")
    return decoded.detach().cpu()


def reconstructions(model: Any, seen: Gathered) -> tuple[Tensor, Tensor]:
    """The first rows, and what is decoded from the points of their codes."""
    rows = slice(0, min(SHOWN, len(seen.x)))
    values = {name: code.point[rows] for name, code in seen.codes.items()}
    return seen.x[rows], _decode(model, seen, values, cut(seen.observed, rows, seen.where))


def samples(model: Any, seen: Gathered, seed: int) -> Tensor:
    """What is decoded from draws of the prior.

    Raises:
        ValueError: If a prior is neither a standard normal nor categorical.
    """
    n = min(SHOWN, len(seen.x))
    g = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for name, code in seen.codes.items():
        if code.standard:
            values[name] = torch.randn(n, *code.value.shape[1:], generator=g).to(code.value)
        elif code.q is not None and code.discrete and code.kl is not None:
            k = code.value.shape[-1]
            # Each class in turn: an even look at all, whatever the prior weighs them by.
            hot = torch.nn.functional.one_hot(torch.arange(n) % k, k).to(code.value)
            values[name] = hot if code.value.ndim == 2 else hot[:, None].expand_as(code.value[:n])
        else:
            raise ValueError(f"the prior of {name} is neither N(0, 1) nor categorical")
    return _decode(model, seen, values, cut(seen.observed, slice(0, n), seen.where))


@dataclass(frozen=True, eq=False)
class Walk:
    """One coordinate moved, all else of the first row's code held.

    Attributes:
        label: The coordinate, ``z[3]`` or ``c``.
        kl: Its KL, in nats, or None.
        stops: What it was set to.
        rows: What is decoded, one row for each.
    """

    label: str
    kl: float | None
    stops: tuple[str, ...]
    rows: Tensor


def walks(model: Any, seen: Gathered, most: int) -> tuple[list[Walk], int]:
    """Traversals of the first row, the largest KL first; and how many were left out."""
    found: list[tuple[float, int, str, int]] = []
    for name, code in seen.codes.items():
        width = _coordinates(code)
        for d in range(width):
            value = code.kl[d] if code.kl is not None else 0.0
            found.append((-value, len(found), name, d))
    found.sort()
    return [_walk(model, seen, name, d) for _, _, name, d in found[:most]], max(
        0, len(found) - most
    )


def _coordinates(code: Coded) -> int:
    if code.discrete:
        return 1 if code.value.ndim == 2 else code.value.shape[1]
    return code.flat.shape[1]


def _walk(model: Any, seen: Gathered, name: str, d: int) -> Walk:
    code = seen.codes[name]
    base = {n: c.point[:1] for n, c in seen.codes.items()}
    if code.discrete:
        k = code.value.shape[-1]
        moved = base[name].expand(k, *base[name].shape[1:]).clone()
        moved.reshape(k, -1, k)[:, d] = torch.eye(k).to(moved)
        stops = tuple(str(value) for value in range(k))
    else:
        column = code.flat[:, d].double()
        middle, span = (0.0, SPAN) if code.standard else (
            float(column.mean()), SPAN * max(float(column.std()), 1e-3)
        )  # fmt: skip
        line = torch.linspace(-span, span, STEPS, dtype=torch.float64) + middle
        moved = base[name].expand(STEPS, *base[name].shape[1:]).clone()
        moved.flatten(1)[:, d] = line.to(moved)
        stops = tuple(f"{value:+.3g}" for value in cast("list[float]", line.tolist()))
    n = len(moved)
    values = {key: value.expand(n, *value.shape[1:]) for key, value in base.items()}
    values[name] = moved
    kl = code.kl[d] if code.kl is not None else None
    whole = code.discrete and code.value.ndim == 2
    label = name if whole else f"{name}[{d}]"
    first = cut(seen.observed, slice(0, 1), seen.where)
    repeated = {
        key: value.expand(n, *value.shape[1:])
        if isinstance(value, Tensor) and value.ndim
        else value
        for key, value in first.items()
    }
    return Walk(label, kl, stops, _decode(model, seen, values, repeated))
