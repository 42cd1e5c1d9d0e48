"""What a report is given: data, observed variables and factors, as it needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaereg.metrics._encoding import check_observed

__all__ = ["check_active", "check_numbers", "checked", "factors_of", "names_of"]


_NUMBERS = (int, float, np.integer, np.floating, np.bool_)
# Torch stores these and computes next to nothing of them.
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def checked(
    model: Any, x: Any, observed: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor | Any]]:
    """Data and observed variables, numpy's arrays as tensors.

    Raises:
        TypeError: If an array is not of numbers, or a variable is asked for by nothing.
        ValueError: If ``x`` is no finite data, or a variable has another number of rows.
    """
    x = _tensor("x", x, model)
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) < 2:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x: expected a tensor (N, *event) of at least 2 rows, got {got}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x: expected finite values, got nan or inf")
    given = {name: _tensor(name, value, model) for name, value in observed.items()}
    check_observed(model, given, len(x))
    return x, given


def _tensor(name: str, value: Any, model: Any) -> Any:
    """An array as a tensor, real numbers in the precision of the model; all else as it is."""
    if isinstance(value, Tensor):
        return value.long() if value.dtype in _UNSIGNED else value
    if not isinstance(value, np.ndarray):
        return value
    array = cast("NDArray[Any]", value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of numbers, got dtype {array.dtype}")
    # Torch takes neither the other byte order nor steps backwards, and wants to write.
    native = cast("Any", array.dtype).newbyteorder("=")
    if native.kind == "u" and native.itemsize > 1:
        native = np.dtype(np.int64)
    elif native.kind == "f" and native.itemsize > 8:
        native = np.dtype(np.float64)
    tensor = torch.from_numpy(array.astype(native, order="C", copy=True))
    if not tensor.is_floating_point():
        return tensor
    own = model.parameters() if isinstance(model, nn.Module) else ()
    dtypes = (p.dtype for p in own if p.is_floating_point())
    return tensor.to(next(dtypes, torch.get_default_dtype()))


def check_numbers(**given: tuple[Any, int]) -> None:
    """Whether each is an integer of at least so much.

    Raises:
        TypeError: If one is no integer.
        ValueError: If one is less.
    """
    for name, (value, least) in given.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            raise TypeError(f"{name}: expected an integer, got {value!r}")
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")


def check_active(active: Any) -> None:
    """Whether it is a threshold.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is negative or not finite.
    """
    if not isinstance(active, (int, float, np.integer, np.floating)) or isinstance(active, bool):
        raise TypeError(f"active: expected a number, got {active!r}")
    if not 0.0 <= float(cast("float", active)) < float("inf"):
        raise ValueError(f"active: expected a finite number of at least 0, got {active}")


def factors_of(factors: Any, rows: int) -> NDArray[np.int64]:
    """Values of factors as integers, ``(rows, K)``.

    Raises:
        TypeError: If they are no whole numbers.
        ValueError: If their shape is another.
    """
    if isinstance(factors, Tensor):
        factors = factors.detach().cpu()
        factors = factors.double() if factors.is_floating_point() else factors
    y = np.asarray(factors)
    if y.dtype.kind == "O" and all(
        isinstance(v, _NUMBERS) for v in cast("list[Any]", y.ravel().tolist())
    ):
        y = np.array(y.tolist())  # as of a table's column: numbers that numpy was not told of
    if y.dtype.kind not in "fiub":
        raise TypeError(f"factors: expected integers, got dtype {y.dtype}")
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) != rows or not y.shape[1]:
        raise ValueError(
            f"factors: expected integers ({rows}, K) or ({rows},), got {y.dtype} {y.shape}"
        )
    if y.dtype.kind == "f" and not bool(np.isfinite(y).all()):
        raise ValueError("factors: expected finite values, got nan or inf")
    if y.dtype.kind == "f" and bool((y != np.round(y)).any()):
        raise TypeError(
            "factors: expected integers, got real numbers; number the values of each factor "
            "(numpy.unique with return_inverse=True)"
        )
    return y.astype(np.int64)


def names_of(names: Sequence[str] | None, factors: NDArray[np.int64] | None) -> list[str]:
    """Names of the factors.

    Raises:
        TypeError: If one is no text.
        ValueError: If there are more or less of them than factors.
    """
    if factors is None:
        if names is not None:
            raise ValueError("factor_names: expected factors beside them, got none")
        return []
    k = factors.shape[1]
    if names is None:
        return [f"factor {d}" for d in range(k)]
    if isinstance(names, str):
        raise TypeError(f"factor_names: expected a sequence of texts, got {names!r}")
    for name in names:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"factor_names: expected texts, got {name!r}")
    if len(names) != k:
        raise ValueError(f"factor_names: expected {k} names, got {len(names)}")
    return list(names)
