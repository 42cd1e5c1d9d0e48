"""Distributions of known mutual information: closed forms and quadratures, in nats.

A sampler gives rows ``(a, b)``, a ``*_mi`` the truth, a ``*_ratio`` the exact log ratio
log p(a, b) - log p(a) - log p(b) of given rows. :data:`CASES` names them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln, logsumexp, ndtr, ndtri, xlogy

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

LOG_2PI = math.log(2.0 * math.pi)


def normals(n: int, d: int, *seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((n, d))


def binary_entropy(p: float | Array) -> Any:
    return -(xlogy(p, p) + xlogy(1.0 - np.asarray(p), 1.0 - np.asarray(p)))


# Gaussians.


def gaussian_mi(d: int, rho: float) -> float:
    """d independent pairs of correlation rho: -d/2 log(1 - rho^2)."""
    return -0.5 * d * math.log1p(-rho * rho)


def gaussian(n: int, d: int, rho: float, seed: int) -> tuple[Array, Array]:
    g = np.random.default_rng(seed)
    a = g.standard_normal((n, d))
    return a, rho * a + math.sqrt(1.0 - rho * rho) * g.standard_normal((n, d))


def gaussian_ratio(a: Array, b: Array, rho: float) -> Array:
    v = 1.0 - rho * rho
    return (0.5 * b**2 - 0.5 * (b - rho * a) ** 2 / v - 0.5 * math.log(v)).sum(1)


def gaussian_club(d: int, rho: float) -> float:
    """What CLUB tends to with the true conditional: I + KL(p(a) p(b) || p(a, b))."""
    return d * rho * rho / (1.0 - rho * rho)


def sparse(n: int, d: int, rho: float, seed: int) -> tuple[Array, Array]:
    """d columns, of which the first alone goes with b."""
    a, b = gaussian(n, d, rho, seed)
    return a, b[:, :1]


def chain(length: int, rho: float) -> Array:
    """Covariance of an autoregressive chain: rho^|i - j|, no block of it diagonal."""
    i = np.arange(length)
    return rho ** np.abs(i[:, None] - i).astype(float)


Split = tuple[Sequence[int], Sequence[int]]  # the columns that are a, those that are b


def _blocks(cov: Array, split: Split) -> tuple[Array, Array, Array]:
    a, b = split
    return cov[np.ix_(a, a)], cov[np.ix_(b, b)], cov[np.ix_(a, b)]


def dense_mi(cov: Array, split: Split) -> float:
    """-1/2 log det(1 - S_aa^-1 S_ab S_bb^-1 S_ba)."""
    s_a, s_b, s_ab = _blocks(cov, split)
    product = np.linalg.solve(s_a, s_ab) @ np.linalg.solve(s_b, s_ab.T)
    return float(-0.5 * np.linalg.slogdet(np.eye(len(s_a)) - product)[1])


def dense(n: int, cov: Array, split: Split, seed: int) -> tuple[Array, Array]:
    x = normals(n, len(cov), seed, 2) @ np.linalg.cholesky(cov).T
    return x[:, split[0]], x[:, split[1]]


def dense_ratio(a: Array, b: Array, cov: Array, split: Split) -> Array:
    def log_density(x: Array, s: Array) -> Array:
        square = (x * np.linalg.solve(s, x.T).T).sum(1)
        return -0.5 * (square + np.linalg.slogdet(s)[1] + len(s) * LOG_2PI)

    s_a, s_b, s_ab = _blocks(cov, split)
    joint = np.block([[s_a, s_ab], [s_ab.T, s_b]])
    pair = np.concatenate((a, b), 1)
    return log_density(pair, joint) - log_density(a, s_a) - log_density(b, s_b)


def dense_club(cov: Array, split: Split) -> float:
    """CLUB's limit for a q(b | a) of diagonal variance: sum of var E[b|a] / E var[b|a]."""
    s_a, s_b, s_ab = _blocks(cov, split)
    explained = np.diag(s_ab.T @ np.linalg.solve(s_a, s_ab))
    return float((explained / (np.diag(s_b) - explained)).sum())


Map = Callable[[Array], Array]

# Strictly monotone maps and their inverses: mutual information stays what it is.
MAPS: dict[str, tuple[Map, Map]] = {
    "cube root": (np.cbrt, lambda x: x**3),
    "cube": (lambda x: x**3, np.cbrt),
    "sinh(2x)": (lambda x: np.sinh(2.0 * x), lambda x: np.arcsinh(x) / 2.0),
    "asinh(5x)": (lambda x: np.arcsinh(5.0 * x), lambda x: np.sinh(x) / 5.0),
    "normal cdf": (ndtr, ndtri),
    "exp": (np.exp, np.log),
}


# Other continuous pairs.


def uniform_noise_mi(e: float) -> float:
    """a uniform on (0, 1), b = a + uniform on (-e, e): h(b) - log 2e.

    The density of b is a trapezoid: a sum of uniforms of widths v <= w has entropy
    log w + v / 2w, hence e - log 2e for e <= 1/2 and 1 / 4e beyond.
    """
    return e - math.log(2.0 * e) if e <= 0.5 else 0.25 / e


def uniform_noise(n: int, e: float, seed: int) -> tuple[Array, Array]:
    g = np.random.default_rng(seed)
    a = g.uniform(0.0, 1.0, (n, 1))
    return a, a + g.uniform(-e, e, (n, 1))


def uniform_noise_ratio(a: Array, b: Array, e: float) -> Array:
    """-log of the part of (b - e, b + e) in (0, 1), within the support."""
    overlap = np.minimum(1.0, b + e) - np.maximum(0.0, b - e)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(b - a) <= e, -np.log(overlap), -np.inf)[:, 0]


def student_log_density(square: Array, nu: float, p: int) -> Array:
    """The p-variate Student of unit shape matrix at a squared norm."""
    return _student_constant(nu, p) - 0.5 * (nu + p) * np.log1p(square / nu)


def _student_constant(nu: float, p: int) -> float:
    return float(gammaln(0.5 * (nu + p)) - gammaln(0.5 * nu) - 0.5 * p * math.log(nu * math.pi))


def student_entropy(nu: float, p: int) -> float:
    """Entropy of the p-variate Student of unit shape matrix.

    -E log density with E log(1 + |x|^2 / nu) = digamma((nu + p) / 2) - digamma(nu / 2), since
    1 / (1 + |x|^2 / nu) is Beta(nu / 2, p / 2).
    """
    half, full = 0.5 * nu, 0.5 * (nu + p)
    return float(-_student_constant(nu, p) + full * (digamma(full) - digamma(half)))


def student_mi(nu: float, rho: float, d: int = 1) -> float:
    """2 h_d - h_2d - log det^(1/2): the Gaussian's term plus a correction, which stays at rho 0.

    a and b have d columns and unit shape matrices; rho couples column with column.
    """
    return 2.0 * student_entropy(nu, d) - student_entropy(nu, 2 * d) + gaussian_mi(d, rho)


def student(n: int, nu: float, rho: float, seed: int, d: int = 1) -> tuple[Array, Array]:
    a, b = gaussian(n, d, rho, seed)
    scale = np.sqrt(nu / np.random.default_rng((seed, 1)).chisquare(nu, (n, 1)))
    return a * scale, b * scale


def student_ratio(a: Array, b: Array, nu: float, rho: float) -> Array:
    d = a.shape[1]
    both = ((a**2 + b**2 - 2.0 * rho * a * b) / (1.0 - rho * rho)).sum(1)
    joint = student_log_density(both, nu, 2 * d) + gaussian_mi(d, rho)
    marginals = (student_log_density((x**2).sum(1), nu, d) for x in (a, b))
    return joint - sum(marginals)


def sign_flip_mi(rho: float, points: int = 801) -> float:
    """b = s rho a + sqrt(1 - rho^2) noise, s = +-1 at random, by quadrature.

    p(b | a) is the Gaussian's times (1 + exp(-2 rho a b / v)) / 2 at s = 1, so that the Gaussian
    value loses log 2 - E log(1 + exp(-2 rho a b / v)).
    """
    v = 1.0 - rho * rho
    x = np.linspace(-9.0, 9.0, points)
    normal = np.exp(-0.5 * x**2 - 0.5 * LOG_2PI) * (x[1] - x[0])
    b = rho * x[:, None] + math.sqrt(v) * x  # rows a, columns noise
    softplus = np.logaddexp(0.0, -2.0 * rho * x[:, None] * b / v)
    return gaussian_mi(1, rho) - math.log(2.0) + float(normal @ softplus @ normal)


def sign_flip(n: int, rho: float, seed: int) -> tuple[Array, Array]:
    a, b = gaussian(n, 1, rho, seed)
    sign = np.random.default_rng((seed, 1)).choice((-1.0, 1.0), (n, 1))
    return a, sign * b


def sign_flip_ratio(a: Array, b: Array, rho: float) -> Array:
    return np.logaddexp(gaussian_ratio(a, b, rho), gaussian_ratio(a, -b, rho)) - math.log(2.0)


# Labels.


def one_hot(y: Labels, classes: int) -> Array:
    return np.eye(classes)[y]


def _ring_centres(classes: int) -> Array:
    angle = 2.0 * np.pi * np.arange(classes) / classes
    return np.stack((np.cos(angle), np.sin(angle)), 1)


def ring(n: int, noise: float, seed: int, classes: int = 5) -> tuple[Array, Labels]:
    """Gaussian blobs on the unit circle, one per class."""
    g = np.random.default_rng(seed)
    y = g.integers(0, classes, n)
    return _ring_centres(classes)[y] + noise * g.standard_normal((n, 2)), y


def ring_mi(noise: float, classes: int = 5, points: int = 401) -> float:
    """h(a) - h(a | y) by quadrature on a grid."""
    x = np.linspace(-1.0 - 9.0 * noise, 1.0 + 9.0 * noise, points)
    density = np.zeros((points, points))
    for c, s in _ring_centres(classes):
        square = (x[:, None] - c) ** 2 + (x - s) ** 2
        density += np.exp(-0.5 * square / noise**2) / (2.0 * np.pi * noise**2 * classes)
    entropy = -float(xlogy(density, density).sum()) * float(x[1] - x[0]) ** 2
    return entropy - math.log(2.0 * math.pi * math.e * noise**2)


def ring_ratio(a: Array, y: Labels, noise: float, classes: int = 5) -> Array:
    square = ((a[:, None] - _ring_centres(classes)) ** 2).sum(-1)
    score = -0.5 * square / noise**2
    return score[np.arange(len(y)), y] - logsumexp(score, 1) + math.log(classes)


@dataclass(frozen=True)
class Mixture:
    """Gaussians on a line, y the component that a row came from."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def sample(self, n: int, seed: int) -> tuple[Array, Labels]:
        g = np.random.default_rng(seed)
        y = g.choice(len(self.weights), n, p=self.weights)
        a = np.array(self.means)[y] + np.array(self.stds)[y] * g.standard_normal(n)
        return a[:, None], y

    def log_densities(self, x: Array) -> Array:
        """log p(a | y) of points ``(n,)`` under each component: ``(n, components)``."""
        stds = np.array(self.stds)
        z = (x[:, None] - np.array(self.means)) / stds
        return -0.5 * z**2 - np.log(stds) - 0.5 * LOG_2PI

    def ratio(self, a: Array, y: Labels) -> Array:
        logs = self.log_densities(a[:, 0])
        return logs[np.arange(len(y)), y] - logsumexp(logs + np.log(self.weights), 1)

    def mi(self, points: int = 20_001) -> float:
        """H(y) - E H(y | a) by quadrature."""
        ends = [(m - 12.0 * s, m + 12.0 * s) for m, s in zip(self.means, self.stds, strict=True)]
        x = np.linspace(min(e[0] for e in ends), max(e[1] for e in ends), points)
        logs = self.log_densities(x) + np.log(self.weights)
        total = logsumexp(logs, 1)
        posterior = np.exp(logs - total[:, None])
        remaining = -xlogy(posterior, posterior).sum(1)
        weights = np.array(self.weights)
        prior = -float(xlogy(weights, weights).sum())
        return prior - float((np.exp(total) * remaining).sum() * (x[1] - x[0]))


def _flipped(y: Labels, flip: float, seed: int) -> Labels:
    return y ^ (np.random.default_rng((seed, 1)).random(len(y)) < flip)


def xor_bits(n: int, flip: float, seed: int) -> tuple[Array, Labels]:
    """Two fair bits, and their exclusive or, flipped with probability ``flip``."""
    bits = np.random.default_rng(seed).integers(0, 2, (n, 2))
    return bits.astype(float), _flipped(bits[:, 0] ^ bits[:, 1], flip, seed)


def xor_bits_mi(flip: float) -> float:
    return math.log(2.0) - float(binary_entropy(flip))


def xor_codes(n: int, noise: float, flip: float, seed: int) -> tuple[Array, Labels]:
    """The bits as -1 and +1 under Gaussian noise."""
    bits, y = xor_bits(n, flip, seed)
    return 2.0 * bits - 1.0 + noise * normals(n, 2, seed, 2), y


def xor_codes_mi(noise: float, flip: float, points: int = 401) -> float:
    """log 2 - E h(p(y | a)) by quadrature: a bit is tanh(a / noise^2) on average."""
    x = np.linspace(-1.0 - 9.0 * noise, 1.0 + 9.0 * noise, points)
    modes = np.exp(-0.5 * ((x[:, None] - (-1.0, 1.0)) / noise) ** 2 - 0.5 * LOG_2PI) / noise
    weight = modes.mean(1) * (x[1] - x[0])
    u = np.tanh(x / noise**2)
    remaining = binary_entropy(0.5 * (1.0 - (1.0 - 2.0 * flip) * u[:, None] * u))
    return math.log(2.0) - float(weight @ remaining @ weight)


def xor_ratio(u: Array, y: Labels, flip: float) -> Array:
    """From the expected bits in -1..1: p(y = 1 | u) = (1 - (1 - 2 flip) u_1 u_2) / 2."""
    lean = (1.0 - 2.0 * flip) * u[:, 0] * u[:, 1]
    with np.errstate(divide="ignore"):
        return np.log1p(np.where(y == 1, -lean, lean))


def checkerboard(n: int, flip: float, seed: int) -> tuple[Array, Labels]:
    """The exclusive or of the signs of a standard normal pair, flipped; as of fair bits."""
    a = normals(n, 2, seed, 2)
    return a, _flipped(((a[:, 0] > 0.0) ^ (a[:, 1] > 0.0)).astype(np.int64), flip, seed)


def channel(n: int, classes: int, error: float, seed: int) -> tuple[Array, Labels]:
    """Uniform symbols, each taken for any one of the others with probability ``error``."""
    g = np.random.default_rng(seed)
    x = g.integers(0, classes, n)
    wrong = (x + g.integers(1, classes, n)) % classes
    return one_hot(x, classes), np.where(g.random(n) < error, wrong, x)


def channel_mi(classes: int, error: float) -> float:
    return math.log(classes) - float(binary_entropy(error)) - error * math.log(classes - 1)


def channel_ratio(a: Array, y: Labels, error: float) -> Array:
    classes = a.shape[1]
    with np.errstate(divide="ignore"):
        right, wrong = np.log((classes * (1.0 - error), classes * error / (classes - 1)))
    return np.where(a.argmax(1) == y, right, wrong)


def erasure(n: int, error: float, seed: int) -> tuple[Array, Labels]:
    """A fair bit, one-hot, that comes through or is lost, which is label 2."""
    g = np.random.default_rng(seed)
    x = g.integers(0, 2, n)
    return one_hot(x, 2), np.where(g.random(n) < error, 2, x)


def erasure_mi(error: float) -> float:
    return (1.0 - error) * math.log(2.0)


def erasure_ratio(a: Array, y: Labels) -> Array:
    return np.where(y == 2, 0.0, np.where(a.argmax(1) == y, math.log(2.0), -np.inf))


# The registry.


@dataclass(frozen=True)
class Case:
    """A distribution of known mutual information.

    Attributes:
        name: Its key in :data:`CASES`.
        sampler: ``(n, seed) -> (a, b)``: a ``(n, width)``, b likewise or integer labels ``(n,)``.
        truth: I(a; b) in nats.
        dimensions: Width of a, and width of b or number of labels.
        oracle: ``(a, b) ->`` the exact log ratio of each row; -inf outside the joint support.
        discrete: b is labels.
        note: What the case is for.
        club: What CLUB tends to with the best Gaussian q(b | a) of free mean and variances, where
            that has a closed form: no estimate of I, though called one.
    """

    name: str
    sampler: Callable[[int, int], tuple[Array, NDArray[Any]]]
    truth: float
    dimensions: tuple[int, int]
    oracle: Callable[[Array, NDArray[Any]], Array]
    discrete: bool = False
    note: str = ""
    club: float | None = None

    def rows(self, n: int, seed: int, *, codes: bool = False) -> tuple[Array, NDArray[Any]]:
        """``n`` rows; with ``codes`` labels come one-hot."""
        a, b = self.sampler(n, seed)
        return a, one_hot(b, self.dimensions[1]) if codes and self.discrete else b


def _zero(a: Array, b: NDArray[Any]) -> Array:
    return np.zeros(len(a))


def _gaussians() -> Iterator[Case]:
    for d, rho, note in (
        (1, 0.5, ""), (1, 0.9, ""), (1, 0.99, "almost a function"), (5, 0.7, ""), (20, 0.5, ""),
        (20, 0.8, "more than the logarithm of 10,000 rows"),
    ):  # fmt: skip
        yield Case(
            f"gaussian d={d} rho={rho}", lambda n, s, d=d, r=rho: gaussian(n, d, r, s),
            gaussian_mi(d, rho), (d, d), lambda a, b, r=rho: gaussian_ratio(a, b, r),
            note=note, club=gaussian_club(d, rho),
        )  # fmt: skip
    yield Case(
        "gaussian 1 of 32 columns rho=0.8", lambda n, s: sparse(n, 32, 0.8, s),
        gaussian_mi(1, 0.8), (32, 1), lambda a, b: gaussian_ratio(a[:, :1], b, 0.8),
        note="31 columns of noise", club=gaussian_club(1, 0.8),
    )  # fmt: skip
    cov = chain(8, 0.7)
    for split in (((0, 2, 4, 6), (1, 3, 5, 7)), ((0, 1, 3, 4, 6, 7), (2, 5))):
        p, q = len(split[0]), len(split[1])
        yield Case(
            f"dense gaussian {p}+{q}", lambda n, s, split=split: dense(n, cov, split, s),
            dense_mi(cov, split), (p, q),
            lambda a, b, split=split: dense_ratio(a, b, cov, split),
            note="correlated within and across", club=dense_club(cov, split),
        )  # fmt: skip
    for name, (image, inverse) in MAPS.items():

        def draw(n: int, s: int, image: Map = image) -> tuple[Array, Array]:
            a, b = gaussian(n, 1, 0.9, s)
            return image(a), image(b)

        yield Case(
            f"{name} of gaussian rho=0.9", draw, gaussian_mi(1, 0.9), (1, 1),
            lambda a, b, f=inverse: gaussian_ratio(f(a), f(b), 0.9), note="monotone image",
        )  # fmt: skip


def _other_pairs() -> Iterator[Case]:
    for e in (0.1, 0.75):
        # The best q(b | a) has mean a and variance e^2 / 3.
        yield Case(
            f"uniform noise e={e}", lambda n, s, e=e: uniform_noise(n, e, s),
            uniform_noise_mi(e), (1, 1), lambda a, b, e=e: uniform_noise_ratio(a, b, e),
            note="a bounded support with sharp edges", club=0.25 / e**2,
        )  # fmt: skip
    for nu, rho, d in (
        (1.0, 0.7, 1), (2.0, 0.7, 1), (3.0, 0.7, 1), (5.0, 0.7, 1),
        (1.0, 0.0, 2), (2.0, 0.0, 3), (3.0, 0.0, 5),
    ):  # fmt: skip
        yield Case(
            f"student nu={nu:g} rho={rho:g} d={d}",
            lambda n, s, nu=nu, r=rho, d=d: student(n, nu, r, s, d), student_mi(nu, rho, d),
            (d, d), lambda a, b, nu=nu, r=rho: student_ratio(a, b, nu, r),
            note="heavy tails" if rho else "uncorrelated, dependent by a common scale",
        )  # fmt: skip
    yield Case(
        "sign flip rho=0.9", lambda n, s: sign_flip(n, 0.9, s), sign_flip_mi(0.9), (1, 1),
        lambda a, b: sign_flip_ratio(a, b, 0.9), note="uncorrelated, dependent by |a|",
    )  # fmt: skip
    yield Case(
        "independent d=5", lambda n, s: gaussian(n, 5, 0.0, s), 0.0, (5, 5), _zero, club=0.0
    )
    yield Case(
        "independent d=64", lambda n, s: gaussian(n, 64, 0.0, s), 0.0, (64, 64), _zero,
        note="much to overfit", club=0.0,
    )  # fmt: skip
    yield Case(
        "independent cauchy",
        lambda n, s: (np.tan(np.pi * (_uniform(n, s, 3) - 0.5)),
                      np.tan(np.pi * (_uniform(n, s, 4) - 0.5))),
        0.0, (1, 1), _zero, note="outliers",
    )  # fmt: skip


def _uniform(n: int, *seed: int) -> Array:
    return np.random.default_rng(seed).random((n, 1))


def _labelled() -> Iterator[Case]:
    for noise in (0.2, 0.4, 0.8):
        yield Case(
            f"ring noise={noise}", lambda n, s, v=noise: ring(n, v, s), ring_mi(noise), (2, 5),
            lambda a, y, v=noise: ring_ratio(a, y, v), True,
        )  # fmt: skip
    for name, mixture in (
        ("mixture 0.8/0.2, apart", Mixture((0.8, 0.2), (0.0, 2.0), (1.0, 0.5))),
        ("mixture 0.7/0.3, same mean", Mixture((0.7, 0.3), (0.0, 0.0), (1.0, 0.2))),
    ):
        yield Case(name, mixture.sample, mixture.mi(), (1, 2), mixture.ratio, True)
    for noise, flip in ((0.3, 0.0), (0.5, 0.0), (0.3, 0.1)):
        yield Case(
            f"xor codes noise={noise} flip={flip:g}",
            lambda n, s, v=noise, e=flip: xor_codes(n, v, e, s), xor_codes_mi(noise, flip), (2, 2),
            lambda a, y, v=noise, e=flip: xor_ratio(np.tanh(a / v**2), y, e), True,
            "no column alone says anything",
        )  # fmt: skip

    def column(n: int, s: int) -> tuple[Array, Labels]:
        a, y = xor_codes(n, 0.3, 0.0, s)
        return a[:, :1], y

    yield Case("xor codes, one column", column, 0.0, (1, 2), _zero, True, "two clusters, nothing")
    yield Case(
        "xor bits flip=0.1", lambda n, s: xor_bits(n, 0.1, s), xor_bits_mi(0.1), (2, 2),
        lambda a, y: xor_ratio(2.0 * a - 1.0, y, 0.1), True,
    )  # fmt: skip
    for flip in (0.0, 0.1):
        yield Case(
            f"checkerboard flip={flip:g}", lambda n, s, e=flip: checkerboard(n, e, s),
            xor_bits_mi(flip), (2, 2), lambda a, y, e=flip: xor_ratio(np.sign(a), y, e), True,
            "jumps where the density is high",
        )  # fmt: skip
    for classes, error in ((2, 0.1), (10, 0.3)):
        yield Case(
            f"channel K={classes} error={error}",
            lambda n, s, k=classes, e=error: channel(n, k, e, s), channel_mi(classes, error),
            (classes, classes), lambda a, y, e=error: channel_ratio(a, y, e), True,
        )  # fmt: skip
    yield Case(
        "erasure error=0.3", lambda n, s: erasure(n, 0.3, s), erasure_mi(0.3), (2, 3),
        erasure_ratio, True, "one label says nothing of a",
    )  # fmt: skip
    for d, classes in ((5, 5), (64, 2)):
        yield Case(
            f"independent labels d={d} K={classes}",
            lambda n, s, d=d, k=classes: (
                normals(n, d, s, 2), np.random.default_rng((s, 3)).integers(0, k, n)
            ),
            0.0, (d, classes), _zero, True,
        )  # fmt: skip


CASES: dict[str, Case] = {
    case.name: case for make in (_gaussians, _other_pairs, _labelled) for case in make()
}
