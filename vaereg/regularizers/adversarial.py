r"""Density ratios and games through a discriminator: FactorVAE, AAE, WAE-GAN, ALI."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaereg._checks import Variable, check_width, same_rows
from vaereg._names import Spec
from vaereg.codes import Batch, Code
from vaereg.critics import frozen, input_width, read_input
from vaereg.functional.mmd import prior_draws
from vaereg.regularizer import CriticRegularizer, detach_batch, zero_like

__all__ = ["Adversary", "DensityRatioTC"]


class DensityRatioTC(CriticRegularizer):
    r"""The total correlation of a code by the density-ratio trick (FactorVAE).

    .. math:: \mathrm{TC} = \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)
        \approx \frac1B \sum_i \log \frac{D(z_i)}{1 - D(z_i)} = \frac1B \sum_i (l_0 - l_1)(z_i)

    The critic tells rows of :math:`q(z)` (class 0, probability :math:`D`) from rows of the
    product of the marginals (class 1), and is fitted by

    .. math:: \tfrac12 \big[ \mathrm{CE}(z, 0) + \mathrm{CE}(z', 1) \big]

    where :math:`z'` are the rows of ``other`` if one is given, else those of the batch, each
    column permuted by itself; there may be more or fewer of them, but with fewer than two the loss
    is 0 with zero gradient. The value is no bound: a critic that lags behind shows too little.
    Numbers that depend on each other by construction, as in a one-hot code, have no place here.

    Args:
        code: The code, flattened to ``D``; a part; or several codes. Only its sample is read.
        critic: The discriminator, ``(B, D) -> (B, 2)`` logits, or one logit :math:`l_0 - l_1`,
            ``(B, 1)`` or ``(B,)``.

    References:
        | Disentangling by Factorising (Kim and Mnih, 2018), eq 3 and algorithms 1 and 2.
        | https://arxiv.org/abs/1802.05983

    Example:
        >>> import vaereg
        >>> term = DensityRatioTC("z", critic=vaereg.critics.mlp(3, 2))
        >>> batch = {"z": vaereg.gaussian(torch.randn(8, 6))}
        >>> term(batch).shape, term.critic_loss(batch).item() > 0.0
        (torch.Size([]), True)
    """

    def __init__(self, code: Spec, *, critic: nn.Module) -> None:
        super().__init__(code, critic=critic)

    def _values(self, batch: Batch) -> Tensor:
        variable = self.variables[0]
        z = variable.values(batch).flatten(1)
        check_width(self.name, [(variable.text, z.shape[1])], input_width(self.critic))
        return z

    def _log_ratio(self, z: Tensor, *, freeze: bool) -> Tensor:
        """The critic's :math:`l_0 - l_1`, ``(B,)``, in float32 at least."""
        critic: Callable[..., Tensor] = frozen(self.critic) if freeze else self.critic
        logits = critic(z)
        if logits.shape not in ((z.shape[0], 2), (z.shape[0], 1), (z.shape[0],)):
            raise ValueError(
                f"{self.name}: expected two logits (or one) a row of {self.variables[0].text!r} "
                f"from the critic, shape ({z.shape[0]}, 2), got {tuple(logits.shape)}"
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits[:, 0] - logits[:, 1] if logits.shape[1:] == (2,) else logits.flatten()

    def _both(self, batch: Batch, other: Batch | None, *, freeze: bool) -> tuple[Tensor, Tensor]:
        """Log-ratios of rows of the code and of permuted rows; none where one row is all."""
        z = self._values(batch)
        source = z if other is None else self._values(other)
        if source.shape[1] != z.shape[1]:
            raise ValueError(
                f"{self.name}: expected variable {self.variables[0].text!r} of the other batch of "
                f"{z.shape[1]} numbers a row, got {source.shape[1]}"
            )
        if source.shape[0] < 2:
            return self._log_ratio(z, freeze=freeze), z.new_empty(0)
        product = source.gather(0, torch.rand_like(source, dtype=torch.float32).argsort(0))
        # One pass costs less, and what moves in the critic with each pass is the same for both.
        ratio = self._log_ratio(torch.cat((z, product)), freeze=freeze)
        return ratio[: z.shape[0]], ratio[z.shape[0] :]

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The mean log-ratio, a scalar in nats; gradients reach the code only."""
        return self._log_ratio(self._values(batch), freeze=True).mean()

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The discriminator's cross-entropy, a scalar in nats; log 2 where it tells nothing."""
        other = None if other is None else detach_batch(other)
        joint, product = self._both(detach_batch(batch), other, freeze=False)
        if not product.numel():
            return zero_like(joint)
        return 0.5 * (F.softplus(-joint).mean() + F.softplus(product).mean())

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``accuracy``, ``accuracy_joint``, ``accuracy_product``; none where nothing permutes."""
        joint, product = self._both(batch, other, freeze=True)
        return _accuracies("joint", joint, "product", product) if product.numel() else {}


class Adversary(CriticRegularizer):
    r"""The generator's loss in a game of fake against real rows.

    The critic's logit :math:`s`, :math:`D = \operatorname{sigmoid}(s)`, is to be high on real rows
    :math:`r` and low on fake ones :math:`f`. It is fitted by

    .. math:: \text{nonsaturating, js: } E\, \zeta(-s_r) + E\, \zeta(s_f), \qquad
        \text{hinge: } E \max(0, 1 - s_r) + E \max(0, 1 + s_f)

    with :math:`\zeta(s) = \log(1 + e^s)`, and the value is, with the terms in brackets for
    ``sides="both"``, which move the real side towards the fake one,

    .. math:: \text{nonsaturating: } E\, \zeta(-s_f) \; [+ E\, \zeta(s_r)], \qquad
        \text{hinge: } -E\, s_f \; [+ E\, s_r], \qquad
        \text{js: } E \log D_r + E \log(1 - D_f).

    ``js`` is the minimax value, always of both sides: :math:`2 \,\mathrm{JS} - \log 4` at the best
    critic, with a gradient that vanishes where that is sure. Where the sides agree, :math:`s = 0`,
    the critic losses are :math:`\log 4` and 2, and the values of the fake side :math:`\log 2` and
    0, of ``js`` :math:`-\log 4`. All are in nats but for the hinge.

    With ``real=None`` the real rows are as many draws from the fake code's own prior: the game of
    AAE and WAE-GAN. With two joints and both sides it is ALI's. Each side is a mean over as many
    rows as it has.

    Args:
        real: The real variable, or ``None`` for draws from the prior of ``fake``.
        fake: The fake variable: a code, a reconstruction, or a joint such as ``("x", "z")``.
        critic: The discriminator, one logit a row. With one argument it receives the variable,
            flattened where its first layer is a linear map, and a joint flattened and
            concatenated; with one for each part of a joint, the parts as they are.
        loss: Which losses.
        sides: Whether the value has the fake side only or both, as it must wherever the real side
            has parameters that are to learn: an inference network (ALI), a learned prior.

    Raises:
        ValueError: If ``loss`` or ``sides`` is unknown, real and fake differ in parts, or the
            critic takes neither one argument nor one for each part.

    References:
        | Generative Adversarial Nets (Goodfellow et al., 2014), eq 1 (``js``) and section 3
          (``nonsaturating``). https://arxiv.org/abs/1406.2661
        | Spectral Normalization for Generative Adversarial Networks (Miyato et al., 2018), eqs 16
          and 17 (``hinge``). https://arxiv.org/abs/1802.05957
        | Adversarial Autoencoders (Makhzani et al., 2015). https://arxiv.org/abs/1511.05644
        | Wasserstein Auto-Encoders (Tolstikhin et al., 2018), algorithm 1.
        | Adversarially Learned Inference (Dumoulin et al., 2017), algorithm 1.

    Example:
        >>> import vaereg
        >>> match = Adversary(None, "z", critic=vaereg.critics.mlp(3, 1))
        >>> batch = {"z": vaereg.gaussian(torch.randn(8, 6))}
        >>> match(batch).shape, match.critic_loss(batch).shape
        (torch.Size([]), torch.Size([]))
    """

    unit = "its own loss"

    def __init__(
        self,
        real: Spec | None,
        fake: Spec,
        *,
        critic: nn.Module,
        loss: Literal["nonsaturating", "hinge", "js"] = "nonsaturating",
        sides: Literal["fake", "both"] = "fake",
    ) -> None:
        if fake is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise ValueError(
                "Adversary: expected the fake variable's name, got None; draws from the prior of "
                'a code are the real side: Adversary(None, "z", critic=...)'
            )
        super().__init__(*(fake,) if real is None else (real, fake), critic=critic)
        if loss not in ("nonsaturating", "hinge", "js"):
            raise ValueError(
                f"{self.name}: expected loss to be nonsaturating, hinge or js, got {loss!r}"
            )
        if sides not in ("fake", "both"):
            raise ValueError(f"{self.name}: expected sides to be fake or both, got {sides!r}")
        parts = len(self.variables[-1].parts)
        if len(self.variables[0].parts) != parts:
            raise ValueError(
                f"{self.name}: expected real and fake of as many parts, got {real!r} and {fake!r}"
            )
        wanted = _arguments(critic)
        if wanted not in (0, 1, parts):  # 0: of unknown arguments, such as *args
            raise ValueError(
                f"{self.name}: expected a critic of one argument, or of one for each part "
                f"({parts}), got one of {wanted}"
            )
        self.loss = loss
        self.sides = "both" if loss == "js" else sides
        self.draws = real is None
        self._split = wanted > 1
        # Read one by one: a joint's values would be concatenated.
        self._single = [[Variable(text, self.name) for text in v.texts] for v in self.variables]

    def _side(self, batch: Batch, side: int, *, draw: bool = False) -> tuple[Tensor, ...]:
        """What the critic receives of one side, or of draws of its prior."""
        single = self._single[side]
        tensors = [v.values(batch) for v in single]
        same_rows(self.name, **{v.text: t for v, t in zip(single, tensors, strict=True)})
        if draw:
            tensors = [self._draw(v, batch) for v in single]
        if self._split:
            return tuple(tensors)
        widths = [(v.text, t.shape[1:].numel()) for v, t in zip(single, tensors, strict=True)]
        check_width(self.name, widths, input_width(self.critic))
        if len(tensors) > 1:
            return (torch.cat([t.flatten(1) for t in tensors], 1),)
        return (read_input(self.critic, tensors[0]),)

    def _check_priors(self, batch: Batch) -> None:
        """Raise where the critic's pass, which draws from them, would."""
        for variable in self._single[0]:
            entry = batch[variable.names[0]]
            if not isinstance(entry, Code) or entry.p is None:
                prior_draws(
                    None, variable.values(batch), f"{self.name}: variable {variable.text!r}"
                )

    def _draw(self, variable: Variable, batch: Batch) -> Tensor:
        ((_, name, index),) = variable.parts
        entry = batch[name]
        prior, value = (entry.p, entry.value) if isinstance(entry, Code) else (None, entry)
        drawn = prior_draws(prior, value, f"{self.name}: variable {name!r}")
        return drawn if index is None else drawn[:, index]

    def _logits(self, batch: Batch, *, freeze: bool, both: bool = True) -> list[Tensor]:
        """Logits of fake and, where asked for, of real rows, in float32 at least."""
        sides = [self._side(batch, -1)]
        if both or not self.draws:
            sides.append(self._side(batch, 0, draw=self.draws))
        else:
            self._check_priors(batch)
        shapes = [[tuple(t.shape[1:]) for t in side] for side in sides]
        if shapes[0] != shapes[-1]:
            raise ValueError(
                f"{self.name}: expected rows of {self.variables[0].text!r} and of "
                f"{self.variables[-1].text!r} of one shape, got {shapes[-1]} and {shapes[0]}"
            )
        if not both:
            sides = sides[:1]  # the real one was read for its shape
        rows, total = sides[0][0].shape[0], sum(side[0].shape[0] for side in sides)
        critic: Callable[..., Tensor] = frozen(self.critic) if freeze else self.critic
        # One pass, as in DensityRatioTC.
        logits = critic(*map(torch.cat, zip(*sides, strict=True)))
        if logits.shape not in ((total,), (total, 1)):
            raise ValueError(
                f"{self.name}: expected one logit a row from the critic, shape ({total},), got "
                f"{tuple(logits.shape)}"
            )
        logits = logits.flatten().to(torch.promote_types(logits.dtype, torch.float32))
        return [logits[:rows], logits[rows:]] if both else [logits]

    def _fitting_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        if self.loss == "hinge":
            return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The generator's loss, a scalar; gradients reach the variables only."""
        fake, *real = self._logits(batch, freeze=True, both=self.sides == "both")
        if self.loss == "js":
            return -self._fitting_loss(fake, *real)
        value = -fake.mean() if self.loss == "hinge" else F.softplus(-fake).mean()
        for logits in real:
            value = value + (logits if self.loss == "hinge" else F.softplus(logits)).mean()
        return value

    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The discriminator's loss, a scalar."""
        return self._fitting_loss(*self._logits(detach_batch(batch), freeze=False))

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """``accuracy`` of the discriminator, ``accuracy_real`` and ``accuracy_fake``."""
        fake, real = self._logits(batch, freeze=True)
        return _accuracies("real", real, "fake", fake)


def _arguments(critic: nn.Module) -> int:
    """The number of positional arguments that the critic cannot do without."""
    found: Any = inspect.signature(critic.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in found)


def _accuracies(high: str, above: Tensor, low: str, below: Tensor) -> dict[str, Tensor]:
    # An undecided critic, all of whose logits are 0, is right about one side: accuracy 1/2.
    sides = ((high, above > 0.0), (low, below <= 0.0))
    found = {f"accuracy_{name}": hits.to(above).mean() for name, hits in sides}
    return {"accuracy": torch.stack(list(found.values())).mean(), **found}
