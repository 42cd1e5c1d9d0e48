"""Measurements after training: mutual information by fresh critics, and the swap test."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vaereg
from vaereg.metrics import MIEstimate, SwapAccuracy, estimate_mi, swap_accuracy

from .attributes import AttributeImages
from .data import batches
from .models import attribute_prior, one_hot
from .train import encode_all

__all__ = ["QUANTITIES", "entropy_bits", "flip", "measure_mi", "measure_swap", "train_classifier"]

QUANTITIES = ("I(c;y)", "I(z;y)", "I(z;c)")


def entropy_bits(y: Tensor) -> float:
    """Entropy of the joint label of attributes ``(N, k)``, by its frequencies, in bits."""
    _, counts = y.unique(dim=0, return_counts=True)
    share = counts.double() / counts.sum()
    return float(-(share * share.log2()).sum())


def measure_mi(
    vae: vaereg.VAE, data: AttributeImages, part: str, *, runs: int, seed: int, progress: bool
) -> dict[str, MIEstimate]:
    """The three mutual informations of stored codes, by fresh critics on held-out rows, in bits.

    Those with the label use the classifier form, which is the sharper one for a discrete variable;
    that of z and c uses MINE. One posterior draw an image.
    """
    codes = encode_all(vae, data, part, seed=seed)
    joint = (codes["y"] * 2 ** torch.arange(codes["y"].shape[1])).sum(1)
    _, labels = joint.unique(return_inverse=True)
    common: dict[str, Any] = {"runs": runs, "seed": seed, "progress": progress}
    return {
        "I(c;y)": estimate_mi(codes["c"], labels, method="classifier", **common).in_bits(),
        "I(z;y)": estimate_mi(codes["z"], labels, method="classifier", **common).in_bits(),
        "I(z;c)": estimate_mi(codes["z"], codes["c"], method="mine", **common).in_bits(),
    }


def _classifier(attributes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = (3, 16, 32, 64, 64)
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, attributes))


def train_classifier(
    data: AttributeImages, *, epochs: int, seed: int, device: torch.device, progress: bool
) -> tuple[nn.Module, list[float]]:
    """A convolutional classifier of the attributes, trained on real images only.

    Returns:
        The classifier, ``(B, 3, 64, 64)`` to ``(B, k)`` logits, of the epoch with the lowest
        validation loss; and its accuracy on the test images for each attribute.
    """
    from tqdm.auto import tqdm

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        net = _classifier(data.attributes.shape[1]).to(device)
        size = min(64, len(data.split["train"]))
        steps = epochs * (len(data.split["train"]) // size)
        optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        best, kept = math.inf, net.state_dict()
        for epoch in tqdm(range(epochs), "classifier of real images", disable=not progress):
            net.train()
            for x, y in batches(data, "train", size, seed=seed, epoch=epoch, drop_last=True):
                logits = net(x.to(device))
                loss = F.binary_cross_entropy_with_logits(logits, y.to(logits))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            loss, _ = _score(net, data, "val", device)
            if loss < best:
                best, kept = loss, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)
    return net.eval(), _score(net, data, "test", device)[1]


@torch.no_grad()
def _score(
    net: nn.Module, data: AttributeImages, part: str, device: torch.device
) -> tuple[float, list[float]]:
    net.eval()
    logits, labels = [], []
    for x, y in batches(data, part, 500, shuffle=False):
        logits.append(net(x.to(device)).cpu())
        labels.append(y)
    scores, truth = torch.cat(logits), torch.cat(labels)
    loss = float(F.binary_cross_entropy_with_logits(scores, truth.float()))
    return loss, ((scores > 0) == truth.bool()).double().mean(0).tolist()


@torch.no_grad()
def flip(
    vae: vaereg.VAE, x: Tensor, y: Tensor, attribute: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Decode ``x`` with one attribute's numbers of c drawn from the opposite label's prior.

    Returns:
        The swapped images, and the attributes ``(B, k)`` that they should show.
    """
    device = next(vae.parameters()).device
    x, y = x.to(device), y.to(device)
    codes = vae.encode(x, y=one_hot(y))
    target = y.clone()
    target[:, attribute] = 1 - target[:, attribute]
    prior = attribute_prior(one_hot(target)).base_dist
    noise = torch.randn(prior.loc.shape, generator=generator).to(device)
    c = codes["c"].value.clone()
    own = slice(2 * attribute, 2 * attribute + 2)
    c[:, own] = (prior.loc + prior.scale * noise)[:, own]
    return vae.decode({"z": codes["z"].value, "c": c}), target


def measure_swap(
    vae: vaereg.VAE, classifier: nn.Module, data: AttributeImages, part: str, *, seed: int
) -> dict[str, SwapAccuracy]:
    """The swap test for each attribute: how often the opposite label's draw shows.

    Encode an image, replace the attribute's numbers of c by a draw from p(c | opposite y), decode,
    and ask a classifier that has seen real images only.
    """
    results: dict[str, SwapAccuracy] = {}
    state = torch.get_rng_state()
    torch.manual_seed(seed)  # z is drawn by torch's own generator
    for i, name in enumerate(data.attribute_names):

        def swapped(
            x: Tensor, y: Tensor, generator: torch.Generator | None, i: int = i
        ) -> tuple[Tensor, Tensor]:
            images, target = flip(vae, x, y, i, generator)
            return images.clamp(0.0, 1.0), target[:, i]

        results[name] = swap_accuracy(
            swapped,
            lambda images, i=i: classifier(images)[:, i],
            batches(data, part, 500, shuffle=False),
            generator=torch.Generator().manual_seed(seed),
        )
    torch.set_rng_state(state)
    return results
