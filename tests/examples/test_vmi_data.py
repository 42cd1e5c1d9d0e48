"""Data of the VMI example: digits, IDX files and archives, whole and damaged."""

import gzip
import struct

import numpy as np
import pytest
import torch
from vmi_runs import blobs, npz

from vmi.data import load, load_digits, load_idx, load_npz

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


def idx(path, array, packed=False):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    raw = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if packed else raw)


def test_the_digits_of_scikit_learn():
    pytest.importorskip("sklearn")
    data = load_digits()
    assert data.images["train"].shape == (1437, 8, 8) and data.images["test"].shape == (360, 8, 8)
    assert data.classes == 10 and data.size == 8 and data.images["train"].max() == 255
    x = data.tensor("test")
    assert x.shape == (360, 1, 8, 8) and 0 <= x.min() and x.max() == 1
    assert torch.equal(torch.cat(list(data.chunks("test", 100))), x)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inner", ["", "FashionMNIST/raw"])
def test_idx_files(packed, inner, tmp_path):
    data, folder = blobs(), tmp_path / inner
    folder.mkdir(parents=True, exist_ok=True)
    for part, stem in (("train", "train"), ("test", "t10k")):
        end = ".gz" if packed else ""
        idx(folder / f"{stem}-images-idx3-ubyte{end}", data.images[part], packed)
        idx(folder / f"{stem}-labels-idx1-ubyte{end}", data.labels[part], packed)
    found = load_idx(tmp_path)
    for part in ("train", "test"):
        assert np.array_equal(found.images[part], data.images[part])
        assert np.array_equal(found.labels[part], data.labels[part])
    assert found.source == ("FashionMNIST" if inner else tmp_path.name)


def test_damaged_idx_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz in .*, got neither"):
        load_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    idx(path, blobs().images["train"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="expected an IDX file of 3 dimensions"):
        load_idx(tmp_path)
    path.write_bytes(b"\0\0")
    with pytest.raises(ValueError, match="expected a whole IDX file"):
        load_idx(tmp_path)


@pytest.mark.parametrize("held", ["test", "holdout"])
def test_npz(held, tmp_path):
    found = load(str(npz(tmp_path / "set.npz", held=held)))
    assert found.source == f"set.npz, {held}"
    assert np.array_equal(found.images["test"], blobs().images["test"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"test_labels": None},
            "got no test_labels but train_images, train_labels, test_images",
        ),
        ({"train_images": np.full((48, 8, 8), 2.0)}, "float in [0, 1], got float64 from 2 to 2"),
        ({"train_images": np.full((48, 8, 8), np.nan)}, "float in [0, 1], got float64 from nan"),
        ({"train_images": np.zeros((48, 8, 8, 3), np.uint8)}, "expected train images of shape"),
        ({"train_images": np.zeros((48, 8, 8), int)}, "uint8 or float in [0, 1], got int64"),
        ({"train_labels": np.array(["a"] * 48)}, "got 48 images and labels <U1 such as ['a']"),
        ({"test_labels": np.array([{}] * 24)}, "expected an .npz archive, got set.npz, where"),
        ({"test_images": np.array([{}] * 24)}, "expected an .npz archive, got set.npz, where"),
        ({"test_images": np.zeros((24, 9, 9), np.uint8)}, "expected images of one size"),
        ({"train_labels": np.zeros(3, int)}, "expected 48 train labels, got shape (3,)"),
        ({"train_labels": np.full(48, -1)}, "with labels 0, 1, ..., got 48 images and labels int"),
        ({"train_labels": np.full(48, np.nan)}, "with labels 0, 1, ..."),
    ],
)
def test_bad_npz(changes, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        load_npz(npz(tmp_path / "set.npz", **changes))
    assert message in str(caught.value) and str(caught.value).startswith("--data: ")


def test_npz_of_keras_with_channels_and_floats(tmp_path):
    data = blobs()
    arrays = {"x_train": data.images["train"] / 255.0, "y_train": data.labels["train"],
              "x_test": data.images["test"][:, None], "y_test": data.labels["test"]}  # fmt: skip
    arrays["x_train"] = arrays["x_train"].astype(np.float32)[:, None]
    np.savez(tmp_path / "keras.npz", **arrays)
    found = load_npz(tmp_path / "keras.npz")
    assert found.source == "keras.npz, test"
    for part in ("train", "test"):
        assert found.images[part].dtype == np.uint8
        assert np.array_equal(found.images[part], data.images[part])
        assert np.array_equal(found.labels[part], data.labels[part])
    np.savez(tmp_path / "half.npz", x_train=arrays["x_train"], other=np.zeros(1))
    with pytest.raises(ValueError, match="got no y_train and no x_test and no y_test but x_train"):
        load_npz(tmp_path / "half.npz")


def test_grey_values_are_rounded(tmp_path):
    images = np.array([0.0, 0.4999 / 255, 0.5001 / 255, 1.0]).reshape(4, 1, 1)
    labels = np.zeros(4, int)
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=labels,
             test_images=images, test_labels=labels)  # fmt: skip
    assert load_npz(tmp_path / "set.npz").images["train"].ravel().tolist() == [0, 0, 1, 255]


def test_fewer_training_images():
    few = blobs().first(7)
    assert len(few.images["train"]) == 7 and len(few.tensor("test")) == 24
    with pytest.raises(ValueError, match="--images: expected 1 to 48 training images, got 49"):
        blobs().first(49)
