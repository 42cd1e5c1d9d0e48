"""The page about a trained model: its numbers, pictures and warnings, and what it leaves alone."""

from __future__ import annotations

import base64
import builtins
import html
import io
import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributions import Categorical, Independent, Laplace, Normal, OneHotCategorical

import vaereg
from vaereg.metrics import Audit, MIBracket, MIEstimate, ReportPage, TermAudit, report
from vaereg.metrics.decomposition import Decomposition
from vaereg.metrics.reporting import _charts as charts
from vaereg.metrics.reporting._charts import DASH, MINUS
from vaereg.metrics.reporting._gather import gather
from vaereg.metrics.reporting._measure import Measured
from vaereg.metrics.reporting._notices import notices
from vaereg.metrics.reporting._page import bracketed

QUICK = {"bracket": False, "audit": False}
TINY = 1e-9  # a deviation that moves nothing in float32
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Model:
    """A model of functions: x to codes, and values by name to what is decoded."""

    def __init__(self, encode, decode=None):
        self.encode = encode
        if decode is not None:
            self.decode = decode


def certain(mean):
    """A code whose draws are its mean."""
    return vaereg.gaussian(mean, std=torch.full_like(mean, TINY))


def spread_out(x):
    """A code of which nothing is to be said: a third of each coordinate's variance is noise."""
    return vaereg.gaussian(0.8 * x, std=torch.full_like(x, 0.6))


def normal(n=200, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def page_of(model, x, **options):
    return report(model, x, **{"traversals": 0, **QUICK, **options})


def heads(page):
    return [notice.head for notice in page.notices]


# ---- reading the page


class Reader(HTMLParser):
    """Tags, attributes and texts; fails where a tag is closed that is not the last one open."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, name):
        return [attrs[name] for t, attrs in self.tags if t == tag and name in attrs]


def tiles(page):
    found = re.findall(r'<div class="tile"><b>(.*?)</b><span>(.*?)</span></div>', page.html)
    return {text: value for value, text in found}


def strips(page, alt):
    """The pictures of strips, as arrays of bytes (H, W, 4)."""
    found = re.findall(
        r'<img class="strip" src="data:image/png;base64,(.*?)" alt="(.*?)"', page.html
    )
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d)))) for d, a in found if a == alt]


def pictures(page, alt, width):
    """The pictures of the only strip, (n, H, W, 3)."""
    (sheet,) = strips(page, alt)
    gap = max(1, sheet.shape[0] // 32)
    count = (sheet.shape[1] + gap) // (width + gap)
    starts = [k * (width + gap) for k in range(count)]
    clear = np.ones(sheet.shape[1], bool)
    for start in starts:
        clear[start : start + width] = False
    assert (sheet[:, clear, 3] == 0).all() and (sheet[:, ~clear, 3] == 255).all()
    return np.stack([sheet[:, s : s + width, :3] for s in starts])


def curves(page, label):
    """Heights between 0 and 1 of the curves of a strip, by their class."""
    (block,) = re.findall(rf'aria-label="{re.escape(label)}">(.*?)</div>', page.html)
    found = {"own": [], "data": []}
    for kind, points in re.findall(r'<polyline class="(\w+)" points="(.*?)"', block):
        heights = [(58.0 - float(pair.split(",")[1])) / 56.0 for pair in points.split()]
        found[kind].append(np.array(heights))
    return found


def walked(page):
    """Labels and KLs of the traversals in their order."""
    section = page.html.split('<section id="traversals">')[1].split("</section>")[0]
    return re.findall(r'<div class="label">(.*?)(?:<span>(.*?) nats</span>)?</div>', section)


# ---- numbers against float64


class Weights(nn.Module):
    """A linear encoder of a certain code, its weights drawn once."""

    def __init__(self, features, d):
        super().__init__()
        self.net = nn.Linear(features, d)

    def forward(self, x):
        return certain(self.net(x))


def fixed_vae(likelihood, features=5, d=2):
    torch.manual_seed(3)
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    return vaereg.VAE(
        Weights(features, d), nn.Linear(d, features), objective, likelihood=likelihood
    )


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
    mean = rows.mean(0)
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


# ---- warnings


def test_a_model_of_which_nothing_is_to_be_said():
    x = normal(400, 3)
    model = Model(lambda x: {"z": spread_out(x)}, lambda values: values["z"])
    page = page_of(model, x, nll=lambda decoded, x: (decoded - x).square().mean())
    assert page.notices == () and page.skipped == ()
    assert "No sign of collapse" in page.html


@pytest.mark.parametrize("dead, head", [
    (4, "Posterior collapse: all of z is inactive"),
    (3, "3 of 4 coordinates of z are inactive"),
    (2, None),
    (0, None),
])  # fmt: skip
def test_collapse(dead, head):
    alive = (torch.arange(4) >= dead).float()

    def encode(x):
        return {"z": vaereg.gaussian(0.8 * x * alive, std=1.0 - 0.4 * alive.expand_as(x))}

    page = page_of(Model(encode), normal(400, 4))
    assert heads(page) == ([] if head is None else [head])
    assert [n.level for n in page.notices] == ["bad" if dead == 4 else "warn"][: len(heads(page))]


def test_collapse_of_a_categorical_code():
    page = page_of(Model(lambda x: {"c": vaereg.categorical(0.0 * x, 0.5)}), normal(100, 4))
    assert heads(page) == ["Posterior collapse: all of c is inactive"]
    assert tiles(page)["active variables of c"] == "0 of 1"


class Bias(nn.Module):
    def __init__(self, d, value, weight):
        super().__init__()
        self.value, self.weight = nn.Parameter(torch.full((d,), value)), weight

    def forward(self, z):
        return self.value + self.weight * z


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_reconstructions_no_better_than_the_mean(likelihood):
    head = "Reconstructions are no better than the mean of the data"
    x = (normal(200, 3) > 0).float()
    encoder = nn.Identity()
    encoder.forward = lambda x: certain(2.0 * x - 1.0)
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    for weight, bad in ((0.0, True), (0.5, False)):
        middle = 0.7 if weight == 0.0 else 0.5
        decoder = Bias(3, middle, weight)
        page = page_of(vaereg.VAE(encoder, decoder, objective, likelihood=likelihood), x)
        assert (head in heads(page)) is bad
        assert (page.numbers["nll"] >= page.numbers["nll_of_the_mean"]) is bad


def test_nll_that_is_not_finite():
    model = Model(lambda x: {"z": spread_out(x)}, lambda values: values["z"])
    page = page_of(model, normal(), nll=lambda decoded, x: decoded.new_tensor(math.inf))
    assert heads(page) == ["The negative log-likelihood is not finite"]
    assert page.numbers["nll"] is None and tiles(page)["negative log-likelihood, nats"] == "∞"


def test_unused_classes_beside_what_their_prior_says():
    x = torch.eye(2).repeat(50, 1)

    def head(prior, d=4):
        logits = torch.full((100, d), -6.0)
        logits[:, :2] = 8.0 * x
        model = Model(lambda x: {"c": vaereg.categorical(logits[: len(x)], 0.5, prior=prior)})
        return [h for h in heads(page_of(model, x, batch_size=100)) if "classes" in h]

    assert head(None) == ["2 of 4 classes of c are hardly used"]
    assert head(None, d=2) == []
    # A class that the prior leaves out is not missed.
    assert head(torch.tensor([0.5, 0.5 - 1e-6, 5e-7, 5e-7])) == []


@pytest.mark.parametrize("shift, scale, std, which", [
    (0.0, 0.8, 0.6, None),
    (0.7, 0.8, 0.6, "0, 1"),  # away from 0
    (0.0, 2.0, 0.6, "0, 1"),  # too wide
    (0.0, 0.3, 0.2, "0, 1"),  # too narrow
])  # fmt: skip
def test_hole_in_the_aggregated_posterior(shift, scale, std, which):
    model = Model(lambda x: {"z": vaereg.gaussian(scale * x + shift, std=std + 0 * x)})
    found = page_of(model, normal(1000, 2)).notices
    found = [n for n in found if n.head == "The aggregated posterior of z is not the prior"]
    assert len(found) == (which is not None)
    assert all(f"Coordinates {which} have" in n.text for n in found)


def test_dead_coordinates_are_no_hole_and_other_priors_neither():
    wide = Independent(Normal(torch.zeros(2), torch.full((2,), 5.0)), 1)
    model = Model(lambda x: {"z": vaereg.gaussian(5.0 * x, std=1 + 0 * x, prior=wide)})
    assert heads(page_of(model, normal(300, 2))) == []
    # 1.3 in place of 1 as deviation of all rows costs 0.08 nats: inactive with active=0.1
    flat = Model(lambda x: {"z": vaereg.gaussian(0 * x + 0.6, std=1 + 0 * x)})
    assert heads(page_of(flat, normal(), active=0.5))[0].startswith("Posterior collapse")
    assert len(page_of(flat, normal(), active=0.5).notices) == 1


def test_ceiling_of_the_information():
    model = Model(lambda x: {"z": vaereg.gaussian(x, std=0.01 + 0.0 * x)})
    page = page_of(model, normal(100, 3))
    assert heads(page) == ["I(x; z) is at its ceiling"]
    # So few rows show a total correlation of coordinates that have none: no notice of that.
    assert page.numbers["codes"]["z"]["parts"]["tc"] > 1.0
    assert "the total correlation is read too high" in page.notices[0].text


def test_coordinates_that_depend_on_each_other():
    x = normal(500, 1)
    model = Model(lambda x: {"z": vaereg.gaussian(x.expand(-1, 3), std=0.3 + 0 * x.expand(-1, 3))})
    assert "The coordinates of z depend on each other" in heads(page_of(model, x))


def gathered(n=400):
    model = Model(lambda x: {"z": spread_out(x)})
    return gather(model, normal(n), {}, None, 64, torch.device("cpu"), 0)


FINE = MIBracket(0.9, 0.02, 1.3, 0.01, 0.95, 0.02, 0.9, 0.01, 2.3, None, 500, "c")


@pytest.mark.parametrize("change, level, head", [
    ({}, None, None),
    ({"lower": 1.4}, "bad", "The bounds of I(c; x) contradict each other"),
    ({"lower": 1.34}, None, None),  # within its errors
    ({"exact": 0.1, "lower": 0.1}, "warn", "c is all but idle"),
    ({"exact": 0.1, "lower": 0.1, "entropy": None}, None, None),
    ({"decoded": 0.1}, "warn", "The decoder hides c"),
    ({"decoded": None, "decoded_error": None}, None, None),
    ({"exact": 0.19, "lower": 0.1, "decoded": 0.0}, None, None),  # there is little to hide
])  # fmt: skip
def test_notices_of_brackets(change, level, head):
    found = notices(gathered(), Measured(brackets={"c": replace(FINE, **change)}), 0.01)
    assert [(n.level, n.head) for n in found] == ([] if head is None else [(level, head)])


def test_notices_of_parts_are_beyond_their_errors():
    def heads_of(**change):
        base = Decomposition(1.0, 0.2, (0.1,), 0.01, 0.01, (0.01,), 1.3, 100)
        found = notices(gathered(), Measured(parts={"z": replace(base, **change)}), 0.01)
        return [n.head for n in found]

    assert heads_of() == []
    assert heads_of(tc=0.8) == ["The coordinates of z depend on each other"]
    assert heads_of(tc=0.8, tc_error=0.3) == []
    assert heads_of(tc=0.8, kl=20.0) == []  # little of it
    assert heads_of(mi=0.95 * math.log(400)) == ["I(x; z) is at its ceiling"]


@pytest.mark.parametrize("verdict, displayed, head", [
    ("refuted", 0.01, "The term leak displays an independence that is not there"),
    ("dependent", 0.01, "The term leak displays less than half of the dependence"),
    ("dependent", 0.12, None),
    ("independent", 0.01, None),
    ("cannot tell", 0.01, None),
])  # fmt: skip
def test_notices_of_audits(verdict, displayed, head):
    read = MIEstimate(0.12, 0.01, (0.12,), 0.0, interval=(0.1, 0.15))
    entry = TermAudit("leak", "z", "y", "MINE", displayed, read, verdict, 0.05)
    found = notices(gathered(), Measured(audit=Audit({"leak": entry}, 0.05, 500)), 0.01)
    assert [n.head for n in found] == ([] if head is None else [head])


class Copy(nn.Module):
    def forward(self, x):
        return vaereg.gaussian(x, std=0.3 + 0 * x)


def leaky(critic=None):
    torch.manual_seed(0)
    critic = critic or vaereg.critics.mlp(2 + 2, 1, width=8)
    objective = vaereg.Objective(kl=vaereg.KL("z"), leak=vaereg.MINE("z", "y", critic=critic))
    return vaereg.VAE(Copy(), nn.Linear(2, 2), objective, likelihood="gaussian")


def test_a_real_bracket_is_on_the_page():
    x = torch.eye(4).repeat(60, 1)

    def encode(x):
        return {"c": vaereg.categorical(6.0 * x, 0.5), "z": vaereg.gaussian((0 * x, 0 * x))}

    page = page_of(Model(encode, lambda v: torch.zeros(len(v["c"]), 4)), x, bracket=True)
    found = page.numbers["codes"]["c"]["bracket"]
    assert found["lower"] <= found["exact"] + 1e-6 and found["exact"] <= found["upper"] + 1e-6
    assert found["exact"] > 1.0 and found["decoded"] == 0.0
    assert "The decoder hides c" in heads(page) and "I(c; x), nats" in page.html
    assert tiles(page)["I(x; c), nats"] == f"{found['exact']:.2f}"
    Reader(page.html)


# ---- traversals


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


def test_observed_variables_are_passed_and_repeated():
    x, y = normal(40, 2), torch.arange(40.0)[:, None]
    level = torch.tensor(3.0)
    seen = []

    def encode(x, y, level, mode):
        assert len(y) == len(x) and level is level and mode == "fast"
        return {"z": spread_out(x)}

    def decode(values, y, level, mode):
        assert len(y) == len(values["z"]) and level.ndim == 0 and mode == "fast"
        seen.append(y.clone())
        return values["z"]

    page = report(
        Model(encode, decode), x, y=y, level=level, mode="fast", seed=1, batch_size=16, **QUICK
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


# ---- pictures


def shown(x, **options):
    """Data and what is decoded from codes that are the data."""
    shape = x.shape[1:]
    model = Model(
        lambda x: {"z": vaereg.deterministic(x.flatten(1).float())},
        lambda values: values["z"].reshape(-1, *shape),
    )
    return page_of(model, x, **options)


def ramp(n, *shape, low=0.0, high=1.0):
    numbers = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    numbers.view(-1)[:2] = torch.tensor([0.0, 1.0])  # the whole range
    return low + (high - low) * numbers


@pytest.mark.parametrize("event, image_shape", [
    ((4, 5), None), ((1, 4, 5), None), ((3, 4, 5), None), ((20,), (4, 5)), ((20,), (1, 4, 5)),
    ((60,), (3, 4, 5)), ((2, 1, 10), [4, 5]), ((40, 5), None),
])  # fmt: skip
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_pixels(event, image_shape, low, high):
    x = ramp(12, *event, low=low, high=high)
    page = shown(x, image_shape=image_shape, seed=3)
    rows = x[torch.randperm(12, generator=torch.Generator().manual_seed(3))[:10]]
    expected = 255.0 * (rows.double().numpy() - low) / (high - low)
    h = (image_shape or event)[-2]
    w = (image_shape or event)[-1]
    expected = np.round(expected).reshape(10, -1, h, w).transpose(0, 2, 3, 1)
    expected = np.broadcast_to(expected, (10, h, w, 3))
    for alt in ("data", "reconstructions"):
        found = pictures(page, alt, w)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1  # rounding of float32
    assert (pictures(page, "absolute differences", w) == 0).all()


def test_difference_is_on_the_scale_of_the_data():
    x = ramp(10, 4, 4, low=-1.0)
    model = Model(
        lambda x: {"z": vaereg.deterministic(x.flatten(1))},
        lambda values: values["z"].reshape(-1, 4, 4) - 0.5,
    )
    found = pictures(page_of(model, x), "absolute differences", 4)
    assert np.abs(found - 255 * 0.25).max() <= 1
    decoded = pictures(page_of(model, x), "reconstructions", 4)
    assert decoded.min() == 0  # cut where it leaves the data's range


@pytest.mark.parametrize("low, high, bottom, top", [
    (0.0, 1.0, 0.0, 1.0), (0.0, 0.3, 0.0, 1.0), (-0.5, 1.0, -1.0, 1.0), (0.0, 255.0, 0.0, 255.0),
    (-4.0, 4.0, -4.0, 4.0), (0.0, 3.0, 0.0, 3.0), (100.0, 900.0, 100.0, 900.0),
])  # fmt: skip
def test_range_of_values(low, high, bottom, top):
    x = ramp(10, 6, low=low, high=high)
    page = shown(x)
    rows = x[torch.randperm(10, generator=torch.Generator().manual_seed(0))]
    expected = (rows.double().numpy() - bottom) / (top - bottom)
    found = curves(page, "decoded")
    assert np.stack(found["own"]) == pytest.approx(expected, abs=2e-3)
    assert np.stack(found["data"]) == pytest.approx(expected, abs=2e-3)
    assert "<img" not in page.html


@pytest.mark.parametrize("value", [0.0, 0.5, 300.0])
def test_data_of_one_value(value):
    page = shown(torch.full((10, 4, 4), value))
    assert (pictures(page, "absolute differences", 4) == 0).all()


def test_long_rows_are_thinned_and_short_ones_drawn():
    assert len(curves(shown(ramp(10, 1000)), "decoded")["own"][0]) == 200
    assert len(curves(shown(ramp(10, 1)), "decoded")["own"][0]) == 1


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


# ---- the page


def everything(**options):
    """A page with all sections, of odd names."""
    y = vaereg.labels(torch.arange(120) % 2, classes=2)
    x = normal(120, 2) + y
    factors = np.stack((np.arange(120) % 2, np.arange(120) % 3), 1)
    return report(
        leaky(), x, y=y, factors=factors, factor_names=["a<b>", "b&\"c'"], fitted=120, trees=2,
        title="<script>alert('x')</script>", details={"run<1>": "</pre>"}, image_shape=(1, 2),
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    return everything()


def test_the_page_is_well_formed_and_whole(full):
    reader = Reader(full.html)
    ids = reader.all("section", "id")
    expected = ["reconstructions", "traversals", "kl", "parts", "information", "audit", "scores"]
    assert [name for name in ids if name != "skipped"] == expected
    anchors = [link[1:] for link in reader.all("a", "href")]
    assert anchors == expected and len(set(ids)) == len(ids)
    assert full.html.startswith("<!doctype html>") and full.html.endswith("</html>\n")
    (title,) = re.findall("<title>(.*?)</title>", full.html)
    assert title == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;"


def test_audit_of_a_term_that_was_never_fitted(full):
    assert "The term leak displays an independence that is not there" in heads(full)
    assert full.notices[0].level == "bad"
    assert full.numbers["audit"]["terms"]["leak"]["verdict"] == "refuted"
    assert 'class="badge refuted"' in full.html
    y = vaereg.labels(torch.arange(60) % 2, classes=2)
    without = page_of(leaky(), normal(60, 2), y=y)
    assert without.numbers["audit"] is None and 'id="audit"' not in without.html


def test_variables_of_the_objective_alone_are_no_hindrance(full):
    assert full.skipped == () and full.numbers["codes"]["z"]["bracket"] is not None


def test_nothing_is_fetched_from_elsewhere(full):
    reader = Reader(full.html)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    for tag in names:
        assert all(src.startswith("data:") for src in reader.all(tag, "src"))
        assert all(href.startswith("#") for href in reader.all(tag, "href"))
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]*", "", full.html))


def test_names_are_escaped(full):
    text = full.html
    assert "<script" not in text and "a<b>" not in text and "run<1>" not in text
    assert text.count("</pre>") == 1
    assert "a&lt;b&gt;" in text and "b&amp;&quot;c" in text
    assert "a<b>" in "".join(Reader(text).texts)


def test_numbers_are_json_without_nan(full):
    raw = json.dumps(full.numbers, allow_nan=False)
    assert json.loads(raw) == full.numbers
    (shown,) = re.findall(r"<pre>(.*?)</pre>", full.html, re.S)
    assert json.loads(html.unescape(shown)) == full.numbers
    assert full.numbers["rows"] == 120 and set(full.numbers["codes"]) == {"z"}
    assert full.numbers["notices"] == [vars(n) for n in full.notices]
    assert full.numbers["skipped"] == [list(pair) for pair in full.skipped]


def test_scores_beside_their_factors(full):
    scores = full.numbers["codes"]["z"]["scores"]
    assert set(scores) == {
        "mig", "mig_sampled", "dci", "completeness", "informativeness", "sap", "modularity",
        "explicitness", "irs", "gaussian_tc", "factor_vae", "beta_vae",
    }  # fmt: skip
    assert all(v is None or math.isfinite(v) for v in scores.values())
    assert full.html.count("Which coordinate of z tells of which factor") == 1


def test_numpy_numbers_and_infinities_are_plain():
    x = normal(60, 2)
    model = Model(lambda x: {"z": vaereg.deterministic(torch.cat((x, x), 1))})
    page = page_of(model, x, factors=(x[:, 0] > 0).long(), trees=2)
    assert page.numbers["codes"]["z"]["scores"]["gaussian_tc"] is None
    assert "∞" in page.html


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert page_of(Model(lambda x: {"z": spread_out(x)}), normal()).html


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert shown(ramp(10, 6)).html  # curves need none
    with pytest.raises(ImportError, match=r'pictures need Pillow; run pip install "vaereg\['):
        shown(ramp(10, 4, 4))
    blind = Model(lambda x: {"z": spread_out(x.flatten(1))})
    assert ("pictures", "the model has no decode") in page_of(blind, ramp(10, 4, 4)).skipped


def test_bracket_beyond_all_bounds_is_drawn():
    found = bracketed({"c": replace(FINE, upper=math.inf, upper_error=math.nan, lower=-2.0)})
    assert "nan" not in found and "∞" in found
    for left, width in re.findall(r'class="error" style="left:(.*?)%;width:(.*?)%"', found):
        assert 0.0 <= float(left) and float(left) + float(width) <= 100.01


@pytest.mark.parametrize("value, text", [
    (None, DASH), (math.nan, DASH), (math.inf, "∞"), (-math.inf, f"{MINUS}∞"),
    (-0.00001, "0.000"), (-1.5, f"{MINUS}1.500"), (123456.7, "123,457"),
    (-123456.7, f"{MINUS}123,457"),
])  # fmt: skip
def test_numbers_as_text(value, text):
    assert charts.number(value) == text


# ---- models


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


def test_model_without_decode():
    page = report(Model(lambda x: {"z": spread_out(x)}), normal(), nll=lambda a, b: 0.0, **QUICK)
    assert page.skipped == (
        ("negative log-likelihood", "the model has no decode"),
        ("pictures", "the model has no decode"),
    )
    assert 'id="skipped"' in page.html and "<h2>Not measured</h2>" in page.html


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


def test_objective_that_misses_a_variable():
    page = report(leaky(), normal(100, 2), bracket=False)
    assert "'y'" in dict(page.skipped)["negative log-likelihood"]
    assert page.numbers["nll"] is None and page.numbers["codes"]["z"]["kl"] is not None
    assert '<section id="reconstructions">' in page.html


def test_likelihood_of_the_users_own():
    vae = two_codes()
    vae.likelihood = lambda output, x: (output - x).square().flatten(1).sum(1)
    page = page_of(vae, normal(50, 4))
    assert page.numbers["nll"] > 0 and page.numbers["nll_of_the_mean"] is None


# ---- what cannot be measured


def fails(message="broken"):
    def decode(values, **observed):
        raise KeyError(message)

    return decode


@pytest.mark.parametrize("decode, why", [
    (fails(), "KeyError: 'broken'"),
    (lambda values: values["w"], "KeyError: 'w'"),
    (lambda values: None, "decoded: expected the data's shape (10, 3), got NoneType"),
    (lambda values: values["z"][:, :2], "decoded: expected the data's shape (10, 3), got (10, 2)"),
    (lambda values: values["z"] / 0.0, "decoded: expected finite values, got nan or inf"),
    (lambda values: values["z"].nothing, "AttributeError: 'Tensor' object has no attribute"),
])  # fmt: skip
def test_decoders_that_fail(decode, why):
    page = report(Model(lambda x: {"z": spread_out(x)}, decode), normal(), **QUICK)
    found = dict(page.skipped)
    assert found["reconstructions"].startswith(why)
    assert {"samples of the prior", "traversals"} <= set(found)
    assert page.numbers["codes"]["z"]["kl"] is not None
    Reader(page.html)


def test_nll_where_decode_fails():
    page = page_of(
        Model(lambda x: {"z": spread_out(x)}, fails()), normal(), nll=lambda decoded, x: 0.0
    )
    assert dict(page.skipped)["negative log-likelihood"] == "KeyError: 'broken'"
    assert page.numbers["nll"] is None


def test_decoder_of_a_vae_that_gives_nan():
    vae = fixed_vae("gaussian")
    with torch.no_grad():
        vae.decoder.bias[0] = math.nan
    page = report(vae, torch.rand(60, 5), **QUICK)
    assert heads(page)[0] == "The negative log-likelihood is not finite"
    assert "reconstructions" in dict(page.skipped) and page.numbers["nll"] is None


def test_posteriors_that_are_not_finite():
    def encode(x):
        return {"z": vaereg.gaussian((x / 0.0 * 0.0, x)), "c": vaereg.categorical(x, 0.5)}

    page = page_of(Model(encode), normal(60), bracket=True)
    found = dict(page.skipped)
    assert found["KL of z"].startswith("the posterior holds values that are not finite")
    assert "finite" in found["bracket of I(z; x)"]
    assert page.numbers["codes"]["c"]["kl"] is not None


def test_kl_that_is_infinite():
    prior = torch.tensor([1.0, 1.0, 0.0]) / 2.0
    model = Model(lambda x: {"c": vaereg.categorical(x, 0.5, prior=prior)})
    page = page_of(model, normal())
    assert dict(page.skipped)["KL of c"] == "it is not finite"
    assert page.numbers["codes"]["c"]["kl"] is None


def test_priors_and_posteriors_of_other_families():
    def encode(x):
        return {
            "z": vaereg.gaussian(x, std=1 + 0 * x, prior=Laplace(0 * x, 1 + 0 * x)),
            "w": vaereg.Code(x, Independent(Laplace(x, 1 + 0 * x), 1)),
            "d": vaereg.deterministic(x),
        }

    page = page_of(Model(encode), normal(60), bracket=True)
    found = dict(page.skipped)
    assert found["KL of z"] == "there is no prior of the posterior's family"
    for name in "wd":
        assert found[f"KL of {name}"].startswith("there is no posterior that is")
        assert f"bracket of I({name}; x)" in found
    assert "parts of the KL of z" in found


def test_too_few_rows_for_a_bracket_and_an_audit():
    y = vaereg.labels(torch.arange(30) % 2, classes=2)
    page = report(leaky(), normal(30, 2), y=y)
    found = dict(page.skipped)
    assert re.search(r"expected at least \d+ rows, got 30", found["bracket of I(z; x)"])
    assert "audit" in found


def test_scores_without_scikit_learn(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.split(".")[0] == "sklearn":
            raise ImportError("No module named 'sklearn'")
        return real(name, *rest, **more)

    for name in [n for n in sys.modules if n.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", absent)
    x = normal(90, 2)
    page = page_of(Model(lambda x: {"z": spread_out(x)}), x, factors=np.arange(90) % 3, fitted=90)
    found = dict(page.skipped)
    assert {"dci of z", "sap of z", "explicitness of z"} <= set(found)
    assert "sklearn" in found["dci of z"] or "scikit-learn" in found["dci of z"]
    scores = page.numbers["codes"]["z"]["scores"]
    assert scores["dci"] is None and scores["mig"] is not None and scores["irs"] is not None


def test_factors_of_one_value():
    x = normal(90, 2)
    factors = np.stack((np.arange(90) % 3, np.full(90, 4)), 1)
    model = Model(lambda x: {"z": spread_out(x)})
    page = page_of(model, x, factors=factors, factor_names=["shape", "colour"], trees=2)
    assert dict(page.skipped)["scores of colour"] == "it has one value in these rows"
    assert "<th scope='col'>colour" not in page.html and "<th scope='col'>shape" in page.html
    none = page_of(model, x, factors=factors[:, 1])
    assert "one that varies" in dict(none.skipped)["scores of z"]
    assert none.numbers["codes"]["z"]["scores"] is None and 'id="scores"' not in none.html


@pytest.mark.parametrize("kind", [torch.tensor, list, np.array])
def test_factors_of_many_kinds(kind):
    x = normal(90, 2)
    factors = kind([k % 3 for k in range(90)])
    page = page_of(Model(lambda x: {"z": spread_out(x)}), x, factors=factors, trees=2)
    assert page.numbers["codes"]["z"]["scores"]["mig"] is not None
    assert "factor 0" in page.html


def test_factors_follow_their_rows():
    x = torch.randn(200, 1) + 4.0 * (torch.arange(200) % 2)[:, None]
    model = Model(lambda x: {"z": certain(x)})
    page = page_of(model, x, factors=np.arange(200) % 2, rows=120, fitted=120, trees=2, seed=9)
    assert page.numbers["codes"]["z"]["scores"]["informativeness"] > 0.9


# ---- messages


@pytest.mark.parametrize("change, message", [
    ({"x": torch.randn(5)}, r"x: expected a tensor \(N, \*event\) of at least 2 rows, got \(5,\)"),
    ({"x": torch.randn(1, 3)}, r"x: expected .* at least 2 rows, got \(1, 3\)"),
    ({"x": np.zeros((5, 3))}, "x: expected a tensor .*, got ndarray"),
    ({"x": torch.full((5, 3), math.nan)}, "x: expected finite values, got nan or inf"),
    ({"x": torch.full((5, 3), math.inf)}, "x: expected finite values, got nan or inf"),
    ({"factors": np.zeros((5, 2))}, r"factors: .* \(20, K\) or \(20,\), got float64 \(5, 2\)"),
    ({"factors": np.zeros((20, 2))}, r"factors: expected integers .*, got float64 \(20, 2\)"),
    ({"factors": np.zeros((5,), int)}, r"factors: expected integers .*, got int64 \(5, 1\)"),
    ({"factors": np.zeros((20, 2, 2), int)}, r"factors: expected .* \(20, 2, 2\)"),
    ({"factors": np.zeros((20, 2), int), "factor_names": ["a"]},
     "factor_names: expected 2 names, got 1"),
    ({"factor_names": ["a"]}, "factor_names: expected factors beside them, got none"),
    ({"image_shape": (2, 2)}, r"image_shape: expected .* of 3 numbers, got \(2, 2\)"),
    ({"image_shape": (3,)}, r"image_shape: expected .* got \(3,\)"),
    ({"image_shape": (-1, -3)}, r"image_shape: expected .* got \(-1, -3\)"),
    ({"image_shape": (2, 1, 3)}, r"image_shape: expected .* got \(2, 1, 3\)"),
    ({"rows": 1}, "rows: expected at least 2, got 1"),
    ({"fitted": 0}, "fitted: expected at least 2, got 0"),
    ({"samples": 1}, "samples: expected at least 2, got 1"),
    ({"trees": 0}, "trees: expected at least 1, got 0"),
    ({"traversals": -1}, "traversals: expected at least 0, got -1"),
    ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    ({"y": torch.zeros(7, 1)}, "y: expected as many rows as x, 20, got 7"),
    ({"nll": lambda decoded, x: decoded}, r"nll: expected a scalar or \(20,\), got .* \(20, 3\)"),
])  # fmt: skip
def test_messages(change, message):
    model = Model(lambda x, **y: {"z": spread_out(x)}, lambda values, **y: values["z"])
    with pytest.raises(ValueError, match=message):
        report(model, **{"x": normal(20), **QUICK, **change})


def test_messages_about_models():
    with pytest.raises(TypeError, match=r"model: expected a vaereg.VAE, or .* got Linear"):
        report(nn.Linear(2, 2), normal(20), **QUICK)
    with pytest.raises(
        TypeError, match="model: expected encode to return codes by name, got Tens"
    ):
        report(Model(lambda x: x), normal(20), **QUICK)
    with pytest.raises(TypeError, match="model: expected 'z' to be a Code, got Tensor"):
        report(Model(lambda x: {"z": x}), normal(20), **QUICK)


# ---- saving


def test_save(tmp_path):
    page = ReportPage("<p>ü</p>", {}, (), ())
    path = tmp_path / "a" / "b" / "page.html"
    assert page.save(path) == path and page.save(str(path)) == path
    assert path.read_text(encoding="utf-8") == "<p>ü</p>"
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    assert repr(page) == "ReportPage(0 KiB, 0 notices, 0 not measured)"


def test_save_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    ReportPage("first", {}, (), ()).save(path)
    with pytest.raises(UnicodeEncodeError):
        ReportPage("second \ud800", {}, (), ()).save(path)
    assert path.read_text(encoding="utf-8") == "first"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        ReportPage("third", {}, (), ()).save(tmp_path / "folder")
    with pytest.raises(OSError):
        ReportPage("fourth", {}, (), ()).save(path / "below.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "page.html"]


def test_progress(monkeypatch, capsys):
    said = []
    bar = SimpleNamespace(set_description=said.append, close=lambda: said.append("closed"))
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=lambda **options: bar))
    page_of(Model(lambda x: {"z": spread_out(x)}), normal(), progress=True)
    assert said == [
        "report: codes", "report: parts of KL(z)", "report: pictures", "closed",
    ]  # fmt: skip
    with pytest.raises(TypeError):
        page_of(Model(lambda x: x), normal(), progress=True)
    assert said[-1] == "closed"
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="progress=True needs tqdm: pip install tqdm"):
        page_of(Model(lambda x: {"z": spread_out(x)}), normal(), progress=True)


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


def test_a_misspelt_option_is_no_observed_variable():
    vae = vaereg.VAE(
        nn.Linear(4, 4),
        nn.Linear(2, 4),
        vaereg.Objective(kl=vaereg.KL("z")),
        likelihood="gaussian",
    )
    with pytest.raises(TypeError, match="braket: expected an option, or a variable that"):
        report(vae, torch.randn(20, 4), braket=False)
