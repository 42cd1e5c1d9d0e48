"""Options of the VMI example: presets, help, and what it says of mistakes."""

import re

import numpy as np
import pytest
from vmi_runs import npz, start

from vmi.main import main
from vmi.options import TEXTS, parser, settings_of
from vmi.settings import PRESETS, Settings

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    assert all(action.help for action in parser()._actions)
    assert set(TEXTS) == set(Settings.__dataclass_fields__) - {"model", "mi", "seed"}
    for name in Settings.__dataclass_fields__:
        flag = f"--{name.replace('_', '-')}" if name != "seed" else "--seeds"
        assert re.search(rf"(?<!\S){flag}(?![\w-])", text), flag


def test_presets_fill_what_is_not_given():
    options = parser().parse_args(["--preset", "mnist", "--seeds", "0", "1", "--epochs", "3"])
    runs = settings_of(options)
    assert [(s.seed, s.mi, s.epochs) for s in runs] == [
        (0, 30.0, 3), (0, 0.0, 3), (1, 30.0, 3), (1, 0.0, 3)
    ]  # fmt: skip
    assert settings_of(parser().parse_args([]))[0].epochs == PRESETS["digits"]["epochs"]
    gaussian = settings_of(parser().parse_args(["--model", "gaussian"]))
    assert [(s.z, s.mi) for s in gaussian] == [(32, 0.0), (32, 1.0), (32, 5.0)]
