"""The objective: weights, schedules, algebra, report, parameters, checks."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import vaereg
from vaereg import critics
from vaereg.schedules import cyclical, linear
from vaereg.testing import NoSync


def code(rows=6, width=3):
    mean = torch.randn(rows, width, requires_grad=True)
    return vaereg.gaussian((mean, torch.zeros_like(mean))), mean


def case():
    z, mean = code()
    y = vaereg.labels(torch.arange(6) % 2, 2)
    return {"z": z, "y": y}, mean


def mine(width=5):
    return vaereg.MINE("z", "y", critic=critics.mlp(width, 1, width=8))


def first(batch):
    return batch["z"].value[:, 0].mean()


def second(batch):
    return batch["z"].value.square().mean()


class Total(vaereg.Regularizer):
    """A term with a learned prior."""

    def __init__(self, name):
        super().__init__(name)
        self.center = nn.Parameter(torch.zeros(3))

    def forward(self, batch, *, other=None, step=0):
        return (self.variables[0].values(batch) - self.center).square().sum(1).mean()


# ---- the total


def test_total_is_the_weighted_sum():
    batch, mean = case()
    weight = torch.tensor(0.25)
    objective = vaereg.Objective(
        a=first, b=(-2.0, second), c=(weight, first), d=(linear(0.0, 4.0, steps=10), second)
    )
    report = objective(batch, step=5)
    one, two = first(batch), second(batch)
    torch.testing.assert_close(report.total, 1.25 * one + 0.0 * two)
    assert report.weights["d"] == 2.0
    for name, value in (("a", one), ("b", two), ("c", one), ("d", two)):
        assert torch.equal(report.values[name], value.detach())
    report.total.backward()
    expected = torch.autograd.grad(1.25 * first(batch), mean, allow_unused=True)[0]
    torch.testing.assert_close(mean.grad, expected)


def test_schedule_of_a_tensor_step_equals_that_of_an_integer():
    batch, _ = case()
    objective = vaereg.Objective(
        a=(linear(0.0, 4.0, steps=10), first), b=(cyclical(0.0, 1.0, period=8), second)
    )
    for step in (0, 3, 9, 30):
        whole = objective(batch, step=step)
        tensor = objective(batch, step=torch.tensor(step))
        torch.testing.assert_close(whole.total, tensor.total)


@pytest.mark.parametrize("weight", [0, 0.0, torch.tensor(0.0), lambda step: torch.zeros(())])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_weight_zero_contributes_nothing_to_the_total(weight, bad):
    batch, mean = case()
    objective = vaereg.Objective(a=first, b=(weight, lambda batch: second(batch) + bad))
    report = objective(batch)
    assert torch.equal(report.total, first(batch))
    assert not math.isfinite(report.scalars()["b"])
    report.total.backward()
    torch.testing.assert_close(mean.grad, torch.autograd.grad(first(batch), mean)[0])


def test_weight_zero_by_number_builds_no_graph():
    batch, mean = case()
    report = vaereg.Objective(b=(0.0, lambda batch: second(batch) * math.nan))(batch)
    report.total.backward()
    assert mean.grad is None and report.total.item() == 0.0


def test_critic_of_weight_zero_still_trains():
    batch, _ = case()
    objective = vaereg.Objective(leak=(0.0, mine()))
    optimizer = objective.critic_optimizer(torch.optim.SGD, lr=0.1)
    before = copy.deepcopy(objective.state_dict())
    objective.critic_step(batch, optimizer)
    changed = [n for n, v in objective.state_dict().items() if not torch.equal(v, before[n])]
    assert "terms.leak.critic.0.weight" in changed


@pytest.mark.parametrize("terms", [{}, {"a": (0.0, first)}, {"a": lambda b: torch.ones(())}])
def test_total_always_has_a_graph(terms):
    objective = vaereg.Objective(**terms)
    batch = {"z": vaereg.gaussian(torch.zeros(2, 6))}
    objective(batch).total.backward()
    objective.critic_loss(batch).total.backward()
    with torch.no_grad():
        assert not objective(batch).total.requires_grad


def test_only_evaluates_the_terms_named():
    batch, _ = case()
    objective = vaereg.Objective(a=first, missing=vaereg.KL("w"))
    assert list(objective(batch, only=["a"]).values) == ["a"]
    objective.validate(batch, only=["a"])
    assert objective.critic_loss(batch, only=["a"]).values == {}
    with pytest.raises(ValueError, match=r"expected a term among \['a', 'missing'\], got 'b'"):
        objective(batch, only=["b"])


# ---- the report


def test_scalars_hold_values_weights_and_total():
    batch, _ = case()
    objective = vaereg.Objective(a=first, b=(linear(0.0, 4.0, steps=10), second))
    scalars = objective(batch, step=torch.tensor(5)).scalars()
    assert scalars["weight/a"] == 1.0 and scalars["weight/b"] == 2.0
    assert math.isclose(scalars["total"], scalars["a"] + 2.0 * scalars["b"], rel_tol=1e-6)
    assert all(type(value) is float for value in scalars.values())


def test_scalars_are_one_transfer(monkeypatch):
    """One ``tolist`` of one stacked tensor, and no other synchronisation."""
    batch, _ = case()
    report = vaereg.Objective(a=first, b=(torch.tensor(2.0), second), leak=mine())(batch)
    calls = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: calls.append(t.shape) or tolist(t))
    with NoSync():
        report.scalars()
    assert calls == [torch.Size([5])]  # three values, one tensor weight, the total


def test_scalars_call_the_check_when_a_value_is_not_finite():
    calls = []
    for number in (1.0, math.nan):
        report = vaereg.Report(
            torch.tensor(number), {"a": torch.tensor(number)}, {"a": 1.0}, lambda: calls.append(1)
        )
        report.scalars()
    assert calls == [1]


# ---- construction


def test_kl_of_one_code_twice():
    for again in (vaereg.FreeBits("z", 0.1), vaereg.KL(("w", "z")), vaereg.KL("z[:2]"),
                  vaereg.Constraint(vaereg.KL("z"), at_most=1.0)):  # fmt: skip
        with pytest.raises(ValueError, match=r"KL of code 'z.*' once, got it in 'kl' and 'again'"):
            vaereg.Objective(kl=vaereg.KL("z"), again=again)
        with pytest.raises(ValueError, match="once"):
            vaereg.Objective(again=again, kl=vaereg.KL("z"))
        vaereg.Objective(kl=vaereg.KL("z"), again=(0.0, again))
    vaereg.Objective(a=vaereg.KL("z"), b=vaereg.KL("w"))
    vaereg.Objective(a=vaereg.KL("z[:2]"), b=vaereg.KL("z[2:]"))
    with pytest.raises(ValueError, match="once"):
        vaereg.Objective(a=vaereg.KL("z[:2]"), b=vaereg.KL("z[:2]"))
    with pytest.raises(ValueError, match="once"):
        vaereg.KL("z") + vaereg.FreeBits("z", 0.1)


def test_refused_terms_weights_and_names():
    with pytest.raises(TypeError, match="term 'a' to be a Regularizer or a callable"):
        vaereg.Objective(a=3)
    with pytest.raises(TypeError, match="weight of 'a' to be a number"):
        vaereg.Objective(a=("1", first))
    with pytest.raises(ValueError, match="weight of 'a' to be a scalar tensor"):
        vaereg.Objective(a=(torch.ones(1), first))
    with pytest.raises(ValueError, match="without a dot"):
        vaereg.Objective(**{"a.b": first})
    with pytest.raises(ValueError, match="reserved"):
        vaereg.Objective(keys=first)
    with pytest.raises(TypeError, match="second: expected a scalar tensor"):
        vaereg.Objective(a=_vector)({"z": torch.ones(3, 1)})


def _vector(batch):
    return batch["z"]


_vector.__name__ = "second"


def test_access_and_without():
    objective = vaereg.Objective(a=first, leak=(-0.5, mine()))
    assert isinstance(objective["leak"], vaereg.MINE)
    assert list(objective) == ["a", "leak"] and len(objective) == 2
    rest = objective.without("a")
    assert list(rest) == ["leak"] and rest.weights == {"leak": -0.5}
    assert rest["leak"] is objective["leak"]
    for call in (objective.without, objective.__getitem__):
        with pytest.raises(ValueError, match="got 'b'"):
            call("b")
    assert "-0.5" in repr(objective)


# ---- algebra


def test_algebra_equals_the_keyword_form():
    batch, _ = case()
    leak = mine()
    objective = vaereg.KL("z") + 6.0 * Total("z") - 0.5 * leak
    assert list(objective) == ["kl(z)", "total(z)", "mine(z,y)"]
    assert list(objective.weights.values()) == [1.0, 6.0, -0.5]
    torch.manual_seed(1)
    total = objective(batch).total
    torch.manual_seed(1)
    parts = objective.without("mine(z,y)")(batch).total - 0.5 * leak(batch)
    torch.testing.assert_close(total, parts)


def test_algebra_of_schedules_signs_and_sums():
    batch, _ = case()
    warm = vaereg.Objective(b=(linear(0.0, 4.0, steps=10), second))
    combined = -(2.0 * (vaereg.KL("z") - warm))
    report = combined(batch, step=5)
    assert report.weights == {"kl(z)": -2.0, "b": 4.0}
    assert (-vaereg.KL("z")).weights == {"kl(z)": -1.0}
    assert list(sum([vaereg.KL("z"), vaereg.KL("w")])) == ["kl(z)", "kl(w)"]
    assert list(sum([warm, vaereg.KL("z")])) == ["b", "kl(z)"]
    assert (vaereg.KL("z") * 3.0).weights == (3 * vaereg.KL("z")).weights


def test_algebra_refuses():
    with pytest.raises(ValueError, match="twice; name the terms by keyword"):
        mine() + mine()
    with pytest.raises(TypeError, match="a term or an Objective"):
        vaereg.KL("z") + 3.0
    with pytest.raises(TypeError, match="a term or an Objective"):
        3 + vaereg.KL("z")
    with pytest.raises(TypeError, match="a number to scale by"):
        vaereg.Objective(a=first) * vaereg.KL("z")


# ---- critics


def test_critic_optimizer_without_critics():
    batch, _ = case()
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    for kind in (torch.optim.Adam, torch.optim.SGD):
        optimizer = objective.critic_optimizer(kind, lr=1e-3)
        assert objective.critic_step(batch, optimizer).values == {}
        optimizer.load_state_dict(optimizer.state_dict())


def test_critic_optimizer_per_term():
    objective = vaereg.Objective(a=(1.0, mine()), b=mine(), kl=vaereg.KL("z"))
    optimizer = objective.critic_optimizer(torch.optim.Adam, per_term={"b": {"lr": 7.0}}, lr=1.0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in objective["a"].critic_parameters()} == {1.0}
    assert {rates[id(p)] for p in objective["b"].critic_parameters()} == {7.0}
    assert len(rates) == len(list(objective.critic_parameters()))
    with pytest.raises(ValueError, match="got 'c'"):
        objective.critic_optimizer(torch.optim.Adam, per_term={"c": {}}, lr=1.0)


def test_critic_step_moves_critics_only_and_leaves_no_gradient():
    batch, mean = case()
    total = Total("z")
    objective = vaereg.Objective(leak=(-3.0, mine()), sum=total)
    optimizer = objective.critic_optimizer(torch.optim.SGD, lr=0.05)
    center = total.center.clone()
    losses = [objective.critic_step(batch, optimizer).values["leak"] for _ in range(200)]
    # Descent on the critic's own loss, whatever the outer sign.
    assert torch.stack(losses[-20:]).mean() < torch.stack(losses[:20]).mean()
    assert mean.grad is None and torch.equal(total.center, center)
    assert all(p.grad is None for p in objective.parameters())


def test_critic_loss_is_unweighted_and_detached():
    batch, mean = case()
    objective = vaereg.Objective(leak=(0.0, mine()), more=(-5.0, mine()))
    torch.manual_seed(1)
    report = objective.critic_loss({**batch, "names": ["a", "b"]})
    torch.manual_seed(1)
    apart = [objective[name].critic_loss(batch) for name in ("leak", "more")]
    torch.testing.assert_close(report.total, apart[0] + apart[1])
    assert report.weights == {"leak": 1.0, "more": 1.0}
    report.total.backward()
    assert mean.grad is None
    with pytest.raises(TypeError, match="mapping"):
        objective.critic_loss(3)


def test_a_shared_critic_counts_once():
    critic = critics.mlp(5, 1, width=8)
    objective = vaereg.Objective(
        a=vaereg.MINE("z", "y", critic=critic), b=vaereg.JSD("z", "y", critic=critic)
    )
    assert len(list(objective.critic_parameters())) == len(list(critic.parameters()))
    objective.critic_optimizer(torch.optim.Adam)


def test_parameters_are_critics_or_priors():
    term = vaereg.Constraint(Total("z"), at_most=1.0)
    objective = vaereg.Objective(leak=mine(), bound=term)
    priors = list(objective.prior_parameters())
    assert len(priors) == 1 and priors[0] is term.term.center
    ascent = {id(p) for p in objective.critic_parameters()}
    assert id(term.critic.raw) in ascent and id(term.term.center) not in ascent
    assert len(ascent) + 1 == len(list(objective.parameters()))


# ---- validation


def test_validate_messages():
    batch, _ = case()
    objective = vaereg.Objective(kl=vaereg.KL("z"), leak=mine())
    objective.validate(batch)
    with pytest.raises(ValueError, match=r"kl\(z\): expected variable 'z' in the batch"):
        objective.validate({})
    bad = batch["z"].value.detach().clone()
    bad[3, 1] = math.nan
    broken = {**batch, "z": vaereg.Code(bad, batch["z"].q, batch["z"].p)}
    with pytest.raises(ValueError, match=r"'z', got NaN or infinity in 1 of 6 rows.*row 3"):
        objective.validate(broken)
    mean = torch.zeros(6, 3)
    mean[2] = math.inf
    q = vaereg.gaussian((mean, torch.zeros(6, 3)), value=torch.zeros(6, 3))
    with pytest.raises(ValueError, match="finite KL in each row, got 1 rows"):
        objective.validate({**batch, "z": q})
    with pytest.raises(TypeError, match="to be a Code with a posterior"):
        objective.validate({**batch, "z": torch.zeros(6, 3)})
    y = vaereg.labels(torch.tensor([0, 1, 2, 0, 1, 0]), 2)
    with pytest.raises(ValueError, match="label out of range"):
        objective.validate({**batch, "y": y})


def test_state_dict_round_trip():
    batch, _ = case()
    objective = vaereg.Objective(leak=mine(), sum=Total("z"))
    optimizer = objective.critic_optimizer(torch.optim.Adam, lr=1e-2)
    for _ in range(3):
        objective.critic_step(batch, optimizer)
    again = vaereg.Objective(leak=mine(), sum=Total("z"))
    again.load_state_dict(objective.state_dict())
    resumed = again.critic_optimizer(torch.optim.Adam, lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, opt in ((objective, optimizer), (again, resumed)):
        torch.manual_seed(1)
        one.critic_step(batch, opt)
    for name, entry in objective.state_dict().items():
        assert torch.equal(entry, again.state_dict()[name]), name


def test_objective_compiles_whole():
    batch, _ = case()
    objective = vaereg.Objective(kl=(linear(0.0, 1.0, steps=4), vaereg.KL("z")), leak=mine())
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda batch, step: objective(batch, step=step).total, fullgraph=True, backend="aot_eager"
    )
    for step in (1, 2):
        torch.manual_seed(1)
        value = compiled(batch, torch.tensor(step))
        torch.manual_seed(1)
        torch.testing.assert_close(value, objective(batch, step=step).total)


def test_only_takes_a_single_name():
    objective = vaereg.Objective(
        kl=vaereg.KL("z"), absent=vaereg.JSD("z", "w", critic=vaereg.critics.mlp(3, 1))
    )
    z = vaereg.gaussian(torch.zeros(4, 4))
    assert list(objective({"z": z}, only="kl").values) == ["kl"]


class Pull(vaereg.CriticRegularizer):
    """A critic loss whose gradient is ``slope`` in every parameter of the critic."""

    def __init__(self, name, critic, slope):
        super().__init__(name, critic=critic)
        self.slope = slope

    def forward(self, batch, *, other=None, step=0):
        return self.variables[0].values(batch).sum() * 0.0

    def critic_loss(self, batch, *, other=None, step=0):
        return self.slope * sum(p.sum() for p in self.critic.parameters())


def moved(objective, max_norm):
    """How far one step of plain descent at rate 1 moves the critic of each term."""
    optimizer = objective.critic_optimizer(torch.optim.SGD, lr=1.0)
    before = copy.deepcopy(objective)
    with NoSync():
        objective.critic_step({"z": torch.zeros(2, 1)}, optimizer, max_norm=max_norm)
    return [
        math.sqrt(
            sum(
                (p - q).square().sum().item()
                for p, q in zip(
                    objective[name].critic.parameters(),
                    before[name].critic.parameters(),
                    strict=True,
                )
            )
        )
        for name in objective
    ]


def test_critic_gradients_are_clipped_term_by_term():
    """Four parameters of slope 5, 0.1 and 3: norms 10, 0.2 and 6, clipped at 1 each."""

    def make():
        return vaereg.Objective(
            **{f"t{i}": Pull("z", nn.Linear(3, 1), s) for i, s in enumerate((5.0, 0.1, 3.0))}
        )

    assert moved(make(), None) == pytest.approx([10.0, 0.2, 6.0], rel=1e-4)
    assert moved(make(), 1.0) == pytest.approx([1.0, 0.2, 1.0], rel=1e-4)


def test_a_shared_critic_is_clipped_once_and_by_the_sum_of_its_gradients():
    shared = nn.Linear(3, 1)
    objective = vaereg.Objective(
        a=Pull("z", shared, 5.0), b=Pull("z", shared, -4.6), c=Pull("z", nn.Linear(3, 1), 5.0)
    )
    # The sum of the two slopes is 0.4, a norm of 0.8: nothing to clip.
    assert moved(objective, 1.0) == pytest.approx([0.8, 0.8, 1.0], rel=1e-4)
    both = vaereg.Objective(a=Pull("z", shared, 5.0), b=Pull("z", shared, 5.0))
    assert moved(both, 1.0) == pytest.approx([1.0, 1.0], rel=1e-4)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_max_norm_is_positive(max_norm):
    objective = vaereg.Objective(leak=mine())
    optimizer = objective.critic_optimizer(torch.optim.SGD, lr=1.0)
    with pytest.raises(ValueError, match="expected max_norm > 0, got"):
        objective.critic_step(case()[0], optimizer, max_norm=max_norm)
    kl_only = vaereg.Objective(kl=vaereg.KL("z"))
    empty = kl_only.critic_optimizer(torch.optim.SGD, lr=1.0)
    kl_only.critic_step(case()[0], empty, max_norm=1.0)


def test_an_optimizer_without_the_critics_is_refused():
    """The common mistake of handing in the main optimizer, with which no critic moves."""
    objective = vaereg.Objective(leak=vaereg.MINE("z", "y", critic=vaereg.critics.mlp(3, 1)))
    batch = {"z": torch.randn(6, 2), "y": torch.randn(6, 1)}
    main = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match=r"holds the critic of 'leak' \(see critic_optimizer\)"):
        objective.critic_step(batch, main)


def test_clipping_leaves_a_multiplier_alone():
    torch.manual_seed(0)
    batch = {"z": torch.randn(64, 2), "y": torch.randn(64, 1)}
    moved = []
    for norm in (None, 1e-3):
        term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(3, 1))
        objective = vaereg.Objective(bound=vaereg.Constraint(term, at_most=-5.0))
        step = torch.optim.SGD(objective.critic_parameters(), lr=1.0)
        before = objective["bound"].critic.raw.item()
        objective.critic_step(batch, step, max_norm=norm)
        moved.append(objective["bound"].critic.raw.item() - before)
    assert moved[1] == pytest.approx(moved[0], rel=0.1) and moved[0] > 1.0


def test_a_shared_critic_is_rewarded_only():
    term = vaereg.VariationalMI("c", given="x", critic=torch.nn.Linear(4, 3), shared=True)
    with pytest.raises(ValueError, match=r"negative weight of 'mi', a reward, got 1\.0"):
        vaereg.Objective(mi=term)
    with pytest.raises(ValueError, match="negative weight of 'variationalmi"):
        vaereg.KL("z") + 0.5 * term
    assert (vaereg.KL("z") - 0.5 * term).weights[term.name] == -0.5
    assert vaereg.Objective(mi=(-1.0, term)).weights["mi"] == -1.0
    own = vaereg.VariationalMI("c", given="x", critic=torch.nn.Linear(4, 3))
    vaereg.Objective(mi=own)


def test_a_schedule_that_turns_a_shared_reward_into_a_penalty_is_refused_when_it_does():
    head = torch.nn.Linear(3, 2)
    mi = vaereg.VariationalMI("y", "x", critic=head, shared=True)
    batch = {"y": torch.eye(2), "x": torch.randn(2, 3)}
    objective = vaereg.Objective(mi=(vaereg.schedules.linear(-1.0, 1.0, steps=10), mi))
    assert objective(batch, step=0).total.isfinite()
    for turned in (lambda: objective(batch, step=10), lambda: (2.0 * mi)(batch)):
        with pytest.raises(ValueError, match=r"expected a negative weight of .*, a reward"):
            turned()
    assert (-(2.0 * mi))(batch).total.isfinite()


def test_a_weight_of_nan_is_refused():
    with pytest.raises(ValueError, match="expected a number as the weight of 'kl', got nan"):
        vaereg.Objective(kl=(math.nan, vaereg.KL("z")))
