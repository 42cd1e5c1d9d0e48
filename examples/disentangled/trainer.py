"""Several models at once: any objectives, any seeds, networks of one shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import vaereg
from vaereg.functional import bernoulli_nll, gaussian_nll
from vaereg.metrics import kl_decomposition

from .data import OnDevice, Pictures
from .models import Stack, decoder, encoder
from .objectives import Context, build, wants_other
from .settings import Settings

__all__ = ["LIKELIHOODS", "PROBE", "Trainer", "encode", "identity"]

LIKELIHOODS = {"bernoulli": bernoulli_nll, "gaussian": gaussian_nll}
ALIKE = ("z", "steps", "batch", "lr", "likelihood", "precision", "probes")
"""Settings that models trained together must have in common."""
PROBE = 2048
"""Pictures of a probe; no more than the logarithm of their number can I(x; z) be among them."""


def _seed(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1)[0])


class _Rows:
    """Rows of each step: passes over the data, each in an order of its own."""

    def __init__(self, n: int, batch: int, *key: int) -> None:
        self.n, self.batch, self.key = n, batch, key
        self.per_pass = n // batch
        self.current = -1
        self.order = np.empty(0, np.int64)

    def at(self, step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, self.per_pass)
        if epoch != self.current:
            self.order = np.random.default_rng([*self.key, epoch]).permutation(self.n)
            self.current = epoch
        return self.order[place * self.batch : (place + 1) * self.batch]


class Trainer:
    """Models of one shape, each with its objective, critics and seed, trained together.

    All that is random in a step depends on the model's seed and the step alone, so that a model
    is the same whatever it is trained beside, up to rounding, and a resumed run goes on bit for
    bit.
    """

    def __init__(self, runs: Sequence[Settings], data: Pictures, device: torch.device) -> None:
        first = runs[0]
        for name in ALIKE:
            if len({getattr(run, name) for run in runs}) > 1:
                raise ValueError(f"{name}: expected one value for models trained together")
        if len(data) < first.batch:
            raise ValueError(f"batch: expected at most {len(data)} pictures, got {first.batch}")
        self.runs, self.device, self.first = list(runs), device, first
        self.data = data
        self.source = OnDevice(data, device)
        encoders, decoders, self.objectives = [], [], list[vaereg.Objective]()
        for run in runs:
            torch.manual_seed(run.seed)
            encoders.append(encoder(run.z, data.channels))
            decoders.append(decoder(run.z, data.channels))
            context = Context(run.z, len(data), run.critic_width, run.critic_depth)
            self.objectives.append(build(run.objective, context).to(device))
        self.encoder, self.decoder = Stack(encoders).to(device), Stack(decoders).to(device)
        self.main = torch.optim.Adam(
            [*self.encoder.parameters(), *self.decoder.parameters()], first.lr
        )
        self.critics = [
            objective.critic_optimizer(torch.optim.Adam, lr=run.critic_lr, betas=(0.5, 0.9))
            for objective, run in zip(self.objectives, runs, strict=True)
        ]
        self.critical = [any(True for _ in o.critic_parameters()) for o in self.objectives]
        self.other = any(wants_other(run.objective) for run in runs)
        size = (len(data), first.batch)
        self.rows = [_Rows(*size, run.seed, 0) for run in runs]
        self.other_rows = [_Rows(*size, run.seed, 1) for run in runs]
        self.step = 0
        self.history: list[list[dict[str, float]]] = [[] for _ in runs]
        self.sums: list[dict[str, Tensor]] = [{} for _ in runs]
        self.counted = 0
        self.failed: dict[int, str] = {}
        self.nll = LIKELIHOODS[first.likelihood]

    def _batch(self, rows: Sequence[_Rows]) -> Tensor:
        return torch.stack([self.source.batch(own.at(self.step)) for own in rows])

    def _half(self) -> torch.autocast:
        enabled = self.first.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _encode(self, x: Tensor) -> Tensor:
        with self._half():
            return self.encoder(x).float()

    def _decode(self, z: Tensor) -> Tensor:
        with self._half():
            return self.decoder(z).float()

    def train_step(self) -> None:
        """One step of all encoders and decoders, then the steps of their critics."""
        x = self._batch(self.rows)  # (S, B, C, H, W)
        codes: list[vaereg.Code] = []
        totals: list[Tensor] = []
        found: list[dict[str, Tensor]] = []
        for i, parameters in enumerate(self._encode(x)):
            torch.manual_seed(_seed(self.runs[i].seed, self.step))
            codes.append(vaereg.gaussian(parameters))
            report = self.objectives[i]({"z": codes[i]}, step=self.step)
            totals.append(report.total)
            found.append(report.values)
        outputs = self._decode(torch.stack([code.value for code in codes]))
        errors = [self.nll(output, own) for output, own in zip(outputs, x, strict=True)]
        self.main.zero_grad(set_to_none=True)
        torch.stack([*errors, *totals]).sum().backward()
        self.main.step()
        if any(self.critical):
            self._critic_steps(codes)
        for i, code in enumerate(codes):
            self.objectives[i].update({"z": code}, step=self.step)
            self._note(i, {"nll": errors[i].detach(), **found[i]})
        self.counted += 1
        self.step += 1

    def _critic_steps(self, codes: Sequence[vaereg.Code]) -> None:
        others: Sequence[Tensor | None] = [None] * len(codes)
        if self.other:
            with torch.no_grad():
                others = list(self._encode(self._batch(self.other_rows)))
        for i, (code, parameters) in enumerate(zip(codes, others, strict=True)):
            if not self.critical[i]:
                continue
            torch.manual_seed(_seed(self.runs[i].seed, self.step, 1))
            z = {"z": code.detach()}
            # What another model wants must not use up this one's random numbers.
            own = parameters is not None and wants_other(self.runs[i].objective)
            other = {"z": vaereg.gaussian(parameters)} if own else None
            for _ in range(self.runs[i].critic_steps):
                self.objectives[i].critic_step(z, self.critics[i], other=other, step=self.step)

    def _note(self, i: int, values: dict[str, Tensor]) -> None:
        sums = self.sums[i]
        for name, value in values.items():
            sums[name] = sums[name] + value if name in sums else value

    def write_row(self, *, probe: bool) -> None:
        """Add the means since the last row to the histories; note models that failed.

        Raises:
            FloatingPointError: If all have failed: some value is not finite.
        """
        for i, sums in enumerate(self.sums):
            if i in self.failed:
                continue
            values = (torch.stack(list(sums.values())).double() / self.counted).tolist()
            row = {"step": float(self.step), **dict(zip(sums, values, strict=True))}
            broken = [f"{n} = {v}" for n, v in row.items() if not math.isfinite(v)]
            if broken:
                # The others' gradients do not depend on it: they go on.
                self.failed[i] = f"got {', '.join(broken)} before step {self.step}"
                if len(self.failed) == len(self.runs):
                    raise FloatingPointError(
                        f"{self.runs[i].name}: expected finite values, {self.failed[i]}; start "
                        "again with a lower --lr or smaller weights"
                    )
                continue
            if probe:
                row |= self._probe(i)
            self.history[i].append(row)
        self.sums, self.counted = [{} for _ in self.runs], 0

    def _probe(self, i: int) -> dict[str, float]:
        """The parts of the KL, exact for some of the pictures as a data set of their own."""
        rows = np.random.default_rng(0).permutation(len(self.data))[:PROBE]
        mean, logvar = encode(self.encoder, i, self.source, np.sort(rows))
        g = torch.Generator().manual_seed(0)
        parts = kl_decomposition(mean, logvar, samples=min(1000, len(mean)), generator=g)
        return {
            "exact_mi": parts.mi,
            "exact_tc": parts.tc,
            "exact_dimwise": sum(parts.dimwise_kl),
        }

    def state(self, i: int) -> dict[str, Any]:
        """All of model i that training needs to go on."""
        moments = [
            {
                name: value[i].clone() if value.ndim else value.clone()
                for name, value in self.main.state[parameter].items()
            }
            for parameter in self.main.param_groups[0]["params"]
            if parameter in self.main.state
        ]
        return {
            "settings": asdict(self.runs[i]) | identity(self.data),
            "step": self.step,
            "history": self.history[i],
            "sums": self.sums[i],
            "counted": self.counted,
            "encoder": self.encoder.state(i),
            "decoder": self.decoder.state(i),
            "objective": self.objectives[i].state_dict(),
            "main": moments,
            "critics": self.critics[i].state_dict(),
        }

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the states of all models, taken at one step."""
        steps = {state["step"] for state in states}
        if len(steps) > 1:
            raise ValueError(f"expected states of one step, got {sorted(steps)}")
        self.step, self.counted = states[0]["step"], states[0]["counted"]
        for i, state in enumerate(states):
            self.history[i] = list(state["history"])
            self.sums[i] = {n: value.to(self.device) for n, value in state["sums"].items()}
            self.encoder.load(i, state["encoder"])
            self.decoder.load(i, state["decoder"])
            self.objectives[i].load_state_dict(state["objective"])
            self.critics[i].load_state_dict(state["critics"])
        if not states[0]["main"]:
            return
        full = self.main.state_dict()
        for k, entries in enumerate(zip(*(state["main"] for state in states), strict=True)):
            full["state"][k] = {
                name: torch.stack([entry[name] for entry in entries]) if value.ndim else value
                for name, value in entries[0].items()
            }
        self.main.load_state_dict(full)


def identity(data: Pictures) -> dict[str, Any]:
    """What of the data must be the same when training goes on."""
    return {"pictures": f"{len(data)} of digest {data.digest()}"}


@torch.no_grad()
def encode(
    stack: Stack, i: int, source: OnDevice, rows: NDArray[np.integer], *, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Means and log-variances ``(n, z)`` of model i, on the CPU."""
    one = Stack.of(stack, i)
    found = [
        one(source.batch(rows[start : start + batch])[None])[0].cpu()
        for start in range(0, len(rows), batch)
    ]
    mean, logvar = torch.cat(found).chunk(2, 1)
    return mean.contiguous(), logvar.contiguous()
