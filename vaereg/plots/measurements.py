r"""Mutual informations over epochs, models and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from vaereg.plots._style import (
    GREY,
    MARKERS,
    TEXT,
    Array,
    Floats,
    Measured,
    colour_cycle,
    draw_ceilings,
    put_legend,
    style_axes,
    to_array,
)


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
    colours = dict(zip(names, colour_cycle(len(names)), strict=True))

    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title)
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
                color=GREY,
                linestyle="",
                marker="o",
                markersize=5,
                label="measured,\nmean ± std",
            )
        )
    draw_ceilings(axes, "mi_trend", ceilings)
    axes.set_xlabel(x)
    axes.set_ylabel(f"{quantity} [{unit}]")
    axes.margins(x=0.02)
    put_legend(axes, handles)
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
    style_axes(axes, title)
    palette = colour_cycle(len(models))
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
        axes.bar_label(bars, [f"{m:.{digits}f}" for m in means], fontsize=TEXT - 1.5, padding=2)
    draw_ceilings(axes, "mi_bars", ceilings)
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    axes.set_xticks(range(len(quantities)), labels=quantities)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(quantities) - 0.45)
    axes.set_ylabel(f"{quantity} [{unit}]")
    axes.margins(y=0.1)
    put_legend(axes, [Patch(color=palette[i], label=model) for i, model in enumerate(models)])
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
    style_axes(axes, title)
    handles: list[Line2D | Patch] = []
    colours = colour_cycle(len(curves))
    for i, (name, (at, mean, std)) in enumerate(curves.items()):
        where = np.searchsorted(places, at) if spacing == "even" else at
        marker = MARKERS[i % len(MARKERS)]
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
    draw_ceilings(axes, "mi_sweep", ceilings)
    # A small leak must look small: the axis starts at 0 unless an estimate lies below it.
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel(weight)
    axes.set_ylabel(f"{quantity} [{unit}]")
    put_legend(axes, handles)
    return figure


def _curve(where: str, name: str, values: Sequence[float] | Array) -> Floats:
    array = to_array(cast(Array, values)).astype(np.float64)
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
        pair = to_array(cast(Array, value)).astype(np.float64)
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
