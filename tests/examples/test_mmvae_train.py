"""Training of the MMVAE example: what it computes, how it resumes, how checkpoints fail."""

import csv
import errno
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vaereg
from harness import checkpoint
from harness.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, write_text
from mmvae.data import load_builtin
from mmvae.models import MODELS, PRESETS, Preset
from mmvae.settings import Settings
from mmvae.train import Trainer, encode_all, train

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return load_builtin(40)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", Preset(width=2, z=4, critic_width=8, critic_depth=1))


def settings(model="mmvae", **changes):
    return Settings(model, **{"preset": "tiny", "epochs": 2, "batch": 8, "critic_steps": 2,
                              **changes})  # fmt: skip


def fit(folder, data, own=None, **options):
    return train(own or settings(), data, folder, device=CPU, progress=False, **options)


def state_of(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_same(left, right, where="state"):
    assert type(left) is type(right), where
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}[{key!r}]")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), where
        for i, pair in enumerate(zip(left, right, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert left == right, where


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- one run


@pytest.mark.parametrize("model", MODELS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(model, data, tmp_path):
    whole, history = fit(tmp_path / "whole", data, settings(model))
    fit(tmp_path / "parts", data, settings(model, epochs=1))
    torch.rand(13)
    resumed, again = fit(tmp_path / "parts", data, settings(model), resume=True)
    assert history == again and [row["epoch"] for row in history] == [1.0, 2.0]
    assert_same(whole.state_dict(), resumed.state_dict())
    assert not whole.training and not resumed.training
    left, right = state_of(tmp_path / "whole"), state_of(tmp_path / "parts")
    assert left["settings"].pop("epochs") == right["settings"].pop("epochs") == 2
    assert_same(left, right)
    assert left["step"] == 8 and left["epoch"] == 2
    text = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "parts")]
    assert text[0] == text[1]


def test_a_run_that_is_cut_in_the_middle_of_an_epoch_resumes_as_if_it_had_not(
    data, tmp_path, monkeypatch
):
    _, history = fit(tmp_path / "whole", data)
    step = Trainer.train_step

    def cut(self, x, y):
        if self.step == 6:  # of four steps an epoch
            raise KeyboardInterrupt
        return step(self, x, y)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut", data)
    assert state_of(tmp_path / "cut")["epoch"] == 1
    _, again = fit(tmp_path / "cut", data, resume=True)
    assert again == history
    assert_same(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))


def test_resume_without_a_checkpoint_starts_and_a_finished_run_is_only_loaded(data, tmp_path):
    vae, history = fit(tmp_path, data, resume=True)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    again, same = fit(tmp_path, data, resume=True)
    assert same == history and (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before
    assert_same(vae.state_dict(), again.state_dict())


def test_seeds_differ_and_repeat(data, tmp_path):
    _, one = fit(tmp_path / "a", data)
    _, same = fit(tmp_path / "b", data)
    _, other = fit(tmp_path / "c", data, settings(seed=1))
    assert one == same and one != other


def test_log_has_a_row_an_epoch(data, tmp_path):
    _, history = fit(tmp_path, data)
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(v) for name, v in row.items()} for row in rows] == history
    assert set(history[0]) == {
        "epoch", "nll", "kl", "i_cy", "i_zy", "i_zc", "total", "weight/kl", "weight/i_cy",
        "weight/i_zy", "weight/i_zc", "val_nll", "val_kl_z", "val_kl_c", "val_loss",
    }  # fmt: skip
    for row in history:
        parts = row["val_nll"] + row["val_kl_z"] + row["val_kl_c"]
        assert row["val_loss"] == pytest.approx(parts)
    assert files_in(tmp_path) == ["checkpoint.pt", "checkpoint.pt.previous", "log.csv"]


def test_the_learning_rate_falls_at_epochs_1_2_4(data):
    own = settings(lr=1e-3, c_lr=2e-4, critic_lr=3e-3, critic_steps=0)
    trainer = Trainer(own, data, CPU)
    common, head = trainer.main.param_groups
    assert {id(p) for p in head["params"]} == {
        id(p) for p in trainer.vae.encoder.c_head.parameters()
    }
    factors = []
    for _ in range(6):
        assert head["lr"] / common["lr"] == pytest.approx(0.2)
        factors.append(common["lr"] / 1e-3)
        trainer.train_epoch(lambda: None)
    assert factors == pytest.approx([0.75**power for power in (0, 1, 2, 2, 3, 3)])
    assert all(group["lr"] == 3e-3 for group in trainer.critics.param_groups)


def test_validation_does_not_move_the_random_numbers_of_training(data):
    trainer = Trainer(settings(), data, CPU)
    before = torch.get_rng_state()
    first, second = trainer.validate(), trainer.validate()
    assert torch.equal(before, torch.get_rng_state()) and first == second
    encode_all(trainer.vae, data, "val")
    assert torch.equal(before, torch.get_rng_state())


def test_main_step_and_critic_steps_move_their_own_parameters_only(data):
    trainer = Trainer(settings(critic_steps=0), data, CPU)
    main = {id(p) for group in trainer.main.param_groups for p in group["params"]}
    critics = {id(p) for group in trainer.critics.param_groups for p in group["params"]}
    assert main.isdisjoint(critics) and len(critics) == 3 * 4
    assert main | critics == {id(p) for p in trainer.vae.parameters()}

    trainer.vae.train()
    own = {name: p.clone() for name, p in trainer.vae.named_parameters()}
    x, y = torch.rand(8, 3, 64, 64), torch.arange(8)[:, None] % 2
    # The decoder starts without c and c's head at the prior: its branch moves from step 3 on.
    for _ in range(3):
        out = trainer.train_step(x, y)
    for name, parameter in trainer.vae.named_parameters():
        moved = not torch.equal(own[name], parameter)
        assert moved == (id(parameter) in main), name
        assert id(parameter) in main or parameter.grad is None, name

    own = {name: p.clone() for name, p in trainer.vae.named_parameters()}
    trainer.vae.objective.critic_step(out.batch, trainer.critics)
    for name, parameter in trainer.vae.named_parameters():
        if id(parameter) in main:
            assert torch.equal(own[name], parameter), name
    assert any(not torch.equal(own[n], p) for n, p in trainer.vae.named_parameters())


def test_warmup_raises_beta_and_gamma_from_zero(data, tmp_path):
    _, history = fit(tmp_path, data, settings(warmup=2, beta=2.0, gamma=1.0, epochs=3))
    for name, final in (("beta", 2.0), ("gamma", 1.0)):
        key = {"beta": "weight/i_zy", "gamma": "weight/i_zc"}[name]
        means = [row[key] / final for row in history]
        # Eight steps of warm-up, four an epoch.
        assert means == pytest.approx([1.5 / 8, 5.5 / 8, 1.0])


def test_a_first_batch_of_one_class_is_no_error(data, tmp_path):
    """A rare attribute is absent from many batches."""
    positive = np.flatnonzero(data.attributes[:, 0])[:1]
    negative = np.flatnonzero(1 - data.attributes[:, 0])
    rows = np.concatenate([negative[:23], positive])
    rare = replace(data, split={**data.split, "train": np.sort(rows)})
    for model in MODELS:
        _, history = fit(tmp_path / model, rare, settings(model, batch=4, epochs=1))
        assert np.isfinite(list(history[0].values())).all()


def test_tensorboard_events(data, tmp_path):
    pytest.importorskip("tensorboard")
    fit(tmp_path, data, settings(epochs=1), tensorboard=True)
    assert list((tmp_path / "tensorboard").iterdir())


def test_encoded_codes_are_draws_of_all_rows(data, tmp_path):
    vae, _ = fit(tmp_path, data, settings(epochs=1))
    codes = encode_all(vae, data, "train", seed=1)
    assert {n: tuple(t.shape) for n, t in codes.items()} == {"z": (32, 4), "c": (32, 2),
                                                            "y": (32, 1)}  # fmt: skip
    assert np.array_equal(codes["y"], data.attributes[data.split["train"]])
    assert torch.equal(codes["z"], encode_all(vae, data, "train", seed=1)["z"])
    assert not torch.equal(codes["z"], encode_all(vae, data, "train", seed=2)["z"])


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected a positive number, got 0"),
        ({"lr": float("nan")}, "lr: expected a positive number, got nan"),
        ({"beta": float("inf")}, "beta: expected a finite number, got inf"),
        ({"batch": 1}, "batch: expected at least 2 images a step, got 1"),
        ({"critic_steps": -1}, "critic_steps: expected a number >= 0, got -1"),
        ({"seed": -1}, "seed: expected a number >= 0, got -1"),
        ({"preset": "huge"}, "preset: expected one of .*got 'huge'"),
    ],
)
def test_settings_refuse(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_batch_larger_than_the_training_set(data, tmp_path):
    with pytest.raises(ValueError, match=r"batch: expected at most the 32 training.*got 33"):
        fit(tmp_path, data, settings(batch=33))
    fit(tmp_path, data, settings(batch=32, epochs=1))


@pytest.mark.parametrize("model", MODELS)
def test_a_loss_that_is_not_finite_is_named_and_not_kept(model, data, tmp_path, monkeypatch):
    fit(tmp_path, data, settings(model, epochs=1))
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(
        vaereg.functional, "gaussian_nll", lambda *_, **__: torch.tensor(torch.inf)
    )
    with pytest.raises(FloatingPointError, match=f"{model}: .*nll = inf at step 5"):
        fit(tmp_path, data, settings(model), resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def test_codes_that_are_not_finite_are_reported_alike(data, tmp_path, monkeypatch):
    step = Trainer.train_step

    def broken(self, x, y):
        with torch.no_grad():
            self.vae.encoder.z_head.bias[0] = torch.nan
        return step(self, x, y)

    monkeypatch.setattr(Trainer, "train_step", broken)
    with pytest.raises(FloatingPointError, match=r"mmvae: .*nll = nan, kl = nan.*at step 1"):
        fit(tmp_path, data)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("beta", 2.0), ("seed", 1), ("batch", 16), ("lr", 5e-4), ("critic_steps", 1)],
)
def test_resume_with_another_option(name, value, data, tmp_path):
    fit(tmp_path, data, settings(epochs=1))
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    then = getattr(settings(), name)
    with pytest.raises(CheckpointError, match=rf"got {name}: {then!r} then, {value!r} now;"):
        fit(tmp_path, data, settings(**{name: value}), resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def test_resume_with_fewer_epochs_than_done(data, tmp_path):
    fit(tmp_path, data)
    with pytest.raises(CheckpointError, match="at least the 2 epochs that are done, got 1"):
        fit(tmp_path, data, settings(epochs=1), resume=True)


def test_resume_with_other_data(data, tmp_path):
    fit(tmp_path, data, settings(epochs=1))
    others = {
        "images": load_builtin(40, seed=1),
        "attributes": load_builtin(40, ("Smiling",)),
        "training images": load_builtin(40, sequential=True),
    }
    for name, other in others.items():
        with pytest.raises(CheckpointError, match=f"{name}: .* then, .* now"):
            fit(tmp_path, other, resume=True)
    images = data.images.copy()
    images[data.split["train"][0]] = 0
    with pytest.raises(CheckpointError, match="training images: '32 of digest"):
        fit(tmp_path, replace(data, images=images), resume=True)


# ---- checkpoints that are damaged


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[: len(content) // 4] = os.urandom(len(content) // 4)
    path.write_bytes(content)


DAMAGES = {
    "truncated": truncated,
    "random": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("epoch,loss\n1,2\n"),
    "foreign": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "pickle": lambda path: torch.save({"settings": Path("x")}, path),
    "list": lambda path: torch.save([1, 2], path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_a_damaged_checkpoint_the_previous_generation_is_used(damage, data, tmp_path):
    _, history = fit(tmp_path, data)
    whole = state_of(tmp_path)
    DAMAGES[damage](tmp_path / "checkpoint.pt")
    with pytest.warns(UserWarning, match=r"going on from checkpoint\.pt\.previous") as caught:
        _, again = fit(tmp_path, data, resume=True)
    assert again == history and "\n" not in str(caught[0].message)
    assert_same(whole, state_of(tmp_path))
    assert "checkpoint.pt.damaged" in files_in(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_without_another_is_kept_aside(damage, data, tmp_path):
    fit(tmp_path, data, settings(epochs=1))
    path = tmp_path / "checkpoint.pt"
    DAMAGES[damage](path)
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: .*start again without --resume"):
        fit(tmp_path, data, resume=True)
    assert (tmp_path / "checkpoint.pt.damaged").read_bytes() == content and not path.exists()


def test_both_generations_damaged(data, tmp_path):
    fit(tmp_path, data)
    truncated(tmp_path / "checkpoint.pt")
    truncated(tmp_path / "checkpoint.pt.previous")
    with pytest.raises(CheckpointError, match=r"\.pt\.damaged; .*\.previous\.damaged; there is"):
        fit(tmp_path, data, resume=True)


def test_a_state_of_other_networks(data, tmp_path):
    fit(tmp_path, data, settings(epochs=1))
    state = state_of(tmp_path)
    state["vae"] = dict(list(state["vae"].items())[1:])
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: expected the state of these net"):
        fit(tmp_path, data, resume=True)
    torch.save({"settings": state["settings"]}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="KeyError"):
        fit(tmp_path, data, resume=True)


def test_a_checkpoint_that_may_not_be_read_is_left_in_place(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"settings": {}})

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        load_checkpoint(path, {})
    assert files_in(tmp_path) == ["checkpoint.pt"]


# ---- a full disk


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def torch_full(state, path, *_, **__):
    Path(path).write_bytes(b"half a checkpoint")
    raise RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed")


@pytest.mark.parametrize(
    ("owner", "name", "fake"),
    [
        (torch, "save", full),
        (torch, "save", torch_full),
        (os, "fsync", full),
        (os, "replace", full),
    ],
    ids=["open", "write", "fsync", "replace"],
)
@pytest.mark.parametrize("generations", [0, 1, 2])
def test_a_full_disk_leaves_the_earlier_checkpoint(
    owner, name, fake, generations, tmp_path, monkeypatch
):
    path = tmp_path / "checkpoint.pt"
    for epoch in range(generations):
        save_checkpoint(path, {"settings": {}, "epoch": epoch})
    before = files_in(tmp_path)
    monkeypatch.setattr(owner, name, fake)
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, {"settings": {}, "epoch": 9})
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert ("untouched" if generations else "there is none before it") in str(caught.value)
    assert files_in(tmp_path) == before
    state = load_checkpoint(path, {})
    assert (state and state["epoch"]) == (generations - 1 if generations else None)
    save_checkpoint(path, {"settings": {}, "epoch": 10})
    assert load_checkpoint(path, {})["epoch"] == 10


def test_the_disk_fills_between_two_moves(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"settings": {}, "epoch": 0})
    real = os.replace

    def second_fails(source, target):
        if Path(target) == path:
            full()
        real(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(CheckpointError, match=r"untouched: .*checkpoint\.pt\.previous"):
        save_checkpoint(path, {"settings": {}, "epoch": 1})
    assert files_in(tmp_path) == ["checkpoint.pt.previous"]
    assert load_checkpoint(path, {})["epoch"] == 0


def test_a_full_disk_while_training_can_be_resumed(data, tmp_path, monkeypatch):
    _, history = fit(tmp_path / "whole", data)
    fit(tmp_path / "full", data, settings(epochs=1))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            fit(tmp_path / "full", data, resume=True)
    _, again = fit(tmp_path / "full", data, resume=True)
    assert again == history


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text(path, "one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"cannot write .*results\.json: .*No space"):
            write_text(path, "two")
    assert path.read_text() == "one" and files_in(tmp_path) == ["results.json"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on the size of files")
def test_a_file_system_that_really_refuses(tmp_path):
    """The limit makes the writing itself fail, inside of torch."""
    program = textwrap.dedent(
        f"""
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(checkpoint.__file__).parents[1])!r})
        import torch
        from harness.checkpoint import *
        path = Path({str(tmp_path)!r}) / "checkpoint.pt"
        save_checkpoint(path, {{"settings": {{}}, "epoch": 0, "x": torch.zeros(100)}})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        for write in (
            lambda: save_checkpoint(path, {{"settings": {{}}, "x": torch.zeros(100_000)}}),
            lambda: write_text(path.with_name("log.csv"), "x" * 100_000),
        ):
            try:
                write()
            except CheckpointError as error:
                print(error)
        print(load_checkpoint(path, {{}})["epoch"], sorted(p.name for p in path.parent.iterdir()))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert first.startswith(f"cannot write checkpoint {tmp_path / 'checkpoint.pt'}: ")
    assert first.endswith(f"the one before it is untouched: {tmp_path / 'checkpoint.pt'}")
    assert second.startswith(f"cannot write {tmp_path / 'log.csv'}: ")
    assert last == "0 ['checkpoint.pt']"
