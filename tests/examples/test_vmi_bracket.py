"""Brackets of the VMI example's runs, measured and stored."""

import json
from pathlib import Path

import pytest
from vmi_runs import blobs, npz, start

from vmi.main import main

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_stored_brackets_are_in_order():
    """Of every model whose results are stored: lower less three standard errors <= upper."""
    folder = Path(main.__code__.co_filename).parent / "results"
    runs = [run for path in folder.glob("*_brackets.json")
            for run in json.loads(path.read_text())["runs"]]  # fmt: skip
    assert len(runs) >= 24
    for run in runs:
        assert run["lower"] - 3 * run["lower_error"] <= run["upper"], run["name"]
