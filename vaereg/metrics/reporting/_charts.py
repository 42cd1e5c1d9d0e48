"""Charts as plain HTML: text stays text at any width, and colours follow the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

__all__ = ["DASH", "MINUS", "bars", "heat", "histogram", "interval", "keys", "number",
           "stack", "table"]  # fmt: skip

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3) -> str:
    """A number as it stands in tables; a dash for none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.lstrip("-")


def bars(rows: Sequence[tuple[str, float, bool]], unit: str) -> str:
    """Horizontal bars: label, value, and whether it counts."""
    top = max([value for _, value, _ in rows] + [1e-9])
    lines = "".join(
        f'<div class="bar{"" if on else " off"}"><span class="name">{escape(name)}</span>'
        f'<span class="rail"><i style="width:{100.0 * max(0.0, value) / top:.2f}%"></i></span>'
        f'<span class="value">{number(value)}</span></div>'
        for name, value, on in rows
    )
    return f'<div class="bars" role="list" aria-label="{escape(unit)}">{lines}</div>'


def stack(parts: Sequence[tuple[str, float, float]]) -> str:
    """One bar of several parts with their standard errors; parts below 0 have no length."""
    total = sum(max(0.0, value) for _, value, _ in parts) or 1.0
    pieces = "".join(
        f'<i class="part{k}" style="width:{100.0 * max(0.0, value) / total:.2f}%"></i>'
        for k, (_, value, _) in enumerate(parts)
    )
    legend = "".join(
        f'<li><i class="dot part{k}"></i><span>{escape(name)}</span>'
        f"<b>{number(value)}</b> ± {number(error)}</li>"
        for k, (name, value, error) in enumerate(parts)
    )
    return f'<div class="stack" aria-hidden="true">{pieces}</div><ul class="legend">{legend}</ul>'


def interval(
    lower: tuple[float, float],
    exact: tuple[float, float],
    upper: tuple[float, float],
    end: float | None,
) -> str:
    """Two bounds and a value between them on one axis from 0; ``end`` is marked where given."""
    shown = (lower[0], exact[0], upper[0], end or 0.0, 1e-9)
    top = 1.08 * max(value for value in shown if math.isfinite(value))

    def at(value: float) -> str:
        return f"{100.0 * min(1.0, max(0.0, value / top)):.2f}%"

    def mark(kind: str, pair: tuple[float, float]) -> str:
        value, error = pair
        whole = math.isfinite(value) and math.isfinite(error)
        first, last = (
            min(1.0, max(0.0, (value + sign * error) / top)) if whole else 0.0
            for sign in (-1.0, 1.0)
        )
        reach = f"left:{100.0 * first:.2f}%;width:{100.0 * (last - first):.2f}%"
        return (
            f'<i class="error" style="{reach}"></i>'
            f'<i class="mark {kind}" style="left:{at(value)}"></i>'
        )

    span = 100.0 * max(0.0, (upper[0] - max(0.0, lower[0])) / top)
    inside = f'<i class="span" style="left:{at(lower[0])};width:{min(100.0, span):.2f}%"></i>'
    ends = "" if end is None else f'<i class="end" style="left:{at(end)}"></i>'
    marks = mark("lower", lower) + mark("upper", upper) + mark("exact", exact)
    scale = f"<span>0</span><span>{top:.2g} nats</span>"
    return (
        f'<div class="axis" aria-hidden="true">{ends}{inside}{marks}</div>'
        f'<div class="scale" aria-hidden="true">{scale}</div>'
    )


def keys(*, discrete: bool) -> str:
    """What the marks of :func:`interval` are; ``discrete`` where an end is marked."""
    known = [
        ("mark exact", "the information itself, of these rows' posteriors"),
        ("mark", "its bounds: fresh critic (left), KL rate (right)"),
        ("span", "what lies between them"),
        ("error", "one standard error to each side"),
        *[("end", "entropy of the code")] * discrete,
    ]
    items = "".join(
        f'<li><span class="axis key" aria-hidden="true"><i class="{kind}"></i></span>'
        f"<span>{text}</span></li>"
        for kind, text in known
    )
    return f'<ul class="legend keys">{items}</ul>'


def histogram(
    values: NDArray[np.floating],
    label: str,
    ends: tuple[float, float],
    density: Callable[[NDArray[np.floating]], NDArray[np.floating]] | None,
) -> str:
    """A column of a code between ``ends``, beside the density of each bin that its prior has."""
    edges = np.linspace(*ends, 33)
    width = edges[1] - edges[0]
    share = np.histogram(np.clip(values, *ends), edges)[0] / max(1, len(values)) / width
    prior = np.zeros(0) if density is None else density(edges)
    top = max(float(share.max()), float(prior.max(initial=0.0)))
    columns = "".join(
        f'<rect x="{3 * k}" y="{60 - 58 * v / top:.1f}" width="2.6" height="{58 * v / top:.1f}"/>'
        for k, v in enumerate(share)
    )
    line = " ".join(f"{3 * k + 1.3:.1f},{60 - 58 * v / top:.1f}" for k, v in enumerate(prior))
    line = f'<polyline points="{line}"/>' if line else ""
    return (
        '<figure class="histogram"><svg viewBox="0 0 96 61" role="img" '
        f'aria-label="{escape(label)}">'
        f"{columns}{line}</svg><figcaption>{escape(label)}</figcaption>"
        "</figure>"
    )


def heat(values: NDArray[np.floating], rows: Sequence[str], columns: Sequence[str]) -> str:
    """A matrix of shares from 0 to 1, darker the larger."""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>"
        + "".join(
            f'<td style="--share:{100.0 * min(1.0, max(0.0, v)):.0f}%">{number(v, 2)}</td>'
            for v in map(float, line)
        )
        + "</tr>"
        for name, line in zip(rows, values, strict=True)
    )
    return f'<div class="scroll"><table class="heat"><tr><td></td>{head}</tr>{body}</table></div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int = -1) -> str:
    """A table; the cells of column ``marked`` are HTML already."""
    top = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    lines = "".join(
        "<tr>"
        + "".join(
            f"<{'th scope=row' if k == 0 else 'td'}>{cell if k == marked else escape(cell)}"
            f"</{'th' if k == 0 else 'td'}>"
            for k, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    head_row = f"<thead><tr>{top}</tr></thead>"
    return f'<div class="scroll"><table>{head_row}<tbody>{lines}</tbody></table></div>'
