"""The page: sections as HTML, one file that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from importlib.resources import files
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vaereg.metrics.reporting import _charts as charts
from vaereg.metrics.reporting._charts import MINUS, number
from vaereg.metrics.reporting._codes import Coded
from vaereg.metrics.reporting._gather import Gathered
from vaereg.metrics.reporting._measure import Measured
from vaereg.metrics.reporting._notices import Notice
from vaereg.metrics.reporting._pictures import Canvas, Walk

__all__ = ["Section", "coordinates", "page", "shown", "tiles", "walked"]

Section = tuple[str, str, str]
"""Anchor, heading and body."""
_HISTOGRAMS = 32


def tiles(seen: Gathered, found: Measured, active: float) -> str:
    """The numbers to look at first."""
    entries: list[tuple[str, str]] = []
    if seen.nll is not None:
        entries.append((number(seen.nll, 1), "negative log-likelihood, nats"))
    for name, code in seen.codes.items():
        if code.kl is not None:
            entries.append((number(sum(code.kl), 2), f"KL of {name}, nats"))
            count = sum(value >= active for value in code.kl)
            what = "variables" if code.discrete else "coordinates"
            entries.append((f"{count} of {len(code.kl)}", f"active {what} of {name}"))
        if name in found.parts:
            parts = found.parts[name]
            entries.append((number(parts.mi, 2), f"I(x; {name}), nats"))
            entries.append((number(parts.tc, 2), f"total correlation of {name}, nats"))
        elif name in found.brackets:
            value = number(found.brackets[name].exact, 2)
            entries.append((value, f"I(x; {name}), nats, of held-out rows"))
    body = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
        for value, text in entries
    )
    return f'<div class="tiles">{body}</div>'


def shown(strips: Sequence[tuple[str, str]], hint: str) -> str:
    """Labelled strips."""
    lines = "".join(
        f'<div class="label">{escape(label)}</div><div>{strip}</div>' for label, strip in strips
    )
    return f'<p class="hint">{escape(hint)}</p><div class="rows">{lines}</div>'


def walked(walks: Sequence[Walk], left: int, canvas: Canvas) -> str:
    """Traversals."""
    lines = "".join(
        f'<div class="label">{escape(walk.label)}'
        + (f"<span>{number(walk.kl, 2)} nats</span>" if walk.kl is not None else "")
        + "</div><div>"
        + canvas.strip(walk.rows, f"{walk.label} from {walk.stops[0]} to {walk.stops[-1]}")
        + "</div>"
        for walk in walks
    )
    more = f" {left} more of smaller KL are left out." if left else ""
    hint = (
        "One coordinate moves, all else is the code of the first row. Largest KL first. "
        f"Coordinates with a standard normal prior go from {MINUS}3 to 3, others over three "
        "standard deviations about their mean, categorical ones through their classes." + more
    )
    return f'<p class="hint">{escape(hint)}</p><div class="rows">{lines}</div>'


def coordinates(seen: Gathered, active: float) -> str:
    """KL of each coordinate, and the aggregated posterior of each."""
    body: list[str] = []
    for name, code in seen.codes.items():
        if code.kl is not None:
            order = sorted(range(len(code.kl)), key=lambda d, kl=code.kl: -kl[d])
            lone = code.discrete and len(code.kl) == 1
            rows = [
                (name if lone else f"{name}[{d}]", code.kl[d], code.kl[d] >= active) for d in order
            ]
            body.append(f"<h3>KL of {escape(name)}, nats</h3>{charts.bars(rows, 'nats')}")
        if code.q is None:
            continue
        if code.discrete:
            shares, rare = code.shares, code.rare
            for g, line in enumerate(cast("list[list[float]]", shares.tolist())):
                label = name if len(shares) == 1 else f"{name}[{g}]"
                bars = [(str(k), value, not bool(rare[g, k])) for k, value in enumerate(line)]
                body.append(
                    f"<h3>Share of each class of {escape(label)}</h3>{charts.bars(bars, 'share')}"
                )
        else:
            body.append(_aggregated(code))
    hint = f"Grey: below {active:g} nats, inactive."
    return f'<p class="hint">{escape(hint)}</p>{"".join(body)}'


def _aggregated(code: Coded) -> str:
    """Draws of the first coordinates by KL, each beside its own prior."""
    value = code.value.flatten(1).double().numpy()
    kl = code.kl or (0.0,) * value.shape[1]
    order = sorted(range(value.shape[1]), key=lambda d: -kl[d])
    plots = "".join(_histogram(code, d, value[:, d]) for d in order[:_HISTOGRAMS])
    if code.standard:
        hint = f"from {MINUS}4 to 4; the line is the standard normal density."
    elif code.own is not None:
        hint = "over the range in the caption; the line is the density of the coordinate's prior."
    else:
        hint = f"over the range in the caption; no line, for {code.why}."
    return (
        f"<h3>Aggregated posterior of {escape(code.name)}</h3><p class='hint'>Draws of all rows "
        f'{hint}</p><div class="histograms">{plots}</div>'
    )


def _histogram(code: Coded, d: int, value: NDArray[np.floating]) -> str:
    label, own = f"{code.name}[{d}]", code.own
    if code.standard:
        return charts.histogram(value, label, (-4.0, 4.0), _normal)
    middle, reach = float(value.mean()), 4.0 * float(value.std())
    low = max(middle - reach, float(value.min()))
    high = min(middle + reach, float(value.max()))
    # Of the codes' own scale, and never so little that it is lost in the numbers' precision.
    margin = max(1e-3 * (high - low), 1e-9 * max(abs(low), abs(high))) or 1e-3
    low, high = low - margin, high + margin
    if own is not None:
        first, last = own.ends(d)
        low, high = min(low, first), max(high, last)
    text = f"{label}: {low:.3g} to {high:.3g}".replace(": -", f": {MINUS}")
    text = text.replace("to -", f"to {MINUS}")
    density = None if own is None else partial(own.density, d)
    return charts.histogram(value, text, (low, high), density)


def _normal(edges: NDArray[np.floating]) -> NDArray[np.floating]:
    middle = 0.5 * (edges[1:] + edges[:-1])
    return np.exp(-0.5 * middle**2) / math.sqrt(2.0 * math.pi)


def page(
    title: str,
    subtitle: str,
    lead: str,
    warnings: Sequence[Notice],
    sections: Sequence[Section],
    skipped: Sequence[tuple[str, str]],
    details: Mapping[str, Any],
    numbers: Mapping[str, Any],
    unread: Sequence[str] = (),
) -> str:
    """The whole file; ``unread`` are the codes whose KL could not be read."""
    style = files("vaereg.metrics.reporting").joinpath("style.css").read_text(encoding="utf-8")
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p class='soft'>{escape(subtitle)}</p><nav>",
        *(f'<a href="#{anchor}">{escape(head)}</a>' for anchor, head, _ in sections),
        f"</nav></header><main>{lead}",
    ]
    if not warnings and unread:
        out.append(
            f"<p class='soft'>The KL of {escape(', '.join(unread))} was not read: whether it "
            "collapsed is not known.</p>"
        )
    elif not warnings:
        out.append(
            '<p class="fine">✓ No sign of collapse, and nothing that contradicts itself.</p>'
        )
    out += [
        f'<div class="notice {notice.level}"><b>{escape(notice.head)}</b>'
        f"<p>{escape(notice.text)}</p></div>"
        for notice in warnings
    ]
    out += [
        f'<section id="{anchor}"><h2>{escape(head)}</h2>{body}</section>'
        for anchor, head, body in sections
    ]
    if skipped:
        table = charts.table(("what", "why"), skipped).replace("<table>", '<table class="why">')
        out.append(f'<section id="skipped"><h2>Not measured</h2>{table}</section>')
    out.append("</main><footer>")
    if details:
        line = " · ".join(f"{escape(str(k))}: {escape(str(v))}" for k, v in details.items())
        out.append(f"<p>{line}</p>")
    text = escape(json.dumps(numbers, indent=1, allow_nan=False))
    out.append(f"<details><summary>All numbers</summary><pre>{text}</pre></details>")
    out.append("</footer></body></html>\n")
    return "".join(out)
