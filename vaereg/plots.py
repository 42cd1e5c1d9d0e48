r"""Figures of codes and measurements; the only module that needs matplotlib.

Each function returns a :class:`matplotlib.figure.Figure` that belongs to nobody else: pyplot's
list of figures and the backend are left alone, so that all of this works without a display. Save
with ``figure.savefig("name.png")``. Background, text colour and font follow the user's matplotlib
settings; the other colours are fit for colour-blind readers.

A measured value is a ``(mean, std)`` pair or an object with ``mean`` and ``std``, such as
:class:`vaereg.metrics.MIEstimate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.colors import to_hex, to_rgba, to_rgba_array
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Ellipse, Patch
    from matplotlib.textpath import TextPath
except ImportError as error:
    raise ImportError(
        "vaereg.plots: expected matplotlib to be installed, got none; run "
        'pip install "vaereg[plots]"'
    ) from error

__all__ = ["attribute_grid", "code_scatter", "mi_bars", "mi_sweep", "mi_trend"]

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
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#808080"
_TEXT = 9.0
_TITLE = 11.0


# ---- images


def attribute_grid(
    images: Array,
    *,
    rows: Sequence[object] | None = None,
    columns: Sequence[object] | None = None,
    row_name: str | None = None,
    column_name: str | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> Figure:
    r"""A grid of images with labelled rows and columns, e.g. decodings over a grid of codes.

    The figure holds one axes with one image, the mosaic, each pixel of which is drawn as
    ``scale`` × ``scale`` pixels of the figure: nothing is interpolated.

    Args:
        images: ``(R, C, H, W, 3)`` or ``(R, C, 3, H, W)`` colour, or ``(R, C, H, W)`` grey (one
            channel of its own is fine as well); where both readings fit, the channel is last.
            Floating-point values are clipped to [0, 1]; integers count from 0 to 255.
        rows: A label for each of the ``R`` rows, text or numbers.
        columns: A label for each of the ``C`` columns.
        row_name: What the row labels are, e.g. ``"$c_2$"``.
        column_name: What the column labels are.
        title: Title of the figure.
        scale: Pixels of the figure for a pixel of an image; by default a cell is near to one inch.

    Returns:
        The figure.

    Raises:
        ValueError: If the shape is none of these, values are not finite, a number of labels does
            not fit, or ``scale`` is below 1.

    Example:
        >>> figure = attribute_grid(np.zeros((2, 3, 8, 8)), columns=[-0.5, 0.5, 1.5])
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['-0.5', '0.5', '1.5']
    """
    cells = _cells(images)  # (R, C, H, W, 3)
    r, c, height, width = cells.shape[:4]
    row_texts = _labels("attribute_grid", "rows", rows, r)
    column_texts = _labels("attribute_grid", "columns", columns, c)
    figure = Figure()
    dpi = figure.get_dpi()
    if scale is None:
        scale = max(1, round(0.96 * dpi / max(height, width)))
    elif scale < 1:
        raise ValueError(f"attribute_grid: expected scale >= 1, got {scale}")
    gap = max(1, round(0.03 * dpi / scale))  # in pixels of the images
    mosaic = np.zeros((r * (height + gap) - gap, c * (width + gap) - gap, 4))
    for i in range(r):
        for j in range(c):
            top, left = i * (height + gap), j * (width + gap)
            cell = mosaic[top : top + height, left : left + width]
            # The gaps stay transparent and so show any background.
            cell[..., :3], cell[..., 3] = cells[i, j], 1.0

    # Margins are whole pixels, because an axes between two pixels would blur or drop some.
    line, pad = round(1.5 * _TEXT * dpi / 72), round(0.06 * dpi)
    label_width = max((_text_width(t, _TEXT, dpi) for t in row_texts), default=0)
    column_widths = [_text_width(t, _TEXT, dpi) for t in column_texts]
    turned = max(column_widths, default=0) > scale * width
    left = pad + (line if row_name else 0) + (label_width + pad if row_texts else 0)
    top = pad + (line if column_name else 0)
    if column_texts:
        lines = max(len(text.splitlines()) for text in column_texts)
        top += max(column_widths) + pad if turned else line * lines
    names = top
    top += round((0.7 + 1.3 * len(title.splitlines())) * _TITLE * dpi / 72) if title else 0
    wide, high = mosaic.shape[1] * scale, mosaic.shape[0] * scale
    title_width = _text_width(title, _TITLE, dpi) if title else 0
    full_width = max(left + wide + pad, title_width + 2 * pad)
    full_height = top + high + pad
    figure.set_size_inches(full_width / dpi, full_height / dpi)
    axes = figure.add_axes(
        (left / full_width, pad / full_height, wide / full_width, high / full_height)
    )
    axes.imshow(mosaic, interpolation="nearest", aspect="auto")
    axes.set_frame_on(False)
    axes.tick_params(length=0, labelsize=_TEXT, pad=0.04 * 72)
    axes.xaxis.tick_top()
    columns_at = [j * (width + gap) + (width - 1) / 2 for j in range(len(column_texts))]
    rows_at = [i * (height + gap) + (height - 1) / 2 for i in range(len(row_texts))]
    axes.set_xticks(columns_at, labels=column_texts, rotation=90 if turned else 0)
    axes.set_yticks(rows_at, labels=row_texts)
    if column_name:
        y = 1 - (top - names + pad / 2) / full_height
        figure.text(
            (left + wide / 2) / full_width, y, column_name, ha="center", va="top", fontsize=_TEXT
        )
    if row_name:
        figure.text(
            pad / full_width,
            (pad + high / 2) / full_height,
            row_name,
            ha="left",
            va="center",
            rotation=90,
            fontsize=_TEXT,
        )
    if title:
        # Over the middle of the images, or as near to it as the title fits.
        edge = title_width / 2 + pad
        middle = min(max(left + wide / 2, edge), full_width - edge)
        figure.text(
            middle / full_width,
            1 - pad / full_height,
            title,
            ha="center",
            va="top",
            fontsize=_TITLE,
        )
    return figure


def _cells(images: Array) -> Floats:
    array = _array(images)
    shape = array.shape
    if array.ndim == 4:
        array = array[..., None]
    elif array.ndim == 5 and shape[-1] not in (1, 3) and shape[2] in (1, 3):
        array = np.moveaxis(array, 2, -1)
    if array.ndim != 5 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            "attribute_grid: expected images of shape (R, C, H, W, 3), (R, C, 3, H, W) or "
            f"(R, C, H, W), got {shape}"
        )
    numbers = array.astype(np.float64)
    if np.issubdtype(array.dtype, np.integer):
        numbers = numbers / 255.0
    _check_finite("attribute_grid", "images", numbers)
    return np.broadcast_to(np.clip(numbers, 0.0, 1.0), (*array.shape[:4], 3))


def _text_width(text: str, size: float, dpi: float) -> int:
    """Width of the widest line of ``text`` in whole pixels, by the font and without a renderer."""
    lines = [line for line in text.splitlines() if line.strip()]
    points = (float(TextPath((0, 0), line, size=size).get_extents().width) for line in lines)
    return int(np.ceil(max(points, default=0.0) * dpi / 72))


# ---- codes


def code_scatter(
    c: Array,
    y: Array,
    *,
    names: Sequence[str] | None = None,
    priors: Mapping[int, tuple[Array, Array]] | None = None,
    title: str | None = None,
) -> Figure:
    r"""Codes coloured by class: a scatter for two dimensions, histograms for one.

    Points are drawn in a fixed random order, so that no class hides another because its rows come
    last.

    Args:
        c: Codes, ``(N, 2)`` for a scatter, ``(N,)`` or ``(N, 1)`` for a histogram of each class.
        y: Integer class labels ``(N,)``; -1 stands for a missing label, drawn in grey.
        names: A name for each class 0, 1, ...; by default the numbers.
        priors: The Gaussian prior of each class, ``{class: (mean, std)}``, drawn as an ellipse at
            two standard deviations (as its density over a histogram). A number stands for all
            dimensions.
        title: Title of the figure.

    Returns:
        The figure; its axes holds one collection with all points (one patch a class for 1-D).

    Raises:
        TypeError: If ``y`` is not of integers or ``priors`` is no mapping.
        ValueError: If the codes are wider than two, rows differ in number, values are not finite,
            a class has no name, or a prior does not fit.

    Example:
        >>> figure = code_scatter(np.eye(2), [0, 1], priors={0: (0.0, 1.0), 1: ([3.0, 3.0], 1.0)})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['0', '1', 'prior, 2 std']
    """
    codes = _array(c).astype(np.float64)
    if codes.ndim == 1:
        codes = codes[:, None]
    if codes.ndim != 2 or not codes.size:
        raise ValueError(
            f"code_scatter: expected c of shape (N, 2), (N, 1) or (N,), got {_array(c).shape}"
        )
    width = codes.shape[1]
    if width > 2:
        raise ValueError(
            f"code_scatter: expected c of one or two dimensions, got {width}; select two columns, "
            "e.g. c[:, [0, 1]]"
        )
    classes = _classes(y, codes.shape[0])
    _check_finite("code_scatter", "c", codes)
    gaussians = _priors(priors, width)
    present = sorted({int(k) for k in np.unique(classes) if k >= 0} | set(gaussians))
    texts = {k: str(k) for k in present}
    if names is not None:
        if present and present[-1] >= len(names):
            raise ValueError(
                f"code_scatter: expected names for the classes 0 to {present[-1]}, got "
                f"{len(names)} names"
            )
        texts = {k: names[k] for k in present}
    palette = _colours(present[-1] + 1 if present else 0)
    colours = {k: palette[k] for k in present}
    if (classes == -1).any():
        colours[-1], texts[-1] = "#b0b0b0", "no label"

    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, title)
    handles: list[Line2D | Patch]
    if width == 2:
        handles = _scatter(axes, codes, classes, colours, texts, gaussians)
    else:
        handles = _histograms(axes, codes[:, 0], classes, colours, texts, gaussians)
    if gaussians:
        label = "prior, 2 std" if width == 2 else "prior"
        handles.append(Line2D([], [], color=_GREY, linestyle="--", label=label))
    _legend(axes, handles)
    return figure


def _scatter(
    axes: Axes,
    codes: Floats,
    classes: npt.NDArray[np.int64],
    colours: dict[int, str],
    texts: dict[int, str],
    gaussians: dict[int, tuple[Floats, Floats]],
) -> list[Line2D | Patch]:
    rows = codes.shape[0]
    order = np.random.default_rng(0).permutation(rows)
    side = float(np.clip(250.0 / rows**0.5, 2.0, 6.0))
    alpha = float(np.clip(25.0 / rows**0.5, 0.3, 0.9))
    axes.scatter(
        codes[order, 0],
        codes[order, 1],
        c=to_rgba_array([colours[int(k)] for k in classes[order]]),
        s=side**2,
        alpha=alpha,
        linewidths=0,
        rasterized=True,  # a vector file of 10^5 circles cannot be opened
    )
    for k, (mean, std) in gaussians.items():
        spot = (float(mean[0]), float(mean[1]))
        # White under the dashes keeps the outline visible on points of its own colour.
        for colour, stroke, dashes in (("white", 3.5, "-"), (colours[k], 1.8, "--")):
            axes.add_patch(
                Ellipse(
                    spot,
                    4 * float(std[0]),
                    4 * float(std[1]),
                    fill=False,
                    edgecolor=colour,
                    linewidth=stroke,
                    linestyle=dashes,
                    zorder=3,
                )
            )
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()
    axes.set_xlabel("$c_1$")
    axes.set_ylabel("$c_2$")
    return [
        Line2D([], [], color=colours[k], linestyle="", marker="o", markersize=6, label=texts[k])
        for k in texts
    ]


def _histograms(
    axes: Axes,
    codes: Floats,
    classes: npt.NDArray[np.int64],
    colours: dict[int, str],
    texts: dict[int, str],
    gaussians: dict[int, tuple[Floats, Floats]],
) -> list[Line2D | Patch]:
    low, high = float(codes.min()), float(codes.max())
    for mean, std in gaussians.values():
        low, high = min(low, float(mean[0] - 3 * std[0])), max(high, float(mean[0] + 3 * std[0]))
    number = int(np.clip(codes.size**0.5, 10, 60))
    edges: Floats = np.linspace(low, high if high > low else low + 1.0, number + 1)
    for k, colour in colours.items():
        own = codes[classes == k]
        if own.size:
            axes.hist(
                own,
                bins=edges.tolist(),
                density=True,
                histtype="stepfilled",
                facecolor=to_rgba(colour, 0.35),
                edgecolor=colour,
                linewidth=1.4,
            )
    grid: Floats = np.linspace(float(edges[0]), float(edges[-1]), 400)
    for k, (mean, std) in gaussians.items():
        density = np.exp(-0.5 * ((grid - mean[0]) / std[0]) ** 2) / (std[0] * np.sqrt(2 * np.pi))
        axes.plot(grid, density, color=colours[k], linestyle="--", linewidth=1.8)
    axes.set_xlabel("$c$")
    axes.set_ylabel("density")
    return [
        Patch(
            facecolor=to_rgba(colours[k], 0.35),
            edgecolor=colours[k],
            linewidth=1.4,
            label=texts[k],
        )
        for k in texts
    ]


def _classes(y: Array, rows: int) -> npt.NDArray[np.int64]:
    array = _array(y)
    if array.dtype == np.bool_:
        array = array.astype(np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"code_scatter: expected y to be integer class labels, got {array.dtype} of shape "
            f"{array.shape}; of one-hot rows take y.argmax(1)"
        )
    if array.shape != (rows,):
        raise ValueError(f"code_scatter: expected y of shape ({rows},), got {array.shape}")
    if array.min() < -1:
        raise ValueError(f"code_scatter: expected y >= -1, got {int(array.min())}")
    return array.astype(np.int64)


def _priors(
    priors: Mapping[int, tuple[Array, Array]] | None, width: int
) -> dict[int, tuple[Floats, Floats]]:
    if priors is None:
        return {}
    # A list of pairs and a pair of lists cannot be told apart for two classes in two dimensions.
    if not isinstance(priors, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            "code_scatter: expected priors to be a mapping {class: (mean, std)}, got "
            f"{type(priors).__name__}"
        )
    gaussians: dict[int, tuple[Floats, Floats]] = {}
    for k, pair in priors.items():
        if not isinstance(k, (int, np.integer)) or k < 0:  # pyright: ignore
            raise ValueError(f"code_scatter: expected the classes of priors to be >= 0, got {k!r}")
        if len(pair) != 2:
            raise ValueError(
                f"code_scatter: expected priors[{k}] to be (mean, std), got {len(pair)} entries"
            )
        both: list[Floats] = []
        for part, numbers in zip(("mean", "std"), pair, strict=True):
            array = _array(numbers).astype(np.float64)
            if array.shape not in ((), (1,), (width,)):
                raise ValueError(
                    f"code_scatter: expected the {part} of priors[{k}] to be a number or of shape "
                    f"({width},), got {array.shape}"
                )
            _check_finite("code_scatter", f"the {part} of priors[{k}]", array)
            both.append(np.broadcast_to(array, (width,)))
        if (both[1] <= 0).any():
            raise ValueError(
                f"code_scatter: expected the std of priors[{k}] > 0, got {both[1].tolist()}"
            )
        gaussians[int(k)] = (both[0], both[1])
    return gaussians


# ---- measurements


def mi_trend(
    history: Mapping[str, Sequence[float] | Array],
    *,
    measured: Mapping[str, Mapping[float, Measured]] | None = None,
    ceilings: Mapping[str, float] | None = None,
    x: str = "epoch",
    unit: str = "bits",
    quantity: str = "mutual information",
    title: str | None = None,
) -> Figure:
    r"""Named quantities over the epochs of a training run.

    Args:
        history: A sequence of values for each name; NaN leaves a gap. Values stand at 1, 2, ...
            unless ``history[x]`` holds their positions.
        measured: Measured values at some epochs, ``{name: {epoch: (mean, std)}}``, e.g. of fresh
            critics, drawn as points with error bars in the colour of the line of that name.
        ceilings: Values that a quantity cannot pass, e.g. ``{"H(y)": 1.0}``, drawn as horizontal
            lines.
        x: Name of the horizontal axis, and of the positions in ``history`` where these are given.
        unit: Unit of all values; nothing is converted.
        quantity: Name of the vertical axis.
        title: Title of the figure.

    Returns:
        The figure; the lines of its axes stand in the order of ``history``.

    Raises:
        TypeError: If a measured value is neither a pair nor an estimate.
        ValueError: If there is nothing to draw, lengths differ, a measured value is not finite, or
            an estimate is in another unit.

    Example:
        >>> figure = mi_trend({"I(z;y)": [0.6, 0.3, 0.2]}, ceilings={"H(y)": 1.0})
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [0.6, 0.3, 0.2]
    """
    curves = {str(n): _curve("mi_trend", f"history[{n!r}]", v) for n, v in history.items()}
    positions = curves.pop(x, None)
    points = {
        name: _points("mi_trend", f"measured[{name!r}]", values, unit)
        for name, values in (measured or {}).items()
    }
    names = [*curves, *(n for n in points if n not in curves)]
    if not names:
        raise ValueError("mi_trend: expected at least one named quantity in history, got none")
    colours = dict(zip(names, _colours(len(names)), strict=True))

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, title)
    for name, values in curves.items():
        at = np.arange(1, values.size + 1) if positions is None else positions
        if at.size != values.size:
            raise ValueError(
                f"mi_trend: expected history[{name!r}] of {at.size} values like history[{x!r}], "
                f"got {values.size}"
            )
        # A lone value is no line: it needs a marker to be seen.
        axes.plot(
            at, values, color=colours[name], linewidth=1.6, marker="." if values.size == 1 else ""
        )
    handles = [Line2D([], [], color=colours[n], linewidth=2.0, label=n) for n in names]
    for name, (at, mean, std) in points.items():
        axes.errorbar(
            at,
            mean,
            yerr=std,
            color=colours[name],
            fmt="o",
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.8,
            elinewidth=1.4,
            capsize=3,
            zorder=4,
        )
    if points:
        handles.append(
            Line2D(
                [],
                [],
                color=_GREY,
                linestyle="",
                marker="o",
                markersize=5,
                label="measured,\nmean ± std",
            )
        )
    _ceilings(axes, "mi_trend", ceilings)
    axes.set_xlabel(x)
    axes.set_ylabel(f"{quantity} [{unit}]")
    axes.margins(x=0.02)
    _legend(axes, handles)
    return figure


def mi_bars(
    table: Mapping[str, Mapping[str, Measured]],
    *,
    ceilings: Mapping[str, float] | None = None,
    unit: str = "bits",
    quantity: str = "mutual information",
    digits: int = 3,
    title: str | None = None,
) -> Figure:
    r"""Models compared: a group of bars for each quantity, a bar for each model.

    Args:
        table: ``{model: {quantity: (mean, std)}}``; a quantity that a model lacks leaves a gap.
        ceilings: Values that no bar can pass, drawn as horizontal lines.
        unit: Unit of all values; nothing is converted.
        quantity: Name of the vertical axis.
        digits: Decimals of the means printed over the bars.
        title: Title of the figure.

    Returns:
        The figure; its axes holds one container of bars for each model.

    Raises:
        TypeError: If a value is neither a pair nor an estimate.
        ValueError: If the table is empty, a value is not finite, or an estimate is in another
            unit.

    Example:
        >>> csvae, mmvae = {"I(z;y)": (0.210, 0.012)}, {"I(z;y)": (0.175, 0.017)}
        >>> figure = mi_bars({"CSVAE": csvae, "MMVAE": mmvae})
        >>> [round(float(bar.get_height()), 3) for bar in figure.axes[0].patches]
        [0.21, 0.175]
    """
    quantities = list(dict.fromkeys(name for values in table.values() for name in values))
    if not quantities:
        raise ValueError(
            "mi_bars: expected a table {model: {quantity: (mean, std)}}, got no value"
        )
    models = list(table)
    width = 0.8 / len(models)
    figure = Figure(
        figsize=(max(4.5, 1.8 + 0.55 * len(models) * len(quantities)), 3.8), layout="constrained"
    )
    axes = figure.add_subplot()
    _style(axes, title)
    palette = _colours(len(models))
    for i, model in enumerate(models):
        rows = [
            (j, *_point("mi_bars", f"table[{model!r}][{name!r}]", table[model][name], unit))
            for j, name in enumerate(quantities)
            if name in table[model]
        ]
        at = [j + (i - (len(models) - 1) / 2) * width for j, _, _ in rows]
        means, stds = [mean for _, mean, _ in rows], [std for _, _, std in rows]
        bars = axes.bar(
            at,
            means,
            0.88 * width,
            yerr=stds,
            color=palette[i],
            label=model,
            error_kw={"elinewidth": 1.2, "capsize": 3, "ecolor": "#404040"},
        )
        axes.bar_label(bars, [f"{m:.{digits}f}" for m in means], fontsize=_TEXT - 1.5, padding=2)
    _ceilings(axes, "mi_bars", ceilings)
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set_xticks(range(len(quantities)), labels=quantities)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(quantities) - 0.45)
    axes.set_ylabel(f"{quantity} [{unit}]")
    axes.margins(y=0.1)
    _legend(axes, [Patch(color=palette[i], label=model) for i, model in enumerate(models)])
    return figure


def mi_sweep(
    results: Mapping[str, Mapping[float, Measured]],
    *,
    weight: str = "weight",
    spacing: Literal["linear", "log", "even"] = "linear",
    ceilings: Mapping[str, float] | None = None,
    unit: str = "bits",
    quantity: str = "mutual information",
    title: str | None = None,
) -> Figure:
    r"""Measured quantities against a weight, one line with error bars for each quantity.

    Args:
        results: ``{quantity: {weight: (mean, std)}}``. Weights may be text, as in a JSON file.
        weight: Name of the horizontal axis, e.g. ``"$\\beta$"``.
        spacing: ``linear``; ``log``, for positive weights; or ``even``: one place for each weight
            that occurs, which suits 0, 0.1, 1, 10.
        ceilings: Values that a quantity cannot pass, drawn as horizontal lines.
        unit: Unit of all values; nothing is converted.
        quantity: Name of the vertical axis.
        title: Title of the figure.

    Returns:
        The figure; its axes holds one container of error bars for each quantity.

    Raises:
        TypeError: If a value is neither a pair nor an estimate.
        ValueError: If there is nothing to draw, a weight is no number or not positive for ``log``,
            a value is not finite, or an estimate is in another unit.

    Example:
        >>> leak = {0.0: (0.245, 0.005), 1.0: (0.190, 0.010), 10.0: (0.175, 0.017)}
        >>> figure = mi_sweep({"I(z;y)": leak}, weight="$\\beta$", spacing="even")
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['0', '1', '10']
    """
    if spacing not in ("linear", "log", "even"):
        raise ValueError(f"mi_sweep: expected spacing linear, log or even, got {spacing!r}")
    curves = {
        str(name): _points("mi_sweep", f"results[{name!r}]", values, unit)
        for name, values in results.items()
    }
    if not curves:
        raise ValueError("mi_sweep: expected results {quantity: {weight: (mean, std)}}, got none")
    places = sorted({float(w) for at, _, _ in curves.values() for w in at})
    if spacing == "log" and places[0] <= 0:
        raise ValueError(
            f"mi_sweep: expected positive weights for spacing 'log', got {places[0]:g}; "
            "spacing 'even' takes any"
        )
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    _style(axes, title)
    handles: list[Line2D | Patch] = []
    colours = _colours(len(curves))
    for i, (name, (at, mean, std)) in enumerate(curves.items()):
        where = np.searchsorted(places, at) if spacing == "even" else at
        marker = _MARKERS[i % len(_MARKERS)]
        axes.errorbar(
            where,
            mean,
            yerr=std,
            color=colours[i],
            marker=marker,
            markersize=5.5,
            linewidth=1.6,
            elinewidth=1.3,
            capsize=3,
        )
        handles.append(Line2D([], [], color=colours[i], marker=marker, markersize=5.5, label=name))
    if spacing == "log":
        axes.set_xscale("log")
    if spacing == "even":
        axes.set_xticks(range(len(places)), labels=[f"{w:g}" for w in places])
    _ceilings(axes, "mi_sweep", ceilings)
    # A small leak must look small: the axis starts at 0 unless an estimate lies below it.
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel(weight)
    axes.set_ylabel(f"{quantity} [{unit}]")
    _legend(axes, handles)
    return figure


def _curve(where: str, name: str, values: Sequence[float] | Array) -> Floats:
    array = _array(cast(Array, values)).astype(np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"{where}: expected {name} to be a sequence of numbers, got shape {array.shape}"
        )
    return array


def _points(
    where: str, name: str, values: Mapping[float, Measured], unit: str
) -> tuple[Floats, Floats, Floats]:
    """Positions, means and standard deviations, ``(n,)`` each, by increasing position."""
    if not isinstance(values, Mapping) or not values:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"{where}: expected {name} to be a mapping {{position: (mean, std)}}, got {values!r}"
        )
    rows: list[tuple[float, float, float]] = []
    for key, value in values.items():
        try:
            at = float(key)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: expected numbers as keys of {name}, got {key!r}") from None
        rows.append((at, *_point(where, f"{name}[{key!r}]", value, unit)))
    table = np.array(sorted(rows))
    return table[:, 0], table[:, 1], table[:, 2]


def _point(where: str, name: str, value: Measured, unit: str) -> tuple[float, float]:
    if isinstance(value, (tuple, list, np.ndarray, Tensor)):
        pair = _array(cast(Array, value)).astype(np.float64)
        if pair.shape != (2,):
            raise ValueError(f"{where}: expected {name} to be (mean, std), got shape {pair.shape}")
        mean, std = float(pair[0]), float(pair[1])
    elif hasattr(value, "mean") and hasattr(value, "std"):
        found = getattr(value, "unit", unit)
        if found != unit:
            raise ValueError(
                f"{where}: expected {name} in {unit}, got {found}; convert it "
                f"(estimate.in_bits()) or pass unit={found!r}"
            )
        mean, std = float(value.mean), float(value.std)
    else:
        raise TypeError(
            f"{where}: expected {name} to be (mean, std) or an estimate with mean and std, got "
            f"{type(value).__name__}"
        )
    if not (np.isfinite(mean) and np.isfinite(std) and std >= 0):
        raise ValueError(
            f"{where}: expected {name} to be a finite mean and std >= 0, got ({mean}, {std})"
        )
    return mean, std


# ---- shared


def _array(value: Array) -> npt.NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())
    return np.asarray(value)


def _check_finite(where: str, name: str, array: Floats) -> None:
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{where}: expected finite values in {name}, got NaN or infinity in {bad} of "
            f"{array.size}"
        )


def _labels(where: str, name: str, labels: Sequence[object] | None, number: int) -> list[str]:
    if labels is None:
        return []
    texts = [x if isinstance(x, str) else _number_text(x) for x in labels]
    if len(texts) != number:
        raise ValueError(f"{where}: expected {number} labels in {name}, got {len(texts)}")
    return texts


def _number_text(value: object) -> str:
    try:
        return f"{float(cast(Any, value)):g}"
    except (TypeError, ValueError):
        return str(value)


def _colours(number: int) -> list[str]:
    """So many colours that can be told apart, in a fixed order."""
    if number <= len(_TEN):
        return list(_TEN[:number])
    turbo = cast(Any, colormaps["turbo"])
    return [to_hex(turbo(x)) for x in np.linspace(0.03, 0.97, number)]


def _style(axes: Axes, title: str | None) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GREY, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=_TEXT)
    axes.xaxis.label.set_fontsize(_TEXT + 1)
    axes.yaxis.label.set_fontsize(_TEXT + 1)
    if title:
        axes.set_title(title, fontsize=_TITLE)


def _legend(axes: Axes, handles: Sequence[Line2D | Patch]) -> None:
    # Beside the axes, where it can hide no data.
    axes.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=_TEXT,
    )


def _ceilings(axes: Axes, where: str, ceilings: Mapping[str, float] | None) -> None:
    for name, value in (ceilings or {}).items():
        height = float(value)
        if not np.isfinite(height):
            raise ValueError(f"{where}: expected ceilings[{name!r}] to be finite, got {value}")
        axes.axhline(height, color=_GREY, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            name,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=_TEXT,
            color=_GREY,
        )
