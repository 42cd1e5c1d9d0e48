"""The study's networks, alone and stacked: several models of one shape in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Stack", "decoder", "encoder"]

_WIDTHS = (32, 32, 32, 32)


def encoder(z: int = 10, channels: int = 1) -> nn.Sequential:
    """Four convolutions and three linear maps: ``(B, C, 64, 64)`` to ``(B, 2 z)``.

    The first z numbers are the means, the others the log-variances.
    """
    down: list[nn.Module] = []
    for a, b in itertools.pairwise((channels, *_WIDTHS)):
        down += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(
        *down, nn.Flatten(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, 2 * z),
    )  # fmt: skip


def decoder(z: int = 10, channels: int = 1) -> nn.Sequential:
    """The encoder mirrored: ``(B, z)`` to logits ``(B, C, 64, 64)``."""
    up: list[nn.Module] = []
    for a, b in itertools.pairwise((*_WIDTHS, channels)):
        up += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1)]
    return nn.Sequential(
        nn.Linear(z, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 512),
        nn.Unflatten(1, (32, 4, 4)), *up,
    )  # fmt: skip


class Stack(nn.Module):
    """Networks of one shape with weights of their own, computed together.

    Small networks leave a GPU idle; S of them as one grouped convolution and one batched matrix
    product do not. Model s sees ``x[s]`` and nothing else, so that gradients, and with them the
    steps of an elementwise optimizer, are those of the models alone.

    Args:
        models: ``nn.Sequential`` each, of the same layers: convolutions, transposed convolutions,
            linear maps, ReLU, flatten and unflatten.
    """

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.size = len(models)
        self.layers = list(models[0])  # a plain list: read for their shapes, not registered
        self.weights = nn.ParameterList()
        for layers in zip(*models, strict=True):
            for name, _ in layers[0].named_parameters():
                stacked = torch.stack([layer.get_parameter(name).detach() for layer in layers])
                self.weights.append(nn.Parameter(stacked))

    def forward(self, x: Tensor) -> Tensor:
        """``(S, B, *)`` to ``(S, B, *)``."""
        weights = iter(self.weights)
        s, b = self.size, x.shape[1]
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                weight, bias = next(weights), next(weights)
                x = torch.baddbmm(bias[:, None], x, weight.mT)
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                weight, bias = next(weights).flatten(0, 1), next(weights).flatten()
                if x.ndim == 5:
                    x = x.transpose(0, 1).flatten(1, 2)  # (B, S C, H, W)
                if s == 1:  # the faster layout, most of all in 16 bits; not so in groups
                    x = x.contiguous(memory_format=torch.channels_last)
                    weight = weight.contiguous(memory_format=torch.channels_last)
                convolve = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv_transpose2d
                x = convolve(x, weight, bias, layer.stride, layer.padding, groups=s)
            elif isinstance(layer, nn.Flatten):
                x = x.reshape(b, s, -1).transpose(0, 1)
            elif isinstance(layer, nn.Unflatten):
                x = x.unflatten(2, layer.unflattened_size)
            elif isinstance(layer, nn.ReLU):
                x = F.relu(x)
            else:
                raise TypeError(f"Stack: expected layers that it knows, got {layer}")
        if x.ndim == 4:
            x = x.unflatten(1, (s, -1)).transpose(0, 1)
        return x

    @classmethod
    def of(cls, stack: Stack, s: int) -> Stack:
        """Model s of a stack, alone; its parameters are views of the stack's."""
        one = cls.__new__(cls)
        nn.Module.__init__(one)
        one.size, one.layers = 1, stack.layers
        one.weights = nn.ParameterList(weight.detach()[s : s + 1] for weight in stack.weights)
        return one

    def state(self, s: int) -> list[Tensor]:
        """Copies of the parameters of model s, in the order of ``weights``."""
        return [weight.detach()[s].clone() for weight in self.weights]

    @torch.no_grad()
    def load(self, s: int, state: Sequence[Tensor]) -> None:
        """Set the parameters of model s.

        Raises:
            ValueError: If they are of another network.
        """
        shapes = [tuple(weight.shape[1:]) for weight in self.weights]
        if shapes != [tuple(t.shape) for t in state]:
            raise ValueError(f"expected parameters of shapes {shapes}, got others")
        for weight, tensor in zip(self.weights, state, strict=True):
            weight[s].copy_(tensor)
