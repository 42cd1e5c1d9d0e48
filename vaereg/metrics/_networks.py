"""The default critics of post-hoc estimates."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from vaereg.critics import concatenated, mlp, pair_scores, takes_pair

__all__ = [
    "Canonical",
    "Mean",
    "PairCritic",
    "Sum",
    "classifier",
    "conditional",
    "deep_classifier",
    "joint_scores",
    "sharp",
    "squash",
]


def squash(x: Tensor, knee: float = 4.0) -> Tensor:
    """The identity up to ``knee``, logarithmic beyond: monotone, smooth to first order.

    A strictly monotone map leaves mutual information unchanged, and one far outlier no longer
    dominates the quadratic parts.
    """
    size = x.abs().clamp(min=knee)
    return torch.where(x.abs() > knee, x.sign() * knee * (1.0 + (size / knee).log()), x)


class _Quadratic(nn.Module):
    """A network of one variable: linear and quadratic parts from zero, and a perceptron.

    The last layers start at zero, so that the critic starts at T = 0 and what is simple is
    learned first; inputs wider than ``rank`` enter the quadratic part through a projection.
    """

    def __init__(
        self, features: int, outputs: int, *, width: int, rank: int, activation: str = "tanh"
    ) -> None:
        super().__init__()
        self.hidden = mlp(features, width, width=width, depth=1, activation=activation)
        self.head = nn.Linear(width, outputs)
        self.linear = nn.Linear(features, outputs, bias=False)
        self.project = nn.Linear(features, rank, bias=False) if features > rank else nn.Identity()
        r = min(features, rank)
        self.quadratic = nn.Parameter(torch.zeros(outputs, r, r))
        for p in (self.head.weight, self.head.bias, self.linear.weight):
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.head(self.hidden(x).tanh()) + self.linear(x)
        p = self.project(x)
        return scores + torch.einsum("bi,kij,bj->bk", p, self.quadratic, p)


class PairCritic(nn.Module):
    r"""The default critic of a pair.

    .. math:: T(a, b) = f(a)^\top g(b) / \sqrt{k} + a^\top W b + u(a) + v(b)

    The bilinear and quadratic parts find linear dependence from few rows, the perceptrons find
    the rest; all pairs of a batch cost one matrix product. A bilinear part of more than
    ``bilinear`` entries is left out: it would be learned by heart long before the perceptrons are
    done, and :class:`Canonical` stands in for it.

    Args:
        a_features: Width of the first variable.
        b_features: Width of the second variable.
        embedding: Width :math:`k` of the common space.
        width: Hidden units of each perceptron.
        depth: Hidden layers of :math:`f` and :math:`g`.
        rank: Largest width that the quadratic parts see without a projection.
        bilinear: Largest number of entries of :math:`W`.
    """

    def __init__(
        self,
        a_features: int,
        b_features: int,
        *,
        embedding: int = 64,
        width: int = 128,
        depth: int = 3,
        rank: int = 64,
        bilinear: int = 256,
    ) -> None:
        super().__init__()
        self.a = _Quadratic(a_features, 1, width=64, rank=rank)
        self.b = _Quadratic(b_features, 1, width=64, rank=rank)
        self.f = mlp(a_features, embedding, width=width, depth=depth, activation="silu")
        self.g = mlp(b_features, embedding, width=width, depth=depth, activation="silu")
        small = a_features * b_features <= bilinear
        self.bilinear = nn.Parameter(torch.zeros(a_features, b_features)) if small else None
        last = self.g[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        left, right = self.f(a), self.g(b)
        left = left * left.shape[1] ** -0.5
        if self.bilinear is not None:
            left, right = torch.cat((left, a @ self.bilinear), 1), torch.cat((right, b), 1)
        return left, right, self.a(a), self.b(b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B,)``."""
        left, right, u, v = self._parts(a, b)
        return (left * right).sum(1) + (u + v).squeeze(1)

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, M)``."""
        left, right, u, v = self._parts(a, b)
        return left @ right.mT + u + v.mT


def sharp(a_features: int, b_features: int) -> nn.Module:
    """A concatenated critic that starts at T = 0: for edges, which no separable one represents."""
    critic = concatenated(a_features, b_features, width=64, depth=2)
    last = critic.network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return critic


def classifier(a_features: int, classes: int) -> nn.Module:
    """The default classifier: perceptron plus linear and quadratic skips, from zero logits."""
    return _Quadratic(a_features, classes, width=128, rank=64)


def deep_classifier(a_features: int, classes: int) -> nn.Module:
    """A deeper classifier, for boundaries that are no quadrics; from zero logits."""
    network = mlp(a_features, classes, width=128, depth=3, activation="silu")
    last = network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def conditional(a_features: int, b_features: int) -> nn.Module:
    """Mean and log-variance of ``b`` given ``a``, from N(0, 1)."""
    return _Quadratic(a_features, 2 * b_features, width=128, rank=16, activation="silu")


class Canonical(nn.Module):
    r"""The exact critic of a Gaussian pair, in canonical variates; nothing in it is trained.

    With unit-variance variates :math:`u = U^\top (a - \bar a)`, :math:`v = V^\top (b - \bar b)` of
    canonical correlations :math:`s_k`,

    .. math:: T(a, b) = \sum_{k \le K} \frac{s_k u_k v_k - \tfrac12 s_k^2 (u_k^2 + v_k^2)}
        {1 - s_k^2} - \tfrac12 \log(1 - s_k^2),

    the log-ratio of the fitted Gaussian to the product of its marginals. Any function of the pair
    is a legitimate critic, so that the bound holds for data of any kind; for (nearly) Gaussian
    copulas there is nothing left to learn. The number K of correlations, their shrinkage and the
    ridge of the whitening are the caller's to choose.

    References:
        | Relations Between Two Sets of Variates (Hotelling, 1936).
        | https://doi.org/10.1093/biomet/28.3-4.321
    """

    a_mean: Tensor
    b_mean: Tensor
    a_map: Tensor
    b_map: Tensor
    correlations: Tensor

    def __init__(self, a: Tensor, b: Tensor, ridge: float) -> None:
        super().__init__()
        x, y = a.double(), b.double()
        a_mean, b_mean = x.mean(0), y.mean(0)
        x, y = x - a_mean, y - b_mean
        left, right = _whitener(x, ridge), _whitener(y, ridge)
        cross = left @ (x.mT @ y / len(x)) @ right
        svd: Any = cast(Any, torch.linalg.svd(cross, full_matrices=False))
        a_map, b_map = left @ cast(Tensor, svd.U), right @ cast(Tensor, svd.Vh).mT
        # With a ridge the variates are not of unit variance: their own correlations count.
        x, y = x @ a_map, y @ b_map
        tiny = torch.finfo(torch.float64).tiny
        a_std, b_std = (z.square().mean(0).sqrt().clamp_min(tiny) for z in (x, y))
        s = (x * y).mean(0) / (a_std * b_std)
        for name, value in (
            ("a_mean", a_mean), ("b_mean", b_mean), ("a_map", a_map / a_std),
            ("b_map", b_map / b_std), ("correlations", s.clamp(0.0, 0.9999)),
        ):  # fmt: skip
            self.register_buffer(name, value.to(a.dtype))

    def cut(self, count: int, shrink: float) -> Canonical:
        """The same critic of the first ``count`` correlations, times ``shrink``."""
        less = copy.copy(self)
        less._buffers = dict(self._buffers)
        less.a_map, less.b_map = self.a_map[:, :count], self.b_map[:, :count]
        less.correlations = shrink * self.correlations[:count]
        return less

    def _parts(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        s = self.correlations
        rest = 1.0 - s.square()
        u, v = (a - self.a_mean) @ self.a_map, (b - self.b_mean) @ self.b_map
        # Half of the constant in each of the two one-variable parts.
        quadratic, constant = 0.5 * s.square() / rest, -0.25 * rest.log().sum()
        return u * (s / rest), v, constant - u.square() @ quadratic, (
            constant - v.square() @ quadratic
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B,)``."""
        u, v, left, right = self._parts(a, b)
        return (u * v).sum(1) + left + right

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, M)``."""
        u, v, left, right = self._parts(a, b)
        return u @ v.mT + left[:, None] + right


def _whitener(x: Tensor, ridge: float) -> Tensor:
    """The inverse square root of a covariance plus ``ridge`` times its mean variance."""
    eigh: Any = cast(Any, torch.linalg.eigh(x.mT @ x / len(x)))
    values, vectors = cast(Tensor, eigh.eigenvalues), cast(Tensor, eigh.eigenvectors)
    values = values.clamp_min(0.0) + ridge * values.clamp_min(0.0).mean()
    # A direction without variance carries nothing, and must not be blown up.
    floor = 1e-9 * values.max().clamp_min(torch.finfo(values.dtype).tiny)
    scale = torch.where(values > floor, values.clamp_min(floor).rsqrt(), 0.0)
    return vectors * scale @ vectors.mT


class Sum(nn.Module):
    """The sum of two critics of a pair."""

    def __init__(self, base: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.base, self.rest = base, rest

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B,)``."""
        return self.base(a, b) + self.rest(a, b)

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, M)``."""
        return self.base.all_pairs(a, b) + self.rest.all_pairs(a, b)  # pyright: ignore


class Mean(nn.Module):
    """The mean of two critics of a pair.

    The Donsker-Varadhan bound is concave in the critic: that of the mean is no less than the mean
    of theirs.
    """

    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B,)``."""
        return 0.5 * (self.one(a, b) + self.two(a, b))

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, M)``."""
        return 0.5 * (self.one.all_pairs(a, b) + self.two.all_pairs(a, b))  # pyright: ignore


def joint_scores(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Scores of the rows themselves, ``(n,)``."""
    pair = hasattr(critic, "all_pairs") or takes_pair(critic)
    return pair_scores(critic, a, b, pair=pair)
