"""The procedural faces and the loaders of the MMVAE example."""

import builtins
import itertools
import json
import os

import numpy as np
import pytest
import torch

from mmvae.attributes import AttributeImages, balanced_rows, random_split
from mmvae.celeba import load_celeba
from mmvae.data import batches, load_builtin, load_npz
from mmvae.faces import ATTRIBUTES, FACTORS, FLAGS, draw, faces, sample_factors

NAMES = ["Eyeglasses", "Male", "Smiling", "Wearing_Hat"]


@pytest.fixture(scope="module")
def drawn():
    return faces(600, seed=4)


@pytest.fixture(scope="module")
def data():
    return load_builtin(120, ATTRIBUTES, seed=0)


# ---- the procedural faces


def test_faces_have_the_promised_form(drawn):
    assert drawn.images.shape == (600, 64, 64, 3) and drawn.images.dtype == np.uint8
    assert drawn.attributes.shape == (600, 2) and drawn.attributes.dtype == np.int8
    assert drawn.attribute_names == ATTRIBUTES == ("Eyeglasses", "Smiling")
    assert set(drawn.factors) == set(FACTORS)
    np.testing.assert_array_equal(drawn.attributes[:, 0], drawn.factors["glasses"])
    np.testing.assert_array_equal(drawn.attributes[:, 1], drawn.factors["smiling"])
    assert drawn.images.std(axis=0).min() > 10  # every pixel varies between faces


def test_factors_are_independent_of_both_attributes():
    n = 20_000
    factors = sample_factors(n, seed=0)
    for name, p in FLAGS.items():
        assert abs(factors[name].mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
    # 2 x 10 table of flag against decile: chi2 with 9 degrees of freedom exceeds 33 with
    # probability 1.3e-4, over about 80 pairs 1%; the seed is fixed.
    for flag, name in itertools.product(("glasses", "smiling"), FACTORS):
        if flag == name:
            continue
        values = factors[name]
        rank = np.digitize(values, np.quantile(values, np.linspace(0.1, 0.9, 9)))
        if name in FLAGS:
            rank = values.astype(int)
        table = np.zeros((2, rank.max() + 1))
        np.add.at(table, (factors[flag].astype(int), rank), 1)
        table = table[:, table.sum(0) > 0]
        expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / n
        assert ((table - expected) ** 2 / expected).sum() < 33, (flag, name)
    # The continuous factors among themselves: |r| of 5 standard errors.
    stack = np.stack([factors[name] for name in FACTORS])
    correlation = np.corrcoef(stack) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


def test_glasses_are_readable_by_a_linear_classifier():
    drawn = faces(4000, seed=7)
    # Every second pixel of the rows and columns where glasses can be.
    x = drawn.images[:, 14:46:2, 8:56:2].reshape(4000, -1).astype(np.float32) / 255
    y = drawn.attributes[:, 0].astype(np.float32)
    mean, rate = x[:3200].mean(0), y[:3200].mean()
    x = x - mean
    gram = x[:3200].T @ x[:3200] + 10 * np.eye(x.shape[1], dtype=np.float32)
    weight = np.linalg.solve(gram, x[:3200].T @ (y[:3200] - rate))
    accuracy = ((x[3200:] @ weight + rate > 0.5) == (y[3200:] > 0.5)).mean()
    assert accuracy > 0.97


def test_the_smile_shows_at_the_mouth_only(drawn):
    factors = {k: v[:100].copy() for k, v in drawn.factors.items()}
    still, happy = dict(factors), dict(factors)
    still["smiling"], happy["smiling"] = np.zeros(100), np.ones(100)
    change = np.abs(draw(still).astype(int) - draw(happy)).sum(-1)  # (N, 64, 64)
    assert (change.max((1, 2)) > 60).all()  # visible on every face, even the faintest smile
    assert not change[:, :24].any() and not change[:, 62:].any()


@pytest.mark.parametrize("roll", [-1.0, 1.0])
@pytest.mark.parametrize("yaw", [-1.0, 1.0])
@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_no_feature_is_cut_off_by_an_extreme_pose(monkeypatch, roll, yaw, shift):
    import mmvae.faces as module

    factors = sample_factors(20, seed=5)
    factors["glasses"][:], factors["frame_thickness"][:] = 1, 1
    for name, value in (("roll", roll), ("yaw", yaw), ("shift_y", shift)):
        factors[name][:] = value
    fast = draw(factors)
    monkeypatch.setattr(module, "_rows", lambda first, last, *fields: fields)
    np.testing.assert_allclose(fast.astype(int), draw(factors), atol=2)


@pytest.mark.parametrize("name", ["frame_thickness", "lens_darkness"])
def test_more_of_a_glasses_factor_makes_a_darker_picture(drawn, name):
    factors = {k: v[:40].copy() for k, v in drawn.factors.items()}
    factors["glasses"][:] = 1
    # The frame is judged around clear lenses: around black ones it has nothing to darken.
    factors["lens_darkness"][:] = 0
    means = []
    for value in np.linspace(0, 1, 6):
        factors[name][:] = value
        means.append(draw(factors).mean(axis=(1, 2, 3)))
    steps = np.diff(np.stack(means), axis=0)
    assert (steps < 0).all()
    # Grey levels of 255 over the whole picture, of which the glasses are about a twelfth.
    assert (means[0] - means[-1] > 1.5).all()


@pytest.mark.parametrize("name", ["frame_thickness", "lens_darkness", "frame_colour"])
def test_glasses_factors_leave_faces_without_glasses_alone(drawn, name):
    factors = {k: v[:20].copy() for k, v in drawn.factors.items()}
    factors["glasses"][:] = 0
    before = draw(factors)
    factors[name][:] = 1 - factors[name]
    np.testing.assert_array_equal(before, draw(factors))


def test_faces_depend_on_the_seed_and_not_on_the_chunk(drawn):
    again = faces(600, seed=4, chunk=77)
    np.testing.assert_array_equal(again.images, drawn.images)
    assert (faces(600, seed=5).images != drawn.images).mean() > 0.5


def test_draw_names_what_is_wrong():
    factors = sample_factors(3, seed=0)
    with pytest.raises(ValueError, match=r"missing \['yaw'\]"):
        draw({k: v for k, v in factors.items() if k != "yaw"})
    with pytest.raises(ValueError, match=r"expected 'yaw' of shape \(N,\) = \(3,\), got \(2,\)"):
        draw({**factors, "yaw": np.zeros(2)})
    with pytest.raises(ValueError, match="got n = 0"):
        sample_factors(0, seed=0)
    with pytest.raises(ValueError, match="got chunk = 0"):
        faces(3, seed=0, chunk=0)


# ---- split, balance, batches


def test_random_split_is_a_partition_that_the_seed_fixes():
    split = random_split(1000, (0.8, 0.1, 0.1), seed=3)
    assert [len(split[part]) for part in ("train", "val", "test")] == [800, 100, 100]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(split.values()))), np.arange(1000))
    again = random_split(1000, (0.8, 0.1, 0.1), seed=3)
    np.testing.assert_array_equal(split["train"], again["train"])
    other = random_split(1000, (0.8, 0.1, 0.1), seed=4)
    assert (split["train"] != other["train"]).any()
    ordered = random_split(10, (0.8, 0.1, 0.1), seed=3, sequential=True)
    assert ordered["train"].tolist() == list(range(8)) and ordered["test"].tolist() == [9]
    with pytest.raises(ValueError, match="three positive fractions"):
        random_split(10, (0.9, 0.2, 0.1), seed=0)


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5, 0.8])
def test_balance_gives_the_share_and_drops_one_side_only(share):
    positive = np.random.default_rng(0).random(3000) < 0.4
    rows = balanced_rows(positive, share, seed=1)
    assert abs(positive[rows].mean() - share) < 1e-3
    assert (np.diff(rows) > 0).all()
    full = (positive[rows].sum() == positive.sum(), (~positive[rows]).sum() == (~positive).sum())
    assert any(full)


def test_balance_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 1.5"):
        balanced_rows(np.array([True, False]), 1.5, seed=0)
    with pytest.raises(ValueError, match="positives and negatives to balance, got 0 and 3"):
        balanced_rows(np.zeros(3, bool), 0.5, seed=0)


def test_batches_hold_the_pictures_and_labels_of_their_rows(data):
    pairs = list(batches(data, "train", 40, shuffle=False))
    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    assert [len(x) for x, _ in pairs] == [40, 40, 16]
    assert x.dtype == torch.float32 and y.dtype == torch.int64 and x.is_contiguous()
    rows = data.split["train"]
    expected = torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2) / 255
    assert torch.equal(x, expected) and 0 <= x.min() and x.max() <= 1
    assert np.array_equal(y.numpy(), data.attributes[rows])
    assert [len(x) for x, _ in batches(data, "train", 40, drop_last=True)] == [40, 40]


def test_a_resumed_run_sees_the_same_batches(data):
    def labels(epoch, seed=5):
        return [x.sum((1, 2, 3)) for x, _ in batches(data, "train", 16, seed=seed, epoch=epoch)]

    whole = [labels(epoch) for epoch in range(4)]
    np.random.default_rng().random()
    torch.rand(7)
    resumed = [labels(epoch) for epoch in (2, 3)]
    for left, right in zip(whole[2:], resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    first = torch.cat(whole[0])
    assert not torch.equal(first, torch.cat(whole[1]))
    assert not torch.equal(first, torch.cat(labels(0, seed=6)))
    assert torch.equal(first.sort().values, torch.cat(whole[1]).sort().values)


def test_batches_refuse_at_the_call(data):
    with pytest.raises(ValueError, match=r"expected split in .*got 'valid'"):
        batches(data, "valid", 8)
    with pytest.raises(ValueError, match="batch_size >= 1, got 0"):
        batches(data, "val", 0)
    with pytest.raises(ValueError, match="<= 12 rows of 'val', got 13"):
        batches(data, "val", 13, drop_last=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 32, 32, 3), np.uint8)}, r"uint8 of shape \(N, 64, 64, 3\)"),
        ({"images": np.zeros((4, 64, 64, 3))}, "got float64 of shape"),
        ({"attributes": np.zeros((3, 1), np.int8)}, r"shape \(4, 1\) for 4 images.*got \(3, 1\)"),
        ({"attributes": np.ones((4, 1), np.int8)}, r"'A' to take both values.*got \[1\] in all 4"),
        ({"split": {"train": np.arange(4)}}, "a split into"),
        ({"split": {"train": np.arange(4), "val": np.arange(0), "test": np.arange(1)}}, "'val'"),
        ({"split": dict.fromkeys(("train", "val", "test"), np.arange(5))}, "rows 0 to 3"),
    ],
)
def test_the_container_refuses_what_does_not_fit(change, message):
    fine = {
        "images": np.zeros((4, 64, 64, 3), np.uint8),
        "attributes": np.array([[0], [1], [0], [1]], np.int8),
        "attribute_names": ("A",),
        "split": {"train": np.arange(2), "val": np.array([2]), "test": np.array([3])},
        "source": "a test",
    }
    assert len(AttributeImages(**fine)) == 4
    with pytest.raises(ValueError, match=message):
        AttributeImages(**{**fine, **change})


def test_builtin_takes_attributes_in_the_order_wanted():
    both = load_builtin(40, ("Smiling", "Eyeglasses"), seed=2)
    np.testing.assert_array_equal(both.attributes, faces(40, seed=2).attributes[:, ::-1])
    third = load_builtin(60, ("Smiling",), seed=2, balance=1 / 3)
    assert third.attributes.mean() == pytest.approx(1 / 3, abs=0.02) and len(third) < 60
    with pytest.raises(ValueError, match=r"got 'Smilling' \(did you mean 'Smiling'\?\)"):
        load_builtin(10, ("Smilling",))
    with pytest.raises(ValueError, match="different attribute names, got 'Smiling'"):
        load_builtin(10, "Smiling")


# ---- .npz files


def write_npz(path, n=30, shape=(64, 64, 3), **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        "attributes": rng.integers(0, 2, (n, 3)).astype(np.int8),
        "attribute_names": np.array(["Eyeglasses", "Male", "Smiling"]),
        **changes,
    }
    arrays = {name: value for name, value in arrays.items() if value is not None}
    np.savez(path, **arrays)
    return arrays


@pytest.mark.parametrize("signed", [False, True])
def test_npz_roundtrip(tmp_path, signed):
    path = tmp_path / "set.npz"
    labels = np.random.default_rng(1).integers(0, 2, (30, 3)).astype(np.int8)
    arrays = write_npz(path, attributes=2 * labels - 1 if signed else labels)
    data = load_npz(path, ("Smiling", "Eyeglasses"), sequential=True)
    np.testing.assert_array_equal(data.images, arrays["images"])
    np.testing.assert_array_equal(data.attributes, labels[:, [2, 0]])
    assert data.attribute_names == ("Smiling", "Eyeglasses") and data.source == path.name
    assert data.split["train"].tolist() == list(range(24))


def test_npz_grey_pictures_of_another_size_with_one_label_array(tmp_path):
    pytest.importorskip("PIL")
    path = tmp_path / "grey.npz"
    glasses = np.arange(30) % 2
    picture = np.linspace(0, 240, 60).astype(np.uint8)[:, None] * np.ones((1, 48), np.uint8)
    write_npz(path, images=np.stack([picture] * 30), glasses=glasses, attributes=None)
    data = load_npz(path, label_key="glasses", balance=1 / 3)
    assert data.images.shape == (22, 64, 64, 3) and data.attribute_names == ("glasses",)
    assert (data.images[..., 0] == data.images[..., 2]).all()
    expected = (np.arange(64) + 0.5) * 240 / 64
    assert np.abs(data.images[0, 4:-4, 30, 0] - expected[4:-4]).max() < 4


@pytest.mark.parametrize(
    ("changes", "wanted", "message"),
    [
        ({}, ("Eyeglases",), r"Eyeglasses, Male.*got 'Eyeglases' \(did you mean 'Eyeglasses'\?\)"),
        ({}, ("Male", "Male"), "different attribute names"),
        (
            {"attributes": None},
            ("Male",),
            r"got \['images', 'attribute_names'\]: no \['attributes",
        ),
        ({"attributes": np.ones((29, 3))}, ("Male",), r"shape \(30, 3\) for 30 images.*\(29, 3\)"),
        ({"attributes": np.full((30, 3), 2)}, ("Male",), "'Male' in {0, 1} or {-1, 1}, got.* 2"),
        ({"attributes": np.zeros((30, 3))}, ("Male",), r"'Male' to take both.*got \[0\]"),
        ({"images": np.zeros((30, 64, 64, 3))}, ("Male",), "uint8 .*got float64"),
        (
            {"images": np.zeros((30, 64, 64, 4), np.uint8)},
            ("Male",),
            r"got uint8 of shape \(30, 6",
        ),
    ],
)
def test_npz_errors(tmp_path, changes, wanted, message):
    write_npz(tmp_path / "set.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "set.npz", wanted)


def test_npz_file_errors(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"got no file at .*none\.npz"):
        load_npz(tmp_path / "none.npz", ("Male",))
    path = tmp_path / "set.npz"
    write_npz(path, shape=(32, 32, 3))
    with pytest.raises(ValueError, match="attributes or label_key, got neither"):
        load_npz(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a whole \.npz file.*set\.npz"):
        load_npz(path, ("Male",))
    path.write_bytes(whole)
    without_pillow(monkeypatch)
    with pytest.raises(ImportError, match="pip install pillow"):
        load_npz(path, ("Male",))


def without_pillow(monkeypatch):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)


# ---- the CelebA folder, with drawn faces in place of photographs


@pytest.fixture
def celeba(tmp_path):
    image = pytest.importorskip("PIL.Image")
    n = 20
    drawn = faces(n, seed=1)
    labels = np.stack([np.arange(n) % 4 == 0, np.arange(n) % 2, np.arange(n) % 3 == 0], 1)
    labels = np.concatenate([labels.astype(int), np.zeros((n, 1), int)], 1)
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    for i, picture in enumerate(drawn.images, start=1):
        aligned = image.new("RGB", (178, 218), (255, 0, 0))  # a frame that the crop must remove
        aligned.paste(image.fromarray(picture).resize((138, 138)), (20, 40))
        aligned.save(folder / f"{i:06d}.jpg", quality=98, subsampling=0)
    rows = [
        f"{i:06d}.jpg " + " ".join(f"{2 * v - 1:2d}" for v in row)
        for i, row in enumerate(labels, start=1)
    ]
    write_lines(tmp_path / "list_attr_celeba.txt", [str(n), " ".join(NAMES) + " ", *rows])
    return tmp_path, drawn, labels


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def load(root, *attributes, **options):
    return load_celeba(root, attributes or ("Eyeglasses",), progress=False, **options)


def test_celeba_crops_and_resizes(celeba):
    root, drawn, labels = celeba
    data = load(root, "Smiling", "Eyeglasses")
    assert isinstance(data.images, np.memmap) and len(data) == 20
    np.testing.assert_array_equal(data.attributes, labels[:, [2, 0]])
    assert np.abs(data.images.astype(int) - drawn.images).mean() < 6
    assert [len(rows) for rows in data.split.values()] == [16, 2, 2]
    x, y = next(batches(data, "train", 8))
    assert x.shape == (8, 3, 64, 64) and y.shape == (8, 2)


def test_celeba_official_partition_balance_and_limit(celeba):
    root, drawn, labels = celeba
    parts = np.repeat([0, 1, 2], [12, 4, 4])
    listing = root / "list_eval_partition.txt"
    write_lines(listing, [f"{i:06d}.jpg {p}" for i, p in enumerate(parts, start=1)])
    data = load(root)
    assert [len(rows) for rows in data.split.values()] == [12, 4, 4]
    assert data.split["test"].tolist() == [16, 17, 18, 19]
    half = load(root, balance=0.5)
    for rows, count in zip(half.split.values(), (6, 2, 2), strict=True):
        assert len(rows) == count and half.attributes[rows].mean() == 0.5
    some = load(root, limit=15, seed=3)
    assert len(some) == 15
    every = draw_distance(some.images, drawn.images)
    assert (np.diff(every.argmin(1)) > 0).all()  # in the order of the list, none twice
    np.testing.assert_array_equal(some.attributes[:, 0], labels[every.argmin(1), 0])

    write_lines(listing, lines_of(listing)[:-2])
    with pytest.raises(ValueError, match=r"none for 2, such as 000019\.jpg"):
        load(root)
    write_lines(listing, ["000001.jpg 7"])
    with pytest.raises(ValueError, match=r"line 1 of .*got '000001.jpg 7'"):
        load(root)


def draw_distance(left, right):
    return np.abs(left[:, None].astype(np.int16) - right[None]).mean((2, 3, 4))


def test_celeba_cache_is_reused_and_rebuilt(celeba, monkeypatch):
    import mmvae.celeba as module

    root, *_ = celeba
    cache = root / "elsewhere" / "cache"
    first = np.array(load(root, cache=cache).images)
    (array,) = cache.glob("*.npy")
    assert sorted(p.suffix for p in cache.iterdir()) == [".json", ".npy"]

    decoded = []
    real = module._decode
    monkeypatch.setattr(module, "_decode", lambda *a: decoded.append(a[1].name) or real(*a))
    np.testing.assert_array_equal(load(root, "Male", cache=cache).images, first)
    assert decoded == []

    whole = array.read_bytes()
    array.write_bytes(whole[:-1000])
    np.testing.assert_array_equal(load(root, cache=cache).images, first)
    assert len(decoded) == 20 and array.read_bytes() == whole

    picture = root / "img_align_celeba" / "000003.jpg"
    picture.write_bytes((root / "img_align_celeba" / "000004.jpg").read_bytes())
    fresh = load(root, cache=cache).images
    assert len(decoded) == 40 and (fresh[2] == fresh[3]).all()

    array.with_suffix(".json").write_text("{", encoding="utf-8")
    load(root, cache=cache)
    assert len(decoded) == 60
    load(root, cache=cache, limit=10)
    assert len(decoded) == 70 and len(list(cache.glob("*.npy"))) == 2


def test_celeba_unreadable_pictures_raise_or_are_skipped(celeba):
    root, _, labels = celeba
    good = np.array(load(root, cache=root / "good").images)
    folder = root / "img_align_celeba"
    broken = folder / "000005.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    (folder / "000009.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a whole picture, got .*000005\.jpg"):
        load(root)
    assert list((root / "cache").iterdir()) == []  # nothing half-written
    keep = np.delete(np.arange(20), [4, 8])
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match=r"skipped 2 of 20 .* such as 000005\.jpg"):
            data = load(root, "Male", on_error="skip")
        np.testing.assert_array_equal(data.images, good[keep])
        np.testing.assert_array_equal(data.attributes[:, 0], labels[keep, 1])
    with pytest.raises(ValueError, match="a whole picture"):
        load(root)  # the cache that skipped is no answer to a call that must not
    (note,) = (root / "cache").glob("*.json")
    assert json.loads(note.read_text())["kept"] == keep.tolist()
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="got none of 20"):
        load(root, on_error="skip")


def test_celeba_layout_errors(celeba, monkeypatch):
    root, *_ = celeba
    folder, listing = root / "img_align_celeba", root / "list_attr_celeba.txt"
    with pytest.raises(FileNotFoundError, match=r"img_align_celeba/000001\.jpg.*got no .*nowhere"):
        load(root / "nowhere")
    listing.rename(root / "away.txt")
    with pytest.raises(FileNotFoundError, match=r"got no .*list_attr_celeba\.txt"):
        load(root)
    (root / "away.txt").rename(listing)
    folder.rename(root / "away")
    with pytest.raises(FileNotFoundError, match=r"got no .*img_align_celeba"):
        load(root)
    (root / "away").rename(folder)
    with pytest.raises(ValueError, match="'raise' or 'skip', got 'ignore'"):
        load(root, on_error="ignore")
    with pytest.raises(ValueError, match="limit >= 1, got 0"):
        load(root, limit=0)
    with monkeypatch.context() as patch:
        without_pillow(patch)
        with pytest.raises(ImportError, match="pip install pillow"):
            load(root)
    assert not (root / "cache").exists()

    (folder / "000007.jpg").rename(folder / "000099.jpg")
    with pytest.raises(ValueError, match=r"20 pictures, 1 rows without.* such as 000099\.jpg"):
        load(root)
    os.remove(folder / "000099.jpg")
    with pytest.raises(ValueError, match=r"19 pictures, 1 rows without.* such as 000007\.jpg"):
        load(root)
    with pytest.warns(UserWarning, match="skipped 1 of 20"):
        assert len(load(root, on_error="skip")) == 19


def test_celeba_aligned_size_is_checked(celeba):
    image = pytest.importorskip("PIL.Image")
    root, *_ = celeba
    image.new("RGB", (89, 109)).save(root / "img_align_celeba" / "000002.jpg")
    with pytest.raises(ValueError, match=r"\(178, 218\), got \(89, 109\) in .*000002\.jpg"):
        load(root)


@pytest.mark.parametrize(
    ("edit", "attribute", "message"),
    [
        (lambda t: t, "Smilng", r"Male, Smiling.*got 'Smilng' \(did you mean 'Smiling'\?\)"),
        (lambda t: t, "Wearing_Hat", r"'Wearing_Hat' to take both values 0 and 1, got \[0\]"),
        (lambda t: ["21", *t[1:]], "Male", "expected 21 rows in .*count line says, got 20"),
        (lambda t: t[1:], "Male", "expected a count, a line of names.*start with 'Eyeglasses"),
        (lambda t: [*t[:-1], "000020.jpg 1 1 1"], "Male", "line 22 of .*got 4 entries"),
        (lambda t: [*t[:-1], "000020.jpg 1 3 1 1"], "Male", "{-1, 1}, got values -1, 1, 3"),
        (lambda t: [*t[:-1], "000020.jpg 1 x 1 1"], "Male", "in {-1, 1} in .*'x'"),
        (lambda t: [], "Male", "got 0 lines that start with ''"),
    ],
)
def test_celeba_list_errors(celeba, edit, attribute, message):
    root, *_ = celeba
    listing = root / "list_attr_celeba.txt"
    write_lines(listing, edit(lines_of(listing)))
    with pytest.raises(ValueError, match=message):
        load(root, attribute)
