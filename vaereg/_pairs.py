r"""Joint and product rows of two variables, scored by one critic."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from vaereg._checks import check_finite, check_varies, check_width, same_rows
from vaereg._names import Spec
from vaereg.codes import Batch
from vaereg.critics import (
    AllPairs,
    Concatenated,
    Separable,
    frozen,
    input_width,
    pair_scores,
    takes_pair,
)
from vaereg.regularizer import CriticRegularizer, detach_batch

__all__ = ["PairTerm", "Pairs", "off_diagonal"]

Pairs: TypeAlias = Literal["auto", "shift", "all"]


def off_diagonal(table: Tensor) -> Tensor:
    """The entries off the diagonal, row by row: ``(B, B)`` to ``(B, B - 1)``.

    Example:
        >>> off_diagonal(torch.arange(9).view(3, 3))
        tensor([[1, 2],
                [3, 5],
                [6, 7]])
    """
    rows = table.shape[0]
    # After the first entry, every (B + 1)-th is on the diagonal. No mask: it would synchronise.
    return table.flatten()[1:].view(rows - 1, rows + 1)[:, :-1].reshape(rows, rows - 1)


class PairTerm(CriticRegularizer):
    r"""A term of two variables whose critic scores joint rows and product rows.

    Product rows come from ``other`` where one is given, else from the batch itself:

    - ``shift``: each row of ``a`` with one other row of ``b``, shifted cyclically by a random
      number of rows (or the rows of ``other``, read cyclically where they are fewer);
    - ``all``: each row of ``a`` with every other row of ``b``, :math:`B^2 - B` pairs (or with each
      row of ``other``, :math:`B M` pairs), which has a smaller variance;
    - ``auto``: ``all`` where the critic has ``all_pairs``, else ``shift``.

    A label's row of zeros, which elsewhere means that it is missing, is one more value here: hand
    in labelled rows only, unless that one is missing is itself to be unknown.

    Args:
        a: First variable.
        b: Second variable, the one that is read from ``other``.
        critic: The statistics network, of one or two arguments.
        pairs: Which product rows. A critic without ``all_pairs`` is called on :math:`B^2` repeated
            rows for ``all``, and costs as much.

    Raises:
        ValueError: If ``pairs`` is unknown.
    """

    measures_information = True

    def __init__(self, a: Spec, b: Spec, *, critic: nn.Module, pairs: Pairs = "auto") -> None:
        super().__init__(a, b, critic=critic)
        if pairs not in ("auto", "shift", "all"):
            raise ValueError(
                f"{self.name}: expected pairs to be auto, shift or all, got {pairs!r}"
            )
        table = AllPairs(critic)
        self.pairs = pairs
        self.scores_all = pairs == "all" or (pairs == "auto" and table.own)
        self._pair = takes_pair(critic)
        # Not registered: the critic is a submodule already.
        object.__setattr__(self, "_table", table)

    def fitting_scores(self, batch: Batch, other: Batch | None) -> tuple[Tensor, Tensor] | Tensor:
        """As :meth:`scores` with a gradient on the critic and on nothing else."""
        other = None if other is None else detach_batch(other)
        return self.scores(detach_batch(batch), other, freeze=False)

    def scores(
        self, batch: Batch, other: Batch | None, *, freeze: bool = True
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Scores of joint and product rows; for a lone row, its joint score only.

        Both kinds of rows go through the critic in one pass: it costs less than two, and what
        moves in the critic with each pass is the same for both.

        Returns:
            Joint scores ``(B,)``, and product scores ``(B,)``, or ``(B, B - 1)`` or ``(B, M)``
            where all pairs are scored.
        """
        first, second = self.variables
        a, b = first.values(batch), second.values(batch)
        same_rows(self.name, **{first.text: a, second.text: b})
        self._check_widths(a, b)
        rows, foreign = a.shape[0], None if other is None else second.values(other)
        if foreign is not None and foreign.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"{self.name}: expected variable {second.text!r} of the other batch of shape "
                f"(B, {', '.join(map(str, b.shape[1:]))}), got {tuple(foreign.shape)}"
            )
        if foreign is None and rows < 2:
            return self._aligned(a, b, freeze)
        if self.scores_all:
            scores = self._all(a, b if foreign is None else torch.cat((b, foreign)), freeze)
            joint = scores.diagonal()
            return joint, off_diagonal(scores) if foreign is None else scores[:, rows:]
        index = torch.arange(rows, device=b.device)
        if foreign is not None:
            # Any pairing of independent rows will do: a shorter batch is read cyclically.
            product = foreign[index % foreign.shape[0]]
        else:
            # A cyclic shift leaves no true pair, where a random permutation leaves one on average.
            product = b[(index + torch.randint(1, rows, (), device=b.device)) % rows]
        scores = self._aligned(torch.cat((a, a)), torch.cat((b, product)), freeze)
        joint, marginal = scores.chunk(2)
        return joint, marginal

    def _aligned(self, a: Tensor, b: Tensor, freeze: bool) -> Tensor:
        critic = frozen(self.critic) if freeze else self.critic
        return pair_scores(critic, a, b, pair=self._pair)

    def _all(self, a: Tensor, b: Tensor, freeze: bool) -> Tensor:
        table = cast(Any, self)._table
        if table.critic is not self.critic:  # the user has put another in its place
            table = AllPairs(self.critic)
            object.__setattr__(self, "_table", table)
        return (frozen(table) if freeze else table)(a, b)

    def _check_widths(self, a: Tensor, b: Tensor) -> None:
        widths = [
            (v.text, t.shape[1:].numel()) for v, t in zip(self.variables, (a, b), strict=True)
        ]
        if isinstance(self.critic, (Separable, Concatenated)):
            for own, wanted in zip(widths, self.critic.widths, strict=True):
                check_width(self.name, [own], wanted)
        elif not self._pair:
            check_width(self.name, widths, input_width(self.critic))

    def validate(self, batch: Batch) -> None:
        """Also checks that both variables vary and a batch has two rows.

        Raises:
            ValueError: If a variable holds NaN or infinity, or all its rows are equal.
        """
        for variable in self.variables:
            values = variable.values(batch)
            check_finite(self.name, variable.text, values)
            check_varies(self.name, variable.text, values)
