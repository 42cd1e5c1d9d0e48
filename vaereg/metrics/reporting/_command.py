"""The command: a page of any trained VAE that a function of the user's returns."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
import torch

from vaereg.metrics.reporting import report
from vaereg.metrics.reporting._mistakes import said

__all__ = ["main"]

_OPTIONS = {
    name
    for name, parameter in inspect.signature(report).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
} - {"x", "factors", "factor_names"}

_EPILOG = """\
SOURCE is FILE.py:FUNCTION or package.module:FUNCTION. The function takes no arguments and returns
the trained model; or (model, x); or a mapping with "model" and any arguments of
vaereg.metrics.report: "x", "factors", "factor_names", "image_shape", and observed variables by
name. What it does not return is read from --data.

  def trained():
      vae = vaereg.VAE(Encoder(), Decoder(), objective)
      vae.load_state_dict(torch.load("vae.pt"))
      return vae

  vaereg-report model.py:trained --data test.npz --output vae.html
"""


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="vaereg-report",
        description="Write one self-contained HTML page of a trained VAE: reconstructions, "
        "traversals, what its codes hold and know, warnings, scores where factors are known.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("source", metavar="SOURCE", help="where the model comes from; see below")
    p.add_argument(
        "--data", type=Path, metavar="NPZ",
        help="arrays x (or images; uint8 is divided by 255), and perhaps factors (N, K) and "
        "factor_names; other arrays are observed variables by their names",
    )  # fmt: skip
    p.add_argument(
        "--output", "-o", type=Path, default=Path("report.html"), help="default: %(default)s"
    )
    p.add_argument("--title", help="default: SOURCE")
    p.add_argument(
        "--image-shape", type=int, nargs="+", metavar="N", help="H W or C H W, for flat rows"
    )
    p.add_argument("--rows", type=int, help="rows read (default 10000)")
    p.add_argument(
        "--fitted", type=int,
        help="rows that critics and predictors are fitted and read on (default 4000)",
    )  # fmt: skip
    p.add_argument("--seed", type=int, help="default: 0")
    p.add_argument("--quick", action="store_true", help="no critics: no brackets and no audit")
    p.add_argument("--quiet", action="store_true", help="no progress")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; the exit status."""
    options = parser().parse_args(arguments)
    given: dict[str, Any] = {}
    try:
        _writable(options.output)
        given = _model(options.source)
        if options.data is not None:
            given = {**_arrays(options.data), **given}
        if given.get("x") is None:
            raise ValueError("x: expected data from SOURCE or --data, got none")
        for name in ("title", "image_shape", "rows", "fitted", "seed"):
            if getattr(options, name) is not None:
                given[name] = getattr(options, name)
        given.setdefault("title", options.source)
        given.setdefault("progress", not options.quiet)
        if options.quick:
            given |= {"bracket": False, "audit": False}
        given["x"] = _tensor(given["x"], bytes_to=255.0)
        page = report(**given)
        path = page.save(options.output)
    except Exception as error:  # a model's own mistakes are of any kind
        print(f"vaereg-report: {said(error, given.get('x'))}", file=sys.stderr)
        return 2
    for notice in page.notices:
        print(f"{notice.level}: {notice.head}")
    for what, why in page.skipped:
        print(f"not measured: {what}: {why}")
    print(path)
    return 0


def _writable(path: Path) -> None:
    """Whether a file can be written there: told before the work and not after it."""
    if path.is_dir():
        raise ValueError(f"--output: expected a file, got the folder {path}")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # save makes what is missing
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--output: expected a file that can be written, got {path} ({folder}: "
            f"{error.strerror})"
        ) from error


def _model(source: str) -> dict[str, Any]:
    place, _, name = source.rpartition(":")
    if not place or not name:
        raise ValueError(f"SOURCE: expected FILE.py:FUNCTION or module:FUNCTION, got {source!r}")
    make = getattr(_module(place), name, None)
    if not callable(make):
        raise ValueError(f"SOURCE: expected a function {name!r} in {place}, got {make!r}")
    found: Any = make()
    if isinstance(found, Mapping):
        given = dict(cast("Mapping[str, Any]", found))
        if "model" not in given:
            raise ValueError(f'SOURCE: expected a mapping with "model", got {sorted(given)}')
        given |= {name: _tensor(v) for name, v in given.items() if _is_observed(name, v)}
    elif isinstance(found, tuple):
        pair = cast("tuple[Any, ...]", found)
        if len(pair) != 2:
            raise ValueError(f"SOURCE: expected (model, x), got a tuple of {len(pair)}")
        given = {"model": pair[0], "x": pair[1]}
    else:
        given = {"model": found}
    if not callable(getattr(given["model"], "encode", None)):
        raise ValueError(
            f"SOURCE: expected {name!r} to return a vaereg.VAE, or a model with encode(x), got "
            + ("None" if given["model"] is None else type(given["model"]).__name__)
        )
    return given


def _is_observed(name: str, value: Any) -> bool:
    """Arrays are cut to rows as tensors are, but for what is no variable of the model's."""
    return isinstance(value, np.ndarray) and name not in (
        "x",
        "factors",
        "factor_names",
        "image_shape",
    )


def _module(place: str) -> Any:
    path = Path(place)
    if path.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    if not path.is_file():
        raise ValueError(f"SOURCE: expected a Python file, got {place!r}, which is none")
    # Its neighbours are importable, as where it is run as a script.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {str(name): file[name] for name in file.files}
    except (AttributeError, EOFError, OSError, TypeError, ValueError, BadZipFile) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(
            f"--data: expected an npz file of arrays of numbers or texts, got {path} ({why})"
        ) from error
    options = sorted(_OPTIONS & set(arrays))
    if options:
        raise ValueError(
            f"--data: expected x, factors, factor_names and observed variables, got {options[0]}, "
            "which is an option of the report; give it on the command line or from SOURCE"
        )
    if "x" not in arrays and "images" in arrays:
        arrays["x"] = arrays.pop("images")
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        if name == "factors":
            found[name] = array
        elif name == "factor_names":
            found[name] = [str(entry) for entry in array]
        elif name in ("x", "images"):
            found[name] = _tensor(array, bytes_to=255.0)
        else:
            found[name] = _tensor(array)
    return found


def _tensor(value: Any, *, bytes_to: float = 1.0) -> torch.Tensor:
    """Data as a tensor; bytes over ``bytes_to``, where it is not 1."""
    tensor = torch.as_tensor(value)
    if tensor.dtype == torch.uint8 and bytes_to != 1.0:
        return tensor.float() / bytes_to
    if tensor.dtype == torch.bool or tensor.dtype == torch.float64:
        return tensor.float()
    return tensor
