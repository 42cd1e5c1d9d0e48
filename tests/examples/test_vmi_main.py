"""The command of the VMI example from its runs to its results, figures and log."""

import json
import math
import os
import sys

import numpy as np
import pytest
from vmi_runs import npz, start

import vmi
from vmi.main import main

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


def results(folder):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((folder / "results.json").read_text(), parse_constant=refuse)


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


def test_resumed_from_the_command(tmp_path, capsys):
    options = ("--data", npz(tmp_path / "set.npz"), "--mi", 30, "--no-figures")
    assert start(tmp_path, *options) == 0
    first = results(tmp_path)
    assert start(tmp_path, *options, "--resume") == 0
    second = results(tmp_path)
    assert first["runs"] == second["runs"]
    assert start(tmp_path, *options, "--resume", "--lr", "0.1") == 2
    assert "lr: 0.002 then, 0.1 now" in capsys.readouterr().err


def test_interrupted(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vmi.main.train", stop)
    assert start(tmp_path, "--data", npz(tmp_path / "set.npz")) == 130
    assert "--resume goes on" in capsys.readouterr().err


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
    # A panel for each code that has test images.
    for panel, title in zip(figure.axes, seen["rows"][:3], strict=True):
        assert panel.get_title() == title and list(panel.get_xticks()) == [0, 1, 2]


def test_without_matplotlib_it_fails_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.delattr(vmi, "figures", raising=False)
    monkeypatch.setitem(sys.modules, "vmi.figures", None)
    assert start(tmp_path / "out") == 2
    assert "figures" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_script_starts(monkeypatch):
    import runpy

    import vmi.main as module

    monkeypatch.setattr(module, "main", lambda: 0)
    path = os.path.join(os.path.dirname(vmi.__file__), "..", "vmi_digits.py")
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(path, run_name="__main__")
    assert caught.value.code == 0
