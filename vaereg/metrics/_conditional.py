"""Fresh classifiers and conditional densities for post-hoc estimates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaereg.functional.variational import soft_clamp
from vaereg.metrics._fit import SCALES, Budget, Fit, Parts, fit_module
from vaereg.metrics._read import Rows, group_error, group_index

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
    """As :func:`fit_pair` for classifiers; ``b`` holds labels.

    Read is T = log q(y | a) - log E_a' q(y | a'), the mean over the rows of other groups. Its
    exponential has mean 1 over ``a`` for each label, so that E[T] is a lower bound whatever q is;
    against label frequencies of other rows it is not.
    """
    train, stop, held = parts
    # Krichevsky-Trofimov smoothing: a class that the train rows lack has a finite log-frequency.
    counts = torch.bincount(train.b, minlength=classes).to(train.a.dtype) + 0.5
    prior = (counts / counts.sum()).log()

    def loss(module: nn.Module, index: Tensor) -> Tensor:
        part = train[index.to(train.a.device)]
        return F.cross_entropy(module(part.a) + prior, part.b)

    def values(module: nn.Module, rows: Rows, scale: float, weights: Tensor) -> Tensor:
        return _read_classifier((scale * module(rows.a) + prior).log_softmax(1), rows, weights)

    def stopped(module: nn.Module) -> list[tuple[float, float]]:
        ones = torch.ones_like(stop.a[:, :1])
        found = [values(module, stop, s, ones)[:, 0] for s in SCALES]
        return [(float(g.mean()), group_error(g, stop.group)) for g in found]

    best, scale, chosen = 0.0, 0.0, modules[0][0]
    for module, budget in modules:
        value, own = fit_module(
            module,
            lambda i, m=module: loss(m, i),
            lambda m=module: stopped(m),
            len(train),
            budget,
            generator,
            report,
            by_value=True,
        )
        if value > best:
            best, scale, chosen = value, own, module
    with torch.no_grad():
        found = (values(chosen, held, scale, weights) * weights).sum(0) / weights.sum(0)
        m = min(len(held), len(train))
        own = values(chosen, train[:m], scale, torch.ones_like(train.a[:m, :1])).mean()
        if not scale:
            return Fit(torch.zeros_like(found).cpu(), 0.0, "none")
    return Fit(found.cpu(), float(own), type(chosen).__name__)


def _read_classifier(log_q: Tensor, rows: Rows, weights: Tensor) -> Tensor:
    """T of each row for each column of ``weights``, ``(n, R)``, in float64."""
    q, w, y = log_q.double().exp(), weights.double(), rows.b
    group, groups = group_index(rows.group)
    mass = q.new_zeros(groups, q.shape[1]).index_add_(0, group, q)[group]
    size = torch.bincount(group, minlength=groups)[group].to(q)
    # Rows of a group are drawn together, hence of one weight.
    every = (q.mT @ w)[y] - w * mass.gather(1, y[:, None])  # (n, R)
    count = w.sum(0) - w * size[:, None]
    tiny = torch.finfo(q.dtype).tiny
    marginal = every.clamp_min(tiny).log() - count.clamp_min(tiny).log()
    return log_q.double().gather(1, y[:, None]) - marginal


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
        return [(float(gain.mean()), group_error(gain, stop.group))]

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
