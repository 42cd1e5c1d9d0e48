"""A short game of every estimator, as penalty and as reward; benchmarks/soak.py plays it long."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import soak

pytestmark = pytest.mark.usefixtures("one_thread")


def run(name, kind, sign, **options):
    torch.manual_seed(0)
    settings = {"steps": 150, "rows": 64, "rate": 1e-2, "every": 25, **options}
    return soak.play(soak.make(name, kind, 32), sign * soak.WEIGHTS[name], **settings)


@pytest.mark.parametrize(("name", "kind"), soak.CASES)
def test_penalty_removes_the_information(name, kind):
    row = run(name, kind, 1.0)
    assert row["nonfinite_at_step"] is None
    assert row["true"] < 0.06 < 0.25 < row["true_start"]
    assert all(math.isfinite(v) for v in row["shown_range"])
    assert max(map(abs, row["level_range"])) < 10.0


@pytest.mark.parametrize(("name", "kind"), dict(soak.CASES).items())
def test_reward_keeps_it(name, kind):
    row = run(name, kind, -1.0)
    assert row["nonfinite_at_step"] is None
    assert row["true"] > row["true_start"] + 0.02
    assert max(map(abs, row["level_range"])) < 10.0


def test_a_number_that_is_not_finite_is_recorded():
    """What the record would say if something broke: an infinite weight."""
    torch.manual_seed(0)
    row = soak.play(soak.make("JSD", "mlp", 8), math.inf, steps=4, rows=8, every=1)
    assert row["nonfinite_at_step"] == 0


def test_the_stated_truth():
    """z = W x exactly: I(z; y) = I(x; y) = log(5) / 2; for the sign of y by simulation."""
    game = soak.Game()
    with torch.no_grad():
        game.logvar.fill_(-30.0)
    assert game.truth(False) == pytest.approx(0.5 * math.log(5.0), abs=1e-5)
    x = torch.randn(1_000_000, dtype=torch.double)
    p = torch.special.ndtr(x / soak.NOISE)
    known = torch.special.entr(p) + torch.special.entr(1.0 - p)
    error = 4.0 * known.std().item() / 1000.0
    assert game.truth(True) == pytest.approx(math.log(2.0) - known.mean().item(), abs=error)


def test_the_stored_form_is_json_with_lists_on_one_line():
    record = {"a": {"trace": {"x": [1.5, 2, "nan"]}, "b": None}, "c": [0.25, -1e-9]}
    stored = soak.text(record)
    assert json.loads(stored) == record
    assert '"x": [ 1.5, 2, "nan" ]' in stored
