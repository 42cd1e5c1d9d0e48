r"""Networks to be used as critics."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaereg.critics.calling import input_width

__all__ = ["Concatenated", "Separable", "concatenated", "mlp", "separable"]

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

    @property
    def widths(self) -> tuple[int | None, int | None]:
        """Numbers a row that the two variables must have, ``None`` where unknown."""
        return input_width(self.a), input_width(self.b)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B, *)``, ``(B, *)`` to ``(B,)``."""
        left, right = self.a(a.flatten(1)), self.b(b.flatten(1))
        return (left * right).sum(1) * left.shape[1] ** -0.5

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, *)``, ``(M, *)`` to ``(B, M)``."""
        left, right = self.a(a.flatten(1)), self.b(b.flatten(1))
        return left @ right.mT * left.shape[1] ** -0.5


def separable(
    a_features: int,
    b_features: int,
    *,
    embedding: int = 32,
    width: int = 256,
    depth: int = 2,
    activation: str = "relu",
    layer_norm: bool = False,
    spectral_norm: bool = False,
) -> Separable:
    r"""A :class:`Separable` critic of two perceptrons.

    Args:
        a_features: Width of the first variable, flattened.
        b_features: Width of the second variable, flattened.
        embedding: Width ``k`` of the common space.
        width: Units of each hidden layer.
        depth: Hidden layers of each network.
        activation: As for :func:`mlp`.
        layer_norm: As for :func:`mlp`.
        spectral_norm: As for :func:`mlp`.

    Raises:
        ValueError: As for :func:`mlp`.

    Example:
        >>> separable(3, 5).all_pairs(torch.zeros(4, 3), torch.zeros(6, 5)).shape
        torch.Size([4, 6])
    """

    def embed(features: int) -> nn.Sequential:
        return mlp(
            features,
            embedding,
            width=width,
            depth=depth,
            activation=activation,
            layer_norm=layer_norm,
            spectral_norm=spectral_norm,
        )

    return Separable(embed(a_features), embed(b_features))


class Concatenated(nn.Module):
    r"""The concatenated critic :math:`T(a, b) = f([a; b])`, with all pairs at a lower price.

    It represents dependences that a :class:`Separable` critic of the same size cannot. All pairs
    (:meth:`all_pairs`) cost a pass of :math:`B M` rows, but for the first linear map: that is
    computed once a row of each variable, and only the sum of its two parts is taken pairwise.

    Args:
        network: A perceptron ``(B, a_features + b_features) -> (B, 1)`` that starts with a
            :class:`torch.nn.Linear`.
        a_features: Width of the first variable, flattened.

    Raises:
        TypeError: If the network is no sequence that starts with a linear map.
        ValueError: If the map has a hook, whose work :meth:`all_pairs` would pass by, or is not
            wider than ``a_features``.

    References:
        | On Variational Bounds of Mutual Information (Poole et al., 2019), section 2.
        | https://arxiv.org/abs/1905.06922

    Example:
        >>> critic = Concatenated(mlp(3 + 5, 1, width=8), 3)
        >>> critic(torch.zeros(4, 3), torch.zeros(4, 5)).shape
        torch.Size([4])
    """

    def __init__(self, network: nn.Sequential, a_features: int) -> None:
        super().__init__()
        layers = list(network) if isinstance(network, nn.Sequential) else []  # pyright: ignore[reportUnnecessaryIsInstance]
        first = layers[0] if layers else None
        if not isinstance(first, nn.Linear):
            raise TypeError(
                "Concatenated: expected a torch.nn.Sequential that starts with a torch.nn.Linear, "
                f"got {type(network).__name__} that starts with {type(first).__name__}"
            )
        if first._forward_pre_hooks or first._forward_hooks:
            raise ValueError(
                "Concatenated: expected a first linear map without hooks, got one; for spectral "
                "norm use torch.nn.utils.parametrizations.spectral_norm"
            )
        if not 0 < a_features < first.in_features:
            raise ValueError(
                f"Concatenated: expected 0 < a_features < {first.in_features}, the network's "
                f"width, got {a_features}"
            )
        self.network = network
        self.a_features = a_features

    @property
    def widths(self) -> tuple[int | None, int | None]:
        """Numbers a row that the two variables must have."""
        total = input_width(self.network)
        return self.a_features, None if total is None else total - self.a_features

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of the pairs ``(a_i, b_i)``: ``(B, *)``, ``(B, *)`` to ``(B,)``."""
        return self.network(torch.cat((a.flatten(1), b.flatten(1)), 1)).squeeze(1)

    def all_pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``: ``(B, *)``, ``(M, *)`` to ``(B, M)``."""
        first, *rest = self.network
        assert isinstance(first, nn.Linear)
        # Read once: in training mode each reading of a spectral-normed weight moves its power
        # iteration.
        weight = first.weight
        left, right = weight[:, : self.a_features], weight[:, self.a_features :]
        hidden = F.linear(a.flatten(1), left, first.bias).unsqueeze(1)  # (B, 1, W)
        hidden = hidden + F.linear(b.flatten(1), right)  # (B, M, W)
        for layer in rest:
            hidden = layer(hidden)
        return hidden.squeeze(2)


def concatenated(
    a_features: int,
    b_features: int,
    *,
    width: int = 256,
    depth: int = 2,
    activation: str = "relu",
    layer_norm: bool = False,
    spectral_norm: bool = False,
) -> Concatenated:
    r"""A :class:`Concatenated` critic: a perceptron of both variables.

    Unlike ``mlp(a_features + b_features, 1)`` it has ``all_pairs``, which terms then use: mind its
    cost of :math:`B^2` rows, or ask the term for ``pairs="shift"``.

    Args:
        a_features: Width of the first variable, flattened.
        b_features: Width of the second variable, flattened.
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        activation: As for :func:`mlp`.
        layer_norm: As for :func:`mlp`.
        spectral_norm: As for :func:`mlp`.

    Raises:
        ValueError: As for :func:`mlp`.

    Example:
        >>> concatenated(3, 5, width=8).all_pairs(torch.zeros(4, 3), torch.zeros(6, 5)).shape
        torch.Size([4, 6])
    """
    for name, size in (("a_features", a_features), ("b_features", b_features)):
        if size < 1:
            raise ValueError(f"concatenated: expected {name} >= 1, got {size}")
    network = mlp(
        a_features + b_features,
        1,
        width=width,
        depth=depth,
        activation=activation,
        layer_norm=layer_norm,
        spectral_norm=spectral_norm,
    )
    return Concatenated(network, a_features)
