"""What a regularizer adds to a training step of a small VAE, side by side with common code.

The networks of the dSprites study (four convolutions, 64 x 64 binary images, 10 latent numbers),
Adam, one batch. Providers take turns in one process:

- `plain`: encoder, decoder, reconstruction and KL;
- `tc`, `dip`, `mmd`: with `MinibatchTC`, `DIP` (kind ii) or `MMD` added; their `term_share` is the
  time of the term alone, its objective included, forward and backward to sample, mean and scale,
  over that of the plain step in the same round, the caches as a step leaves them, and
  `term_share_warm` that of one of 20 calls in a row;
- `factor`: `DensityRatioTC` with the published critic of 6 x 1000 units and a second batch, and
  `factor_naive`, the same as it is commonly written: a critic that collects gradients in the
  encoder's pass, a critic loss whose backward runs through the encoder, a second batch encoded
  with a graph;
- `mine`: `MINE("z", "y")` with a critic of 3 x 512 units, one critic step, and `mine_naive`, as in
  `naive.py`. `overhead_ratio` is what is added to the plain step over what the naive form adds.

    python benchmarks/steps.py                       # CPU, two threads, a few minutes
    python benchmarks/steps.py --device cuda --out benchmarks/results/cuda/steps.csv
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import ROOT, machine, ratios, summary, turns, write
from naive import NaiveMINE
from torch import Tensor, nn

import vaereg
from vaereg.functional import bernoulli_nll

OUT = ROOT / "benchmarks" / "results" / "steps.csv"
ROWS, WIDTH, DATASET, IN_A_ROW = (64, 128, 256), 10, 737_280, 20
TERMS: dict[str, Callable[[], vaereg.Regularizer]] = {
    "tc": lambda: vaereg.MinibatchTC("z", dataset_size=DATASET),
    "dip": lambda: vaereg.DIP("z", kind="ii", off_diagonal=10.0, diagonal=10.0),
    "mmd": lambda: vaereg.MMD("z"),
}


def networks() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of the study."""
    widths = (1, 32, 32, 32, 32)
    down: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        down += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
    encoder = nn.Sequential(
        *down, nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, 2 * WIDTH),
    )  # fmt: skip
    up: list[nn.Module] = []
    for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True):
        up += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1)]
    decoder = nn.Sequential(
        nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 512),
        nn.Unflatten(1, (32, 4, 4)), *up,
    )  # fmt: skip
    return encoder, decoder


def images(rows: int, device: str) -> Tensor:
    """Binary squares: the time of a step does not depend on what is in the pictures."""
    g = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 44, (rows, 2), generator=g)
    at = torch.arange(64)
    inside = (at >= corner[..., None]) & (at < corner[..., None] + 20)  # (B, 2, 64)
    return (inside[:, :1, :, None] & inside[:, 1:, None]).float().to(device)


class Model:
    """A VAE of its own with its optimizer, and one step of it."""

    def __init__(self, start: tuple[nn.Module, nn.Module], x: Tensor) -> None:
        self.encoder, self.decoder = (copy.deepcopy(m).to(x.device) for m in start)
        self.x = x
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        # Timings do not depend on the rate; a low one keeps hundreds of steps on a batch finite.
        self.main = torch.optim.Adam(parameters, 1e-5)

    def code(self, x: Tensor | None = None) -> vaereg.Code:
        return vaereg.gaussian(self.encoder(self.x if x is None else x))

    def loss(self, z: vaereg.Code, extra: Tensor | float = 0.0) -> Tensor:
        return bernoulli_nll(self.decoder(z.value), self.x) + extra

    def descend(self, loss: Tensor, *, retain: bool = False) -> None:
        self.main.zero_grad()
        loss.backward(retain_graph=retain)
        self.main.step()


def with_term(model: Model, term: vaereg.Regularizer | None) -> Callable[[], None]:
    """A step with the KL, and a term without a critic."""
    terms: dict[str, Any] = {"kl": vaereg.KL("z")}
    objective = vaereg.Objective(**terms if term is None else {**terms, "term": term})

    def step() -> None:
        z = model.code()
        model.descend(model.loss(z, objective({"z": z}).total))

    return step


def alone(term: vaereg.Regularizer, rows: int, device: str) -> Callable[[], None]:
    """The term on a code that is there already, forward and backward to sample, mean and scale.

    The code itself, and the backward pass through it, belong to the plain step.
    """
    leaves = [torch.randn(rows, WIDTH, device=device) for _ in range(3)]
    value, mean, std = (t.requires_grad_() for t in (*leaves[:2], (leaves[2] - 1.0).exp()))
    code = vaereg.gaussian(mean, std=std, value=value)
    objective = vaereg.Objective(term=term)

    def step() -> None:
        value.grad = mean.grad = std.grad = None
        objective({"z": code}).total.backward()

    return step


def factor(model: Model, second: Tensor) -> Callable[[], None]:
    """FactorVAE by the library."""
    critic = vaereg.critics.mlp(WIDTH, 2, width=1000, depth=6).to(model.x.device)
    objective = vaereg.Objective(kl=vaereg.KL("z"), tc=vaereg.DensityRatioTC("z", critic=critic))
    critics = objective.critic_optimizer(torch.optim.Adam, lr=1e-5)

    def step() -> None:
        z = model.code()
        model.descend(model.loss(z, objective({"z": z}).total))
        with torch.no_grad():
            other = model.code(second)
        objective.critic_step({"z": z}, critics, other={"z": other})

    return step


def factor_naive(model: Model, second: Tensor) -> Callable[[], None]:
    """FactorVAE as it is commonly written."""
    critic = vaereg.critics.mlp(WIDTH, 2, width=1000, depth=6).to(model.x.device)
    critics = torch.optim.Adam(critic.parameters(), 1e-5)
    kl = vaereg.KL("z")
    zeros = torch.zeros(len(model.x), dtype=torch.long, device=model.x.device)

    def step() -> None:
        z = model.code()
        logits = critic(z.value)
        tc = (logits[:, 0] - logits[:, 1]).mean()
        loss = model.loss(z, kl({"z": z}) + tc)
        # Both backwards before both steps: the graph is used twice.
        model.main.zero_grad()
        loss.backward(retain_graph=True)
        permuted = model.code(second).value
        columns = [permuted[torch.randperm(len(permuted)), d] for d in range(WIDTH)]
        product = critic(torch.stack(columns, 1).detach())
        critics.zero_grad()
        # Its gradient of the encoder is thrown away; grad for the critic alone would do.
        kept = [p.grad for p in model.encoder.parameters()]
        (0.5 * (F.cross_entropy(logits, zeros) + F.cross_entropy(product, zeros + 1))).backward()
        for p, g in zip(model.encoder.parameters(), kept, strict=True):
            p.grad = g
        model.main.step()
        critics.step()

    return step


def labels(rows: int, device: str) -> Tensor:
    return vaereg.labels(torch.arange(rows) % 3, 3).to(device)


def mine(model: Model, y: Tensor) -> Callable[[], None]:
    """I(z; y) by the library, one critic step an encoder step."""
    critic = vaereg.critics.mlp(WIDTH + 3, 1, width=512, depth=3).to(y.device)
    objective = vaereg.Objective(kl=vaereg.KL("z"), leak=vaereg.MINE("z", "y", critic=critic))
    critics = objective.critic_optimizer(torch.optim.Adam, lr=1e-5)

    def step() -> None:
        z = model.code()
        objective.critic_step({"z": z, "y": y}, critics)
        model.descend(model.loss(z, objective({"z": z, "y": y}).total))

    return step


def mine_naive(model: Model, y: Tensor) -> Callable[[], None]:
    """I(z; y) as it is commonly written, with a moving average."""
    term = NaiveMINE(vaereg.critics.mlp(WIDTH + 3, 1, width=512, depth=3)).to(y.device)
    critics = torch.optim.Adam(term.parameters(), 1e-5)
    kl = vaereg.KL("z")

    def step() -> None:
        z = model.code()
        critics.zero_grad()
        (-term(z.value, y, move=True)).backward(retain_graph=True)
        critics.step()
        model.descend(model.loss(z, kl({"z": z}) + term(z.value, y, move=False)))

    return step


def providers(rows: int, device: str) -> dict[str, Callable[[], None]]:
    """All steps, each with networks of its own of the same start, and the terms alone."""
    torch.manual_seed(0)
    start, x = networks(), images(rows, device)
    second, y = images(rows, device).flip(0), labels(rows, device)
    model = partial(Model, start, x)
    found = {"plain": with_term(model(), None)}
    found |= {name: with_term(model(), make()) for name, make in TERMS.items()}
    found |= {"factor_naive": factor_naive(model(), second), "factor": factor(model(), second)}
    found |= {"mine_naive": mine_naive(model(), y), "mine": mine(model(), y)}
    single = {name: alone(make(), rows, device) for name, make in TERMS.items()}
    found |= {f"{name} alone": step for name, step in single.items()}
    return found | {f"{name} warm": in_a_row(step) for name, step in single.items()}


def in_a_row(step: Callable[[], None]) -> Callable[[], None]:
    """A number of calls as one."""
    return lambda: [step() for _ in range(IN_A_ROW)] and None


def summarise(case: str, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Times a step, shares of the plain step, and overheads over it."""
    plain, rows = times["plain"], list[dict[str, Any]]()
    over = {n: [a - b for a, b in zip(t, plain, strict=True)] for n, t in times.items()}
    for name, spent in times.items():
        provider, _, kind = name.partition(" ")
        if kind == "warm":
            spent = [t / IN_A_ROW for t in spent]
        ending = {"": "wall", "alone": "term_wall", "warm": "term_wall_warm"}[kind]
        rows.append(summary(case, provider, ending, spent, "ms"))
        if kind:
            share = ending.replace("wall", "share")
            rows.append(summary(case, provider, share, ratios(spent, plain), "1"))
        elif name != "plain":
            rows.append(summary(case, name, "overhead", ratios(over[name], plain), "1"))
        if f"{name}_naive" in times:
            against = ratios(over[name], over[f"{name}_naive"])
            rows.append(summary(case, name, "overhead_ratio", against, "1"))
    return rows


def main(given: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", type=int, action="append", help="batch sizes (default: 64, 128, 256)")
    add("--rounds", type=int, default=60, help="rounds a case (default: %(default)s)")
    add("--threads", type=int, default=2, help="torch threads (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--out", type=Path, default=OUT, help="CSV file to write (default: %(default)s)")
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    where, rows = machine(args.device), list[dict[str, Any]]()
    for b in args.rows or ROWS:
        found = providers(b, args.device)
        times = turns(found, args.rounds, cuda=args.device.startswith("cuda"), warmup=5)
        config = json.dumps({"rows": b, "columns": WIDTH, "rounds": args.rounds})
        for row in summarise(f"b{b}", times):
            rows.append({**row, "config": config, **where})
            text = f"{row['case']:6s} {row['provider']:13s} {row['metric']:15s} {row['median']}"
            print(text, row["unit"], flush=True)
    write(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
