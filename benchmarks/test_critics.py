"""Critic terms under pytest-benchmark: ``pytest benchmarks/test_critics.py``.

Each provider is timed on its own here, one after the other, which suits the comparison of two
commits (``--benchmark-autosave``, ``--benchmark-compare``). For ratios between providers use
``critic_cost.py``, where they take turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from critic_cost import CASES, Case, build_case, verify

RUNS = [pytest.param(c, p, id=f"{c.name}-{p}") for c in CASES for p in c.providers]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def verified() -> set[str]:
    return set()


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("case, provider", RUNS)
def test_cost(benchmark, verified: set[str], case: Case, provider: str) -> None:
    if case.name not in verified:
        verify(case)
        verified.add(case.name)
    benchmark.group = case.name
    step = build_case(case)[provider].step
    loss = benchmark.pedantic(step, rounds=8, warmup_rounds=2)
    assert torch.isfinite(loss)
