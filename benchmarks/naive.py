"""The three MINE terms as they are commonly written around a training loop: the baselines.

Against the library this code differs in three things and in nothing else:

- joint and product rows go through a critic in two passes;
- a critic's parameters receive gradients in the encoder's pass too, which are thrown away;
- the critics' loss is taken on codes that still hang on the encoder, so that its backward runs
  through the encoder, with ``retain_graph``; those gradients are thrown away as well.

The last is left out with ``detach=True``, as a more careful author would.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

import vaereg
from vaereg.functional.bounds import donsker_varadhan
from vaereg.regularizer import zero_like

__all__ = ["NaiveMINE", "NaiveTerms", "UnfrozenMINE", "train_step"]


class NaiveMINE(nn.Module):
    """The Donsker-Varadhan bound with a moving average in the gradient's denominator."""

    average: Tensor
    weight: Tensor

    def __init__(self, critic: nn.Module, decay: float = 0.99) -> None:
        super().__init__()
        self.critic = critic
        self.decay = decay
        self.register_buffer("average", torch.tensor(0.0))
        self.register_buffer("weight", torch.tensor(0.0))

    def forward(self, a: Tensor, b: Tensor, *, move: bool) -> Tensor:
        """The bound of ``(B, D)`` and ``(B, E)``; ``move`` updates the moving average."""
        rows = a.shape[0]
        shift = torch.randint(1, rows, (), device=b.device)
        shifted = b[(torch.arange(rows, device=b.device) + shift) % rows]
        joint = self.critic(torch.cat((a, b), 1))
        product = self.critic(torch.cat((a, shifted), 1)).exp().mean()
        average = self.decay * self.average + (1.0 - self.decay) * product.detach()
        weight = self.decay * self.weight + (1.0 - self.decay)
        if move:
            self.average, self.weight = average, weight
        value = joint.mean() - product.log()
        slope = joint.mean() - product / (average / weight)
        return value.detach() + (slope - slope.detach())


class NaiveTerms(nn.Module):
    """The weighted sum of I(c; y), I(z; y) and I(z; c).

    Args:
        critics: A critic for each of ``i_cy``, ``i_zy``, ``i_zc``.
        weights: The weight of each.
    """

    def __init__(self, critics: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict({name: NaiveMINE(c) for name, c in critics.items()})
        self.weights = dict(weights)

    def values(self, z: Tensor, c: Tensor, y: Tensor, *, move: bool = False) -> dict[str, Tensor]:
        """The three bounds."""
        pairs = {"i_cy": (c, y), "i_zy": (z, y), "i_zc": (z, c)}
        return {name: self.terms[name](*pair, move=move) for name, pair in pairs.items()}

    def forward(self, z: Tensor, c: Tensor, y: Tensor) -> Tensor:
        """What is added to the loss of encoder and decoder."""
        values = self.values(z, c, y)
        return sum((self.weights[n] * v for n, v in values.items()), torch.zeros_like(z[0, 0]))

    def critic_loss(self, z: Tensor, c: Tensor, y: Tensor) -> Tensor:
        """What the critics minimise."""
        values = self.values(z, c, y, move=True).values()
        return sum((-v for v in values), torch.zeros_like(z[0, 0]))


def train_step(
    vae: vaereg.VAE,
    terms: NaiveTerms,
    x: Tensor,
    y: Tensor,
    main: torch.optim.Optimizer,
    critics: torch.optim.Optimizer,
    *,
    critic_steps: int,
    detach: bool = False,
) -> Tensor:
    """One training step: critics first, then encoder and decoder.

    Args:
        vae: Encoder, decoder and KL.
        terms: The three terms.
        x: Images, ``(B, 3, 64, 64)``.
        y: One-hot labels, ``(B, 2)``.
        main: Optimizer of the VAE.
        critics: Optimizer of the critics.
        critic_steps: Critic steps an encoder step.
        detach: Cut the codes off the encoder for the critics' loss.

    Returns:
        The loss of encoder and decoder.
    """
    out = vae(x, y=y)
    z, c = out.codes["z"].value, out.codes["c"].value
    for _ in range(critic_steps):
        critics.zero_grad()
        if detach:
            terms.critic_loss(z.detach(), c.detach(), y).backward()
        else:
            # The encoder's graph is needed once more for its own loss.
            terms.critic_loss(z, c, y).backward(retain_graph=True)
        critics.step()
    main.zero_grad()
    loss = out.loss + terms(z, c, y)
    loss.backward()
    main.step()
    return loss


class UnfrozenMINE(vaereg.MINE):
    """The library's term with a critic that receives gradients in the encoder's pass.

    It differs from :class:`vaereg.MINE` in that alone: the rows still go through in one pass.
    """

    def forward(
        self,
        batch: vaereg.codes.Batch,
        *,
        other: vaereg.codes.Batch | None = None,
        step: int | Tensor = 0,
    ) -> Tensor:
        """The bound, a scalar in nats."""
        scores = self.scores(batch, other, freeze=False)
        if isinstance(scores, Tensor):
            return zero_like(scores)
        joint, product = scores
        log_average, weight = self._average(product)
        return donsker_varadhan(joint, product, log_average - weight.log())
