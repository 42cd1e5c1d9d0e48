r"""The contract of a regularizer as tests that a user's own regularizer inherits.

Subclass :class:`RegularizerContract` in a test module of yours, say what to build and on what, and
run pytest:

.. code-block:: python

    from vaereg.testing import RegularizerContract

    class TestMyTerm(RegularizerContract):
        reads_other = False

        def make(self):
            return MyTerm("z", "y", critic=vaereg.critics.mlp(3 + 2, 1, width=8))

        def batch(self, rows, *, dtype, generator):
            draw = lambda *size: torch.randn(*size, dtype=dtype, generator=generator)
            mean = draw(rows, 3).requires_grad_()
            logvar = draw(rows, 3).requires_grad_()
            y = vaereg.labels(torch.arange(rows) % 2, classes=2).to(dtype)
            return {"z": vaereg.gaussian((mean, logvar)), "y": y}, [mean, logvar]

What does not apply to a term is switched off by a class attribute. Skips are
:class:`unittest.SkipTest`, which pytest and unittest both report as skipped.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vaereg._contract import (
    NoSync,
    assert_finite,
    assert_raises,
    assert_same_state,
    close,
    critic_steps,
    equal,
    generator_of,
    gradients,
    names_of,
    state_of,
    zero_weight,
)
from vaereg.codes import Code
from vaereg.objective import Objective
from vaereg.regularizer import CriticRegularizer, Regularizer
from vaereg.schedules import Schedule

__all__ = ["NoSync", "RegularizerContract"]


class RegularizerContract:
    """Every invariant that a :class:`~vaereg.Regularizer` must keep, one test each.

    A subclass defines :meth:`make` and :meth:`batch`.

    Example:
        >>> import vaereg
        >>> class TestKL(RegularizerContract):
        ...     reads_other = checks_width = False
        ...     def make(self):
        ...         return vaereg.KL("z")
        ...     def batch(self, rows, *, dtype, generator):
        ...         mean = torch.randn(rows, 3, dtype=dtype, generator=generator).requires_grad_()
        ...         return {"z": vaereg.gaussian((mean, torch.zeros_like(mean)))}, [mean]
        >>> TestKL().test_forward_leaves_the_critic_alone()
    """

    reads_other: bool = True
    """Whether the term reads ``other``; if not, its value must not depend on it."""
    checks_width: bool = True
    """Whether a variable one column too wide is an error (critics of known width)."""
    compiles: bool = True
    """Whether ``torch.compile(fullgraph=True)`` is expected to hold."""
    autocast: bool = True
    """Whether the term runs under bfloat16 autocast."""
    rows: int = 6
    """Rows of the usual batch."""
    odd_rows: Sequence[int] = (1, 2, 3)
    """Unusual numbers of rows for which value and gradient are finite."""

    # ---- what a subclass defines

    def make(self) -> Regularizer:
        """A fresh term; the random seed is set before each call."""
        raise NotImplementedError

    def batch(
        self, rows: int, *, dtype: torch.dtype, generator: torch.Generator
    ) -> tuple[dict[str, Code | Tensor], list[Tensor]]:
        """A batch of ``rows`` rows, and the encoder's leaves, which require a gradient."""
        raise NotImplementedError

    def image_case(
        self, rows: int, *, dtype: torch.dtype, generator: torch.Generator
    ) -> tuple[Regularizer, dict[str, Code | Tensor], list[Tensor]] | None:
        """A term with a batch and leaves of event shape ``(C, H, W)``; ``None`` to skip."""
        return None

    # ---- the tests

    def test_value_is_a_scalar(self) -> None:
        """The value is a finite floating-point scalar; name and unit are texts."""
        term, batch, _ = self._case()
        value = term(batch)
        assert value.ndim == 0, f"expected a scalar, got {tuple(value.shape)}"
        assert value.is_floating_point() and torch.isfinite(value), f"got {value}"
        assert isinstance(term.name, str) and isinstance(term.unit, str)

    def test_gradient_reaches_the_encoder(self) -> None:
        """Some encoder parameter receives a gradient that is finite and not zero."""
        term, batch, leaves = self._case()
        term(batch).backward()
        assert any(bool(g.abs().sum() > 0) for g in gradients(leaves) if g is not None)
        assert_finite(leaves)

    def test_forward_leaves_the_critic_alone(self) -> None:
        """(a) ``forward`` leaves every critic gradient ``None`` and moves no buffer."""
        term, batch, _ = self._case()
        before = state_of(term)
        value = term(batch)
        value.backward()
        assert all(p.grad is None for p in term.critic_parameters())
        assert_same_state(before, state_of(term))

    def test_critic_loss_leaves_the_rest_alone(self) -> None:
        """(a, d) ``critic_loss`` puts no gradient on encoder or prior, even from a live batch."""
        term, batch, leaves = self._critic_case()
        other, more = self._batch(self.rows + 1, seed=2)
        term.critic_loss(batch, other=other if self.reads_other else None).backward()
        assert all(p.grad is None for p in (*leaves, *more, *term.prior_parameters()))
        grads = [g for g in gradients(term.critic_parameters()) if g is not None]
        assert any(bool(g.abs().sum() > 0) for g in grads), "expected a gradient on the critic"

    def test_joint_backward_is_the_two_backwards(self) -> None:
        """(b) One backward of ``forward + critic_loss`` gives exactly the separate gradients."""
        joint: list[Tensor | None] = []
        for separate in (False, True):
            term, batch, leaves = self._critic_case()
            torch.manual_seed(3)
            value, loss = term(batch), term.critic_loss(batch)
            if separate:
                value.backward(retain_graph=True)
                loss.backward()
                found = gradients([*leaves, *term.parameters()])
                assert all(map(equal, joint, found)), "joint and separate gradients differ"
            else:
                (value + loss).backward()
                joint = gradients([*leaves, *term.parameters()])

    def test_weight_zero_reports_and_contributes_nothing(self) -> None:
        """(c) Weight 0: the value is reported, the total is 0, the critic still trains."""
        weights: tuple[float | Schedule, ...] = (0.0, zero_weight)
        for weight in weights:
            term, batch, leaves = self._case()
            objective = Objective(term=(weight, term))
            torch.manual_seed(3)
            report = objective(batch)
            torch.manual_seed(3)
            assert equal(report.values["term"], term(batch).detach())
            assert float(report.total.detach()) == 0.0
            report.total.backward()
            assert all(g is None or not g.any() for g in gradients(leaves))
            if isinstance(term, CriticRegularizer):
                objective.critic_loss(batch).total.backward()
                assert any(p.grad is not None for p in term.critic_parameters())

    def test_state_moves_in_training_only(self) -> None:
        """(d, h) In evaluation mode neither ``forward`` nor ``critic_loss`` moves anything."""
        term, batch, _ = self._case()
        critic_steps(term, [batch])
        term.eval()
        before = state_of(term)
        term(batch)
        if isinstance(term, CriticRegularizer):
            term.critic_loss(batch)
        assert_same_state(before, state_of(term))

    def test_no_synchronisation(self) -> None:
        """(e) Nothing waits for the device, with a tensor as the step too."""
        term, batch, _ = self._case()
        step = torch.tensor(3)
        with NoSync():
            term(batch, step=step).backward()
            if isinstance(term, CriticRegularizer):
                term.critic_loss(batch, step=step).backward()

    def test_compiles_without_graph_breaks(self) -> None:
        """(e) ``torch.compile(fullgraph=True)`` holds and equals eager: values and gradients."""
        if not self.compiles:
            raise unittest.SkipTest("compiles = False")
        for name in ("forward", "critic_loss"):
            results: list[list[Tensor | None]] = []
            for compiled in (False, True):
                term, batch, leaves = self._case()
                if not hasattr(term, name):
                    return
                torch.compiler.reset()
                call: Callable[..., Tensor] = getattr(term, name)
                if compiled:
                    call = torch.compile(call, fullgraph=True, backend="aot_eager")
                torch.manual_seed(3)
                value = call(batch)
                value.backward()
                results.append([value.detach(), *gradients([*leaves, *term.parameters()])])
                results[-1].extend(state_of(term).values())
            assert all(map(close, *results)), f"{name}: compiled and eager differ"

    def test_missing_variable_is_named(self) -> None:
        """(f) A missing or misspelt variable is a ValueError that names it."""
        term, batch, _ = self._case()
        for name in names_of(term):
            less = {key: entry for key, entry in batch.items() if key != name}
            assert_raises(lambda less=less: term(less), name, ValueError)
            less[name + "_"] = batch[name]
            assert_raises(lambda less=less: term(less), name, ValueError)

    def test_wrong_kind_is_named(self) -> None:
        """(f) A variable that is no code or floating-point tensor is an error that names it."""
        term, batch, _ = self._case()
        for name in names_of(term):
            for wrong in (torch.zeros(self.rows, dtype=torch.long), "text", 1.0):
                broken: Any = {**batch, name: wrong}
                assert_raises(lambda broken=broken: term(broken), name)
                if isinstance(term, CriticRegularizer):
                    assert_raises(lambda broken=broken: term.critic_loss(broken), name)

    def test_row_mismatch_is_named(self) -> None:
        """(f) Variables of different rows are an error that names them; nothing broadcasts."""
        term, batch, _ = self._case()
        names = names_of(term)
        if len(names) < 2:
            raise unittest.SkipTest("the term reads one variable")
        for rows in (1, self.rows - 1):
            shorter, _ = self._batch(rows)
            for name in names:
                broken = {**batch, name: shorter[name]}
                assert_raises(lambda broken=broken: term(broken), name)

    def test_wrong_width_is_named(self) -> None:
        """(f) A variable wider than the critic's input is a ValueError that names it."""
        if not self.checks_width:
            raise unittest.SkipTest("checks_width = False")
        term, batch, _ = self._case()
        for name in names_of(term):
            entry = batch[name]
            value = entry.value if isinstance(entry, Code) else entry
            wide = torch.cat((value, value[:, :1]), 1).detach()
            broken = {**batch, name: Code(wide) if isinstance(entry, Code) else wide}
            assert_raises(lambda broken=broken: term(broken), name, ValueError)

    def test_odd_batches_are_finite(self) -> None:
        """(f) Batches of 1, 2 and 3 rows give a finite value and finite gradients."""
        for rows in self.odd_rows:
            term, batch, leaves = self._case(rows=rows)
            value = term(batch)
            assert torch.isfinite(value), f"{rows} rows: got {value}"
            value.backward()
            assert_finite(leaves)
            if isinstance(term, CriticRegularizer):
                loss = term.critic_loss(batch)
                loss.backward()
                assert torch.isfinite(loss), f"{rows} rows: got {loss}"
                assert_finite(term.parameters())
                assert all(bool(torch.isfinite(term(batch))) for _ in range(2))

    def test_images(self) -> None:
        """(g) Latents of event shape ``(C, H, W)``: finite value and gradient."""
        torch.manual_seed(0)
        case = self.image_case(4, dtype=torch.float32, generator=generator_of(1))
        if case is None:
            raise unittest.SkipTest("no image_case")
        term, batch, leaves = case
        term(batch).backward()
        assert_finite(leaves)
        assert any(bool(g.abs().sum() > 0) for g in gradients(leaves) if g is not None)
        if isinstance(term, CriticRegularizer):
            assert torch.isfinite(term.critic_loss(batch))

    def test_float64(self) -> None:
        """(g) In float64 the value is float64 and the gradient finite."""
        term, batch, leaves = self._case(dtype=torch.float64)
        value = term(batch)
        assert value.dtype == torch.float64, f"got {value.dtype}"
        value.backward()
        assert_finite(leaves)
        if isinstance(term, CriticRegularizer):
            assert term.critic_loss(batch).dtype == torch.float64

    def test_autocast(self) -> None:
        """(g) Under bfloat16 autocast value, loss and gradients are finite, the value float32."""
        if not self.autocast:
            raise unittest.SkipTest("autocast = False")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            term, batch, leaves = self._case()
            value = term(batch)
            if isinstance(term, CriticRegularizer):
                value = value + term.critic_loss(batch)
        assert value.dtype == torch.float32 and torch.isfinite(value), f"got {value}"
        value.backward()
        assert_finite([*leaves, *term.parameters()])

    def test_state_dict_resumes_bit_for_bit(self) -> None:
        """(h) Training continued from a ``state_dict`` is the uninterrupted training, exactly."""
        batches = [self._batch(self.rows, seed=seed)[0] for seed in range(6)]
        term = self._term()
        critic_steps(term, batches[:3])
        torch.manual_seed(99)
        resumed = self._term(seed=98)
        resumed.load_state_dict(term.state_dict())
        values: list[Tensor] = []
        for one in (term, resumed):
            torch.manual_seed(5)
            critic_steps(one, batches[3:])
            values.append(one(batches[0]).detach())
        assert equal(*values), f"resumed {values[1]}, uninterrupted {values[0]}"
        assert_same_state(state_of(term), state_of(resumed))

    def test_deterministic_given_the_seed(self) -> None:
        """All randomness is torch's: the same seed gives the same value and critic loss."""
        values: list[tuple[Tensor, ...]] = []
        for _ in range(2):
            term, batch, _ = self._case()
            torch.manual_seed(7)
            value = term(batch).detach()
            critic = isinstance(term, CriticRegularizer)
            values.append((value, term.critic_loss(batch).detach() if critic else value))
        assert all(map(equal, *values))

    def test_other_batch(self) -> None:
        """``other`` may have more or fewer rows; its gradient flows in ``forward``."""
        for rows in (self.rows + 3, 2):
            term, batch, _ = self._case()
            other, leaves = self._batch(rows, seed=2)
            torch.manual_seed(3)
            value = term(batch, other=other)
            assert torch.isfinite(value)
            if self.reads_other:
                value.backward()
                assert_finite(leaves)
                continue
            torch.manual_seed(3)
            assert equal(value, term(batch)), "the value depends on other: reads_other = True?"

    def test_validate_accepts_a_sound_batch_and_names_nan(self) -> None:
        """``validate`` passes a sound batch and raises a ValueError that names a NaN variable."""
        term, batch, _ = self._case()
        term.validate(batch)
        for name in names_of(term):
            entry = batch[name]
            value = entry.value if isinstance(entry, Code) else entry
            bad = torch.full_like(value.detach(), float("nan"))
            broken = Code(bad, entry.q, entry.p) if isinstance(entry, Code) else bad
            assert_raises(
                lambda b=broken, n=name: term.validate({**batch, n: b}), name, ValueError
            )

    # ---- parts

    def _term(self, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Regularizer:
        torch.manual_seed(seed)
        return self.make().to(dtype)

    def _batch(
        self, rows: int, *, dtype: torch.dtype = torch.float32, seed: int = 1
    ) -> tuple[dict[str, Code | Tensor], list[Tensor]]:
        torch.manual_seed(1000 + seed)
        return self.batch(rows, dtype=dtype, generator=generator_of(seed))

    def _case(
        self, rows: int | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Regularizer, dict[str, Code | Tensor], list[Tensor]]:
        batch, leaves = self._batch(rows or self.rows, dtype=dtype)
        return self._term(dtype=dtype), batch, leaves

    def _critic_case(self) -> tuple[CriticRegularizer, dict[str, Code | Tensor], list[Tensor]]:
        term, batch, leaves = self._case()
        if not isinstance(term, CriticRegularizer):
            raise unittest.SkipTest("the term has no critic")
        return term, batch, leaves
