"""Shared by all tests: a fixed seed, and the examples on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
