"""Pictures and curves of a page, read back pixel by pixel and point by point."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from report_models import Model, page_of, spread_out
from report_reader import curves, pictures

import vaereg


def shown(x, **options):
    """Data and what is decoded from codes that are the data."""
    shape = x.shape[1:]
    model = Model(
        lambda x: {"z": vaereg.deterministic(x.flatten(1).float())},
        lambda values: values["z"].reshape(-1, *shape),
    )
    return page_of(model, x, **options)


def ramp(n, *shape, low=0.0, high=1.0):
    numbers = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    numbers.view(-1)[:2] = torch.tensor([0.0, 1.0])  # the whole range
    return low + (high - low) * numbers


@pytest.mark.parametrize("event, image_shape", [
    ((4, 5), None), ((1, 4, 5), None), ((3, 4, 5), None), ((20,), (4, 5)), ((20,), (1, 4, 5)),
    ((60,), (3, 4, 5)), ((2, 1, 10), [4, 5]), ((40, 5), None),
])  # fmt: skip
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_pixels(event, image_shape, low, high):
    x = ramp(12, *event, low=low, high=high)
    page = shown(x, image_shape=image_shape, seed=3)
    rows = x[torch.randperm(12, generator=torch.Generator().manual_seed(3))[:10]]
    expected = 255.0 * (rows.double().numpy() - low) / (high - low)
    h = (image_shape or event)[-2]
    w = (image_shape or event)[-1]
    expected = np.round(expected).reshape(10, -1, h, w).transpose(0, 2, 3, 1)
    expected = np.broadcast_to(expected, (10, h, w, 3))
    for alt in ("data", "reconstructions"):
        found = pictures(page, alt, w)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1  # rounding of float32
    assert (pictures(page, "absolute differences", w) == 0).all()


def test_difference_is_on_the_scale_of_the_data():
    x = ramp(10, 4, 4, low=-1.0)
    model = Model(
        lambda x: {"z": vaereg.deterministic(x.flatten(1))},
        lambda values: values["z"].reshape(-1, 4, 4) - 0.5,
    )
    found = pictures(page_of(model, x), "absolute differences", 4)
    assert np.abs(found - 255 * 0.25).max() <= 1
    decoded = pictures(page_of(model, x), "reconstructions", 4)
    assert decoded.min() == 0  # cut where it leaves the data's range


@pytest.mark.parametrize("low, high, bottom, top", [
    (0.0, 1.0, 0.0, 1.0), (0.0, 0.3, 0.0, 1.0), (-0.5, 1.0, -1.0, 1.0), (0.0, 255.0, 0.0, 255.0),
    (-4.0, 4.0, -4.0, 4.0), (0.0, 3.0, 0.0, 3.0), (100.0, 900.0, 100.0, 900.0),
])  # fmt: skip
def test_range_of_values(low, high, bottom, top):
    x = ramp(10, 6, low=low, high=high)
    page = shown(x)
    rows = x[torch.randperm(10, generator=torch.Generator().manual_seed(0))]
    expected = (rows.double().numpy() - bottom) / (top - bottom)
    found = curves(page, "decoded")
    assert np.stack(found["own"]) == pytest.approx(expected, abs=2e-3)
    assert np.stack(found["data"]) == pytest.approx(expected, abs=2e-3)
    assert "<img" not in page.html


@pytest.mark.parametrize("value", [0.0, 0.5, 300.0])
def test_data_of_one_value(value):
    page = shown(torch.full((10, 4, 4), value))
    assert (pictures(page, "absolute differences", 4) == 0).all()


def test_long_rows_are_thinned_and_short_ones_drawn():
    assert len(curves(shown(ramp(10, 1000)), "decoded")["own"][0]) == 200
    assert len(curves(shown(ramp(10, 1)), "decoded")["own"][0]) == 1


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert shown(ramp(10, 6)).html  # curves need none
    with pytest.raises(ImportError, match=r'pictures need Pillow; run pip install "vaereg\['):
        shown(ramp(10, 4, 4))
    blind = Model(lambda x: {"z": spread_out(x.flatten(1))})
    assert ("pictures", "the model has no decode") in page_of(blind, ramp(10, 4, 4)).skipped
