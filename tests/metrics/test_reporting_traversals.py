"""What reaches the decoder: reconstructions, samples, and walks along each code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from report_models import QUICK, Model, normal, page_of, spread_out
from report_reader import Reader, curves, walked
from torch import nn
from torch.distributions import Independent, Normal

import vaereg
from vaereg.metrics import report


def test_traversals_of_a_decoder_that_prints_its_code():
    x = normal(50, 3)
    std = torch.tensor([0.9, 0.1, 0.5])  # the smaller, the larger the KL
    found = []
    model = Model(
        lambda x: {"z": vaereg.gaussian(0.5 * x, std=std.expand_as(x))},
        lambda values: found.append(values["z"].clone()) or values["z"],
    )
    page = report(model, x, traversals=2, **QUICK)
    base = found[0][0]  # the first row's mean, as reconstructed
    moved = found[2:]
    assert len(moved) == 2
    for values, d in zip(moved, (1, 2), strict=True):
        assert torch.allclose(values[:, d], torch.linspace(-3.0, 3.0, 9), atol=1e-6)
        others = [k for k in range(3) if k != d]
        assert torch.equal(values[:, others], base[others].expand(9, 2))
    kl = page.numbers["codes"]["z"]["kl"]
    assert walked(page) == [("z[1]", f"{kl[1]:.2f}"), ("z[2]", f"{kl[2]:.2f}")]
    assert "1 more of smaller KL are left out" in page.html
    assert "z[1] from -3 to +3" in page.html
    whole = report(model, x, **QUICK)
    assert [label for label, _ in walked(whole)] == ["z[1]", "z[2]", "z[0]"]
    assert "left out" not in whole.html
    assert 'id="traversals"' not in page_of(model, x).html


def test_traversals_as_they_are_drawn():
    """Rows in [-3, 3] times a tenth: the height of a curve is the value of its coordinate."""
    x = normal(60, 2).clamp(-1.0, 1.0)
    model = Model(lambda x: {"z": spread_out(x)}, lambda values: values["z"] / 3.0)
    page = report(model, x, **QUICK)
    first, second = (curves(page, f"z[{d}] from -3 to +3")["own"] for d in (0, 1))
    for drawn, d in ((first, 0), (second, 1)):
        assert len(drawn) == 9
        heights = np.stack(drawn)  # (9, 2)
        assert heights[:, d] == pytest.approx(np.linspace(0.0, 1.0, 9), abs=2e-3)
        assert np.ptp(heights[:, 1 - d]) == 0.0


@pytest.mark.parametrize("groups", [None, 2])
def test_classes_are_walked_through_once_each(groups):
    n, k = 30, 4
    shape = (n, k) if groups is None else (n, groups, k)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    seen = []

    def decode(values, i):
        seen.append(values["c"].clone())
        return torch.zeros(len(values["c"]), 3)

    model = Model(lambda x, i: {"c": vaereg.categorical(logits[i], 0.5)}, decode)
    page = report(model, normal(n), i=torch.arange(n), **QUICK)
    base, moved = seen[0][0], seen[2:]
    assert len(moved) == (groups or 1)
    kl = page.numbers["codes"]["c"]["kl"]
    order = np.argsort([-v for v in kl])
    labels = ["c"] if groups is None else [f"c[{g}]" for g in order]
    assert [label for label, _ in walked(page)] == labels
    for values, g in zip(moved, order, strict=True):
        own = values if groups is None else values[:, g]
        assert torch.equal(own, torch.eye(k))
        if groups:
            assert torch.equal(values[:, 1 - g], base[1 - g].expand(k, k))


def test_reconstructions_are_of_the_first_rows_and_of_points():
    x = normal(20, 4)
    seen = []
    model = Model(
        lambda x: {"z": vaereg.gaussian(x, std=1 + 0 * x), "c": vaereg.categorical(x, 0.5)},
        lambda values: seen.append(values) or torch.zeros(len(values["z"]), 4),
    )
    page_of(model, x, seed=5)
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(5))[:10]
    assert torch.equal(seen[0]["z"], x[rows])
    assert torch.equal(seen[0]["c"], nn.functional.one_hot(x[rows].argmax(1), 4).float())
    drawn = seen[1]["z"]
    assert drawn.shape == (10, 4) and not torch.equal(drawn, x[rows])
    assert torch.equal(seen[1]["c"].argmax(1), torch.arange(10) % 4)


def test_other_priors_are_walked_about_their_mean():
    x = normal(100, 2)
    prior = Independent(Normal(torch.zeros(2), torch.full((2,), 4.0)), 1)
    seen = []

    def decode(values):
        seen.append(values["z"].clone())
        return values["z"]

    model = Model(
        lambda x: {"z": vaereg.gaussian(4.0 * x + 1.0, std=0.1 + 0 * x, prior=prior)}, decode
    )
    page = report(model, x, traversals=1, **QUICK)
    mean, std = (4.0 * x + 1.0).double().mean(0), (4.0 * x).double().std(0)
    d = int(np.argmax(page.numbers["codes"]["z"]["kl"]))
    assert seen[-1][:, d].tolist() == pytest.approx(
        torch.linspace(-3.0, 3.0, 9).mul(std[d]).add(mean[d]).tolist(), rel=1e-4, abs=1e-4
    )
    assert any(what == "samples of the prior" for what, _ in page.skipped)


def test_codes_without_posterior_are_walked_too():
    x = normal(40, 2)
    model = Model(lambda x: {"z": vaereg.deterministic(x)}, lambda values: values["z"])
    page = report(model, x, **QUICK)
    assert [label for label, kl in walked(page)] == ["z[0]", "z[1]"]
    assert all(kl == "" for _, kl in walked(page))
    assert page.numbers["codes"]["z"]["kl"] is None
    assert dict(page.skipped)["KL of z"].startswith("there is no posterior")


def test_spatial_codes_of_pictures():
    """A code keeps its shape, (B, C, H, W), on its way to the decoder."""

    class Spatial(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode_net = nn.Conv2d(1, 4, 2, 2)
            self.decode_net = nn.ConvTranspose2d(2, 1, 2, 2)

        def encode(self, x):
            return {"z": vaereg.gaussian(self.encode_net(x))}

        def decode(self, values):
            assert values["z"].shape[1:] == (2, 4, 4)
            return self.decode_net(values["z"])

    page = report(Spatial(), torch.rand(40, 1, 8, 8), traversals=3, **QUICK)
    assert len(page.numbers["codes"]["z"]["kl"]) == 32
    assert [what for what, _ in page.skipped] == ["negative log-likelihood"]
    assert len(walked(page)) == 3


def test_codes_in_half_precision_reach_the_decoder_as_they_are():
    def encode(x):
        return {"z": vaereg.gaussian(0.5 * x.to(torch.bfloat16))}

    def decode(values):
        assert values["z"].dtype == torch.bfloat16
        return torch.cat((values["z"], values["z"]), 1)

    page = report(Model(encode, decode), normal(60, 4), **QUICK)
    assert [what for what, _ in page.skipped] == ["negative log-likelihood"]
    Reader(page.html)
