r"""Mutual information of codes that are already there, by fresh critics on held-out rows.

What a critic displays while it is trained is not evidence: it has seen the rows that it scores,
and an encoder that trains against it learns to blind it. Here each run fits a *new* critic on one
part of the rows, stops it early on a second, and reads its bound on a third part that neither has
seen. A value near 0 means that this procedure found nothing, not that there is nothing: what it
would have found is its *power*, measured by planted leaks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaereg.metrics._estimate import InformationWarning, MIEstimate
from vaereg.metrics._fit import Budget
from vaereg.metrics._plant import is_discrete
from vaereg.metrics._rows import Array, are_labels, check_count, group_ids, labels, rows, splits
from vaereg.metrics._study import Factory, Study, check_planted, with_power

__all__ = ["InformationWarning", "MIEstimate", "estimate_mi"]

# What a method's value is, beside the mutual information.
_BOUNDS = {
    "best": "lower", "mine": "lower", "nwj": "lower", "jsd": "lower", "infonce": "lower",
    "classifier": "lower", "smile": "none", "club": "upper",
}  # fmt: skip
# Within this share of its ceiling a lower bound is reported with a warning.
_NEAR = 0.8


def estimate_mi(
    a: Array,
    b: Array,
    *,
    method: str = "mine",
    critic: Factory | None = None,
    classes: int | None = None,
    groups: Array | None = None,
    planted: Sequence[float] | Callable[[MIEstimate], Sequence[float]] = (),
    runs: int = 5,
    seed: int = 0,
    split: Sequence[float] = (0.6, 0.2, 0.2),
    rank_transform: bool | None = None,
    confidence: float = 0.95,
    bootstrap: int = 200,
    epochs: int = 100,
    batch_size: int = 512,
    lr: float | None = None,
    weight_decay: float = 1e-2,
    patience: int = 10,
    device: torch.device | str | None = None,
    progress: bool = False,
    displayed: float | None = None,
) -> MIEstimate:
    r"""Post-hoc mutual information of two variables, by fresh critics on held-out rows.

    With the critic :math:`T`, the classifier :math:`q(y \mid a)` and the Gaussian
    :math:`q(b \mid a)` fitted on other rows, and means over the held-out rows (all pairs
    :math:`i \ne j` for the product of the marginals), the methods read

    .. math::
        \text{mine, jsd:}\quad & E_{p(a, b)}[T] - \log E_{p(a) p(b)}[e^T] \le I(a; b) \\
        \text{nwj:}\quad & E_{p(a, b)}[T] - E_{p(a) p(b)}[e^{T - 1}] \le I(a; b) \\
        \text{infonce:}\quad & E\Big[T(a_i, b_i) - \log \frac1K \sum_{j=1}^K
            e^{T(a_i, b_j)}\Big] \le \min(I(a; b), \log K) \\
        \text{smile:}\quad & E_{p(a, b)}[T] - \log E_{p(a) p(b)}[\operatorname{clip}(e^T, e^{-5},
            e^5)] \\
        \text{club:}\quad & E_{p(a, b)}[\log q(b \mid a)] - E_{p(a) p(b)}[\log q(b \mid a)] \\
        \text{classifier:}\quad & E_{p(a, y)}\big[\log q(y \mid a)
            - \log E_{p(a')} q(y \mid a')\big] \le I(a; y)

    ``mine``, ``nwj`` and ``infonce`` fit what they read; ``jsd`` and ``smile`` fit the
    Jensen-Shannon bound. ``smile`` is no bound, and ``club`` one from above only where its
    Gaussian is right. ``best`` fits critics of two kinds on normal scores of ranks, one separable
    and one concatenated, and reads the Donsker-Varadhan bound of the one (or of their mean) that
    is tightest on the second part; for integer labels it chooses among two classifiers.

    The classifier is read against its own marginal over the held-out rows, which makes the value a
    bound whatever it has learned, and exactly 0 where it says the same of every row. Against the
    label frequencies of other rows it would exceed the truth where classes are rare.
    Early stopping starts from the critic :math:`T = 0` and takes another, possibly shrunk, only
    where its bound on the second part is above 0 by two standard errors: the value is exactly 0
    where nothing is found, at the price of dependence below about ``8 / rows`` nats for the
    ``rows`` of that part.

    Args:
        a: First variable, a tensor or array ``(N,)`` or ``(N, *)``.
        b: Second variable. For most methods as ``a``, labels one-hot; for ``classifier``
            integer labels ``(N,)`` or one-hot labels ``(N, C)``, where a missing label is -1 or a
            row of zeros, and the row is dropped; ``best`` takes either. Other methods cannot know
            a label: drop such rows first.
        method: ``mine``, ``nwj``, ``jsd``, ``infonce``, ``smile``, ``club``, ``classifier`` or
            ``best``.
        critic: Makes a *fresh* critic from the widths of ``a`` and ``b``: a module of one
            (concatenated) or two arguments, with a method ``all_pairs`` if it can score all pairs
            cheaply (see :class:`vaereg.critics.Separable`); for ``classifier`` from the width of
            ``a`` and the number of classes, a module ``(B, A) -> (B, C)`` to whose output the
            log-frequencies of the classes are added; for ``club`` a module
            ``(B, A) -> (B, 2 D)``, mean and log-variance. Flattened, standardised rows come in. By
            default the log-ratio of Gaussians of the same canonical correlations, plus bilinear,
            quadratic parts and perceptrons.
        classes: Number of classes for integer labels; by default the largest label plus 1.
        groups: An id for each row, ``(N,)``. Rows of one group, such as several posterior draws of
            one datum, stay in one part, make no product pairs, and are resampled together.
        planted: Sizes in nats of leaks to plant for the power, ascending: ``b`` is drawn anew so
            that it tells exactly this much of one column of ``a``, and the same procedure reads
            it. The first size of which at least half is read, with an interval above 0, is
            :attr:`MIEstimate.power`; the larger ones are not tried. Also a function from the
            estimate so far to such sizes.
        runs: Number of runs, each with its own critic. Consecutive runs read disjoint parts for as
            long as there are any.
        seed: Seed of all runs. Equal seeds give equal values on the same machine.
        split: Fractions of the rows to train on, to stop on and to read on.
        rank_transform: Replace each column by normal scores of its ranks, for heavy tails and
            unequal scales; by default for ``best`` only. A strictly monotone map of each column
            leaves mutual information unchanged. The map is fitted on the train rows (midranks;
            linear in between, constant beyond their range), so that for the other rows it is a
            fixed map: the value stays a bound, and the constant ends can only lower it.
        confidence: Level of the bootstrap interval.
        bootstrap: Number of bootstrap replicates; 0 for no interval.
        epochs: Largest number of passes over the train rows.
        batch_size: Rows of a step; at most a quarter of the train rows are used.
        lr: Learning rate of AdamW; by default 2e-3 for pairs and 5e-3 for ``classifier``.
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
            not finite, labels are of one class or out of range, or a leak cannot be planted.
        TypeError: If a variable is not numeric, or ``critic`` is a module and not a factory.
        ImportError: If ``progress`` is set and tqdm is not installed.

    Warns:
        InformationWarning: If a lower bound comes near :attr:`MIEstimate.ceiling`, or passes it:
            the truth may be far off. Also if ``club`` is to read labels.

    References:
        | Mutual Information Neural Estimation (Belghazi et al., 2018), eq. 10.
        | https://arxiv.org/abs/1801.04062
        | The IM Algorithm (Barber & Agakov, 2003), eq. 3, for the classifier.
        | Formal Limitations on the Measurement of Mutual Information (McAllester & Stratos, 2020),
          theorem 1, for the ceiling. https://arxiv.org/abs/1811.04251
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2, for the
          others. https://arxiv.org/abs/1905.06922

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a = torch.randn(400, 1, generator=g)
        >>> b = a + 0.1 * torch.randn(400, 1, generator=g)
        >>> estimate = estimate_mi(a, b, runs=1, epochs=20)
        >>> estimate.mean > 0.5, estimate.unit, len(estimate.values)
        (True, 'nats', 1)
    """
    if method not in _BOUNDS:
        raise ValueError(f"method: expected one of {', '.join(sorted(_BOUNDS))}, got {method!r}")
    if isinstance(critic, nn.Module):
        raise TypeError(
            "critic: expected a factory such as `lambda a, b: mlp(a + b, 1)`, because each run "
            f"needs a fresh critic, got the module {type(critic).__name__}"
        )
    for name, number, least in (
        ("runs", runs, 1), ("epochs", epochs, 1), ("batch_size", batch_size, 1),
        ("patience", patience, 1), ("bootstrap", bootstrap, 0),
    ):  # fmt: skip
        if number < least:
            raise ValueError(f"{name}: expected at least {least}, got {number}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: expected a level in (0, 1), got {confidence}")
    if len(split) != 3 or min(split) <= 0.0 or abs(sum(split) - 1.0) > 1e-6:
        raise ValueError(f"split: expected three positive fractions that sum to 1, got {split}")
    if not callable(planted):
        check_planted(planted, bootstrap)
    x = rows("a", a)
    discrete = method == "classifier" or (method == "best" and are_labels(b))
    y: NDArray[Any]
    if discrete:
        y, n_classes = labels(b, classes)
        check_count(len(x), len(y))
        ids = group_ids(groups, len(x))[y >= 0]
        x, y = x[y >= 0], y[y >= 0]
        if len(y) and bool((y == y[0]).all()):
            raise ValueError(f"b: expected labels of at least two classes, got only {int(y[0])}")
        ids = np.unique(ids, return_inverse=True)[1]
    else:
        y, n_classes = rows("b", b, labels=True), 0
        check_count(len(x), len(y))
        ids = group_ids(groups, len(x))
    parts = splits(ids, split, runs, seed)  # raises on few rows
    # Draws of one datum are no further evidence, hence groups.
    held = min(len(np.unique(ids[part[2].numpy()])) for part in parts)
    if device is None:
        device = a.device if isinstance(a, Tensor) else "cpu"
    if lr is None:
        lr = 5e-3 if discrete else 2e-3
    study = Study(
        method, critic, n_classes, ids, runs, seed, tuple(split),
        method == "best" if rank_transform is None else rank_transform,
        bootstrap, Budget(epochs, batch_size, lr, weight_decay, patience), torch.device(device),
    )  # fmt: skip
    bar = _progress(study.passes()) if progress else None
    try:
        fits = study.read([(x, y)], bar)
        values = [float(f.held[0]) for f in fits]
        mean = float(np.mean(values))
        train = float(np.mean([f.train for f in fits]))
        bound, interval = _BOUNDS[method], study.interval(fits, confidence)
        ceiling = math.log(min(batch_size, held) if method == "infonce" else held)
        found = MIEstimate(
            mean,
            float(np.std(values, ddof=1)) if runs > 1 else 0.0,
            tuple(values),
            (train if displayed is None else displayed) - mean,
            interval=interval,
            method=method,
            bound=bound,
            ceiling=ceiling if bound == "lower" else None,
            choices=tuple(f.choice for f in fits),
        )
        sizes = planted
        if callable(sizes):
            sizes = sizes(found)
            check_planted(sizes, bootstrap)
        if sizes:
            found = with_power(found, study, x, y, sizes, confidence, bar)
    finally:
        if bar is not None:
            bar.close()
    _warn(found, batch_size, held)
    if method == "club" and is_discrete(y):
        warnings.warn(
            "estimate_mi: b takes few distinct values, and 'club' fits a Gaussian of b, which has "
            "no bounded density there: the value means nothing; use 'classifier', or exchange a "
            "and b",
            InformationWarning,
            stacklevel=2,
        )
    return found


def _warn(found: MIEstimate, batch_size: int, held: int) -> None:
    """Warn of a reading near what can be vouched for, or beyond it."""
    limit = math.log(held) if found.ceiling is None else found.ceiling
    if found.bound == "upper" or found.mean <= _NEAR * limit:
        return
    what, more = f"the {held} rows (or groups) that a run reads", ""
    if found.method == "infonce":
        what, more = f"the batch of {min(batch_size, held)}", " or a larger batch_size"
    where = "above" if found.mean > limit else "near"
    warnings.warn(
        f"estimate_mi: {found.mean:.2f} nats is {where} {limit:.2f}, the log of {what}, "
        f"beyond which no lower bound can be vouched for: the truth may be far off; use more "
        f"rows{more}",
        InformationWarning,
        stacklevel=3,
    )


def _progress(total: int) -> Any:
    try:
        return import_module("tqdm").tqdm(total=total, unit="epoch", desc="estimate_mi")
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
