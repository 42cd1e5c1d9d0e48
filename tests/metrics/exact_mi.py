"""Distributions of known mutual information: closed forms and quadratures, in nats."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

Array = NDArray[np.float64]


def gaussian_mi(d: int, rho: float) -> float:
    """d independent pairs of correlation rho: -d/2 log(1 - rho^2)."""
    return -0.5 * d * math.log1p(-rho * rho)


def gaussian(n: int, d: int, rho: float, seed: int) -> tuple[Array, Array]:
    g = np.random.default_rng(seed)
    a = g.standard_normal((n, d))
    return a, rho * a + math.sqrt(1.0 - rho * rho) * g.standard_normal((n, d))


def student_entropy(nu: float, p: int) -> float:
    """Entropy of the p-variate Student of unit shape matrix.

    -E log density with E log(1 + |x|^2 / nu) = digamma((nu + p) / 2) - digamma(nu / 2), since
    1 / (1 + |x|^2 / nu) is Beta(nu / 2, p / 2).
    """
    half, full = 0.5 * nu, 0.5 * (nu + p)
    log_constant = gammaln(full) - gammaln(half) - 0.5 * p * math.log(nu * math.pi)
    return float(-log_constant + full * (digamma(full) - digamma(half)))


def student_mi(nu: float, rho: float) -> float:
    """Bivariate Student: 2 h_1 - h_2 - log det^(1/2), the Gaussian's term plus a correction."""
    return 2.0 * student_entropy(nu, 1) - student_entropy(nu, 2) + gaussian_mi(1, rho)


def student(n: int, nu: float, rho: float, seed: int) -> tuple[Array, Array]:
    a, b = gaussian(n, 1, rho, seed)
    scale = np.sqrt(nu / np.random.default_rng((seed, 1)).chisquare(nu, (n, 1)))
    return a * scale, b * scale


def ring(n: int, noise: float, seed: int, classes: int = 5) -> tuple[Array, NDArray[np.int64]]:
    """Gaussian blobs on the unit circle, one per class."""
    g = np.random.default_rng(seed)
    y = g.integers(0, classes, n)
    angle = 2.0 * np.pi * y / classes
    return np.stack((np.cos(angle), np.sin(angle)), 1) + noise * g.standard_normal((n, 2)), y


def ring_mi(noise: float, classes: int = 5, points: int = 1201) -> float:
    """h(a) - h(a | y) by quadrature on a grid."""
    x = np.linspace(-1.0 - 9.0 * noise, 1.0 + 9.0 * noise, points)
    angle = 2.0 * np.pi * np.arange(classes) / classes
    density = np.zeros((points, points))
    for c, s in zip(np.cos(angle), np.sin(angle), strict=True):
        square = (x[:, None] - c) ** 2 + (x - s) ** 2
        density += np.exp(-0.5 * square / noise**2) / (2.0 * np.pi * noise**2 * classes)
    positive = density[density > 0.0]
    entropy = -float((positive * np.log(positive)).sum()) * float(x[1] - x[0]) ** 2
    return entropy - math.log(2.0 * math.pi * math.e * noise**2)
