"""The numbers of a page against float64: likelihoods, KLs, their parts."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from report_models import Model, certain, fixed_vae, normal, page_of, spread_out
from report_reader import tiles
from torch.distributions import Categorical, Normal, OneHotCategorical

import vaereg


def affine(layer, x):
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return x @ weight.T + bias


def losses(likelihood, output, x):
    if likelihood == "gaussian":
        return (0.5 * math.log(2 * math.pi) + 0.5 * (x - output) ** 2).sum(1)
    p = 1 / (1 + np.exp(-output))
    return -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(1)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_nll_of_fixed_weights_and_of_the_mean(likelihood, batch_size):
    vae, x = fixed_vae(likelihood), torch.rand(100, 5)
    page = page_of(vae, x, batch_size=batch_size)
    rows = x.double().numpy()
    output = affine(vae.decoder, affine(vae.encoder.net, rows))
    expected = losses(likelihood, output, rows).mean()
    assert page.numbers["nll"] == pytest.approx(expected, rel=1e-5)
    mean = (rows.sum(0) - rows) / 99  # of the other rows: of all it is fitted to each of them
    constant = mean if likelihood == "gaussian" else np.log(mean / (1 - mean))
    blank = losses(likelihood, constant, rows).mean()
    assert page.numbers["nll_of_the_mean"] == pytest.approx(blank, rel=1e-5)
    assert tiles(page)["negative log-likelihood, nats"] == f"{expected:.1f}"


@pytest.mark.parametrize("scalar", [True, False])
def test_nll_of_another_model(scalar):
    x = normal(50, 3)

    def nll(decoded, x):
        rows = (decoded - x).abs().sum(1)
        return rows.mean() if scalar else rows

    model = Model(lambda x: {"z": certain(2.0 * x)}, lambda values: values["z"] + 1.0)
    page = page_of(model, x, nll=nll, batch_size=16)  # batches of unequal sizes
    expected = np.abs(x.double().numpy() + 1.0).sum(1).mean()
    assert page.numbers["nll"] == pytest.approx(expected, rel=1e-5)
    assert page.numbers["nll_of_the_mean"] is None
    assert page_of(model, x, nll=lambda decoded, x: 2.5).numbers["nll"] == 2.5


def test_kl_of_gaussian_coordinates():
    x = normal(80, 3)
    std = torch.tensor([0.5, 1.0, 2.0]).expand(80, 3)
    page = page_of(Model(lambda x: {"z": vaereg.gaussian(x, std=std[: len(x)])}), x, batch_size=80)
    m, s = x.double().numpy(), std.double().numpy()
    expected = (0.5 * (m**2 + s**2 - 1) - np.log(s)).mean(0)
    assert page.numbers["codes"]["z"]["kl"] == pytest.approx(list(expected), rel=1e-5)
    assert tiles(page)["KL of z, nats"] == f"{expected.sum():.2f}"


def test_kl_from_a_conditional_gaussian_prior():
    x = normal(60, 2)

    def encode(x, y):
        loc, scale = torch.stack((y, -y), 1), torch.full((len(x), 2), 2.0)
        return {"z": vaereg.gaussian(x, std=0.5 + 0.0 * x, prior=Normal(loc, scale))}

    y = torch.arange(60) % 2 * 1.0
    page = page_of(Model(encode), x, y=y, batch_size=8)
    loc = np.stack((y.numpy(), -y.numpy()), 1).astype(float)
    m = x.double().numpy()
    expected = (math.log(4.0) + (0.25 + (m - loc) ** 2) / 8.0 - 0.5).mean(0)
    assert page.numbers["codes"]["z"]["kl"] == pytest.approx(list(expected), rel=1e-5)
    assert ("parts of the KL of z", "its prior is not N(0, 1)") in page.skipped


@pytest.mark.parametrize("groups", [None, 1, 3])
@pytest.mark.parametrize("prior", ["uniform", "fixed", "conditional"])
def test_kl_of_categorical_variables(groups, prior):
    n, k = 40, 4
    shape = (n, k) if groups is None else (n, groups, k)
    logits, other = torch.randn(shape), torch.randn(shape)
    p = {"uniform": None, "fixed": other[0].softmax(-1), "conditional": other.softmax(-1)}[prior]

    def encode(x, index):
        own = p[index] if prior == "conditional" else p
        return {"c": vaereg.categorical(logits[index], 0.5, prior=own)}

    found = page_of(Model(encode), normal(n), index=torch.arange(n), batch_size=16)
    pi = np.exp(logits.double().numpy())
    pi = pi / pi.sum(-1, keepdims=True)
    base = np.full(shape, 1 / k) if p is None else np.broadcast_to(p.double().numpy(), shape)
    expected = (pi * np.log(pi / base)).sum(-1).reshape(n, -1).mean(0)
    assert found.numbers["codes"]["c"]["kl"] == pytest.approx(list(expected), rel=1e-5)
    share = pi.mean(0).reshape(-1, k)
    section = found.html.split("Share of each class")[1:]
    assert len(section) == (groups or 1)
    for own, text in zip(share, section, strict=True):
        shown = re.findall(r'<span class="value">(.*?)</span>', text)[:k]
        assert [float(v) for v in shown] == pytest.approx(list(own), abs=6e-4)


def test_posteriors_of_torch_itself():
    """One-hot and plain categorical posteriors are read alike."""
    x = normal(30, 3)

    def encode(x):
        value = x.softmax(-1)
        uniform = torch.full_like(x, 1 / 3)
        return {
            "a": vaereg.Code(value, OneHotCategorical(logits=x), OneHotCategorical(uniform)),
            "b": vaereg.Code(value, Categorical(logits=x), Categorical(uniform)),
        }

    numbers = page_of(Model(encode), x).numbers["codes"]
    assert numbers["a"]["kl"] == pytest.approx(numbers["b"]["kl"])


def test_active_units_and_their_threshold():
    x = normal(500, 4)
    scale = torch.tensor([1.0, 0.5, 0.1, 0.0])
    model = Model(lambda x: {"z": vaereg.gaussian(scale * x, std=torch.ones_like(x))})
    kl = 0.5 * ((scale * x) ** 2).double().mean(0)
    for least in (1e-3, 0.01, 0.2):
        page = page_of(model, x, active=least)
        expected = int((kl >= least).sum())
        assert tiles(page)["active coordinates of z"] == f"{expected} of 4"
        off = re.findall(r'class="bar off"><span class="name">(.*?)<', page.html)
        assert len(off) == 4 - expected
    names = re.findall(r'class="bar(?: off)?"><span class="name">(.*?)<', page.html)
    assert names == ["z[0]", "z[1]", "z[2]", "z[3]"]


def test_parts_are_the_decomposition_of_the_same_posteriors():
    x = normal(300, 2)
    page = page_of(Model(lambda x: {"z": spread_out(x)}), x, samples=300)
    parts = page.numbers["codes"]["z"]["parts"]
    truth = 2.0 * math.log(1.0 / 0.6)  # ½ log(1 / 0.36) of each of two coordinates
    assert parts["mi"] == pytest.approx(truth, abs=0.1)
    assert parts["kl"] == pytest.approx(sum(page.numbers["codes"]["z"]["kl"]), rel=1e-5)
    assert tiles(page)["I(x; z), nats"] == f"{parts['mi']:.2f}"


def test_deterministic_numbers_do_not_depend_on_the_batch_size():
    vae, x = fixed_vae("gaussian"), torch.rand(90, 5)
    pages = [page_of(vae, x, batch_size=size).numbers for size in (1, 13, 90)]
    for other in pages[1:]:
        assert other["nll"] == pytest.approx(pages[0]["nll"], rel=1e-6)
        own, first = other["codes"]["z"], pages[0]["codes"]["z"]
        assert own["kl"] == pytest.approx(first["kl"], rel=1e-6)
        assert own["parts"]["mi"] == pytest.approx(first["parts"]["mi"], rel=1e-6)
