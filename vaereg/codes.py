r"""Codes: the latents of one minibatch, with the distributions they came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

from vaereg.functional.families import as_event, map_parameters, one_hot_categorical

__all__ = ["Batch", "Code", "categorical", "deterministic", "gaussian", "labels"]


@dataclass(frozen=True)
class Code:
    r"""One latent variable for one minibatch of ``B`` rows.

    Attributes:
        value: The reparameterised (or relaxed) sample that the decoder also sees, ``(B, *event)``.
        q: The posterior, batch shape ``(B,)``, event shape as ``value``; ``None`` for a
            deterministic code.
        p: The prior, or the conditional prior :math:`p(c \mid y)`, batch shape ``(B,)``. Of a code
            without a posterior it is what the value was drawn from, unless ``fixed``.
        fixed: Whether the value is a function of the row, as :func:`deterministic` says: then the
            prior is what terms match it to, and not what it was drawn from.
    """

    value: Tensor
    q: Distribution | None = None
    p: Distribution | None = None
    fixed: bool = False

    def __post_init__(self) -> None:
        for name, given in (("q", self.q), ("p", self.p)):
            if given is not None and not isinstance(given, Distribution):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(
                    f"Code: expected {name} to be a torch.distributions.Distribution or None, got "
                    f"{type(given).__name__}; vaereg.gaussian takes mean and log-variance"
                )

    @property
    def mode(self) -> Tensor:
        """The posterior's most likely value, for evaluation: the class as one-hot rows, a
        Gaussian's mean; the value itself where there is no posterior.

        Example:
            >>> categorical(torch.tensor([[0.1, 2.0, 0.3]]), temperature=0.5).mode
            tensor([[0., 1., 0.]])
        """
        if self.q is None:
            return self.value
        mode: Tensor = self.q.mode
        return mode.to(self.value.dtype)

    def detach(self) -> Code:
        """The same code without any gradient.

        Posterior and prior are rebuilt with detached parameters for the known families (see
        :mod:`vaereg.functional.families`) and dropped for others.

        Example:
            >>> z = gaussian(torch.zeros(2, 6, requires_grad=True))
            >>> z.value.requires_grad, z.detach().value.requires_grad
            (True, False)
        """
        q = map_parameters(self.q, _detach) if self.q is not None else None
        p = map_parameters(self.p, _detach) if self.p is not None else None
        return Code(self.value.detach(), q, p, self.fixed)


class StandardNormal(Independent):  # pyright: ignore[reportMissingTypeArgument]
    """The default prior, of a type of its own so that it can be told without reading values."""


Batch: TypeAlias = Mapping[str, "Code | Tensor"]
"""The named variables of one minibatch, e.g. ``{"x": x, "y": labels, "z": Code}``."""


def _detach(parameter: Tensor) -> Tensor:
    return parameter.detach()


def gaussian(
    params: Tensor | tuple[Tensor, Tensor] | Mapping[str, Tensor] | Distribution,
    logvar: Tensor | None = None,
    *,
    std: Tensor | None = None,
    var: Tensor | None = None,
    prior: Distribution | None = None,
    value: Tensor | None = None,
) -> Code:
    r"""A Gaussian code with diagonal covariance, sampled by reparameterisation.

    .. math:: z = \mu + \sigma \epsilon, \quad \epsilon \sim \mathcal N(0, I), \quad
        q(z \mid x) = \mathcal N(\mu, \operatorname{diag} \sigma^2)

    In float32 the KL and its gradient are finite for log-variances above about -170.

    Args:
        params: A tensor ``(B, 2 D, ...)`` whose halves along dim 1 are mean and log-variance; or a
            ``(mean, logvar)`` pair; or a mapping with ``mean`` and ``logvar``; or the mean alone
            where one of ``logvar``, ``std``, ``var`` is given; or a distribution with ``rsample``.
        logvar: :math:`\log \sigma^2`, the shape of the mean. A standard deviation handed in here
            raises nothing: the symptom is posterior variances that never fall below 1, so that
            reconstructions stay blurred.
        std: :math:`\sigma`, positive.
        var: :math:`\sigma^2`, positive.
        prior: Prior of the event's shape, or of the value's with a row for each of ``B``, however
            torch splits it into batch and event; default :math:`\mathcal N(0, I)`.
        value: The sample to use in place of a fresh one, ``(B, D, ...)``.

    Returns:
        A :class:`Code` of event shape ``(D, ...)``.

    Raises:
        TypeError: If ``params`` is of no accepted kind.
        ValueError: If dim 1 is odd, shapes differ, or more than one spread is given.

    References:
        | Auto-Encoding Variational Bayes (Kingma and Welling, 2014), section 2.4.
        | https://arxiv.org/abs/1312.6114

    Example:
        >>> z = gaussian(torch.zeros(8, 32))
        >>> z.value.shape, z.q.event_shape
        (torch.Size([8, 16]), torch.Size([16]))
    """
    if isinstance(params, Distribution):
        if logvar is not None or std is not None or var is not None:
            raise ValueError("gaussian: expected no logvar, std or var beside a distribution")
        q = as_event(params, 1)
        if value is None:
            value = q.rsample()
        return _code("gaussian", value, q, prior)
    mean, spread = _mean_and_std(params, logvar, std, var)
    dtype = mean.dtype
    # In half precision exp(logvar / 2) leaves the range that logvar in [-30, 20] needs.
    wide = torch.promote_types(dtype, torch.float32)
    mean, spread = mean.to(wide), spread.to(wide)
    q = Independent(Normal(mean, spread, validate_args=False), mean.ndim - 1, validate_args=False)
    if value is None:
        value = (mean + spread * torch.randn_like(mean)).to(dtype)
    return _code("gaussian", value, q, prior)


def _mean_and_std(
    params: object, logvar: Tensor | None, std: Tensor | None, var: Tensor | None
) -> tuple[Tensor, Tensor]:
    given = [n for n, v in (("logvar", logvar), ("std", std), ("var", var)) if v is not None]
    if isinstance(params, Mapping):
        mapping = cast("Mapping[str, Tensor]", params)
        if given or set(mapping) != {"mean", "logvar"}:
            raise ValueError(
                f"gaussian: expected a mapping with mean and logvar, got {sorted(mapping)}"
                + (f" and {given[0]}" if given else "")
            )
        mean, logvar = mapping["mean"], mapping["logvar"]
    elif isinstance(params, (tuple, list)):
        pair = cast("tuple[Tensor, ...]", params)
        if given or len(pair) != 2:
            raise ValueError(
                f"gaussian: expected a (mean, logvar) pair, got {len(pair)} entries"
                + (f" and {given[0]}" if given else "")
            )
        mean, logvar = pair
    elif isinstance(params, Tensor):
        if len(given) > 1:
            raise ValueError(f"gaussian: expected one of logvar, std, var, got {given}")
        mean = params
        if not given:
            if params.ndim < 2 or params.shape[1] % 2:
                raise ValueError(
                    "gaussian: expected params of shape (B, 2 D, ...), mean and log-variance "
                    f"along dim 1, got {tuple(params.shape)}"
                )
            mean, logvar = params.chunk(2, dim=1)
    else:
        raise TypeError(
            "gaussian: expected a tensor, a (mean, logvar) pair, a mapping with mean and logvar, "
            f"or a distribution, got {type(params).__name__}"
        )
    spread = next(s for s in (logvar, std, var) if s is not None)
    for name, tensor in (("mean", mean), (given[0] if given else "logvar", spread)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():  # pyright: ignore
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__  # pyright: ignore
            raise TypeError(f"gaussian: expected {name} to be a floating-point tensor, got {got}")
    if mean.ndim < 2:
        raise ValueError(f"gaussian: expected mean of shape (B, D, ...), got {tuple(mean.shape)}")
    if mean.shape != spread.shape:
        raise ValueError(
            f"gaussian: expected {given[0] if given else 'logvar'} of the mean's shape "
            f"{tuple(mean.shape)}, got {tuple(spread.shape)}"
        )
    if std is not None:
        return mean, std
    wide = spread.to(torch.promote_types(spread.dtype, torch.float32))
    return mean, wide.sqrt() if var is not None else (0.5 * wide).exp()


def _code(maker: str, value: Tensor, q: Distribution, prior: Distribution | None) -> Code:
    event = q.event_shape
    if value.shape != q.batch_shape + event:
        raise ValueError(
            f"{maker}: expected value of the posterior's shape {tuple(q.batch_shape + event)}, "
            f"got {tuple(value.shape)}"
        )
    if prior is None:
        like = value.to(torch.promote_types(value.dtype, torch.float32))
        zeros, ones = torch.zeros_like(like), torch.ones_like(like)
        prior = StandardNormal(
            Normal(zeros, ones, validate_args=False), value.ndim - 1, validate_args=False
        )
    else:
        prior = _with_batch(maker, prior, value)
    return Code(value, q, prior)


def _with_batch(maker: str, prior: Distribution, value: Tensor) -> Distribution:
    event = value.shape[1:]
    shape = prior.batch_shape + prior.event_shape
    if shape == event:
        # A prior shared by all rows.
        shared: Any = as_event(prior, 0)
        return cast(Distribution, shared.expand(value.shape[:1]))
    if shape == value.shape:
        return as_event(prior, 1)
    raise ValueError(
        f"{maker}: expected a prior of shape {tuple(event)} or {tuple(value.shape)}, "
        f"got {tuple(shape)}"
    )


def categorical(
    logits: Tensor,
    temperature: float | Tensor,
    *,
    hard: bool = False,
    prior: Distribution | Tensor | None = None,
    value: Tensor | None = None,
) -> Code:
    r"""A categorical code with a Gumbel-softmax sample.

    .. math:: v = \operatorname{softmax}\big((\log \pi + g) / \tau\big), \quad
        g_k \sim \operatorname{Gumbel}(0, 1)

    The value is the relaxed sample; the posterior is the exact categorical, so that KLs are the
    categorical's and not the relaxation's.

    Args:
        logits: Unnormalised log-probabilities, ``(B, K)``, or ``(B, G, K)`` for ``G`` categorical
            variables.
        temperature: :math:`\tau > 0`.
        hard: Return a one-hot sample with the relaxed sample's gradient (straight-through).
        prior: Prior probabilities, ``(K,)``, ``(G, K)`` or ``(B, [G,] K)``, or a
            :class:`torch.distributions.OneHotCategorical`; default uniform.
        value: The sample to use in place of a fresh one, the shape of ``logits``.

    Returns:
        A :class:`Code` of event shape ``(K,)`` or ``(G, K)``.

    Raises:
        TypeError: If the temperature is neither a number nor a tensor, or prior probabilities are
            not floating-point.
        ValueError: If ``logits`` is of another shape, or the temperature is a number that is not
            positive and finite.

    References:
        | Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), eq 2.
        | https://arxiv.org/abs/1611.01144

    Example:
        >>> c = categorical(torch.zeros(8, 10), temperature=0.5)
        >>> c.value.sum(1).allclose(torch.ones(8)), c.q.event_shape
        (True, torch.Size([10]))
    """
    if not isinstance(logits, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"categorical: expected logits to be a tensor, got {type(logits).__name__}"
        )
    if logits.ndim not in (2, 3) or not logits.is_floating_point():
        raise ValueError(
            "categorical: expected floating-point logits of shape (B, K) or (B, G, K), got "
            f"{logits.dtype} {tuple(logits.shape)}"
        )
    if not isinstance(temperature, Tensor):
        if not isinstance(temperature, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                "categorical: expected temperature to be a number or a scalar tensor (call a "
                f"schedule with the step), got {type(temperature).__name__}"
            )
        if not 0.0 < temperature < math.inf:
            raise ValueError(f"categorical: expected temperature > 0, got {temperature}")
    log_pi = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    q = as_event(one_hot_categorical(log_pi), 1)
    if value is None:
        # An exponential draw of exactly 0 would make an infinite Gumbel and then inf - inf.
        tiny = torch.finfo(log_pi.dtype).tiny
        gumbel = -torch.empty_like(log_pi).exponential_().clamp_min(tiny).log()
        soft = ((log_pi + gumbel) / temperature).softmax(-1)
        if hard:
            one_hot = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
            soft = one_hot + (soft - soft.detach())
        value = soft.to(logits.dtype)
    if prior is None:
        prior = one_hot_categorical(torch.zeros_like(log_pi))
    elif isinstance(prior, Tensor):
        if not prior.is_floating_point() or prior.ndim < 1:
            raise TypeError(
                "categorical: expected prior probabilities as a floating-point tensor (K,), "
                f"(G, K) or (B, [G,] K), got {prior.dtype} {tuple(prior.shape)}"
            )
        # By logarithms: torch clamps probabilities at 1e-7 and reads their values. They are
        # normalised, and 0 stays 0, which has an infinite KL.
        prior = one_hot_categorical(
            prior.to(torch.promote_types(prior.dtype, torch.float32)).log().log_softmax(-1)
        )
    return _code("categorical", value, q, prior)


def deterministic(value: Tensor, *, prior: Distribution | None = None) -> Code:
    r"""A code without a posterior: the encoder's output itself.

    Args:
        value: ``(B, *event)``.
        prior: Prior for terms that match the code to it by samples, such as ``MMD`` and
            ``Adversary``: of batch shape ``()`` or ``(B,)``, as for :func:`gaussian`.

    Raises:
        ValueError: If the prior's shape is neither the event's nor the value's.

    Example:
        >>> deterministic(torch.zeros(8, 4)).q is None
        True
    """
    p = None if prior is None else _with_batch("deterministic", prior, value)
    return Code(value, None, p, fixed=True)


def labels(y: Tensor, classes: int) -> Tensor:
    r"""One-hot labels for terms that read a label.

    Values are not read here, so that no device transfer happens: a label outside of
    ``{-1, 0, ..., classes - 1}`` becomes a row of NaN, which ``Objective.validate`` names.

    Args:
        y: Integer class labels ``(B,)``, or ``(B, k)`` for ``k`` labels of ``classes`` classes
            each; -1 stands for a missing label.
        classes: Number of classes, at least 2.

    Returns:
        ``(B, classes)`` or ``(B, k, classes)`` floating-point rows; all zero where missing.

    Raises:
        TypeError: If ``y`` is not an integer (or boolean) tensor.
        ValueError: If ``y`` is not of shape ``(B,)`` or ``(B, k)`` or ``classes`` is below 2.

    Example:
        >>> labels(torch.tensor([1, -1]), classes=3)
        tensor([[0., 1., 0.],
                [0., 0., 0.]])
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():  # pyright: ignore
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__  # pyright: ignore
        raise TypeError(f"labels: expected y to be an integer tensor, got {got}")
    if y.ndim not in (1, 2):
        raise ValueError(f"labels: expected y of shape (B,) or (B, k), got {tuple(y.shape)}")
    if classes < 2:
        raise ValueError(f"labels: expected classes >= 2, got {classes}")
    y = y.long()
    one_hot = (y.unsqueeze(-1) == torch.arange(classes, device=y.device)).to(
        torch.get_default_dtype()
    )
    outside = (y < -1) | (y >= classes)
    return one_hot.masked_fill(outside.unsqueeze(-1), float("nan"))
