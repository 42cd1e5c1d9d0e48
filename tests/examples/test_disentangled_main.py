"""The command from its options to its tables, files and errors."""

import functools
import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_disentangled_data import small

from disentangled import evaluate, pages, report, shifts, study
from disentangled.data import Pictures
from disentangled.equal import against_beta, beta_of
from disentangled.evaluate import SCORES, Codes, Depth, downstream, scores
from disentangled.main import main
from disentangled.render import unpack
from disentangled.report import rank_correlations, summary, table
from disentangled.sources import load_npz

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Depth(rows=200, histogram=200, samples=50, points=40, trees=1,
             labels=(10, 50), shifted=60)  # fmt: skip
FEW = ["--steps", "3", "--batch", "4", "--z", "3", "--critic-width", "8", "--critic-depth", "1",
       "--probes", "1", "--device", "cpu", "--quiet"]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(evaluate.DEPTHS, "small", TINY)
    some = small(scales=(5,), orientations=(0, 9))
    renamed = Pictures(some.store, some.factors, some.names, "dSprites re-render")
    monkeypatch.setattr(study, "load", lambda *given, **named: renamed)


def start(output, *options):
    return main([*FEW, "--output", str(output), *map(str, options)])


def results(folder):
    return json.loads(
        (folder / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name)
    )


def perfect(copies=1):
    """The codes of a grid that are its factors, and one that holds nothing."""
    y = np.stack(np.meshgrid(range(4), range(5), indexing="ij"), -1).reshape(-1, 2)
    y = np.tile(y, (copies, 1))
    mean = torch.from_numpy(np.concatenate([y, np.zeros((len(y), 1))], 1)).float()
    logvar = torch.full_like(mean, -8.0)
    logvar[:, 2] = 0.0
    return Codes(mean, logvar, y, ("a", "b"))


def test_a_perfect_code_has_perfect_scores():
    found = scores(perfect(30), replace(TINY, trees=5))
    assert tuple(found) == SCORES
    for name in ("beta_vae", "factor_vae", "dci", "completeness", "informativeness", "irs"):
        assert found[name] > 0.95, name
    assert found["mig"] > 0.9 and found["mig_sampled"] > 0.9
    told = downstream(perfect(30), replace(TINY, trees=5))
    assert told["labels"] == [10, 50] and told["accuracy"][1] > told["accuracy"][0]


def test_a_study_from_training_to_figures(tmp_path, capsys):
    assert start(tmp_path, "--objective", "beta:4", "factor:10+dip2:1") == 0
    out = capsys.readouterr().out
    assert "dSprites re-render" in out and "±" in out
    content = results(tmp_path)
    assert [run["name"] for run in content["runs"]] == [
        "beta:4 seed=0", "dip2:1+factor:10 seed=0", "beta:4 seed=1", "dip2:1+factor:10 seed=1",
    ]  # fmt: skip
    first = content["runs"][0]
    assert set(first["scores"]) == set(SCORES) and 0 <= first["unsupervised"]["udr"] <= 1
    assert set(first["shifts"]) == {
        "clean", "flips 0.001", "flips 0.01", "flips 0.05", "inverted"
    }  # fmt: skip
    assert "exact_tc" in first["history"][-1]
    assert content["summary"]["beta:4"]["mig"]["seeds"] == 2
    assert content["pictures"] == 6144 and content["device"] == "cpu"
    made = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"scores", "rank_correlations", "shifts", "downstream", "traversals_beta_4",
            "reconstructions_dip2_1_factor_10", "posteriors_beta_4", "spectrum", "trend_exact_tc",
            "reconstruction"} <= made  # fmt: skip
    again = tmp_path / "again"
    assert main(["--draw", str(tmp_path / "results.json"), "--output", str(again)]) == 0
    assert {path.stem for path in (again / "figures").iterdir()} == made


def test_a_study_goes_on_where_it_was(tmp_path, monkeypatch):
    options = ("--objective", "beta:4", "vae", "--seeds", 0, "--no-figures")
    assert start(tmp_path, *options, "--together", 2) == 0
    before = results(tmp_path)
    (tmp_path / "seed0" / "vae" / "measured.json").unlink()
    trained = []
    real = study.train

    def spy(group, *given, **named):
        trained.extend(run.name for run in group)
        return real(group, *given, **named)

    monkeypatch.setattr(study, "train", spy)
    assert start(tmp_path, *options, "--resume") == 0
    assert trained == ["vae seed=0"]
    after = results(tmp_path)
    assert [run["scores"] for run in after["runs"]] == [run["scores"] for run in before["runs"]]
    trained.clear()
    assert start(tmp_path, *options, "--resume") == 0
    assert not trained


def test_a_rerun_keeps_the_results_of_the_earlier_run(tmp_path, capsys):
    options = ("--seeds", 0, "--no-figures", "--objective")
    assert start(tmp_path, *options, "vae", "--resume") == 0
    told = f"nothing to resume in {tmp_path}: starting from the beginning\n"
    assert told in capsys.readouterr().out
    files = ("results.json", "results.npz")
    first = [(tmp_path / name).read_bytes() for name in files]
    assert start(tmp_path, *options, "beta:4", "vae") == 0
    told = "kept the results of an earlier run as results.1.json and results.1.npz\n"
    assert capsys.readouterr().out.count(told) == 1
    assert [(tmp_path / n.replace(".", ".1.")).read_bytes() for n in files] == first
    assert len(results(tmp_path)["runs"]) == 2
    (tmp_path / "seed0" / "beta4" / "checkpoint.pt").unlink()  # its measurements are enough
    assert start(tmp_path, *options, "beta:4", "vae", "--resume") == 0
    out = capsys.readouterr().out
    assert "kept" not in out and "nothing to resume" not in out
    assert len(list(tmp_path.glob("results*"))) == 4
    # Without the runs of the earlier results: these are no part of the new ones.
    assert start(tmp_path, *options, "beta:4", "--resume") == 0
    assert "as results.2.json and results.2.npz" in capsys.readouterr().out
    assert [len(json.loads((tmp_path / f"results{n}.json").read_text())["runs"])
            for n in ("", ".1", ".2")] == [1, 1, 2]  # fmt: skip


def test_archives_that_are_none(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"none")
    with pytest.raises(ValueError, match=r"^--data: expected an \.npz archive, got x\.npz: "):
        load_npz(path)
    pictures = np.zeros((2, 64, 64), np.uint8)
    for arrays in (
        {"images": np.array([{}, {}]).reshape(2, 1, 1), "factors": np.arange(2)},
        {"images": pictures, "factors": np.array([{}, {}])},
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=r"^--data: expected an \.npz archive, got x\.npz, w"):
            load_npz(path, tmp_path)
    np.savez(path, images=pictures)
    with pytest.raises(ValueError, match=r"^--data: expected the arrays .* got \['images'\]"):
        load_npz(path)


def test_options_are_written_out(tmp_path, capsys):
    with pytest.raises(SystemExit):
        start(tmp_path, "--objectiv", "vae")
    assert "unrecognized arguments: --objectiv" in capsys.readouterr().err


def test_a_run_that_fails_is_named(tmp_path, monkeypatch, capsys):
    real = study.train

    def fail(group, *given, **named):
        if group[0].seed == 1:
            raise FloatingPointError("beta:4 seed=1: expected finite values")
        return real(group, *given, **named)

    monkeypatch.setattr(study, "train", fail)
    assert start(tmp_path, "--objective", "beta:4", "--no-figures") == 0
    assert results(tmp_path)["failed"] == ["beta:4 seed=1: expected finite values"]
    assert "failed: beta:4 seed=1" in capsys.readouterr().out


def test_codes_are_kept_where_asked_for(tmp_path):
    start(tmp_path, "--objective", "vae", "--seeds", 5, "--keep-codes", "--no-figures")
    with np.load(tmp_path / "seed5" / "vae" / "codes.npz") as file:
        rows = len(file["mean"])
        assert file["mean"].shape == file["logvar"].shape == (rows, 3)
        assert file["factors"].shape == (rows, len(file["names"])) and 100 < rows <= 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "nothing:3"], "--objective 'nothing:3': expected names among"),
        (["--objective", "beta:4", "beta:4.0"], "expected different runs"),
        (["--batch", "100000"], "expected at most 6144 pictures"),
        (["--device", "cuda:99"], "expected an available device"),
        (["--together", "0"], "--together: expected at least 1"),
        (["--steps", "0"], "--steps: expected a positive number, got 0"),
        (["--seeds", "-1"], "--seeds: expected a number >= 0, got -1"),
        (["--critic-lr", "0"], "--critic-lr: expected a positive number, got 0.0"),
        (["--draw", "none.json"], "--draw: expected a results file, got none.json: No such file"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, options, message):
    assert main([*FEW, "--output", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (np.zeros((6144, 2), int), "expected a factor with several values"),
        (np.c_[np.arange(6144) % 3, np.arange(6144)], "got 200 values of 'picture'"),
    ],
)
def test_factors_that_no_score_can_read_are_told_before_the_training(
    tmp_path, monkeypatch, capsys, factors, message
):
    own = Pictures(small(scales=(5,), orientations=(0, 9)).store, factors, ("a", "picture"), "own")
    monkeypatch.setattr(study, "load", lambda *given, **named: own)
    monkeypatch.setattr(study, "train", lambda *given, **named: pytest.fail("trained"))
    assert start(tmp_path, "--objective", "vae") == 2
    error = capsys.readouterr().err
    assert "--data: " in error and message in error


def entry(objective, seed, mig, nll):
    blind = dict.fromkeys(evaluate.UNSUPERVISED, 1.0) | {"nll": nll, "gaussian_tc": None}
    told = dict.fromkeys(SCORES, 0.5) | {"mig": mig}
    settings = {"objective": objective, "seed": seed, "steps": 3}
    return {"settings": settings, "scores": told, "unsupervised": blind, "rows": 9}


def test_means_and_rank_correlations():
    runs = [entry("a", s, 0.1 * s, 10.0 - s**3) for s in range(4)] + [entry("b", 0, 0.9, -99.0)]
    found = summary(runs)
    assert found["a"]["mig"] == {"mean": pytest.approx(0.15), "std": pytest.approx(0.129, 1e-2),
                                 "seeds": 4}  # fmt: skip
    assert found["b"]["mig"] == {"mean": 0.9, "seeds": 1} and "gaussian_tc" not in found["a"]
    ranks = rank_correlations(runs)
    at = {name: k for k, name in enumerate(ranks["names"])}
    assert ranks["spearman"][at["mig"]][at["nll"]] == pytest.approx(-1.0)
    assert ranks["spearman"][at["mig"]][at["kl"]] is None
    text = table({"summary": found, "runs": runs, "data": "dSprites re-render", "failed": []})
    assert "0.150 ± 0.129" in text and "re-render" in text and "ceiling" not in text
    runs[-1]["unsupervised"]["mi"] = 1.7  # of log 9 = 2.197
    found["a"]["tc"] = {"mean": -0.0002}
    text = table({"summary": found, "runs": runs, "data": "dSprites re-render", "failed": []})
    assert "b: mi of some run is above three quarters of its ceiling" in text
    assert "(2.2 nats)" in text and "-0.000" not in text


def test_votes_want_values_that_repeat():
    y = np.array([[0, 0], [0, 1], [1, 1], [1, 1], [2, 0], [1, 0], [2, 3]])
    rows = shifts.repeated(y)
    assert rows.tolist() == [0, 1, 2, 3, 5]
    assert not len(shifts.repeated(np.arange(6).reshape(3, 2)))
    z = torch.randn(7, 2)
    assert shifts._brief(z, y, 20)["factor_vae"] >= 0.0
    assert shifts._brief(z, np.arange(7)[:, None], 20)["factor_vae"] is None


def test_shifts_of_the_re_render_have_an_unseen_shape(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = shifts._triangles(5, rng)
    assert x.shape == (5, 1, 64, 64) and y.shape == (5, 4)
    assert set(x.unique().tolist()) == {0.0, 1.0} and (x.sum((1, 2, 3)) > 20).all()
    assert not any((unpack(small().store)[:, None] == x[:, 0].numpy()).all((2, 3)).any(0))


# ---- at equal reconstruction


def _run(objective, seed, nll, mig):
    scores = {"mig": mig, "factor_vae": 0.5, "dci": 0.5}
    return {
        "settings": {"objective": objective, "seed": seed},
        "scores": scores,
        "unsupervised": {"nll": nll, "tc": 1.0},
    }


def test_objectives_are_compared_with_the_beta_vae_of_their_error():
    runs = [
        _run("vae", 0, 50.0, 0.1), _run("beta:4", 0, 100.0, 0.3), _run("tc:6", 0, 75.0, 0.5),
        _run("beta:2", 1, 60.0, 0.2), _run("beta:8", 1, 80.0, 0.2), _run("tc:6", 1, 70.0, 0.1),
        _run("tc:6", 2, 70.0, 0.9),  # no beta-VAE of this seed
        _run("dip2:10", 0, 40.0, 0.9),  # a smaller error than any beta-VAE's
        _run("beta:4+dip2:1", 0, 50.0, 0.4),
    ]  # fmt: skip
    found = against_beta(runs)
    assert set(found) == {"tc:6", "dip2:10", "beta:4+dip2:1"}
    own = found["tc:6"]
    assert (own["seeds"], own["outside"], own["mig"]["above"]) == (2, 1, 1)
    assert own["mig"]["mean"] == pytest.approx((0.5 - 0.2 + 0.1 - 0.2) / 2)
    assert own["mig"]["std"] == pytest.approx(statistics.stdev([0.3, -0.1]))
    assert found["dip2:10"] == {"seeds": 0, "outside": 1}
    assert found["beta:4+dip2:1"]["mig"]["mean"] == pytest.approx(0.3)
    # Ties in error, and one weight by two names.
    tied = [_run("beta:1", 0, 100.0, 0.2), _run("beta:4", 0, 100.0, 0.8)]
    for curve in (tied, tied[::-1]):
        assert against_beta([*curve, _run("tc:6", 0, 100.0, 0.6)])["tc:6"]["mig"]["mean"] == (
            pytest.approx(0.1)
        )
    once = [_run("vae", 0, 90.0, 0.2), _run("beta:1", 0, 110.0, 0.8), _run("tc:6", 0, 100.0, 0.6)]
    assert against_beta(once)["tc:6"] == {"seeds": 0, "outside": 1}
    # A score that one of the beta-VAEs lacks is interpolated between the others.
    far = [_run("beta:8", 0, 300.0, None), *runs[:3]]
    assert against_beta(far)["tc:6"]["mig"]["mean"] == pytest.approx(0.3)
    none = [
        _run("beta:4", 1, 90.0, 0.1),
        _run("beta:1", 1, 50.0, 0.1),
        _run("tc:6", 1, 60.0, None),
    ]
    own = against_beta([*runs[:3], *none])["tc:6"]
    assert own["seeds"] == 2 and own["mig"]["of"] == 1 and own["dci"]["of"] == 2


@pytest.mark.parametrize(
    ("objective", "beta"), [("vae", 1.0), ("beta:3", 3.0), ("tc:6", None), ("beta:4+dip1:2", None)]
)
def test_only_a_weight_on_the_whole_kl_is_a_beta_vae(objective, beta):
    assert beta_of(objective) == beta


def test_pages_and_the_comparison_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "ROWS", 60)
    quick = functools.partial(pages.report, bracket=False, trees=1, samples=20)
    monkeypatch.setattr(pages, "report", quick)
    options = ["--objective", "beta:1", "beta:4", "dip2:1", "--seeds", "0", "--pages"]
    assert start(tmp_path, *options, "--no-figures") == 0
    written = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert written == ["beta_1_seed0.html", "beta_4_seed0.html", "dip2_1_seed0.html"]
    text = (tmp_path / "pages" / "dip2_1_seed0.html").read_text()
    assert "dip2:1 seed=0" in text and "negative log-likelihood, nats" in text
    assert "Known factors" in text and "http" not in text
    found = results(tmp_path)["equal_reconstruction"]["dip2:1"]
    assert found["seeds"] + found["outside"] == 1


def test_runs_of_several_processes_are_gathered(tmp_path, capsys):
    quiet = ("--no-figures", "--seeds")
    assert start(tmp_path, "--objective", "beta:16", "dip2:1", *quiet, 0) == 0
    assert start(tmp_path, "--objective", "beta:4", *quiet, 0, 1, "--resume") == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.glob("*/*/checkpoint.pt")}
    assert start(tmp_path, "--gather", "--no-figures") == 0
    found = results(tmp_path)
    assert [run["name"] for run in found["runs"]] == [
        "beta:4 seed=0", "beta:16 seed=0", "dip2:1 seed=0", "beta:4 seed=1"
    ]  # fmt: skip
    assert found["summary"]["beta:4"]["mig"]["seeds"] == 2
    assert found["equal_reconstruction"]["dip2:1"]["seeds"] in (0, 1)
    assert "kept the results" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tmp_path.glob("*/*/checkpoint.pt")} == before
    assert start(tmp_path / "none", "--gather") == 2
    assert "--gather: expected finished runs on dSprites re-render" in capsys.readouterr().err
    assert start(tmp_path, "--objective", "vae", *quiet, 0, "--keep-codes", "--resume") == 0
    capsys.readouterr()
    assert start(tmp_path, "--gather", "--no-figures") == 0
    assert len(results(tmp_path)["runs"]) == 5
    more = ("--objective", "beta:4", "--seeds", 7, "--steps", 4, "--no-figures", "--resume")
    assert start(tmp_path, *more) == 0
    capsys.readouterr()
    assert start(tmp_path, "--gather", "--no-figures") == 2
    assert "differ in objective and seed only, got steps 3 and 4" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "seed7")
    shutil.rmtree(tmp_path / "seed0" / "vae")
    (tmp_path / "seed1" / "beta4" / "measured.json").write_text("{")
    assert start(tmp_path, "--gather", "--no-figures") == 0
    assert len(results(tmp_path)["runs"]) == 3
    assert "kept the results" in capsys.readouterr().out


def test_results_of_another_measure_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(evaluate.DEPTHS, "medium", replace(TINY, samples=40))
    options = ("--objective", "vae", "--seeds", 0, "--no-figures")
    assert start(tmp_path, *options) == 0
    capsys.readouterr()
    assert start(tmp_path, *options, "--resume", "--measure", "medium") == 0
    out = capsys.readouterr().out
    assert "as measured.1.json" in out and "as results.1.json and results.1.npz" in out
    kept = json.loads((tmp_path / "results.1.json").read_text())
    assert kept["measured"]["samples"] == 50 and results(tmp_path)["measured"]["samples"] == 40
    first = json.loads((tmp_path / "seed0" / "vae" / "measured.1.json").read_text())
    assert first["what"]["measured"] == "small"


def test_pages_of_finished_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "ROWS", 60)
    quick = functools.partial(pages.report, bracket=False, trees=1, samples=20)
    monkeypatch.setattr(pages, "report", quick)
    options = ("--objective", "beta:2", "dip2:1", "--seeds", "0", "--no-figures")
    assert start(tmp_path, *options, "--pages") == 0
    page = tmp_path / "pages" / "dip2_1_seed0.html"
    first = page.read_text()
    page.write_text("of another model")
    os.utime(page, (1.0, 1.0))
    assert start(tmp_path, *options, "--pages", "--resume") == 0
    assert page.read_text() == first
    page.unlink()
    (tmp_path / "pages" / "beta_2_seed0.html").unlink()
    (tmp_path / "seed0" / "beta2" / "checkpoint.pt").unlink()
    capsys.readouterr()
    assert start(tmp_path, *options, "--pages", "--resume") == 0
    assert page.read_text() == first
    assert "beta:2 seed=0: no page, for" in capsys.readouterr().out
    assert not (tmp_path / "pages" / "beta_2_seed0.html").exists()


def test_figures_without_pictures_and_correlations(tmp_path, capsys):
    assert start(tmp_path, "--objective", "vae", "--seeds", 0) == 0
    (tmp_path / "results.npz").unlink()
    capsys.readouterr()
    other = ["--draw", str(tmp_path / "results.json"), "--output", str(tmp_path / "other")]
    assert main(other) == 0
    assert "no results.npz beside it" in capsys.readouterr().out
    drawn = {path.name for path in (tmp_path / "other" / "figures").iterdir()}
    assert {"rank_correlations.png", "trend_exact_mi.png"} <= drawn
    assert "traversals_vae.png" not in drawn
    assert results(tmp_path)["probed"] == 2048
    (tmp_path / "empty.json").write_text("{}")
    assert main(["--draw", str(tmp_path / "empty.json"), "--output", str(tmp_path)]) == 2
    assert "got empty.json without 'runs'" in capsys.readouterr().err


def test_udr_reads_all_shapes_and_the_same_rows_whatever_is_kept():
    """Stored rows are in the order of the factors."""
    y = np.repeat(np.arange(3.0), 6000)[:, None]
    kept = np.sort(np.random.default_rng(0).permutation(len(y))[:10_000])
    some, every = report._some(y[kept], 10_000), report._some(y, 10_000)
    assert np.array_equal(some, every) and len(some) == 5000
    assert np.bincount(some[:, 0].astype(int)).min() > 1500


def test_what_the_page_says_of_the_stored_runs():
    path = Path(evaluate.__file__).parent / "results" / "dsprites.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    gain = content["equal_reconstruction"]
    assert gain == against_beta(content["runs"])
    tc = gain["tc:6"]
    assert (tc["seeds"], tc["outside"]) == (3, 2)
    assert [tc[name]["above"] for name in ("mig", "dci", "tc")] == [3, 3, 0]
    factor = gain["factor:10"]
    assert [factor[name]["above"] for name in ("mig", "dci")] == [2, 2] and factor["seeds"] == 3
    assert all(gain["dip2:10"][name]["mean"] > 0 for name in ("mig", "factor_vae", "dci"))
    runs = {
        (run["settings"]["objective"], run["settings"]["seed"]): run for run in content["runs"]
    }
    for seed in (3, 4):
        own = runs["tc:6", seed]
        others = [
            run for (name, s), run in runs.items() if s == seed and beta_of(name) is not None
        ]
        assert len(others) == 2
        for other in others:
            assert own["unsupervised"]["nll"] < other["unsupervised"]["nll"]
            assert own["scores"]["mig"] > other["scores"]["mig"]
    # Accuracies with the most labels.
    read = {
        name: [run["downstream"]["per_factor"][name][-1] for run in content["runs"]]
        for name in ("orientation", "shape")
    }
    assert content["runs"][0]["downstream"]["labels"][-1] == 10_000
    for name, low, high in (("orientation", 0.02, 0.05), ("shape", 0.44, 0.69)):
        assert (round(min(read[name]), 2), round(max(read[name]), 2)) == (low, high)
    near = [abs(run["scores"]["factor_vae"] - 0.6) < 0.01 for run in content["runs"]]
    assert sum(near) > len(near) / 2
