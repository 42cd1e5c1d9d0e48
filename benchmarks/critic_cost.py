"""The cost of three MINE terms beside a VAE: the library against common code, side by side.

    python benchmarks/critic_cost.py

All providers of a case take turns in one process, one step each a round; a row of
``results/critic_cost.csv`` summarises one metric of one provider over the rounds. Before anything
is timed, all providers must give the same losses and gradients from the same random numbers.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from naive import NaiveTerms, UnfrozenMINE, train_step
from torch import Tensor, nn

import vaereg

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

from mmvae.models import PRESETS, Preset, Weights, build, build_objective, one_hot  # noqa: E402

COLUMNS = (
    "case",
    "provider",
    "metric",
    "median",
    "q20",
    "q80",
    "unit",
    "config",
    "device",
    "threads",
    "torch",
    "commit",
    "time",
)
WEIGHTS = Weights(alpha=1.0, beta=1.0, gamma=1.0)
CRITICS = ("i_cy", "i_zy", "i_zc")
# Timings do not depend on the rates; low ones keep hundreds of steps on one batch finite.
MAIN_LR, CRITIC_LR = 1e-4, 1e-5


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        name: The name in the results.
        preset: Sizes of encoder and decoder, a name in ``examples/mmvae``.
        batch: Rows a step.
        critic_steps: Critic steps an encoder step; ``None`` times the pass from the codes to
            their gradients alone, without encoder, decoder and critic steps.
        critic_width: Units of each hidden layer of a critic.
        critic_depth: Hidden layers of a critic.
    """

    name: str
    preset: str
    batch: int
    critic_steps: int | None
    critic_width: int = 512
    critic_depth: int = 7

    @property
    def providers(self) -> tuple[str, ...]:
        """Providers, the one that the others are measured against first."""
        if self.critic_steps is None:
            return ("unfrozen", "naive", "library")
        return ("naive", "detached", "library", "plain")

    @property
    def sizes(self) -> Preset:
        """The preset with this case's critics."""
        critic = {"critic_width": self.critic_width, "critic_depth": self.critic_depth}
        return replace(PRESETS[self.preset], **critic)


CASES = (
    Case("outer_b64", "full", 64, None),
    Case("outer_b128", "full", 128, None),
    Case("step_small_k1", "small", 64, 1),
    Case("step_small_k5", "small", 64, 5),
    Case("step_medium_k1", "medium", 64, 1),
    Case("step_medium_k5", "medium", 64, 5),
)


@dataclass(frozen=True)
class Provider:
    """One way to do a case.

    Attributes:
        step: Does it once and returns the loss.
        leaves: The tensors whose gradients must agree between providers: the codes, or the
            parameters of encoder and decoder.
        critics: The critics, in the order of :data:`CRITICS`.
    """

    step: Callable[[], Tensor]
    leaves: list[Tensor]
    critics: list[nn.Module]


def _terms(case: Case) -> vaereg.Objective:
    return build_objective("mmvae", case.sizes, 1, WEIGHTS).without("kl")


def _naive(objective: vaereg.Objective) -> NaiveTerms:
    critics = {n: copy.deepcopy(objective[n].critic) for n in CRITICS}
    return NaiveTerms(critics, {n: float(objective.weights[n]) for n in CRITICS})


def _labels(rows: int) -> Tensor:
    return one_hot((torch.arange(rows) % 2)[:, None])


def _outer(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, Provider]:
    torch.manual_seed(0)
    objective = _terms(case)
    unfrozen = vaereg.Objective(
        **{
            name: (
                objective.weights[name],
                UnfrozenMINE(*pair, critic=copy.deepcopy(objective[name].critic)),
            )
            for name, pair in zip(CRITICS, (("c", "y"), ("z", "y"), ("z", "c")), strict=True)
        }
    )
    modules = {"unfrozen": unfrozen, "naive": _naive(objective), "library": objective}
    y = _labels(case.batch).to(device, dtype)
    z = torch.randn(case.batch, case.sizes.z).to(device, dtype)
    c = torch.randn(case.batch, 2).to(device, dtype)

    def provider(name: str) -> Provider:
        module = modules[name].to(device, dtype)
        leaves = [t.clone().requires_grad_() for t in (z, c)]
        codes = dict(zip(("z", "c"), leaves, strict=True))
        batch = {"y": y, **{n: vaereg.deterministic(t) for n, t in codes.items()}}

        def step() -> Tensor:
            for tensor in (*leaves, *module.parameters()):
                tensor.grad = None
            if name == "naive":
                loss = module(codes["z"], codes["c"], y)
            else:
                loss = module(batch).total
            loss.backward()
            return loss

        critics = [m for m in module.modules() if isinstance(m, nn.Sequential)]
        return Provider(step, leaves, critics)

    return {name: provider(name) for name in case.providers}


def _full(case: Case, device: torch.device, dtype: torch.dtype) -> dict[str, Provider]:
    assert case.critic_steps is not None
    torch.manual_seed(0)
    start = build("r-cvae", case.sizes, 1, WEIGHTS, pixel_std=1.0)
    terms = _terms(case)
    x = torch.rand(case.batch, 3, 64, 64).to(device, dtype)
    y = _labels(case.batch).to(device, dtype)
    critic_steps = case.critic_steps

    def provider(name: str) -> Provider:
        vae = copy.deepcopy(start).to(device, dtype)
        main = torch.optim.Adam(vae.main_parameters(), MAIN_LR)
        leaves: list[Tensor] = list(vae.main_parameters())

        if name == "plain":

            def plain() -> Tensor:
                out = vae(x, y=y)
                main.zero_grad()
                out.loss.backward()
                main.step()
                return out.loss

            return Provider(plain, leaves, [])

        if name == "library":
            objective = copy.deepcopy(terms).to(device, dtype)
            optimizer = objective.critic_optimizer(torch.optim.Adam, lr=CRITIC_LR)

            def library() -> Tensor:
                out = vae(x, y=y)
                for _ in range(critic_steps):
                    objective.critic_step(out.batch, optimizer)
                loss = out.loss + objective(out.batch).total
                main.zero_grad()
                loss.backward()
                main.step()
                return loss

            return Provider(library, leaves, [objective[n].critic for n in CRITICS])

        naive = _naive(terms).to(device, dtype)
        critics = torch.optim.Adam(naive.parameters(), CRITIC_LR)

        def common() -> Tensor:
            return train_step(
                vae,
                naive,
                x,
                y,
                main,
                critics,
                critic_steps=critic_steps,
                detach=name == "detached",
            )

        return Provider(common, leaves, [naive.terms[n].critic for n in CRITICS])

    return {name: provider(name) for name in case.providers}


def build_case(
    case: Case, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Provider]:
    """The providers of a case, with equal weights and inputs, each with networks of its own."""
    make = _outer if case.critic_steps is None else _full
    return make(case, torch.device(device), dtype)


def verify(case: Case, *, steps: int = 2) -> None:
    """Raise unless all providers agree, in float64 on the CPU.

    Losses, gradients of the codes (or of encoder and decoder) and the critics are compared
    over ``steps`` steps from the same random numbers.

    Raises:
        AssertionError: Naming the case, the provider and what differs.
    """
    providers = build_case(case, dtype=torch.float64)
    seen: dict[str, list[Tensor]] = {}
    for name in case.providers:
        if name == "plain":
            continue
        torch.manual_seed(1)
        provider = providers[name]
        found: list[Tensor] = []
        for _ in range(steps):
            found.append(provider.step().detach())
            for leaf in provider.leaves:
                assert leaf.grad is not None, f"{case.name}: {name} leaves a tensor out"
                found.append(leaf.grad.clone())
        found += [p.detach() for critic in provider.critics for p in critic.parameters()]
        seen[name] = found
    first = case.providers[0]
    for name, found in seen.items():
        for i, (a, b) in enumerate(zip(found, seen[first], strict=True)):
            scale = float(b.abs().max())
            error = float((a - b).abs().max())
            if not error <= 1e-7 * scale + 1e-12:
                raise AssertionError(
                    f"{case.name}: expected {name} to equal {first}, got a difference of "
                    f"{error:.1e} at a scale of {scale:.1e} in quantity {i}"
                )


def measure(
    providers: dict[str, Provider], rounds: int, device: torch.device, *, warmup: int = 3
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds a step: clock -> provider -> one number a round.

    The providers take turns, in an order that rotates, so that what else the machine does falls
    on all alike. ``cpu`` is the process's own CPU time, which leaves waiting out.
    """
    clocks = ("wall",) if device.type == "cuda" else ("cpu", "wall")
    times: dict[str, dict[str, list[float]]] = {c: {n: [] for n in providers} for c in clocks}
    names = list(providers)
    for i in range(warmup + rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            wall, cpu = time.perf_counter(), time.process_time()
            providers[name].step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            if i >= warmup:
                for clock in clocks:
                    times[clock][name].append(1e3 * spent[clock])
    return times


def summarise(
    case: Case, times: dict[str, dict[str, list[float]]]
) -> list[dict[str, str | float]]:
    """The rows of a case: times, and ratios taken within each round.

    Of a case with a ``plain`` provider the ratio is that of the overheads over it.
    """
    rows: list[dict[str, str | float]] = []

    def add(provider: str, metric: str, samples: list[float], unit: str) -> None:
        cuts = statistics.quantiles(samples, n=5, method="inclusive")
        summary = {"median": statistics.median(samples), "q20": cuts[0], "q80": cuts[-1]}
        rows.append(
            {"case": case.name, "provider": provider, "metric": metric, "unit": unit}
            | {key: float(f"{value:.4g}") for key, value in summary.items()}
        )

    for clock, columns in times.items():
        for name, samples in columns.items():
            add(name, clock, samples, "ms")
        base = columns.get("plain", [0.0] * len(columns[case.providers[0]]))
        kind = "overhead_" if "plain" in columns else ""
        over = {
            name: [t - b for t, b in zip(samples, base, strict=True)]
            for name, samples in columns.items()
            if name != "plain"
        }
        for name, samples in over.items():
            if kind:
                add(name, f"{clock}_overhead", samples, "ms")
            against = over[case.providers[0]]
            ratios = [a / b for a, b in zip(samples, against, strict=True)]
            add(name, f"{clock}_{kind}ratio", ratios, "1")
    return rows


def machine(device: torch.device) -> dict[str, str]:
    """The columns that say where and when."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": kind,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "commit": commit or vaereg.__version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write(path: Path, rows: Iterable[dict[str, str | float]]) -> None:
    """Write the rows as CSV, in the order of :data:`COLUMNS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def run(
    cases: Iterable[Case], *, rounds: int, device: torch.device, show: bool = True
) -> list[dict[str, str | float]]:
    """Verify and time all cases; the rows of the results."""
    rows: list[dict[str, str | float]] = []
    for case in cases:
        verify(case)
        times = measure(build_case(case, device), rounds, device)
        config = json.dumps(asdict(case) | {"rounds": rounds}, sort_keys=True)
        for row in summarise(case, times):
            rows.append(row | {"config": config} | machine(device))
            if show and row["unit"] == "1":
                print(
                    f"{case.name:16} {row['provider']:9} {row['metric']:18} {row['median']:6.3f} "
                    f"[{row['q20']:.3f}, {row['q80']:.3f}]",
                    flush=True,
                )
    return rows


def main() -> None:
    """Read the command line, time the cases, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--rounds", type=int, default=40, help="timed rounds (default: 40)")
    parser.add_argument("--case", action="append", choices=[c.name for c in CASES])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "critic_cost.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cases = [c for c in CASES if args.case is None or c.name in args.case]
    write(args.out, run(cases, rounds=args.rounds, device=torch.device(args.device)))


if __name__ == "__main__":
    main()
