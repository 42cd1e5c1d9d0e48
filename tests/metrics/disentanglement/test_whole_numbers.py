"""Numbers of rows, bins and labels: any integers, here and there whole floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from representations import codes, refused, sampled

from vaereg import metrics
from vaereg.metrics import FactorTable

F = sampled(60, (2, 3))
Z = codes("noisy", F)


class Right:
    """Is always right."""

    def fit(self, x, y):
        pass

    def score(self, x, y):
        return 1.0


def test_whole_floats():
    grid_codes = np.arange(6.0)[:, None]
    for sizes in ((2.0, 3.0), np.array([2.0, 3.0]), torch.tensor([2.0, 3.0]), (np.float32(2), 3)):
        table = FactorTable(grid_codes, sizes)
        assert table.sizes == (2, 3) and all(type(size) is int for size in table.sizes)
    for size in (np.inf, np.nan, 2.5):
        refused(TypeError, "sizes: expected how many", FactorTable, grid_codes, (size, 3.0))
    refused(TypeError, "sizes: expected how", FactorTable, grid_codes, np.array(["2", "3"]))
    found = metrics.downstream_accuracy(Z, F, labels=(10.0, 20.0), predictor=Right)
    assert found.labels == (10, 20)
    score, keywords = metrics.sample_efficiency, {"predictor": Right}
    assert score(Z, F, few=10.0, many=np.float32(20), **keywords) == 1.0
    refused(TypeError, "few: expected an integer, got 9.5", score, Z, F, few=9.5, many=20)


def test_the_rows_that_efficiency_needs_by_default():
    f = np.arange(14_999)[:, None] % 2
    assert metrics.sample_efficiency(f, f, predictor=Right) == 1.0
    message = "many: expected at most 9999 (rows to fit on), got 10000"
    refused(ValueError, message, metrics.sample_efficiency, f[1:], f[1:], predictor=Right)


SMALL = sampled(400, (2, 3))
WIDE = codes("noisy", SMALL)
TABLE = FactorTable.of(WIDE, SMALL)
NARROW = {
    "mig": lambda kind: metrics.mig(WIDE, SMALL, bins=kind(100)),
    "modularity": lambda kind: metrics.modularity(WIDE, SMALL, bins=kind(100)),
    "irs": lambda kind: metrics.irs(WIDE, SMALL, factor_bins=kind(100)),
    "samples": lambda kind: metrics.mig(WIDE, SMALL, logvar=WIDE, samples=kind(100)),
    "factor": lambda kind: metrics.factor_vae_score(
        TABLE, batch_size=kind(64), train=kind(100), test=kind(100)
    ),
    "beta": lambda kind: metrics.beta_vae_score(
        TABLE, batch_size=kind(64), train=kind(100), test=kind(100)
    ),
    "sap": lambda kind: metrics.sap(WIDE, SMALL, train_rows=kind(100), test_rows=kind(100)),
    "dci": lambda kind: metrics.dci(
        WIDE, SMALL, predictor="forest", train_rows=kind(100), test_rows=kind(100)
    ),
    "downstream": lambda kind: metrics.downstream_accuracy(
        WIDE, SMALL, predictor=Right, test_rows=kind(100)
    ),
}


@pytest.mark.parametrize("name", NARROW)
def test_narrow_integers_do_not_overflow(name):
    pytest.importorskip("sklearn")
    expected = float(NARROW[name](int))
    for kind in (np.int8, np.uint8, torch.tensor):
        assert float(NARROW[name](kind)) == expected
