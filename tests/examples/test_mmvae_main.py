"""The command of the MMVAE example from its options to its tables, files and errors."""

import json
import math
import os
import sys

import numpy as np
import pytest
import torch

import mmvae
from mmvae.evaluate import entropy_bits, flip
from mmvae.faces import faces
from mmvae.main import main
from mmvae.models import PRESETS, Preset, Weights, build
from mmvae.options import parser
from mmvae.report import Row, measured, table
from mmvae.settings import Settings
from vaereg.metrics import MIEstimate, SwapAccuracy

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.usefixtures("one_thread")

QUANTITIES = ["I(c;y)", "I(z;y)", "I(z;c)"]
TINY = Preset(width=2, z=4, critic_width=8, critic_depth=1)
FEW = ["--preset", "tiny", "--images", "50", "--measure-images", "300", "--epochs", "1",
       "--batch", "20", "--mi-runs", "1", "--classifier-epochs", "1", "--quiet"]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def start(output, *options):
    return main([*FEW, "--output", str(output), *map(str, options)])


def results(folder):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [x for entry in value for x in numbers(entry)]
    return [value] if isinstance(value, (int, float)) else []


def pictures(folder):
    """Names of all figures, each opened and seen to hold something."""
    from matplotlib.image import imread

    names = []
    for path in sorted(folder.rglob("*.png")):
        image = imread(path)
        assert min(image.shape[:2]) > 200 and image[..., :3].std() > 0.01, path
        names.append(path.relative_to(folder).as_posix())
    return names


# ---- whole runs


def test_all_three_models(tmp_path, capsys):
    assert start(tmp_path) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0] == (
        "50 procedural faces, seed 0: 40 train, 5 val, 5 test; attributes Eyeglasses; "
        "measured on 294, none of them trained on"
    )
    head = next(i for i, line in enumerate(lines) if line.startswith("model"))
    assert [line.split()[0] for line in lines[head + 2 : head + 5]] == ["r-cvae", "csvae", "mmvae"]
    assert all(q in lines[head] for q in [*QUANTITIES, "swap Eyeglasses"])
    assert f"results: {tmp_path / 'results.json'}" in lines

    content = results(tmp_path)
    assert set(content) == {
        "commit", "torch", "device", "threads", "command", "data", "attributes", "images",
        "measured_on", "entropy_bits", "classifier_accuracy_on_real_images", "runs",
    }  # fmt: skip
    assert content["commit"] == "unknown" or len(content["commit"].split("-")[0]) == 40
    assert content["images"] == {"train": 40, "val": 5, "test": 5}
    assert content["measured_on"]["rows"] == 294
    assert content["device"] == "cpu" or torch.cuda.is_available()
    assert content["command"].startswith("--preset tiny --images 50 ")
    assert 0.8 < content["entropy_bits"] < 1.0
    for run, name in zip(content["runs"], ("r-cvae", "csvae", "mmvae"), strict=True):
        assert run["name"] == run["settings"]["model"] == name
        assert list(run["mi_bits"]) == QUANTITIES and list(run["swap"]) == ["Eyeglasses"]
        assert {e["unit"] for e in run["mi_bits"].values()} == {"bits"}
        assert run["swap"]["Eyeglasses"]["count"] == 294 and len(run["history"]) == 1
        assert 0 <= run["swap"]["Eyeglasses"]["accuracy"] <= 1
        # q(c | x, y) starts at a prior that tells the two labels apart.
        assert 0.7 < run["mi_bits"]["I(c;y)"]["mean"] < 1.1
    assert all(map(math.isfinite, numbers(content)))

    kinds = ("grid", "loss", "swap")
    expected = {f"{kind}_{name}.png" for kind in kinds for name in ("r-cvae", "csvae", "mmvae")}
    expected |= {f"scatter_{name}_Eyeglasses.png" for name in ("r-cvae", "csvae", "mmvae")}
    expected |= {"trend_csvae.png", "trend_mmvae.png", "comparison.png"}
    assert set(pictures(tmp_path / "figures")) == expected
    for name in ("r-cvae", "csvae", "mmvae"):
        files = sorted(path.name for path in (tmp_path / "seed0" / name).iterdir())
        assert files == ["checkpoint.pt", "log.csv"]


def test_two_attributes_and_resume(tmp_path, capsys):
    options = ["--attributes", "Smiling", "Eyeglasses", "--model", "mmvae", "--beta", "4"]
    assert start(tmp_path, *options) == 0
    first = capsys.readouterr().out
    before = results(tmp_path)
    assert before["attributes"] == ["Smiling", "Eyeglasses"]
    assert set(before["runs"][0]["swap"]) == {"Smiling", "Eyeglasses"}
    assert before["runs"][0]["settings"]["beta"] == 4.0 and 1.5 < before["entropy_bits"] < 2.0
    assert set(pictures(tmp_path / "figures")) == {
        "comparison.png", "grid_mmvae.png", "loss_mmvae.png", "pairs_mmvae.png", "swap_mmvae.png",
        "scatter_mmvae_Eyeglasses.png", "scatter_mmvae_Smiling.png", "trend_mmvae.png",
    }  # fmt: skip

    path = tmp_path / "seed0" / "mmvae" / "checkpoint.pt"
    stamp = path.stat().st_mtime_ns
    assert start(tmp_path, *options, "--resume") == 0
    assert capsys.readouterr().out == first and path.stat().st_mtime_ns == stamp
    after = results(tmp_path)
    for content in (before, after):
        del content["command"]
        del content["runs"][0]["seconds"]
    assert before == after

    assert start(tmp_path, *options, "--resume", "--beta", "2.5") == 2
    assert "beta: 4.0 then, 2.5 now" in capsys.readouterr().err
    assert start(tmp_path, *options, "--resume", "--epochs", "2", "--no-figures") == 0
    assert [row["epoch"] for row in results(tmp_path)["runs"][0]["history"]] == [1, 2]


def test_a_rerun_keeps_the_results_of_the_earlier_run(tmp_path, capsys):
    options = ("--model", "r-cvae", "--no-figures")
    assert start(tmp_path, *options, "--resume") == 0
    told = f"nothing to resume in {tmp_path}: starting from the beginning\n"
    assert told in capsys.readouterr().out
    first = (tmp_path / "results.json").read_bytes()
    assert start(tmp_path, *options, "--beta", "4") == 0
    assert "kept the results of an earlier run as results.1.json\n" in capsys.readouterr().out
    assert (tmp_path / "results.1.json").read_bytes() == first
    assert results(tmp_path)["runs"][0]["settings"]["beta"] == 4.0
    assert start(tmp_path, *options, "--beta", "4", "--resume") == 0
    out = capsys.readouterr().out
    assert "kept" not in out and "nothing to resume" not in out
    assert not (tmp_path / "results.2.json").exists()


def test_a_log_has_a_line_for_each_tenth_and_no_bars(tmp_path, capsys):
    options = [word for word in FEW if word != "--quiet"] + ["--batch", "4", "--no-figures"]
    assert main([*options, "--model", "r-cvae", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[0].startswith("r-cvae (seed 0): 10 %, step 1 of 10, ")


def test_sweep_over_two_seeds(tmp_path, capsys):
    assert start(tmp_path, "--sweep", "gamma", "0", "2.5", "--seeds", "0", "1") == 0
    out = capsys.readouterr().out
    assert "mmvae gamma=0 " in out and "mmvae gamma=2.5 " in out
    runs = results(tmp_path)["runs"]
    assert [(r["settings"]["gamma"], r["settings"]["seed"]) for r in runs] == [
        (0.0, 0), (2.5, 0), (0.0, 1), (2.5, 1)
    ]  # fmt: skip
    assert (tmp_path / "seed1" / "mmvae_gamma=2.5" / "checkpoint.pt").exists()
    names = pictures(tmp_path / "figures")
    assert "sweep_gamma.png" in names and len(names) == 1 + 4 * 5
    assert "seed1/trend_mmvae_gamma=2.5.png" in names


def test_npz_data(tmp_path, capsys):
    drawn = faces(300, seed=3)
    path = tmp_path / "set.npz"
    glasses = drawn.attributes[:, 0]
    np.savez(path, images=drawn.images, attributes=drawn.attributes,
             attribute_names=np.array(["Eyeglasses", "a/b"]), glasses=glasses)  # fmt: skip
    output = tmp_path / "out"
    assert start(output, "--data", path, "--attributes", "a/b", "--model", "csvae") == 0
    content = results(output)
    assert content["data"] == "set.npz" and content["images"]["train"] == 240
    # Results are passed on: they hold no paths of this machine.
    assert str(tmp_path) not in (output / "results.json").read_text()
    assert content["measured_on"]["rows"] == 60  # all that was not trained on
    assert "scatter_csvae_a_b.png" in pictures(output / "figures")

    key = ["--data", path, "--label-key", "glasses", "--model", "r-cvae", "--no-figures"]
    assert start(tmp_path / "key", *key, "--held-out", "0.5") == 0
    content = results(tmp_path / "key")
    assert content["attributes"] == ["glasses"] and content["measured_on"]["rows"] == 150
    assert not (tmp_path / "key" / "figures").exists()
    capsys.readouterr()


@pytest.fixture
def celeba(tmp_path):
    image = pytest.importorskip("PIL.Image")
    n = 280
    drawn = faces(n, seed=1)
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    lines = [str(n), "Eyeglasses Smiling"]
    for i, (picture, labels) in enumerate(zip(drawn.images, drawn.attributes, strict=True), 1):
        aligned = image.new("RGB", (178, 218))
        aligned.paste(image.fromarray(picture).resize((138, 138)), (20, 40))
        aligned.save(root / "img_align_celeba" / f"{i:06d}.jpg")
        lines.append(f"{i:06d}.jpg " + " ".join(str(2 * int(v) - 1) for v in labels))
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    return root


def test_celeba_folder(celeba, tmp_path, capsys):
    given = ["--data", celeba, "--model", "mmvae", "--no-figures", "--images", "280"]
    assert start(tmp_path / "out", *given) == 0
    content = results(tmp_path / "out")
    assert content["images"] == {"train": 224, "val": 28, "test": 28}
    assert content["measured_on"]["rows"] == 56 and content["data"] == "280 of CelebA in celeba"
    capsys.readouterr()

    broken = celeba / "img_align_celeba" / "000007.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    assert start(tmp_path / "bad", *given) == 2
    assert "000007.jpg" in one_line(capsys)
    with pytest.warns(UserWarning, match="skipped 1 of 280"):
        assert start(tmp_path / "skip", *given, "--skip-unreadable") == 0
    assert sum(results(tmp_path / "skip")["images"].values()) == 279


# ---- what the user can mend


def one_line(capsys):
    err = capsys.readouterr().err
    assert err.startswith("mmvae_celeba.py: ") and err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attributes", "Eyeglases"], "got 'Eyeglases' (did you mean 'Eyeglasses'?)"),
        (["--attributes", "Smiling", "Smiling"], "--attributes: expected a sequence of different"),
        (["--data", "no/such/place"], "--data: expected 'builtin', a CelebA folder or an .npz"),
        (["--device", "nonsense"], "--device: expected an available device, got 'nonsense'"),
        (["--device", "cuda:99"], "--device: expected an available device, got 'cuda:99'"),
        (["--device", "meta"], "--device: expected an available device, got 'meta'"),
        (["--batch", "1"], "--batch: expected at least 2 images a step, got 1"),
        (["--batch", "41"], "--batch: expected at most the 40 training images, got 41"),
        (["--epochs", "0"], "--epochs: expected a positive number, got 0"),
        (["--lr", "nan"], "--lr: expected a positive number, got nan"),
        (["--beta", "inf"], "--beta: expected a finite number, got inf"),
        (["--critic-steps", "-1"], "--critic-steps: expected a number >= 0, got -1"),
        (["--mi-runs", "0"], "--mi-runs: expected at least 1, got 0"),
        (["--classifier-epochs", "0"], "--classifier-epochs: expected at least 1, got 0"),
        (["--seeds", "-1"], "--seeds: expected a number >= 0, got -1"),
        (["--seeds", "1", "1"], "--seeds: expected different values, got 1 twice"),
        (["--sweep", "nonsense"], "--sweep: expected alpha, beta or gamma and numbers"),
        (["--sweep", "beta"], "--sweep: expected alpha, beta or gamma and numbers, got beta"),
        (["--sweep", "beta", "x"], "numbers, got beta x"),
        (["--sweep", "beta", "1", "1"], "--sweep: expected different values"),
        (["--sweep", "beta", "1", "--model", "csvae"], "expected --model mmvae with it"),
        (["--images", "49"], "expected at least 50 and 300 faces, got 49 and 300"),
        (["--measure-images", "299"], "expected at least 50 and 300 faces, got 50 and 299"),
        (
            ["--balance", "1.5"],
            "--balance: expected balance, a share of positives, in (0, 1), got 1.5",
        ),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    assert start(tmp_path, *options) == 2
    assert message in one_line(capsys)
    assert not list(tmp_path.rglob("checkpoint*"))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"attributes": None}, [], "no ['attributes']"),
        ({}, ["--label-key", "hat"], "no ['hat']"),
        ({"attributes": np.full((60, 1), 3)}, [], "'Eyeglasses' in {0, 1} or {-1, 1}, got"),
        ({"attributes": np.ones((60, 1))}, [], "'Eyeglasses' to take both values"),
        ({"images": np.zeros((60, 64, 64, 3))}, [], "uint8"),
        ({}, [], "--data: expected at least 50 images to measure on, got 12"),
        (
            {"attributes": np.array([{}] * 60)},
            [],
            "--data: expected an .npz archive, got set.npz, w",
        ),
        ({}, ["--held-out", "1"], "--held-out: expected a share in (0, 1), got 1.0"),
        ({}, ["--batch", "49"], "--batch: expected at most the 48 training images, got 49"),
        ("damage", [], "--data: expected an .npz archive, got set.npz"),
    ],
)
def test_bad_npz(changes, options, message, tmp_path, capsys):
    arrays = {
        "images": np.zeros((60, 64, 64, 3), np.uint8),
        "attributes": np.arange(60)[:, None] % 2,
        "attribute_names": np.array(["Eyeglasses"]),
    }
    path = tmp_path / "set.npz"
    damage = changes == "damage"
    arrays |= {} if damage else changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    if damage:
        path.write_bytes(path.read_bytes()[:-200])
    assert start(tmp_path / "out", "--data", path, *options) == 2
    assert message in one_line(capsys)


def test_an_attribute_that_no_measured_image_has(tmp_path, capsys):
    attributes = np.zeros((300, 1), int)
    # Rows of the training part only, wherever the split put them.
    from mmvae.attributes import FRACTIONS, random_split

    attributes[random_split(300, FRACTIONS, 0)["train"][:40]] = 1
    path = tmp_path / "set.npz"
    np.savez(path, images=np.zeros((300, 64, 64, 3), np.uint8), attributes=attributes,
             attribute_names=np.array(["Eyeglasses"]))  # fmt: skip
    assert start(tmp_path / "out", "--data", path) == 2
    assert "both values among the 60 images to measure on, got 0 in all" in one_line(capsys)


def test_incomplete_celeba_folder(tmp_path, capsys):
    (tmp_path / "celeba").mkdir()
    assert start(tmp_path / "out", "--data", tmp_path / "celeba") == 2
    assert "got no" in one_line(capsys)


def test_output_that_cannot_be_written(tmp_path, capsys):
    place = tmp_path / "file"
    place.write_text("mine")
    for output in (place, place / "deeper"):
        assert start(output) == 2
        assert f"--output: cannot write to {output}: " in one_line(capsys)
    assert place.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_output_without_permission(tmp_path, capsys):
    place = tmp_path / "closed"
    place.mkdir(mode=0o500)
    assert start(place) == 2
    assert "Permission denied" in one_line(capsys)


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert start(tmp_path, "--model", "r-cvae") == 2
    assert "No space left on device; there is none before it" in one_line(capsys)


def test_without_matplotlib_it_fails_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(mmvae, "figures", raising=False)
    monkeypatch.setitem(sys.modules, "mmvae.figures", None)
    assert start(tmp_path) == 2
    assert "figures" in one_line(capsys) and not list(tmp_path.iterdir())


def test_no_room_on_the_device(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr("mmvae.main.train", fail)
    assert start(tmp_path) == 2
    assert "lower --batch or --preset" in one_line(capsys)


def test_interrupted(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmvae.main.train", stop)
    assert start(tmp_path) == 130
    assert "--resume goes on" in capsys.readouterr().err


def test_options_that_the_parser_refuses(tmp_path, capsys):
    for options in (
        ["--model", "vae"],
        ["--preset", "huge"],
        ["--epochs", "x"],
        ["--nonsense"],
        ["--epoch", "1"],  # short for none: options are written out
    ):
        with pytest.raises(SystemExit) as caught:
            start(tmp_path, *options)
        assert caught.value.code == 2 and options[0] in capsys.readouterr().err


def test_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    for action in parser()._actions:
        assert action.help, action.dest
        for name in action.option_strings:
            assert f"{name} " in text or f"{name}]" in text or f"{name}," in text
    for name in Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text or name == "seed"


def test_the_script_starts(monkeypatch):
    import runpy

    import mmvae.main as module

    monkeypatch.setattr(module, "main", lambda: 0)
    path = os.path.join(os.path.dirname(mmvae.__file__), "..", "mmvae_celeba.py")
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(path, run_name="__main__")
    assert caught.value.code == 0


# ---- parts


def test_entropy_of_labels():
    assert entropy_bits(torch.tensor([[0], [1]])) == pytest.approx(1.0)
    assert entropy_bits(torch.tensor([[0], [0], [1]])) == pytest.approx(0.918, abs=1e-3)
    assert entropy_bits(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])) == pytest.approx(2.0)


def row(name, seed, mean, accuracy):
    estimate = MIEstimate(mean, 0.25, (mean,), 0.0, unit="bits")
    swap = SwapAccuracy(accuracy, {0: accuracy}, 4, (0.0, 1.0), {0: 4}, {0: (0.0, 1.0)})
    mi = dict.fromkeys(QUANTITIES, estimate)
    return Row(name, Settings("mmvae", seed=seed), mi, {"Hat": swap}, [], 1.0)


def test_the_spread_is_over_seeds_where_there_are_several():
    assert measured([row("a", 0, 0.5, 1.0)])["a"]["I(c;y)"] == (0.5, 0.25)
    two = [row("a", 0, 0.5, 0.75), row("b", 0, 0.1, 0.5), row("a", 1, 0.7, 1.0)]
    mean, spread = measured(two)["a"]["I(z;c)"]
    assert mean == pytest.approx(0.6) and spread == pytest.approx(0.2 / math.sqrt(2))
    lines = table(two, 1.0, {"Hat": 0.99}).splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["a", "b"]
    assert "0.600 ± 0.141" in lines[2] and lines[2].endswith("87.50 ± 17.68 %")
    assert "0.100 ± 0.250" in lines[3] and lines[3].endswith("50.00 %")
    assert lines[4] == "H(y) = 1.000 bits; the classifier on real test images: Hat 99.00 %"


class _Painter(torch.nn.Module):
    """Shows c: its numbers over 4 as red, green and blue."""

    def forward(self, z, c):
        colours = torch.cat((c, c.new_zeros(len(c), 1)), 1)[:, :3] / 4
        return colours[:, :, None, None].expand(-1, -1, 64, 64)


def test_the_grid_has_the_first_number_to_the_right_and_the_second_upwards(tmp_path, monkeypatch):
    from mmvae import figures
    from mmvae.data import load_builtin

    seen = {}

    def keep(images, **options):
        seen.update(options, images=images)
        return figure

    figure = type("Figure", (), {"savefig": lambda *_, **__: None})()
    monkeypatch.setattr(figures.plots, "attribute_grid", keep)
    vae = build("r-cvae", TINY, 1, Weights(), 1.0).eval()
    vae.decoder.forward = _Painter().forward
    figures.grid(vae, load_builtin(50), "test", "m", tmp_path)
    images = np.asarray(seen["images"])
    assert images.shape == (5, 5, 64, 64, 3)
    across, down = [float(t) for t in seen["columns"]], [float(t) for t in seen["rows"]]
    assert across == [-0.5, 0.5, 1.5, 2.5, 3.5] and down == across[::-1]
    red, green = 4 * images[..., 0, 0, 0], 4 * images[..., 0, 0, 1]
    np.testing.assert_allclose(red, np.tile(np.maximum(across, 0), (5, 1)))
    np.testing.assert_allclose(green.T, np.tile(np.maximum(down, 0), (5, 1)))
    assert seen["column_name"] == "$c_1$" and seen["row_name"] == "$c_2$"


def test_flip_draws_the_opposite_label_and_keeps_the_other_attribute():
    vae = build("r-cvae", TINY, 2, Weights(), 1.0).eval()
    seen = {}
    vae.decoder.forward = lambda z, c: seen.update(z=z, c=c) or c.new_zeros(len(c), 3, 64, 64)
    y = torch.tensor([[0, 0], [1, 1]]).repeat(500, 1)
    x = torch.rand(1, 3, 64, 64).expand(1000, -1, -1, -1)
    _, target = flip(vae, x, y, 1, torch.Generator().manual_seed(0))
    assert torch.equal(target, torch.stack((y[:, 0], 1 - y[:, 1]), 1))
    assert seen["z"].shape == (1000, 4)
    for present in (0, 1):
        c = seen["c"][y[:, 0] == present]
        # Untrained, q(c | x, y) is the prior; five standard errors of 1000 numbers.
        mean, std = 3.0 * present, 1.0 if present else 0.1
        assert abs(c[:, :2].mean() - mean) < 5 * std / math.sqrt(1000)
        mean, std = 3.0 * (1 - present), 0.1 if present else 1.0
        assert abs(c[:, 2:].mean() - mean) < 5 * std / math.sqrt(1000)
        assert c[:, 2:].std() == pytest.approx(std, rel=0.15)
