"""Views of images: their range, their generator, their geometry."""

import math

import pytest
import torch

from vmi.settings import Settings
from vmi.views import Views

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_views_without_range_change_nothing():
    x = torch.rand(5, 1, 9, 9)
    torch.testing.assert_close(Views(0, 0, 0, 0)(x), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(Views(0, 0, 0, 0, mirror=1.0)(x), x.flip(3), atol=1e-5, rtol=0)


def test_views_stay_in_range_and_follow_their_generator():
    x = torch.rand(64, 1, 12, 12)
    view = Views(contrast=0.5)
    a, b = (view(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and a.shape == x.shape
    assert a.min() >= 0 and a.max() <= 1 and not torch.allclose(a, x, atol=0.1)


def test_the_views_of_settings():
    own = Settings(rotation=1.0, scale=2.0, shear=3.0, shift=4.0, mirror=0.5, contrast=6.0)
    assert Views.of(own) == Views(1.0, 2.0, 3.0, 4.0, 0.5, 6.0)
    assert Views.of(Settings()) == Views()


def test_a_shift_is_a_share_of_the_width():
    x = torch.zeros(2000, 1, 20, 20)
    x[:, :, 10, 10] = 1.0
    view = Views(0, 0, 0, shift=0.25)(x)
    place = (view.sum((1, 2)) * torch.arange(20)).sum(1) / view.sum((1, 2, 3))
    # Uniform on 10 ± 5 pixels: a standard deviation of 5 / sqrt(3).
    assert place.std() == pytest.approx(5 / math.sqrt(3), rel=0.05)
    assert place.min() > 4.8 and place.max() < 15.2
