"""The VMI example: data, views, measurements, training, and the command."""

import gzip
import json
import math
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vaereg
import vmi
from harness.checkpoint import CheckpointError
from vmi.data import Pictures, load, load_digits, load_idx, load_npz
from vmi.evaluate import RANGE, accuracies, consensus, measure
from vmi.main import main
from vmi.models import Still, build, imbalance
from vmi.options import TEXTS, parser, settings_of
from vmi.report import correlations, picked
from vmi.settings import PRESETS, Settings
from vmi.train import Trainer, train
from vmi.views import Views

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
FEW = ["--epochs", "2", "--batch", "16", "--quiet"]


def blobs(train=48, test=24, side=8, classes=3):
    """Bright stripes whose row is the class."""
    rng = np.random.default_rng(0)
    images, labels = {}, {}
    for part, n in (("train", train), ("test", test)):
        labels[part] = np.arange(n) % classes
        images[part] = rng.integers(0, 40, (n, side, side), dtype=np.uint8)
        images[part][np.arange(n), 1 + 2 * labels[part]] += 200
    return Pictures(images, labels, "stripes")


def npz(path, data=None, held="test", **changes):
    data = blobs() if data is None else data
    arrays = {}
    for part, name in (("train", "train"), ("test", held)):
        arrays |= {f"{name}_images": data.images[part], f"{name}_labels": data.labels[part]}
    arrays |= changes
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    return path


def idx(path, array, packed=False):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    raw = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if packed else raw)


def settings(**changes):
    return Settings(**{"epochs": 2, "batch": 16, "z": 4, "k": 3, **changes})


def start(output, *options):
    return main([*FEW, "--output", str(output), *map(str, options)])


def results(folder):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


# ---- data


def test_the_digits_of_scikit_learn():
    pytest.importorskip("sklearn")
    data = load_digits()
    assert data.images["train"].shape == (1437, 8, 8) and data.images["test"].shape == (360, 8, 8)
    assert data.classes == 10 and data.size == 8 and data.images["train"].max() == 255
    x = data.tensor("test")
    assert x.shape == (360, 1, 8, 8) and 0 <= x.min() and x.max() == 1
    assert torch.equal(torch.cat(list(data.chunks("test", 100))), x)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inner", ["", "FashionMNIST/raw"])
def test_idx_files(packed, inner, tmp_path):
    data, folder = blobs(), tmp_path / inner
    folder.mkdir(parents=True, exist_ok=True)
    for part, stem in (("train", "train"), ("test", "t10k")):
        end = ".gz" if packed else ""
        idx(folder / f"{stem}-images-idx3-ubyte{end}", data.images[part], packed)
        idx(folder / f"{stem}-labels-idx1-ubyte{end}", data.labels[part], packed)
    found = load_idx(tmp_path)
    for part in ("train", "test"):
        assert np.array_equal(found.images[part], data.images[part])
        assert np.array_equal(found.labels[part], data.labels[part])
    assert found.source == ("FashionMNIST" if inner else tmp_path.name)


def test_damaged_idx_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz in .*, got neither"):
        load_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    idx(path, blobs().images["train"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="expected an IDX file of 3 dimensions"):
        load_idx(tmp_path)
    path.write_bytes(b"\0\0")
    with pytest.raises(ValueError, match="expected a whole IDX file"):
        load_idx(tmp_path)


@pytest.mark.parametrize("held", ["test", "holdout"])
def test_npz(held, tmp_path):
    found = load(str(npz(tmp_path / "set.npz", held=held)))
    assert found.source == f"set.npz, {held}"
    assert np.array_equal(found.images["test"], blobs().images["test"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test_labels": None},
            "got no test_labels but train_images, train_labels, test_images",
        ),
        ({"train_images": np.full((48, 8, 8), 2.0)}, "float in [0, 1], got float64 from 2 to 2"),
        ({"train_images": np.full((48, 8, 8), np.nan)}, "float in [0, 1], got float64 from nan"),
        ({"train_images": np.zeros((48, 8, 8, 3), np.uint8)}, "expected train images of shape"),
        ({"train_images": np.zeros((48, 8, 8), int)}, "uint8 or float in [0, 1], got int64"),
        ({"train_labels": np.array(["a"] * 48)}, "got 48 images and labels <U1 such as ['a']"),
        ({"test_labels": np.array([{}] * 24)}, "expected an .npz archive, got set.npz, where"),
        ({"test_images": np.array([{}] * 24)}, "expected an .npz archive, got set.npz, where"),
        ({"test_images": np.zeros((24, 9, 9), np.uint8)}, "expected images of one size"),
        ({"train_labels": np.zeros(3, int)}, "expected 48 train labels, got shape (3,)"),
        ({"train_labels": np.full(48, -1)}, "with labels 0, 1, ..., got 48 images and labels int"),
        ({"train_labels": np.full(48, np.nan)}, "with labels 0, 1, ..."),
    ],
)
def test_bad_npz(changes, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        load_npz(npz(tmp_path / "set.npz", **changes))
    assert message in str(caught.value) and str(caught.value).startswith("--data: ")


def test_npz_of_keras_with_channels_and_floats(tmp_path):
    data = blobs()
    arrays = {"x_train": data.images["train"] / 255.0, "y_train": data.labels["train"],
              "x_test": data.images["test"][:, None], "y_test": data.labels["test"]}  # fmt: skip
    arrays["x_train"] = arrays["x_train"].astype(np.float32)[:, None]
    np.savez(tmp_path / "keras.npz", **arrays)
    found = load_npz(tmp_path / "keras.npz")
    assert found.source == "keras.npz, test"
    for part in ("train", "test"):
        assert found.images[part].dtype == np.uint8
        assert np.array_equal(found.images[part], data.images[part])
        assert np.array_equal(found.labels[part], data.labels[part])
    np.savez(tmp_path / "half.npz", x_train=arrays["x_train"], other=np.zeros(1))
    with pytest.raises(ValueError, match="got no y_train and no x_test and no y_test but x_train"):
        load_npz(tmp_path / "half.npz")


def test_grey_values_are_rounded(tmp_path):
    images = np.array([0.0, 0.4999 / 255, 0.5001 / 255, 1.0]).reshape(4, 1, 1)
    labels = np.zeros(4, int)
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels,
             test_images=images, test_labels=labels)  # fmt: skip
    assert load_npz(tmp_path / "set.npz").images["train"].ravel().tolist() == [0, 0, 1, 255]


def test_fewer_training_images():
    few = blobs().first(7)
    assert len(few.images["train"]) == 7 and len(few.tensor("test")) == 24
    with pytest.raises(ValueError, match="--images: expected 1 to 48 training images, got 49"):
        blobs().first(49)


# ---- views


def test_views_without_range_change_nothing():
    x = torch.rand(5, 1, 9, 9)
    torch.testing.assert_close(Views(0, 0, 0, 0)(x), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(Views(0, 0, 0, 0, mirror=1.0)(x), x.flip(3), atol=1e-5, rtol=0)


def test_views_stay_in_range_and_follow_their_generator():
    x = torch.rand(64, 1, 12, 12)
    view = Views(contrast=0.5)
    a, b = (view(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and a.shape == x.shape
    assert a.min() >= 0 and a.max() <= 1 and not torch.allclose(a, x, atol=0.1)


def test_the_views_of_settings():
    own = Settings(rotation=1.0, scale=2.0, shear=3.0, shift=4.0, mirror=0.5, contrast=6.0)
    assert Views.of(own) == Views(1.0, 2.0, 3.0, 4.0, 0.5, 6.0)
    assert Views.of(Settings()) == Views()


def test_a_shift_is_a_share_of_the_width():
    x = torch.zeros(2000, 1, 20, 20)
    x[:, :, 10, 10] = 1.0
    view = Views(0, 0, 0, shift=0.25)(x)
    place = (view.sum((1, 2)) * torch.arange(20)).sum(1) / view.sum((1, 2, 3))
    # Uniform on 10 ± 5 pixels: a standard deviation of 5 / sqrt(3).
    assert place.std() == pytest.approx(5 / math.sqrt(3), rel=0.05)
    assert place.min() > 4.8 and place.max() < 15.2


# ---- measurements


def test_accuracies_under_both_maps():
    label = np.array([0] * 6 + [1] * 4 + [2] * 2)
    code = np.array([0] * 3 + [1] * 3 + [2] * 4 + [2] * 2)
    scored = accuracies(code, label)
    # Codes 0 and 1 both hold class 0: one-to-one may use one of them only.
    assert scored["one_to_one"] == pytest.approx(7 / 12)
    assert scored["majority"] == pytest.approx(10 / 12)
    assert scored["counts"] == [[3, 0, 0], [3, 0, 0], [0, 4, 2]]
    assert accuracies((label + 1) % 3, label)["one_to_one"] == 1.0


def test_consensus_is_the_mean_agreement_with_the_others():
    a = np.arange(12) % 3
    assert consensus([a, (a + 1) % 3]) == [1.0, 1.0]
    values = consensus([a, a, np.arange(12) // 4])
    assert values[0] == values[1] > values[2]
    assert consensus([a]) == [0.0]


def run_of(seed, bound, accuracy, elbo):
    return {"name": str(seed), "unsupervised": {"bound": bound, "flat": 1.0},
            "accuracy": {"one_to_one": accuracy}, "held_out": {"elbo": elbo}}  # fmt: skip


def test_the_pick_reads_no_label():
    runs = [run_of(0, 2.0, 0.5, -3.0), run_of(1, 2.2, 0.6, -1.0), run_of(2, 2.1, 0.9, -2.0)]
    assert picked(runs)["name"] == "1"
    assert correlations(runs) == {"bound": pytest.approx(0.5), "elbo": pytest.approx(0.5)}


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


# ---- training


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


def test_a_value_that_is_not_finite_stops_the_run(tmp_path):
    trainer = Trainer(settings(), blobs(), CPU)
    with torch.no_grad():
        next(trainer.vae.decoder.parameters()).fill_(math.nan)
    with pytest.raises((FloatingPointError, ValueError)):
        trainer.train_epoch(lambda: None)


def test_the_code_finds_classes_that_views_keep():
    data = blobs(train=384, test=96)
    own = settings(epochs=15, batch=64, rotation=0.0, scale=0.0, shear=0.0, shift=0.02, seed=1)
    trainer = Trainer(own, data, CPU)
    for _ in range(own.epochs):
        trainer.train_epoch(lambda: None)
    found = measure(trainer.vae, data, own).values
    assert found["accuracy"]["one_to_one"] > 0.9 and found["held_out"]["kl_c"] > 0.8


@pytest.mark.parametrize("model", ["joint", "gaussian"])
def test_measuring_leaves_the_random_state_alone(model):
    trainer = Trainer(settings(model=model), blobs(), CPU)
    before = torch.get_rng_state()
    one, two = (measure(trainer.vae, blobs(), trainer.settings) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert one.values == two.values
    held = one.values["held_out"]
    parts = [held[name] for name in ("nll", "kl_z", "kl_c") if name in held]
    assert held["elbo"] == pytest.approx(-sum(parts))


def test_the_traversal_has_the_first_number_to_the_right_and_the_second_upwards():
    trainer = Trainer(settings(model="gaussian"), blobs(), CPU)

    class Painter(torch.nn.Module):
        def forward(self, codes):
            return codes[:, :2, None, None].expand(-1, -1, 8, 8).mean(1, keepdim=True) * 0 + (
                codes[:, 0, None, None, None] + 10 * codes[:, 1, None, None, None]
            ).expand(-1, 1, 8, 8)

    trainer.vae.decoder.forward = Painter().forward
    seen = (
        measure(trainer.vae, blobs(), trainer.settings)
        .pictures["traversal"][..., 0, 0]
        .astype(float)
    )
    across, up = np.meshgrid(RANGE, RANGE[::-1])
    expected = 255 / (1 + np.exp(-(across + 10 * up)))
    np.testing.assert_allclose(seen, expected, atol=1.0)


# ---- the command


def test_the_joint_model_with_and_without_the_term(tmp_path, capsys):
    path = npz(tmp_path / "set.npz")
    assert start(tmp_path, "--data", path, "--k", 3, "--seeds", 0, 1, 2) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "set.npz, test: 48 train, 24 test images of 8 x 8" in shown.out
    assert "mi=30: one-to-one" in shown.out and "rank correlation" in shown.out
    assert "test images of each class by code" in shown.out
    content = results(tmp_path)
    assert str(tmp_path) not in json.dumps(content)
    assert [run["name"] for run in content["runs"]][:2] == [
        "joint mi=30 seed=0", "joint mi=0 seed=0"
    ]  # fmt: skip
    run = content["runs"][0]
    assert np.sum(run["accuracy"]["counts"]) == 24
    assert sum(run["probabilities"]["of_all"]) == 72
    assert set(run["unsupervised"]) == {
        "information", "bound", "entropy", "agreement", "read_back", "consensus"
    }  # fmt: skip
    held = run["held_out"]
    assert held["bound"] <= held["information"] <= held["entropy"] <= math.log(3) + 1e-6
    # The KL is the information and how far the code's shares are from even ones.
    assert held["information"] <= held["kl_c"] + 1e-5
    assert run["history"][-1]["step"] == 6.0
    assert content["summary"]["30"]["picked"].startswith("joint mi=30")
    names = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert [n for n in names if n.startswith(("probabilities", "trend"))] == [
        "probabilities.png", "trend_drawn_joint.png", "trend_kl_c_joint.png",
        "trend_kl_z_joint.png", "trend_mi_joint.png",
    ]  # fmt: skip
    assert sum(n.startswith("grid") for n in names) == 2

    # The stored files are all that the figures need.
    assert main(["--draw", str(tmp_path / "results.json"), "--output", str(tmp_path / "new")]) == 0
    again = sorted(p.name for p in (tmp_path / "new" / "figures").iterdir())
    assert again == names
    for name in names:
        assert (tmp_path / "figures" / name).read_bytes() == (
            tmp_path / "new" / "figures" / name
        ).read_bytes()


def test_the_gaussian_model(tmp_path, capsys):
    path = npz(tmp_path / "set.npz")
    assert start(tmp_path, "--data", path, "--model", "gaussian", "--mi", 0, 5) == 0
    assert "I(z_1,z_2;x')" in capsys.readouterr().out
    content = results(tmp_path)
    assert [len(run["kl_per_dimension"]) for run in content["runs"]] == [32, 32]
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names == {
        "traversal_gaussian_mi=0_seed=0.png", "traversal_gaussian_mi=5_seed=0.png",
        "trend_mi_gaussian.png", "trend_kl_z_gaussian.png",
    }  # fmt: skip


def test_a_rerun_keeps_the_results_of_the_earlier_run(tmp_path, capsys):
    options = ("--data", npz(tmp_path / "set.npz"), "--no-figures", "--k", 3, "--mi")
    out = tmp_path / "out"
    assert start(out, *options, 30, 0) == 0
    assert "kept" not in capsys.readouterr().out
    files = ("results.json", "results.npz")
    first = [(out / name).read_bytes() for name in files]
    for weight in (5, 7):
        assert start(out, *options, weight) == 0
    told = "kept the results of an earlier run as results.{0}.json and results.{0}.npz\n"
    shown = capsys.readouterr().out
    assert shown.count(told.format(1)) == shown.count(told.format(2)) == 1
    assert [(out / name.replace(".", ".1.")).read_bytes() for name in files] == first
    runs = [json.loads((out / f"results{n}.json").read_text())["runs"] for n in ("", ".1", ".2")]
    assert [[r["settings"]["mi"] for r in own] for own in runs] == [[7.0], [30.0, 0.0], [5.0]]
    # What was kept can be drawn.
    kept = ["--draw", str(out / "results.1.json"), "--output", str(tmp_path / "new")]
    assert main(kept) == 0
    assert len(list((tmp_path / "new" / "figures").glob("grid*"))) == 2


def test_resume_where_there_is_nothing(tmp_path, capsys):
    options = ("--data", npz(tmp_path / "set.npz"), "--no-figures", "--resume", "--mi")
    told = f"nothing to resume in {tmp_path}: starting from the beginning\n"
    assert start(tmp_path, *options, 5) == 0
    assert capsys.readouterr().out.count(told) == 1
    assert start(tmp_path, *options, 5) == 0
    assert told not in capsys.readouterr().out
    assert start(tmp_path, *options, 6) == 0  # another run has nothing to go on from either
    assert told in capsys.readouterr().out
    assert not (tmp_path / "results.1.json").exists()


def test_a_log_has_a_line_for_each_tenth(tmp_path, capsys):
    data = str(npz(tmp_path / "set.npz"))
    given = ["--data", data, "--epochs", "10", "--batch", "16", "--mi", "30", "--no-figures"]
    assert main([*given, "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and all(line.startswith("joint mi=30 (seed 0): ") for line in lines)
    assert ": 10 %, step 3 of 30, " in lines[0] and ", mi " in lines[-1]


def test_figures_name_the_class_of_each_code(tmp_path, monkeypatch):
    from vmi import figures

    counts = [[0, 0, 9], [8, 1, 0], [5, 0, 0]]
    run = {"name": "a", "settings": {"mi": 0, "seed": 0}, "accuracy": {"counts": counts}}
    seen, saved = {}, []
    monkeypatch.setattr(figures.plots, "attribute_grid", lambda _, **named: seen.update(named))
    monkeypatch.setattr(figures, "_save", lambda figure, *_: saved.append(figure))
    figures._grid(run, np.zeros((4, 2, 8, 8), np.uint8), tmp_path)
    # Code 2 would get class 1, of which it has no image; code 3 was never used.
    assert seen["rows"] == ["code 0 → class 2", "code 1 → class 0", "code 2", "code 3"]
    figures._classes(run, tmp_path)
    figure = saved[1]
    assert figure.get_supxlabel() == "class" and figure.get_supylabel() == "test images"
    for panel, title in zip(figure.axes, seen["rows"], strict=False):
        assert panel.get_title() == title and list(panel.get_xticks()) == [0, 1, 2]


def test_resumed_from_the_command(tmp_path, capsys):
    options = ("--data", npz(tmp_path / "set.npz"), "--mi", 30, "--no-figures")
    assert start(tmp_path, *options) == 0
    first = results(tmp_path)
    assert start(tmp_path, *options, "--resume") == 0
    second = results(tmp_path)
    assert first["runs"] == second["runs"]
    assert start(tmp_path, *options, "--resume", "--lr", "0.1") == 2
    assert "lr: 0.002 then, 0.1 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "no/such/place"], "--data: expected 'digits', a folder of IDX files or an"),
        (["--device", "cuda:99"], "--device: expected an available device, got 'cuda:99'"),
        (["--batch", "1"], "--batch: expected at least 2, got 1"),
        (["--batch", "49"], "--batch: expected at most the 48 training images, got 49"),
        (["--images", "0"], "--images: expected 1 to 48 training images, got 0"),
        (["--epochs", "0"], "--epochs: expected a positive number, got 0"),
        (["--mi", "-1"], "--mi: expected a number >= 0, got -1.0"),
        (["--mi", "1", "1"], "--mi: expected different values, got [1.0, 1.0]"),
        (["--seeds", "2", "2"], "--seeds: expected different values, got [2, 2]"),
        (["--temperature", "0.1"], "--temperature-end: expected at most temperature 0.1, got 0.5"),
        (["--model", "gaussian", "--z", "1"], "--z: expected at least 2"),
        (["--lr", "nan"], "--lr: expected a positive number, got nan"),
        (["--draw", "no.json"], "--draw: expected a results file, got no.json: No such file"),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    data = [] if "--data" in options else ["--data", npz(tmp_path / "set.npz")]
    assert start(tmp_path / "out", *data, *options) == 2
    err = capsys.readouterr().err
    assert err.startswith("vmi_digits.py: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.rglob("checkpoint*"))


def test_what_is_no_results_file_is_not_drawn(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{")
    assert main(["--draw", str(tmp_path / "x.json"), "--output", str(tmp_path)]) == 2
    assert "--draw: expected a results file, got x.json" in capsys.readouterr().err
    (tmp_path / "x.json").write_text('{"runs": []}')
    (tmp_path / "x.npz").write_text("none")
    assert main(["--draw", str(tmp_path / "x.json"), "--output", str(tmp_path)]) == 2
    assert "--draw: expected an .npz archive, got x.npz" in capsys.readouterr().err


def test_what_is_no_archive(tmp_path, capsys):
    for name, content in (("x.npz", b"none"), ("y.npz", b""), ("z.npz", b"PK\3\4 cut short")):
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "w.npy", np.zeros(3))
    for name in ("x.npz", "y.npz", "z.npz", "w.npy"):
        assert start(tmp_path / "out", "--data", tmp_path / name) == 2
        err = capsys.readouterr().err
        assert f"--data: expected an .npz archive, got {name}" in err and "pickle" not in err


def test_options_are_written_out(tmp_path, capsys):
    with pytest.raises(SystemExit):
        start(tmp_path, "--epoch", 3)
    assert "unrecognized arguments: --epoch" in capsys.readouterr().err


def test_interrupted(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vmi.main.train", stop)
    assert start(tmp_path, "--data", npz(tmp_path / "set.npz")) == 130
    assert "--resume goes on" in capsys.readouterr().err


def test_without_matplotlib_it_fails_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(vmi, "figures", raising=False)
    monkeypatch.setitem(sys.modules, "vmi.figures", None)
    assert start(tmp_path / "out") == 2
    assert "figures" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert all(action.help for action in parser()._actions)
    assert set(TEXTS) == set(Settings.__dataclass_fields__) - {"model", "mi", "seed"}
    for name in Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text or name == "seed"


def test_presets_fill_what_is_not_given():
    options = parser().parse_args(["--preset", "mnist", "--seeds", "0", "1", "--epochs", "3"])
    runs = settings_of(options)
    assert [(s.seed, s.mi, s.epochs) for s in runs] == [
        (0, 30.0, 3), (0, 0.0, 3), (1, 30.0, 3), (1, 0.0, 3)
    ]  # fmt: skip
    assert settings_of(parser().parse_args([]))[0].epochs == PRESETS["digits"]["epochs"]
    gaussian = settings_of(parser().parse_args(["--model", "gaussian"]))
    assert [(s.z, s.mi) for s in gaussian] == [(32, 0.0), (32, 1.0), (32, 5.0)]


def test_the_script_starts(monkeypatch):
    import runpy

    import vmi.main as module

    monkeypatch.setattr(module, "main", lambda: 0)
    path = os.path.join(os.path.dirname(vmi.__file__), "..", "vmi_digits.py")
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(path, run_name="__main__")
    assert caught.value.code == 0


# ---- brackets


def test_brackets_of_finished_runs(tmp_path, capsys):
    from vmi import bracket

    data = npz(tmp_path / "data.npz", blobs(test=120))
    assert start(tmp_path / "out", "--data", data, "--seeds", 0, "--mi", 30, "--k", 3) == 0
    given = ["--runs", str(tmp_path / "out"), "--data", str(data), "--quiet"]
    assert bracket.main(given) == 0
    content = json.loads((tmp_path / "out" / "brackets.json").read_text())
    (run,) = content["runs"]
    assert run["consistent"] and run["lower"] <= run["exact"] + 1e-6 <= run["upper"] + 1e-5
    assert run["decoded"] <= run["entropy"] + 1e-6 and "I(c; x)" in capsys.readouterr().out
    assert bracket.main(["--runs", str(tmp_path / "none"), "--data", str(data)]) == 2
    assert "expected a folder with results.json" in capsys.readouterr().err


# ---- the stamp of results


def test_the_stamp_tells_code_that_is_in_no_commit(tmp_path, monkeypatch):
    import subprocess

    from harness import command

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "examples" / "harness").mkdir(parents=True)
    monkeypatch.setattr(command, "__file__", str(tmp_path / "examples" / "harness" / "command.py"))
    git("init")
    (tmp_path / "model.py").write_text("a = 1\n")
    git("add", "model.py")
    git("commit", "-m", "first")
    clean = command.commit()
    assert len(clean) == 40
    (tmp_path / "results.json").write_text("{}")  # no code
    assert command.commit() == clean
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "other.py").write_text("b = 2\n")  # code that git does not know
    assert command.commit() == clean + "-changed"
    (tmp_path / "new" / "other.py").unlink()
    (tmp_path / "model.py").write_text("a = 2\n")
    assert command.commit() == clean + "-changed"


def test_stored_brackets_are_in_order():
    """Of every model whose results are stored: lower less three standard errors <= upper."""
    folder = Path(main.__code__.co_filename).parent / "results"
    runs = [run for path in folder.glob("*_brackets.json")
            for run in json.loads(path.read_text())["runs"]]  # fmt: skip
    assert len(runs) >= 24
    for run in runs:
        assert run["lower"] - 3 * run["lower_error"] <= run["upper"], run["name"]
