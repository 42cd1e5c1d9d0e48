"""Training of one model: r-CVAE, CSVAE or MMVAE."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vaereg
from harness.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_text
from harness.logs import as_csv, progress_bar, tensorboard_writer

from .attributes import AttributeImages
from .data import batches
from .models import PRESETS, Encoder, Weights, build, joint_label, one_hot
from .settings import Settings

__all__ = ["Settings", "encode_all", "train"]


class Trainer:
    """A model with its optimizers, which can be saved and restored bit for bit."""

    def __init__(self, settings: Settings, data: AttributeImages, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.data = data
        self.device = device
        self.forked = [device] if device.type == "cuda" else []
        self.identity = asdict(settings) | _identity(data)
        attributes = data.attributes.shape[1]
        weights = Weights(settings.alpha, settings.beta, settings.gamma)
        self.vae = build(
            settings.model, PRESETS[settings.preset], attributes, weights, settings.pixel_std
        ).to(device)
        steps = math.ceil(settings.warmup * len(data.split["train"]) / settings.batch)
        if steps:
            for name in ("i_zy", "i_zc"):
                final = self.vae.objective.weights.get(name)
                if isinstance(final, (int, float)):
                    self.vae.objective.weights[name] = vaereg.schedules.linear(
                        0.0, final, steps=steps
                    )
        self.main = torch.optim.Adam(self._groups(), settings.lr)
        self.critics = self.vae.objective.critic_optimizer(torch.optim.Adam, lr=settings.critic_lr)
        milestones = [2**i for i in range(20)]
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.main, milestones, gamma=0.75)
        self.epoch = 0
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._check_networks()

    @torch.no_grad()
    def _check_networks(self) -> None:
        """Let the objective check its variables on rows that differ in their labels.

        It would else check the first batch, where a rare attribute may have one value only.
        """
        rows = self.data.split["train"]
        labels = self.data.attributes[rows]
        rows = rows[[0, int((labels != labels[0]).any(1).argmax())]]
        x = torch.from_numpy(self.data.images[rows]).permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(self.data.attributes[rows].astype(np.int64))
        with torch.random.fork_rng(devices=self.forked):
            self.vae.eval()(x.to(self.device), **self._observed(y))

    def _groups(self) -> list[dict[str, Any]]:
        """All parameters but the critics'; the head of c at a rate of its own."""
        encoder = self.vae.encoder
        assert isinstance(encoder, Encoder)
        head = list(encoder.c_head.parameters())
        own = {id(p) for p in head}
        rest = [p for p in self.vae.main_parameters() if id(p) not in own]
        return [{"params": rest}, {"params": head, "lr": self.settings.c_lr}]

    def state(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "settings": self.identity,
            "epoch": self.epoch,
            "step": self.step,
            "history": self.history,
            "vae": self.vae.state_dict(),
            "main": self.main.state_dict(),
            "critics": self.critics.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        self.vae.load_state_dict(state["vae"])
        self.main.load_state_dict(state["main"])
        self.critics.load_state_dict(state["critics"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _observed(self, y: Tensor) -> dict[str, Tensor]:
        y = y.to(self.device)
        return {"y": one_hot(y), "joint": joint_label(y)}

    def train_step(self, x: Tensor, y: Tensor) -> vaereg.VAEOutput:
        """One step of encoder and decoder, then critic steps on the same codes."""
        out: vaereg.VAEOutput = self.vae(x.to(self.device), step=self.step, **self._observed(y))
        self.main.zero_grad(set_to_none=True)
        out.loss.backward()
        self.main.step()
        for _ in range(self.settings.critic_steps):
            self.vae.objective.critic_step(out.batch, self.critics, step=self.step)
        self.step += 1
        return out

    def train_epoch(self, advance: Callable[[], object]) -> dict[str, float]:
        """One pass over the training images; the means of what was displayed.

        Raises:
            FloatingPointError: If the loss is not finite; no checkpoint of it is kept.
        """
        self.vae.train()
        settings = self.settings
        sums: dict[str, float] = {}
        count = 0
        for x, y in batches(
            self.data,
            "train",
            settings.batch,
            seed=settings.seed,
            epoch=self.epoch,
            drop_last=True,
        ):
            out = self.train_step(x, y)
            report = replace(out.report, on_nonfinite=None)
            scalars = {"nll": float(out.nll.detach()), **report.scalars()}
            broken = [f"{n} = {v}" for n, v in scalars.items() if not math.isfinite(v)]
            if broken:
                raise FloatingPointError(
                    f"{settings.model}: expected finite values, got {', '.join(broken)} at step "
                    f"{self.step}; the last checkpoint is from before it; start again with a "
                    "lower --lr or smaller weights"
                )
            for name, value in scalars.items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            advance()
        self.schedule.step()
        self.epoch += 1
        return {name: value / count for name, value in sums.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Negative log-likelihood and KLs on the validation images, in nats an image."""
        self.vae.eval()
        sums = {"val_nll": 0.0, "val_kl_z": 0.0, "val_kl_c": 0.0}
        rows = 0
        kl = {name: vaereg.KL(name) for name in ("z", "c")}
        # The noise of validation must not shift the noise of training.
        with torch.random.fork_rng(devices=self.forked):
            for x, y in batches(self.data, "val", 500, shuffle=False):
                observed = self._observed(y)
                codes = self.vae.encode(x.to(self.device), **observed)
                x_hat = self.vae.decode(codes)
                nll = self.vae.likelihood(x_hat, x.to(self.device))
                sums["val_nll"] += float(nll) * len(x)
                sums["val_kl_z"] += float(kl["z"](codes)) * len(x)
                sums["val_kl_c"] += float(kl["c"](codes)) * len(x)
                rows += len(x)
        means = {name: value / rows for name, value in sums.items()}
        return means | {"val_loss": sum(means.values())}


def train(
    settings: Settings,
    data: AttributeImages,
    folder: Path,
    *,
    device: torch.device,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
) -> tuple[vaereg.VAE, list[dict[str, float]]]:
    """Train one model, with a checkpoint and a CSV row an epoch.

    Args:
        settings: What to train.
        data: What on.
        folder: Where ``checkpoint.pt`` and ``log.csv`` go.
        device: Where to compute.
        resume: Go on from the checkpoint in ``folder``, bit for bit.
        progress: Show a progress bar.
        tensorboard: Write TensorBoard events too.

    Returns:
        The trained model in evaluation mode and its history, one entry an epoch.

    Raises:
        ValueError: If there are fewer training images than a batch.
        CheckpointError: If a checkpoint cannot be read or written.
    """
    steps = len(data.split["train"]) // settings.batch
    if steps < 1:
        raise ValueError(
            f"batch: expected at most the {len(data.split['train'])} training images, got "
            f"{settings.batch}"
        )
    trainer = Trainer(settings, data, device)
    path = folder / "checkpoint.pt"
    if resume:
        state = load_checkpoint(path, trainer.state()["settings"])
        if state is not None:
            _restore(trainer, state, path)
    writer = tensorboard_writer(folder) if tensorboard else None
    with progress_bar(
        f"{settings.model} (seed {settings.seed})",
        total=steps * settings.epochs,
        initial=steps * trainer.epoch,
        show=progress,
    ) as bar:
        while trainer.epoch < settings.epochs:
            row = {"epoch": trainer.epoch + 1.0, **trainer.train_epoch(bar.update)}
            row |= trainer.validate()
            trainer.history.append(row)
            bar.set_postfix(loss=f"{row['val_loss']:.1f}", refresh=False)
            save_checkpoint(path, trainer.state())
            write_text(folder / "log.csv", as_csv(trainer.history))
            if writer is not None:
                for name, value in row.items():
                    writer.add_scalar(name, value, trainer.epoch)
                writer.flush()
    if writer is not None:
        writer.close()
    return trainer.vae.eval(), trainer.history


def _identity(data: AttributeImages) -> dict[str, Any]:
    """What must be the same when training goes on: source, attributes, a digest of the rest."""
    rows = data.split["train"]
    digest = hashlib.sha256(rows.astype(np.int64).tobytes() + data.attributes[rows].tobytes())
    for row in rows[:: max(1, len(rows) // 64)]:
        digest.update(data.images[row].tobytes())
    return {
        "images": data.source,
        "attributes": list(data.attribute_names),
        "training images": f"{len(rows)} of digest {digest.hexdigest()[:12]}",
    }


def _restore(trainer: Trainer, state: dict[str, Any], path: Path) -> None:
    try:
        trainer.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"cannot resume from {path}: expected the state of these networks and optimizers, "
            f"got another ({type(error).__name__})"
        ) from error
    if trainer.epoch > trainer.settings.epochs:
        raise CheckpointError(
            f"cannot resume from {path}: expected --epochs of at least the {trainer.epoch} "
            f"epochs that are done, got {trainer.settings.epochs}"
        )


@torch.no_grad()
def encode_all(
    vae: vaereg.VAE, data: AttributeImages, split: str, *, seed: int = 0
) -> dict[str, Tensor]:
    """Sampled codes of all images of a part, for the measurements after training.

    Returns:
        ``z`` (N, Z) and ``c`` (N, 2 k), one posterior draw an image, and ``y`` (N, k) integer.
    """
    device = next(vae.parameters()).device
    parts: dict[str, list[Tensor]] = {"z": [], "c": [], "y": []}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for x, y in batches(data, split, 500, shuffle=False):
            codes = vae.encode(x.to(device), y=one_hot(y.to(device)))
            parts["z"].append(codes["z"].value.cpu())
            parts["c"].append(codes["c"].value.cpu())
            parts["y"].append(y)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}
