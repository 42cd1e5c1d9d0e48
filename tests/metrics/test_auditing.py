"""The audit on games whose true information is known, and the leaks that measure its power."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import vaereg
from vaereg.metrics import Audit, AuditHook, InformationWarning, audit, estimate_mi
from vaereg.metrics._plant import plant, plant_groups

SIGMA, NOISE = 0.3, 0.5


def true_information(w):
    """I(z; y) in nats of z = W x + 0.3 eps and y = x_1 + e, both Gaussian."""
    w = w.double()
    covariance = w @ w.T + SIGMA**2 * torch.eye(2, dtype=torch.double)
    share = w[:, 0] @ torch.linalg.solve(covariance, w[:, 0]) / (1.0 + NOISE**2)
    return float(-0.5 * torch.log1p(-share))


def play(critic_steps, encoder_rate, critic_rate, steps, rows=5000):
    """The minimax game; the objective, held-out codes, the truth, and the mean last display."""
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[1.0, 0.3], [-0.3, 1.0]]))
        decoder.weight.copy_(torch.linalg.inv(encoder.weight))
    critic = vaereg.critics.mlp(3, 1, width=32)
    objective = vaereg.Objective(
        kl=(0.02, vaereg.KL("z")), leak=(6.0, vaereg.MINE("z", "y", critic=critic))
    )
    main = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], encoder_rate)
    ascent = objective.critic_optimizer(torch.optim.Adam, lr=critic_rate)

    def draw(count):
        x = torch.randn(count, 2)
        return x, x[:, :1] + NOISE * torch.randn(count, 1)

    shown = []
    for _ in range(steps):
        x, y = draw(256)
        mean = encoder(x)
        z = vaereg.gaussian(mean, std=torch.full_like(mean, SIGMA))
        batch = {"z": z, "y": y}
        for _ in range(critic_steps):
            objective.critic_step(batch, ascent)
        report = objective(batch)
        main.zero_grad()
        ((decoder(z.value) - x).square().sum(1).mean() + report.total).backward()
        main.step()
        shown.append(report.values["leak"])
    with torch.no_grad():
        x, y = draw(rows)
        z = encoder(x) + SIGMA * torch.randn(rows, 2)
    truth = true_information(encoder.weight.detach())
    return objective, {"z": z, "y": y}, truth, float(torch.stack(shown[-100:]).mean())


@pytest.mark.usefixtures("one_thread")
def test_an_outrun_critic_is_flagged():
    """One critic step at a tenth of the encoder's rate."""
    objective, codes, truth, shown = play(1, 1e-2, 1e-3, 400)
    assert truth > 0.1 and shown < 0.03
    with pytest.warns(InformationWarning, match="'leak' displays"):
        found = audit(objective, codes, displayed={"leak": shown}, runs=2)
    assert found.flagged == ("leak",) and found["leak"].verdict == "refuted"
    low, high = found["leak"].estimate.interval
    assert low > 0.05 and high < truth + 0.1
    assert "refute" in str(found)


@pytest.mark.usefixtures("one_thread")
def test_a_sound_run_is_silent():
    objective, codes, truth, _ = play(5, 3e-3, 3e-3, 600)
    assert truth < 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error", InformationWarning)
        found = audit(objective, codes, runs=2)
    assert found.flagged == () and found["leak"].verdict == "independent"
    assert found["leak"].estimate.power == 0.05


@pytest.mark.parametrize("leak", [0.0, 0.6])
def test_wide_codes_of_few_rows_cannot_tell(leak):
    """512 numbers and 500 rows: whether there is a leak of a tenth of a nat or none."""
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(500, 512, generator=g), torch.randint(2, (500,), generator=g)
    z[:, 0] += leak * (2.0 * y - 1.0)
    term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(514, 1, width=8))
    codes = {"z": z, "y": vaereg.labels(y, classes=2)}
    found = audit(vaereg.Objective(leak=term), codes, runs=2, planted=(0.05, 0.1))
    assert found["leak"].verdict == "cannot tell"
    assert math.isinf(found["leak"].estimate.power)


def test_hook_history_survives_json_and_nothing_moves():
    g = torch.Generator().manual_seed(0)
    codes = {"z": torch.randn(200, 2, generator=g), "y": torch.randn(200, 1, generator=g)}
    objective = vaereg.Objective(
        leak=vaereg.MINE("z", "y", critic=vaereg.critics.mlp(3, 1)), kl=vaereg.KL("z")
    )
    hook = AuditHook(objective, every=2, runs=1, epochs=2, planted=(0.05,))
    before, state = (
        torch.get_rng_state(),
        {k: v.clone() for k, v in objective.state_dict().items()},
    )
    assert hook(1, codes) is None
    found = hook(2, lambda: [codes])
    assert found is not None and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, state[k]) for k, v in objective.state_dict().items())
    assert objective.training
    again = AuditHook(objective, every=2)
    again.load_state_dict(json.loads(json.dumps(hook.state_dict())))
    assert [(e, a) for e, a in again.history] == [(2, found)]
    assert isinstance(again.history[0][1], Audit)


def test_rows_of_a_mapping_keep_their_order_and_none_is_lost():
    """Ids of groups go with rows; 513 rows leave one over after two batches."""
    g = torch.Generator().manual_seed(0)
    ids = torch.arange(57).repeat_interleave(9)
    z = torch.randn(57, 4, generator=g)[ids] + 0.01 * torch.randn(513, 4, generator=g)
    codes = {"z": z, "y": torch.randn(57, 4, generator=g)[ids]}
    term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(8, 1, width=8))
    options = {"groups": ids, "runs": 1, "epochs": 4, "displayed": {"leak": 0.0}}
    whole = audit(vaereg.Objective(leak=term), codes, **options)
    listed = audit(vaereg.Objective(leak=term), [codes], **options)
    assert whole == listed and whole.rows == 513 and whole["leak"].verdict == "cannot tell"


def test_a_divergence_is_scaled_to_nats():
    """A weak dependence of 0.12 nats, of which the Jensen-Shannon divergence is a quarter."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 1, generator=g)
    codes = {"z": a, "y": 0.46 * a + (1 - 0.46**2) ** 0.5 * torch.randn(4000, 1, generator=g)}
    term = vaereg.JSD("z", "y", critic=vaereg.critics.mlp(2, 1, width=8))
    for shown, verdict in ((0.03, "dependent"), (0.01, "refuted")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InformationWarning)
            found = audit(
                vaereg.Objective(js=term), codes, displayed={"js": shown}, runs=2, epochs=10
            )
        assert found["js"].verdict == verdict and found["js"].displayed == shown


def test_terms_that_display_no_information_are_not_audited():
    mlp = vaereg.critics.mlp
    objective = vaereg.Objective(
        likelihood=(-1.0, vaereg.VariationalMI("y", given="z", critic=mlp(2, 2), entropy="none")),
        undecided=vaereg.AdversarialClassifier("z", "y", critic=mlp(2, 2), loss="uniform"),
    )
    with pytest.raises(ValueError, match="a term that measures information"):
        audit(objective, {"z": torch.zeros(60, 2)})


def test_a_missing_label_is_read_as_the_term_reads_it():
    """Whether a label is missing depends on z, the labels themselves do not."""
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(1500, 1, generator=g), torch.randint(2, (1500,), generator=g)
    codes = {"z": z, "y": vaereg.labels(torch.where(z[:, 0] > 0.5, -1, y), classes=2)}
    mlp, options = vaereg.critics.mlp, {"runs": 2, "epochs": 15, "planted": ()}
    pair = vaereg.Objective(leak=vaereg.MINE("z", "y", critic=mlp(3, 1, width=8)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InformationWarning)
        assert audit(pair, codes, **options)["leak"].estimate.mean > 0.3
    skips = vaereg.Objective(leak=vaereg.AdversarialClassifier("z", "y", critic=mlp(1, 2)))
    assert abs(audit(skips, codes, **options)["leak"].estimate.mean) < 0.02


def test_a_constrained_term_is_audited_and_the_users_model_stays_as_it_was():
    g = torch.Generator().manual_seed(0)
    codes = {"z": torch.randn(200, 2, generator=g), "y": torch.randn(200, 1, generator=g)}
    term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(3, 1))
    shared = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    label = vaereg.labels(torch.arange(200) % 2, classes=2)
    objective = vaereg.Objective(
        bound=vaereg.Constraint(term, at_most=0.1),
        head=(-1.0, vaereg.VariationalMI("c", given="z", critic=shared, shared=True)),
    )
    term.critic.eval()  # a choice of the user's
    before = shared[1].running_mean.clone()
    found = audit(objective, {**codes, "c": label}, runs=1, epochs=2, planted=())
    assert set(found.terms) == {"bound", "head"} and found["bound"].kind == "MINE"
    assert torch.equal(shared[1].running_mean, before) and shared.training
    assert term.training and not term.critic.training


def test_a_term_that_displays_less_than_half_is_named():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(2000, 1, generator=g)
    codes = {"z": a, "y": 0.8 * a + 0.6 * torch.randn(2000, 1, generator=g)}
    term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(2, 1, width=8))
    with pytest.warns(InformationWarning, match="displays less than half, 0.080"):
        found = audit(
            vaereg.Objective(leak=term), codes, displayed={"leak": 0.08}, runs=1, epochs=10
        )
    assert found["leak"].verdict == "dependent" and found.flagged == ()


def test_the_hook_leaves_the_random_numbers_of_training_alone():
    term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(3, 1))
    hook = AuditHook(vaereg.Objective(leak=term), every=1, runs=1, epochs=1, planted=())
    before = torch.get_rng_state()
    hook(1, lambda: {"z": torch.randn(100, 2), "y": torch.randn(100, 1)})
    assert torch.equal(torch.get_rng_state(), before) and len(hook.history) == 1
    with pytest.raises(TypeError, match=r"options: expected some of .*'runs'.* got \['rusn'\]"):
        AuditHook(vaereg.Objective(leak=term), rusn=2)


def test_what_cannot_be_planted_is_said():
    g = torch.Generator().manual_seed(0)
    codes = {"z": torch.randn(300, 2, generator=g), "y": torch.eye(2)[torch.arange(300) % 2]}
    term = vaereg.AdversarialClassifier("z", "y", critic=vaereg.critics.mlp(2, 2))
    found = audit(vaereg.Objective(leak=term), codes, runs=1, epochs=2, resolution=1.0)["leak"]
    assert found.verdict == "cannot tell" and "no leak of 1 nats fits" in found.note


def test_errors():
    objective = vaereg.Objective(kl=vaereg.KL("z"))
    with pytest.raises(ValueError, match="a term that measures information"):
        audit(objective, {"z": torch.zeros(60, 1)})
    term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(2, 1))
    with pytest.raises(ValueError, match="only: expected names among"):
        audit(vaereg.Objective(leak=term), {}, only="tc")
    with pytest.raises(ValueError, match="codes: expected at least one batch"):
        audit(vaereg.Objective(leak=term), [])
    with pytest.raises(ValueError, match="resolution: expected a positive"):
        audit(vaereg.Objective(leak=term), [], resolution=0.0)
    with pytest.raises(ValueError, match=r"planted: expected sizes of at least .* 0.05, got"):
        audit(vaereg.Objective(leak=term), [], planted=(0.01, 0.05))
    one = vaereg.Objective(leak=term)
    with pytest.raises(ValueError, match=r"as many rows in each variable, got .*'y': \(40,\)"):
        audit(one, {"z": torch.zeros(60, 1), "y": torch.zeros(40, 1)})
    with pytest.raises(TypeError, match="codes: expected a mapping of names"):
        audit(one, None)
    with pytest.raises(ValueError, match=r"displayed: expected names of terms.*'laek'"):
        audit(one, [{}], displayed={"laek": 0.1})
    rows = {"z": torch.randn(60, 1), "y": torch.randn(60, 1)}
    with pytest.raises(ValueError, match="displayed: expected a number for 'leak', got nan"):
        audit(one, rows, displayed={"leak": math.nan})
    with pytest.raises(ValueError, match="every: expected at least 1"):
        AuditHook(objective, every=0)


@pytest.mark.parametrize("size", [0.05, 0.3])
def test_a_planted_leak_has_its_size_continuous(size):
    """Plug-in Gaussian information of the ranks' normal scores, of the one pair of columns."""
    g = np.random.default_rng(0)
    a, b = g.standard_normal((40_000, 3)) ** 3, np.exp(g.standard_normal((40_000, 2)))
    kept, new = plant(a, b, size, np.random.default_rng(1))
    assert kept is a and np.array_equal(np.sort(new, 0), np.sort(b, 0))
    ranks = lambda x: x.argsort(0).argsort(0)  # noqa: E731
    u, v = ranks(a), ranks(new)
    rho = 2.0 * np.sin(np.pi / 6.0 * np.corrcoef(u.T, v.T)[:3, 3:])  # Spearman to Pearson
    found = -0.5 * np.log1p(-np.square(rho))
    assert np.sort(found.ravel())[-1] == pytest.approx(size, rel=0.1)
    assert np.sort(found.ravel())[-2] < 1e-3


@pytest.mark.parametrize("classes", [2, 5])
def test_a_planted_leak_has_its_size_discrete(classes):
    """A discrete column is read exactly: the plug-in information of its contingency table."""
    g = np.random.default_rng(0)
    a = g.integers(0, 6, (60_000, 1)).astype(float)
    y = g.integers(0, classes, 60_000)
    _, new = plant(a, y, 0.1, np.random.default_rng(1))
    table = np.zeros((6, classes))
    np.add.at(table, (a[:, 0].astype(int), new), 1.0 / len(y))
    product = table.sum(1, keepdims=True) * table.sum(0)
    assert (table * np.log(table / product)).sum() == pytest.approx(0.1, abs=0.004)


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_rare_labels_stay_rare_and_hold_no_more_than_their_entropy(share):
    g = np.random.default_rng(0)
    a, y = g.standard_normal((20_000, 2)), (g.random(20_000) < share).astype(np.int64)
    entropy = -share * math.log(share) - (1 - share) * math.log1p(-share)
    _, new = plant(a, y, 0.5 * entropy, np.random.default_rng(1))
    assert new.mean() == pytest.approx(y.mean(), abs=4 * (share / 20_000) ** 0.5)
    assert plant(a, y, 1.2 * entropy, np.random.default_rng(1)) is None
    # Read back with the exact channel's shape: a threshold of one column tells almost all.
    both = [np.abs(np.corrcoef(a[:, k], new)[0, 1]) for k in range(2)]
    assert max(both) > 5 * min(both)


def test_a_group_is_planted_into_as_a_whole():
    g = np.random.default_rng(0)
    ids = np.repeat(np.arange(4000), 5)
    a = g.standard_normal((4000, 2))[ids] + 0.1 * g.standard_normal((20_000, 2))
    kept, new = plant_groups(a, g.integers(0, 3, 4000)[ids], ids, 0.2, np.random.default_rng(1))
    assert kept is a and (new.reshape(4000, 5) == new[::5, None]).all()
    means = a.reshape(4000, 5, 2).mean(1)
    both = [abs(np.corrcoef(means[:, k], new[::5])[0, 1]) for k in range(2)]
    assert max(both) > 0.3 > 10 * min(both)
    # Labels on both sides: the first variable is drawn anew, for whole groups too.
    labels = np.eye(2)[g.integers(0, 2, 4000)[ids]]
    moved, same = plant_groups(labels, a, ids, 0.2, np.random.default_rng(1))
    assert same is a and (moved.reshape(4000, 5, 2) == moved[::5, None]).all()


def test_what_does_not_fit_is_not_planted():
    g = np.random.default_rng(0)
    a, y = g.standard_normal((500, 2)), g.integers(0, 2, 500)
    assert plant(a, y, 0.8, g) is None  # above log 2
    assert plant(np.ones((500, 2)), y, 0.1, g) is None
    found = estimate_mi(a, y, method="classifier", runs=1, epochs=2, planted=(0.8,))
    assert math.isinf(found.power) and found.planted == ()


def test_groups_stay_together_and_make_no_product_pairs():
    """Ten draws a datum: without groups a fresh critic recognises the datum and reads too much."""
    g = torch.Generator().manual_seed(0)
    code, label = torch.randn(60, 4, generator=g), torch.randn(60, 4, generator=g)
    a = code.repeat_interleave(10, 0) + 0.01 * torch.randn(600, 4, generator=g)
    b = label.repeat_interleave(10, 0)
    ids = torch.arange(60).repeat_interleave(10)
    assert abs(estimate_mi(a, b, groups=ids, runs=2, epochs=30).mean) < 0.05
    assert estimate_mi(a, b, runs=2, epochs=30).mean > 0.5


def test_the_interval_holds_the_value_and_shrinks_with_rows():
    def width(rows):
        g = torch.Generator().manual_seed(0)
        a = torch.randn(rows, 1, generator=g)
        b = 0.8 * a + 0.6 * torch.randn(rows, 1, generator=g)
        found = estimate_mi(a, b, runs=2, epochs=10)
        low, high = found.interval
        assert low < found.mean < high
        return high - low

    assert width(4000) < 0.75 * width(1000)


def test_a_value_near_the_ceiling_is_warned_of():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(1000, 1, generator=g)
    b = a + 1e-3 * torch.randn(1000, 1, generator=g)
    with pytest.warns(InformationWarning, match="the log of the batch"):
        found = estimate_mi(a, b, method="infonce", runs=1, epochs=15, batch_size=8)
    assert found.ceiling == pytest.approx(math.log(8)) and found.mean <= math.log(8)


def test_a_reading_of_the_unreadable_is_capped_and_said_so():
    """156 nats are read of a true 19.6 where no product pair scores as the joint ones do."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(1000, 5, generator=g)
    b = a + 0.02 * torch.randn(1000, 5, generator=g)
    with pytest.warns(InformationWarning, match=r"above 5.30, the log of the 200 rows"):
        found = estimate_mi(a, b, runs=1, epochs=20)
    low, high = found.interval
    assert found.ceiling < low <= found.mean <= high <= 2 * math.log(200)


def test_codes_in_a_mapping_keep_their_posteriors():
    """One mapping of all rows is audited as the same rows in batches are."""
    torch.manual_seed(0)
    x = torch.randn(400, 3)
    codes = {
        "z": vaereg.gaussian((x, torch.full_like(x, -2.0))),
        "c": vaereg.categorical(x, temperature=1.0),
        "d": vaereg.categorical(torch.randn(400, 2, 3), temperature=1.0),
        "x": x,
    }
    widths = {"z": 6, "z[:2]": 4, "c": 3, "d[:1]": 3}
    terms = {
        f"t{k}": vaereg.VariationalMI(code, "x", critic=vaereg.critics.mlp(3, width))
        for k, (code, width) in enumerate(widths.items())
    }
    joint = vaereg.VariationalMI(("z[:2]", "c"), "x", critic=vaereg.critics.mlp(3, 7))
    objective = vaereg.Objective(**terms, joint=joint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InformationWarning)
        one = audit(objective, codes, runs=1, batch_size=400)
        many = audit(objective, [codes], runs=1)
    for name in objective:
        assert one[name].displayed == pytest.approx(many[name].displayed, abs=1e-4)
        assert one[name].estimate.mean == many[name].estimate.mean
