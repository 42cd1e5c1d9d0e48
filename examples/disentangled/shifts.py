"""What becomes of codes under noise, inverted colours and a shape that was never seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.metrics.disentanglement import FactorTable, factor_vae_score, mig

from .data import Pictures
from .models import Stack
from .render import NAMES, SIDE, SIZES, render, unpack
from .trainer import LIKELIHOODS

__all__ = ["FLIPS", "Model", "as_bytes", "repeated", "shifts"]

FLIPS = (0.001, 0.01, 0.05)


class Model:
    """One model of a stack with its decoder."""

    def __init__(
        self, encoder: Stack, decoder: Stack, i: int, likelihood: str, device: torch.device
    ) -> None:
        self.encoder, self.decoder = Stack.of(encoder, i), Stack.of(decoder, i)
        self.nll, self.device = LIKELIHOODS[likelihood], device
        self.mean = torch.sigmoid if likelihood == "bernoulli" else torch.Tensor.clone

    @torch.no_grad()
    def read(self, x: Tensor) -> tuple[Tensor, Tensor, float]:
        """Means, log-variances, and the negative log-likelihood at samples of the codes."""
        noise = torch.Generator().manual_seed(0)
        means, logvars, total = [], [], 0.0
        for part in x.split(250):
            part = part.to(self.device)
            mean, logvar = self.encoder(part[None])[0].chunk(2, 1)
            e = torch.randn(mean.shape, generator=noise).to(self.device)
            output = self.decoder((mean + (0.5 * logvar).exp() * e)[None])[0]
            total += float(self.nll(output, part)) * len(part)
            means.append(mean.cpu())
            logvars.append(logvar.cpu())
        return torch.cat(means), torch.cat(logvars), total / len(x)

    @torch.no_grad()
    def decode(self, z: Tensor) -> NDArray[np.uint8]:
        """Pictures ``(n, 64, 64)`` or ``(n, 64, 64, 3)`` from 0 to 255."""
        x = self.mean(self.decoder(z.to(self.device)[None])[0])
        return as_bytes(x)


def as_bytes(x: Tensor) -> NDArray[np.uint8]:
    """Pictures ``(n, 64, 64[, 3])`` from 0 to 255."""
    images = (255.0 * x.clamp(0.0, 1.0)).round().byte().cpu().numpy()
    return images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)


def shifts(
    model: Model, data: Pictures, *, pictures: int, points: int
) -> dict[str, dict[str, float | None]]:
    """Noise, inverted colours and a shape that was never seen.

    Of each: the negative log-likelihood; the correlation of each code with that of the clean
    picture, mean over codes weighted by the clean codes' variances; MIG and the FactorVAE score of
    the shifted codes. The unseen shape has no clean picture and no factor of shape: its scores
    are of the other factors, and ``clean_position`` has the same of the clean pictures.

    Args:
        model: The model.
        data: Its pictures.
        pictures: Number of pictures of each test.
        points: Votes to fit the FactorVAE score on; half as many to score on.
    """
    rng = np.random.default_rng(1)
    rows = np.sort(rng.permutation(len(data))[:pictures])
    x, y = data.batch(rows), data.factors[rows]
    clean, _, nll = model.read(x)
    found: dict[str, dict[str, float | None]] = {}
    found["clean"] = {"nll": nll, "correlation": 1.0, **_brief(clean, y, points)}
    for p in FLIPS:
        mask = torch.from_numpy(rng.random(x.shape, np.float32) < p)
        found[f"flips {p:g}"] = _shifted(model, torch.where(mask, 1.0 - x, x), clean, y, points)
    found["inverted"] = _shifted(model, 1.0 - x, clean, y, points)
    if data.names == NAMES and data.sizes == SIZES:
        found["clean_position"] = {"nll": nll, **_brief(clean, y[:, 2:], points)}
        x, y = _triangles(len(rows), rng)
        mean, _, nll = model.read(x)
        found["unseen shape"] = {"nll": nll, **_brief(mean, y, points)}
    return found


def _triangles(n: int, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.int64]]:
    y = rng.integers(SIZES[2:], size=(n, 4))
    images = [
        unpack(render("triangle", int(s), int(o), v[None], w[None]))[0, 0] for s, o, v, w in y
    ]
    return torch.from_numpy(np.stack(images)).view(n, 1, SIDE, SIDE).float(), y


def _shifted(
    model: Model, x: Tensor, clean: Tensor, y: NDArray[np.integer], points: int
) -> dict[str, float | None]:
    mean, _, nll = model.read(x)
    a, b = (z.double() - z.double().mean(0) for z in (clean, mean))
    size = a.square().sum(0).sqrt() * b.square().sum(0).sqrt()
    each = torch.where(size > 0, (a * b).sum(0) / size.clamp(min=1e-300), 0.0)
    weight = a.square().sum(0)
    correlation = float((each * weight).sum() / weight.sum().clamp(min=1e-300))
    return {"nll": nll, "correlation": correlation, **_brief(mean, y, points)}


def _brief(mean: Tensor, y: NDArray[np.integer], points: int) -> dict[str, float | None]:
    y = y[:, y.min(0) != y.max(0)]
    rows = repeated(y)
    score = None
    if len(rows):
        table = FactorTable.of(mean.numpy()[rows], y[rows])
        score = float(factor_vae_score(table, train=points, test=points // 2))
    return {"mig": float(mig(mean.numpy(), y)), "factor_vae": score}


def repeated(y: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rows each of whose values another row shares: a vote wants two with one value."""
    rows = np.arange(len(y))
    while True:
        once = np.zeros(len(rows), bool)
        for column in y[rows].T:
            _, place, count = np.unique(column, return_inverse=True, return_counts=True)
            once |= count[place] == 1
        if not once.any():
            return rows
        rows = rows[~once]
