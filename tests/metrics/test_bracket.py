"""The bracket of a code's information: toys of known value, and models that are what they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
    OneHotCategorical,
)

import vaereg
from vaereg.metrics import MIBracket, mi_bracket
from vaereg.metrics import _posteriors as module

FAST = {"epochs": 12, "batch_size": 64}


def channel(n, k, error):
    """One-hot x of k symbols in equal shares, and the code that names them with errors."""
    x = torch.eye(k).repeat(n // k, 1)
    pi = torch.full((k, k), error / (k - 1)).fill_diagonal_(1.0 - error)
    return x, vaereg.categorical(pi.log().repeat(n // k, 1), 1.0, hard=True)


def channel_mi(k, error):
    noise = -(1 - error) * math.log(1 - error) - error * math.log(error / (k - 1))
    return math.log(k) - noise


def gaussian_channel(n, d, a=1.0, noise=0.5, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return x, vaereg.gaussian(a * x, std=torch.full_like(x, noise))


def ordered(found, errors=3.0):
    assert found.lower <= found.exact + 1e-6  # row by row, whatever was drawn
    assert found.exact <= found.upper + errors * math.hypot(found.exact_error, found.upper_error)
    assert found.consistent


class Toy:
    """A model of functions: x to codes, and values by name to what is decoded."""

    def __init__(self, encode, decode=None):
        self.encode = encode
        if decode is not None:
            self.decode = decode


# Toys of known information.


@pytest.mark.parametrize("k, error", [(2, 0.1), (10, 0.2)])
def test_symmetric_channel(k, error):
    truth = channel_mi(k, error)
    x, c = channel(2000, k, error)
    found = mi_bracket(c, x, code="c", epochs=60)
    assert found.lower <= found.exact <= found.upper
    # Symbols are not quite in equal shares among the held-out rows.
    assert found.exact == pytest.approx(truth, abs=0.01)
    assert truth - 0.02 < found.lower < truth + 3 * found.lower_error
    assert found.upper == pytest.approx(truth, abs=1e-5)  # the prior is the aggregated posterior
    assert found.entropy == pytest.approx(math.log(k), abs=0.01)
    assert found.decoded is found.decoded_error is found.ceiling is None
    assert found.rows == 500


def test_the_value_of_a_channel_from_its_definition():
    assert channel_mi(10, 0.2) == pytest.approx(1.362738, abs=1e-6)


def test_gaussian_channel():
    d, a, noise = 2, 1.0, 0.5
    x, z = gaussian_channel(4000, d, a, noise)
    found = mi_bracket(z, x, epochs=60)
    truth = 0.5 * d * math.log(1 + (a / noise) ** 2)
    spread = a**2 + noise**2
    ordered(found)
    assert found.exact == pytest.approx(truth, abs=4 * found.exact_error + 0.02)
    assert truth - 0.05 < found.lower + 3 * found.lower_error
    assert found.exact - found.lower < 0.05
    excess = 0.5 * d * (spread - 1.0 - math.log(spread))  # KL(q(z) || p(z))
    assert found.upper == pytest.approx(truth + excess, abs=4 * found.upper_error)
    assert found.entropy is None and found.ceiling == pytest.approx(math.log(4000))


def test_prior_that_is_not_the_aggregated_posterior():
    x, z = gaussian_channel(1000, 1, a=3.0)
    prior = Normal(torch.zeros_like(x), torch.full_like(x, 9.25**0.5))  # q(z), but for its mean
    wide = vaereg.gaussian(3.0 * x, std=torch.full_like(x, 0.5), prior=prior)
    narrow, loose = mi_bracket(z, x, **FAST), mi_bracket(wide, x, **FAST)
    assert loose.upper < narrow.upper and loose.exact == narrow.exact
    ordered(narrow)
    ordered(loose)


def test_information_beyond_the_log_of_the_rows():
    """256 rows cannot show more than log 256 nats: said so, and the bracket still holds."""
    x, z = gaussian_channel(256, 8, noise=0.05)
    found = mi_bracket(z, x, epochs=30)
    ordered(found)
    assert found.exact == pytest.approx(math.log(256), abs=0.01) and found.upper > 15.0
    assert "of at most 5.545 that so many rows show" in str(found)


# The information of what is decoded is another quantity.


def test_collapsed_encoder_and_a_decoder_that_prints_the_code():
    k = 10
    x = torch.randn(2000, 5, generator=torch.Generator().manual_seed(1))
    model = Toy(
        lambda x: {"c": vaereg.categorical(torch.zeros(len(x), k), 0.5)},
        lambda values: values["c"] @ torch.linspace(-1.0, 1.0, 3 * k).view(k, 3),
    )
    found = mi_bracket(model, x, code="c", epochs=40)
    assert found.upper == pytest.approx(0.0, abs=1e-6) and abs(found.exact) < 1e-6
    assert found.lower == 0.0
    assert math.log(k) - 0.05 < found.decoded <= found.entropy
    assert found.decoded - 3 * found.decoded_error > found.upper + 2.0  # the point of the test


def test_collapsed_gaussian_and_a_decoder_that_prints_it():
    model = Toy(
        lambda x: {"z": vaereg.gaussian((0.0 * x, 0.0 * x))},
        lambda values: values["z"] + 0.1 * torch.randn_like(values["z"]),
    )
    found = mi_bracket(model, torch.randn(2000, 2), epochs=40)
    truth = math.log(1 + 1 / 0.1**2)  # of the noisy print, two coordinates
    assert found.upper == pytest.approx(0.0, abs=1e-6) and abs(found.lower) < 0.01
    assert truth - 0.5 < found.decoded < truth + 3 * found.decoded_error


@pytest.mark.parametrize("code", ["c", "z"])
def test_decoder_that_ignores_the_code(code):
    x, _ = channel(1000, 5, 0.1)
    other = {"z": "c", "c": "z"}[code]
    model = Toy(
        lambda x: {
            "z": vaereg.gaussian(x, std=torch.full_like(x, 0.3)),
            "c": vaereg.categorical(4.0 * x, 1.0),
        },
        lambda values: torch.randn(len(values[other]), 3) + 0.0 * values[other].sum(),
    )
    found = mi_bracket(model, x, code=code, **FAST)
    assert found.lower > 0.5
    assert found.decoded == found.decoded_error == 0.0


def test_decoded_values_of_codes_that_are_there():
    x, c = channel(1000, 4, 0.3)
    found = mi_bracket(c, x, code="c", decoded=c.value @ torch.randn(4, 6), epochs=40)
    assert found.entropy - 0.05 < found.decoded <= found.entropy
    assert found.decoded > found.upper
    nothing = mi_bracket(c, x, code="c", decoded=torch.zeros(1000, 6), **FAST)
    assert nothing.decoded == 0.0


# Models.


class Encoder(nn.Module):
    def __init__(self, features, d=3, k=4, scale=1.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.drop = nn.Dropout(0.5)
        self.z, self.c = nn.Linear(features, 2 * d), nn.Linear(features, k)
        with torch.no_grad():
            for p in (self.z.weight, self.c.weight):
                p.mul_(scale)

    def forward(self, x):
        h = self.drop(self.norm(x.flatten(1)))
        return {"z": vaereg.gaussian(self.z(h)), "c": vaereg.categorical(self.c(h), 0.5)}


def random_vae(seed, scale=1.0, features=6):
    torch.manual_seed(seed)
    objective = vaereg.Objective(kl=vaereg.KL(("z", "c")))
    return vaereg.VAE(
        Encoder(features, scale=scale), nn.Linear(7, features), objective, likelihood="gaussian"
    )


@pytest.mark.parametrize("seed, scale", [(0, 1.0), (1, 4.0), (2, 12.0), (3, 0.0)])
@pytest.mark.parametrize("code", ["z", "c", ("z[:2]", "c")])
def test_random_models_are_bracketed(seed, scale, code):
    found = mi_bracket(random_vae(seed, scale), torch.randn(600, 6), code=code, seed=seed, **FAST)
    ordered(found)
    if code == "c":
        assert found.lower <= found.exact + 1e-12 and found.exact <= found.upper + 1e-12
        assert found.decoded <= found.entropy
    assert all(math.isfinite(v) for v in (found.lower, found.upper, found.decoded))


def test_model_and_its_codes_agree():
    vae, x = random_vae(0, 4.0).eval(), torch.randn(400, 6)
    with torch.no_grad():
        codes = vae.encode(x)
    for code in ("z", "z[:2]", ("c", "z")):
        model, given = (mi_bracket(s, x, code=code, **FAST) for s in (vae, codes))
        for name in ("lower", "upper", "exact", "lower_error"):
            assert getattr(model, name) == pytest.approx(getattr(given, name), abs=1e-5)
        assert model.decoded is not None and given.decoded is None
    single = mi_bracket(codes["z"], x, **FAST)
    assert single == mi_bracket(codes, x, **FAST)


def test_nothing_of_the_model_or_of_the_world_moves():
    vae, x = random_vae(0), torch.randn(200, 6)
    vae.train()
    vae.decoder.eval()  # frozen by its owner
    before = {name: t.clone() for name, t in vae.state_dict().items()}
    critic = nn.Linear(6, 6)
    weights, state = critic.weight.clone(), torch.get_rng_state()
    first = mi_bracket(vae, x, critic=critic, **FAST)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(critic.weight, weights) and critic.weight.grad is None
    assert vae.training and vae.encoder.norm.training and not vae.decoder.training
    assert all(torch.equal(t, before[name]) for name, t in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())
    torch.randn(7)
    assert mi_bracket(vae, x, critic=critic, **FAST) == first
    assert mi_bracket(vae, x, critic=critic, seed=1, **FAST) != first


def test_mode_is_restored_after_an_error():
    vae = random_vae(0)
    with pytest.raises(ValueError, match=r"among the model's codes, \['c', 'z'\], got 'w'"):
        mi_bracket(vae, torch.randn(100, 6), code="w")
    assert vae.encoder.drop.training


def test_called_without_gradients():
    x, z = gaussian_channel(200, 1)
    plain = mi_bracket(z, x, **FAST)
    with torch.no_grad():
        assert mi_bracket(z, x, **FAST) == plain
    with torch.inference_mode():
        assert mi_bracket(z, x.clone(), **FAST) == plain


def test_a_part_is_the_code_of_its_coordinates():
    x, z = gaussian_channel(400, 3)
    part = vaereg.gaussian(x[:, [2, 0]], std=torch.full((400, 2), 0.5))
    found, alone = mi_bracket(z, x, code="z[2,0]", **FAST), mi_bracket(part, x, **FAST)
    assert found.upper == pytest.approx(alone.upper) and found.code == "z[2,0]"
    assert found.exact == pytest.approx(alone.exact)
    one = mi_bracket(z, x, code="z[-1:]", **FAST)
    assert one.upper < found.upper


def test_one_of_several_categorical_variables():
    x, c = channel(600, 3, 0.1)
    logits = torch.stack((c.q.mean.log(), 0.0 * x), 1)
    both = vaereg.categorical(logits, 1.0)
    assert mi_bracket(both, x, code="c[1]", **FAST).exact == pytest.approx(0.0, abs=1e-6)
    whole, first = (mi_bracket(both, x, code=name, **FAST) for name in ("c", "c[:1]"))
    assert whole.exact == pytest.approx(first.exact)  # the other holds nothing
    assert whole.entropy == pytest.approx(first.entropy + math.log(3), abs=1e-5)


def test_observed_variables_reach_encoder_and_decoder():
    class Conditional(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.net = nn.Linear(inputs, outputs)

        def forward(self, x, y):
            return self.net(torch.cat((x, y), 1))

    objective = vaereg.Objective(kl=vaereg.KL("z"))
    vae = vaereg.VAE(Conditional(6, 4), Conditional(4, 4), objective, likelihood="gaussian")
    x, y = torch.randn(200, 4), torch.eye(2).repeat(100, 1)
    ordered(mi_bracket(vae, x, y=y, **FAST))
    with pytest.raises(ValueError, match=r"y: expected as many rows as x, 200, got 7"):
        mi_bracket(vae, x, y=y[:7])
    with pytest.raises(ValueError, match="observed: expected no variables beside codes"):
        mi_bracket(vaereg.gaussian(x), x, y=y)


# Priors.


def test_conditional_priors_are_mixed():
    """The rate from p(z | y) bounds I(z; x | y), not I(z; x): with q = p(z | y) it is 0."""
    y = torch.arange(1000) % 2
    mean = (4.0 * y - 2.0)[:, None]
    prior = Normal(mean, torch.ones_like(mean))
    z = vaereg.gaussian(mean, std=torch.ones_like(mean), prior=prior)
    x = mean + 0.1 * torch.randn(1000, 1)
    found = mi_bracket(z, x, epochs=30)
    ordered(found)
    assert vaereg.KL("z")({"z": z}).item() == pytest.approx(0.0, abs=1e-6)
    assert found.exact > 0.5  # most of log 2
    # The mean is over the priors of rows that are not held out: 750 of two kinds.
    excess = found.upper - found.exact
    assert -4 * found.upper_error < excess < 4 * found.upper_error + 4 / 750
    x, c = channel(600, 3, 0.1)
    pi = c.q.mean
    own = vaereg.categorical(pi.log(), 1.0, prior=pi)
    found = mi_bracket(own, x, code="c", **FAST)
    ordered(found)
    # Shares of 450 rows against those of 150: half a chi-square of 2 degrees over each number.
    assert found.upper == pytest.approx(channel_mi(3, 0.1), abs=6 * (1 / 450 + 1 / 150))


def test_upper_bound_from_priors_of_rows_is_not_held_down_by_their_number():
    """With its own prior in the mean, no row's rate could exceed log N."""
    mean = torch.randn(1000, 4)
    std = torch.full_like(mean, 0.01)
    prior = Normal(mean, std)
    found = mi_bracket(vaereg.gaussian(mean, std=std, prior=prior), mean, **FAST)
    truth = 4 * 0.5 * math.log(1 + 1e4)
    assert found.upper - 3 * found.upper_error > truth > math.log(1000)
    ordered(found)


def test_a_bound_below_nothing_is_nothing():
    """Lower bounds are never below 0, which all information is above."""
    found = mi_bracket(vaereg.gaussian(torch.zeros(100, 2), std=torch.ones(100, 2)),
                       torch.randn(100, 3), epochs=1, lr=1.0)  # fmt: skip
    assert found.lower == 0.0 <= found.upper
    nothing = MIBracket(0.0, 0.0, 0.5, 0.1, 0.3, 0.1, None, None, None, None, 30, "z")
    assert str(nothing).startswith("0 (nothing read) <= I(z; x) = 0.300")


def test_decoded_values_that_are_not_finite_are_refused():
    x, c = channel(200, 3, 0.1)
    c = vaereg.categorical(c.q.mean.log(), 1.0, hard=True)
    broken = c.value.clone()
    broken[7, 0] = math.nan
    with pytest.raises(ValueError, match="decoded: expected finite values, got nan or inf"):
        mi_bracket(c, x, code="c", decoded=broken, **FAST)


def test_prior_of_another_family():
    x, _ = gaussian_channel(1000, 2)
    parts = Independent(Normal(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.ones(2, 2)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), parts)
    q = vaereg.gaussian(x, std=torch.full_like(x, 0.5), prior=mixture)
    found = mi_bracket(q, x, **FAST)
    ordered(found)
    fresh = q.q.rsample((200,))
    truth = (q.q.log_prob(fresh) - mixture.log_prob(fresh)).mean().item()
    assert found.upper == pytest.approx(truth, abs=4 * found.upper_error)
    with pytest.raises(TypeError, match="prior of the posterior's family to take part"):
        mi_bracket(q, x, code="z[:1]")
    moving = vaereg.gaussian(x, std=0.5 + 0 * x, prior=Laplace(x, torch.ones_like(x)))
    with pytest.raises(TypeError, match="expected one prior of 'z' for all rows, or"):
        mi_bracket(moving, x)


# The aggregated posterior.


def test_mixture_against_a_loop_in_pieces(monkeypatch):
    monkeypatch.setattr(module, "_COMPONENTS", 7)
    monkeypatch.setattr(module, "_PAIRS", 40)
    torch.manual_seed(1)
    mean, logvar = torch.randn(30, 2).double(), torch.randn(30, 2).double()
    logits = torch.randn(30, 2, 3).double().log_softmax(-1)
    families = [module.Family(True, logits, logits), module.Family(False, mean, logvar)]
    values = [family.rows(slice(11)).draw() for family in families]
    found = module.aggregated(families, values)
    for i in range(11):
        chosen = OneHotCategorical(logits=logits).log_prob(values[0][i]).sum(1)
        density = Normal(mean, (0.5 * logvar).exp()).log_prob(values[1][i]).sum(1)
        assert found[i].item() == pytest.approx(
            (chosen + density).logsumexp(0).item() - math.log(30)
        )
    alone = module.aggregated(families[:1], values[:1])
    chosen = OneHotCategorical(logits=logits).log_prob(values[0][4]).sum(1)
    assert alone[4].item() == pytest.approx(chosen.logsumexp(0).item() - math.log(30))


def test_many_joint_states_are_sampled(monkeypatch):
    x, c = channel(600, 3, 0.1)
    exact = mi_bracket(c, x, code="c", epochs=30)
    monkeypatch.setattr(module, "_STATES", 2)
    sampled = mi_bracket({"c": c, "d": c}, x, code=("c", "d"), epochs=30, draws=8)
    ordered(sampled)
    # Two reads of one symbol: from the table of their joint states.
    pi = torch.full((3, 3), 0.05).fill_diagonal_(0.9).double()
    joint = torch.einsum("xi,xj->xij", pi, pi)
    truth = (joint * (joint / joint.mean(0)).log()).sum((1, 2)).mean().item()
    assert truth > exact.exact
    assert sampled.exact == pytest.approx(truth, abs=4 * sampled.exact_error + 0.02)
    assert sampled.ceiling == pytest.approx(math.log(600))


def test_mirrored_draws():
    q = gaussian_channel(5, 2)[1].q.base_dist
    pair = module.Family(False, q.loc, 2 * q.scale.log())
    first = pair.draw()
    assert torch.allclose(0.5 * (first + pair.opposite(first)), q.loc, atol=1e-6)


def test_more_draws_less_noise():
    x, z = gaussian_channel(400, 2)
    one, two, many = (mi_bracket(z, x, draws=draws, **FAST) for draws in (1, 2, 16))
    assert many.exact_error < two.exact_error < one.exact_error


# Critics.


def test_critics_of_ones_own():
    torch.manual_seed(0)
    x = torch.randn(600, 1, 4, 4)
    z = vaereg.gaussian(x.flatten(1)[:, :2], std=torch.full((600, 2), 0.5))
    conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))

    def head(a, b):
        return vaereg.critics.GaussianHead(nn.Linear(a, b // 2), b // 2, variance="global")

    for critic in (conv, head, nn.Linear(16, 4)):
        found = mi_bracket(z, x, critic=critic, epochs=40, batch_size=64, lr=5e-3)
        ordered(found)
        assert found.lower > 0.8  # of 1.609
    with pytest.raises(ValueError, match=r"critic: expected 4 numbers a row .* got \(90, 3\)"):
        mi_bracket(z, x, critic=nn.Linear(16, 3), batch_size=64)
    with pytest.raises(TypeError, match=r"critic: expected a torch\.nn.Module or a factory"):
        mi_bracket(z, x, critic=lambda a, b: None)


def test_a_hopeless_critic_reads_nothing():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.size = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return 9.0 + 0.0 * self.size + 9.0 * torch.randn(len(x), 4)

    x, z = gaussian_channel(400, 2)
    for critic in (Noise(), nn.Sequential(nn.Linear(2, 4), nn.Threshold(math.inf, math.nan))):
        found = mi_bracket(z, x, critic=critic, **FAST)
        assert found.lower == 0.0 and found.exact > 1.4


def test_constant_and_tiny_columns():
    """Rounding noise of a constant pixel is no signal, whatever it goes along with."""
    x, z = gaussian_channel(400, 1)
    noisy = torch.cat((0.5 + 1e-8 * x, torch.zeros_like(x)), 1)
    assert mi_bracket(z, noisy, **FAST).lower == 0.0


# The report.


def test_report():
    found = MIBracket(0.69, 0.01, 1.0, 0.02, 0.7, 0.01, None, None, None, 5.0, 10, "z")
    assert str(found) == (
        "0.690 ± 0.010 <= I(z; x) = 0.700 ± 0.010 <= 1.000 ± 0.020 nats (10 rows held out)"
    )
    bits = found.in_bits()
    assert bits.upper == pytest.approx(1 / math.log(2)) and bits.unit == "bits"
    assert bits.decoded is None and bits.ceiling == pytest.approx(5 / math.log(2))
    assert bits.in_bits() is bits and "bits" in str(bits)
    assert not MIBracket(1.0, 0.1, 0.6, 0.1, 0.7, 0.1, None, None, None, None, 10, "z").consistent


def test_progress(capsys):
    x, z = gaussian_channel(100, 1)
    mi_bracket(z, x, decoded=z.value, progress=True, epochs=2)
    assert "mi_bracket" in capsys.readouterr().err


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    x, z = gaussian_channel(100, 1)
    with pytest.raises(ImportError, match="pip install tqdm"):
        mi_bracket(z, x, progress=True)


# What is refused.


def bad(**changes):
    x, z = gaussian_channel(100, 4)
    return {"source": z, "x": x, **changes}


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": torch.zeros(100)}, ValueError, r"x: expected a tensor of shape \(N, \*event\)"),
        ({"x": torch.zeros(40, 4)}, ValueError, "x: expected at least 54 rows, got 40"),
        ({"x": torch.full((100, 4), math.nan)}, ValueError, "x: expected finite values"),
        ({"x": torch.zeros(90, 4)}, ValueError, "expected 'z' of as many rows as x, 90, got 100"),
        ({"draws": 0}, ValueError, "draws: expected at least 1, got 0"),
        ({"split": (0.5, 0.5)}, ValueError, "split: expected three positive fractions"),
        ({"split": (0.94, 0.03, 0.03)}, ValueError, "split: expected at least 8 rows in each"),
        ({"code": "z[9]"}, ValueError, r"expected part 'z\[9\]' inside of 'z' of width 4"),
        ({"code": "z[:9]"}, ValueError, r"expected part 'z\[:9\]' inside of 'z' of width 4"),
        ({"code": "z[a]"}, ValueError, r"code: expected a part like 'z\[:2\]'"),
        ({"code": "z]"}, ValueError, r"code: expected a name like 'z' or a part"),
        ({"code": "z[1-]"}, ValueError, r"code: expected a part like 'z\[:2\]'"),
        ({"code": ("z", "c")}, ValueError, "expected 'c' among the codes"),
        ({"code": ("z", "z[0]")}, ValueError, "code: expected each variable once"),
        ({"code": 3}, TypeError, "code: expected a variable name or a tuple of names, got 3"),
        ({"source": 3}, TypeError, "source: expected a model with encode, a Code or codes"),
        ({"source": {"z": 3}}, TypeError, "source: expected 'z' to be a Code, got int"),
        ({"decoded": torch.zeros(7, 4)}, ValueError, r"decoded: expected a tensor of shape \(100"),
        (
            {"source": vaereg.deterministic(torch.zeros(100, 4))},
            TypeError,
            "expected 'z' with a posterior q",
        ),
        (
            {"source": vaereg.Code(torch.zeros(100, 1), Normal(torch.zeros(100, 1), 1.0))},
            TypeError,
            "expected 'z' with a prior p",
        ),
        (
            {"source": vaereg.gaussian(Laplace(torch.zeros(100, 4), 1.0))},
            TypeError,
            "a factorised Gaussian or a categorical posterior, got Laplace",
        ),
        (
            {"source": vaereg.gaussian((torch.full((100, 2), math.nan), torch.zeros(100, 2)))},
            ValueError,
            "expected 'z' with finite parameters",
        ),
        (
            {"source": vaereg.categorical(torch.zeros(100, 4), 1.0), "code": "z[:2]"},
            ValueError,
            "expected a categorical variable as a whole",
        ),
        (
            {
                "source": vaereg.categorical(torch.zeros(100, 4), 1.0),
                "decoded": torch.zeros(100, 4),
            },
            ValueError,
            r"expected one-hot values of 'z' \(hard=True\)",
        ),
    ],
)
def test_refused(changes, error, message):
    with pytest.raises(error, match=message):
        mi_bracket(**bad(**changes))


def test_models_that_are_none():
    x = torch.randn(100, 2)
    with pytest.raises(TypeError, match="source: expected encode to return codes by name"):
        mi_bracket(Toy(lambda x: x), x)

    def code(x):
        return {"z": vaereg.gaussian((x, x))}

    with pytest.raises(ValueError, match=r"decoded: expected a tensor of shape \(100, \*event\)"):
        mi_bracket(Toy(code, lambda values: 1.0), x)
    with pytest.raises(ValueError, match="decoded: expected None beside a model"):
        mi_bracket(Toy(code), x, decoded=x)


def test_a_misspelt_option_is_no_observed_variable():
    encoder, decoder = nn.Linear(4, 4), nn.Linear(2, 4)
    vae = vaereg.VAE(encoder, decoder, vaereg.Objective(kl=vaereg.KL("z")), likelihood="gaussian")
    with pytest.raises(TypeError, match="epoch: expected an option, or a variable that the model"):
        mi_bracket(vae, torch.randn(100, 4), epoch=3)
    with pytest.raises(ValueError, match=r"among the model's codes, \['z'\], got 'q'"):
        mi_bracket(vae, torch.randn(100, 4), code="q", **FAST)
