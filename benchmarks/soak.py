"""Thousands of minimax steps of every estimator of mutual information, as penalty and as reward.

A linear Gaussian autoencoder (x in two dimensions, y = x_1 + noise, code z = W x + s eps) is
trained with the KL, the decoder and one term of I(z; y), whose truth is closed form in W and s.
For each run: whether anything is ever nan or infinite, where the critic's free constant (its mean
score of product rows) goes, what the term displays and what is true at the end.

Writes benchmarks/results/soak.json and prints a table: `python benchmarks/soak.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import vaereg  # noqa: E402
from vaereg import critics  # noqa: E402
from vaereg.functional import gaussian_nll  # noqa: E402
from vaereg.regularizer import CriticRegularizer  # noqa: E402

NOISE, DECODER_STD, LATENT = 0.5, 0.5, 2

# The weight makes the term outweigh the reconstruction of x_1 as a penalty; the Jensen-Shannon
# divergence moves by a quarter of the information where both are small.
WEIGHTS = {"MINE": 10.0, "JSD": 40.0, "NWJ": 10.0, "InfoNCE": 10.0, "SMILE": 10.0, "CLUB": 10.0,
           "VariationalMI": 20.0}  # fmt: skip
CASES = [
    *((name, kind) for name in ("MINE", "JSD", "NWJ", "SMILE") for kind in ("mlp", "separable")),
    ("InfoNCE", "separable"),
    ("CLUB", "mlp"),
    ("VariationalMI", "mlp"),
]


def make(name: str, kind: str, width: int) -> CriticRegularizer:
    """A term of I(z; y) with its critic and all other settings at their defaults."""
    if name == "CLUB":
        return vaereg.CLUB("z", "y", critic=critics.mlp(LATENT, 2, width=width))
    if name == "VariationalMI":
        critic = critics.mlp(LATENT, 2, width=width)
        return vaereg.VariationalMI("label", given="z", critic=critic)
    if kind == "mlp":
        return getattr(vaereg, name)("z", "y", critic=critics.mlp(LATENT + 1, width=width))
    return getattr(vaereg, name)("z", "y", critic=critics.separable(LATENT, 1, width=width))


class Game(nn.Module):
    """A linear Gaussian autoencoder with a learned posterior variance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, LATENT, bias=False)
        self.decoder = nn.Linear(LATENT, 2, bias=False)
        self.logvar = nn.Parameter(torch.full((LATENT,), -2.0))
        with torch.no_grad():
            self.encoder.weight.copy_(torch.tensor([[1.0, 0.3], [-0.3, 1.0]]))
            self.decoder.weight.copy_(torch.linalg.inv(self.encoder.weight))

    def batch(self, rows: int) -> dict[str, Any]:
        device = self.logvar.device
        x = torch.randn(rows, 2, device=device)
        y = x[:, :1] + NOISE * torch.randn(rows, 1, device=device)
        mean = self.encoder(x)
        z = vaereg.gaussian(mean, self.logvar.expand_as(mean))
        return {"x": x, "y": y, "label": vaereg.labels((y[:, 0] > 0).long(), 2), "z": z}

    def truth(self, label: bool) -> float:
        """I(z; y), or I(z; y > 0), in nats.

        z and y are Gaussian, so that y given z has mean r u and variance v for a standard normal
        u: I(z; y) = -log(1 - R^2) / 2, and the sign of y is a probit of u.
        """
        w, noise = self.encoder.weight.detach().double(), self.logvar.detach().double().exp()
        covariance = w @ w.T + noise.diag()
        share = float(w[:, 0] @ torch.linalg.solve(covariance, w[:, 0])) / (1.0 + NOISE**2)
        if not label:
            return -0.5 * math.log1p(-share)
        u = torch.linspace(-9.0, 9.0, 20_001, dtype=torch.double, device=w.device)
        density = torch.exp(-0.5 * u.square()) / math.sqrt(2.0 * math.pi)
        p = torch.special.ndtr(u * math.sqrt(share / (1.0 - share)))
        known = torch.special.entr(p) + torch.special.entr(1.0 - p)
        return math.log(2.0) - float(torch.trapezoid(density * known, u))


@torch.no_grad()
def level(term: CriticRegularizer, batch: dict[str, Any]) -> float:
    """The critic's free constant: its mean score of product rows (else its mean output)."""
    if isinstance(term, (vaereg.CLUB, vaereg.VariationalMI)):
        return float(term.critic(batch["z"].value).mean())
    scores: Any = term.scores(batch, None)
    return float(scores[1].mean())


def sound(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def play(
    term: CriticRegularizer,
    weight: float,
    *,
    steps: int,
    rows: int = 128,
    critic_steps: int = 5,
    rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    every: int = 50,
    tick: Callable[[int], object] = lambda step: None,
) -> dict[str, Any]:
    """One run; the record of what was seen."""
    torch.manual_seed(seed)
    game, term = Game().to(device), term.to(device)
    objective = vaereg.Objective(kl=vaereg.KL("z"), mi=(weight, term))
    main = torch.optim.Adam(game.parameters(), rate)
    ascent = objective.critic_optimizer(torch.optim.Adam, lr=rate)
    label = isinstance(term, vaereg.VariationalMI)
    trace: dict[str, list[float]] = {"step": [], "shown": [], "true": [], "level": []}
    broken: int | None = None
    fine = torch.tensor(True, device=device)
    shown: list[Tensor] = []
    for step in range(steps):
        batch = game.batch(rows)
        for _ in range(critic_steps):
            fitted = objective.critic_step(batch, ascent)
            fine = fine & torch.isfinite(fitted.total)
        report = objective(batch, step=step)
        loss = gaussian_nll(game.decoder(batch["z"].value), batch["x"], std=DECODER_STD)
        main.zero_grad()
        (loss + report.total).backward()
        for p in game.parameters():
            fine = fine & torch.isfinite(p.grad).all()
        main.step()
        shown.append(report.values["mi"])
        if step % every == 0 or step == steps - 1:
            held = [*game.parameters(), *objective.state_dict().values()]
            if broken is None and not (bool(fine) and sound(held)):
                broken = step
            trace["step"].append(step)
            trace["shown"].append(float(torch.stack(shown[-every:]).mean()))
            trace["true"].append(game.truth(label))
            trace["level"].append(level(term, batch))
            tick(step)
    return {
        "weight": weight,
        "nonfinite_at_step": broken,
        "level_range": [min(trace["level"]), max(trace["level"])],
        "shown": trace["shown"][-1],
        "shown_range": [float(torch.stack(shown).min()), float(torch.stack(shown).max())],
        "true_start": trace["true"][0],
        "true": trace["true"][-1],
        "trace": {
            name: [round(v, 4) if math.isfinite(v) else str(v) for v in values]
            for name, values in trace.items()
        },
    }


def progress(total: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit="step", mininterval=5.0, disable=None)


def text(record: dict[str, Any]) -> str:
    """JSON with each list on one line."""
    spread = json.dumps(record, indent=1)
    return re.sub(r"\[[^\[\]{}]*\]", lambda m: " ".join(m[0].split()), spread) + "\n"


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=5000, help="encoder steps of each run")
    parser.add_argument("--critic-steps", type=int, default=5, help="critic steps an encoder step")
    parser.add_argument("--rows", type=int, default=128, help="rows of a batch")
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's rate, of both sides")
    parser.add_argument("--width", type=int, default=64, help="hidden units of the critics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    parser.add_argument("--out", default=str(ROOT / "benchmarks/results/soak.json"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = [case for case in CASES if args.only in ", ".join(case)]
    bar = progress(2 * len(chosen) * args.steps)
    results: dict[str, dict[str, Any]] = {}
    print(f"{'case':30s} {'nan':>5s} {'level':>17s} {'shown':>7s} {'true':>7s} {'s':>5s}")
    for name, kind in chosen:
        for role, sign in (("penalty", 1.0), ("reward", -1.0)):
            start, seen = time.perf_counter(), 0

            def tick(step: int) -> None:
                nonlocal seen
                if bar is not None:
                    bar.update(step + 1 - seen)
                seen = step + 1

            torch.manual_seed(args.seed)
            row = play(
                make(name, kind, args.width), sign * WEIGHTS[name], steps=args.steps,
                rows=args.rows, rate=args.rate,
                critic_steps=args.critic_steps, seed=args.seed, device=args.device, tick=tick,
            )  # fmt: skip
            row["seconds"] = round(time.perf_counter() - start, 1)
            title = f"{name}, {kind}, {role}"
            results[title] = row
            low, high = row["level_range"]
            print(f"{title:30s} {row['nonfinite_at_step']!s:>5s} "
                  f"{low:8.2f} {high:8.2f} {row['shown']:7.3f} {row['true']:7.3f} "
                  f"{row['seconds']:5.0f}", flush=True)  # fmt: skip
    record = {
        "commit": commit(),
        "seed": args.seed,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "configuration": {
            "steps": args.steps, "critic_steps": args.critic_steps, "rows": args.rows,
            "optimizer": "Adam", "rate": args.rate, "width": args.width,
            "terms and critics": "defaults but for the width",
            "kl": 1.0, "decoder_std": DECODER_STD, "noise": NOISE, "unit": "nats",
            "shown": "mean of the last 50 steps", "level": "mean score of product rows; mean "
            "output of the critic of CLUB and VariationalMI",
        },
        "cases": results,
    }  # fmt: skip
    if not args.only:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(text(record))


if __name__ == "__main__":
    main()
