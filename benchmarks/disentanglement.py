"""Scores of disentanglement and batches of pictures, side by side with common code.

The codes are those of all 737,280 combinations of the factors of dSprites, ten wide: four of the
factors, turned a little into each other, and six of noise. Providers take turns in one process:

- `factor_vae`: `library`, and `per_vote`, which looks the codes of one vote up and takes their
  variance, vote after vote, from the same table;
- `mi_10000`, `mi_737280`: the mutual information of all ten codes with all five factors in 20
  bins: `library` (with the rest of MIG) and `sklearn`, pair by pair;
- `loading`: a batch of 64 pictures from the packed store (`load`), and a training step of the
  study's networks by beta-VAE on one (`step`), its loading included;
- `rendering`: all 737,280 pictures, drawn and packed, once.

    python benchmarks/disentanglement.py             # CPU, one thread, about a minute
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, machine, ratios, summary, turns, write
from numpy.typing import NDArray
from sklearn.metrics import mutual_info_score

from vaereg.metrics import FactorTable, factor_vae_score, mig

sys.path.insert(0, str(ROOT / "examples"))

from disentangled.data import factors_of
from disentangled.render import SIZES
from disentangled.settings import Settings
from disentangled.sources import rerender
from disentangled.trainer import Trainer

OUT = ROOT / "benchmarks" / "results" / "disentanglement.csv"
KEPT, VOTES, ROWS = SIZES[1:], 15_000, 64


def codes_and_factors(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Codes ``(737280, 10)`` in part of the factors ``(737280, 5)``."""
    rng = np.random.default_rng(seed)
    factors = factors_of(np.arange(int(np.prod(KEPT))), KEPT)
    scaled = factors / (np.array(KEPT) - 1) * 2 - 1
    turned = scaled[:, :4] @ np.linalg.qr(np.eye(4) + 0.2 * rng.standard_normal((4, 4)))[0]
    noise = rng.standard_normal((len(scaled), 6))
    return np.hstack([turned, noise]).astype(np.float32), factors


def per_vote(codes: NDArray[np.floating], votes: int, seed: int = 0) -> float:
    """FactorVAE's score, a vote at a time, the last third to score on."""
    rng = np.random.default_rng(seed)
    scale = codes.std(0, ddof=1)
    counts = np.zeros((2, codes.shape[1], len(KEPT)), np.int64)
    for vote in range(votes):
        k = rng.integers(len(KEPT))
        values = np.stack([rng.integers(size, size=ROWS) for size in KEPT], 1)
        values[:, k] = values[0, k]
        z = codes[np.ravel_multi_index(tuple(values.T), KEPT)]
        counts[int(vote >= votes * 2 // 3), np.argmin(z.var(0, ddof=1) / scale**2), k] += 1
    majority = counts[0].argmax(1)
    hits = counts[1, np.arange(len(majority)), majority].sum()
    return float(hits / counts[1].sum())


def pair_by_pair(codes: NDArray[np.floating], factors: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mutual information ``(D, K)`` in 20 bins by scikit-learn."""
    cells = [np.digitize(z, np.histogram(z, 20)[1][1:-1]) for z in codes.T]
    return np.array([[mutual_info_score(y, z) for y in factors.T] for z in cells])


def scores(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of the scores, after a check that the providers agree."""
    codes, factors = codes_and_factors()
    table = FactorTable(codes, KEPT)
    few = np.random.default_rng(1).choice(len(codes), 10_000, replace=False)
    part = codes[few], factors[few]
    found = mig(*part).mutual_information
    np.testing.assert_allclose(found, pair_by_pair(*part), rtol=1e-9, atol=1e-12)
    ours, theirs = float(factor_vae_score(table)), per_vote(codes, VOTES)
    # Two draws of 5,000 votes each: four standard errors of their difference.
    if abs(ours - theirs) > 4 * (2 * 0.25 / (VOTES // 3)) ** 0.5:
        raise SystemExit(f"FactorVAE scores differ: library {ours}, per_vote {theirs}")
    pairs = {
        "mi_10000": {"library": lambda: mig(*part), "sklearn": lambda: pair_by_pair(*part)},
        "mi_737280": {
            "library": lambda: mig(codes, factors), "sklearn": lambda: pair_by_pair(codes, factors)
        },
        "factor_vae": {
            "library": lambda: factor_vae_score(table), "per_vote": lambda: per_vote(codes, VOTES)
        },
    }  # fmt: skip
    return {case: turns(own, rounds, warmup=1) for case, own in pairs.items()}


def pictures(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of drawing all pictures, of a batch, and of a step on one."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = turns({"library": lambda: rerender(Path(folder))}, 1, warmup=0)
        data = rerender(Path(folder))
        trainer = Trainer([Settings(objective="beta:4")], data, torch.device("cpu"))
        rng = np.random.default_rng(0)

        def load() -> None:
            data.batch(rng.integers(len(data), size=ROWS))

        step: Callable[[], None] = trainer.train_step
        return {
            "rendering": drawn,
            "loading": turns({"load": load, "step": step}, 20 * rounds, warmup=5),
        }


def main(given: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds of a score (default: %(default)s)")
    add("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    add("--out", type=Path, default=OUT, help="CSV file to write (default: %(default)s)")
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    where, rows = machine(), list[dict[str, Any]]()
    config = json.dumps({"codes": [int(np.prod(KEPT)), 10], "rounds": args.rounds})
    for case, times in (scores(args.rounds) | pictures(args.rounds)).items():
        names = list(times)
        found = [summary(case, name, "wall", spent, "ms") for name, spent in times.items()]
        if len(names) == 2:
            own, other = names
            against = ratios(times[other], times[own])
            found.append(summary(case, own, f"speedup_{other}", against, "1"))
        for row in found:
            rows.append({**row, "config": config, **where})
            print(f"{row['case']:11s} {row['provider']:9s} {row['metric']:17s} {row['median']}",
                  row["unit"], flush=True)  # fmt: skip
    write(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
