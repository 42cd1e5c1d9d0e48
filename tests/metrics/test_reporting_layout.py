"""The page in a browser, where there is one: nothing runs out of its card at any width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import torch
from report_models import Model, page_of, spread_out

WIDTHS = (1280, 390)
# Each frame tells how wide its page is, how many curves lie outside of their card, and how wide
# the narrowest is.
SCRIPT = """
window.onload = () => {
  const all = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, found = [...page.querySelectorAll(".curves svg")];
    const boxes = found.map((svg) => [svg.getBoundingClientRect(),
      svg.closest("section").getBoundingClientRect()]);
    return [page.documentElement.scrollWidth, found.length,
      boxes.filter(([own, card]) => own.right > card.right || own.left < card.left).length,
      Math.min(...boxes.map(([own]) => own.width))];
  });
  document.body.textContent = JSON.stringify(all);
};
"""


def browser():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture(scope="module")
def page():
    x = torch.rand(60, 20, generator=torch.Generator().manual_seed(0))
    model = Model(lambda x: {"z": spread_out(x[:, :2])}, lambda values: values["z"].repeat(1, 10))
    return page_of(model, x, traversals=2)


def test_curves_wrap(page):
    """What a browser does with it is below."""
    (rule,) = re.findall(r"\.curves \{(.*?)\}", page.html)
    assert "repeat(auto-fit, minmax(" in rule
    assert all("minmax(0, 1fr)" in rule for rule in re.findall(
        r"\.rows \{[^}]*grid-template-columns:([^;]*);", page.html
    ))  # fmt: skip


@pytest.mark.skipif(browser() is None, reason="no Chromium")
def test_curves_stay_in_their_card(page, tmp_path):
    page.save(tmp_path / "page.html")
    frames = "".join(f'<iframe src="page.html" width={w} height=900></iframe>' for w in WIDTHS)
    (tmp_path / "frames.html").write_text(f"<body>{frames}<script>{SCRIPT}</script>")
    done = subprocess.run(
        [browser(), "--headless", "--no-sandbox", "--disable-gpu",
         "--allow-file-access-from-files", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}",
         (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = json.loads(re.search(r"<body>(.*?)</body>", done.stdout, re.S)[1])
    for (wide, curves, outside, least), width in zip(found, WIDTHS, strict=True):
        assert curves == 10 + 10 + 2 * 9  # reconstructions, samples and two walks
        assert wide <= width and outside == 0 and least >= 60.0
