r"""Scatters and histograms of codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch

from vaereg.plots._style import (
    GREY,
    Array,
    Floats,
    check_finite,
    colour_cycle,
    put_legend,
    style_axes,
    to_array,
)


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
    codes = to_array(c).astype(np.float64)
    if codes.ndim == 1:
        codes = codes[:, None]
    if codes.ndim != 2 or not codes.size:
        raise ValueError(
            f"code_scatter: expected c of shape (N, 2), (N, 1) or (N,), got {to_array(c).shape}"
        )
    width = codes.shape[1]
    if width > 2:
        raise ValueError(
            f"code_scatter: expected c of one or two dimensions, got {width}; select two columns, "
            "e.g. c[:, [0, 1]]"
        )
    classes = _classes(y, codes.shape[0])
    check_finite("code_scatter", "c", codes)
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
    palette = colour_cycle(present[-1] + 1 if present else 0)
    colours = {k: palette[k] for k in present}
    if (classes == -1).any():
        colours[-1], texts[-1] = "#b0b0b0", "no label"

    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title)
    handles: list[Line2D | Patch]
    if width == 2:
        handles = _scatter(axes, codes, classes, colours, texts, gaussians)
    else:
        handles = _histograms(axes, codes[:, 0], classes, colours, texts, gaussians)
    if gaussians:
        label = "prior, 2 std" if width == 2 else "prior"
        handles.append(Line2D([], [], color=GREY, linestyle="--", label=label))
    put_legend(axes, handles)
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
    array = to_array(y)
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
            array = to_array(numbers).astype(np.float64)
            if array.shape not in ((), (1,), (width,)):
                raise ValueError(
                    f"code_scatter: expected the {part} of priors[{k}] to be a number or of shape "
                    f"({width},), got {array.shape}"
                )
            check_finite("code_scatter", f"the {part} of priors[{k}]", array)
            both.append(np.broadcast_to(array, (width,)))
        if (both[1] <= 0).any():
            raise ValueError(
                f"code_scatter: expected the std of priors[{k}] > 0, got {both[1].tolist()}"
            )
        gaussians[int(k)] = (both[0], both[1])
    return gaussians
