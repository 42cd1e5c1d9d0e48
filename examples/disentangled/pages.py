"""A page about a trained model, by ``vaereg.metrics.report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

import vaereg
from vaereg.functional import gaussian_nll
from vaereg.metrics import report

from .shifts import Model
from .trainer import Trainer

__all__ = ["ROWS", "write_page"]

ROWS = 10_000


class _Trained:
    """A model of a stack as a page wants it: codes by name, and means of what is decoded."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def encode(self, x: Tensor) -> dict[str, vaereg.Code]:
        parameters = self.model.encoder(x.to(self.model.device)[None])[0]
        return {"z": vaereg.gaussian(parameters)}

    def decode(self, values: dict[str, Tensor]) -> Tensor:
        z = values["z"].to(self.model.device)
        return self.model.mean(self.model.decoder(z[None])[0])


def _bernoulli(mean: Tensor, x: Tensor) -> Tensor:
    return F.binary_cross_entropy(mean, x.to(mean), reduction="none").flatten(1).sum(1)


def write_page(trainer: Trainer, i: int, path: Path, *, progress: bool) -> None:
    """The page of model i on random pictures, always the same ones."""
    run, data = trainer.runs[i], trainer.data
    rows = np.sort(np.random.default_rng(3).permutation(len(data))[:ROWS])
    model = Model(trainer.encoder, trainer.decoder, i, run.likelihood, trainer.device)
    page = report(
        _Trained(model),
        data.batch(rows),
        factors=data.factors[rows],
        factor_names=data.names,
        title=run.name,
        nll=_bernoulli if run.likelihood == "bernoulli" else gaussian_nll,
        details={"data": data.source, "steps": run.steps, "likelihood": run.likelihood},
        progress=progress,
    )
    page.save(path)


def page_name(objective: str, seed: int) -> str:
    """The file's name of a run's page."""
    kept: Any = "".join(c if c.isalnum() or c in "-.=" else "_" for c in objective)
    return f"{kept}_seed{seed}.html"
