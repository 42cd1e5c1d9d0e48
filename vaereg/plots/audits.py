r"""Audits over a training run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vaereg.plots._style import GREY, TEXT, TITLE, style_axes

if TYPE_CHECKING:
    from vaereg.metrics import Audit, AuditHook

# Shape, colour and size: a verdict must be told without seeing colours, a refuted one at a glance.
_MARKS = {
    "refuted": ("X", "#d55e00", 10.0),
    "dependent": ("s", "#0072b2", 6.0),
    "independent": ("o", "#009e73", 6.5),
    "cannot tell": ("D", "#cc79a7", 6.0),
}
_MISSED: dict[str, Any] = {
    "facecolor": _MARKS["cannot tell"][1],
    "edgecolor": "none",
    "alpha": 0.35,
}
_DOTTED = (0, (1, 2))


class _Reading(NamedTuple):
    """One term of one audit, as it is drawn; all values in nats."""

    epoch: float
    displayed: float
    mean: float
    low: float
    high: float
    missed: float
    verdict: str
    resolution: float
    title: str


def audit_history(
    history: AuditHook | Sequence[tuple[float, Audit]],
    *,
    columns: int | None = None,
    x: str = "epoch",
    quantity: str = "mutual information",
    title: str | None = None,
) -> Figure:
    r"""What each term displays over a training run, against what fresh critics read.

    A panel for each term holds the displayed value as a line and the readings of the audits as
    points with their bootstrap intervals (mean ± std where there is none). The verdict sets shape
    and colour of a point; one that cannot tell is hollow, and a pale bar rises from it to the
    power: so large a leak may have been missed. Where no planted leak was seen, or none was
    planted, the bar is an arrow that leaves the panel. The dotted line is the resolution. Panels
    share the horizontal axis only. Of ``JSD`` the line is four times the displayed value, as in
    the verdict, and the name of the panel says so.

    Args:
        history: An :class:`~vaereg.metrics.AuditHook`, or ``(epoch, Audit)`` pairs such as its
            ``history``. A term is drawn at the epochs where it was audited; a displayed value that
            is not finite leaves a gap.
        columns: Panels side by side; by default up to three. One suits a narrow page.
        x: Name of the horizontal axis.
        quantity: Name of the vertical axis; the unit is nats, as in every audit.
        title: Title of the figure.

    Returns:
        The figure; its axes stand in the order in which the terms first occur.

    Raises:
        TypeError: If an entry of the history is no pair of an epoch and an audit.
        ValueError: If there is nothing to draw, ``columns`` is below 1, an epoch or a reading is
            not finite, an estimate is in another unit, or a verdict is unknown.

    Example:
        >>> from vaereg.metrics import Audit, MIEstimate, TermAudit
        >>> read = MIEstimate(0.12, 0.01, (0.11, 0.13), -0.1, interval=(0.10, 0.14))
        >>> entry = TermAudit("leak", "z", "y", "MINE", 0.02, read, "refuted", 0.05)
        >>> figure = audit_history([(5, Audit({"leak": entry}, 0.05, 500))])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['displayed', 'fresh critics: refuted', 'resolution']
    """
    terms = _by_term(history)
    count = len(terms)
    if columns is None:
        columns = 2 if count == 4 else 3
    if columns < 1:
        raise ValueError(f"audit_history: expected columns >= 1, got {columns}")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    # A lone panel would be too small for a figure, and the legend too wide for it.
    panel = (4.6, 2.7) if columns == 1 else (2.9, 2.2)
    width = panel[0] * columns + 0.4
    figure = Figure(figsize=(width, panel[1] * rows + 0.7), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    first: Axes | None = None
    for i, readings in enumerate(terms.values()):
        axes = figure.add_subplot(grid[divmod(i, columns)], sharex=first)
        first = first or axes
        _draw_term(axes, readings)
        # The panel over an empty place has tick labels too, but a name there would part the rows.
        axes.tick_params(labelbottom=i + columns >= count)
        if i // columns == rows - 1:
            axes.set_xlabel(x)
        if i % columns == 0:
            axes.set_ylabel(f"{quantity}\n[nats]")
    figure.align_ylabels()
    everything = [reading for readings in terms.values() for reading in readings]
    whole = all(float(r.epoch).is_integer() for r in everything)
    cast(Axes, first).xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole, min_n_ticks=1))
    figure.legend(
        handles=_handles(cast(Axes, first), everything),
        loc="outside lower center",
        ncols=max(1, int(width / 2.1)),
        frameon=False,
        fontsize=TEXT,
    )
    if title:
        figure.suptitle(title, fontsize=TITLE)
    return figure


def _draw_term(axes: Axes, readings: Sequence[_Reading]) -> None:
    style_axes(axes, None)
    axes.set_title(readings[0].title, fontsize=TEXT + 1)
    at = np.array([r.epoch for r in readings])
    shown = np.array([r.displayed for r in readings])
    # Beyond so many audits, marks of full size would hide each other.
    scale = min(1.0, max(0.4, 20 / len(readings)))
    axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    for size in sorted({r.resolution for r in readings}):
        axes.axhline(size, color=GREY, linewidth=1.4, linestyle=_DOTTED, zorder=1)
    # The dots keep a value between two gaps in sight.
    axes.plot(
        at,
        np.where(np.isfinite(shown), shown, np.nan),
        color=_ink(axes),
        linewidth=1.4,
        marker=".",
        markersize=4 * scale,
        zorder=4.5,
    )
    for verdict, (_, colour, _) in _MARKS.items():
        found = [r for r in readings if r.verdict == verdict]
        if not found:
            continue
        where = [r.epoch for r in found]
        low, high = (np.array([getattr(r, end) for r in found]) for end in ("low", "high"))
        # A bootstrap interval need not hold the mean: bars of their own keep its ends.
        axes.errorbar(
            where,
            (low + high) / 2,
            yerr=(high - low) / 2,
            fmt="none",
            ecolor=colour,
            elinewidth=1.4 * scale,
            capsize=3 * scale,
            zorder=4,
        )
        axes.plot(
            where, [r.mean for r in found], linestyle="", zorder=5, **_look(axes, verdict, scale)
        )
    for r in readings:
        if r.missed == math.inf:
            axes.annotate(
                "",
                (r.epoch, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(r.epoch, r.mean),
                textcoords="data",
                arrowprops={
                    "arrowstyle": "simple,tail_width=0.5,head_width=1.1,head_length=0.8",
                    "mutation_scale": 12 * scale,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    **_MISSED,
                },
                zorder=2,
            )
        elif r.missed > r.mean:
            axes.vlines(
                r.epoch,
                r.mean,
                r.missed,
                color=_MISSED["facecolor"],
                alpha=_MISSED["alpha"],
                linewidth=6 * scale,
                zorder=2,
            )
    axes.margins(x=0.08, y=0.08)


def _look(axes: Axes, verdict: str, scale: float = 1.0) -> dict[str, Any]:
    marker, colour, size = _MARKS[verdict]
    hollow = verdict == "cannot tell"
    return {
        "marker": marker,
        "color": colour,
        "markersize": size * scale,
        # Filled with the background: the error bar must not strike the hole through.
        "markerfacecolor": axes.get_facecolor() if hollow else colour,
        "markeredgecolor": colour if hollow else axes.get_facecolor(),
        "markeredgewidth": scale * (1.5 if hollow else 0.8),
    }


def _handles(axes: Axes, readings: Sequence[_Reading]) -> list[Line2D | Patch]:
    """Of what occurs."""
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], color=_ink(axes), linewidth=1.4, marker=".", markersize=4, label="displayed"
        )
    ]
    occurring = {r.verdict for r in readings}
    handles += [
        Line2D([], [], linestyle="", label=f"fresh critics: {verdict}", **_look(axes, verdict))
        for verdict in _MARKS
        if verdict in occurring
    ]
    if any(r.missed > r.mean for r in readings):
        handles.append(Patch(label="may have been missed", **_MISSED))
    handles.append(
        Line2D([], [], color=GREY, linewidth=1.4, linestyle=_DOTTED, label="resolution")
    )
    return handles


def _ink(axes: Axes) -> Any:
    """The colour of text, which shows on any background of the user's."""
    return axes.xaxis.label.get_color()


def _by_term(history: Any) -> dict[str, list[_Reading]]:
    """Readings by term, each by increasing epoch."""
    pairs: Any = getattr(history, "history", history)
    if not isinstance(pairs, Iterable):
        raise TypeError(
            "audit_history: expected history to be an AuditHook or (epoch, Audit) pairs, got "
            f"{type(history).__name__}"
        )
    rows: list[tuple[float, Any]] = []
    for i, pair in enumerate(cast("Iterable[Any]", pairs)):
        if not isinstance(pair, (tuple, list)) or len(cast("list[Any]", pair)) != 2:
            raise TypeError(
                f"audit_history: expected history[{i}] to be a pair (epoch, Audit), got "
                f"{type(cast(Any, pair)).__name__}"
            )
        epoch, found = cast("list[Any]", pair)
        if not hasattr(found, "terms"):
            raise TypeError(
                f"audit_history: expected history[{i}][1] to be an Audit, got "
                f"{type(found).__name__}"
            )
        if not math.isfinite(epoch):
            raise ValueError(f"audit_history: expected history[{i}][0] to be finite, got {epoch}")
        rows.append((float(epoch), found))
    terms: dict[str, list[_Reading]] = {}
    for epoch, found in rows:
        for name, entry in found.terms.items():
            where = f"the audit of {name!r} at {epoch:g}"
            terms.setdefault(str(name), []).append(_reading(where, epoch, entry))
    if not terms:
        got = f"{len(rows)} without terms" if rows else "none"
        raise ValueError(
            f"audit_history: expected at least one audit of a term in history, got {got}"
        )
    return {name: sorted(found, key=lambda r: r.epoch) for name, found in terms.items()}


def _reading(where: str, epoch: float, entry: Any) -> _Reading:
    read = entry.estimate
    unit = getattr(read, "unit", "nats")
    if unit != "nats":
        raise ValueError(f"audit_history: expected {where} in nats, got {unit}")
    if entry.verdict not in _MARKS:
        raise ValueError(
            f"audit_history: expected the verdict of {where} to be one of {list(_MARKS)}, got "
            f"{entry.verdict!r}"
        )
    mean = float(read.mean)
    low, high = read.interval or (mean - read.std, mean + read.std)
    if not all(map(math.isfinite, (mean, low, high))):
        raise ValueError(
            f"audit_history: expected a finite reading in {where}, got {mean} [{low}, {high}]"
        )
    missed = -math.inf
    if entry.verdict == "cannot tell":
        # Not measured, the power may be anything.
        missed = math.inf if read.power is None else float(read.power)
    scale = float(getattr(entry, "scale", 1.0))
    return _Reading(
        epoch,
        # On the axis of the readings, as the verdict compares them.
        scale * float(entry.displayed),
        mean,
        float(low),
        float(high),
        missed,
        entry.verdict,
        float(entry.resolution),
        f"{entry.name} ({entry.a}; {entry.b})"
        + (f", displayed times {scale:g}" if scale != 1 else ""),
    )
