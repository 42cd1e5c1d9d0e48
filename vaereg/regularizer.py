r"""The contract: one named quantity, read from named variables.

A regularizer returns its own quantity and nothing else; the sign and the strength live in the
weight that an :class:`~vaereg.Objective` gives it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from vaereg._checks import Variable, check_finite, variables_text
from vaereg._names import Spec
from vaereg.codes import Batch, Code
from vaereg.critics import check_critic

if TYPE_CHECKING:
    from vaereg.objective import Objective

__all__ = ["CriticRegularizer", "FunctionTerm", "Regularizer", "detach_batch", "zero_like"]


def detach_batch(batch: Batch) -> dict[str, Code | Tensor]:
    """The same batch without any gradient; codes through :meth:`vaereg.Code.detach`.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 1, requires_grad=True)
        >>> detach_batch({"x": x})["x"].requires_grad
        False
    """
    if not isinstance(batch, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"expected batch to be a mapping of names to codes and tensors, got "
            f"{type(batch).__name__}"
        )
    # Other entries (file names, say) pass; a term that reads one says what it expected.
    return {
        name: entry.detach() if isinstance(entry, (Code, Tensor)) else entry  # pyright: ignore[reportUnnecessaryIsInstance]
        for name, entry in batch.items()
    }


class Regularizer(nn.Module, ABC):
    r"""One named quantity, read from named variables of a batch.

    A subclass passes the variables that it reads to ``__init__`` and defines :meth:`forward`. It
    reads tensors with ``self.variables[i].values(batch)`` and codes with ``.codes(batch)``.

    Args:
        specs: The variables: a name ``"z"``, a part ``"z[:2]"``, or a joint ``("z", "c")`` each.

    Example:
        >>> import torch
        >>> class SecondMoment(Regularizer):
        ...     unit = "squared units of z"
        ...     def forward(self, batch, *, other=None, step=0):
        ...         return self.variables[0].values(batch).square().flatten(1).sum(1).mean()
        >>> term = SecondMoment("z")
        >>> term.name, term({"z": torch.ones(4, 3)}).item()
        ('secondmoment(z)', 3.0)
    """

    unit: str = "nats"
    counts_kl: bool = False
    """Whether the value holds the whole KL of its codes, which an objective may count once."""
    measures_information: bool = False
    """Whether the value displays the dependence of the term's two variables, which
    ``vaereg.metrics.audit`` then reads afresh."""
    skips_missing: bool = False
    """Whether a label's rows of zeros take no part; else they are one more value of it."""
    reward_only: bool = False
    """Whether a positive weight makes no sense, which an objective then refuses."""
    information_scale: float = 1.0
    """What a small value is to be multiplied by to be nats of mutual information."""

    def __init__(self, *specs: Spec) -> None:
        super().__init__()
        self.name = f"{type(self).__name__.lower()}({variables_text(*specs)})"
        self.variables = tuple(Variable(spec, self.name) for spec in specs)

    @abstractmethod
    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The quantity on one minibatch: batch mean, event sum.

        Args:
            batch: The named variables.
            other: An independent second minibatch for samples of the product of marginals.
            step: The training step, for terms that depend on it.

        Returns:
            A scalar in :attr:`unit`.
        """

    def diagnostics(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> dict[str, Tensor]:
        """Extra quantities, on demand only; none by default."""
        return {}

    def update(self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0) -> None:
        """Move what the term keeps from one iteration to the next; nothing by default."""

    def validate(self, batch: Batch) -> None:
        """Read the values of the term's variables and raise on what no estimate can mend.

        Raises:
            ValueError: If a variable holds NaN or infinity.
        """
        for variable in self.variables:
            check_finite(self.name, variable.text, variable.values(batch))

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that ascend: critics and multipliers; none by default."""
        return iter(())

    def clipped_parameters(self) -> Iterator[nn.Parameter]:
        """Critic parameters whose gradient is clipped together where that is asked for."""
        return self.critic_parameters()

    def prior_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that descend with the encoder: all that are not the critic's."""
        critics = {id(p) for p in self.critic_parameters()}
        return (p for p in self.parameters() if id(p) not in critics)

    # The algebra builds an Objective, whose module imports this one: hence the late imports.
    def _objective(self) -> Objective:
        from vaereg.objective import Objective

        return Objective.of(self)

    def __add__(self, term: Regularizer | Objective) -> Objective:
        return self._objective() + term

    def __radd__(self, term: int) -> Objective:
        return term + self._objective()

    def __sub__(self, term: Regularizer | Objective) -> Objective:
        return self._objective() - term

    def __mul__(self, weight: float) -> Objective:
        return self._objective() * weight

    def __rmul__(self, weight: float) -> Objective:
        return self._objective() * weight

    def __neg__(self) -> Objective:
        return self._objective() * -1.0


class CriticRegularizer(Regularizer):
    r"""A quantity read through an auxiliary network with a fitting objective of its own.

    :meth:`forward` must leave the critic alone (use :func:`vaereg.frozen`); :meth:`critic_loss`
    must leave everything else alone (use :func:`detach_batch`). An objective enforces the latter
    by handing :meth:`critic_loss` detached variables only.

    Args:
        specs: The variables that the term reads.
        critic: The auxiliary network, without batch normalisation.

    Raises:
        TypeError: If the critic is no module.
        ValueError: If the critic holds a batch normalisation.
    """

    critic: nn.Module

    def __init__(self, *specs: Spec, critic: nn.Module) -> None:
        super().__init__(*specs)
        check_critic(critic, self.name)
        self.critic = critic

    @abstractmethod
    def critic_loss(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The critic's own fitting loss on detached variables, to be minimised over the critic.

        Returns:
            A scalar; its sign does not depend on the term's weight.
        """

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        """The critic's parameters."""
        return self.critic.parameters()


class FunctionTerm(Regularizer):
    """A callable ``batch -> scalar tensor`` as a term, e.g. a reconstruction loss.

    A module given as the callable is used as it is: it is neither trained nor moved nor saved with
    the objective.

    Args:
        function: The callable.

    Example:
        >>> import torch
        >>> FunctionTerm(lambda batch: batch["x"].square().mean())({"x": torch.ones(2, 2)}).item()
        1.0
    """

    unit = "its own"
    function: Callable[[Mapping[str, Code | Tensor]], Tensor]

    def __init__(self, function: Callable[[Mapping[str, Code | Tensor]], Tensor]) -> None:
        super().__init__()
        # Not registered: a network given as a term stays its owner's, and is not trained with the
        # priors (which it would be as a submodule).
        object.__setattr__(self, "function", function)
        self.name = getattr(function, "__name__", type(function).__name__)

    def forward(
        self, batch: Batch, *, other: Batch | None = None, step: int | Tensor = 0
    ) -> Tensor:
        """The callable's value.

        Raises:
            TypeError: If it is not a scalar tensor.
        """
        value = self.function(batch)
        if not isinstance(value, Tensor) or value.ndim:  # pyright: ignore[reportUnnecessaryIsInstance]
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__  # pyright: ignore
            raise TypeError(f"{self.name}: expected a scalar tensor, got {got}")
        return value


def zero_like(value: Tensor) -> Tensor:
    """The documented value where nothing can be estimated: 0, with a graph and zero gradient."""
    return (value * 0.0).sum()
