r"""Mutual information of a discrete code through a model that reads it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, OneHotCategorical

from vaereg._checks import Spec, check_one_hot, check_width, same_rows
from vaereg.codes import Batch, Code
from vaereg.critics import frozen, input_width, read_input
from vaereg.functional.families import base_of
from vaereg.functional.variational import barber_agakov, categorical_log_likelihood
from vaereg.regularizer import CriticRegularizer, Regularizer, detach_batch, zero_like

__all__ = ["VariationalMI"]


class VariationalMI(CriticRegularizer):
    r"""Mutual information of a discrete code and what is made of it, by the Barber-Agakov bound.

    .. math:: I(v; g) \ge H(v)
        + \frac1B \sum_i \sum_k v_{ik} \log \operatorname{softmax}(l(g_i))_k

    for the code :math:`v` and the given variable :math:`g`: the bound of InfoGAN. The critic reads
    :math:`v` back from :math:`g` and is fitted by cross-entropy.

    The code is a label (one-hot, a row of zeros where it is missing) or a code from
    :func:`vaereg.categorical`, whose (relaxed) sample is :math:`v_i` and whose exact posterior
    enters the entropy. :math:`H(v)` is the entropy of the batch mean of the posterior, or of the
    label frequencies, or of ``probabilities``.

    The mean is over the rows that are present. Without any, the value is 0 with zero gradient. One
    row alone has the value of its own equation: a label of one class has :math:`H(v) = 0`, so that
    the value is a log-likelihood and not positive.

    Args:
        code: The discrete code: one whole variable.
        given: The variable that the critic reads it from; flattened where the critic's first layer
            is a linear map.
        critic: The network, ``(B, *) -> (B, C)`` logits.
        shared: The critic is part of the user's own model, such as the encoder's head: it is
            neither registered nor frozen, so that :meth:`forward` trains it together with the
            model, and the critic loss is 0. Such a term must be a reward: as a penalty it would
            teach the network to misread.
        entropy: ``detached``: :math:`H(v)` is in the value but not in the gradient, as in the
            paper; ``trained``: in both; ``none``: in neither, and the value is the mean
            log-likelihood.
        probabilities: Class probabilities of the whole data set, for :math:`H(v)`; ``(C,)``.

    Raises:
        ValueError: If ``entropy`` is unknown, the probabilities do not sum to 1, or ``code`` is a
            joint or a part.

    References:
        | The IM Algorithm: A Variational Approach to Information Maximization (Barber and Agakov,
          2003).
        | InfoGAN (Chen et al., 2016), eqs 4 and 5. https://arxiv.org/abs/1606.03657

    Example:
        >>> import vaereg
        >>> term = VariationalMI("c", given="x_hat", critic=vaereg.critics.mlp(8, 3))
        >>> c = vaereg.categorical(torch.zeros(4, 3), temperature=0.5)
        >>> term({"c": c, "x_hat": torch.randn(4, 8)}).shape
        torch.Size([])
    """

    measures_information = True
    skips_missing = True
    probabilities: Tensor | None

    def __init__(
        self,
        code: Spec,
        *,
        given: Spec,
        critic: nn.Module,
        shared: bool = False,
        entropy: Literal["detached", "trained", "none"] = "detached",
        probabilities: Tensor | None = None,
    ) -> None:
        if shared:
            # The critic stays its owner's: no check, no registration, no freezing.
            Regularizer.__init__(self, code, given)
            object.__setattr__(self, "critic", critic)
        else:
            super().__init__(code, given, critic=critic)
        if len(self.variables[0].parts) != 1 or self.variables[0].parts[0][1] is not None:
            raise ValueError(
                f"{self.name}: expected one whole variable as the code, got {code!r}: the parts "
                "of a categorical code are no categorical codes"
            )
        if entropy not in ("detached", "trained", "none"):
            raise ValueError(
                f"{self.name}: expected entropy to be detached, trained or none, got {entropy!r}"
            )
        total = 1.0 if probabilities is None else float(probabilities.sum())
        if abs(total - 1.0) > 1e-4:
            raise ValueError(f"{self.name}: expected probabilities that sum to 1, got {total}")
        self.shared = shared
        self.entropy = entropy
        # Without H(v) the value is a log-likelihood, below 0 whatever the dependence.
        self.measures_information = entropy != "none"
        self.register_buffer("probabilities", probabilities)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """The critic's parameters; none where it is shared."""
        return iter(()) if self.shared else self.critic.parameters()

    def _code(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """The code ``(B, C)``, the weight of its rows, and the posterior's probabilities."""
        variable = self.variables[0]
        v, entry = variable.values(batch), batch[variable.names[0]]
        if v.ndim != 2:
            raise ValueError(
                f"{self.name}: expected code {variable.text!r} of shape (B, C), got "
                f"{tuple(v.shape)}; use one term for each categorical variable"
            )
        if not isinstance(entry, Code):
            return v, v.detach().sum(1), None
        base: Any = None if entry.q is None else base_of(entry.q)
        if not isinstance(base, (Categorical, OneHotCategorical)):
            found = "no posterior" if base is None else f"a {type(base).__name__} posterior"
            raise ValueError(
                f"{self.name}: expected a discrete code {variable.text!r}, either a one-hot "
                f"tensor (see vaereg.labels) or a Code with a categorical posterior (see "
                f"vaereg.categorical), got a Code with {found}"
            )
        return v, torch.ones_like(v[:, 0]), base.probs

    def _read(self, batch: Batch, *, freeze: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Code and logits ``(B, C)``, the weight of each row ``(B,)``, and the entropy."""
        code, given = self.variables
        v, weight, probs = self._code(batch)
        g = given.values(batch)
        same_rows(self.name, **{code.text: v, given.text: g})
        width = (given.text, g.shape[1:].numel())
        check_width(self.name, [width], input_width(self.critic))
        critic: Callable[..., Tensor] = frozen(self.critic) if freeze else self.critic
        logits = critic(read_input(self.critic, g))
        known = self.probabilities
        for what, shape in (
            ("the critic's logits", logits.shape),
            ("its posterior", v.shape if probs is None else probs.shape),
            ("probabilities", v.shape if known is None else (len(v), *known.shape)),
        ):
            if shape != v.shape:
                raise ValueError(
                    f"{self.name}: expected code {code.text!r} of the shape of {what}, "
                    f"{tuple(shape)}, got {tuple(v.shape)}"
                )
        wide = torch.promote_types(logits.dtype, torch.float32)
        v, weight, logits = v.to(wide), weight.to(wide), logits.to(wide)
        if known is not None:
            share = known.to(wide)
        elif probs is not None:
            share = probs.to(wide).mean(0)
        else:
            share = v.sum(0) / weight.sum().clamp(min=1.0)
        # A class that does not occur has a share of 0, and there a finite gradient.
        entropy = -(share * share.clamp(min=torch.finfo(wide).tiny).log()).sum()
        return v, logits, weight, entropy if self.entropy == "trained" else entropy.detach()

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The bound, a scalar in nats; gradients reach code and given variable (and a shared
        critic).
        """
        v, logits, weight, entropy = self._read(batch, freeze=not self.shared)
        known = entropy if self.entropy != "none" else 0.0
        return barber_agakov(categorical_log_likelihood(v, logits), known, weight)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The critic's cross-entropy over rows present, a scalar in nats; 0 where it is shared."""
        batch = detach_batch(batch)
        if self.shared:
            return zero_like(self.variables[1].values(batch))
        v, logits, weight, _ = self._read(batch, freeze=False)
        return -barber_agakov(categorical_log_likelihood(v, logits), 0.0, weight)

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``accuracy`` of the critic on rows present, and the ``entropy`` :math:`H(v)`."""
        v, logits, weight, entropy = self._read(batch, freeze=True)
        hit = (logits.argmax(1) == v.argmax(1)).to(v)
        return {
            "accuracy": barber_agakov(hit, 0.0, weight).detach(),
            "entropy": entropy.detach(),
        }

    def validate(self, batch: Batch) -> None:
        """Also checks that a label is one-hot, in range and of two classes at least.

        Raises:
            ValueError: Naming the variable and what is wrong with it.
        """
        super().validate(batch)
        v, _, probs = self._code(batch)
        if probs is None:
            check_one_hot(self.name, self.variables[0].text, v)
