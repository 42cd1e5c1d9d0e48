"""Models of many kinds, the rows and variables they are given, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from report_models import QUICK, Model, certain, normal, page_of, spread_out
from report_reader import walked
from torch import nn

import vaereg
from vaereg.metrics import report


class TwoCodes(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.z, self.c = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.drop(self.norm(x))
        return {"z": vaereg.gaussian(self.z(h)), "c": vaereg.categorical(self.c(h), 0.5)}


def two_codes():
    torch.manual_seed(1)
    objective = vaereg.Objective(kl=vaereg.KL(("z", "c")))
    return vaereg.VAE(TwoCodes(), nn.Linear(5, 4), objective, likelihood="gaussian")


def test_nothing_of_the_model_or_of_the_world_moves():
    vae, x = two_codes().train(), normal(100, 4)
    vae.decoder.eval().requires_grad_(False)
    modes = [m.training for m in vae.modules()]
    wanted = [p.requires_grad for p in vae.parameters()]
    before = {name: t.clone() for name, t in vae.state_dict().items()}
    x.requires_grad_()
    torch.manual_seed(11)
    np.random.seed(11)
    state, other = torch.get_rng_state(), np.random.get_state()
    report(vae, x, factors=np.arange(100) % 3, fitted=60, trees=2, audit=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), other, strict=True))
    assert [m.training for m in vae.modules()] == modes
    assert [p.requires_grad for p in vae.parameters()] == wanted
    assert all(p.grad is None for p in vae.parameters()) and x.grad is None
    assert all(torch.equal(t, before[name]) for name, t in vae.state_dict().items())
    assert torch.is_grad_enabled()


def test_mode_is_restored_after_an_error():
    vae = two_codes().train()
    with pytest.raises(RuntimeError):
        report(vae, normal(20, 7), **QUICK)
    assert all(m.training for m in vae.modules())


def test_same_seed_same_page_and_other_seed_other_rows():
    vae, x = two_codes(), normal(100, 4)
    options = {"factors": np.arange(100) % 3, "rows": 60, "fitted": 60, "trees": 2, **QUICK}
    first = report(vae, x, **options)
    torch.randn(5)
    np.random.rand(3)
    assert report(vae, x, **options).html == first.html
    other = report(vae, x, seed=1, **options)
    assert other.html != first.html
    assert other.numbers["nll_of_the_mean"] != first.numbers["nll_of_the_mean"]
    assert first.numbers["rows"] == 60


def test_rows_are_drawn_without_doubles():
    seen = []
    model = Model(lambda x: seen.append(x) or {"z": spread_out(x)})
    x = torch.arange(50.0)[:, None]
    page_of(model, x, rows=20, batch_size=8)
    found = torch.cat(seen).flatten()
    assert len(found) == 20 and len(found.unique()) == 20 and not torch.equal(found, x[:20, 0])
    assert [len(part) for part in seen] == [8, 8, 4]


def test_joint_codes_and_their_order():
    page = report(two_codes(), normal(100, 4), **QUICK)
    assert list(page.numbers["codes"]) == ["z", "c"]
    labels = [label for label, _ in walked(page)]
    assert sorted(labels) == ["c", "z[0]", "z[1]"]
    kl = [float(text) for _, text in walked(page)]
    assert kl == sorted(kl, reverse=True)
    assert "classes of c in turn" in page.html


def test_module_with_an_objective_of_another_kind():
    """Only what forward gives tells a VAE of this library from another module."""

    class Other(nn.Module):
        objective, likelihood, encoder, decoder = "elbo", "normal", None, None

        def forward(self, x):
            return x

        def encode(self, x):
            return {"z": certain(x)}

        def decode(self, values):
            return values["z"]

    page = report(Other(), normal(), nll=lambda decoded, x: (decoded - x).abs().sum(1))
    assert page.numbers["nll"] == pytest.approx(0.0, abs=1e-5)
    assert page.numbers["nll_of_the_mean"] is None and page.numbers["audit"] is None


def test_likelihood_of_the_users_own():
    vae = two_codes()
    vae.likelihood = lambda output, x: (output - x).square().flatten(1).sum(1)
    page = page_of(vae, normal(50, 4))
    assert page.numbers["nll"] > 0 and page.numbers["nll_of_the_mean"] is None


# ---- arrays


@pytest.mark.parametrize("change", [
    np.asarray, np.float32, lambda x: x[::-1][::-1], lambda x: x.astype(">f8"), np.float16,
])  # fmt: skip
def test_arrays_are_read_as_tensors(change):
    x = normal(40, 4).half().float()
    y = torch.arange(40.0)[:, None]
    expected = report(Shifted(), x, y=y, **QUICK)
    array, other = change(x.double().numpy()), y.double().numpy()
    before = array.copy()
    assert report(Shifted(), array, y=other, **QUICK).numbers == expected.numbers
    assert np.array_equal(array, before)


class Shifted(nn.Module):
    def encode(self, x, y):
        assert len(x) == len(y) and x.dtype == y.dtype == torch.float32
        return {"z": certain(x + y)}

    def decode(self, values, y):
        return values["z"]


def test_arrays_have_the_precision_of_the_model():
    vae = two_codes().double()
    page = report(vae, normal(40, 4).double().numpy(), **QUICK)
    assert page.skipped == ()


def test_arrays_of_classes_stay_whole():
    seen = []
    model = Model(lambda x, y: seen.append(y) or {"z": spread_out(x)})
    page_of(model, normal(10), y=np.arange(10), batch_size=10)
    assert seen[0].dtype == torch.int64 and sorted(seen[0].tolist()) == list(range(10))


# ---- observed variables


def test_observed_variables_are_passed_and_repeated():
    x, y = normal(40, 2), torch.arange(40.0)[:, None]
    scalar = torch.tensor(3.0)
    seen = []

    def encode(x, y, level, mode):
        assert len(y) == len(x) and level is scalar and mode == "fast"
        return {"z": spread_out(x)}

    def decode(values, y, level, mode):
        assert len(y) == len(values["z"]) and level is scalar and mode == "fast"
        seen.append(y.clone())
        return values["z"]

    page = report(
        Model(encode, decode), x, y=y, level=scalar, mode="fast", seed=1, batch_size=16, **QUICK
    )
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(seen[0], y[rows[:10]]) and torch.equal(seen[1], y[rows[:10]])
    for walked_y in seen[2:]:
        assert torch.equal(walked_y, y[rows[:1]].expand(9, 1))
    assert page.skipped == (("negative log-likelihood", "nll is not given"),)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4)

    def forward(self, x, y, scale, step=0):
        return scale * self.net(torch.cat((x, y), 1)) + 0.0 * step


def test_vae_that_asks_for_variables_and_values():
    """An observed value that is no tensor passes through the model's batch, too."""
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    vae = vaereg.VAE(Scaled(), nn.Linear(2, 2), objective, likelihood="gaussian")
    x, y = normal(60, 2), torch.ones(60, 1)
    page = report(vae, x, y=y, scale=0.5, step=7, audit=True, bracket=False)
    assert page.skipped == () and page.numbers["nll"] is not None
    with pytest.raises(ValueError, match=r"the encoder asks for \['scale', 'y'\]"):
        report(vae, x, **QUICK)
