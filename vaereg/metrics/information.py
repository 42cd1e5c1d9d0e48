r"""Mutual information of codes that are already there, by fresh critics on held-out rows.

What a critic displays while it is trained is not evidence: it has seen the rows that it scores,
and an encoder that trains against it learns to blind it. Here each run draws a new split, fits a
*new* critic on the first part, stops it early on the second, and reads its bound on a third part
that neither has seen. Both methods give lower bounds up to sampling noise: a value near 0 means
that this procedure found nothing, not that there is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaereg.critics import check_critic
from vaereg.metrics._fit import (
    Budget,
    PairCritic,
    classifier,
    fit_classifier,
    fit_pair,
    squash,
)

__all__ = ["MIEstimate", "estimate_mi"]

_METHODS = ("classifier", "mine")
_MINIMUM = 50
Array = Any  # a Tensor or anything that numpy.asarray takes


@dataclass(frozen=True)
class MIEstimate:
    """A mutual information measured on held-out rows.

    Attributes:
        mean: Mean of ``values``.
        std: Standard deviation over the runs (``ddof=1``); 0 for one run.
        values: The held-out value of each run.
        gap: The displayed value minus ``mean``. Displayed is what the caller passed as
            ``displayed``, or else the mean bound of the kept critics on their training rows.
        power: The smallest planted dependence that the procedure recovered, or None where that
            was not measured. Below it the answer is "cannot tell", never "independent".
        unit: ``"nats"`` or ``"bits"``.

    Example:
        >>> estimate = MIEstimate(0.5, 0.1, (0.4, 0.6), 0.02)
        >>> print(estimate)
        0.500 ± 0.100 nats (2 runs, held out)
        >>> print(estimate.in_bits())
        0.721 ± 0.144 bits (2 runs, held out)
    """

    mean: float
    std: float
    values: tuple[float, ...]
    gap: float
    power: float | None = None
    unit: str = "nats"

    def in_bits(self) -> MIEstimate:
        """The same estimate in bits; an estimate in bits is returned as it is."""
        if self.unit == "bits":
            return self
        bits = 1.0 / math.log(2.0)
        return replace(
            self,
            mean=self.mean * bits,
            std=self.std * bits,
            values=tuple(v * bits for v in self.values),
            gap=self.gap * bits,
            power=None if self.power is None else self.power * bits,
            unit="bits",
        )

    def __str__(self) -> str:
        runs = f"{len(self.values)} run{'s' if len(self.values) != 1 else ''}"
        return f"{self.mean:.3f} ± {self.std:.3f} {self.unit} ({runs}, held out)"


def estimate_mi(
    a: Array,
    b: Array,
    *,
    method: str = "mine",
    critic: Callable[[int, int], nn.Module] | None = None,
    classes: int | None = None,
    runs: int = 5,
    seed: int = 0,
    split: Sequence[float] = (0.6, 0.2, 0.2),
    rank_transform: bool = False,
    epochs: int = 100,
    batch_size: int = 512,
    lr: float = 5e-3,
    weight_decay: float = 1e-2,
    patience: int = 10,
    device: torch.device | str | None = None,
    progress: bool = False,
    displayed: float | None = None,
) -> MIEstimate:
    r"""Post-hoc mutual information of two variables, by fresh critics on held-out rows.

    With the critic :math:`T` and the classifier :math:`q` fitted on other rows, and means over
    the held-out rows (all pairs :math:`i \ne j` for the product of the marginals),

    .. math::
        \text{mine:}\quad I(a; b) &\ge E_{p(a, b)}[T] - \log E_{p(a) p(b)}[e^T] \\
        \text{classifier:}\quad I(a; y) &= H(y) - H(y \mid a)
            \ge E_{p(a, y)}[\log q(y \mid a) - \log p(y)]

    where the classifier's :math:`p(y)` are the frequencies of the train rows: both terms are then
    cross-entropies on the same held-out rows, whose sampling noise cancels, and a classifier that
    finds nothing gives exactly 0 (the held-out rows' own entropy would give less).
    Early stopping starts from the critic :math:`T = 0` and takes another, possibly shrunk, only
    where its bound on the second part is above 0 by two standard errors: the value is exactly 0
    where nothing is found, at the price of dependence below about ``8 / rows`` nats for the
    ``rows`` of that part.

    Args:
        a: First variable, a tensor or array ``(N,)`` or ``(N, *)``.
        b: Second variable. For ``mine`` as ``a``, labels one-hot; for ``classifier`` integer
            labels ``(N,)`` or one-hot labels ``(N, C)``, where a missing label is -1 or a row of
            zeros, and the row is dropped. ``mine`` cannot know a label: drop such rows first.
        method: ``"mine"`` or ``"classifier"``.
        critic: Makes a *fresh* critic: for ``mine`` from the widths of ``a`` and ``b``, a module
            of one (concatenated) or two arguments, with a method ``all_pairs`` if it can score
            all pairs cheaply (see :class:`vaereg.critics.Separable`); for ``classifier`` from the
            width of ``a`` and the number of classes, a module ``(B, A) -> (B, C)`` to whose
            output the log-frequencies of the classes are added. Flattened, standardised rows come
            in. By default bilinear and quadratic parts plus perceptrons.
        classes: Number of classes for integer labels; by default the largest label plus 1.
        runs: Number of runs, each with its own split and critic.
        seed: Seed of all runs. Equal seeds give equal values on the same machine.
        split: Fractions of the rows to train on, to stop on and to read on.
        rank_transform: Replace each column by normal scores of its ranks, for heavy tails and
            unequal scales. A strictly monotone map of each column leaves mutual information
            unchanged. The map is fitted on the train rows (midranks; linear in between, constant
            beyond their range), so that for the other rows it is a fixed map: the value stays a
            bound, and the constant ends can only lower it.
        epochs: Largest number of passes over the train rows.
        batch_size: Rows of a step; at most a quarter of the train rows are used.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        patience: Passes without a better value on the second part before training stops.
        device: Where critics are fitted; by default where ``a`` is.
        progress: Show a progress bar (needs tqdm).
        displayed: The value in nats that the caller's own training displayed; see
            :attr:`MIEstimate.gap`.

    Returns:
        The estimate, in nats.

    Raises:
        ValueError: If an argument is out of range, row counts differ, rows are too few, a value is
            not finite, or labels are of one class or out of range.
        TypeError: If a variable is not numeric, or ``critic`` is a module and not a factory.
        ImportError: If ``progress`` is set and tqdm is not installed.

    References:
        | Mutual Information Neural Estimation (Belghazi et al., 2018), eq. 10.
        | https://arxiv.org/abs/1801.04062
        | The IM Algorithm (Barber & Agakov, 2003), eq. 3, for the classifier.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a = torch.randn(400, 1, generator=g)
        >>> b = a + 0.1 * torch.randn(400, 1, generator=g)
        >>> estimate = estimate_mi(a, b, runs=1, epochs=20)
        >>> estimate.mean > 0.5, estimate.unit, len(estimate.values)
        (True, 'nats', 1)
    """
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    if isinstance(critic, nn.Module):
        raise TypeError(
            "critic: expected a factory such as `lambda a, b: mlp(a + b, 1)`, because each run "
            f"needs a fresh critic, got the module {type(critic).__name__}"
        )
    for name, number in (
        ("runs", runs), ("epochs", epochs), ("batch_size", batch_size), ("patience", patience)
    ):  # fmt: skip
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    if len(split) != 3 or min(split) <= 0.0 or abs(sum(split) - 1.0) > 1e-6:
        raise ValueError(f"split: expected three positive fractions that sum to 1, got {split}")
    x = _rows("a", a)
    if method == "classifier":
        y, n_classes = _labels(b, classes)
        _check_count(len(x), len(y))
        x, y = x[y >= 0], y[y >= 0]
        if len(y) and bool((y == y[0]).all()):
            raise ValueError(f"b: expected labels of at least two classes, got only {int(y[0])}")
    else:
        y, n_classes = _rows("b", b, labels=True), 0
        _check_count(len(x), len(y))
    sizes = _sizes(len(x), split)
    if device is None:
        device = a.device if isinstance(a, Tensor) else "cpu"
    where = torch.device(device)
    budget = Budget(epochs, batch_size, lr, weight_decay, patience)
    bar = _progress(runs * epochs) if progress else None
    forked = [where] if where.type == "cuda" else []
    values: list[float] = []
    shown: list[float] = []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(forked):
        for run in range(runs):
            run_seed = (seed * 1_000_003 + run) % 2**63
            generator = torch.Generator().manual_seed(run_seed)
            # Not torch.manual_seed: it would also seed devices that are not forked.
            torch.default_generator.manual_seed(run_seed)
            if where.type == "cuda":
                with torch.cuda.device(where):
                    torch.cuda.manual_seed(run_seed)
            order = torch.randperm(len(x), generator=generator)
            rows = order[: sizes[0]], order[sizes[0] : sizes[0] + sizes[1]], order[-sizes[2] :]
            xs = [p.to(where) for p in _scaled(x, rows, rank_transform)]
            if method == "classifier":
                ys = [torch.from_numpy(y)[r].to(where) for r in rows]
                make = critic or classifier
                widths = xs[0].shape[1], n_classes
            else:
                ys = [p.to(where) for p in _scaled(y, rows, rank_transform)]
                make = critic or PairCritic
                widths = xs[0].shape[1], ys[0].shape[1]
            module = make(*widths)
            check_critic(module, "critic")
            module = module.to(where)
            parts = (xs[0], ys[0]), (xs[1], ys[1]), (xs[2], ys[2])

            def report(value: float) -> None:
                if bar is not None:
                    bar.set_postfix(stop=f"{value:.3f}")
                    bar.update()

            if method == "classifier":
                held, train = fit_classifier(module, parts, n_classes, budget, generator, report)
            else:
                held, train = fit_pair(module, parts, budget, generator, report)
            values.append(held)
            shown.append(train)
    if bar is not None:
        bar.close()
    mean = float(np.mean(values))
    std = float(np.std(values, ddof=1)) if runs > 1 else 0.0
    gap = (float(np.mean(shown)) if displayed is None else displayed) - mean
    return MIEstimate(mean, std, tuple(values), gap)


def _check_count(a: int, b: int) -> None:
    if a != b:
        raise ValueError(f"b: expected as many rows as a, {a}, got {b}")


def _sizes(n: int, split: Sequence[float]) -> tuple[int, int, int]:
    if n < _MINIMUM:
        raise ValueError(f"a: expected at least {_MINIMUM} (labelled) rows, got {n}")
    train, stop = int(n * split[0]), int(n * split[1])
    sizes = train, stop, n - train - stop
    if min(sizes) < 8:
        raise ValueError(f"split: expected at least 8 rows in each part, got {sizes}")
    return sizes


def _numpy(name: str, value: Array) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()  # numpy has no bfloat16
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{name}: expected rows along dim 0, got a scalar")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got nan or inf")
    return array


def _rows(name: str, value: Array, *, labels: bool = False) -> NDArray[Any]:
    """Flattened rows in float64, ``(N, D)``."""
    array = _numpy(name, value)
    if labels and array.ndim == 1 and array.dtype.kind in "iu" and len(np.unique(array)) > 2:
        raise ValueError(
            f"{name}: expected one-hot labels or real numbers for method 'mine', got integers "
            f"{tuple(array.shape)}; one-hot them, or convert to float where they are ordinal"
        )
    flat = array.reshape(len(array), -1).astype(np.float64)
    if flat.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one column, got shape {array.shape}")
    return flat


def _labels(value: Array, classes: int | None) -> tuple[NDArray[Any], int]:
    """Integer labels with -1 for missing, and the number of classes."""
    array = _numpy("b", value)
    if array.ndim == 2:
        if not np.isin(array, (0, 1)).all() or (array.sum(1) > 1).any():
            raise ValueError("b: expected one-hot rows (or zeros for a missing label), got others")
        if classes is not None and classes != array.shape[1]:
            raise ValueError(f"b: expected {classes} columns (classes), got {array.shape[1]}")
        return np.where(array.any(1), array.argmax(1), -1).astype(np.int64), array.shape[1]
    if array.ndim != 1 or array.dtype.kind == "f":
        raise ValueError(
            "b: expected integer labels (N,) or one-hot labels (N, C) for method 'classifier', "
            f"got shape {array.shape} of {array.dtype}"
        )
    y = array.astype(np.int64)
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)
    count = high + 1 if classes is None else classes
    if low < -1 or high >= count:
        raise ValueError(f"b: expected labels in 0..{count - 1} (-1 = missing), got {low}..{high}")
    return y, max(count, 1)


def _scaled(x: NDArray[Any], rows: Sequence[Tensor], rank_transform: bool) -> list[Tensor]:
    """The three parts in float32, scaled by statistics of the first."""
    train = x[rows[0].numpy()]
    if rank_transform:
        columns = [_normal_scores(train[:, k], x[:, k]) for k in range(x.shape[1])]
        x = np.stack(columns, 1)
        train = x[rows[0].numpy()]
    with np.errstate(over="ignore", invalid="ignore"):
        top = np.maximum(np.abs(train).max(0), np.finfo(np.float64).tiny)
        x, train = x / top, train / top  # a square must not overflow
    mean, std = train.mean(0), train.std(0)
    constant = std <= 1e-12 * np.abs(mean)
    z = (x - mean) / np.where(constant, 1.0, np.where(std > 0.0, std, 1.0))
    z[:, constant] = 0.0
    return [squash(torch.from_numpy(z[r.numpy()])).float() for r in rows]


def _normal_scores(train: NDArray[Any], column: NDArray[Any]) -> NDArray[Any]:
    """Normal scores of midranks among the train rows, interpolated for the others."""
    values, counts = np.unique(train, return_counts=True)
    midranks = (np.cumsum(counts) - 0.5 * counts) / len(train)
    normal = math.sqrt(2.0) * torch.erfinv(torch.from_numpy(2.0 * midranks - 1.0))
    return np.interp(column, values, normal.numpy())


def _progress(total: int) -> Any:
    try:
        return import_module("tqdm").tqdm(total=total, unit="epoch", desc="estimate_mi")
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
