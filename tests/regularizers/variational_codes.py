"""Codes of several kinds, and critics of given weights or of a formula."""

from __future__ import annotations

import torch
from torch import nn

import vaereg


class Formula(nn.Module):
    """A critic that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, g):
        return self.function(g)


def linear(weight, bias=None):
    critic = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        critic.weight.copy_(weight)
        if bias is not None:
            critic.bias.copy_(bias)
    return critic.to(weight.dtype)


def codes(rows, *, dtype=torch.float64):
    """Codes with leaves, an image made of them, a label of which every third is missing."""
    leaves = [torch.randn(rows, n, dtype=dtype).requires_grad_() for n in (6, 4, 5)]
    z, c, x = leaves
    y = torch.where(torch.arange(rows) % 3 == 2, -1, torch.arange(rows) % 2)
    batch = {
        "z": vaereg.gaussian(z),
        "c": vaereg.categorical(c, 0.7),
        "y": vaereg.labels(y, 2).to(dtype),
        "x": x,
    }
    return batch, leaves


def gaussian_parts(code, columns=slice(None)):
    base = code.q.base_dist
    return code.value[:, columns], base.loc[:, columns], 2.0 * base.scale.log()[:, columns]
