"""The bracket on the page: its plot, what its marks are, and of which rows it is."""

from __future__ import annotations

import html
import math
import re
from dataclasses import replace

from report_models import FINE, Model, normal, page_of, spread_out
from report_reader import Reader

from vaereg.metrics.reporting._knowledge import bracketed


def shown(given=300, rows=300, **change):
    return html.unescape(bracketed({"c": replace(FINE, **change)}, given, rows))


def test_bracket_beyond_all_bounds_is_drawn():
    found = shown(upper=math.inf, upper_error=math.nan, lower=-2.0)
    assert "nan" not in found and "∞" in found
    drawn = re.findall(r'class="error" style="left:(.*?)%;width:(.*?)%"', found)
    assert len(drawn) == 3
    for left, width in drawn:
        assert 0.0 <= float(left) and float(left) + float(width) <= 100.01


def test_each_mark_of_the_plot_is_in_its_legend():
    for entropy, marks in ((None, 4), (2.3, 5)):
        text = shown(entropy=entropy)
        legend = text.split('<ul class="legend keys">')[1].split("</ul>")[0]
        known = set(re.findall(r'<i class="([\w ]+)"></i>', legend))
        assert len(known) == marks == legend.count("<li>")
        axis = text.split('<div class="axis"')[1].split("</div>")[0]
        drawn = {kind for classes in re.findall(r'<i class="([\w ]+)"', axis)
                 for kind in classes.split() if kind not in ("lower", "upper")}  # fmt: skip
        assert drawn == {kind for classes in known for kind in classes.split()}
        Reader(text)


def test_what_is_read_back_is_another_quantity():
    text = shown(decoded=2.2)
    table, hint = text.split("I(c; x\N{PRIME}), nats")
    assert "2.200" not in table and "2.200" in hint  # not among the bounds of I(c; x)
    assert "another quantity" in hint and "the KL rate above is no bound of it" in hint
    assert "The entropy is one." in hint
    assert "The entropy is one." not in shown(entropy=None)
    assert "another quantity" not in shown(decoded=None, decoded_error=None)


def test_rows_of_the_bracket_and_of_the_rest():
    text = shown(given=4000, rows=10_000)
    assert "Read on 500 rows of 4000;" in text and "on this page are of all 10000 rows" in text
    assert "beside 4000 posteriors here, beside 10000 there" in text
    page = page_of(Model(lambda x: {"z": spread_out(x)}), normal(90), bracket=True, fitted=60)
    held = page.numbers["codes"]["z"]["bracket"]["rows"]
    assert f"Read on {held} rows of 60;" in page.html and "are of all 90 rows" in page.html
    assert "posteriors of all 90 rows. The KL is that of all of them." in page.html
    page = page_of(Model(lambda x: {"z": spread_out(x)}), normal(60), bracket=True)
    assert "posteriors here" not in page.html
