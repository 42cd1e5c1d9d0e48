"""The sections on what codes know: parts of the KL, brackets, the audit, known factors."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from vaereg.metrics._audits import Audit, reading
from vaereg.metrics._bracket import MIBracket
from vaereg.metrics.reporting import _charts as charts
from vaereg.metrics.reporting._charts import DASH, number
from vaereg.metrics.reporting._measure import Measured, Scores

__all__ = ["audited", "bracketed", "kl_parts", "scored"]

_TITLES = {
    "mig": ("MIG (histogram, 20 bins)",
            "How far is the best coordinate ahead of the second, in information?"),
    "mig_sampled": ("MIG (samples of q(z|x))", "The same, of posteriors and not of their means"),
    "factor_vae": ("FactorVAE score",
                   "Does the coordinate that varies least tell which factor is fixed?"),
    "beta_vae": ("beta-VAE score", "Can a linear classifier tell which factor pairs share?"),
    "dci": ("DCI disentanglement", "Does each coordinate serve one factor?"),
    "completeness": ("DCI completeness", "Does each factor use one coordinate?"),
    "informativeness": ("DCI informativeness",
                        "How well do boosted trees read the factors? Accuracy on held-out rows"),
    "sap": ("SAP", "How far is the best coordinate ahead of the second, in accuracy of a line?"),
    "modularity": ("Modularity", "Does each coordinate tell of one factor only?"),
    "explicitness": ("Explicitness", "Can a linear classifier read the factors from all of them?"),
    "irs": ("IRS", "How little does a coordinate move while its factor is fixed?"),
    "gaussian_tc": ("Gaussian total correlation (nats)",
                    "How much do coordinates depend on each other, by covariance? 0: not at all"),
}  # fmt: skip


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
            f"{rows} rows. The KL is that of all of them.</p>"
        )
    return "".join(body)


def bracketed(brackets: Mapping[str, MIBracket], given: int, rows: int) -> str:
    """What each code knows, between its bounds: of the ``given`` first of ``rows`` rows."""
    first = next(iter(brackets.values()))
    body = [
        f'<p class="hint">Read on {first.rows} rows of {given}; the fresh critics were fitted on '
        f"the others. The KL and its parts elsewhere on this page are of all {rows} rows: the "
        "same quantity, KL or information, has another value there."
        + f" A Gaussian code is read beside {given} posteriors here, beside {rows} there."
        * (given < rows)
        + "</p>",
        charts.keys(discrete=any(held.entropy is not None for held in brackets.values())),
    ]
    for name, held in brackets.items():
        axis = charts.interval(
            (held.lower, held.lower_error), (held.exact, held.exact_error),
            (held.upper, held.upper_error), held.entropy,
        )  # fmt: skip
        lines = [
            ("fresh critic on held-out rows (lower bound)", number(held.lower),
             number(held.lower_error)),
            ("these rows' posteriors" + ("" if held.ceiling is None else
             f" (shows at most {held.ceiling:.2f})"), number(held.exact),
             number(held.exact_error)),
            ("KL rate (upper bound)", number(held.upper), number(held.upper_error)),
        ]  # fmt: skip
        if held.entropy is not None:
            lines.append(("entropy of the code (no information exceeds it)",
                          number(held.entropy), DASH))  # fmt: skip
        table = charts.table((f"I({name}; x), nats", "value", "± std. error"), lines)
        body.append(f"<h3>{escape(name)}</h3>{axis}{table}")
        if held.decoded is not None:
            read = [("fresh critic on what is decoded (lower bound)", number(held.decoded),
                     number(held.decoded_error))]  # fmt: skip
            body.append(
                charts.table((f"I({name}; x\N{PRIME}), nats", "value", "± std. error"), read)
                + '<p class="hint">x\N{PRIME} is decoded from a draw of the code. What the '
                "decoder prints of the draw is another quantity than what the code knows of the "
                "data, and the KL rate above is no bound of it: more than that is no "
                "contradiction."
                + (" The entropy is one." if held.entropy is not None else "")
                + "</p>"
            )
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


def scored(scores: Mapping[str, Scores], rows: int) -> str:
    """Scores beside known factors, and which coordinate tells of which."""
    names = list(dict.fromkeys(n for own in scores.values() for n in own.values))
    lines = [
        (_asked(name), *(number(own.values.get(name)) for own in scores.values()))
        for name in names
    ]
    body = [_read(scores, rows, names), charts.table(("score", *scores), lines, marked=0)]
    for name, own in scores.items():
        labels = [f"{name}[{d}]" for d in range(len(own.information))]
        body.append(
            f"<h3>Which coordinate of {escape(name)} tells of which factor</h3>"
            "<p class='hint'>Mutual information over the factor's entropy, 20 bins. One dark cell "
            "in each column is a disentangled code.</p>"
            + charts.heat(own.information, labels, own.factors)
        )
    return "".join(body)


def _asked(name: str) -> str:
    title, question = _TITLES.get(name, (name, ""))
    return f'{escape(title)}<span class="asks">{escape(question)}</span>'


def _read(scores: Mapping[str, Scores], rows: int, names: list[str]) -> str:
    """What scores are computed from."""
    first = next(iter(scores.values()))
    sources = " and ".join(f"{own.reads} of {name}" for name, own in scores.items())
    whole = [n for n in ("factor_vae", "beta_vae", "gaussian_tc") if n in names]
    if first.rows == rows:
        text = f"Scores read {sources}, on all {rows} rows"
    else:
        told = ", ".join(_TITLES[n][0] for n in whole)
        text = f"Scores read {sources}, on {first.rows} of the {rows} rows"
        text += f" ({told}: on all)" if told else ""
    if "mig_sampled" in names:
        text += f". {_TITLES['mig_sampled'][0]} reads the posteriors of all {rows} rows"
    if not first.grid and ("factor_vae" in names or "beta_vae" in names):
        text += (
            ". These rows are no complete grid of the factors' values: FactorVAE and beta-VAE "
            "scores fix a factor by drawing among the rows of one value, and are then not "
            "interventional: factors that go together in these rows do so in both scores"
        )
    return f'<p class="hint">{escape(text)}.</p>'
