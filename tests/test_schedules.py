"""Schedules: their formulas, with integer and tensor steps."""

from __future__ import annotations

import math
import pickle

import pytest
import torch

import vaereg
from vaereg.schedules import constant, cosine, cyclical, exponential, join, linear

STEPS = [0, 1, 7, 10, 13, 25, 50, 99, 100, 101, 1000]
CASES = {
    "constant": (constant(2.0), lambda t: 2.0),
    "linear": (linear(1.0, 6.0, steps=50), lambda t: 1.0 + 5.0 * min(t / 50, 1.0)),
    "cosine": (
        cosine(1.0, 3.0, steps=50),
        lambda t: 3.0 - 2.0 * 0.5 * (1.0 + math.cos(math.pi * min(t / 50, 1.0))),
    ),
    "cyclical": (
        cyclical(0.5, 1.5, period=20, rise=0.25),
        lambda t: 0.5 + min((t % 20) / 20 / 0.25, 1.0),
    ),
    "exponential": (
        exponential(1.0, 0.3, rate=0.01),
        lambda t: 0.3 + 0.7 * math.exp(-0.01 * t),
    ),
    "join": (
        join([linear(0.0, 1.0, steps=10), constant(1), linear(1.0, 0.0, steps=100)], [10, 50]),
        lambda t: t / 10 if t < 10 else 1.0 if t < 50 else 1.0 - min((t - 50) / 100, 1.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", STEPS)
def test_formula_with_integer_and_tensor_steps(name, step):
    schedule, formula = CASES[name]
    assert schedule(step) == pytest.approx(formula(step), abs=1e-9)
    for dtype in (torch.long, torch.float32):
        assert float(schedule(torch.tensor(step, dtype=dtype))) == pytest.approx(
            formula(step), abs=1e-5
        )


@pytest.mark.parametrize("name", CASES)
def test_schedules_go_to_other_processes(name):
    schedule, _ = CASES[name]
    again = pickle.loads(pickle.dumps(schedule))
    assert [again(step) for step in (0, 3, 50)] == [schedule(step) for step in (0, 3, 50)]


def test_an_objective_goes_to_other_processes():
    tc = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(3, 1))
    objective = -2.0 * vaereg.Objective(leak=(linear(0.0, 1.0, steps=10), tc))
    again = pickle.loads(pickle.dumps(objective))
    z = vaereg.gaussian((torch.ones(4, 2), torch.zeros(4, 2)))
    batch = {"z": z, "y": torch.arange(4.0)[:, None]}
    torch.manual_seed(0)
    report = objective(batch, step=5)
    torch.manual_seed(0)
    assert torch.equal(again(batch, step=5).total, report.total)
    assert report.weights["leak"] == again(batch, step=5).weights["leak"] == -1.0


def test_join_of_an_integer_and_a_fraction():
    """An integer part must not round its neighbour down."""
    schedule = join([linear(0.0, 1.0, steps=10), constant(1)], [10])
    assert float(schedule(torch.tensor(5))) == 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear(0.0, 1.0, steps=0), "linear: expected steps > 0, got 0"),
        (lambda: cosine(0.0, 1.0, steps=-1), "cosine: expected steps > 0"),
        (lambda: cyclical(0.0, 1.0, period=0), "period > 0"),
        (lambda: cyclical(0.0, 1.0, period=5, rise=0.0), r"rise in \(0, 1\], got 0.0"),
        (lambda: exponential(0.0, 1.0, rate=0.0), "rate > 0"),
        (lambda: join([], []), "one boundary fewer"),
        (lambda: join([constant(1.0)], [3]), "got 1 boundaries for 1 schedules"),
        (lambda: join([constant(1.0)] * 3, [5, 5]), r"increasing positive boundaries, got \[5, 5"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
