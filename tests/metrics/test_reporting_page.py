"""The page as a whole: its sections, what it escapes, how it is saved."""

from __future__ import annotations

import html
import json
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from report_models import Model, heads, leaky, normal, page_of, spread_out
from report_reader import Reader

import vaereg
from vaereg.metrics import ReportPage, report
from vaereg.metrics.reporting import _charts as charts
from vaereg.metrics.reporting._charts import DASH, MINUS


def everything(**options):
    """A page with all sections, of odd names."""
    y = vaereg.labels(torch.arange(120) % 2, classes=2)
    x = normal(120, 2) + y
    factors = np.stack((np.arange(120) % 2, np.arange(120) % 3), 1)
    return report(
        leaky(), x, y=y, factors=factors, factor_names=["a<b>", "b&\"c'"], fitted=120, trees=2,
        title="<script>alert('x')</script>", details={"run<1>": "</pre>", 7: 8},
        image_shape=(1, 2), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(0)
    return everything()


def test_the_page_is_well_formed_and_whole(full):
    reader = Reader(full.html)
    ids = reader.all("section", "id")
    expected = ["reconstructions", "traversals", "kl", "parts", "information", "audit", "scores"]
    assert [name for name in ids if name != "skipped"] == expected
    anchors = [link[1:] for link in reader.all("a", "href")]
    assert anchors == expected and len(set(ids)) == len(ids)
    assert full.html.startswith("<!doctype html>") and full.html.endswith("</html>\n")
    (title,) = re.findall("<title>(.*?)</title>", full.html)
    assert title == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;"


def test_audit_of_a_term_that_was_never_fitted(full):
    assert "The term leak displays an independence that is not there" in heads(full)
    assert full.notices[0].level == "bad"
    assert full.numbers["audit"]["terms"]["leak"]["verdict"] == "refuted"
    assert 'class="badge refuted"' in full.html
    y = vaereg.labels(torch.arange(60) % 2, classes=2)
    without = page_of(leaky(), normal(60, 2), y=y)
    assert without.numbers["audit"] is None and 'id="audit"' not in without.html


def test_variables_of_the_objective_alone_are_no_hindrance(full):
    assert full.skipped == () and full.numbers["codes"]["z"]["bracket"] is not None


def test_nothing_is_fetched_from_elsewhere(full):
    reader = Reader(full.html)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    for tag in names:
        assert all(src.startswith("data:") for src in reader.all(tag, "src"))
        assert all(href.startswith("#") for href in reader.all(tag, "href"))
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"base64,[^\"]*", "", full.html))


def test_names_are_escaped(full):
    text = full.html
    assert "<script" not in text and "a<b>" not in text and "run<1>" not in text
    assert text.count("</pre>") == 1
    assert "a&lt;b&gt;" in text and "b&amp;&quot;c" in text
    assert "a<b>" in "".join(Reader(text).texts)


def test_numbers_are_json_without_nan(full):
    raw = json.dumps(full.numbers, allow_nan=False)
    assert json.loads(raw) == full.numbers
    (shown,) = re.findall(r"<pre>(.*?)</pre>", full.html, re.S)
    assert json.loads(html.unescape(shown)) == full.numbers
    assert full.numbers["rows"] == 120 and set(full.numbers["codes"]) == {"z"}
    assert full.numbers["notices"] == [vars(n) for n in full.notices]
    assert full.numbers["skipped"] == [list(pair) for pair in full.skipped]


def test_scores_beside_their_factors(full):
    scores = full.numbers["codes"]["z"]["scores"]
    assert set(scores) == {
        "mig", "mig_sampled", "dci", "completeness", "informativeness", "sap", "modularity",
        "explicitness", "irs", "gaussian_tc", "factor_vae", "beta_vae",
    }  # fmt: skip
    assert all(v is None or math.isfinite(v) for v in scores.values())
    assert full.html.count("Which coordinate of z tells of which factor") == 1


def test_numpy_numbers_and_infinities_are_plain():
    x = normal(60, 2)
    model = Model(lambda x: {"z": vaereg.deterministic(torch.cat((x, x), 1))})
    page = page_of(model, x, factors=(x[:, 0] > 0).long(), trees=2)
    assert page.numbers["codes"]["z"]["scores"]["gaussian_tc"] is None
    assert "∞" in page.html


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert page_of(Model(lambda x: {"z": spread_out(x)}), normal()).html


@pytest.mark.parametrize("value, text", [
    (None, DASH), (math.nan, DASH), (math.inf, "∞"), (-math.inf, f"{MINUS}∞"),
    (-0.00001, "0.000"), (-1.5, f"{MINUS}1.500"), (123456.7, "123,457"),
    (-123456.7, f"{MINUS}123,457"),
])  # fmt: skip
def test_numbers_as_text(value, text):
    assert charts.number(value) == text


# ---- saving and progress


def test_save(tmp_path):
    page = ReportPage("<p>ü</p>", {}, (), ())
    path = tmp_path / "a" / "b" / "page.html"
    assert page.save(path) == path and page.save(str(path)) == path
    assert path.read_text(encoding="utf-8") == "<p>ü</p>"
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    assert repr(page) == "ReportPage(0 KiB, 0 notices, 0 not measured)"


def test_save_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    ReportPage("first", {}, (), ()).save(path)
    with pytest.raises(UnicodeEncodeError):
        ReportPage("second \ud800", {}, (), ()).save(path)
    assert path.read_text(encoding="utf-8") == "first"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        ReportPage("third", {}, (), ()).save(tmp_path / "folder")
    with pytest.raises(OSError):
        ReportPage("fourth", {}, (), ()).save(path / "below.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "page.html"]


def test_save_into_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"path: expected a file, got the folder .*\w$"):
        ReportPage("page", {}, (), ()).save(tmp_path)
    assert not list(tmp_path.iterdir())


def of_progress():
    return page_of(Model(lambda x: {"z": spread_out(x)}), normal(), progress=True)


def test_progress(monkeypatch):
    said = []
    bar = SimpleNamespace(set_description_str=said.append, close=lambda: said.append("closed"))
    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=lambda **options: bar))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    of_progress()
    assert said == [
        "report: codes", "report: parts of KL(z)", "report: pictures", "closed",
    ]  # fmt: skip
    with pytest.raises(TypeError):
        page_of(Model(lambda x: x), normal(), progress=True)
    assert said[-1] == "closed"
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="progress=True needs tqdm: pip install tqdm"):
        of_progress()


def test_progress_on_a_terminal_as_tqdm_draws_it(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    of_progress()
    drawn = capsys.readouterr().err
    assert "report: pictures 00:0" in drawn and ": :" not in drawn


def test_progress_where_stderr_is_no_terminal(capsys):
    of_progress()
    expected = "report: codes\nreport: parts of KL(z)\nreport: pictures\n"
    assert capsys.readouterr().err == expected
