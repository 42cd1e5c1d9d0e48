"""The documentation: its code runs, its links resolve, its tables are those of the results."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# The contract on paper is written in names that do not all exist.
RUN = [page for page in PAGES if page.name != "contract.md"]

_BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.M | re.S)
_NOT_RUN = re.compile(r"<!-- not run\b[^>]*-->\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    # Examples are tiny: threads that wait for each other would be most of their time.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def blocks(page):
    """First line and source of each python block that is to run."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        if not _NOT_RUN.search(text[: match.start()]):
            yield text[: match.start(2)].count("\n"), match[2]


def anchors(page):
    """The anchors of a page's headings, as mkdocs makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = re.findall(r"^#+ +(.+)$", text, re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in heads}


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_code_blocks_run(page, monkeypatch, tmp_path, capsys):
    found = list(blocks(page))
    if not found:
        pytest.skip("no python block")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # Classes defined in a page look their module up; hence a module and not a bare dictionary.
    module = type(sys)(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, source in found:
        # Padded with empty lines, so that a traceback names the page's own line.
        exec(compile("\n" * line + source, str(page), "exec"), module.__dict__)


def test_few_blocks_are_left_out():
    total = sum(len(_BLOCK.findall(page.read_text(encoding="utf-8"))) for page in RUN)
    run = sum(len(list(blocks(page))) for page in RUN)
    assert run >= 20 and total - run <= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_internal_links_resolve(page):
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_navigation_names_every_page():
    nav = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert nav == {page.name for page in DOCS.glob("*.md")}


def test_api_page_names_what_exists_and_all_that_is_public():
    import vaereg

    named = re.findall(r"^::: vaereg\.(\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.M)
    for name in named:
        module, _, last = name.rpartition(".")
        if module.startswith("plots"):
            pytest.importorskip("matplotlib")
        owner = importlib.import_module(f"vaereg.{module.split('.')[0]}") if module else vaereg
        assert hasattr(owner, last), name
    modules = ("critics", "functional", "metrics", "schedules")
    public = {n for n in vars(vaereg) if n[0].isupper() or n in ("gaussian", "categorical")}
    assert public | {"deterministic", "labels", "frozen"} <= set(named)
    assert {n.split(".")[0] for n in named if "." in n} >= set(modules)


# ---- reproductions


@pytest.fixture
def reproductions(monkeypatch, tmp_path):
    module = load("reproductions")
    monkeypatch.setattr(module, "PAGE", tmp_path / "reproductions.md")
    monkeypatch.setattr(module, "MMVAE", tmp_path / "mmvae")
    monkeypatch.setattr(module, "VMI", tmp_path / "vmi")
    monkeypatch.setattr(module, "DISENTANGLED", tmp_path / "disentangled" / "results")
    monkeypatch.setattr(module, "BENCHMARKS", tmp_path / "benchmarks")
    (tmp_path / "mmvae").mkdir()
    (tmp_path / "vmi").mkdir()
    (tmp_path / "disentangled" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    marks = (
        f"<!-- begin generated: {n} -->\n<!-- end generated: {n} -->"
        for n in ("mmvae", "vmi", "disentangled", "mi_accuracy", "critic_cost")
    )
    module.PAGE.write_text("# Page\n\n" + "\n\n".join(marks) + "\n", encoding="utf-8")
    readme = "<!-- begin generated: disentangled -->\n<!-- end generated: disentangled -->\n"
    (tmp_path / "disentangled" / "README.md").write_text(readme, encoding="utf-8")
    return module


def run_entry(name, seed, leak):
    mi = {
        q: {"mean": leak, "std": 0.01, "values": [leak], "gap": 0.0, "power": None, "unit": "bits"}
        for q in ("I(c;y)", "I(z;y)", "I(z;c)")
    }
    swap = {"accuracy": 1 - leak, "count": 10, "interval": [0.5, 0.9]}
    return {
        "name": name,
        "settings": {"preset": "small", "epochs": 8, "seed": seed},
        "mi_bits": mi,
        "swap": {"Eyeglasses": swap},
    }


def results(runs, **changes):
    return {
        "commit": "0123456789abcdef",
        "torch": "2.6",
        "device": "cpu",
        "command": "--data /home/me/celeba --output /tmp/out --epochs 8",
        "data": "built-in",
        "attributes": ["Eyeglasses"],
        "images": {"train": 80, "val": 10, "test": 10},
        "measured_on": {"data": "built-in", "rows": 300},
        "entropy_bits": 0.918,
        "classifier_accuracy_on_real_images": {"Eyeglasses": 0.99},
        "runs": runs,
        **changes,
    }


def test_page_is_not_stale():
    assert load("reproductions").main(["--check"]) == 0


def test_absent_results_are_said_to_be_absent(reproductions):
    assert reproductions.main([]) == 0
    assert reproductions.PAGE.read_text(encoding="utf-8").count("No results stored yet") == 4 + 4
    assert reproductions.main(["--check"]) == 0


def test_disentangled_beside_the_source(reproductions):
    one = {"mean": 0.5, "std": 0.125, "seeds": 3}
    names = ("beta_vae", "factor_vae", "mig", "mig_sampled", "dci", "nll", "mi", "tc")
    gain = {"mean": 0.25, "std": 0.5, "above": 2, "of": 3}
    run = {"steps": 10, "batch": 64, "lr": 0.001, "critic_depth": 3, "critic_width": 256,
           "precision": "bfloat16"}  # fmt: skip
    content = {
        "commit": "0123456789abcdef", "torch": "2.13", "device": "cpu", "command": "--output /a/b",
        "data": "re-render", "pictures": 737280, "measured": {"trees": 10},
        "summary": {"tc:6": dict.fromkeys(names, one), "beta:4+dip2:1": dict.fromkeys(names, one)},
        "equal_reconstruction": {"tc:6": {"seeds": 3, "outside": 1, "mig": gain}},
        "runs": [
            {"settings": run | {"objective": name}, "rows": 100, "commit": "abcdef",
             "unsupervised": {"mi": mi}}
            for name, mi in (("tc:6", 3.4), ("dip2:1", 3.5))
        ],
    }  # fmt: skip
    path = reproductions.DISENTANGLED / "dsprites.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert reproductions.main([]) == 0
    text = reproductions.PAGE.read_text(encoding="utf-8")
    assert "| `tc:6` | 3 | 0.884 ± 0.049 | 0.500 ± 0.125 | 0.736 ± 0.028 |" in text
    assert "| `beta:4+dip2:1` | 3 | — | 0.500 ± 0.125 | — |" in text
    assert "| `tc:6` | 3 of 4 | 0.250 ± 0.500 (above in 2 of 3) | — | — | — |" in text
    assert "by commit `abcdef`, tables by `0123456789ab`" in text and "/a/b" not in text
    assert "Of `dip2:1`, I(x; z) of a run at least is above" in text and "(4.6 nats)" in text
    readme = path.parents[1] / "README.md"
    assert readme.read_text(encoding="utf-8").strip() in text
    readme.write_text(readme.read_text(encoding="utf-8").replace("0.250", "0.350"), "utf-8")
    assert reproductions.main(["--check"]) == 1


def test_paper_beside_ours(reproductions, capsys):
    runs = [run_entry("r-cvae", 0, 0.4), run_entry("mmvae", 0, 0.1), run_entry("mmvae", 1, 0.2)]
    path = reproductions.MMVAE / "builtin.json"
    path.write_text(json.dumps(results(runs)), encoding="utf-8")
    assert reproductions.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert reproductions.main([]) == 0
    text = reproductions.PAGE.read_text(encoding="utf-8")
    # One seed: the spread of fresh critics and the interval; two seeds: theirs.
    assert "| r-CVAE | 0.895 ± 0.014 | 0.400 ± 0.010 |" in text
    assert "| 94.35% | 60.0% [50.0, 90.0] |" in text
    assert "| MMVAE | 0.908 ± 0.016 | 0.150 ± 0.071 |" in text
    assert "I(z;y) MMVAE < r-CVAE" in text
    assert "/home" not in text and "/tmp" not in text and "--data celeba --epochs 8" in text


def test_two_attributes_have_no_paper_column(reproductions):
    run = run_entry("mmvae", 0, 0.1)
    run["swap"]["Male"] = run["swap"]["Eyeglasses"]
    content = results([run], attributes=["Male", "Eyeglasses"])
    (reproductions.MMVAE / "two.json").write_text(json.dumps(content), encoding="utf-8")
    reproductions.main([])
    text = reproductions.PAGE.read_text(encoding="utf-8")
    assert "paper" not in text and "swap Male" in text


def vmi_results(weights, scores, **changes):
    runs = [
        {
            "settings": {"mi": mi, "seed": seed, "epochs": 8, "batch": 256, "z": 16, "k": 10},
            "held_out": {"kl_c": 2.2 + 0.1 * seed},
            "accuracy": {"one_to_one": score, "majority": score + 0.01},
        }
        for mi in weights
        for seed, score in enumerate(scores)
    ]
    ranks = {"bound": 0.5} if len(scores) > 2 else {}
    one = {"picked_one_to_one": scores[-1], "rank_correlation_with_one_to_one": ranks}
    return {
        "commit": "0123456789abcdef-changed",
        "torch": "2.6",
        "device": "cpu",
        "command": "--data /home/me/mnist.npz --output /tmp/out --seeds 0 1",
        "data": "/home/me/mnist.npz, test",
        "images": {"train": 600, "test": 100},
        "summary": {f"{mi:g}": one for mi in weights},
        "runs": runs,
        **changes,
    }


def test_vmi_papers_numbers_beside_ours(reproductions):
    files = {
        "mnist": vmi_results([30.0], [0.9, 0.8, 0.7]),
        "mnist_without": vmi_results([0.0], [0.25]),
        "fashion": vmi_results([30.0, 0.0], [0.5, 0.6], data="fashion.npz, holdout"),
        "search": {"runs": [{"accuracy": {"one_to_one": 0.123}}]},
    }
    gaussian = vmi_results([10.0], [0.987])
    del gaussian["runs"][0]["accuracy"]
    files["gaussian"] = gaussian
    for name, content in files.items():
        (reproductions.VMI / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    reproductions.main([])
    text = reproductions.PAGE.read_text(encoding="utf-8")
    score = "80.00% ± 10.00 | 70.00 to 90.00% | 70.00% | 81.00% ± 10.00"
    assert f"| mnist | 30 | 3 | 82% | {score} | 2.27 | 2.300 ± 0.100 |" in text
    assert "| mnist_without | 0 | 1 | 21% | 25.00% | — | — | 26.00% | — | 2.200 |" in text
    assert text.index("| fashion | 0 | 2 | — |") < text.index(
        "| fashion | 30 | 2 | 51.24% (InfoVAEGAN) |"
    )
    # Only the split that is not the official one is said not to be, and only what is scored shows.
    assert text.count("no published number has this split") == 1
    assert "12.3" not in text and "98.7" not in text
    assert text.count("Rank correlation") == 1 and "weight 30: +0.50, of 3 runs." in text
    assert "`0123456789ab` (with changes not committed)" in text
    assert "No results stored yet in `examples/vmi/results/digits.json`" in text
    assert "/home" not in text and "/tmp" not in text and "--data mnist.npz --seeds 0 1" in text
    assert reproductions.main(["--check"]) == 0


def test_benchmark_files_become_tables(reproductions):
    case = {"truth": 0.5, "bar": [-0.03, 0.03], "mean": 0.45, "std": 0.01, "met": False}
    free = {"truth": 0.0, "bar": None, "mean": 0.0, "std": 0.0, "met": None}
    record = {
        "commit": "0123456789abcdef",
        "seeds": [0, 1],
        "device": "cpu",
        "torch": "2.6",
        "configuration": {"rows": 5000},
        "cases": {"pair": {**case, "gaps": [0.1, 0.2]}, "free": {**free, "gaps": [0.0]}},
    }
    where = reproductions.BENCHMARKS
    (where / "mi_accuracy.json").write_text(json.dumps(record))
    columns = "case,provider,metric,median,q20,q80,unit,config,device,threads,torch,commit,time"
    row = "step,{},wall_ratio,{},0.9,1.1,1,x,cpu,1,2.6,abc,now"
    lines = [columns, row.format("naive", 1.0), row.format("library", 0.81234)]
    (where / "critic_cost.csv").write_text("\n".join(lines) + "\n")
    reproductions.main([])
    text = reproductions.PAGE.read_text(encoding="utf-8")
    assert (
        "| pair | 0.500 | 0.450 ± 0.010 | -0.050 | [-0.03, 0.03] | **missed** | +0.150 |" in text
    )
    assert "| free | 0.000 | 0.000 ± 0.000 | +0.000 | — | — | +0.000 |" in text
    assert "| case | metric | unit | naive | library |" in text
    assert "| 1 [0.9, 1.1] | 0.8123 [0.9, 1.1] |" in text


def test_docstring_marks_become_markdown():
    pytest.importorskip("griffe")
    rest = load("rest")
    text = (
        "One.\n\n.. math:: a &= b \\\\\n    c &= d\n\nSee :class:`~vaereg.Code` and :math:`x`.\n\n"
    )
    text += "References:\n    | Title\n    | https://example.org\n\nExample:\n    >>> 1\n    1"
    found = rest.markdown(text, {"vaereg.Code"})
    assert "$$\n\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned}\n$$" in found
    assert "[`Code`][vaereg.Code] and $x$" in found
    assert (
        "**References**\n\n- Title\n- https" in found
        and "Examples:" in found
        and ":math:" not in found
    )
