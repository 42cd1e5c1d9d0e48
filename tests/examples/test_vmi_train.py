"""VMI models and their training: terms, temperature, resuming, what is learned."""

import math

import pytest
import torch
from vmi_runs import CPU, blobs, settings

import vaereg
from harness.checkpoint import CheckpointError
from vmi.evaluate import measure
from vmi.models import Still, build, imbalance
from vmi.train import Trainer, train

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_imbalance_is_the_kl_of_the_mean():
    c = vaereg.categorical(torch.tensor([[50.0, 0.0], [0.0, 50.0]]), 1.0)
    assert imbalance({"c": c}).item() == pytest.approx(0.0, abs=1e-6)
    c = vaereg.categorical(torch.tensor([[50.0, 0.0], [50.0, 0.0]]), 1.0)
    assert imbalance({"c": c}).item() == pytest.approx(math.log(2), abs=1e-6)


def test_a_still_network_is_read_and_not_trained():
    inner = torch.nn.Linear(3, 2)
    still, x = Still(inner), torch.rand(4, 3, requires_grad=True)
    assert not list(still.parameters())
    still(x).sum().backward()
    assert inner.weight.grad is None and x.grad is not None


@pytest.mark.parametrize("side", [8, 28])
def test_the_terms_of_the_joint_model(side):
    trainer = Trainer(settings(), blobs(side=side), CPU)
    out = trainer.train_step(trainer.x[:16])
    assert set(out.report.values) == {"kl_z", "kl_c", "mi", "drawn", "balance"}
    assert out.report.weights["mi"] == -30.0 and out.report.weights["balance"] == 30.0
    assert float(out.report.values["mi"].detach()) <= math.log(3)
    assert out.codes["z"].value.shape == (16, 4) and out.codes["c"].value.shape == (16, 3)
    assert not list(trainer.vae.objective.critic_parameters())


def test_without_the_term_the_head_learns_from_the_elbo_alone():
    trainer = Trainer(settings(mi=0.0), blobs(), CPU)
    out: vaereg.VAEOutput = trainer.vae(trainer.x[:16], **trainer._observed(trainer.x[:16]))
    elbo = out.nll + out.report.values["kl_z"] + out.report.values["kl_c"]
    assert float(out.loss.detach()) == pytest.approx(float(elbo.detach()), rel=1e-5)


def test_pictures_drawn_from_the_prior_teach_the_decoder_only():
    vae = build(settings(), 8, 10)
    term = vae.objective["drawn"]
    label = vaereg.labels(torch.arange(6) % 3, 3)
    drawn = vae.decode({"z": torch.randn(6, 4), "c": label})
    term({"drawn_c": label, "drawn": drawn}).backward()
    assert all(p.grad is None for p in vae.encoder.parameters())
    assert all(p.grad is not None for p in vae.decoder.parameters())


def test_the_temperature_falls():
    vae = build(settings(temperature=1.0, temperature_end=0.5), 8, 40)
    fall = vae.encoder.temperature
    assert [fall(0), fall(20), fall(40)] == pytest.approx([1.0, math.sqrt(0.5), 0.5])
    level = build(settings(temperature=0.7, temperature_end=0.7), 8, 40).encoder.temperature
    assert level(0) == level(40) == 0.7


@pytest.mark.parametrize("model", ["joint", "gaussian"])
def test_resumed_bit_for_bit(model, tmp_path, monkeypatch):
    own = settings(model=model, epochs=3)
    whole = train(own, blobs(), tmp_path / "a", device=CPU, progress=False)
    once = Trainer.train_epoch
    epochs = []

    def stop(self, advance):
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        once(self, advance)

    monkeypatch.setattr(Trainer, "train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(own, blobs(), tmp_path / "b", device=CPU, progress=False)
    monkeypatch.undo()
    again = train(own, blobs(), tmp_path / "b", device=CPU, progress=False, resume=True)
    assert again.history == whole.history and again.step == whole.step == 9
    state = again.vae.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in whole.vae.state_dict().items())


def test_resume_refuses_other_options(tmp_path):
    train(settings(), blobs(), tmp_path, device=CPU, progress=False)
    for change in ({"mi": 1.0}, {"epochs": 3}, {"rotation": 1.0}):
        with pytest.raises(CheckpointError, match=next(iter(change))):
            train(settings(**change), blobs(), tmp_path, device=CPU, progress=False, resume=True)


def test_a_value_that_is_not_finite_stops_the_run():
    trainer = Trainer(settings(), blobs(), CPU)
    with torch.no_grad():
        next(trainer.vae.decoder.parameters()).fill_(math.nan)
    with pytest.raises((FloatingPointError, ValueError), match="finite"):
        trainer.train_epoch(lambda: None)


def test_the_code_finds_classes_that_views_keep():
    data = blobs(train=384, test=96)
    own = settings(epochs=15, batch=64, rotation=0.0, scale=0.0, shear=0.0, shift=0.02, seed=1)
    trainer = Trainer(own, data, CPU)
    for _ in range(own.epochs):
        trainer.train_epoch(lambda: None)
    found = measure(trainer.vae, data, own).values
    assert found["accuracy"]["one_to_one"] > 0.9 and found["held_out"]["kl_c"] > 0.8
