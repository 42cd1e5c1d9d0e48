"""The dSprites re-render beside genuine frames, and pictures with factors from files."""

import hashlib
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from disentangled import sources
from disentangled.data import OnDevice, Pictures, factors_of, index_of
from disentangled.render import SIZES, VALUES, outline, pack, render, unpack
from disentangled.sources import load_npz, rerender

FRAMES = "VAEREG_DSPRITES_FRAMES"
# SHA-256 of the packed frames of the official animation (Apache 2.0), ordered by flat index.
GENUINE = "5ef3aa110097c8ab6bf2b45f683e9fbf61361a0bf67f7740e73967abbd29d30d"


def picture(factors):
    _, shape, scale, orientation, x, y = (int(v) for v in factors)
    return render(shape, scale, orientation, np.array([x]), np.array([y]))[0, 0]


def tour():
    """The factors that the official animation shows, by flat index."""
    shown = {(0, s, k, 0, 0, 0) for s in range(3) for k in range(6)}
    shown |= {(0, s, 5, o, 0, 0) for s in range(3) for o in range(40)}
    edge = [(x, y) for x in range(32) for y in range(32) if x in (0, 31) or y in (0, 31)]
    return sorted(index_of(sorted(shown | {(0, 2, 5, 0, x, y) for x, y in edge})))


def small(scales=(2, 5), orientations=(0, 7)):
    """A complete grid of 3 x 2 x 2 x 32 x 32 pictures."""
    figures = [(s, k, o) for s in range(3) for k in scales for o in orientations]
    sizes = (3, len(scales), len(orientations), 32, 32)
    store = np.concatenate([render(*figure).reshape(-1, 512) for figure in figures])
    return Pictures(store, factors_of(np.arange(len(store)), sizes), tuple("abcde"), "small")


def test_the_re_render_is_the_official_animation():
    frames = np.stack([picture(factors) for factors in factors_of(tour())])
    assert len(frames) == 258
    assert hashlib.sha256(frames).hexdigest() == GENUINE


@pytest.mark.skipif(FRAMES not in os.environ, reason=f"{FRAMES} names no file of genuine frames")
def test_the_re_render_is_each_genuine_frame():
    with np.load(os.environ[FRAMES]) as file:
        images, latents = file["images"], file["latents_classes"]
    found = unpack(np.stack([picture(factors) for factors in latents]))
    same = (found == images).all((1, 2))
    assert int(same.sum()) >= 0.93 * len(images)  # the specification's formulas reach 298 of 320
    assert same.all(), f"{int(same.sum())} of {len(same)} are identical"


@pytest.mark.parametrize("shape", ["square", "ellipse", "heart", "triangle"])
def test_a_pixel_is_white_when_its_centre_is_inside(shape):
    scale, orientation, x, y = 3, 11, 5, 20
    turn = VALUES[3][orientation]
    u, v = (VALUES[2][scale] * outline(shape)).T
    corners = [
        (Fraction(int(np.rint(256 * a)), 256), Fraction(int(np.rint(256 * b)), 256))
        for a, b in zip(
            16 + 32 * VALUES[4][x] + np.cos(turn) * u + np.sin(turn) * v,
            16 + 32 * VALUES[5][y] + np.cos(turn) * v - np.sin(turn) * u,
            strict=True,
        )
    ]
    expected = np.zeros((64, 64), np.uint8)
    for row in range(64):
        line = row + Fraction(1, 2)
        crossings = []
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 <= line) != (y1 <= line):
                crossings.append(x0 + (line - y0) * (x1 - x0) / (y1 - y0))
        for column in range(64):
            left = sum(crossing > column + Fraction(1, 2) for crossing in crossings)
            expected[row, column] = left % 2
    found = unpack(render(shape, scale, orientation, np.array([x]), np.array([y])))[0, 0]
    assert np.array_equal(found, expected)
    assert 0 < expected.sum() < 400


def test_positions_are_those_asked_for_and_a_full_turn_is_none():
    every = render(2, 4, 13)
    assert every.shape == (32, 32, 512)
    assert np.array_equal(render(2, 4, 13, np.array([3, 9]), np.array([31])), every[[3, 9], 31:])
    assert np.array_equal(render(2, 4, 39), render(2, 4, 0))
    with pytest.raises(ValueError, match=r"expected shape square.*got 'star'"):
        render("star", 0, 0)


def test_indices_and_factors_are_inverse():
    index = np.array([0, 31, 32, 1024, 40 * 1024 - 1, 737_279])
    factors = factors_of(index)
    assert factors[-1].tolist() == [size - 1 for size in SIZES]
    assert np.array_equal(index_of(factors), index)
    _, shape, scale, orientation, x, y = factors.T
    assert np.array_equal(((shape * 6 + scale) * 40 + orientation) * 1024 + x * 32 + y, index)
    with pytest.raises(ValueError):
        index_of([0, 3, 0, 0, 0, 0])


def test_batches_are_pictures_of_zero_and_one():
    some = small()
    assert some.complete and some.sizes == (3, 2, 2, 32, 32) and some.channels == 1
    rows = np.array([5, 11_000, 5])
    x = some.batch(rows)
    assert x.shape == (3, 1, 64, 64) and x.dtype == torch.float32
    assert np.array_equal(x[:, 0].numpy().astype(np.uint8), unpack(some.store[rows]))
    assert np.array_equal(pack(unpack(some.store[rows])), some.store[rows])
    device = OnDevice(some, torch.device("cpu"))
    assert torch.equal(device.batch(rows), x)
    device.store = torch.from_numpy(some.store)  # as on a GPU
    assert torch.equal(device.batch(rows), x)


def test_a_spread_is_a_complete_grid():
    some = small()
    rows = some.spread(1000)
    assert 500 < len(rows) <= 1000
    values = [len(np.unique(column)) for column in some.factors[rows].T]
    assert np.prod(values) == len(rows) and values[:3] == [3, 2, 2]
    assert len(some.spread(10**6)) == len(some)
    part = Pictures(some.store[:-1], some.factors[:-1], some.names, "cut")
    assert not part.complete and len(part.spread(100)) == 100


def test_all_pictures_are_rendered_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SIZES", (1, 3, 2, 2, 32, 32))
    first = rerender(tmp_path)
    assert first.store.shape == (3 * 4 * 1024, 512) and isinstance(first.store, np.memmap)
    assert np.array_equal(first.store[1024:2048], render(0, 0, 1).reshape(-1, 512))
    (file,) = tmp_path.iterdir()
    assert "rerender" in file.name and "re-render" in first.source
    monkeypatch.setattr(sources, "_figures", lambda: pytest.fail("rendered again"))
    assert np.array_equal(rerender(tmp_path).store, first.store)


def test_a_cache_that_was_cut_short_is_rendered_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SIZES", (1, 3, 1, 1, 32, 32))
    expected = np.array(rerender(tmp_path).store)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert np.array_equal(rerender(tmp_path).store, expected)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.cache_folder() == tmp_path / "vaereg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert sources.cache_folder() == Path.home() / ".cache" / "vaereg"


def test_the_official_archive_is_packed(tmp_path):
    some = small()
    rows = np.arange(0, len(some), 50)
    classes = np.concatenate([np.zeros((len(rows), 1), int), some.factors[rows]], 1)
    path = tmp_path / "dsprites.npz"
    metadata = np.array({"title": "pickled, and never read"}, dtype=object)
    np.savez_compressed(path, imgs=unpack(some.store[rows]), latents_classes=classes,
                        latents_values=classes * 0.5, metadata=metadata)  # fmt: skip
    for _ in range(2):  # the second time from the cache
        found = load_npz(path, tmp_path / "cache")
        assert found.packed and "official" in found.source
        assert found.names == ("color", "shape", "scale", "orientation", "posX", "posY")
        assert torch.equal(found.batch(np.arange(20)), some.batch(rows[:20]))


def test_any_pictures_with_factors(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(12, 64, 64, 3), dtype=np.uint8)
    factors = np.array([[10 * (i // 4), i % 4] for i in range(12)])
    path = tmp_path / "own.npz"
    np.savez(path, images=images, factors=factors, factor_names=np.array(["hue", "size"]))
    found = load_npz(path, tmp_path)
    assert found.names == ("hue", "size") and found.sizes == (3, 4) and found.complete
    assert found.channels == 3 and not found.packed
    x = found.batch(np.array([3]))
    assert torch.allclose(x[0, :, 5, 6], torch.from_numpy(images[3, 5, 6]).float() / 255)
    np.savez(path, images=images[..., 0] > 100, factors=factors[:, 1])
    binary = load_npz(path, tmp_path)
    assert binary.packed and binary.names == ("factor 0",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 64, 64), np.uint8)}, "expected the arrays"),
        ({"images": np.zeros((2, 32, 32), np.uint8), "factors": np.arange(2)}, "64, 64"),
        ({"images": np.zeros((2, 64, 64), np.float32), "factors": np.arange(2)}, "uint8"),
        ({"images": np.zeros((2, 64, 64), np.uint8), "factors": np.zeros(2)}, "integers"),
        ({"images": np.zeros((2, 64, 64), np.uint8), "factors": np.arange(3)}, "2 pictures"),
    ],
)
def test_files_that_do_not_fit(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "bad.npz", tmp_path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected 'rerender' or an .npz"):
        load_npz(tmp_path / "none.npz", tmp_path)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"whole .npz"):
        load_npz(tmp_path / "text.npz", tmp_path)
