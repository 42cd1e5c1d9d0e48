r"""Mutual information of a code through a model that reads it back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vaereg._checks import Variable, check_one_hot, check_width, same_rows
from vaereg._names import Spec
from vaereg.codes import Batch, Code
from vaereg.critics import frozen, input_width, read_input
from vaereg.functional.entropies import categorical_entropy
from vaereg.functional.parts import (
    Part,
    Prediction,
    explained,
    parts_entropy,
    row_accuracy,
    row_likelihood,
    row_weights,
    split_prediction,
)
from vaereg.functional.variational import barber_agakov
from vaereg.regularizer import CriticRegularizer, Regularizer, detach_batch, zero_like

__all__ = ["VariationalMI"]


class VariationalMI(CriticRegularizer):
    r"""Mutual information of a code and what is made of it, by the Barber-Agakov bound.

    .. math:: I(v; g) \ge H(v) + \frac1B \sum_i \log Q(v_i \mid g_i)

    for the code :math:`v` and the given variable :math:`g`: the bound of InfoGAN. The critic
    :math:`Q` reads :math:`v` back from :math:`g` and is fitted by its likelihood.

    The code is a variable, a part or a joint of: a label (one-hot, a row of zeros where it is
    missing); a code of :func:`vaereg.categorical`, whose (relaxed) sample weighs the critic's
    log-probabilities, :math:`\sum_k v_{ik} \log \operatorname{softmax}(l(g_i))_k`; a code of
    :func:`vaereg.gaussian`; a draw from a prior, ``Code(value, None, p)``. Parts of a joint are
    taken to be independent given the row, as an encoder's are.

    The relaxed sample of a categorical code is less certain than the code: with it the value stays
    below the information even at the best critic, by more the higher the temperature (of a 10-ary
    channel of 1.36 nats 1.15 at temperature 0.5 and 0.63 at 1, the critic exact). To report nats
    of information, read the code with ``hard=True``.

    :math:`H(v)` is what is known of it from below, so that the value stays a lower bound on
    average: of labels and categorical posteriors the entropy of the batch mean (or of
    ``probabilities``); with Gaussian posteriors that of the batch's mixture, see
    :func:`vaereg.functional.mixture_entropy`, which no more than :math:`\log B` exceeds
    :math:`H(v \mid x)`, so that large information wants large batches; of a prior draw the prior's
    own. A continuous code of another kind needs ``entropy="none"``. Of a code that is decoded, the
    value may exceed the information of code and *data*: a decoder prints what it is given.

    The mean is over the rows that are present. Without any, the value is 0 with zero gradient. One
    row alone has the value of its own equation: a label of one class has :math:`H(v) = 0`, so that
    the value is a log-likelihood and not positive.

    Args:
        code: The code: ``"c"``, a part ``"z[:2]"``, or a joint ``("z[:2]", "c")``. A part of a
            categorical code is one of several variables ``(B, G, K)``.
        given: The variable that the critic reads it from; flattened where the critic's first layer
            is a linear map.
        critic: The network, ``(B, *)`` to ``(B, n)``: logits for a categorical part, mean and
            log-variance (clamped softly) for a continuous one, concatenated along dim 1 in the
            code's order. Or it returns a distribution (built with ``validate_args=False``), or a
            tuple of tensors and distributions, one a part. See
            :class:`vaereg.critics.GaussianHead`.
        shared: The critic is part of the user's own model, such as the encoder's head: it is
            neither registered nor frozen, so that :meth:`forward` trains it together with the
            model, and the critic loss is 0. Such a term must be a reward: as a penalty it would
            teach the network to misread.
        entropy: ``trained``: :math:`H(v)` is in the value and in the gradient, which is then the
            bound's own; ``detached``: in the value only, as where the papers take it for constant:
            a reward of an encoder's code is then paid for a code that is one class for all, or
            whose variances vanish; ``none``: in neither, and the value is the mean log-likelihood.
            Of labels and prior draws the first two are the same.
        probabilities: Class probabilities of the whole data set, for :math:`H(v)` of one
            categorical variable; ``(C,)``.
        logvar_range: Ends of the log-variance that a tensor holds.

    Raises:
        ValueError: If ``entropy`` is unknown, the probabilities do not sum to 1 or ``code`` is a
            joint or a part beside them, or the range is empty.

    References:
        | The IM Algorithm: A Variational Approach to Information Maximization (Barber and Agakov,
          2003).
        | InfoGAN (Chen et al., 2016), eqs 4 and 5. https://arxiv.org/abs/1606.03657

    Example:
        >>> import vaereg
        >>> term = VariationalMI(("z[:2]", "c"), given="x", critic=vaereg.critics.mlp(8, 4 + 3))
        >>> c = vaereg.categorical(torch.zeros(4, 3), temperature=0.5)
        >>> z = vaereg.gaussian(torch.zeros(4, 10))
        >>> term({"z": z, "c": c, "x": torch.randn(4, 8)}).shape
        torch.Size([])
    """

    measures_information = True
    skips_missing = True
    probabilities: Tensor | None

    def __init__(
        self,
        code: Spec,
        given: Spec,
        *,
        critic: nn.Module,
        shared: bool = False,
        entropy: Literal["trained", "detached", "none"] = "trained",
        probabilities: Tensor | None = None,
        logvar_range: tuple[float, float] = (-10.0, 10.0),
    ) -> None:
        if shared:
            # The critic stays its owner's: no check, no registration, no freezing.
            Regularizer.__init__(self, code, given)
            object.__setattr__(self, "critic", critic)
        else:
            super().__init__(code, given, critic=critic)
        self.code_parts = tuple(Variable(text, self.name) for text in self.variables[0].texts)
        _check_apart(self.name, self.code_parts)
        if entropy not in ("detached", "trained", "none"):
            raise ValueError(
                f"{self.name}: expected entropy to be detached, trained or none, got {entropy!r}"
            )
        if probabilities is not None:
            total, least = float(probabilities.sum()), float(probabilities.min())
            # Written so that nan fails too.
            if probabilities.ndim != 1 or not (abs(total - 1.0) <= 1e-4 and least >= 0.0):
                raise ValueError(
                    f"{self.name}: expected probabilities (C,) that are not negative and sum to "
                    f"1, got shape {tuple(probabilities.shape)}, sum {total}, least {least}"
                )
        if probabilities is not None and len(self.code_parts) > 1:
            raise ValueError(
                f"{self.name}: expected one whole variable as the code beside probabilities, got "
                f"{code!r}"
            )
        low, high = logvar_range
        if not -80.0 <= low < high <= 80.0:
            raise ValueError(
                f"{self.name}: expected logvar_range of low < high in [-80, 80], got "
                f"{logvar_range}"
            )
        self.shared = self.reward_only = shared
        self.entropy = entropy
        self.logvar_range = (float(low), float(high))
        # Without H(v) the value is a log-likelihood, below 0 whatever the dependence.
        self.measures_information = entropy != "none"
        self.register_buffer("probabilities", probabilities)

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """The critic's parameters; none where it is shared."""
        return iter(()) if self.shared else self.critic.parameters()

    def _parts(self, batch: Batch) -> list[Part]:
        self.variables[0].values(batch)  # a joint's rows agree
        found: list[Part] = []
        for variable in self.code_parts:
            (_, name, index), value = variable.parts[0], variable.values(batch)
            entry = batch[name]
            if isinstance(entry, Code):
                if entry.fixed and entry.p is not None and self.entropy != "none":
                    # Its prior is not its distribution: the prior's entropy would bound nothing.
                    raise TypeError(
                        f"{self.name}: expected code {variable.text!r} with a posterior, or a "
                        "draw of a prior, got a deterministic one, whose entropy is not known; "
                        "entropy='none' needs none"
                    )
                part = Part(variable.text, entry.value, index, q=entry.q, p=entry.p)
            else:
                part = Part(variable.text, entry, index, label=True)
            # Along dim 1 there are classes, or several variables, each with its classes.
            if part.discrete and value.ndim != 3 and (value.ndim != 2 or index is not None):
                raise ValueError(
                    f"{self.name}: expected discrete code {part.name!r} of shape (B, C) as a "
                    f"whole or of shape (B, G, C), got {tuple(value.shape)}; a tensor is a label, "
                    "a continuous code is a Code (see vaereg.gaussian)"
                )
            if part.gaussian or (part.q is not None and part.discrete):
                shape = part.base.logits.shape if part.discrete else part.base.loc.shape
                if shape != part.whole.shape:
                    raise ValueError(
                        f"{self.name}: expected code {part.name!r} of the shape of its posterior, "
                        f"{tuple(shape)}, got {tuple(part.whole.shape)}"
                    )
            found.append(part)
        return found

    def _read(
        self, batch: Batch, *, freeze: bool
    ) -> tuple[list[Part], list[tuple[Part, Prediction]], Tensor, Tensor]:
        """The code's parts, what the critic says of each, and of each row the log-likelihood and
        the weight, ``(B,)``: 0 where a label is missing.
        """
        parts, (code, given) = self._parts(batch), self.variables
        g = given.values(batch)
        same_rows(self.name, **{code.text: parts[0].whole, given.text: g})
        width = (given.text, g.shape[1:].numel())
        check_width(self.name, [width], input_width(self.critic))
        critic: Callable[..., object] = frozen(self.critic) if freeze else self.critic
        said = split_prediction(self.name, parts, critic(read_input(self.critic, g)))
        rows = torch.stack([row_likelihood(part, one, self.logvar_range) for part, one in said])
        return parts, said, rows.sum(0), row_weights(parts).to(rows)

    def _entropy(self, parts: list[Part], weights: Tensor) -> Tensor:
        known, part = self.probabilities, parts[0]
        if known is None:
            return parts_entropy(self.name, parts, weights)
        if not part.discrete or part.value.shape[1:] != known.shape:
            raise ValueError(
                f"{self.name}: expected code {part.name!r} of the shape of probabilities, "
                f"{(len(part.value), *known.shape)}, got {tuple(part.value.shape)}"
            )
        return categorical_entropy(known.to(weights).unsqueeze(0))

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The bound, a scalar in nats; gradients reach code and given variable (and a shared
        critic).
        """
        # Where no gradient is wanted, as at weight 0, a shared network's buffers stay as they are.
        freeze = not self.shared or not torch.is_grad_enabled()
        parts, _, rows, weights = self._read(batch, freeze=freeze)
        if self.entropy == "none":
            return barber_agakov(rows, 0.0, weights)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.entropy == "trained"):
            entropy = self._entropy(parts, weights)
        return barber_agakov(rows, entropy, weights)

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """Minus the critic's mean log-likelihood of rows present, a scalar in nats; 0 where it is
        shared.
        """
        batch = detach_batch(batch)
        if self.shared:
            return zero_like(self.variables[1].values(batch))
        _, _, rows, weights = self._read(batch, freeze=False)
        return -barber_agakov(rows, 0.0, weights)

    @torch.no_grad()
    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """The ``entropy`` :math:`H(v)`, if known. Of rows present: the critic's ``accuracy`` on
        discrete parts; for a code with continuous parts the ``log_likelihood`` and, where the
        critic is Gaussian, ``explained``, the share of variance that its mean explains, ``(D,)``.
        """
        parts, said, rows, weights = self._read(batch, freeze=True)
        found: dict[str, Tensor] = {}
        if self.entropy != "none":
            found["entropy"] = self._entropy(parts, weights)
        else:
            with contextlib.suppress(TypeError, ValueError):
                found["entropy"] = self._entropy(parts, weights)
        hits = [row_accuracy(*pair) for pair in said if pair[0].discrete]
        if hits:
            found["accuracy"] = barber_agakov(torch.stack(hits).mean(0).to(rows), 0.0, weights)
        if len(hits) < len(said):
            found["log_likelihood"] = barber_agakov(rows, 0.0, weights)
        shares = [explained(*pair, weights) for pair in said if not pair[0].discrete]
        known = [share for share in shares if share is not None]
        if known:
            found["explained"] = torch.cat(known)
        return found

    def validate(self, batch: Batch) -> None:
        """Also checks that a label is one-hot, in range and of two classes at least, that a
        posterior has a positive spread, and that :math:`H(v)` is known.

        Raises:
            TypeError: If :math:`H(v)` is wanted of a code for which it is not known.
            ValueError: Naming the variable and what is wrong with it.
        """
        super().validate(batch)
        parts = self._parts(batch)
        for part in parts:
            if part.label:
                for y in part.value.unbind(1) if part.value.ndim == 3 else (part.value,):
                    check_one_hot(self.name, part.name, y)
            elif part.gaussian:
                scale = part.take(part.base.scale).detach()
                if not bool(((scale > 0.0) & scale.isfinite()).all()):
                    raise ValueError(
                        f"{self.name}: expected a posterior of code {part.name!r} of positive, "
                        f"finite deviations, got {float(scale.min())} to {float(scale.max())}"
                    )
        if self.entropy != "none":
            with torch.no_grad():
                self._entropy(parts, row_weights(parts))


def _check_apart(term: str, parts: tuple[Variable, ...]) -> None:
    """A coordinate that is given twice would be counted as two independent draws."""
    for k, later in enumerate(parts):
        _, name, index = later.parts[0]
        for earlier in parts[:k]:
            _, other, before = earlier.parts[0]
            if name == other and (index is None or before is None or _meet(index, before)):
                raise ValueError(
                    f"{term}: expected parts of the code that do not overlap, got "
                    f"{earlier.text!r} and {later.text!r}"
                )


def _meet(a: Any, b: Any) -> bool:
    """Whether two indices share a coordinate, as far as that is known without the width."""
    one, two = _places(a), _places(b)
    if one is None or two is None:  # an open end, or one from the end
        return a == b
    return bool(one & two)


def _places(index: Any) -> set[int] | None:
    if isinstance(index, slice):
        ends = cast("slice[int | None, int | None, None]", index)
        start, stop = ends.start or 0, ends.stop
        return None if stop is None or stop < 0 or start < 0 else set(range(start, stop))
    places = set(cast("list[int]", index))
    return None if min(places, default=0) < 0 else places
