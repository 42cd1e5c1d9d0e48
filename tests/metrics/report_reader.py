"""What a page shows, read back from its HTML: tags, tiles, pictures, curves."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Tags, attributes and texts; fails where a tag is closed that is not the last one open."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, name):
        return [attrs[name] for t, attrs in self.tags if t == tag and name in attrs]


def tiles(page):
    found = re.findall(r'<div class="tile"><b>(.*?)</b><span>(.*?)</span></div>', page.html)
    return {text: value for value, text in found}


def strips(page, alt):
    """The pictures of strips, as arrays of bytes (H, W, 4)."""
    found = re.findall(
        r'<img class="strip" src="data:image/png;base64,(.*?)" alt="(.*?)"', page.html
    )
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d)))) for d, a in found if a == alt]


def pictures(page, alt, width):
    """The pictures of the only strip, (n, H, W, 3)."""
    (sheet,) = strips(page, alt)
    gap = max(1, sheet.shape[0] // 32)
    count = (sheet.shape[1] + gap) // (width + gap)
    starts = [k * (width + gap) for k in range(count)]
    clear = np.ones(sheet.shape[1], bool)
    for start in starts:
        clear[start : start + width] = False
    assert (sheet[:, clear, 3] == 0).all() and (sheet[:, ~clear, 3] == 255).all()
    return np.stack([sheet[:, s : s + width, :3] for s in starts])


def curves(page, label):
    """Heights between 0 and 1 of the curves of a strip, by their class."""
    (block,) = re.findall(rf'aria-label="{re.escape(label)}">(.*?)</div>', page.html)
    found = {"own": [], "data": []}
    for kind, points in re.findall(r'<polyline class="(\w+)" points="(.*?)"', block):
        heights = [(58.0 - float(pair.split(",")[1])) / 56.0 for pair in points.split()]
        found[kind].append(np.array(heights))
    return found


def walked(page):
    """Labels and KLs of the traversals in their order."""
    section = page.html.split('<section id="traversals">')[1].split("</section>")[0]
    return re.findall(r'<div class="label">(.*?)(?:<span>(.*?) nats</span>)?</div>', section)
