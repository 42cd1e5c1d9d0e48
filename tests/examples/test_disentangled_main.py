"""The command from its options to its tables, files and errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_disentangled_data import small

from disentangled import evaluate, shifts, study
from disentangled.data import Pictures
from disentangled.evaluate import SCORES, Codes, Depth, downstream, scores
from disentangled.main import main
from disentangled.render import unpack
from disentangled.report import rank_correlations, summary, table

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
        (["--objective", "nothing:3"], "expected names among"),
        (["--objective", "beta:4", "beta:4.0"], "expected different runs"),
        (["--batch", "100000"], "expected at most 6144 pictures"),
        (["--device", "cuda:99"], "expected an available device"),
        (["--together", "0"], "--together: expected at least 1"),
        (["--draw", "none.json"], "none.json"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, options, message):
    assert main([*FEW, "--output", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


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
    assert "0.150 ± 0.129" in text and "re-render" in text


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
