r"""How a term calls its critic: conventions, all pairs, and the frozen call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = [
    "AllPairs",
    "check_critic",
    "frozen",
    "input_width",
    "pair_scores",
    "read_input",
    "takes_pair",
]


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
        >>> from vaereg.critics import mlp
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
        >>> input_width(nn.Sequential(nn.Flatten(), nn.Linear(7, 1)))
        7
    """
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.Sequential):
        inner = [m for m in module if not isinstance(m, (nn.Flatten, nn.Identity, nn.Dropout))]
        return input_width(inner[0]) if inner else None
    return None


def read_input(module: nn.Module, x: Tensor) -> Tensor:
    """A variable as a network of one argument reads it: flattened for one that starts with a
    linear map, as it is, ``(B, *event)``, for any other (a convolution, say).

    Example:
        >>> read_input(nn.Linear(12, 1), torch.zeros(2, 3, 2, 2)).shape
        torch.Size([2, 12])
    """
    return x if input_width(module) is None else x.flatten(1)


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


class AllPairs(nn.Module):
    r"""The scores of all pairs as a module of its own, so that it can be called :func:`frozen`.

    A critic that has a method ``all_pairs(a, b)``, as :class:`Separable` and :class:`Concatenated`
    do, computes them itself. Any other is called once on :math:`B M` repeated rows, which costs as
    much as that many rows do.

    Args:
        critic: The critic; it is shared, not copied.

    Example:
        >>> from vaereg.critics import mlp
        >>> a, b = torch.randn(4, 2), torch.randn(6, 3)
        >>> frozen(AllPairs(mlp(2 + 3, 1)))(a, b).shape
        torch.Size([4, 6])
    """

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic
        self.own = callable(getattr(critic, "all_pairs", None))
        self.pair = self.own or takes_pair(critic)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Scores of all pairs ``(a_i, b_j)``, in float32 at least: ``(B, *)``, ``(M, *)`` to
        ``(B, M)``.

        Raises:
            ValueError: If the critic does not return one number a pair.
        """
        shape = (a.shape[0], b.shape[0])
        if not self.own:
            left = a.unsqueeze(1).expand(*shape, *a.shape[1:]).flatten(0, 1)
            right = b.unsqueeze(0).expand(*shape, *b.shape[1:]).flatten(0, 1)
            return pair_scores(self.critic, left, right, pair=self.pair).view(shape)
        scores = cast(Any, self.critic).all_pairs(a, b)
        if not isinstance(scores, Tensor) or scores.shape != shape:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"critic: expected all_pairs to return shape {shape}, got {got}")
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


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
