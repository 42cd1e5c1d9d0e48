"""The page: sections as HTML, one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, cast

import numpy as np

from vaereg.metrics._audits import Audit, reading
from vaereg.metrics._bracket import MIBracket
from vaereg.metrics.reporting import _charts as charts
from vaereg.metrics.reporting._charts import DASH, MINUS, number
from vaereg.metrics.reporting._gather import Gathered
from vaereg.metrics.reporting._measure import Measured, Scores
from vaereg.metrics.reporting._notices import Notice
from vaereg.metrics.reporting._pictures import Canvas, Walk

__all__ = ["Section", "audited", "bracketed", "coordinates", "kl_parts", "page", "scored", "shown",
           "tiles", "walked"]  # fmt: skip

Section = tuple[str, str, str]
"""Anchor, heading and body."""
_TITLES = {
    "mig": "MIG (histogram, 20 bins)", "mig_sampled": "MIG (samples of q(z|x))",
    "factor_vae": "FactorVAE score", "beta_vae": "beta-VAE score", "dci": "DCI disentanglement",
    "completeness": "DCI completeness", "informativeness": "DCI informativeness", "sap": "SAP",
    "modularity": "Modularity", "explicitness": "Explicitness", "irs": "IRS",
    "gaussian_tc": "Gaussian total correlation (nats)",
}  # fmt: skip
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
            entries.append((number(found.brackets[name].exact, 2), f"I(x; {name}), nats"))
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
            value = code.value.flatten(1).double().numpy()
            kl = code.kl or (0.0,) * value.shape[1]
            order = sorted(range(value.shape[1]), key=lambda d, kl=kl: -kl[d])
            plots = "".join(
                charts.histogram(value[:, d], f"{name}[{d}]") for d in order[:_HISTOGRAMS]
            )
            body.append(
                f"<h3>Aggregated posterior of {escape(name)}</h3><p class='hint'>Draws of all "
                f"rows from {MINUS}4 to 4; the line is the standard normal density.</p>"
                f'<div class="histograms">{plots}</div>'
            )
    hint = f"Grey: below {active:g} nats, inactive."
    return f'<p class="hint">{escape(hint)}</p>{"".join(body)}'


def kl_parts(found: Measured, rows: int) -> str:
    """The exact parts of the KL."""
    body: list[str] = []
    for name, parts in found.parts.items():
        error = float(np.hypot.reduce(parts.dimwise_error)) if parts.dimwise_error else 0.0
        stack = charts.stack([
            (f"I(x; {name})", parts.mi, parts.mi_error),
            ("total correlation", parts.tc, parts.tc_error),
            ("coordinate-wise KL", sum(parts.dimwise_kl), error),
        ])  # fmt: skip
        body.append(
            f"<h3>{escape(name)}: KL {number(parts.kl)} nats</h3>{stack}"
            f'<p class="hint">{parts.samples} codes, each compared with the posteriors of all '
            f"{rows} rows.</p>"
        )
    return "".join(body)


def bracketed(brackets: Mapping[str, MIBracket]) -> str:
    """What each code knows, between its bounds."""
    body: list[str] = []
    for name, held in brackets.items():
        axis = charts.interval(
            (held.lower, held.lower_error), (held.exact, held.exact_error),
            (held.upper, held.upper_error), held.entropy,
        )  # fmt: skip
        rows = [
            ("fresh critic on held-out rows (lower bound)", number(held.lower),
             number(held.lower_error)),
            ("these rows' posteriors" + ("" if held.ceiling is None else
             f" (shows at most {held.ceiling:.2f})"), number(held.exact),
             number(held.exact_error)),
            ("KL rate (upper bound)", number(held.upper), number(held.upper_error)),
        ]  # fmt: skip
        if held.entropy is not None:
            rows.append(("entropy of the code (no information exceeds it)",
                         number(held.entropy), DASH))  # fmt: skip
        if held.decoded is not None:
            rows.append((f"I({name}; x\N{PRIME}), read back from what is decoded (lower bound)",
                         number(held.decoded), number(held.decoded_error)))  # fmt: skip
        table = charts.table((f"I({name}; x), nats", "value", "± std. error"), rows)
        body.append(f"<h3>{escape(name)}</h3>{axis}{table}")
    return "".join(body)


def audited(found: Audit) -> str:
    """What the objective's terms display, against fresh critics."""
    rows = [
        (
            entry.name, f"{entry.kind}: {entry.a}; {entry.b}", number(entry.displayed),
            reading(entry.estimate), number(entry.estimate.power, 2),
            f'<span class="badge {entry.verdict.split()[0]}">{escape(entry.verdict)}</span>',
        )
        for entry in found.terms.values()
    ]  # fmt: skip
    head = ("term", "variables", "displays", "fresh critics", "smallest leak seen", "verdict")
    return charts.table(head, rows, marked=5) + (
        f'<p class="hint">Nats, {found.rows} rows. Independent means no more than '
        f"{found.resolution:g}.</p>"
    )


def scored(scores: Mapping[str, Scores]) -> str:
    """Scores beside known factors, and which coordinate tells of which."""
    names = list(dict.fromkeys(n for own in scores.values() for n in own.values))
    rows = [
        (_TITLES.get(n, n), *(number(own.values.get(n)) for own in scores.values())) for n in names
    ]
    body = [charts.table(("score", *scores), rows)]
    for name, own in scores.items():
        labels = [f"{name}[{d}]" for d in range(len(own.information))]
        body.append(
            f"<h3>Which coordinate of {escape(name)} tells of which factor</h3>"
            "<p class='hint'>Mutual information over the factor's entropy, 20 bins. One dark cell "
            "in each column is a disentangled code.</p>"
            + charts.heat(own.information, labels, own.factors)
        )
    return "".join(body)


def page(
    title: str,
    subtitle: str,
    lead: str,
    warnings: Sequence[Notice],
    sections: Sequence[Section],
    skipped: Sequence[tuple[str, str]],
    details: Mapping[str, Any],
    numbers: Mapping[str, Any],
) -> str:
    """The whole file."""
    style = files("vaereg.metrics.reporting").joinpath("style.css").read_text(encoding="utf-8")
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p class='soft'>{escape(subtitle)}</p><nav>",
        *(f'<a href="#{anchor}">{escape(head)}</a>' for anchor, head, _ in sections),
        f"</nav></header><main>{lead}",
    ]
    if not warnings:
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
        line = " · ".join(f"{escape(k)}: {escape(str(v))}" for k, v in details.items())
        out.append(f"<p>{line}</p>")
    text = escape(json.dumps(numbers, indent=1, allow_nan=False))
    out.append(f"<details><summary>All numbers</summary><pre>{text}</pre></details>")
    out.append("</footer></body></html>\n")
    return "".join(out)
