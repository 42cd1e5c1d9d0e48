"""The benchmarks' own footing: equal results of all providers, and the form of what is stored."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import critic_cost  # noqa: E402
from critic_cost import CASES, COLUMNS, Case, build_case, measure, run, summarise, verify  # noqa: E402
from naive import NaiveMINE, NaiveTerms  # noqa: E402

from vaereg.critics import mlp  # noqa: E402

OUTER = Case("outer", "small", 6, None, critic_width=8, critic_depth=2)
STEP = Case("step", "small", 6, 2, critic_width=8, critic_depth=2)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", [OUTER, STEP], ids=lambda case: case.name)
def test_all_providers_agree(case):
    verify(case)


@pytest.mark.parametrize("case", [OUTER, STEP], ids=lambda case: case.name)
def test_the_gate_notices_another_denominator(case, monkeypatch):
    make = NaiveMINE.__init__

    def elsewhere(self, critic, decay=0.99):
        make(self, critic, decay)
        self.average += 0.1
        self.weight += 0.2

    monkeypatch.setattr(NaiveMINE, "__init__", elsewhere)
    with pytest.raises(AssertionError, match=r"naive"):
        verify(case)


def test_baselines_are_what_they_claim():
    # Gradients on critics in the pass to the codes: the two baselines', not the library's.
    for name, provider in build_case(OUTER).items():
        provider.step()
        assert all(leaf.grad is not None for leaf in provider.leaves)
        assert len(provider.critics) == 3
        for critic in provider.critics:
            assert all((p.grad is None) == (name == "library") for p in critic.parameters())


@pytest.mark.parametrize("detach", [False, True])
def test_naive_critic_loss_reaches_the_codes_unless_detached(detach):
    terms = NaiveTerms({n: mlp(4, width=8) for n in critic_cost.CRITICS}, {})
    z, c, y = (torch.randn(5, 2, requires_grad=True) for _ in range(3))
    terms.critic_loss(*((t.detach() if detach else t) for t in (z, c, y))).backward()
    assert [t.grad is None for t in (z, c, y)] == [detach] * 3


def test_ratios_are_taken_within_a_round():
    times = {"cpu": {"naive": [3.0, 5.0], "detached": [2.0, 4.0], "library": [2.0, 3.0]}}
    times["cpu"]["plain"] = [1.0, 1.0]
    rows = {(r["provider"], r["metric"]): r["median"] for r in summarise(STEP, times)}
    assert rows["library", "cpu"] == 2.5
    assert rows["library", "cpu_overhead"] == 1.5
    assert rows["library", "cpu_overhead_ratio"] == 0.5
    assert ("plain", "cpu_overhead") not in rows


def test_providers_take_turns():
    providers = build_case(OUTER)
    order = []
    spied = {
        name: critic_cost.Provider(lambda name=name: order.append(name), [], [])
        for name in providers
    }
    measure(spied, 3, CPU, warmup=0)
    assert order[:3] == list(providers)
    assert order[3:6] == [*list(providers)[1:], next(iter(providers))]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "critic_cost.csv"
    critic_cost.write(path, run([OUTER, STEP], rounds=2, device=CPU, show=False))
    return path


def check_form(path, cases):
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == COLUMNS
    assert len({(r["case"], r["provider"], r["metric"]) for r in rows}) == len(rows)
    assert {r["case"] for r in rows} <= {c.name for c in cases}
    known = {c.name: c for c in cases}
    for row in rows:
        assert row["provider"] in known[row["case"]].providers
        assert float(row["q20"]) <= float(row["median"]) <= float(row["q80"])
        assert row["unit"] == ("1" if row["metric"].endswith("ratio") else "ms")
        config = json.loads(row["config"])
        assert Case(**{k: v for k, v in config.items() if k != "rounds"}) == known[row["case"]]
        assert all(row[name] for name in ("device", "threads", "torch", "commit", "time"))


def test_form_of_fresh_results(written):
    check_form(written, [OUTER, STEP])


def test_form_of_stored_results():
    path = BENCHMARKS / "results" / "critic_cost.csv"
    check_form(path, CASES)


def test_figure_needs_the_csv_alone(written):
    pytest.importorskip("matplotlib")
    import plot

    figure = plot.critic_cost(plot.read(written))
    assert len(figure.axes) == 2
    assert all(axes.patches for axes in figure.axes)


def test_readme_quotes_the_stored_results():
    stored = BENCHMARKS / "results" / "critic_cost.csv"
    with stored.open(newline="") as file:
        rows = {(r["case"], r["provider"], r["metric"]): r for r in csv.DictReader(file)}
    lines = (BENCHMARKS / "README.md").read_text().splitlines()
    quoted = [[c.strip(" `") for c in line.split("|")[1:-1]] for line in lines if "_ratio" in line]
    quoted = [cells for cells in quoted if len(cells) == 6]
    assert quoted
    for case, provider, metric, *numbers in quoted:
        row = rows[case, provider, metric]
        assert numbers == [f"{float(row[k]):.2f}" for k in ("median", "q20", "q80")]
