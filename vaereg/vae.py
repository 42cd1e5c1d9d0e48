r"""A thin module that binds any encoder and decoder to an objective."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaereg.codes import Code, StandardNormal, gaussian
from vaereg.functional.likelihoods import bernoulli_nll, gaussian_nll
from vaereg.objective import Objective
from vaereg.report import Report

__all__ = ["VAE", "VAEOutput"]

Likelihood: TypeAlias = "Literal['bernoulli', 'gaussian'] | Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True)
class VAEOutput:
    r"""One pass of a :class:`VAE`.

    Attributes:
        loss: ``nll + report.total``, to be minimised.
        nll: Negative log-likelihood, batch mean, event sum, in nats.
        report: The objective's report.
        codes: The codes by name.
        x_hat: The reconstruction on the scale of ``x``: the likelihood's mean.
        batch: All named variables, for :meth:`vaereg.Objective.critic_step`.
    """

    loss: Tensor
    nll: Tensor
    report: Report
    codes: dict[str, Code]
    x_hat: Tensor
    batch: dict[str, Code | Tensor]


def _unwrapped(module: nn.Module) -> nn.Module:
    # Wrappers for parallelism and compilation hide the signature behind *args, **kwargs.
    for attribute in ("module", "_orig_mod"):
        inner = getattr(module, attribute, None)
        if isinstance(inner, nn.Module) and attribute in dict(module.named_children()):
            kinds = {p.kind for p in inspect.signature(module.forward).parameters.values()}
            if attribute == "_orig_mod" or inspect.Parameter.VAR_KEYWORD in kinds:
                return _unwrapped(inner)
    return module


class _Asked:
    """Which named inputs a network's signature asks for."""

    def __init__(self, module: nn.Module) -> None:
        parameters = inspect.signature(_unwrapped(module).forward).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self.names = [p.name for p in parameters if p.kind in named]
        self.required = {p.name for p in parameters if p.kind in named and p.default is p.empty}
        self.takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)

    def pick(self, available: Mapping[str, Any]) -> dict[str, Any]:
        return {n: v for n, v in available.items() if self.takes_all or n in self.names}


class VAE(nn.Module):
    r"""Any encoder and decoder with an objective.

    .. math:: \text{loss} = -E_{q(z \mid x)} \log p(x \mid z) + \sum_k w_k R_k

    The encoder is called with ``x`` and, by name, with those observed variables that its signature
    asks for. It returns a tensor (mean and log-variance along dim 1), a ``(mean, logvar)`` pair, a
    distribution or a :class:`~vaereg.Code`, which becomes the code ``"z"``; or a mapping of names
    to any of these. The decoder receives codes and observed variables by name where its signature
    names them; if it names no code, all codes are concatenated along dim 1 in the encoder's order
    and given as its first argument; those of different numbers of dimensions, as several
    categorical variables beside a Gaussian code, are flattened first.

    Args:
        encoder: The encoder.
        decoder: The decoder; its output parametrises the likelihood.
        objective: The terms added to the negative log-likelihood, the KL among them.
        likelihood: ``"bernoulli"`` (the decoder returns logits), ``"gaussian"`` (the mean, unit
            variance), or a callable ``(decoder output, x) -> scalar`` or ``-> (B,)`` in nats.

    Raises:
        TypeError: If a part is of the wrong kind.
        ValueError: If the likelihood is unknown.

    Example:
        >>> import vaereg
        >>> vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6), vaereg.Objective(kl=vaereg.KL("z")),
        ...           likelihood="gaussian")
        >>> out = vae(torch.rand(8, 6))
        >>> out.loss.backward()
        >>> out.codes["z"].value.shape
        torch.Size([8, 2])
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        objective: Objective,
        *,
        likelihood: Likelihood = "bernoulli",
    ) -> None:
        super().__init__()
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(part, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"VAE: expected {name} to be a torch.nn.Module, got {part!r}")
        if not isinstance(objective, Objective):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"VAE: expected objective to be a vaereg.Objective, got {type(objective).__name__}"
            )
        if not callable(likelihood) and likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(
                "VAE: expected likelihood 'bernoulli', 'gaussian' or a callable, got "
                f"{likelihood!r}"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.objective = objective
        self.likelihood = likelihood
        self._encoder_asks = _Asked(encoder)
        self._decoder_asks = _Asked(decoder)
        self._validated = False
        self._prior_shapes: dict[str, tuple[int, ...]] = {}
        self._standard: set[str] = set()
        self._warn_of_strangers()

    def _warn_of_strangers(self) -> None:
        """A shared network that is in neither encoder nor decoder is trained by nobody here."""
        own = {id(p) for part in (self.encoder, self.decoder) for p in part.parameters()}
        for name in self.objective:
            term = self.objective[name]
            critic = getattr(term, "critic", None)
            if not (term.reward_only and isinstance(critic, nn.Module)):
                continue
            if any(id(p) not in own for p in critic.parameters()):
                warnings.warn(
                    f"VAE: the critic that {name!r} shares is part of neither encoder nor "
                    "decoder, so that main_parameters() and state_dict() do not hold it: make it "
                    "part of one of them, give it to an optimizer and a checkpoint yourself, or "
                    "leave shared=False",
                    UserWarning,
                    stacklevel=3,
                )

    @property
    def observed(self) -> frozenset[str] | None:
        """Names that encoder and decoder ask for and terms read, codes among them; None where one
        of the networks takes any, or a term is a plain function.

        Example:
            >>> import vaereg
            >>> VAE(nn.Linear(2, 4), nn.Linear(2, 2), vaereg.Objective(kl=vaereg.KL("z"))).observed
            frozenset({'z'})
        """
        if self._encoder_asks.takes_all or self._decoder_asks.takes_all:
            return None
        read: set[str] = set()
        for name in self.objective:
            term = self.objective[name]
            term = getattr(term, "term", term)  # what a constraint holds
            if not getattr(term, "variables", ()):
                return None
            read.update(name for variable in term.variables for name in variable.names)
        return frozenset(read.union(self._encoder_asks.names[1:], self._decoder_asks.names[1:]))

    def main_parameters(self) -> list[nn.Parameter]:
        """Parameters for the main optimizer: encoder, decoder, learned priors; no critic.

        Example:
            >>> import vaereg
            >>> objective = vaereg.Objective(
            ...     kl=vaereg.KL("z"), leak=vaereg.JSD("z", "y", critic=nn.Linear(3, 1)))
            >>> len(VAE(nn.Linear(2, 4), nn.Linear(2, 2), objective).main_parameters())
            4
        """
        critics = {id(p) for p in self.objective.critic_parameters()}
        return [p for p in self.parameters() if id(p) not in critics]

    def encode(self, x: Tensor, *, step: int | Tensor = 0, **observed: Tensor) -> dict[str, Code]:
        """The codes of ``x`` by name.

        Args:
            x: Data, ``(B, *event)``.
            step: The training step, for encoders that ask for it (e.g. a temperature).
            observed: Observed variables by name.

        Raises:
            TypeError: If the encoder returns something that is no code.
            ValueError: If the encoder asks for a variable that is not given.
        """
        asks = self._encoder_asks
        given = asks.pick({"step": step, **observed})
        first = asks.names[:1]
        missing = asks.required - set(given) - set(first)
        if missing:
            raise ValueError(
                f"VAE: the encoder asks for {sorted(missing)}, expected them as keywords, got "
                f"{sorted(observed)}"
            )
        out: Any = self.encoder(x, **given)
        named: Mapping[str, Any] = {"z": out}
        if isinstance(out, Mapping):
            mapping = cast("Mapping[str, Any]", out)
            named = named if set(mapping) == {"mean", "logvar"} else mapping
        return {name: _as_code(name, entry) for name, entry in named.items()}

    def _decode(self, values: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tensor:
        asks = self._decoder_asks
        if asks.takes_all or any(name in asks.names for name in values):
            given = asks.pick({**values, **observed})
            missing = asks.required - set(given)
            if missing:
                raise ValueError(
                    f"VAE: the decoder asks for {sorted(missing)}, got {sorted(given)}"
                )
            unread = sorted(set(values) - set(given))
            if unread:
                raise ValueError(
                    f"VAE: expected a decoder that names all codes {sorted(values)} or none of "
                    f"them, got one that leaves out {unread}"
                )
            return self.decoder(**given)
        tensors = list(values.values())
        if len({value.ndim for value in tensors}) > 1:
            tensors = [value.flatten(1) for value in tensors]  # (B, G, K) beside (B, D)
        joint = tensors[0] if len(tensors) == 1 else torch.cat(tensors, 1)
        given = asks.pick(observed)
        missing = asks.required - set(given) - set(asks.names[:1])
        if missing:
            raise ValueError(
                f"VAE: the decoder asks for {sorted(missing)}, got codes {sorted(values)} and "
                f"{sorted(observed)}"
            )
        return self.decoder(joint, **given)

    def _mean(self, output: Tensor) -> Tensor:
        return output.sigmoid() if self.likelihood == "bernoulli" else output

    def decode(self, codes: Mapping[str, Code | Tensor] | Tensor, **observed: Tensor) -> Tensor:
        """The likelihood's mean for given codes, on the scale of ``x``.

        Args:
            codes: Codes or values by name, or one tensor for the code ``"z"``.
            observed: Observed variables by name.
        """
        named: Mapping[str, Code | Tensor] = {"z": codes} if isinstance(codes, Tensor) else codes
        values = {n: c.value if isinstance(c, Code) else c for n, c in named.items()}
        return self._mean(self._decode(values, observed))

    def sample(
        self, n: int, *, priors: Mapping[str, Distribution] | None = None, **observed: Tensor
    ) -> Tensor:
        """Decode ``n`` draws from the prior.

        Args:
            n: Number of samples.
            priors: A prior for each code that is not standard normal, of batch shape ``()`` or
                ``(n,)``, e.g. :math:`p(c \\mid y)`; the others are drawn from the standard normal.
            observed: Observed variables by name, ``n`` rows each.

        Returns:
            The likelihood's mean, ``(n, *event)``.

        Raises:
            ValueError: If the codes are not known yet, a name is unknown, or a code whose prior is
                not the default one is not given its prior.
        """
        priors = dict(priors or {})
        shapes = self._prior_shapes
        if not shapes and not priors:
            raise ValueError(
                "VAE: expected a forward pass before sample(), or priors for all codes"
            )
        unknown = set(priors) - set(shapes) if shapes else set[str]()
        if unknown:
            raise ValueError(f"VAE: expected priors among {sorted(shapes)}, got {sorted(unknown)}")
        like = next(self.parameters())
        values: dict[str, Tensor] = {}
        for name in shapes or priors:
            if name in priors:
                values[name] = _draw(name, priors[name], n, shapes.get(name))
            elif name not in self._standard:
                raise ValueError(
                    f"VAE: expected a prior for code {name!r}, whose prior is not the standard "
                    f"normal: sample({n}, priors={{{name!r}: ...}})"
                )
            else:
                values[name] = torch.randn(n, *shapes[name], device=like.device, dtype=like.dtype)
        return self._mean(self._decode(values, observed))

    def _explain(self, batch: Mapping[str, Code | Tensor]) -> None:
        self._validate_data(cast(Tensor, batch["x"]))
        self.objective.validate(batch)

    def _nll(self, output: Tensor, x: Tensor) -> Tensor:
        if self.likelihood == "bernoulli":
            return bernoulli_nll(output, x)
        if self.likelihood == "gaussian":
            return gaussian_nll(output, x)
        nll = cast("Callable[[Tensor, Tensor], Tensor]", self.likelihood)(output, x)
        if nll.ndim and nll.shape != x.shape[:1]:
            raise ValueError(
                f"VAE: expected the likelihood to return a scalar or ({x.shape[0]},), got "
                f"{tuple(nll.shape)}"
            )
        return nll.mean() if nll.ndim else nll

    def _validate_data(self, x: Tensor) -> None:
        if not x.is_floating_point():
            return
        low, high = float(x.min()), float(x.max())
        if not math.isfinite(low + high):
            raise ValueError("VAE: expected finite values in x, got nan or inf")
        if self.likelihood == "bernoulli" and not 0.0 <= low <= high <= 1.0:
            raise ValueError(
                "VAE: expected x in [0, 1] for the Bernoulli likelihood, got values from "
                f"{low:g} to {high:g}"
            )

    def _validate_first(self, batch: Mapping[str, Code | Tensor]) -> None:
        """Validate once: the first training batch, unless a batch of an evaluation passed before.

        In evaluation a lone row or a single class is no mistake, so nothing is raised there.
        """
        try:
            self._validate_data(cast(Tensor, batch["x"]))
            self.objective.validate(batch)
            self._validated = True
        except ValueError:
            if self.training:
                raise

    def forward(
        self,
        x: Tensor,
        *,
        step: int | Tensor = 0,
        other: Mapping[str, Code | Tensor] | None = None,
        **observed: Tensor,
    ) -> VAEOutput:
        """One pass: encode, decode, negative log-likelihood, objective.

        In training mode the first batch's values are validated, and ``out.report.scalars()``
        validates the batch when a value is not finite.

        Args:
            x: Data, ``(B, *event)``.
            step: The training step, for schedules.
            other: An independent second minibatch of encoded variables, e.g. ``out.batch`` of
                another pass.
            observed: Observed variables by name, e.g. ``y=vaereg.labels(y, 10)``.

        Returns:
            A :class:`VAEOutput`.
        """
        codes = self.encode(x, step=step, **observed)
        twice = set(codes) & {"x", "x_hat", *observed}
        if twice:
            raise ValueError(
                f"VAE: expected codes and observed variables of different names, got "
                f"{sorted(twice)} twice"
            )
        values = {name: code.value for name, code in codes.items()}
        output = self._decode(values, observed)
        x_hat = self._mean(output)
        batch: dict[str, Code | Tensor] = {"x": x, **observed, **codes, "x_hat": x_hat}
        if not torch.compiler.is_compiling():
            if not self._validated:
                self._validate_first(batch)
            self._prior_shapes = {n: tuple(v.shape[1:]) for n, v in values.items()}
            self._standard = {n for n, c in codes.items() if isinstance(c.p, StandardNormal)}
        nll = self._nll(output, x)
        report = self.objective(batch, step=step, other=other)
        if not torch.compiler.is_compiling():
            report = replace(report, on_nonfinite=lambda: self._explain(batch))
        return VAEOutput(nll + report.total, nll, report, codes, x_hat, batch)


def _draw(name: str, prior: Distribution, n: int, shape: tuple[int, ...] | None) -> Tensor:
    full = tuple(prior.batch_shape + prior.event_shape)
    rows = prior.batch_shape == torch.Size() if shape is None else full == shape
    if not rows and (full[:1] != (n,) or (shape is not None and full[1:] != shape)):
        wanted = "batch shape ()" if shape is None else f"shape {shape}"
        raise ValueError(
            f"VAE: expected the prior of code {name!r} of {wanted} or of {n} rows, got {full}"
        )
    return prior.sample((n,) if rows else ())  # pyright: ignore[reportArgumentType]


def _as_code(name: str, entry: object) -> Code:
    if isinstance(entry, Code):
        return entry
    try:
        return gaussian(cast(Any, entry))
    except (TypeError, ValueError) as error:
        raise type(error)(f"VAE: the encoder's output for code {name!r}: {error}") from error
