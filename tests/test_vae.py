"""The thin module: any encoder, any decoder, one objective."""

from __future__ import annotations

import inspect
import math
import warnings

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

import vaereg
from vaereg import critics


def objective(**terms):
    return vaereg.Objective(kl=vaereg.KL("z"), **terms)


class Encoder(nn.Module):
    """Any output form, by name."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.map = nn.Linear(6, 4)

    def forward(self, x):
        params = self.map(x)
        mean, logvar = params.chunk(2, 1)
        normal = Normal(mean, (0.5 * logvar).exp())
        return {
            "tensor": params,
            "pair": (mean, logvar),
            "list": [mean, logvar],
            "mapping": {"mean": mean, "logvar": logvar},
            "distribution": normal,
            "independent": Independent(normal, 1),
            "code": vaereg.gaussian(mean, logvar),
            "named": {"z": params},
            "named codes": {"z": vaereg.gaussian(params)},
        }[self.form]


FORMS = ["tensor", "pair", "list", "mapping", "distribution", "independent", "code", "named",
         "named codes"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_the_encoders_output(form):
    vae = vaereg.VAE(Encoder(form), nn.Linear(2, 6), objective(), likelihood="gaussian")
    x = torch.rand(8, 6)
    out = vae(x)
    out.loss.backward()
    mean, logvar = vae.encoder.map(x).chunk(2, 1)
    kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1.0).sum(1).mean()
    torch.testing.assert_close(out.report.values["kl"], kl.detach())
    assert all(p.grad is not None for p in vae.parameters())


def test_no_code_is_an_error_that_names_it():
    vae = vaereg.VAE(nn.Linear(6, 3), nn.Linear(2, 6), objective())
    with pytest.raises(ValueError, match=r"code 'z': gaussian: .* got \(8, 3\)"):
        vae(torch.rand(8, 6))
    vae = vaereg.VAE(_Returns("text"), nn.Linear(2, 6), objective())
    with pytest.raises(TypeError, match=r"code 'z'.*got str"):
        vae(torch.rand(8, 6))


class _Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


# ---- names


class Conditional(nn.Module):
    """q(c | x, y) with the prior p(c | y), and q(z | x)."""

    def __init__(self):
        super().__init__()
        self.z = nn.Linear(6, 4)
        self.c = nn.Linear(6 + 2, 4)
        self.prior = nn.Linear(2, 2)

    def forward(self, x, y):
        center = self.prior(y)
        prior = Independent(Normal(center, torch.ones_like(center)), 1)
        c = vaereg.gaussian(self.c(torch.cat((x, y), 1)), prior=prior)
        return {"z": self.z(x), "c": c}


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, *, c, y, z):
        return self.map(torch.cat((z, c, y), 1))


class Joint(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.map = nn.Linear(width, 6)
        self.seen = []

    def forward(self, hidden):
        self.seen.append(hidden.detach())
        return self.map(hidden)


def test_named_variables_and_a_conditional_prior():
    terms = vaereg.Objective(z=vaereg.KL("z"), c=vaereg.KL("c"))
    vae = vaereg.VAE(Conditional(), ByName(), terms)
    y = vaereg.labels(torch.arange(8) % 2, 2)
    out = vae(torch.rand(8, 6), y=y)
    out.loss.backward()
    assert list(out.codes) == ["z", "c"]
    assert set(out.batch) == {"x", "y", "z", "c", "x_hat"}
    # The conditional prior learns from the KL of c alone.
    q, p = out.codes["c"].q, out.codes["c"].p
    expected = torch.distributions.kl_divergence(q, p).mean()
    torch.testing.assert_close(out.report.values["c"], expected.detach())
    assert vae.encoder.prior.weight.grad.abs().sum() > 0


def test_decoder_without_named_codes_reads_them_joined_in_the_encoders_order():
    terms = vaereg.Objective(z=vaereg.KL("z"), c=vaereg.KL("c"))
    vae = vaereg.VAE(Conditional(), Joint(4), terms)
    y = vaereg.labels(torch.arange(8) % 2, 2)
    out = vae(torch.rand(8, 6), y=y)
    joined = torch.cat((out.codes["z"].value, out.codes["c"].value), 1)
    assert torch.equal(vae.decoder.seen[0], joined.detach())


def test_missing_names():
    terms = vaereg.Objective(z=vaereg.KL("z"), c=vaereg.KL("c"))
    with pytest.raises(ValueError, match=r"encoder asks for \['y'\]"):
        vaereg.VAE(Conditional(), Joint(4), terms)(torch.rand(8, 6))
    with pytest.raises(ValueError, match=r"decoder asks for \['c', 'y'\]"):
        vaereg.VAE(Encoder("tensor"), ByName(), objective())(torch.rand(8, 6))


def test_one_name_for_a_code_and_an_observed_variable():
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective())
    with pytest.raises(ValueError, match=r"different names, got \['z'\] twice"):
        vae(torch.rand(8, 6), z=torch.zeros(8, 2))


class Stepped(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(6, 4)

    def forward(self, x, step=0):
        return {"c": vaereg.categorical(self.map(x), 1.0 / (1.0 + step))}


def test_encoder_may_ask_for_the_step():
    vae = vaereg.VAE(Stepped(), nn.Linear(4, 6), vaereg.Objective(kl=vaereg.KL("c")))
    x = torch.rand(256, 6)
    soft = vae(x, step=0).codes["c"].value.max(1).values.mean()
    sharp = vae(x, step=50).codes["c"].value.max(1).values.mean()
    assert sharp > soft + 0.1


def test_wrapped_encoder_keeps_its_signature():
    """A parallel wrapper hides the signature behind ``*args, **kwargs``."""
    inner = Conditional()

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, *args, **kwargs):
            return self.module(*args, **kwargs)

    terms = vaereg.Objective(z=vaereg.KL("z"), c=vaereg.KL("c"))
    vae = vaereg.VAE(Wrapper(inner), Wrapper(Joint(4)), terms)
    y = vaereg.labels(torch.arange(8) % 2, 2)
    assert vae(torch.rand(8, 6), y=y, extra=torch.zeros(8, 1)).loss.ndim == 0
    compiled = vaereg.VAE(torch.compile(nn.Linear(6, 4), backend="eager"), Joint(2), objective())
    assert compiled(torch.rand(8, 6), y=y).loss.ndim == 0


# ---- the likelihood


def test_likelihoods():
    x = torch.rand(8, 6)
    forms = {
        "bernoulli": lambda out: nn.functional.binary_cross_entropy_with_logits(
            out, x, reduction="sum"
        ) / 8,
        "gaussian": lambda out: -Normal(out, 1.0).log_prob(x).sum(1).mean(),
    }  # fmt: skip
    for name, slow in forms.items():
        vae = vaereg.VAE(nn.Linear(6, 4), Joint(2), objective(), likelihood=name)
        out = vae(x)
        raw = vae.decoder.map(out.codes["z"].value)
        torch.testing.assert_close(out.nll, slow(raw))
        torch.testing.assert_close(out.x_hat, raw.sigmoid() if name == "bernoulli" else raw)
        torch.testing.assert_close(out.loss, out.nll + out.report.total)


def test_callable_likelihood_by_row_or_scalar():
    def rows(out, x):
        return (out - x).abs().sum(1)

    x = torch.rand(8, 6)
    values = []
    for function in (rows, lambda out, x: rows(out, x).mean()):
        torch.manual_seed(1)
        vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(), likelihood=function)
        values.append(vae(x).nll)
    assert torch.equal(*values)
    wrong = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(), likelihood=lambda o, x: o)
    with pytest.raises(ValueError, match=r"a scalar or \(8,\), got \(8, 6\)"):
        wrong(x)


def test_refused_parts():
    with pytest.raises(TypeError, match="encoder to be a torch"):
        vaereg.VAE(lambda x: x, nn.Linear(2, 6), objective())
    with pytest.raises(TypeError, match=r"objective to be a vaereg.Objective"):
        vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), vaereg.KL("z"))
    with pytest.raises(ValueError, match="got 'poisson'"):
        vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(), likelihood="poisson")
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 5), objective())
    with pytest.raises(ValueError, match=r"shape \(8, 5\), got \(8, 6\)"):
        vae(torch.rand(8, 6))


# ---- encode, decode, sample


def test_encode_and_decode():
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective())
    x = torch.rand(8, 6)
    code = vae.encode(x)["z"]
    torch.testing.assert_close(vae.decode({"z": code}), vae.decoder(code.value).sigmoid())
    assert torch.equal(vae.decode(code.value), vae.decode({"z": code.value}))


def test_sample():
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Identity(), objective(), likelihood=lambda o, x: o.sum(1))
    with pytest.raises(ValueError, match="forward pass before sample"):
        vae.sample(3)
    vae(torch.rand(8, 6))
    draws = vae.sample(20_000)
    # 20,000 standard normals: the mean's standard error is 0.007, the deviation's 0.005.
    assert draws.shape == (20_000, 2)
    assert draws.mean(0).abs().max() < 0.04 and (draws.std(0) - 1.0).abs().max() < 0.03
    shared = Normal(torch.full((2,), 5.0), torch.full((2,), 0.01))
    for prior in (shared, Independent(shared, 1), Independent(shared.expand((4, 2)), 1)):
        found = vae.sample(4, priors={"z": prior})
        assert found.shape == (4, 2) and (found - 5.0).abs().max() < 0.1
        assert found.std() > 0
    with pytest.raises(ValueError, match=r"priors among \['z'\], got \['w'\]"):
        vae.sample(4, priors={"w": Normal(0.0, 1.0)})
    with pytest.raises(ValueError, match="prior of code 'z' of shape"):
        vae.sample(4, priors={"z": Normal(torch.zeros(3), torch.ones(3))})


# ---- checks


def test_first_batch_is_validated_and_later_ones_are_not_read():
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(), likelihood="gaussian")
    bad = torch.full((8, 6), math.nan)
    with pytest.raises(ValueError, match="expected finite values in x, got nan or inf"):
        vae(bad)
    vae(torch.rand(8, 6))
    out = vae(bad)
    assert out.loss.isnan()
    with pytest.raises(ValueError, match="expected finite values in x, got nan or inf"):
        out.report.scalars()


def test_a_label_out_of_range_is_found_through_the_report():
    term = vaereg.MINE("z", "y", critic=critics.mlp(4, 1, width=8))
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(leak=term), likelihood="gaussian")
    x, y = torch.rand(8, 6), torch.arange(8) % 2
    vae(x, y=vaereg.labels(y, 2)).report.scalars()
    out = vae(x, y=vaereg.labels(y * 2, 2))
    with pytest.raises(ValueError, match=r"'y', got NaN.*label out of range"):
        out.report.scalars()


def test_main_parameters_hold_no_critic():
    term = vaereg.MINE("z", "y", critic=critics.mlp(4, 1, width=8))
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(leak=term))
    mine = {id(p) for p in vae.main_parameters()}
    assert mine == {id(p) for p in (*vae.encoder.parameters(), *vae.decoder.parameters())}


def test_the_loop_of_the_readme():
    """Loss falls, the critic is fitted by its own steps, and only by those."""
    torch.manual_seed(1)
    term = vaereg.MINE("z", "y", critic=critics.mlp(4, 1, width=8))
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective(leak=(0.1, term)))
    main = torch.optim.Adam(vae.main_parameters(), 1e-2)
    critic = vae.objective.critic_optimizer(torch.optim.Adam, lr=1e-2)
    bits = torch.randint(2, (64,))
    x = (bits[:, None] ^ torch.tensor([0, 0, 0, 1, 1, 1])).float()
    losses = []
    for step in range(300):
        out = vae(x, y=vaereg.labels(bits, 2), step=step)
        main.zero_grad()
        out.loss.backward()
        assert all(p.grad is None for p in vae.objective.critic_parameters())
        main.step()
        vae.objective.critic_step(out.batch, critic)
        losses.append(out.report.scalars()["total"] + out.nll.item())
    # The data hold one bit: the bound cannot pass log 2, and a constant decoder pays 6 log 2.
    assert losses[-1] < 0.6 * losses[0] and min(losses) > 0.5 * math.log(2.0)


def test_signature_is_read_once():
    assert "x" in inspect.signature(vaereg.VAE.forward).parameters
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective())
    vae.encoder = nn.Linear(6, 4)  # a network of the same convention may be put in its place
    assert vae(torch.rand(2, 6)).loss.ndim == 0


def test_a_conditional_prior_is_asked_for():
    """A code whose prior is p(c | y) must not be sampled from the standard normal silently."""

    class TwoCodes(nn.Module):
        def forward(self, x, y):
            prior = Independent(Normal(3.0 * y, torch.ones_like(y)), 1)
            return {"z": x[:, :4], "c": vaereg.gaussian(x[:, 4:8], prior=prior)}

    class Sum(nn.Module):
        def forward(self, z, c):
            return torch.cat((z, c), 1)

    objective = vaereg.Objective(kl=vaereg.KL(("z", "c")))
    vae = vaereg.VAE(TwoCodes(), Sum(), objective, likelihood=lambda out, x: out.sum(1) * 0.0)
    vae.register_parameter("unused", nn.Parameter(torch.zeros(())))
    y = vaereg.labels(torch.tensor([0, 1, 0]), 2)
    vae(torch.randn(3, 8), y=y)
    with pytest.raises(ValueError, match="expected a prior for code 'c'"):
        vae.sample(3)
    prior = Normal(3.0 * y, 0.001 * torch.ones_like(y))
    drawn = vae.sample(3, priors={"c": prior})
    assert drawn.shape == (3, 4) and torch.allclose(drawn[:, 2:], 3.0 * y, atol=0.01)


def test_a_decoder_that_drops_a_code_is_refused():
    class OnlyZ(nn.Module):
        def forward(self, z):
            return z

    class TwoCodes(nn.Module):
        def forward(self, x):
            return {"z": x[:, :4], "c": x[:, 4:8]}

    objective = vaereg.Objective(kl=vaereg.KL("z"))
    vae = vaereg.VAE(TwoCodes(), OnlyZ(), objective, likelihood="gaussian")
    with pytest.raises(ValueError, match=r"leaves out \['c'\]"):
        vae(torch.randn(3, 8))


def test_a_network_given_as_a_term_is_not_trained():
    class Distance(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(6, 4)

        def forward(self, batch):
            return (self.net(batch["x"]) - self.net(batch["x_hat"])).square().sum(1).mean()

    distance = Distance()
    objective = vaereg.Objective(kl=vaereg.KL("z"), distance=distance)
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective, likelihood="gaussian")
    assert not {id(p) for p in distance.parameters()} & {id(p) for p in vae.main_parameters()}
    assert vae(torch.rand(8, 6)).report.values["distance"] > 0


def test_evaluation_of_a_single_row_is_no_error():
    objective = vaereg.Objective(
        kl=vaereg.KL("z"), leak=vaereg.MINE("z", "y", critic=critics.mlp(4, 1))
    )
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective, likelihood="gaussian").eval()
    out = vae(torch.rand(1, 6), y=vaereg.labels(torch.tensor([1]), 2))
    assert out.report.scalars()["leak"] == 0.0


def test_data_outside_of_the_likelihoods_range_are_named():
    vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), objective())
    with pytest.raises(ValueError, match=r"x in \[0, 1\] for the Bernoulli.*from 0 to 16"):
        vae(torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 16.0]] * 8))
    vae.eval()
    assert vae(torch.full((8, 6), 2.0)).loss.isfinite()  # an evaluation raises nothing


def test_several_categorical_variables_beside_a_gaussian_code():
    class Encoder(nn.Module):
        def forward(self, x):
            c = vaereg.categorical(x.view(-1, 2, 3), temperature=0.5)
            return {"z": vaereg.gaussian(x[:, :4]), "c": c}

    terms = vaereg.Objective(z=vaereg.KL("z"), c=vaereg.KL("c"))
    decoder = nn.Linear(2 + 6, 6)
    vae = vaereg.VAE(Encoder(), decoder, terms, likelihood="gaussian")
    out = vae(torch.randn(8, 6))
    joined = torch.cat([out.codes["z"].value, out.codes["c"].value.flatten(1)], 1)
    assert torch.equal(out.x_hat, decoder(joined))


def test_a_shared_network_that_nothing_trains_is_warned_of():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return {"c": vaereg.categorical(self.head(x), temperature=0.5)}

    def model(critic, shared=True):
        mi = vaereg.VariationalMI("c", "x_hat", critic=critic, shared=shared)
        return vaereg.VAE(
            encoder, nn.Linear(3, 6), vaereg.Objective(c=vaereg.KL("c"), mi=(-1.0, mi))
        )

    encoder = Encoder()
    with pytest.warns(UserWarning, match="'mi' shares is part of neither encoder nor decoder"):
        model(nn.Linear(6, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(encoder.head)
        model(nn.Linear(6, 3), shared=False)


def test_observed_names_what_the_networks_ask_for():
    vae = vaereg.VAE(Conditional(), ByName(), vaereg.Objective(z=vaereg.KL("z"), c=vaereg.KL("c")))
    assert vae.observed == {"c", "y", "z"}
    leak = vaereg.MINE("z", "w", critic=critics.mlp(3, 1))
    assert vaereg.VAE(Conditional(), ByName(), leak - vaereg.KL("z")).observed > {"w", "y"}
    terms = vaereg.Objective(kl=vaereg.KL("z"), own=lambda batch: batch["any"].mean())
    assert vaereg.VAE(Conditional(), ByName(), terms).observed is None
