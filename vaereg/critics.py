r"""Critics: the auxiliary networks that density-ratio and classifier terms are read through.

A critic is any :class:`torch.nn.Module`. Terms of two variables accept both conventions: a module
of one argument receives the two variables flattened and concatenated along dim 1, a module of two
arguments receives them as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = [
    "Separable",
    "check_critic",
    "frozen",
    "input_width",
    "mlp",
    "pair_scores",
    "separable",
    "takes_pair",
]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def mlp(
    in_features: int,
    out_features: int = 1,
    *,
    width: int = 256,
    depth: int = 2,
    activation: str = "relu",
    layer_norm: bool = False,
    spectral_norm: bool = False,
) -> nn.Sequential:
    r"""A fully connected network of ``depth`` hidden layers of ``width`` units.

    Args:
        in_features: Width of the input; for a term of two variables, the sum of their widths.
        out_features: Width of the output: 1 for a statistics network, the number of classes for a
            classifier.
        width: Units of each hidden layer.
        depth: Number of hidden layers; 0 gives a linear map.
        activation: One of ``relu``, ``leaky_relu`` (slope 0.2), ``elu``, ``gelu``, ``silu``,
            ``tanh``.
        layer_norm: Put a :class:`torch.nn.LayerNorm` after each hidden linear map. There is no
            batch normalisation here, because joint and product rows must not share statistics.
        spectral_norm: Constrain each linear map's spectral norm to 1.

    Returns:
        A module that maps ``(B, in_features)`` to ``(B, out_features)``.

    Raises:
        ValueError: If a size is not positive or the activation is unknown.

    Example:
        >>> critic = mlp(16 + 10, 1, width=32, depth=3)
        >>> critic(torch.zeros(4, 26)).shape
        torch.Size([4, 1])
    """
    sizes = (("in_features", in_features), ("out_features", out_features), ("width", width))
    for name, size in sizes:
        if size < 1:
            raise ValueError(f"mlp: expected {name} >= 1, got {size}")
    if depth < 0:
        raise ValueError(f"mlp: expected depth >= 0, got {depth}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"mlp: expected activation in {sorted(_ACTIVATIONS)}, got {activation!r}")

    def linear(inputs: int, outputs: int) -> nn.Module:
        layer = nn.Linear(inputs, outputs)
        return nn.utils.parametrizations.spectral_norm(layer) if spectral_norm else layer

    layers: list[nn.Module] = []
    features = in_features
    for _ in range(depth):
        layers.append(linear(features, width))
        if layer_norm:
            layers.append(nn.LayerNorm(width))
        layers.append(_ACTIVATIONS[activation]())
        features = width
    layers.append(linear(features, out_features))
    return nn.Sequential(*layers)


class Separable(nn.Module):
    r"""The separable critic :math:`T(a, b) = f(a)^\top g(b) / \sqrt{k}`.

    Two small networks embed the two variables in ``k`` dimensions; scores of all :math:`B^2` pairs
    then cost one matrix product (:meth:`all_pairs`).

    Args:
        a: Network of the first variable, ``(B, *) -> (B, k)``.
        b: Network of the second variable, ``(B, *) -> (B, k)``.

    References:
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2.
        | https://arxiv.org/abs/1905.06922

    Example:
        >>> critic = separable(3, 5, embedding=8)
        >>> critic(torch.zeros(4, 3), torch.zeros(4, 5)).shape
        torch.Size([4])
    """

    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a = a
        self.b = b

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B, *)``, ``(B, *)`` to ``(B,)``."""
        left, right = self.a(a.flatten(1)), self.b(b.flatten(1))
        return (left * right).sum(1) * left.shape[1] ** -0.5

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, *)``, ``(M, *)`` to ``(B, M)``."""
        left, right = self.a(a.flatten(1)), self.b(b.flatten(1))
        return left @ right.mT * left.shape[1] ** -0.5


def separable(
    a_features: int, b_features: int, *, embedding: int = 32, width: int = 256, depth: int = 2
) -> Separable:
    r"""A :class:`Separable` critic of two perceptrons.

    Args:
        a_features: Width of the first variable, flattened.
        b_features: Width of the second variable, flattened.
        embedding: Width ``k`` of the common space.
        width: Units of each hidden layer.
        depth: Hidden layers of each network.

    Example:
        >>> separable(3, 5).all_pairs(torch.zeros(4, 3), torch.zeros(6, 5)).shape
        torch.Size([4, 6])
    """
    return Separable(
        mlp(a_features, embedding, width=width, depth=depth),
        mlp(b_features, embedding, width=width, depth=depth),
    )


def frozen(module: nn.Module) -> Callable[..., Any]:
    r"""Call a module with parameters detached and buffers cloned.

    The gradient reaches the inputs only and nothing in the module moves: parameters receive no
    gradient, and buffers that a forward pass would update (spectral norm's power iteration,
    running averages) are updated on a copy. Unlike switching ``requires_grad`` off and on, this
    leaves no trace, so that one joint backward stays possible, and it saves the backward's
    products with respect to the weights.

    Args:
        module: Any module; its current parameters are read at each call.

    Returns:
        A callable with the module's own signature.

    Example:
        >>> critic = mlp(2, 1)
        >>> x = torch.zeros(3, 2, requires_grad=True)
        >>> frozen(critic)(x).sum().backward()
        >>> x.grad is not None, all(p.grad is None for p in critic.parameters())
        (True, True)
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        state = {name: p.detach() for name, p in module.named_parameters()}
        state.update((name, b.clone()) for name, b in module.named_buffers())
        return torch.func.functional_call(module, state, args, kwargs)

    return call


def takes_pair(critic: nn.Module) -> bool:
    """Whether ``critic.forward`` wants two positional arguments (a pair) rather than one."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(critic.forward).parameters.values()
    required = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    return len(required) == 2


def input_width(module: nn.Module) -> int | None:
    """The number of features that a network's first linear map wants, or ``None`` if unknown.

    Example:
        >>> input_width(mlp(7, 1))
        7
    """
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.Sequential):
        inner = [m for m in module if not isinstance(m, (nn.Flatten, nn.Identity, nn.Dropout))]
        return input_width(inner[0]) if inner else None
    return None


def pair_scores(critic: Callable[..., Any], a: Tensor, b: Tensor, *, pair: bool) -> Tensor:
    """Scores ``(B,)`` of aligned pairs, in float32 at least.

    Args:
        critic: The critic or its :func:`frozen` form.
        a: First variable, ``(B, *)``.
        b: Second variable, ``(B, *)``.
        pair: The critic's convention, from :func:`takes_pair`.

    Raises:
        ValueError: If the critic does not return one number a row.
    """
    scores = critic(a, b) if pair else critic(torch.cat((a.flatten(1), b.flatten(1)), 1))
    if not isinstance(scores, Tensor) or scores.numel() != a.shape[0]:
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"critic: expected one score a row, shape ({a.shape[0]},), got {got}")
    # exp T overflows in half precision long before float32, hence the cast.
    return scores.flatten().to(torch.promote_types(scores.dtype, torch.float32))


def check_critic(critic: object, term: str) -> None:
    """Raise unless ``critic`` is a module without batch normalisation.

    Raises:
        TypeError: If it is no :class:`torch.nn.Module`.
        ValueError: If a batch normalisation is inside.
    """
    if not isinstance(critic, nn.Module):
        raise TypeError(f"{term}: expected critic to be a torch.nn.Module, got {critic!r}")
    for name, module in cast("Iterator[tuple[str, nn.Module]]", critic.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            raise ValueError(
                f"{term}: expected a critic without batch normalisation, got "
                f"{type(module).__name__} at {name or 'its root'!r}: rows of the joint and of the "
                "product of marginals would share statistics; use LayerNorm or spectral norm"
            )
