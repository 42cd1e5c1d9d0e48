r"""Terms that tie a code to a class label or keep it clear of one, through a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from vaereg._checks import check_one_hot, check_width, same_rows
from vaereg._names import Spec
from vaereg.codes import Batch
from vaereg.critics import frozen, input_width
from vaereg.regularizer import CriticRegularizer, detach_batch

__all__ = ["AdversarialClassifier"]


class AdversarialClassifier(CriticRegularizer):
    r"""How much a classifier :math:`q(y \mid z)` reads of a label from a code.

    The classifier is fitted by cross-entropy. The value is, by ``loss``,

    .. math::
        \text{entropy: } H(y) + E \sum_k q_k \log q_k, \qquad
        \text{uniform: } \mathrm{KL}\big(\tfrac1C \,\|\, q\big) =
            -\log C - E\, \tfrac1C \sum_k \log q_k, \qquad
        \text{cross\_entropy: } H(y) - E[-\log q_y].

    ``entropy`` is CSVAE's estimate of :math:`I(z; y)`; ``uniform`` is 0 where the classifier is
    undecided; ``cross_entropy`` is the Barber-Agakov lower bound on :math:`I(z; y)`, whose
    penalty is the Fader network's. All are means over the labelled rows; without labelled rows the
    value is 0 with zero gradient. :math:`H(y)` is the entropy of the batch's own label
    frequencies, or of ``probabilities``; it has no gradient.

    Args:
        code: The code that the classifier reads, flattened.
        label: A label from :func:`vaereg.labels`, ``(B, C)``.
        critic: The classifier, ``(B, D) -> (B, C)`` logits.
        loss: Which of the three quantities is the value.
        probabilities: Class probabilities of the whole data set, for :math:`H(y)`; ``(C,)``.

    Raises:
        ValueError: If ``loss`` is unknown or the probabilities do not sum to 1.

    References:
        | Learning Latent Subspaces in Variational Autoencoders (Klys et al., 2018), eq 8.
        | https://arxiv.org/abs/1812.06190
        | Fader Networks (Lample et al., 2017), eqs 2 and 3. https://arxiv.org/abs/1706.00409

    Example:
        >>> import vaereg
        >>> term = AdversarialClassifier("z", "y", critic=vaereg.critics.mlp(2, 3))
        >>> y = vaereg.labels(torch.tensor([0, 1, -1, 2]), classes=3)
        >>> term.critic_loss({"z": torch.randn(4, 2), "y": y}).shape
        torch.Size([])
    """

    measures_information = True
    skips_missing = True
    probabilities: Tensor | None

    def __init__(
        self,
        code: Spec,
        label: Spec,
        *,
        critic: nn.Module,
        loss: Literal["entropy", "uniform", "cross_entropy"] = "entropy",
        probabilities: Tensor | None = None,
    ) -> None:
        super().__init__(code, label, critic=critic)
        if loss not in ("entropy", "uniform", "cross_entropy"):
            raise ValueError(
                f"{self.name}: expected loss to be entropy, uniform or cross_entropy, got {loss!r}"
            )
        total = 1.0 if probabilities is None else float(probabilities.sum())
        if abs(total - 1.0) > 1e-4:
            raise ValueError(f"{self.name}: expected probabilities that sum to 1, got {total}")
        self.loss = loss
        # The KL to the uniform law is not 0 for independent labels of unequal frequencies.
        self.measures_information = loss != "uniform"
        self.register_buffer("probabilities", probabilities)

    def _read(self, critic: nn.Module, batch: Batch, *, freeze: bool) -> tuple[Tensor, Tensor]:
        """Log-probabilities and one-hot labels, ``(B, C)`` each."""
        code, label = self.variables
        z, y = code.values(batch), label.values(batch).detach()
        same_rows(self.name, **{code.text: z, label.text: y})
        if y.ndim != 2:
            raise ValueError(
                f"{self.name}: expected label {label.text!r} of shape (B, C), got "
                f"{tuple(y.shape)}; turn several labels into one joint label"
            )
        check_width(self.name, [(code.text, z.shape[1:].numel())], input_width(critic))
        read: Callable[..., Tensor] = frozen(critic) if freeze else critic
        logits = read(z.flatten(1))
        if logits.shape != y.shape:
            raise ValueError(
                f"{self.name}: expected label {label.text!r} of the shape of the critic's logits "
                f"{tuple(logits.shape)}, got {tuple(y.shape)}"
            )
        if self.probabilities is not None and self.probabilities.shape != y.shape[1:]:
            raise ValueError(
                f"{self.name}: expected label {label.text!r} of as many classes as probabilities, "
                f"{self.probabilities.numel()}, got {y.shape[1]}"
            )
        wide = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(wide).log_softmax(1), y.to(wide)

    def _labelled_mean(self, rows: Tensor, y: Tensor) -> Tensor:
        # A missing label is an all-zero row; a label out of range is NaN and shows in the value.
        weight = y.sum(1)
        return (weight * rows).sum() / weight.sum().clamp(min=1.0)

    def _entropy(self, y: Tensor) -> Tensor:
        known = self.probabilities
        share = y.sum(0) / y.sum().clamp(min=1.0) if known is None else known.to(y)
        return torch.special.entr(share).sum()  # pyright: ignore

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The quantity, a scalar in nats; gradients reach the code only."""
        log_q, y = self._read(self.critic, batch, freeze=True)
        # Without labelled rows nothing can be said; NaN, from a label out of range, passes.
        some = y.sum().clamp(max=1.0)
        if self.loss == "uniform":
            return self._labelled_mean(-math.log(y.shape[1]) - log_q.mean(1), y)
        if self.loss == "entropy":
            return some * self._entropy(y) + self._labelled_mean((log_q.exp() * log_q).sum(1), y)
        return some * self._entropy(y) + self._labelled_mean((y * log_q).sum(1), y)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The classifier's cross-entropy over labelled rows, a scalar in nats."""
        log_q, y = self._read(self.critic, detach_batch(batch), freeze=False)
        return -self._labelled_mean((y * log_q).sum(1), y)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``accuracy`` of the classifier on labelled rows, and its ``cross_entropy``."""
        log_q, y = self._read(self.critic, batch, freeze=True)
        hit = (log_q.argmax(1) == y.argmax(1)).to(y)
        return {
            "accuracy": self._labelled_mean(hit, y).detach(),
            "cross_entropy": -self._labelled_mean((y * log_q).sum(1), y).detach(),
        }

    def validate(self, batch: Batch) -> None:
        """Also checks that the label is one-hot, in range and of two classes at least.

        Raises:
            ValueError: Naming the label and what is wrong with it.
        """
        super().validate(batch)
        label = self.variables[1]
        check_one_hot(self.name, label.text, label.values(batch))
