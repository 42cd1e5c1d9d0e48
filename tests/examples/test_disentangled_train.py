"""Objectives by name, stacked networks, and training that resumes bit for bit."""

import math
import shutil

import numpy as np
import pytest
import torch
from test_disentangled_data import small

import vaereg
from disentangled.models import Stack, decoder, encoder
from disentangled.objectives import NAMES, Context, build, parse, text_of, wants_other
from disentangled.settings import PLANS, PRESETS, Settings
from disentangled.train import train
from disentangled.trainer import Trainer, encode
from harness.checkpoint import CheckpointError

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
CONTEXT = Context(4, 1000, critic_width=8, critic_depth=1)
TINY = {"z": 4, "steps": 6, "batch": 4, "lr": 1e-3, "critic_width": 8, "critic_depth": 1,
        "probes": 0}  # fmt: skip


@pytest.fixture(scope="module")
def pictures():
    return small(scales=(5,), orientations=(3,))


def run(objective, seed=0, **given):
    return Settings(objective=objective, seed=seed, **TINY | given)


def parameters(trainer, i=0):
    return trainer.encoder.state(i) + trainer.decoder.state(i)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---- objectives


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("vae", {"kl": 1}),
        ("beta:4", {"kl": 4}),
        ("factor:10", {"kl": 1, "tc_ratio": 10}),
        ("tc:6", {"kl": 1, "tc": 5}),
        ("dip1:10", {"kl": 1, "dip_i": 10}),
        ("dip2", {"kl": 1, "dip_ii": 10}),
        ("aae:3", {"kl": 0, "adversary": 3}),
        ("wae:7", {"kl": 0, "mmd": 7}),
        ("infovae:20,alpha=0.5", {"kl": 0.5, "mmd": 19.5}),
        ("capacity:25@100", {"kl": 0, "capacity": 1000}),
        ("dip2:10+beta:4", {"kl": 4, "dip_ii": 10}),
        ("aae:3+beta:0.5", {"kl": 0.5, "adversary": 3}),
        ("factor:5+tc:3+dip1:2", {"kl": 1, "tc_ratio": 5, "tc": 2, "dip_i": 2}),
    ],
)
def test_names_become_terms_and_weights(text, weights):
    assert build(text, CONTEXT).weights == weights


@pytest.mark.parametrize(
    "text",
    ["vae:4", "vae:0", "vae:4+dip1:2", "capacity:25@1000000", "infovae:1000000", "beta:1e38",
     "capacity:25,gamma=1e6", "beta:10.00001", "beta:4.0000001", "tc:6,bank=640"],
)  # fmt: skip
def test_the_stored_text_means_what_was_asked_for(text):
    stored = text_of(parse(text))
    assert text_of(parse(stored)) == stored
    asked, kept = build(text, CONTEXT).weights, build(stored, CONTEXT).weights
    assert asked == kept
    weights = [own[0] for own in parse(text).values()]
    assert sorted(own[0] for own in parse(stored).values()) == sorted(weights)


@pytest.mark.parametrize("text", ["tc:6,bank=1.7", "capacity:25@0.5"])
def test_counts_are_whole(text):
    with pytest.raises(ValueError, match="a whole number, got"):
        parse(text)


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_the_variances_alone_may_be_penalised(kind):
    objective = build(f"dip{len(kind)}:0,diagonal=7", CONTEXT)
    mean, logvar = torch.randn(32, 4), torch.zeros(32, 4)
    covariance = torch.cov(mean.T, correction=0) + (torch.eye(4) if kind == "ii" else 0.0)
    exact = 7.0 * (covariance.diag() - 1.0).square().sum()
    report = objective({"z": vaereg.gaussian((mean, logvar))})
    dip = report.total - report.values["kl"]
    assert dip.item() == pytest.approx(exact.item(), rel=1e-4)


def test_every_name_has_a_value_and_a_gradient():
    for name in NAMES:
        objective = build(name, CONTEXT)
        parameters = torch.randn(6, 8, requires_grad=True)
        z = vaereg.gaussian(parameters)
        objective({"z": z}).total.backward()
        assert torch.isfinite(parameters.grad).all() and parameters.grad.abs().sum() > 0
        objective.critic_loss({"z": z}).total.backward()


def test_terms_have_the_numbers_of_their_papers():
    assert build("capacity:25@100", CONTEXT)["capacity"].schedule(50) == 12.5
    for text, ratio in (("dip1:3", 10.0), ("dip2:3", 1.0), ("dip2:5,diagonal=1", 0.2)):
        term = build(text, CONTEXT)["dip_i" if "dip1" in text else "dip_ii"]
        assert (term.off_diagonal, term.diagonal) == (1.0, pytest.approx(ratio))
    critic = build("factor", Context(10, 1000))["tc_ratio"].critic
    widths = [m.out_features for m in critic if isinstance(m, torch.nn.Linear)]
    assert widths == [1000] * 6 + [2]
    assert build("tc:6,bank=32", CONTEXT)["tc"].memory_bank == 32


def test_an_objective_has_one_text():
    assert (
        text_of(parse(" dip2 : 10 + beta:4.0")) == "beta:4+dip2:10" == run("dip2+beta").objective
    )
    assert text_of(parse("capacity:25@100")) == "capacity:25,steps=100"
    assert text_of(parse(text_of(parse("capacity:5@7,gamma=2")))) == "capacity:5,steps=7,gamma=2"
    assert wants_other("beta+factor") and not wants_other("tc+aae")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma:3", "expected names among .*got 'gamma'"),
        ("beta:x", "expected beta a number >= 0, got 'x'"),
        ("beta:-1", "expected beta a number >= 0"),
        ("beta:1+beta:2", "expected each name once"),
        ("beta:1+capacity:2", "one name that decides on the KL"),
        ("wae+infovae", "expected each term once"),
        ("tc:6,rows=3", "expected options of tc among"),
    ],
)
def test_objectives_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        build(text, CONTEXT)


# ---- settings


def test_presets_and_plans_are_settings():
    for name, values in PRESETS.items():
        objectives, seeds = PLANS[name]
        runs = [Settings(objective=o, seed=s, **values) for o in objectives for s in seeds]
        assert len({r.folder for r in runs}) == len(runs)
    assert len(PLANS["small"][0]) == 3 and len(PLANS["small"][1]) == 2
    assert Settings().steps == 30 * (737_280 // 64)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"steps": 0}, "steps: expected a positive"), ({"batch": 1}, "at least 2"),
     ({"likelihood": "laplace"}, "bernoulli or gaussian"), ({"seed": -1}, "seed: expected")],
)  # fmt: skip
def test_settings_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**given)


# ---- networks


@pytest.mark.parametrize("make", [encoder, decoder])
def test_a_stack_is_its_models_side_by_side(make):
    models = [make(3, 2) for _ in range(3)]
    x = torch.rand((3, 5, 2, 64, 64) if make is encoder else (3, 5, 3))
    stack = Stack(models)
    found = stack(x)
    expected = torch.stack([model(own) for model, own in zip(models, x, strict=True)])
    assert torch.allclose(found, expected, atol=1e-6)
    found.square().sum().backward()
    for s, model in enumerate(models):
        model(x[s]).square().sum().backward()
        for weight, parameter in zip(stack.weights, model.parameters(), strict=True):
            assert torch.allclose(weight.grad[s], parameter.grad, rtol=1e-4, atol=1e-5)
    alone = Stack.of(stack, 1)
    assert torch.allclose(alone(x[1:2])[0], expected[1], atol=1e-6)
    assert not any(name.startswith("layers") for name in stack.state_dict())


def test_the_networks_are_the_studys():
    count = sum(p.numel() for net in (encoder(), decoder()) for p in net.parameters())
    assert count == 502_005
    with pytest.raises(TypeError, match="expected layers that it knows"):
        Stack([torch.nn.Sequential(torch.nn.Tanh())])(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="expected parameters of shapes"):
        Stack([encoder()]).load(0, decoder(3).state_dict().values())


# ---- training


RUNS = (("factor:10", 0), ("beta:4+dip2:10", 1), ("tc:6,bank=8", 2), ("aae:10", 0),
        ("capacity:5@4+dip1:1", 3), ("infovae:20", 1))  # fmt: skip


def test_models_trained_together_are_those_trained_alone(pictures, tmp_path):
    runs = [run(*own) for own in RUNS]
    together, _ = train(runs, pictures, tmp_path / "a", device=CPU, progress=False)
    for i, own in enumerate(runs):
        alone, _ = train([own], pictures, tmp_path / "b", device=CPU, progress=False)
        assert [row.keys() for row in alone.history[0]] == [r.keys() for r in together.history[i]]
        for a, b in zip(alone.history[0], together.history[i], strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-3)


def test_a_second_batch_for_one_model_leaves_the_others_draws_alone(pictures):
    """The adversary draws from the prior: the same draws beside FactorVAE as alone."""
    found = []
    for objectives in (["aae:1"], ["aae:1", "factor:10"]):
        trainer = Trainer([run(objective) for objective in objectives], pictures, CPU)
        drawn = []
        term = trainer.objectives[0]["adversary"]
        term.critic.register_forward_hook(lambda m, x, y, drawn=drawn: drawn.append(x[0].detach()))
        trainer.train_step()
        found.append(torch.cat([x.flatten() for x in drawn]))
    assert found[0].shape == found[1].shape
    assert torch.allclose(*found, atol=1e-4)


@pytest.mark.parametrize("objective", ["factor:10+tc:4,bank=8", "aae:2+beta:1", "capacity:5@4"])
def test_training_resumes_bit_for_bit(pictures, tmp_path, objective):
    runs = [run(objective), run(objective, 1)]
    given = {"device": CPU, "progress": False, "rows": 4}
    whole, _ = train(runs, pictures, tmp_path, every=4, **given)
    for own in runs:
        path = tmp_path / own.folder / "checkpoint.pt"
        shutil.copy(path.with_name("checkpoint.pt.previous"), path)
    again, _ = train(runs, pictures, tmp_path, resume=True, **given)
    for i in range(2):
        assert equal(parameters(whole, i), parameters(again, i))
        assert whole.history[i] == again.history[i]
        assert equal(whole.objectives[i].state_dict().values(),
                     again.objectives[i].state_dict().values())  # fmt: skip
    done, _ = train(runs, pictures, tmp_path, resume=True, **given)
    assert equal(parameters(whole), parameters(done))


def test_sixteen_bits_change_the_networks_outputs_and_nothing_else(pictures):
    trainers = [
        Trainer([run("factor:10", lr=1e-3, precision=precision)], pictures, CPU)
        for precision in ("float32", "bfloat16")
    ]
    full, half = trainers
    x = full._batch(full.rows)
    assert half._encode(x).dtype == half._decode(x[:, :, 0, 0, :4]).dtype == torch.float32
    error = (half._encode(x) - full._encode(x)).abs().max()
    assert 0 < error < 0.01 * full._encode(x).abs().max() + 1e-3
    for trainer in trainers:
        for _ in range(20):
            trainer.train_step()
        trainer.write_row(probe=False)
        states = [*trainer.encoder.parameters(), *trainer.objectives[0].parameters()]
        assert all(p.dtype == torch.float32 for p in states)
    a, b = (trainer.history[0][-1] for trainer in trainers)
    assert a["nll"] != b["nll"] and b["nll"] == pytest.approx(a["nll"], rel=0.02)


def test_a_checkpoint_of_other_options_is_refused(pictures, tmp_path):
    train([run("beta:4")], pictures, tmp_path, device=CPU, progress=False)
    with pytest.raises(CheckpointError, match=r"lr: 0.001 then, 0.002 now"):
        train(
            [run("beta:4", lr=2e-3)], pictures, tmp_path, device=CPU, resume=True, progress=False
        )


def test_models_of_different_progress_are_not_resumed_together(pictures, tmp_path):
    given = {"device": CPU, "progress": False, "resume": True}
    train([run("beta:4")], pictures, tmp_path, **given)
    with pytest.raises(CheckpointError, match="a checkpoint of each of 2 models"):
        train([run("beta:4"), run("vae")], pictures, tmp_path, **given)


def test_a_pass_sees_every_picture_once(pictures):
    trainer = Trainer([run("vae", batch=512)], pictures, CPU)
    rows = trainer.rows[0]
    first = np.concatenate([rows.at(step) for step in range(6)])
    assert sorted(first) == list(range(len(pictures))) and len(pictures) == 6 * 512
    assert not np.array_equal(first[:512], rows.at(6))
    assert np.array_equal(rows.at(2), first[1024:1536])


def test_training_lowers_the_error_and_probes_the_kl(pictures, tmp_path):
    own = run("beta:1", steps=40, batch=16, lr=3e-3, probes=2)
    trainer, _ = train([own], pictures, tmp_path, device=CPU, progress=False, rows=8)
    history = trainer.history[0]
    assert history[-1]["nll"] < 0.5 * history[0]["nll"]
    probed = [row["step"] for row in history if "exact_mi" in row]
    assert probed == [20, 40]
    parts = sum(history[-1][f"exact_{name}"] for name in ("mi", "tc", "dimwise"))
    assert math.isfinite(parts)
    log = (tmp_path / own.folder / "log.csv").read_text().splitlines()
    assert len(log) == 1 + len(history) and "exact_tc" in log[0]


def test_a_model_that_fails_leaves_the_others_alone(pictures, tmp_path):
    runs = [run("beta:4"), run("beta:4", 1)]
    trainer = Trainer(runs, pictures, CPU)
    healthy = Trainer(runs[:1], pictures, CPU)
    with torch.no_grad():
        trainer.encoder.weights[0][1].fill_(math.nan)
    for _ in range(3):
        trainer.train_step()
        healthy.train_step()
    trainer.write_row(probe=False)
    healthy.write_row(probe=False)
    assert "nll = nan" in trainer.failed[1] and not trainer.history[1]
    assert trainer.history[0][0] == pytest.approx(healthy.history[0][0], rel=1e-3, abs=1e-3)
    assert all(torch.isfinite(p).all() for p in parameters(trainer))
    with torch.no_grad():
        trainer.encoder.weights[0].fill_(math.nan)
    trainer.train_step()
    with pytest.raises(FloatingPointError, match="expected finite values"):
        trainer.write_row(probe=False)


def test_models_of_different_steps_are_not_trained_together(pictures):
    with pytest.raises(ValueError, match="steps: expected one value"):
        Trainer([run("vae"), run("beta:2", steps=7)], pictures, CPU)
    with pytest.raises(ValueError, match="batch: expected at most"):
        Trainer([run("vae", batch=10_000)], pictures, CPU)


def test_random_rows_are_the_same_for_all_models_and_no_grid(pictures):
    rows = pictures.spread(50, grid=False)
    assert len(rows) == 50 and np.array_equal(rows, pictures.spread(50, grid=False))
    assert len(np.unique(rows)) == 50 and not np.array_equal(rows, pictures.spread(50)[:50])


def test_codes_are_those_of_the_encoder(pictures):
    trainer = Trainer([run("vae"), run("vae", 1)], pictures, CPU)
    rows = np.arange(0, 700, 2)
    mean, logvar = encode(trainer.encoder, 1, trainer.source, rows)
    torch.manual_seed(1)
    expected = encoder(4)(pictures.batch(rows))
    assert torch.allclose(torch.cat([mean, logvar], 1), expected, atol=1e-5)
