"""Training of one model."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vaereg
from harness.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_text
from harness.logs import as_csv, progress_bar

from .data import Pictures
from .models import build
from .settings import Settings
from .views import Views

__all__ = ["Trainer", "train"]

ROWS = 60  # of the history, whatever the number of steps
RISE = 100  # steps over which the learning rate rises
DRAWN = 64  # pictures a step drawn from the prior


class Trainer:
    """A model with its optimizers, which can be saved and restored bit for bit."""

    def __init__(self, settings: Settings, data: Pictures, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = device
        self.x = data.tensor("train").to(device)
        self.steps = len(self.x) // settings.batch
        self.total = self.steps * settings.epochs
        self.identity = asdict(settings) | {"images": data.source, "digest": _digest(data)}
        self.vae = build(settings, data.size, self.total).to(device)
        self.views = Views.of(settings)
        self.main = torch.optim.Adam(self.vae.main_parameters(), settings.lr, betas=(0.9, 0.99))
        self.critics = self.vae.objective.critic_optimizer(torch.optim.Adam, lr=settings.critic_lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.main, self._rate)
        self.epoch = 0
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.pending: list[Tensor] = []
        self.seconds = 0.0

    def _rate(self, step: int) -> float:
        wave = 0.5 * (1.0 + math.cos(math.pi * min(step / max(self.total, 1), 1.0)))
        return min(1.0, (step + 1) / RISE) * (0.02 + 0.98 * wave)

    def state(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "settings": self.identity,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "pending": self.pending,
            "vae": self.vae.state_dict(),
            "main": self.main.state_dict(),
            "critics": self.critics.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.seconds = state["seconds"]
        self.pending = [row.to(self.device) for row in state["pending"]]
        self.vae.load_state_dict(state["vae"])
        self.main.load_state_dict(state["main"])
        self.critics.load_state_dict(state["critics"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _observed(self, x: Tensor) -> dict[str, Tensor]:
        """What the terms read beside the codes: a view of x; pictures drawn from the prior."""
        if self.settings.model == "gaussian":
            return {}
        k, n = self.settings.k, max(DRAWN, self.settings.k)
        label = vaereg.labels(torch.arange(n, device=self.device) % k, classes=k)
        z = torch.randn(n, self.settings.z, device=self.device)
        drawn = self.vae.decode({"z": z, "c": label})
        return {"view": self.views(x), "drawn": drawn, "drawn_c": label}

    def train_step(self, x: Tensor) -> vaereg.VAEOutput:
        """One step of encoder and decoder, then critic steps on the same codes."""
        out: vaereg.VAEOutput = self.vae(x, step=self.step, **self._observed(x))
        self.main.zero_grad(set_to_none=True)
        out.loss.backward()
        self.main.step()
        self.schedule.step()
        for _ in range(self.settings.critic_steps if self.settings.model == "gaussian" else 0):
            self.vae.objective.critic_step(out.batch, self.critics, step=self.step)
        self.step += 1
        return out

    def _log(self, out: vaereg.VAEOutput) -> None:
        """Keep the values; a row of the history is their mean, with one device transfer."""
        names = list(out.report.values)
        self.pending.append(torch.stack([out.nll.detach(), *out.report.values.values()]))
        done = self.step == self.total
        if not done and self.step % max(1, self.total // ROWS):
            return
        means = torch.stack(self.pending).mean(0).tolist()
        self.pending.clear()
        row = dict(zip(["nll", *names], means, strict=True))
        if not all(map(math.isfinite, means)):
            self.vae.objective.validate(out.batch)
            raise FloatingPointError(f"step {self.step}: expected finite values, got {row}")
        self.history.append({"step": float(self.step), **row})

    def train_epoch(self, advance: Callable[[], object]) -> None:
        """One pass over the training images in random order, but for a last partial batch."""
        start = time.perf_counter()
        self.vae.train()
        order = torch.randperm(len(self.x))
        for i in range(self.steps):
            rows = order[i * self.settings.batch : (i + 1) * self.settings.batch]
            self._log(self.train_step(self.x[rows.to(self.device)]))
            advance()
        self.epoch += 1
        self.seconds += time.perf_counter() - start


def train(
    settings: Settings,
    data: Pictures,
    folder: Path,
    *,
    device: torch.device,
    resume: bool = False,
    progress: bool = True,
) -> Trainer:
    """Train one model, with a checkpoint an epoch.

    Args:
        settings: What to train.
        data: What on.
        folder: Where ``checkpoint.pt`` and ``log.csv`` go.
        device: Where to compute.
        resume: Go on from the checkpoint in ``folder``, bit for bit.
        progress: Show a progress bar.

    Returns:
        The trainer at its end: ``vae``, ``seconds`` of training, resumed ones included, and
        ``history``, means of all terms in nats between recorded steps.

    Raises:
        ValueError: If there are fewer training images than a batch.
        CheckpointError: If a checkpoint cannot be read or written.
        FloatingPointError: If a value is not finite.
    """
    if len(data.images["train"]) < settings.batch:
        raise ValueError(
            f"--batch: expected at most the {len(data.images['train'])} training images, got "
            f"{settings.batch}"
        )
    trainer = Trainer(settings, data, device)
    path = folder / "checkpoint.pt"
    if resume:
        state = load_checkpoint(path, trainer.identity)
        if state is not None:
            _restore(trainer, state, path)
    name = f"{settings.model} mi={settings.mi:g} (seed {settings.seed})"
    with progress_bar(name, total=trainer.total, initial=trainer.step, show=progress) as bar:
        while trainer.epoch < settings.epochs:
            trainer.train_epoch(bar.update)
            if trainer.history:
                bar.set_postfix(mi=f"{trainer.history[-1]['mi']:.2f}", refresh=False)
            save_checkpoint(path, trainer.state())
            write_text(folder / "log.csv", as_csv(trainer.history))
    return trainer


def _digest(data: Pictures) -> str:
    return hashlib.sha256(data.images["train"].tobytes()).hexdigest()[:12]


def _restore(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    if state["settings"]["epochs"] != trainer.settings.epochs:
        # Learning rate and temperature are functions of the share that is done.
        raise CheckpointError(
            f"cannot resume from {path}: expected --epochs {state['settings']['epochs']} as it "
            f"was trained with, got {trainer.settings.epochs}"
        )
    try:
        trainer.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot resume from {path}: expected the state of these networks and optimizers, "
            f"got another ({type(error).__name__})"
        ) from error
