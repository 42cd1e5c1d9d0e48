r"""What the figures share: palette, labels, legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

Array: TypeAlias = "Tensor | npt.ArrayLike"
Floats: TypeAlias = "npt.NDArray[np.float64]"
Measured: TypeAlias = Any
"""A ``(mean, std)`` pair, or an object with ``mean`` and ``std`` and perhaps ``unit``."""

# Okabe and Ito (2008) without yellow, which is lost on white, then three of Tol (2021).
_TEN = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#882255",
    "#999933",
    "#ddcc77",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#808080"
TEXT = 9.0
TITLE = 11.0


def to_array(value: Array) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())
    return np.asarray(value)


def check_finite(where: str, name: str, array: Floats) -> None:
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{where}: expected finite values in {name}, got NaN or infinity in {bad} of "
            f"{array.size}"
        )


def label_texts(where: str, name: str, labels: Sequence[object] | None, number: int) -> list[str]:
    if labels is None:
        return []
    texts = [x if isinstance(x, str) else number_text(x) for x in labels]
    if len(texts) != number:
        raise ValueError(f"{where}: expected {number} labels in {name}, got {len(texts)}")
    return texts


def number_text(value: object) -> str:
    try:
        return f"{float(cast(Any, value)):g}"
    except (TypeError, ValueError):
        return str(value)


def colour_cycle(number: int) -> list[str]:
    """So many colours that can be told apart, in a fixed order."""
    if number <= len(_TEN):
        return list(_TEN[:number])
    turbo = cast(Any, colormaps["turbo"])
    return [to_hex(turbo(x)) for x in np.linspace(0.03, 0.97, number)]


def style_axes(axes: Axes, title: str | None) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=TEXT)
    axes.xaxis.label.set_fontsize(TEXT + 1)
    axes.yaxis.label.set_fontsize(TEXT + 1)
    if title:
        axes.set_title(title, fontsize=TITLE)


def put_legend(axes: Axes, handles: Sequence[Line2D | Patch]) -> None:
    # Beside the axes, where it can hide no data.
    axes.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=TEXT,
    )


def draw_ceilings(axes: Axes, where: str, ceilings: Mapping[str, float] | None) -> None:
    for name, value in (ceilings or {}).items():
        height = float(value)
        if not np.isfinite(height):
            raise ValueError(f"{where}: expected ceilings[{name!r}] to be finite, got {value}")
        axes.axhline(height, color=GREY, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            name,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=TEXT,
            color=GREY,
        )
