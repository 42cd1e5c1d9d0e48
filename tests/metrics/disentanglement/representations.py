"""Representations to score: perfect, turned, doubled, dead, noisy, and other degenerate ones."""

from __future__ import annotations

import re

import numpy as np
import pytest

SIZES = (3, 4, 5)


def grid(sizes=SIZES):
    """Every combination of factor values, the last changing fastest, ``(n, K)``."""
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))


def sampled(rows=600, sizes=SIZES, seed=0):
    return np.random.default_rng(seed).integers(sizes, size=(rows, len(sizes)))


def codes(name, factors, seed=1):
    rng = np.random.default_rng(seed)
    f = factors.astype(np.float64)
    n, k = f.shape
    turn = np.linalg.qr(rng.standard_normal((k, k)))[0]
    return {
        "perfect": lambda: f,
        "scaled": lambda: f * rng.uniform(0.1, 10.0, k) - 3.0,
        "permuted": lambda: f[:, rng.permutation(k)],
        "turned": lambda: f @ turn,
        "doubled": lambda: np.concatenate([f, f], 1),
        "dead": lambda: np.concatenate([f, np.full((n, 2), 0.1)], 1),
        "all dead": lambda: np.full((n, 3), 0.1),
        "noisy": lambda: f + 0.5 * rng.standard_normal((n, k)),
        "noise": lambda: rng.standard_normal((n, 4)),
        "one code": lambda: f[:, :1],
        "merged": lambda: f @ np.ones((k, 1)),
        "missing": lambda: f[:, 1:],
        "parity": lambda: (f[:, :2].sum(1, keepdims=True) + f) % 2,
        "tiny": lambda: 1e-7 * f + rng.standard_normal((n, k)) * 1e-8,
        "float32": lambda: (f @ turn).astype(np.float32),
        "integers": lambda: factors,
    }[name]()


NAMES = (
    "perfect", "scaled", "permuted", "turned", "doubled", "dead", "all dead", "noisy", "noise",
    "one code", "merged", "missing", "parity", "tiny", "float32", "integers",
)  # fmt: skip


def refused(error, message, score, *args, **keywords):
    """The call raises this error, whose text begins so."""
    with pytest.raises(error, match="^" + re.escape(message)):
        score(*args, **keywords)
