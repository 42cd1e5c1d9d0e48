r"""The objective: named terms, their weights, their report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from vaereg.codes import Batch, Code
from vaereg.regularizer import CriticRegularizer, FunctionTerm, Regularizer, detach_batch
from vaereg.report import Report
from vaereg.schedules import Number, Schedule

__all__ = ["Objective"]

Term: TypeAlias = "Regularizer | Callable[..., Tensor]"
Weight: TypeAlias = "float | Tensor | Schedule"


def _scaled(weight: Weight, scale: float) -> Weight:
    if callable(weight) and not isinstance(weight, Tensor):
        return partial(_times, scale, weight)  # no closure: an objective can be pickled
    return scale * weight


def _times(scale: float, schedule: Schedule, step: int | Tensor) -> Number:
    return scale * schedule(step)


class Objective(nn.Module):
    r"""Named terms with weights; the sign and strength of each lives in its weight.

    .. math:: \text{total} = \sum_k w_k(t)\, R_k(\text{batch})

    The total is added to the loss that is *minimised*: a positive weight is a penalty, a negative
    one a reward.

    Args:
        terms: ``name=term`` or ``name=(weight, term)``. A weight is a number, a scalar tensor, or
            a schedule of the step. A term is a :class:`~vaereg.regularizer.Regularizer` or any
            callable ``batch -> scalar tensor``.

    Raises:
        TypeError: If a term is neither.
        ValueError: If a name cannot be used, or two terms count the KL of one code.

    Example:
        >>> import vaereg
        >>> objective = Objective(
        ...     kl=vaereg.KL("z"),
        ...     size=(0.1, lambda batch: batch["z"].value.square().mean()),
        ... )
        >>> z = vaereg.gaussian((torch.ones(4, 3), torch.zeros(4, 3)))
        >>> report = objective({"z": z})
        >>> sorted(report.scalars())
        ['kl', 'size', 'total', 'weight/kl', 'weight/size']
    """

    def __init__(self, **terms: Term | tuple[Weight, Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()
        self.weights: dict[str, Weight] = {}
        for name, entry in terms.items():
            if isinstance(entry, tuple):
                weight, term = cast("tuple[Weight, Term]", entry)
                self._add(name, weight, term)
            else:
                self._add(name, 1.0, entry)
        self._check_kl()
        self._check_rewards()

    @classmethod
    def of(cls, term: Regularizer, weight: Weight = 1.0) -> Objective:
        """An objective of one term under its default name, e.g. ``mine(c,y)``."""
        objective = cls()
        objective._add(term.name, weight, term)
        return objective

    def _add(self, name: str, weight: Weight, term: object) -> None:
        if "." in name or not name:
            raise ValueError(f"Objective: expected a name without a dot, got {name!r}")
        if name in self.terms:
            raise ValueError(
                f"Objective: expected one term of each name, got {name!r} twice; name the terms "
                "by keyword: Objective(first=..., second=...)"
            )
        if hasattr(nn.ModuleDict(), name) or name == "total" or name.startswith("weight/"):
            raise ValueError(f"Objective: expected another name than {name!r}, which is reserved")
        if not isinstance(term, Regularizer):
            if not callable(term):
                raise TypeError(
                    f"Objective: expected term {name!r} to be a Regularizer or a callable "
                    f"batch -> tensor, got {type(term).__name__}"
                )
            term = FunctionTerm(cast("Callable[..., Tensor]", term))
        if not (callable(weight) or isinstance(weight, (int, float, Tensor))):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"Objective: expected the weight of {name!r} to be a number, a scalar tensor or a "
                f"schedule, got {type(weight).__name__}"
            )
        if isinstance(weight, Tensor) and weight.ndim:
            raise ValueError(
                f"Objective: expected the weight of {name!r} to be a scalar tensor, got shape "
                f"{tuple(weight.shape)}"
            )
        self.terms[name] = term
        if isinstance(weight, float) and weight != weight:
            raise ValueError(f"Objective: expected a number as the weight of {name!r}, got nan")
        self.weights[name] = weight

    def _check_kl(self) -> None:
        seen: dict[str, dict[str, str]] = {}
        for name, term in self._items():
            weight = self.weights[name]
            if not term.counts_kl or (isinstance(weight, (int, float)) and weight == 0):
                continue
            for variable in term.variables:
                for part, code, index in variable.parts:
                    # Two different parts may be disjoint; the whole and a part never are.
                    others = seen.setdefault(code, {})
                    clash = [p for p in others if p == part or index is None or p == code]
                    if clash:
                        raise ValueError(
                            f"Objective: expected the KL of code {part!r} once, got it in "
                            f"{others[clash[0]]!r} and {name!r}; give one of them weight 0 to "
                            "only report it"
                        )
                    others[part] = name

    def _check_rewards(self) -> None:
        for name, term in self._items():
            self._check_reward(name, term, self.weights[name])

    def _check_reward(self, name: str, term: Regularizer, weight: object) -> None:
        if term.reward_only and isinstance(weight, (int, float)) and weight > 0:
            raise ValueError(
                f"Objective: expected a negative weight of {name!r}, a reward, got {weight}: "
                "as a penalty it would train the critic that it shares with the model to "
                "misread; a penalty needs a critic of its own"
            )

    def _items(self, only: str | Iterable[str] | None = None) -> list[tuple[str, Regularizer]]:
        names = list(self.terms if only is None else [only] if isinstance(only, str) else only)
        for name in names:
            if name not in self.terms:
                raise ValueError(
                    f"Objective: expected a term among {sorted(self.terms)}, got {name!r}"
                )
        return [(name, cast(Regularizer, self.terms[name])) for name in names]

    def __getitem__(self, name: str) -> Regularizer:
        return self._items([name])[0][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def without(self, *names: str) -> Objective:
        """The same terms but those named; the terms themselves are shared, not copied."""
        self._items(names)
        objective = type(self)()
        for name, term in self._items():
            if name not in names:
                objective._add(name, self.weights[name], term)
        return objective

    # ---- one minibatch

    def forward(
        self,
        batch: Batch,
        *,
        step: int | Tensor = 0,
        other: Batch | None = None,
        only: str | Iterable[str] | None = None,
    ) -> Report:
        r"""The weighted total and the value of each term; never puts a gradient on a critic.

        A term of weight 0 is evaluated without a graph and reported; it contributes nothing to the
        total, not even :math:`0 \cdot \infty`. (A weight that is a tensor cannot be compared
        with 0 without a device transfer: there the value is masked, an infinite gradient is not.)

        Args:
            batch: The named variables.
            step: The training step, for schedules.
            other: An independent second minibatch, for samples of the product of marginals.
            only: Name or names of the terms to evaluate; the others' variables may be absent.

        Returns:
            A :class:`Report`.
        """
        total: Tensor | None = None
        values: dict[str, Tensor] = {}
        weights: dict[str, Number] = {}
        for name, term in self._items(only):
            weight = self.weights[name]
            force = weight(step) if callable(weight) and not isinstance(weight, Tensor) else weight
            weights[name] = force
            self._check_reward(name, term, force)
            if not isinstance(force, Tensor) and force == 0:
                with torch.no_grad():
                    values[name] = term(batch, other=other, step=step).detach()
                continue
            value = term(batch, other=other, step=step)
            values[name] = value.detach()
            share = force * value
            if isinstance(force, Tensor):
                share = torch.where(force == 0, torch.zeros_like(share), share)
            total = share if total is None else total + share
        return Report(_with_graph(total, batch, values), values, weights)

    def critic_loss(
        self,
        batch: Batch,
        *,
        step: int | Tensor = 0,
        other: Batch | None = None,
        only: str | Iterable[str] | None = None,
    ) -> Report:
        """The sum of the critics' own fitting losses, on detached variables, unweighted.

        Args:
            batch: The named variables; gradients never leave through them.
            step: The training step.
            other: An independent second minibatch.
            only: Name or names of the terms whose critics are fitted.

        Returns:
            A :class:`Report` with each critic's loss; ``total`` is to be minimised over
            :meth:`critic_parameters`.
        """
        batch = detach_batch(batch)
        other = None if other is None else detach_batch(other)
        total: Tensor | None = None
        values: dict[str, Tensor] = {}
        for name, term in self._items(only):
            if isinstance(term, CriticRegularizer):
                loss = term.critic_loss(batch, other=other, step=step)
                values[name] = loss.detach()
                total = loss if total is None else total + loss
        return Report(_with_graph(total, batch, values), values, dict.fromkeys(values, 1.0))

    def critic_step(
        self,
        batch: Batch,
        optimizer: torch.optim.Optimizer,
        *,
        other: Batch | None = None,
        step: int | Tensor = 0,
        only: str | Iterable[str] | None = None,
        max_norm: float | None = None,
    ) -> Report:
        """One fitting step of the critics: zero the gradients, loss, backward, step.

        Critic gradients are dropped again afterwards, so that a main optimizer that holds critic
        parameters by mistake has nothing to apply. Without critics nothing happens.

        Args:
            batch: The named variables.
            optimizer: From :meth:`critic_optimizer`.
            other: An independent second minibatch.
            step: The training step.
            only: Name or names of the terms whose critics are fitted.
            max_norm: Clip the gradient of each term's critic to this Euclidean norm. Critics are
                independent, so each is clipped by itself; one that several terms share is clipped
                once, as a part of the first. Default: no clipping.

        Returns:
            The report of :meth:`critic_loss`.

        Raises:
            ValueError: If ``max_norm`` is not positive, or the optimizer holds no parameter of one
                of the critics.
        """
        if max_norm is not None and not max_norm > 0.0:
            raise ValueError(f"Objective: expected max_norm > 0, got {max_norm}")
        optimizer.zero_grad(set_to_none=True)
        report = self.critic_loss(batch, step=step, other=other, only=only)
        if report.values:
            self._check_holds(optimizer, only)
            report.total.backward()  # pyright: ignore[reportUnknownMemberType]
            if max_norm is not None:
                for parameters in self._critics(clipped=True):
                    nn.utils.clip_grad_norm_(parameters, max_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return report

    @torch.no_grad()
    def update(self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0) -> None:
        """Let terms keep what they need of the batch, such as a memory bank's posteriors.

        Call it once an iteration, after the main step; without such terms nothing happens, nor in
        evaluation mode.

        Args:
            batch: The named variables, as for :meth:`forward`.
            other: An independent second minibatch.
            step: The training step.
        """
        if self.training:
            for _, term in self._items():
                term.update(batch, other=other, step=step)

    def _check_holds(
        self, optimizer: torch.optim.Optimizer, only: str | Iterable[str] | None
    ) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, term in self._items(only):
            critics = [id(p) for p in term.critic_parameters()]
            if critics and held.isdisjoint(critics):
                raise ValueError(
                    f"Objective: expected an optimizer that holds the critic of {name!r} (see "
                    "critic_optimizer), got one with none of its parameters"
                )

    # ---- parameters

    def _critics(self, *, clipped: bool = False) -> Iterator[list[nn.Parameter]]:
        """The critic parameters of each term, or those of them that are clipped; shared ones with
        the first term only."""
        seen: set[int] = set()
        for _, term in self._items():
            found = term.clipped_parameters() if clipped else term.critic_parameters()
            fresh = [p for p in found if id(p) not in seen]
            seen.update(map(id, fresh))
            yield fresh

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that ascend: critics and multipliers, each once."""
        for parameters in self._critics():
            yield from parameters

    def prior_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that descend with the encoder: learned priors, class means; each once."""
        seen = {id(p) for p in self.critic_parameters()}
        for _, term in self._items():
            for parameter in term.prior_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    def critic_optimizer(
        self,
        cls: type[torch.optim.Optimizer],
        *,
        per_term: dict[str, dict[str, Any]] | None = None,
        **kw: Any,
    ) -> torch.optim.Optimizer:
        """An optimizer of all critic parameters; without critics one that has nothing to do.

        Args:
            cls: An optimizer class, e.g. :class:`torch.optim.Adam`.
            per_term: Settings of single terms, e.g. ``{"leak": {"lr": 1e-4}}``.
            kw: Settings of all others.

        Example:
            >>> import vaereg
            >>> Objective(kl=vaereg.KL("z")).critic_optimizer(torch.optim.Adam, lr=1e-3).step()
        """
        special = dict(per_term or {})
        seen: set[int] = set()
        groups: list[dict[str, Any]] = []
        for name, term in [*self._items(special), *self._items()]:
            fresh = [p for p in term.critic_parameters() if id(p) not in seen]
            seen.update(map(id, fresh))
            if fresh:
                groups.append({"params": fresh, **special.get(name, {})})
        return cls(groups or [{"params": []}], **kw)

    # ---- checks

    def validate(self, batch: Batch, *, only: str | Iterable[str] | None = None) -> None:
        """Read the batch's values and raise on NaN, labels out of range, a single class.

        ``forward`` never reads values, because that would be a device transfer a step. Call this
        on the first batch and when a report is not finite.

        Args:
            batch: The named variables.
            only: Name or names of the terms whose variables are checked.

        Raises:
            TypeError: If a variable is of the wrong kind.
            ValueError: Naming the term, the variable, what was expected and what came.
        """
        for _, term in self._items(only):
            term.validate(batch)

    # ---- algebra

    def _merged(self, other: Regularizer | Objective, sign: float) -> Objective:
        if isinstance(other, Regularizer):
            other = Objective.of(other)
        if not isinstance(other, Objective):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"Objective: expected a term or an Objective, got {type(other).__name__}"
            )
        merged = Objective()
        for name, term in self._items():
            merged._add(name, self.weights[name], term)
        for name, term in other._items():
            weight = other.weights[name]
            merged._add(name, weight if sign == 1.0 else _scaled(weight, sign), term)
        merged._check_kl()
        merged._check_rewards()
        return merged

    def __add__(self, other: Regularizer | Objective) -> Objective:
        return self._merged(other, 1.0)

    def __radd__(self, other: int) -> Objective:
        # sum() starts from 0.
        if other != 0:
            raise TypeError(f"Objective: expected a term or an Objective, got {other!r}")
        return self

    def __sub__(self, other: Regularizer | Objective) -> Objective:
        return self._merged(other, -1.0)

    def __mul__(self, scale: float) -> Objective:
        if not isinstance(scale, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"Objective: expected a number to scale by, got {scale!r}")
        scaled = Objective()
        for name, term in self._items():
            scaled._add(name, _scaled(self.weights[name], float(scale)), term)
        return scaled

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1.0

    def extra_repr(self) -> str:
        """The weights, for ``print(objective)``."""
        shown = {
            name: "schedule" if callable(weight) and not isinstance(weight, Tensor) else weight
            for name, weight in self.weights.items()
        }
        return f"weights={shown}"


def _with_graph(total: Tensor | None, batch: Batch, values: dict[str, Tensor]) -> Tensor:
    """A total that ``backward`` accepts even where no term carries a gradient."""
    if total is None:
        entry = next(iter(batch.values()), None)
        tensor = entry.value if isinstance(entry, Code) else entry
        total = torch.zeros((), device=tensor.device if isinstance(tensor, Tensor) else None)
    compiling = (
        torch.compiler.is_compiling()
    )  # a new leaf cannot be traced, nor is it needed there
    if torch.is_grad_enabled() and not total.requires_grad and not compiling:
        total = total + torch.zeros_like(total, requires_grad=True)
    return total
