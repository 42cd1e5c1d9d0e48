r"""What the mutual-information terms of an objective display, against fresh critics.

A term displays independence when its critic sees none, and a critic sees none when there is none,
when it is too weak, or when the encoder has outrun it. The audit tells these apart: it fits fresh
critics on held-out codes, and measures what they would have seen by planting a leak of known size
into the same codes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from vaereg.metrics._audits import Audit, TermAudit, ends, reading, verdict
from vaereg.metrics._codes import Codes, read_batches, read_rows, roles
from vaereg.metrics._estimate import InformationWarning
from vaereg.metrics.information import estimate_mi

__all__ = ["Audit", "AuditHook", "TermAudit", "audit", "informative"]


class _Term(Protocol):
    """What is read of a term."""

    measures_information: bool
    variables: Sequence[Any]
    training: bool

    def __call__(self, batch: Mapping[str, Any]) -> Tensor: ...
    def train(self, mode: bool = True) -> Any: ...


class _Objective(Protocol):
    """What is read of an objective: its names and their terms."""

    def __iter__(self) -> Any: ...
    def __getitem__(self, name: str, /) -> Any: ...


def audit(
    objective: _Objective,
    codes: Codes,
    *,
    only: str | Iterable[str] | None = None,
    displayed: Mapping[str, float] | None = None,
    resolution: float = 0.05,
    planted: Sequence[float] | None = None,
    method: str = "auto",
    batch_size: int = 256,
    seed: int = 0,
    **options: Any,
) -> Audit:
    r"""Whether what the mutual-information terms of an objective display is so.

    For each such term, fresh critics read the mutual information of its two variables on rows
    that they have not seen (:func:`estimate_mi`). With the interval :math:`[l, h]` of that
    reading, the displayed value :math:`d` (of ``JSD`` four times its value, which is what a weak
    dependence comes to in nats) and the resolution :math:`r`, the verdict is

    - **refuted** where :math:`d \le r < l`: the term displays independence, the codes depend on
      each other. A warning says so;
    - **dependent** where :math:`r < l` and the term displays it;
    - **independent** where :math:`h \le r`, *and* the same procedure on the same codes, with a
      leak of :math:`r` nats planted, reads half of it or more, in an interval above
      :math:`h`. The planted leak is a smooth one, of one column: that an oscillation or a parity
      of several columns would have been seen is not shown;
    - **cannot tell** otherwise. The power, the smallest planted leak that was seen, says how large
      a leak may have been missed.

    Args:
        objective: The objective, or any mapping of names to terms.
        codes: Held-out rows that training has not seen: batches as the objective reads them (an
            iterable, such as a list of ``out.batch``), or one mapping of names to all rows.
        only: Name or names of the terms to audit; default all that measure information.
        displayed: What training displayed, by name, e.g. ``report.scalars()``; default what the
            terms, in evaluation mode, display on ``codes`` themselves.
        resolution: :math:`r`, information up to which two variables count as independent, in nats.
        planted: Sizes of the planted leaks, ascending, of at least the resolution; without the
            resolution itself among them nothing is found independent. Default 1, 2, 4, 8 and 16
            times the resolution.
        method: A method of :func:`estimate_mi`, or ``"auto"``: ``"classifier"`` where one of the
            variables is a label (one-hot rows, or a single column of zeros and ones), else
            ``"mine"``.
        batch_size: Rows of a batch for the displayed value, where ``codes`` is one mapping.
        seed: Seed of all that is drawn.
        options: Passed on to :func:`estimate_mi`, e.g. ``runs``, ``groups``, ``progress``.

    Returns:
        An :class:`Audit`.

    Raises:
        ValueError: If there is no term to audit, or no rows, or the rows are too few.
        TypeError: If ``codes`` is neither a mapping nor an iterable of mappings.

    Warns:
        InformationWarning: For each term whose displayed independence is refuted, or that displays
            less than half of what the interval of the reading begins with.

    Example:
        >>> import vaereg
        >>> g = torch.Generator().manual_seed(0)
        >>> y = torch.randint(2, (600,), generator=g)
        >>> z = torch.randn(600, 2, generator=g) + 2.0 * y[:, None]
        >>> term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(4, 1))  # not fitted
        >>> codes = {"z": z, "y": vaereg.labels(y, classes=2)}
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     found = audit(vaereg.Objective(leak=term), codes, runs=2)
        >>> found.flagged
        ('leak',)
    """
    if not resolution > 0.0:
        raise ValueError(f"resolution: expected a positive number of nats, got {resolution}")
    if planted is not None and any(size < resolution for size in planted):
        raise ValueError(
            f"planted: expected sizes of at least the resolution, {resolution}, got "
            f"{tuple(planted)}"
        )
    names = _names(objective, only)
    unknown = sorted(set(displayed or ()) - {str(name) for name in objective} - {"total"})
    unknown = [n for n in unknown if not n.startswith("weight/")]
    if unknown:
        raise ValueError(
            f"displayed: expected names of terms, {[str(n) for n in objective]}, got {unknown}"
        )
    batches = read_batches(codes, batch_size, seed)
    sizes = [resolution * 2.0**k for k in range(5)] if planted is None else list(planted)
    entries: dict[str, TermAudit] = {}
    count = 0
    for name in names:
        term = _measuring(objective[name])
        assert term is not None  # _names has chosen it
        first, second = term.variables[:2]
        a, b = read_rows(codes, batches, term.variables)
        count = len(a)
        # What a constraint displays is its Lagrangian, and not the information.
        own = displayed is not None and name in displayed and term is objective[name]
        shown = float(displayed[name]) if own and displayed else _display(term, batches, seed)
        if math.isnan(shown):
            raise ValueError(f"displayed: expected a number for {name!r}, got nan")
        scale = float(getattr(term, "information_scale", 1.0))
        pair, how = roles(a, b, method, skip_missing=getattr(term, "skips_missing", False))
        base: dict[str, Any] = {"method": how, "seed": seed, "displayed": shown, **options}
        read = estimate_mi(
            *pair, planted=lambda found: [] if ends(found)[0] > resolution else sizes, **base
        )
        entry = TermAudit(
            name, first.text, second.text, type(term).__name__, shown, read,
            verdict(scale * shown, read, resolution), resolution, scale,
        )  # fmt: skip
        entries[name] = entry
        if entry.flagged or entry.understated:
            what = "independence" if entry.flagged else "less than half"
            warnings.warn(
                f"audit: {name!r} displays {what}, {shown:.3f}, for {first.text!r} and "
                f"{second.text!r}, but fresh critics find {reading(read)} nats on held-out rows: "
                "its critic is outrun or too weak; take more critic steps, at a rate of the "
                "encoder's order",
                InformationWarning,
                stacklevel=2,
            )
    return Audit(entries, resolution, count)


class AuditHook:
    """An audit every few epochs of a training loop, and its history.

    ``plots.audit_history(hook)`` draws the history.

    Args:
        objective: The objective that is trained.
        every: Audit at epochs that are multiples of this, 0 included.
        options: Passed on to :func:`audit`.

    Attributes:
        history: ``(epoch, Audit)`` pairs.

    Raises:
        ValueError: If ``every`` is below 1.
        TypeError: If an option is none of :func:`audit` or :func:`estimate_mi`.

    Example:
        >>> import vaereg
        >>> term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(4, 1))
        >>> hook = AuditHook(vaereg.Objective(leak=term), every=5, runs=1)
        >>> hook(3, codes=lambda: 1 / 0) is None  # not due: the codes are not even computed
        True
    """

    def __init__(self, objective: _Objective, *, every: int = 5, **options: Any) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1, got {every}")
        known = {*signature(audit).parameters, *signature(estimate_mi).parameters}
        known -= {"objective", "codes", "a", "b", "displayed"}
        unknown = sorted(set(options) - known)
        if unknown:
            raise TypeError(f"options: expected some of {sorted(known)}, got {unknown}")
        self.objective = objective
        self.every = every
        self.options = options
        self.history: list[tuple[float, Audit]] = []

    def due(self, epoch: int) -> bool:
        """Whether this epoch is audited."""
        return epoch % self.every == 0

    def __call__(self, epoch: int, codes: Codes | Callable[[], Codes]) -> Audit | None:
        """Audit where it is due.

        Args:
            epoch: The epoch that has ended.
            codes: Held-out codes, or a function that computes them, called only when due.

        Returns:
            The audit, or None where none was due.
        """
        if not self.due(epoch):
            return None
        if callable(codes):
            # A function that draws samples must not make a run that is audited another run.
            count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
            with torch.random.fork_rng(range(count)):
                codes = codes()
        found = audit(self.objective, codes, **self.options)
        self.history.append((epoch, found))
        return found

    def state_dict(self) -> dict[str, Any]:
        """The history in plain numbers, for a checkpoint or JSON."""
        return {"history": [[epoch, found.to_dict()] for epoch, found in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the history."""
        self.history = [(epoch, Audit.from_dict(record)) for epoch, record in state["history"]]


def _measuring(term: Any) -> _Term | None:
    """The term, or the one that a constraint holds, if it measures information."""
    inner = getattr(term, "term", None)
    for found in (term, inner):
        if getattr(found, "measures_information", False):
            return cast(_Term, found)
    return None


def informative(objective: _Objective) -> list[str]:
    """Names of the terms that measure information, which are those that can be audited."""
    return [str(name) for name in objective if _measuring(objective[name]) is not None]


def _names(objective: _Objective, only: str | Iterable[str] | None) -> list[str]:
    known = [str(name) for name in objective]
    fit = informative(objective)
    if only is None:
        if not fit:
            raise ValueError(
                "audit: expected an objective with a term that measures information (MINE, NWJ, "
                f"AdversarialClassifier, ...), got {known}"
            )
        return fit
    names = [only] if isinstance(only, str) else list(only)
    for name in names:
        if name not in fit:
            raise ValueError(f"only: expected names among {fit}, got {name!r}")
    return names


def _display(term: _Term, batches: Sequence[Mapping[str, Any]], seed: int) -> float:
    """The mean of what a term displays, in evaluation mode; nothing moves, not even the seed."""
    # A critic that is shared with the user's model is no submodule of its term.
    found = [m for m in (term, getattr(term, "critic", None)) if isinstance(m, nn.Module)]
    modules = {module: module.training for m in found for module in m.modules()}
    value = term.variables[0].values(batches[0])
    forked = [value.device] if value.is_cuda else []
    total, rows = 0.0, 0
    try:
        for module in modules:
            module.training = False
        with torch.no_grad(), torch.random.fork_rng(forked):
            torch.default_generator.manual_seed(seed)
            if forked:
                torch.cuda.manual_seed(seed)
            for batch in batches:
                n = len(term.variables[0].values(batch))
                total += float(term(batch)) * n
                rows += n
    finally:
        for module, mode in modules.items():
            module.training = mode
    return total / max(rows, 1)
