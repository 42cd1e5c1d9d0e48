r"""What the contract test is made of: comparisons, and the mode that sees synchronisations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode

from vaereg.codes import Batch
from vaereg.regularizer import CriticRegularizer, Regularizer

_SYNCS = {
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "allclose",
    "bincount",
    "equal",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_consecutive",
    "unique_dim",
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class NoSync(TorchDispatchMode):
    """Raises on operations that make the host wait for the device, such as ``.item()``.

    It sees operators: ``.item()``, ``bool()``, ``nonzero``, ``unique``, a boolean mask as
    index.
    It cannot see ``.tolist()``, ``.numpy()`` and ``.cpu()`` of a tensor on the CPU.

    Example:
        >>> with NoSync():
        ...     torch.ones(2).sum().item()
        Traceback (most recent call last):
        AssertionError: expected no device synchronisation, got aten::_local_scalar_dense
    """

    def __enter__(self) -> Any:
        # torch.compile switches the validation of distributions, which synchronises, off for the
        # rest of the process, so that what is seen here would depend on what ran before.
        self._validate: bool = Distribution._validate_args  # pyright: ignore[reportPrivateUsage]
        Distribution.set_default_validate_args(True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Distribution.set_default_validate_args(self._validate)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation unless it synchronises."""
        name = func._schema.name
        short = name.removeprefix("aten::")
        masked = short in _INDEXING and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if short in _SYNCS or masked:
            raise AssertionError(f"expected no device synchronisation, got {name}")
        return func(*args, **(kwargs or {}))


def zero_weight(step: int | Tensor) -> Tensor:
    return torch.zeros(())


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def names_of(term: Regularizer) -> list[str]:
    return list(dict.fromkeys(name for v in term.variables for name in v.names))


def gradients(parameters: Iterable[Tensor]) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in parameters]


def state_of(term: Regularizer) -> dict[str, Tensor]:
    return {name: entry.detach().clone() for name, entry in term.state_dict().items()}


def critic_steps(term: Regularizer, batches: Sequence[Batch]) -> None:
    if not isinstance(term, CriticRegularizer):
        return
    optimizer = torch.optim.SGD(list(term.critic_parameters()), lr=0.05)
    for batch in batches:
        optimizer.zero_grad()
        term.critic_loss(batch).backward()
        optimizer.step()
    optimizer.zero_grad()


def equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(a, b)


def close(a: Tensor | None, b: Tensor | None) -> bool:
    # A compiled graph may leave a zero where eager leaves None.
    if a is None or b is None:
        rest = b if a is None else a
        return rest is None or not bool(rest.any())
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def assert_finite(tensors: Iterable[Tensor]) -> None:
    for grad in gradients(tensors):
        assert grad is None or bool(torch.isfinite(grad).all()), "a gradient is not finite"


def assert_same_state(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    assert before.keys() == after.keys()
    for name, entry in before.items():
        assert torch.equal(entry, after[name]), f"{name} has moved"


def assert_raises(
    call: Callable[[], object],
    name: str,
    kinds: type[Exception] | tuple[type[Exception], ...] = (TypeError, ValueError),
) -> None:
    try:
        call()
    except kinds as error:
        found = re.search(rf"'[^' ]*\b{re.escape(name)}\b", str(error))
        assert found, f"expected {name!r} in: {error}"
        return
    raise AssertionError(f"expected an error that names {name!r}, got none")
