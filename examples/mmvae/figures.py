"""The figures of the study, as PNG files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vaereg
from vaereg import plots

from .attributes import AttributeImages
from .data import batches
from .evaluate import QUANTITIES, flip
from .models import PRIOR_MEAN, PRIOR_STD, attribute_prior, one_hot
from .train import encode_all

# {model: {quantity: (mean, std)}}
Measured = Mapping[str, Mapping[str, tuple[float, float]]]

GRID = (-0.5, 0.5, 1.5, 2.5, 3.5)
DISPLAYED = {"i_cy": "I(c;y)", "i_zy": "I(z;y)", "i_zc": "I(z;c)"}


def _save(figure: Any, folder: Path, *words: str) -> None:
    """Save as the words joined by ``_``; an attribute's name may hold what a file's cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "_".join(re.sub(r"[^\w.=-]+", "_", word) for word in words)
    figure.savefig(folder / f"{stem}.png", dpi=100)


def _images(tensor: Tensor) -> np.ndarray:
    return tensor.clamp(0.0, 1.0).movedim(-3, -1).cpu().numpy()


def _faces(data: AttributeImages, part: str, n: int) -> tuple[Tensor, Tensor]:
    x, y = next(iter(batches(data, part, min(max(n, 2), len(data.split[part])), shuffle=False)))
    return x[:n], y[:n]


def scatter(vae: vaereg.VAE, data: AttributeImages, part: str, name: str, folder: Path) -> None:
    """Samples of c for each attribute, coloured by its label, with the priors' ellipses."""
    codes = encode_all(vae, data, part)
    priors = {y: ([PRIOR_MEAN[y]] * 2, [PRIOR_STD[y]] * 2) for y in (0, 1)}
    for i, attribute in enumerate(data.attribute_names):
        figure = plots.code_scatter(
            codes["c"][:, 2 * i : 2 * i + 2],
            codes["y"][:, i],
            names=[f"no {attribute}", attribute],
            priors=priors,
            title=f"{name}: c of {attribute}",
        )
        _save(figure, folder, "scatter", name, attribute)


@torch.no_grad()
def grid(vae: vaereg.VAE, data: AttributeImages, part: str, name: str, folder: Path) -> None:
    """Decodings over a grid of the first attribute's two numbers, with z of one face."""
    x, y = _faces(data, part, 2)
    device = next(vae.parameters()).device
    codes = vae.encode(x.to(device), y=one_hot(y.to(device)))
    z = codes["z"].q.mean[:1].expand(len(GRID) ** 2, -1)
    c = codes["c"].q.mean[:1].repeat(len(GRID) ** 2, 1)
    values = torch.tensor(GRID, device=device)
    # Rows run down from the largest second number, columns from the smallest first.
    c[:, :2] = torch.cartesian_prod(values.flip(0), values).flip(1)
    images = _images(vae.decode({"z": z, "c": c})).reshape(len(GRID), len(GRID), 64, 64, 3)
    figure = plots.attribute_grid(
        images,
        rows=[f"{v:g}" for v in reversed(GRID)],
        columns=[f"{v:g}" for v in GRID],
        row_name="$c_2$",
        column_name="$c_1$",
        title=f"{name}: {data.attribute_names[0]}, z fixed",
    )
    _save(figure, folder, "grid", name)


@torch.no_grad()
def pairs(vae: vaereg.VAE, data: AttributeImages, part: str, name: str, folder: Path) -> None:
    """One face a row, its z with c drawn from p(c | y) for every combination of attributes."""
    k = data.attributes.shape[1]
    if k != 2:
        return
    x, y = _faces(data, part, 5)
    device = next(vae.parameters()).device
    z = vae.encode(x.to(device), y=one_hot(y.to(device)))["z"].q.mean
    combinations = [(0, 0), (0, 1), (1, 0), (1, 1)]
    columns = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for combination in combinations:
            label = torch.tensor(combination, device=device).expand(len(x), -1)
            c = attribute_prior(one_hot(label)).sample()
            columns.append(vae.decode({"z": z, "c": c}))
    real = x.to(device)
    figure = plots.attribute_grid(
        _images(torch.stack([real, *columns], 1)),
        rows=["" for _ in x],
        columns=["image", *("".join(map(str, c)) for c in combinations)],
        column_name=f"y = ({', '.join(data.attribute_names)})",
        title=f"{name}: c drawn from p(c | y)",
    )
    _save(figure, folder, "pairs", name)


@torch.no_grad()
def swap(vae: vaereg.VAE, data: AttributeImages, part: str, name: str, folder: Path) -> None:
    """Images, reconstructions, and the swap of the first attribute."""
    x, y = _faces(data, part, 8)
    device = next(vae.parameters()).device
    codes = vae.encode(x.to(device), y=one_hot(y.to(device)))
    again = vae.decode({n: c.q.mean for n, c in codes.items()})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        swapped, _ = flip(vae, x, y, 0, torch.Generator().manual_seed(0))
    stack = torch.stack([x.to(device), again, swapped])
    figure = plots.attribute_grid(
        _images(stack),
        rows=["image", "reconstruction", "c of the\nother label"],
        columns=["with" if v else "without" for v in y[:, 0].tolist()],
        title=f"{name}: swap of {data.attribute_names[0]}",
    )
    _save(figure, folder, "swap", name)


def trends(
    history: list[dict[str, float]],
    measured: Mapping[str, Any],
    ceiling: float,
    name: str,
    folder: Path,
) -> None:
    """Validation loss and KLs; displayed mutual informations, with the fresh critics'."""
    losses = {
        label: [row[key] for row in history]
        for key, label in (
            ("val_loss", "loss - first epoch's"),
            ("val_kl_z", "KL of z"),
            ("val_kl_c", "KL of c"),
        )
    }
    first = losses["loss - first epoch's"][0]
    losses["loss - first epoch's"] = [v - first for v in losses["loss - first epoch's"]]
    figure = plots.mi_trend(
        losses, unit="nats an image", quantity="validation", title=f"{name}: validation"
    )
    _whole_epochs(figure)
    _save(figure, folder, "loss", name)
    shown = {
        label: [row[key] / math.log(2.0) for row in history]
        for key, label in DISPLAYED.items()
        if key in history[-1]
    }
    if shown:
        points = {
            label: {float(len(history)): (measured[label].mean, measured[label].std)}
            for label in shown
        }
        figure = plots.mi_trend(
            shown,
            measured=points,
            ceilings={"H(y)": ceiling},
            title=f"{name}: displayed in training",
        )
        _whole_epochs(figure)
        for text in figure.axes[0].texts:
            # At the right the measured I(c;y) stands where the name of the ceiling is.
            text.xy, text.xyann = (0.0, ceiling), (2, 2)
            text.set_horizontalalignment("left")
        _save(figure, folder, "trend", name)


def _whole_epochs(figure: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def comparison(table: Measured, ceiling: float, folder: Path) -> None:
    """Bars of the three mutual informations for each model."""
    figure = plots.mi_bars(table, ceilings={"H(y)": ceiling}, title="fresh critics, held out")
    _save(figure, folder, "comparison")


def sweep(table: Measured, values: Sequence[float], weight: str, folder: Path) -> None:
    """The three mutual informations against one weight, for the rows of the table in order."""
    lines = {
        q: {x: row[q] for x, row in zip(values, table.values(), strict=True)} for q in QUANTITIES
    }
    figure = plots.mi_sweep(lines, weight=weight, title="MMVAE, fresh critics, held out")
    _save(figure, folder, "sweep", weight)
