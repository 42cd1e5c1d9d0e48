"""The benchmarks of the pairwise log-density and of whole steps: equal results, stored form."""

import csv
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import common  # noqa: E402
import pairwise  # noqa: E402
import pairwise_forms  # noqa: E402
import steps  # noqa: E402

from vaereg import metrics  # noqa: E402
from vaereg.ops import dispatch  # noqa: E402

RESULTS = BENCHMARKS / "results"


def stored(name):
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_forms_agree():
    found = {n: f for n, f in pairwise_forms.forms().items() if n != "inductor"}
    assert {"naive", "kernel", "no_compiler"} <= set(found)
    pairwise.agree(found, pairwise_forms.inputs(70, 9))
    wrong = pairwise_forms.Form(lambda z, m, v: pairwise_forms.naive(z, m, v + 1e-3))
    with pytest.raises(SystemExit, match="wrong: differs"):
        pairwise.agree({**found, "wrong": wrong}, pairwise_forms.inputs(70, 9))


def test_no_compiler_is_without_one(monkeypatch):
    seen = []
    monkeypatch.setattr(dispatch, "_compiled", lambda z: seen.append(dispatch._has_kernel()))
    before = dispatch._has_kernel
    form = pairwise_forms.forms()["no_compiler"]
    pairwise_forms.step(form, pairwise_forms.inputs(200, 9), True)
    assert seen and not any(seen) and dispatch._has_kernel is before


def test_dense_forms_that_do_not_fit_are_left_out():
    assert "naive" in pairwise.available("2048x64", "cpu")
    assert not {"naive", "inductor"} & set(pairwise.available("4096x64", "cpu"))


def test_steps_of_all_providers(tmp_path):
    path = tmp_path / "steps.csv"
    assert steps.main(["--rows", "4", "--rounds", "2", "--threads", "1", "--out", str(path)]) == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == common.COLUMNS
    metrics = {(r["provider"], r["metric"]) for r in rows}
    assert {("tc", "term_share"), ("factor", "overhead_ratio"), ("mine", "overhead")} <= metrics


@pytest.mark.parametrize("name", ["factor", "mine"])
def test_baselines_train_the_same_encoder(name):
    """Without its term each naive step is the plain one: they differ in the critic's part only."""
    torch.manual_seed(0)
    x = steps.images(4, "cpu")
    start = steps.networks()
    models = [steps.Model(start, x) for _ in range(2)]
    other = x.flip(0) if name == "factor" else steps.labels(4, "cpu")
    for model, suffix in zip(models, ("", "_naive"), strict=True):
        torch.manual_seed(1)
        step = getattr(steps, name + suffix)(model, other)
        before = [p.clone() for p in model.encoder.parameters()]
        step()
        moved = [
            (p - q).abs().max() for p, q in zip(model.encoder.parameters(), before, strict=True)
        ]
        assert all(0 < m < 1e-3 for m in moved)  # one step of Adam at 1e-5


def test_figures_need_the_csv_alone():
    pytest.importorskip("matplotlib")
    import plot

    for name in ("pairwise", "steps"):
        figure = plot.FIGURES[name](plot.read(RESULTS / f"{name}.csv"))
        assert len(figure.axes) == 2


@pytest.mark.parametrize(
    "name", ["pairwise.csv", "steps.csv", "disentanglement.csv", "ceiling.csv"]
)
def test_form_of_stored_results(name):
    rows = stored(name)
    assert tuple(rows[0]) == common.COLUMNS
    assert len({(r["case"], r["provider"], r["metric"]) for r in rows}) == len(rows)
    assert all(float(r["q20"]) <= float(r["median"]) <= float(r["q80"]) for r in rows)
    assert not any(r["commit"].endswith("dirty") for r in rows)


def quoted(head):
    """The cells of the table of the benchmarks' page whose first line starts so."""
    lines = (BENCHMARKS / "README.md").read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(head))
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.split("|")[1:-1]]


def check(cell, value, percent=False):
    digits = len((re.search(r"\.(\d+)", cell) or [".", ""])[1])
    number = float(re.sub(r"[+x%]", "", cell))
    assert number == pytest.approx(round(value * (100 if percent else 1), digits), abs=1e-9)


def test_page_quotes_the_stored_results():
    rows = {(r["case"], r["provider"], r["metric"]): float(r["median"])
            for r in stored("pairwise.csv") + stored("steps.csv")}  # fmt: skip
    count = 0
    for case, *cells in quoted("| case | kernel over naive"):
        names = [("kernel", o) for o in ("naive", "inductor", "pythae", "keops")]
        for cell, (own, other) in zip(cells, [*names, ("no_compiler", "naive")], strict=True):
            key = case, own, f"full_speedup_{other}"
            assert (cell == "—") == (key not in rows)
            if cell != "—":
                check(cell, rows[key])
                count += 1
    for case, *cells in quoted("| case | peak, MiB"):
        names = ("naive", "inductor", "pythae", "keops", "kernel", "no_compiler")
        for cell, name in zip(cells, names, strict=True):
            if cell != "—":
                check(cell, rows[case, name, "full_peak"])
                count += 1
    for b, *cells in quoted("| rows | `MinibatchTC` alone"):
        kinds = [(t, m) for t in ("tc", "dip", "mmd") for m in ("term_share", "term_share_warm")]
        for cell, (term, metric) in zip(cells, kinds, strict=True):
            check(cell, rows[f"b{b}", term, metric], percent=True)
            count += 1
    for b, *cells in quoted("| rows | FactorVAE"):
        for term, (naive, own, ratio) in (
            ("factor", cells[:3]), ("mine", cells[3:]),
        ):  # fmt: skip
            check(naive, rows[f"b{b}", f"{term}_naive", "overhead"], percent=True)
            check(own, rows[f"b{b}", term, "overhead"], percent=True)
            check(ratio, rows[f"b{b}", term, "overhead_ratio"])
            count += 3
    assert count > 60


def test_page_quotes_the_scores_times():
    rows = {(r["case"], r["provider"], r["metric"]): float(r["median"])
            for r in stored("disentanglement.csv")}  # fmt: skip
    count = 0
    for case, *cells in quoted("| case | library | common code"):
        name = re.search("`(.*)`", case)[1]
        (other,) = {p for c, p, _ in rows if c == name} - {"library"}
        keys = [("library", "wall"), (other, "wall"), ("library", f"speedup_{other}")]
        for cell, key in zip(cells, keys, strict=True):
            check(cell.removesuffix(" ms"), rows[(name, *key)])
            count += 1
    keys = [("rendering", "library"), ("loading", "load"), ("loading", "step")]
    for (_, cell), key in zip(quoted("| case | time |"), keys, strict=True):
        check(cell.removesuffix(" ms"), rows[(*key, "wall")])
        count += 1
    assert count == 12


def test_page_quotes_the_ceiling():
    import ceiling

    rows = {(r["case"], r["metric"]): float(r["median"]) for r in stored("ceiling.csv")}
    found = list(quoted("| code, true I(x; z)"))
    for case, mi, share, tc in found:
        check(mi.removesuffix(" nats"), rows[case, "mi"])
        check(tc.removesuffix(" nats"), rows[case, "tc"])
        assert float(share) == pytest.approx(rows[case, "mi"] / math.log(100_000), abs=5.1e-3)
    assert len(found) == len(ceiling.CODES)
    # Where log n is far away all is well; the stored rows say what happens where it is not.
    mi, tc = ceiling.read(4_000, 2, 2.0, 500, seed=1)
    assert mi == pytest.approx(2.0, abs=0.1) and abs(tc) < 0.05


def test_scores_of_common_code_are_the_librarys():
    pytest.importorskip("sklearn")
    import disentanglement

    codes, factors = disentanglement.codes_and_factors()
    few = np.random.default_rng(0).choice(len(codes), 3_000, replace=False)
    found = metrics.mig(codes[few], factors[few]).mutual_information
    theirs = disentanglement.pair_by_pair(codes[few], factors[few])
    np.testing.assert_allclose(found, theirs, rtol=1e-9, atol=1e-12)
    ours = float(metrics.factor_vae_score(metrics.FactorTable(codes, disentanglement.KEPT)))
    assert disentanglement.per_vote(codes, 1_500) == pytest.approx(ours, abs=0.09)  # 4 sd of 500
    assert 0.2 < ours < 0.99  # a factor is missing
    shuffled = np.random.default_rng(1).permutation(codes)
    assert disentanglement.per_vote(shuffled, 1_500) < ours - 0.09
