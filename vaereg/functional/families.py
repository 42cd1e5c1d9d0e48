r"""The distribution families that vaereg can take apart: rebuild, slice, reinterpret.

Known are Normal, Laplace, Bernoulli, Categorical, OneHotCategorical and MultivariateNormal, alone
or inside :class:`torch.distributions.Independent` or as a
:class:`torch.distributions.MixtureSameFamily`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)

__all__ = ["as_event", "base_of", "map_parameters", "one_hot_categorical", "slice_event"]


def as_event(distribution: Distribution, batch_ndim: int) -> Distribution:
    """Reinterpret all batch dimensions beyond the first ``batch_ndim`` as event dimensions.

    Example:
        >>> import torch
        >>> as_event(Normal(torch.zeros(8, 3), torch.ones(8, 3)), 1).event_shape
        torch.Size([3])
    """
    extra = len(distribution.batch_shape) - batch_ndim
    if extra <= 0:
        return distribution
    return Independent(distribution, extra, validate_args=False)


def base_of(distribution: Distribution) -> Distribution:
    """The distribution inside of any :class:`torch.distributions.Independent` wrappers."""
    base: Any = distribution
    while isinstance(base, Independent):
        base = base.base_dist  # pyright: ignore[reportUnknownVariableType]
    return cast(Distribution, base)


def one_hot_categorical(logits: Tensor) -> OneHotCategorical:
    """One-hot rows of logits ``(*, K)``, without torch's check of their values.

    ``OneHotCategorical(logits=..., validate_args=False)`` does check them, in the
    :class:`torch.distributions.Categorical` that it holds: a device transfer each time.

    Example:
        >>> import torch
        >>> one_hot_categorical(torch.zeros(2, 4)).probs[0]
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    inner: Any = Categorical(logits=logits, validate_args=False)
    made: Any = OneHotCategorical.__new__(OneHotCategorical)
    made._categorical = inner
    Distribution.__init__(made, inner.batch_shape, logits.shape[-1:], validate_args=False)
    return cast(OneHotCategorical, made)


def _logits(distribution: Any) -> Tensor:
    # Probabilities are turned to logits by torch lazily; both describe the same distribution.
    return distribution.logits


def map_parameters(
    distribution: Distribution, function: Callable[[Tensor], Tensor]
) -> Distribution | None:
    """Rebuild a distribution of a known family with ``function`` applied to its parameters.

    Args:
        distribution: Any distribution.
        function: A map of tensors, e.g. a detachment or a slice.

    Returns:
        The new distribution, or ``None`` for an unknown family.
    """
    kind = type(distribution)
    if isinstance(distribution, Independent):
        inner = cast(Any, distribution).base_dist
        base = map_parameters(inner, function)
        if base is None:
            return None
        return Independent(base, distribution.reinterpreted_batch_ndims, validate_args=False)
    if kind is Normal or kind is Laplace:
        located: Any = distribution
        return kind(function(located.loc), function(located.scale), validate_args=False)
    if kind is OneHotCategorical:
        return one_hot_categorical(function(_logits(distribution)))
    if kind is Bernoulli or kind is Categorical:
        return kind(logits=function(_logits(distribution)), validate_args=False)
    if isinstance(distribution, MultivariateNormal) and kind is MultivariateNormal:
        loc: Tensor = distribution.loc  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType]
        return MultivariateNormal(
            function(loc),
            scale_tril=function(distribution.scale_tril),
            validate_args=False,
        )
    if isinstance(distribution, MixtureSameFamily) and kind is MixtureSameFamily:
        mixture: Any = distribution
        weights = map_parameters(mixture.mixture_distribution, function)
        parts = map_parameters(mixture.component_distribution, function)
        if weights is None or parts is None:
            return None
        return MixtureSameFamily(weights, parts, validate_args=False)  # pyright: ignore[reportArgumentType]
    return None


def slice_event(distribution: Distribution | None, index: Any) -> Distribution | None:
    """The marginal of coordinates ``index`` along dim 1; ``None`` if the family has none here.

    Args:
        distribution: Batch shape ``(B,)``, first event dimension to be sliced.
        index: A slice or a list of integers.
    """
    if distribution is None:
        return None
    base = base_of(distribution)
    width = len(base.batch_shape)
    # Only families whose coordinate is one element have a marginal by slicing, and for a single
    # categorical dim 1 is the simplex, which has none.
    if width < 2 or isinstance(base, (MultivariateNormal, MixtureSameFamily)):
        return None
    return map_parameters(distribution, lambda t: t[:, index])
