"""Discriminators: total correlation by density ratios, and games of fake against real rows."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import integrate
from torch import nn
from torch.distributions import Normal

import vaereg
from vaereg import critics
from vaereg.regularizers.adversarial import Adversary, DensityRatioTC
from vaereg.testing import RegularizerContract

pytestmark = pytest.mark.usefixtures("one_thread")

RHO = 0.6
TC = 0.859626  # -log det R / 2 of the equicorrelated R in four dimensions
LOSSES = ["nonsaturating", "hinge", "js"]


def leaves(rows, event, dtype, generator):
    mean = torch.randn(rows, *event, dtype=dtype, generator=generator).requires_grad_()
    logvar = (0.3 * torch.randn(rows, *event, dtype=dtype, generator=generator)).requires_grad_()
    return mean, logvar


# ---- the contract


class OneCode(RegularizerContract):
    reads_other = False

    def batch(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (3,), dtype, generator)
        return {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]

    def image_case(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (2, 3, 3), dtype, generator)
        return self.over(18), {"z": vaereg.gaussian((mean, logvar))}, [mean, logvar]


class TestDensityRatioTC(OneCode):
    def over(self, width):
        return DensityRatioTC("z", critic=critics.mlp(width, 2, width=8, spectral_norm=True))

    def make(self):
        return self.over(3)


class TestAdversaryAgainstThePrior(OneCode):
    def over(self, width):
        return Adversary(None, "z", critic=critics.mlp(width, 1, width=8))

    def make(self):
        return self.over(3)


class TestAdversaryOfJoints(RegularizerContract):
    """The game of ALI: (x, z) against (x_g, c), both sides with a graph."""

    reads_other = False

    def make(self):
        critic = critics.mlp(4 + 3, 1, width=8)
        return Adversary(("x", "z"), ("x_g", "c"), critic=critic, loss="js")

    def batch(self, rows, *, dtype, generator):
        mean, logvar = leaves(rows, (3,), dtype, generator)
        x_g = torch.randn(rows, 4, dtype=dtype, generator=generator).requires_grad_()
        x, c = (torch.randn(rows, d, dtype=dtype, generator=generator) for d in (4, 3))
        batch = {"x": x, "z": vaereg.gaussian((mean, logvar)), "x_g": x_g, "c": c}
        return batch, [mean, logvar, x_g]

    def test_row_mismatch_is_named(self):
        """The parts of one side must agree in rows; the two sides may differ."""
        term, batch, _ = self._case()
        longer, _ = self._batch(self.rows + 3)
        assert term({**batch, "x_g": longer["x_g"], "c": longer["c"]}).isfinite()
        for name in batch:
            with pytest.raises(ValueError, match=f"'{name}': {self.rows + 3}"):
                term({**batch, name: longer[name]})


class Pair(nn.Module):
    """A critic of an image and a code."""

    def __init__(self):
        super().__init__()
        self.image, self.code = nn.Conv2d(1, 2, 3), nn.Linear(3, 2)

    def forward(self, x, z):
        return (self.image(x).mean((2, 3)) * self.code(z)).sum(1)


class TestAdversaryOfPairs(TestAdversaryOfJoints):
    """A critic of two arguments; hinge, the fake side alone."""

    checks_width = False  # a critic of unknown width

    def make(self):
        return Adversary(("x", "z"), ("x_g", "c"), critic=Pair(), loss="hinge")

    def batch(self, rows, *, dtype, generator):
        batch, found = super().batch(rows, dtype=dtype, generator=generator)
        x, x_g = (batch[name].unflatten(1, (1, 2, 2)) for name in ("x", "x_g"))
        pad = (0, 1, 0, 1)
        return {**batch, "x": F.pad(x, pad), "x_g": F.pad(x_g, pad)}, [found[2]]


# ---- total correlation: values


class Fixed(nn.Module):
    """Logits that are a given function of the rows."""

    def __init__(self, function):
        super().__init__()
        self.function, self.shift = function, nn.Parameter(torch.tensor(0.0))

    def forward(self, *parts):
        return self.function(*parts) + self.shift


class Spy(nn.Module):
    """Remembers what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, z):
        self.rows = z
        return self.weight * z[:, 0]


def two(rows):
    return torch.stack((rows[:, 0], 0.5 * rows[:, 1] ** 2), 1)


def test_value_is_the_difference_of_the_logits():
    z = torch.randn(7, 2)
    for function in (two, lambda r: (two(r)[:, 0] - two(r)[:, 1]).unsqueeze(1)):
        value = DensityRatioTC("z", critic=Fixed(function))({"z": z})
        slow = sum(a - 0.5 * b * b for a, b in z.tolist()) / 7
        assert value.item() == pytest.approx(slow, abs=1e-6)


def test_critic_loss_is_half_of_two_cross_entropies():
    z, other = torch.randn(7, 2), torch.randn(5, 1).expand(5, 2)
    # Two columns of a common value: permuted, they are the only rows that can be told.
    term = DensityRatioTC("z", critic=Fixed(two))
    torch.manual_seed(3)
    found = term.critic_loss({"z": z}, other={"z": other})
    torch.manual_seed(3)
    spy = DensityRatioTC("z", critic=Spy())
    spy.critic_loss({"z": z}, other={"z": other})
    product = spy.critic.rows[7:]
    one, zero = torch.ones(5, dtype=torch.long), torch.zeros(7, dtype=torch.long)
    expected = 0.5 * (F.cross_entropy(two(z), zero) + F.cross_entropy(two(product), one))
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("foreign", [False, True])
def test_permuted_rows(foreign):
    """Every column keeps its values; rows are torn apart; each column has an order of its own."""
    z = torch.arange(100.0).unsqueeze(1) + torch.tensor([0.0, 1000.0, 2000.0])
    other = {"z": 5000.0 + z[:60]} if foreign else None
    source = z if other is None else other["z"]
    term = DensityRatioTC("z", critic=Spy())
    orders = []
    for _ in range(2):
        term.critic_loss({"z": z}, other=other)
        rows = term.critic.rows
        assert torch.equal(rows[:100], z)
        product = rows[100:]
        assert product.shape == source.shape
        assert torch.equal(product.sort(0).values, source)
        index = product - source[0]
        kept = (index == index[:, :1]).all(1).float().mean()
        assert kept < 0.05  # one in 10^4 by chance
        orders.append(index)
    assert not torch.equal(*orders)
    pairs = (orders[0][:, 0] == orders[0][:, 1]).float().mean()
    assert pairs < 0.1


def test_permutation_is_uniform():
    """Of three rows, each of the 6 x 6 pairs of orders comes as often."""
    term = DensityRatioTC("z", critic=Spy())
    z = torch.arange(3.0).unsqueeze(1).expand(3, 2)
    counts = {}
    for _ in range(1800):
        term.critic_loss({"z": z})
        key = tuple(term.critic.rows[3:].T.flatten().tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 36
    chi = sum((n - 50.0) ** 2 / 50.0 for n in counts.values())
    assert chi < 80.0  # 35 degrees of freedom: 1 in 10^4


def test_critic_sees_detached_rows_and_the_value_moves_the_code_alone():
    z = torch.randn(6, 2, requires_grad=True)
    other = torch.randn(6, 2, requires_grad=True)
    term = DensityRatioTC("z", critic=critics.mlp(2, 2, width=8))
    term.critic_loss({"z": z}, other={"z": other}).backward()
    assert z.grad is None and other.grad is None
    term.zero_grad()
    term({"z": z}, other={"z": other}).backward()
    assert z.grad.any() and other.grad is None
    assert all(p.grad is None for p in term.critic_parameters())


def test_where_no_row_can_be_permuted():
    term = DensityRatioTC("z", critic=critics.mlp(2, 2, width=8))
    one, many = torch.randn(1, 2), torch.randn(5, 2)
    for batch, other in ((one, None), (many, one)):
        other = None if other is None else {"z": other}
        loss = term.critic_loss({"z": batch}, other=other)
        loss.backward()
        assert loss.item() == 0.0
        assert not any(p.grad.any() for p in term.critic_parameters())
        assert term.diagnostics({"z": batch}, other=other) == {}
    assert term.critic_loss({"z": one}, other={"z": many}).item() > 0.0


def test_diagnostics_of_the_discriminator():
    z = torch.arange(-50.0, 50.0).unsqueeze(1).expand(100, 2)
    # Joint rows have equal columns.
    knowing = DensityRatioTC("z", critic=Fixed(lambda r: 0.5 - (r[:, 0] - r[:, 1]).abs()))
    shown = knowing.diagnostics({"z": z})
    assert shown["accuracy_joint"].item() == 1.0 and shown["accuracy_product"].item() > 0.9
    blind = DensityRatioTC("z", critic=Fixed(lambda r: 0.0 * r[:, 0])).diagnostics({"z": z})
    assert blind["accuracy"].item() == 0.5


# ---- total correlation: truth


def equicorrelated(rows):
    return RHO**0.5 * torch.randn(rows, 1) + (1.0 - RHO) ** 0.5 * torch.randn(rows, 4)


class Oracle(nn.Module):
    """log p(z) / prod p(z_d) of the equicorrelated Gaussian."""

    def __init__(self):
        super().__init__()
        precision = torch.linalg.inv(RHO * torch.ones(4, 4) + (1.0 - RHO) * torch.eye(4))
        self.form = nn.Parameter(torch.eye(4) - precision)

    def forward(self, z):
        return TC + 0.5 * ((z @ self.form) * z).sum(1)


def test_stated_truth():
    correlation = RHO * torch.ones(4, 4).double() + (1.0 - RHO) * torch.eye(4).double()
    assert -0.5 * correlation.logdet().item() == pytest.approx(TC, abs=1e-6)


def test_oracle_reads_the_truth():
    term = DensityRatioTC("z", critic=Oracle())
    values = torch.stack([term({"z": equicorrelated(500)}).detach() for _ in range(40)])
    assert abs(values.mean().item() - TC) < 4.0 * values.std().item() / 40.0**0.5 < 0.1
    # It is the minimum of the fitting loss: a ratio off in scale, or in level, is worse.
    batch, other = {"z": equicorrelated(50_000)}, {"z": equicorrelated(50_000)}
    losses = {}
    for scale, level in ((1.0, 0.0), (0.5, 0.0), (2.0, 0.0), (1.0, 0.5), (1.0, -0.5)):
        critic = Fixed(lambda z, scale=scale, level=level: scale * Oracle()(z) + level)
        torch.manual_seed(0)
        term = DensityRatioTC("z", critic=critic)
        losses[scale, level] = term.critic_loss(batch, other=other).item()
    assert min(losses, key=losses.get) == (1.0, 0.0)


def test_fitted_discriminator_reads_the_total_correlation():
    """On fresh rows, 0.860 nats within 0.07; a critic that is short of fitted reads too little."""
    term = DensityRatioTC("z", critic=critics.mlp(4, 2, width=64, activation="silu"))
    steps, rows = 700, 1024
    optimizer = torch.optim.Adam(term.critic_parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        term.critic_loss({"z": equicorrelated(rows)}, other={"z": equicorrelated(rows)}).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = term({"z": equicorrelated(20_000)}).item()
    assert found == pytest.approx(TC, abs=0.07)


def test_as_a_penalty_it_decorrelates():
    """A rotation of two independent variables of unequal variance: the factorised angle."""
    angle = nn.Parameter(torch.tensor(0.6))
    x = torch.randn(2048, 2) * torch.tensor([2.0, 0.5])
    term = DensityRatioTC("z", critic=critics.mlp(2, 2, width=32))
    objective = vaereg.Objective(tc=term)
    ascent = objective.critic_optimizer(torch.optim.Adam, lr=5e-3)
    main = torch.optim.Adam([angle], 1e-2)
    for _ in range(300):
        c, s = angle.cos(), angle.sin()
        rows = x[torch.randint(2048, (128,))]
        z = torch.stack((c * rows[:, 0] - s * rows[:, 1], s * rows[:, 0] + c * rows[:, 1]), 1)
        for _ in range(2):
            objective.critic_step({"z": z}, ascent)
        main.zero_grad()
        objective({"z": z}).total.backward()
        main.step()
    assert abs(angle.item()) < 0.12


# ---- the game: values


def scored(real, fake, **options):
    """A term whose logits are the variables themselves."""
    term = Adversary("r", "f", critic=Fixed(lambda x: x[:, 0]), **options)
    return term, {"r": torch.tensor(real).unsqueeze(1), "f": torch.tensor(fake).unsqueeze(1)}


def zeta(s):
    return math.log1p(math.exp(s))


@pytest.mark.parametrize("sides", ["fake", "both"])
@pytest.mark.parametrize("loss", LOSSES)
def test_against_the_equations(loss, sides):
    real, fake = [0.3, -1.7, 2.2], [0.1, -0.4, 1.3, -2.0]
    term, batch = scored(real, fake, loss=loss, sides=sides)

    def mean(function, rows):
        return sum(map(function, rows)) / len(rows)

    fitting = mean(lambda s: zeta(-s), real) + mean(zeta, fake)
    if loss == "hinge":
        fitting = mean(lambda s: max(0.0, 1.0 - s), real) + mean(lambda s: max(0.0, 1.0 + s), fake)
    value = {
        "nonsaturating": mean(lambda s: zeta(-s), fake) + (sides == "both") * mean(zeta, real),
        "hinge": -mean(float, fake) + (sides == "both") * mean(float, real),
        "js": mean(lambda s: -zeta(-s), real) + mean(lambda s: -zeta(s), fake),
    }[loss]
    assert term(batch).item() == pytest.approx(value, abs=1e-6)
    assert term.critic_loss(batch).item() == pytest.approx(fitting, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_where_real_and_fake_agree(loss):
    term, batch = scored([0.0, 0.0], [0.0, 0.0, 0.0], loss=loss)
    losses = {"nonsaturating": math.log(4.0), "hinge": 2.0, "js": math.log(4.0)}
    values = {"nonsaturating": math.log(2.0), "hinge": 0.0, "js": -math.log(4.0)}
    assert term.critic_loss(batch).item() == pytest.approx(losses[loss], abs=1e-6)
    assert term(batch).item() == pytest.approx(values[loss], abs=1e-6)
    assert term.diagnostics(batch)["accuracy"].item() == 0.5


def test_minimax_value_of_the_best_critic_is_the_divergence():
    """N(0, 1) against N(1.5, 1): 2 JS - log 4, with JS by quadrature."""
    shift = 1.5

    def density(x, m):
        return math.exp(-0.5 * (x - m) ** 2) / math.sqrt(2.0 * math.pi)

    def integrand(x):
        p, q = density(x, 0.0), density(x, shift)
        return 0.5 * (p * math.log(2.0 * p / (p + q)) + q * math.log(2.0 * q / (p + q)))

    divergence = integrate.quad(integrand, -12.0, 14.0)[0]
    best = Fixed(lambda x: 0.5 * shift**2 - shift * x[:, 0])  # log p / q
    term = Adversary("r", "f", critic=best, loss="js")
    values = torch.stack(
        [term({"r": torch.randn(400, 1), "f": torch.randn(400, 1) + shift}) for _ in range(50)]
    )
    error = values.std().item() / 50.0**0.5
    truth = 2.0 * divergence - math.log(4.0)
    assert abs(values.mean().item() - truth) < 4.0 * error < 0.05


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_reach_the_sides_asked_for(loss):
    for sides in ("fake", "both"):
        r, f = (torch.randn(5, 2, requires_grad=True) for _ in range(2))
        term = Adversary("r", "f", critic=critics.mlp(2, 1, width=8), loss=loss, sides=sides)
        term.critic_loss({"r": r, "f": f}).backward()
        assert r.grad is None and f.grad is None
        term.zero_grad()
        term({"r": r, "f": f}).backward()
        assert f.grad.any()
        assert (r.grad is not None) == (sides == "both" or loss == "js")
        assert all(p.grad is None for p in term.critic_parameters())


@pytest.mark.parametrize("loss", LOSSES)
def test_directions(loss):
    """Descent on the value raises the fake logits and lowers the real ones; the critic's
    descent does the opposite.
    """
    term, batch = scored([0.2, -0.3], [0.4, -0.1], loss=loss, sides="both")
    batch = {name: entry.requires_grad_() for name, entry in batch.items()}
    term(batch).backward()
    assert (batch["f"].grad < 0.0).all() and (batch["r"].grad > 0.0).all()
    scale = Fixed(lambda x: x[:, 0])
    fitted = Adversary("r", "f", critic=scale, loss=loss)
    high = fitted.critic_loss({"r": torch.ones(2, 1), "f": -torch.ones(2, 1)})
    low = fitted.critic_loss({"r": -torch.ones(2, 1), "f": torch.ones(2, 1)})
    assert high < low


def test_logits_of_any_size_are_finite():
    for loss in LOSSES:
        for sign in (-1.0, 1.0):
            term, batch = scored([sign * 1e6], [-sign * 1e6], loss=loss, sides="both")
            assert term(batch).isfinite() and term.critic_loss(batch).isfinite()


# ---- the game: conventions


def test_prior_draws():
    """As many as fake rows, fresh at each call, one a row of a conditional prior."""
    centre = torch.tensor([[100.0], [-100.0], [300.0]]).expand(3, 2)
    z = vaereg.gaussian(torch.zeros(3, 4), prior=Normal(centre, torch.ones(3, 2)))
    term = Adversary(None, "z[1:]", critic=Spy())
    found = []
    for _ in range(2):
        term.critic_loss({"z": z})
        rows = term.critic.rows
        assert rows.shape == (6, 1) and torch.equal(rows[:3], z.value[:, 1:])
        assert (rows[3:] - centre[:, 1:]).abs().max() < 6.0
        found.append(rows[3:])
    assert not torch.equal(*found)
    assert term.name == "adversary(z[1:])"


def test_a_learned_prior_moves_with_both_sides():
    for sides in ("fake", "both"):
        centre = torch.zeros(4, 2, requires_grad=True)
        z = vaereg.gaussian(torch.zeros(4, 4), prior=Normal(centre, torch.ones(4, 2)))
        term = Adversary(None, "z", critic=critics.mlp(2, 1, width=8), sides=sides)
        term.critic_loss({"z": z}).backward()
        assert centre.grad is None
        value = term({"z": z})
        if sides == "both":
            value.backward()
            assert centre.grad.any()
        else:
            assert not value.requires_grad


def test_critics_of_parts_and_of_concatenations():
    x, y = torch.randn(5, 2, 2), torch.randn(5, 3)
    fake = {"x_g": torch.randn(4, 2, 2), "y_g": torch.randn(4, 3)}
    parts = Fixed(Parts())
    batch = {"x": x, "y": y, **fake}
    split = Adversary(("x", "y"), ("x_g", "y_g"), critic=Three(2), sides="both")
    whole = Adversary(("x", "y"), ("x_g", "y_g"), critic=parts, sides="both")
    torch.testing.assert_close(split(batch), whole(batch))
    # One variable goes to a convolution as it is, and flattened to a linear map.
    image = Adversary("x", "x_g", critic=Fixed(lambda x: x[:, 1, 0]))
    linear = nn.Linear(4, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
        linear.bias.zero_()
    torch.testing.assert_close(image(batch), Adversary("x", "x_g", critic=linear)(batch))


class Parts(nn.Module):
    """The logit of :class:`Three` from the concatenation."""

    def forward(self, rows):
        return rows[:, :4].sum(1) * rows[:, 4]


class Three(nn.Module):
    """A critic with as many required arguments as asked for, and an optional one."""

    def __init__(self, required):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        if required == 3:
            self.forward = self.three

    def forward(self, x, y, scale=1.0):
        return self.weight * scale * x.flatten(1).sum(1) * y[:, 0]

    def three(self, x, y, z):
        return self.weight * x[:, 0]


def test_evaluates_both_sides_in_one_pass():
    calls = []
    critic = Fixed(lambda x: calls.append(len(x)) or x[:, 0])
    batch = {"r": torch.randn(3, 1), "f": torch.randn(5, 1)}
    Adversary("r", "f", critic=critic, loss="js")(batch)
    Adversary("r", "f", critic=critic)(batch)
    assert calls == [8, 5]


# ---- the game: what it does


@pytest.mark.parametrize("loss", LOSSES)
def test_it_brings_a_code_to_the_prior(loss):
    """AAE and WAE-GAN in one dimension: location 2 and deviation 0.3 to 0 and 1."""
    location, spread = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.3))
    critic = critics.mlp(1, 1, width=32, activation="silu")
    objective = vaereg.Objective(match=Adversary(None, "z", critic=critic, loss=loss))
    ascent = objective.critic_optimizer(torch.optim.Adam, lr=5e-3, betas=(0.5, 0.9))
    main = torch.optim.Adam([location, spread], 1e-2, betas=(0.5, 0.9))
    prior = Normal(torch.zeros(1), torch.ones(1))
    kept = []
    for step in range(400):
        z = vaereg.Code(location + spread * torch.randn(128, 1), None, prior)
        objective.critic_step({"z": z}, ascent)
        main.zero_grad()
        objective({"z": z}).total.backward()
        main.step()
        if step >= 300:
            kept.append((location.item(), spread.item()))
    found = torch.tensor(kept).mean(0)
    assert abs(found[0].item()) < 0.35 and abs(found[1].abs().item() - 1.0) < 0.35


# ---- errors


def test_refused():
    for build in (
        lambda c: DensityRatioTC("z", critic=c),
        lambda c: Adversary(None, "z", critic=c),
    ):
        with pytest.raises(ValueError, match="batch normalisation"):
            build(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)))
    critic = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="nonsaturating, hinge or js, got 'wasserstein'"):
        Adversary("r", "f", critic=critic, loss="wasserstein")
    with pytest.raises(ValueError, match="sides to be fake or both, got 'real'"):
        Adversary("r", "f", critic=critic, sides="real")
    with pytest.raises(ValueError, match="real and fake of as many parts, got 'r' and"):
        Adversary("r", ("f", "g"), critic=critic)
    with pytest.raises(ValueError, match=r"one for each part \(2\), got one of 3"):
        Adversary(("r", "s"), ("f", "g"), critic=Three(3))
    with pytest.raises(ValueError, match=r"one for each part \(1\), got one of 2"):
        Adversary("r", "f", critic=Pair())


def test_shapes_are_named():
    wrong = Fixed(lambda x: x[:, :3])
    batch = {"r": torch.randn(4, 3), "f": torch.randn(4, 3), "z": torch.randn(4, 3)}
    with pytest.raises(ValueError, match=r"one logit a row .* shape \(4,\), got \(4, 3\)"):
        Adversary("r", "f", critic=wrong)(batch)
    with pytest.raises(ValueError, match=r"two logits .*'z' .* \(4, 2\), got \(4, 3\)"):
        DensityRatioTC("z", critic=wrong)(batch)
    shorter = {**batch, "r": torch.randn(4, 2)}
    with pytest.raises(ValueError, match=r"rows of 'r' and of 'f' of one shape, got \[\(2,\)\]"):
        Adversary("r", "f", critic=Fixed(lambda x: x[:, 0]))(shorter)
    term = DensityRatioTC("z", critic=Fixed(lambda x: x[:, 0]))
    with pytest.raises(ValueError, match="'z' of the other batch of 3 numbers a row, got 2"):
        term.critic_loss(batch, other={"z": torch.randn(4, 2)})
    with pytest.raises(ValueError, match=r"got 'z' of 3$"):
        DensityRatioTC("z", critic=nn.Linear(2, 2))(batch)
    with pytest.raises(ValueError, match=r"got 'f' of 3$"):
        Adversary("r", "f", critic=nn.Linear(2, 1))(batch)


def test_code_without_a_prior():
    term = Adversary(None, "z", critic=nn.Linear(2, 1))
    for entry in (torch.zeros(4, 2), vaereg.deterministic(torch.zeros(4, 2))):
        with pytest.raises(TypeError, match=r"variable 'z': expected a Code with a prior p"):
            term.critic_loss({"z": entry})


def test_a_missing_prior_is_named_by_both_passes():
    term = vaereg.Adversary(None, "z", critic=vaereg.critics.mlp(2, 1))
    batch = {"z": vaereg.deterministic(torch.randn(4, 2))}
    for call in (term, term.critic_loss):
        with pytest.raises(TypeError, match="expected a Code with a prior p"):
            call(batch)
    with pytest.raises(ValueError, match="expected the fake variable's name, got None"):
        vaereg.Adversary("z", None, critic=vaereg.critics.mlp(2, 1))
