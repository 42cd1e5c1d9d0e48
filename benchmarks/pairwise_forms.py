"""The total correlation of a batch by the plain mixture, written in every way that is compared.

Each form takes ``z``, ``mean`` and ``logvar``, ``(B, D)`` each, and returns the same scalar.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vaereg.functional import pairwise_log_density
from vaereg.ops import dispatch

__all__ = ["Form", "forms", "inputs", "step"]

_LOG2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Form:
    """A way to write it.

    Attributes:
        run: Computes it.
        around: What a call and its backward pass run in.
    """

    run: Callable[[Tensor, Tensor, Tensor], Tensor]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def naive(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """As most public code writes it."""
    density = -0.5 * ((z[:, None] - mean).square() * (-logvar).exp() + logvar + _LOG2PI)
    joint = density.sum(2).logsumexp(1)
    return (joint - density.logsumexp(1).sum(1)).mean()


def library(backend: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The library's own, by a backend."""

    def run(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
        joint, marginals = pairwise_log_density(z, mean, logvar, backend=backend)
        return (joint - marginals.sum(1)).mean()

    return run


@contextlib.contextmanager
def no_compiler() -> Any:
    """The library as it is where there is no C++ compiler."""
    kept = dispatch._has_kernel
    dispatch._has_kernel = lambda: False  # by hand: a mock would take longer than the call
    try:
        yield
    finally:
        dispatch._has_kernel = kept


def pythae() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss of pythae's BetaTCVAE, weights 0, 1, 0: its total correlation and no other part.

    Its MWS weights of a dataset of one row are 1 / B; the value lies (D - 1) log B above the
    mixture's.
    """
    from pythae.models import BetaTCVAE  # pyright: ignore

    owner: Any = SimpleNamespace(
        alpha=0.0, beta=1.0, gamma=0.0, use_mss=False,
        model_config=SimpleNamespace(reconstruction_loss="mse"),
    )  # fmt: skip
    owner._compute_log_gauss_density = lambda *a: BetaTCVAE._compute_log_gauss_density(owner, *a)

    def run(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
        nothing = z.new_zeros(len(z), 1)
        *_, value = BetaTCVAE.loss_function(owner, nothing, nothing, mean, logvar, z, 1)
        return value - (z.shape[1] - 1) * math.log(len(z))

    return run


def keops() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """KeOps: one reduction for the joint, one batched over the columns for the marginals."""
    from pykeops.torch import LazyTensor  # pyright: ignore

    def run(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
        precision, constant = (-logvar).exp(), logvar + _LOG2PI

        def reduce(x: Any, m: Any, p: Any, c: Any) -> Any:
            square = (LazyTensor(x) - LazyTensor(m)) ** 2 * LazyTensor(p)
            return (-0.5 * (square + LazyTensor(c)).sum(-1)).logsumexp(x.ndim - 2)

        own = (mean, precision, constant)
        row = [z[:, None].contiguous(), *(t[None].contiguous() for t in own)]
        joint = reduce(*row).flatten()
        column = [z.mT[:, :, None, None].contiguous()]
        column += [t.mT[:, None, :, None].contiguous() for t in own]
        marginals = reduce(*column).reshape(z.shape[1], len(z))
        return (joint - marginals.sum(0)).mean()

    return run


def forms(device: str = "cpu") -> dict[str, Form]:
    """All forms that this machine has; peers only where they are installed."""
    found = {"naive": Form(naive), "inductor": Form(torch.compile(naive, dynamic=False))}
    if find_spec("pythae"):
        found["pythae"] = Form(pythae())
    if find_spec("pykeops"):
        found["keops"] = Form(keops())
    if device.startswith("cuda"):
        return {**found, "triton": Form(library("triton"))}
    return {**found, "kernel": Form(library("auto")),
            "no_compiler": Form(library("auto"), no_compiler)}  # fmt: skip


def inputs(rows: int, columns: int, device: str = "cpu") -> list[Tensor]:
    """Means, log-variances about -1, and a point from each, always the same."""
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(rows, columns, generator=g)
    logvar = torch.randn(rows, columns, generator=g) - 1.0
    z = mean + (0.5 * logvar).exp() * torch.randn(rows, columns, generator=g)
    return [t.to(device) for t in (z, mean, logvar)]


def step(form: Form, given: list[Tensor], backward: bool) -> list[Tensor]:
    """The value, and after a backward pass the gradients of the three inputs."""
    with form.around():
        if not backward:
            with torch.no_grad():
                return [form.run(*given)]
        leaves = [t.detach().requires_grad_() for t in given]
        value = form.run(*leaves)
        value.backward()
        return [value.detach(), *(t.grad for t in leaves if t.grad is not None)]
