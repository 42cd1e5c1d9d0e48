"""What the report says of a user's mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from report_models import QUICK, Model, normal, spread_out
from torch import nn

import vaereg
from vaereg.metrics import mig, report


@pytest.mark.parametrize("change, message", [
    ({"x": torch.randn(5)}, r"x: expected a tensor \(N, \*event\) of at least 2 rows, got \(5,\)"),
    ({"x": torch.randn(1, 3)}, r"x: expected .* at least 2 rows, got \(1, 3\)"),
    ({"x": np.zeros(5)}, r"x: expected a tensor .*, got \(5,\)"),
    ({"x": [[0.0], [1.0]]}, "x: expected a tensor .*, got list"),
    ({"x": np.full((5, 3), math.nan)}, "x: expected finite values, got nan or inf"),
    ({"x": torch.full((5, 3), math.nan)}, "x: expected finite values, got nan or inf"),
    ({"x": torch.full((5, 3), math.inf)}, "x: expected finite values, got nan or inf"),
    ({"factors": np.zeros((5, 2))}, r"factors: .* \(20, K\) or \(20,\), got float64 \(5, 2\)"),
    ({"factors": np.zeros((20, 0))}, r"factors: expected integers .*, got float64 \(20, 0\)"),
    ({"factors": np.full(20, math.inf)}, "factors: expected finite values, got nan or inf"),
    ({"factors": np.zeros((5,), int)}, r"factors: expected integers .*, got int64 \(5, 1\)"),
    ({"factors": np.zeros((20, 2, 2), int)}, r"factors: expected .* \(20, 2, 2\)"),
    ({"factors": np.zeros((20, 2), int), "factor_names": ["a"]},
     "factor_names: expected 2 names, got 1"),
    ({"factor_names": ["a"]}, "factor_names: expected factors beside them, got none"),
    ({"image_shape": (2, 2)}, r"image_shape: expected .* of 3 numbers, got \(2, 2\)"),
    ({"image_shape": (3,)}, r"image_shape: expected .* got \(3,\)"),
    ({"image_shape": (-1, -3)}, r"image_shape: expected .* got \(-1, -3\)"),
    ({"image_shape": (2, 1, 3)}, r"image_shape: expected .* got \(2, 1, 3\)"),
    ({"rows": 1}, "rows: expected at least 2, got 1"),
    ({"fitted": 0}, "fitted: expected at least 2, got 0"),
    ({"samples": 1}, "samples: expected at least 2, got 1"),
    ({"trees": 0}, "trees: expected at least 1, got 0"),
    ({"traversals": -1}, "traversals: expected at least 0, got -1"),
    ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    ({"y": torch.zeros(7, 1)}, "y: expected as many rows as x, 20, got 7"),
    ({"y": np.zeros((7, 1))}, "y: expected as many rows as x, 20, got 7"),
    ({"nll": lambda decoded, x: decoded}, r"nll: expected a scalar or \(20,\), got .* \(20, 3\)"),
])  # fmt: skip
def test_messages(change, message):
    model = Model(lambda x, **y: {"z": spread_out(x)}, lambda values, **y: values["z"])
    with pytest.raises(ValueError, match=message):
        report(model, **{"x": normal(20), **QUICK, **change})


@pytest.mark.parametrize("change, message", [
    ({"x": np.array([["a"], ["b"]])}, "x: expected an array of numbers, got dtype <U1"),
    ({"y": np.array([None, 1])}, "y: expected an array of numbers, got dtype object"),
    ({"factors": np.linspace(0, 1, 20)}, "factors: expected integers, got real numbers; number"),
    ({"factors": ["a"] * 20}, "factors: expected integers, got dtype <U1"),
    ({"factors": np.arange(20), "factor_names": "f"}, "factor_names: expected a sequence of te"),
    ({"factors": np.arange(20), "factor_names": [3]}, "factor_names: expected texts, got 3"),
    ({"title": 3}, "title: expected a text, got 3"),
    ({"rows": 3.5}, "rows: expected an integer, got 3.5"),
    ({"trees": "many"}, "trees: expected an integer, got 'many'"),
])  # fmt: skip
def test_messages_about_kinds(change, message):
    model = Model(lambda x, **y: {"z": spread_out(x)}, lambda values, **y: values["z"])
    with pytest.raises(TypeError, match=message):
        report(model, **{"x": normal(20), **QUICK, **change})


def test_factors_raise_as_they_do_in_the_metrics():
    for factors in (np.linspace(0.0, 1.0, 20), np.array(["a", "b"] * 10)):
        with pytest.raises(TypeError, match="factors: expected"):
            mig(normal(20).numpy(), factors[:, None])
        with pytest.raises(TypeError, match="factors: expected"):
            report(Model(lambda x: {"z": spread_out(x)}), normal(20), factors=factors, **QUICK)


def test_messages_about_models():
    with pytest.raises(TypeError, match=r"model: expected a vaereg.VAE, or .* got Linear"):
        report(nn.Linear(2, 2), normal(20), **QUICK)
    with pytest.raises(
        TypeError, match="model: expected encode to return codes by name, got Tens"
    ):
        report(Model(lambda x: x), normal(20), **QUICK)
    with pytest.raises(TypeError, match="model: expected 'z' to be a Code, got Tensor"):
        report(Model(lambda x: {"z": x}), normal(20), **QUICK)


def test_a_misspelt_option_is_no_observed_variable():
    vae = vaereg.VAE(
        nn.Linear(4, 4),
        nn.Linear(2, 4),
        vaereg.Objective(kl=vaereg.KL("z")),
        likelihood="gaussian",
    )
    with pytest.raises(TypeError, match="braket: expected an option, or a variable that"):
        report(vae, torch.randn(20, 4), braket=False)
