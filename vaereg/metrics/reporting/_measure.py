"""What a report measures; a part that cannot be measured is left out with the reason."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.metrics._audits import Audit
from vaereg.metrics._bracket import MIBracket
from vaereg.metrics.auditing import audit, informative
from vaereg.metrics.bracket import mi_bracket
from vaereg.metrics.decomposition import Decomposition, kl_decomposition
from vaereg.metrics.disentanglement import (
    FactorTable,
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    gaussian_total_correlation,
    irs,
    mig,
    modularity,
    sap,
)
from vaereg.metrics.reporting._codes import Coded
from vaereg.metrics.reporting._gather import Gathered, reason

__all__ = ["Measured", "Plan", "Scores", "measure"]

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        active: KL from which a coordinate counts as active, in nats.
        samples: Codes of the exact parts of the KL.
        fitted: Rows that the bracket, the audit and the scores are fitted and read on, at most.
        trees: Boosting rounds of DCI's predictors.
        seed: Seed of all that is drawn.
        bracket: Whether critics are fitted for the brackets.
        audit: Whether critics are fitted for the audit.
        progress: Called with what is being measured.
    """

    active: float
    samples: int
    fitted: int
    trees: int
    seed: int
    bracket: bool
    audit: bool
    progress: Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Scores:
    """What is known of codes beside known factors.

    Attributes:
        values: Scores by name, None where one does not exist.
        information: Mutual information of each coordinate and factor over the factor's entropy,
            ``(D, K)``.
        factors: Names of the factors that vary.
        rows: Rows that they were read on.
        reads: What of the code they read.
        grid: Whether the rows hold each combination of the factors' values equally often.
    """

    values: dict[str, float | None]
    information: NDArray[np.floating]
    factors: tuple[str, ...]
    rows: int
    reads: str
    grid: bool


@dataclass(eq=False)
class Measured:
    """All measurements of a report, by code.

    Attributes:
        parts: Exact parts of the KL, of codes with standard normal priors.
        brackets: Of each code that has one.
        audit: Of the objective's mutual-information terms.
        scores: Of each code beside known factors.
        skipped: What could not be measured, and why.
    """

    parts: dict[str, Decomposition] = field(default_factory=dict[str, Decomposition])
    brackets: dict[str, MIBracket] = field(default_factory=dict[str, MIBracket])
    audit: Audit | None = None
    scores: dict[str, Scores] = field(default_factory=dict[str, Scores])
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def attempt(self, what: str, make: Callable[[], T]) -> T | None:
        """What ``make`` gives, or None and a line in ``skipped``."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # verdicts and limits of iterations: on the page
                return make()
        except Exception as error:  # models are the user's, and so are their mistakes
            self.skipped.append((what, reason(error)))
            return None


def measure(
    model: Any,
    seen: Gathered,
    factors: NDArray[np.integer] | None,
    names: Sequence[str],
    plan: Plan,
) -> Measured:
    """All that can be measured of what was gathered."""
    found = Measured(skipped=list(seen.skipped))
    if factors is not None:
        fixed = np.flatnonzero(factors.min(0) == factors.max(0))
        found.skipped += [(f"scores of {names[k]}", "it has one value in these rows")
                          for k in map(int, fixed)]  # fmt: skip
    some = slice(0, plan.fitted)  # the rows are in random order
    for name, code in seen.codes.items():
        if code.standard and code.q is not None:
            plan.progress(f"parts of KL({name})")
            parts = found.attempt(f"parts of the KL of {name}", lambda c=code: _parts(c, plan))
            if parts is not None:
                found.parts[name] = parts
        elif code.q is not None and not code.discrete:
            found.skipped.append((f"parts of the KL of {name}", "its prior is not N(0, 1)"))
        if plan.bracket:
            plan.progress(f"I({name}; x)")
            held = found.attempt(
                f"bracket of I({name}; x)",
                lambda n=name: mi_bracket(
                    model,
                    seen.x[some].to(seen.where),
                    code=n,
                    seed=plan.seed,
                    **_rows(_asked(model, seen.observed), some),
                ),
            )
            if held is not None:
                found.brackets[name] = held
        if factors is not None:
            plan.progress(f"scores of {name}")
            scores = found.attempt(
                f"scores of {name}", lambda c=code, f=factors: _scores(c, f, names, plan, found)
            )
            if scores is not None:
                found.scores[name] = scores
    objective = getattr(model, "objective", None)
    if plan.audit and seen.batches and objective is not None and informative(objective):
        plan.progress("audit")
        found.audit = found.attempt(
            "audit", lambda: audit(objective, seen.batches, seed=plan.seed)
        )
    return found


def _asked(model: Any, observed: Mapping[str, Any]) -> dict[str, Any]:
    """What encoder and decoder ask for, where that is known: the rest is the objective's."""
    known = getattr(model, "observed", None)
    if not isinstance(known, frozenset):
        return dict(observed)
    return {n: v for n, v in observed.items() if n in (*cast("frozenset[str]", known), "step")}


def _rows(observed: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    return {n: v[rows] if isinstance(v, Tensor) and v.ndim else v for n, v in observed.items()}


def _parts(code: Coded, plan: Plan) -> Decomposition:
    assert code.q is not None
    g = torch.Generator().manual_seed(plan.seed)
    return kl_decomposition(
        code.q.first, code.q.second, samples=max(2, min(plan.samples, len(code.q.first))),
        generator=g,
    )  # fmt: skip


def _scores(
    code: Coded,
    factors: NDArray[np.integer],
    names: Sequence[str],
    plan: Plan,
    found: Measured,
) -> Scores:
    z, y = code.flat.double().numpy(), factors
    vary = np.flatnonzero(y.min(0) != y.max(0))
    if not len(vary):
        raise ValueError("factors: expected one that varies over the rows, got none")
    part, own = z[: plan.fitted], y[: plan.fitted]
    half = len(part) * 2 // 3
    split: dict[str, Any] = {"train_rows": half, "test_rows": len(part) - half}
    split["seed"] = plan.seed
    votes: dict[str, Any] = {"train": 5_000, "test": 2_500, "seed": plan.seed}
    gaps = mig(part, own)
    values: dict[str, float | None] = {"mig": gaps.score}

    def add(name: str, make: Callable[[], Any]) -> Any:
        result = found.attempt(f"{name} of {code.name}", make)
        values[name] = None if result is None else float(result)
        return result

    q = code.q
    if q is not None and not q.discrete:
        add("mig_sampled", lambda: mig(
            q.first, y, logvar=q.second, samples=min(plan.samples, len(y)), seed=plan.seed,
        ))  # fmt: skip
    if np.unique(y, axis=0).shape[0] < len(y) or len(vary) > 1:
        table = found.attempt(f"factor table of {code.name}", lambda: FactorTable.of(z, y))
        if table is not None:
            add("factor_vae", lambda: factor_vae_score(table, **votes))
            add("beta_vae", lambda: beta_vae_score(table, **votes))
    parts = add("dci", lambda: dci(part, own, predictor=_boosted(plan), **split))
    if parts is not None:
        values |= {"completeness": parts.completeness, "informativeness": parts.informativeness}
    add("sap", lambda: sap(part, own, **split))
    add("modularity", lambda: modularity(part, own))
    add("explicitness", lambda: explicitness(part, own, **split))
    add("irs", lambda: irs(part, own))
    add("gaussian_tc", lambda: gaussian_total_correlation(z))
    share = gaps.mutual_information / np.maximum(gaps.entropy, 1e-12)
    known = tuple(names[int(k)] for k in gaps.factors)
    return Scores(values, share, known, len(part), _read(code), _grid(y))


def _read(code: Coded) -> str:
    """What ``flat`` holds."""
    if code.q is None:
        return "values"
    return "most likely classes (as one-hot codes)" if code.discrete else "posterior means"


def _grid(factors: NDArray[np.integer]) -> bool:
    sizes = [len(np.unique(factors[:, k])) for k in range(factors.shape[1])]
    count = np.unique(factors, axis=0, return_counts=True)[1]
    return len(count) == math.prod(sizes) and bool((count == count[0]).all())


def _boosted(plan: Plan) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return lambda: GradientBoostingClassifier(n_estimators=plan.trees, random_state=plan.seed)
