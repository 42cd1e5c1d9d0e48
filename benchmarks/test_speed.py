"""The pairwise log-density, and whole steps: ``pytest benchmarks/test_speed.py``.

Each provider is timed on its own here, one after the other, which suits the comparison of two
commits (``--benchmark-autosave``, ``--benchmark-compare``). For ratios between providers use
``pairwise.py`` and ``steps.py``, where they take turns.
"""

from __future__ import annotations

import pytest
import torch
from pairwise import CASES, agree, available
from pairwise_forms import inputs, step
from steps import providers

FORMS = [(case, name) for case in CASES for name in available(case, "cpu")]
STEPS = list(providers(2, "cpu"))


@pytest.fixture(scope="module")
def agreed() -> set[str]:
    return set()


@pytest.mark.benchmark(warmup=False)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "full"])
@pytest.mark.parametrize(("case", "name"), FORMS)
def test_pairwise(benchmark, agreed: set[str], case: str, name: str, backward: bool) -> None:
    found, given = available(case, "cpu"), inputs(*CASES[case])
    if case not in agreed:
        agree(found, given)
        agreed.add(case)
    benchmark.group = f"{case} {'full' if backward else 'forward'}"
    value, *_ = benchmark.pedantic(step, (found[name], given, backward), rounds=5, warmup_rounds=1)
    assert torch.isfinite(value)


@pytest.mark.benchmark(warmup=False)
@pytest.mark.parametrize("rows", [64, 256])
@pytest.mark.parametrize("name", STEPS)
def test_steps(benchmark, rows: int, name: str) -> None:
    benchmark.group = f"{'term' if ' ' in name else 'step'} of {rows} rows"
    benchmark.pedantic(providers(rows, "cpu")[name], rounds=10, warmup_rounds=2)
