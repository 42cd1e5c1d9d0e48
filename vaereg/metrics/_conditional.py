"""Fresh classifiers and conditional densities for post-hoc estimates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaereg.functional.variational import soft_clamp
from vaereg.metrics._fit import SCALES, Budget, Fit, Parts, fit_module
from vaereg.metrics._read import Rows

__all__ = ["fit_classifier", "fit_conditional"]

_LOGVAR = (-10.0, 10.0)


def fit_classifier(
    modules: Sequence[tuple[nn.Module, Budget]],
    parts: Parts,
    weights: Tensor,
    classes: int,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> Fit:
    """As :func:`fit_pair` for classifiers: mean of log q(y | a) - log p(y); ``b`` holds labels."""
    train, stop, held = parts
    # Krichevsky-Trofimov smoothing: a class that the train rows lack has a finite log-frequency.
    counts = torch.bincount(train.b, minlength=classes).to(train.a.dtype) + 0.5
    prior = (counts / counts.sum()).log()

    def gains(module: nn.Module, rows: Rows, scales: Sequence[float]) -> list[Tensor]:
        logits, marginal = module(rows.a), prior[rows.b]
        # (n,) for each scale.
        return [
            -F.cross_entropy(s * logits + prior, rows.b, reduction="none") - marginal
            for s in scales
        ]

    def stopped(module: nn.Module) -> list[tuple[float, float]]:
        found = gains(module, stop, SCALES)
        return [(float(g.mean()), float(g.std()) / math.sqrt(len(g))) for g in found]

    best, scale, chosen = 0.0, 0.0, modules[0][0]
    for module, budget in modules:
        value, own = fit_module(
            module,
            lambda i, m=module: -gains(m, train[i.to(train.a.device)], (1.0,))[0].mean(),
            lambda m=module: stopped(m),
            len(train),
            budget,
            generator,
            report,
        )
        if value > best:
            best, scale, chosen = value, own, module
    with torch.no_grad():
        found = gains(chosen, held, (scale,))[0].to(weights.dtype)
        values = (found @ weights / weights.sum(0)).double()
        on_train = float(gains(chosen, train, (scale,))[0].mean())
    return Fit(values.cpu(), on_train, type(chosen).__name__ if scale else "none")


def fit_conditional(
    module: nn.Module,
    budget: Budget,
    parts: Parts,
    weights: Tensor,
    generator: torch.Generator,
    report: Callable[[float], None],
) -> Fit:
    """CLUB: a Gaussian of ``b`` given ``a`` fitted by likelihood, read against shuffled rows."""
    train, stop, held = parts
    mean, var = train.b.mean(0), train.b.var(0).clamp_min(1e-12)

    def log_density(rows: Rows) -> Tensor:
        centre, logvar = module(rows.a).chunk(2, 1)
        logvar = soft_clamp(logvar, *_LOGVAR)
        return -0.5 * ((rows.b - centre).square() * (-logvar).exp() + logvar).sum(1)

    def marginal(rows: Rows) -> Tensor:
        return -0.5 * ((rows.b - mean).square() / var + var.log()).sum(1)

    def stopped() -> list[tuple[float, float]]:
        gain = log_density(stop) - marginal(stop)
        return [(float(gain.mean()), float(gain.std()) / math.sqrt(len(gain)))]

    _, scale = fit_module(
        module,
        lambda i: -log_density(train[i.to(train.a.device)]).mean(),
        stopped,
        len(train),
        budget,
        generator,
        report,
    )
    if scale == 0.0:
        return Fit(torch.zeros(weights.shape[1], dtype=torch.float64), 0.0, "none")
    with torch.no_grad():
        values = _club(module, held, weights)
        m = min(len(held), len(train))
        own = _club(module, train[:m], torch.ones_like(weights[:m, :1]))
    return Fit(values.cpu(), float(own[0]), type(module).__name__)


def _club(module: nn.Module, rows: Rows, weights: Tensor) -> Tensor:
    """E[log q(b|a)] - E[log q(b'|a)], b' from the other rows, for each column of ``weights``."""
    centre, logvar = (t.double() for t in module(rows.a).chunk(2, 1))
    precision = (-soft_clamp(logvar, *_LOGVAR)).exp()
    b, w = rows.b.double(), weights.double()
    centred = b - b.mean(0)
    centre = centre - b.mean(0)
    own = ((centred - centre).square() * precision).sum(1)  # (n,)
    share = w / w.sum(0)
    first, second = centred.mT @ share, centred.square().mT @ share  # (D, R)
    # Mean over all b' of the squared distance, by the moments of b; b is centred beforehand.
    every = precision @ second - 2.0 * (precision * centre) @ first
    every = every + (precision * centre.square()).sum(1, keepdim=True)
    # Leave the own row out: it is no product row.
    others = (every - share * own[:, None]) / (1.0 - share).clamp_min(1e-12)
    return 0.5 * ((others - own[:, None]) * share).sum(0)
