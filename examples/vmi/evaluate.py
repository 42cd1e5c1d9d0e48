"""Measurements after training. Labels enter :func:`accuracies` and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import vaereg

from .data import Pictures
from .settings import Settings
from .views import Views

__all__ = ["CRITERION", "Measured", "accuracies", "assigned", "consensus", "measure"]

CRITERION = "bound"
"""Of several seeds the run with the largest bound on I(c; view of x) is picked: no label read."""

UNSUPERVISED = 10_000  # training images at most on which the criterion is read
STYLES = 8
BINS = 20
RANGE = tuple(float(v) for v in np.linspace(-3.0, 3.0, 9))


@dataclass(frozen=True)
class Measured:
    """What is known of one run.

    Attributes:
        values: Numbers in nats or shares, and lists of them: what goes to the results file.
        pictures: Arrays for the figures, uint8.
    """

    values: dict[str, Any]
    pictures: dict[str, NDArray[np.uint8]]


def accuracies(code: NDArray[np.integer], label: NDArray[np.integer]) -> dict[str, Any]:
    """Accuracy of a code as a classifier, under two maps from codes to classes.

    ``one_to_one``: the best assignment of different classes to different codes (Hungarian
    algorithm). ``majority``: each code to its most frequent class, several codes to one class if
    need be; never below the other. Both maps are fitted on the very images that are scored.

    Args:
        code: The code of each image, ``(N,)``.
        label: The class of each image, ``(N,)``.

    Returns:
        Both, with ``counts``, images of each class (column) for each code (row).
    """
    counts = np.zeros((int(code.max()) + 1, int(label.max()) + 1), np.int64)
    np.add.at(counts, (code, label), 1)
    right = sum(int(counts[k, j]) for k, j in assigned(counts).items())
    return {
        "one_to_one": right / len(code),
        "majority": float(counts.max(1).sum() / len(code)),
        "counts": counts.tolist(),
    }


def assigned(counts: NDArray[np.integer]) -> dict[int, int]:
    """The class of each code by the one-to-one map, from images of each class for each code.

    A code that is left over, or would get a class of which it has no image, is not in it.
    """
    from scipy.optimize import linear_sum_assignment

    pairs = zip(*linear_sum_assignment(counts, maximize=True), strict=True)
    return {int(k): int(j) for k, j in pairs if counts[k, j]}


def consensus(codes: list[NDArray[np.integer]]) -> list[float]:
    """For each run the mean agreement with the other runs' codes, by the best assignment."""
    pairs = np.ones((len(codes), len(codes)))
    for i, a in enumerate(codes):
        for j in range(i):
            pairs[i, j] = pairs[j, i] = accuracies(a, codes[j])["one_to_one"]
    return [float((row.sum() - 1.0) / max(len(codes) - 1, 1)) for row in pairs]


def _entropy(share: Tensor) -> float:
    return float(-torch.xlogy(share, share).sum())


def _elbo(vae: vaereg.VAE, data: Pictures, part: str) -> dict[str, float]:
    """The parts of the ELBO in nats an image, with one draw of the codes; c is drawn one-hot."""
    sums: dict[str, float] = {}
    device = next(vae.parameters()).device
    for x in data.chunks(part):
        x = x.to(device)
        codes = vae.encode(x, step=0)
        values = {"z": codes["z"].value}
        terms = {"kl_z": vaereg.KL("z")(codes)}
        if "c" in codes:
            assert codes["c"].q is not None
            values["c"] = codes["c"].q.sample()
            terms["kl_c"] = vaereg.KL("c")(codes)
        joint = torch.cat(list(values.values()), 1)
        terms["nll"] = vaereg.functional.bernoulli_nll(vae.decoder(joint), x)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(x)
    means = {name: value / len(data.images[part]) for name, value in sums.items()}
    return means | {"elbo": -sum(means.values())}


def _codes(vae: vaereg.VAE, data: Pictures, part: str, views: Views) -> tuple[Tensor, Tensor]:
    """q(c | x) and log q(c | one view of x) of every image, ``(N, K)`` each."""
    device = next(vae.parameters()).device
    head, here, there = vae.encoder.get_submodule("c_net"), [], []
    for x in data.chunks(part):
        here.append(head(x.to(device)).softmax(1).cpu())
        there.append(head(views(x).to(device)).log_softmax(1).cpu())
    return torch.cat(here), torch.cat(there)


def _criteria(here: Tensor, there: Tensor) -> dict[str, float]:
    """Unsupervised readings of the code.

    ``bound`` on I(c; view) <= ``information`` I(c; x), exact for these images <= ``entropy`` of c;
    and ``agreement``, how often an image and its view have one code.
    """
    entropy = _entropy(here.mean(0))
    return {
        "information": entropy + float(torch.xlogy(here, here).sum(1).mean()),
        "bound": entropy + float((here * there).sum(1).mean()),
        "entropy": entropy,
        "agreement": float((here.argmax(1) == there.argmax(1)).double().mean()),
    }


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    return (255.0 * images.clamp(0.0, 1.0)).round().byte().cpu().numpy()


def _joint(vae: vaereg.VAE, data: Pictures, settings: Settings) -> Measured:
    device = next(vae.parameters()).device
    k, z, views = settings.k, settings.z, Views.of(settings)
    train, view = _codes(vae, data, "train", views)
    rows = torch.randperm(len(train))[:UNSUPERVISED]
    values: dict[str, Any] = {"unsupervised": _criteria(train[rows], view[rows])}
    test, view = _codes(vae, data, "test", views)
    values["held_out"] = _elbo(vae, data, "test") | _criteria(test, view)
    label = torch.arange(200 * k) % k
    drawn = vae.decode({
        "z": torch.randn(len(label), z, device=device),
        "c": F.one_hot(label, k).float().to(device),
    })  # fmt: skip
    read = vae.encoder.get_submodule("c_net")(drawn).argmax(1).cpu()
    values["unsupervised"]["read_back"] = float((read == label).double().mean())
    values["probabilities"] = {
        "of_all": torch.histc(test, BINS, 0.0, 1.0).long().tolist(),
        "of_the_largest": torch.histc(test.amax(1), BINS, 0.0, 1.0).long().tolist(),
        "mean": test.mean(0).tolist(),
    }
    styles = torch.randn(STYLES, z, device=device)
    grid = vae.decode({
        "z": styles.repeat(k, 1),
        "c": torch.eye(k, device=device).repeat_interleave(STYLES, 0),
    })  # fmt: skip
    side = data.size
    pictures = {
        "grid": _bytes(grid).reshape(k, STYLES, side, side),
        "code": train[:UNSUPERVISED].argmax(1).byte().numpy(),
    }
    values["accuracy"] = accuracies(test.argmax(1).numpy(), data.labels["test"])
    return Measured(values, pictures)


def _gaussian(vae: vaereg.VAE, data: Pictures) -> Measured:
    device = next(vae.parameters()).device
    x = torch.cat(list(data.chunks("test")))[:1000].to(device)
    codes = vae.encode(x)
    batch = {"x": x, **codes, "x_hat": vae.decode(codes)}
    parts = vaereg.KL("z").per_dimension(codes)
    values: dict[str, Any] = {
        "held_out": _elbo(vae, data, "test") | {"bound": float(vae.objective["mi"](batch))},
        "kl_per_dimension": parts.tolist(),
    }
    # The other numbers of z are those of one picture: at 0 the decodings are blurred.
    assert codes["z"].q is not None
    z = codes["z"].q.mean[:1].repeat(len(RANGE) ** 2, 1)
    steps = torch.tensor(RANGE, device=device)
    # Rows run down from the largest z_2, columns from the smallest z_1.
    z[:, :2] = torch.cartesian_prod(steps.flip(0), steps).flip(1)
    side = data.size
    grid = _bytes(vae.decode(z)).reshape(len(RANGE), len(RANGE), side, side)
    return Measured(values, {"traversal": grid})


@torch.no_grad()
def measure(vae: vaereg.VAE, data: Pictures, settings: Settings) -> Measured:
    """All measurements of one trained model; noise and views come from the settings' seed."""
    device = next(vae.parameters()).device
    vae.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed)
        return _joint(vae, data, settings) if settings.model == "joint" else _gaussian(vae, data)
