r"""One page that shows a trained VAE: what it reconstructs, what its codes hold and know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vaereg.metrics._encoding import device_of
from vaereg.metrics.reporting._assemble import ReportPage, assemble, looks_of
from vaereg.metrics.reporting._gather import NLL, gather
from vaereg.metrics.reporting._inputs import (
    check_active,
    check_numbers,
    checked,
    factors_of,
    names_of,
)
from vaereg.metrics.reporting._measure import Plan, measure
from vaereg.metrics.reporting._notices import Notice
from vaereg.metrics.reporting._pictures import canvas_of, pillow

__all__ = ["Notice", "ReportPage", "report"]


def report(
    model: Any,
    x: Tensor | NDArray[Any],
    *,
    factors: Any = None,
    factor_names: Sequence[str] | None = None,
    title: str = "Report of a VAE",
    image_shape: Sequence[int] | None = None,
    nll: NLL | None = None,
    rows: int = 10_000,
    fitted: int = 4_000,
    samples: int = 2_000,
    trees: int = 20,
    traversals: int = 16,
    active: float = 0.01,
    bracket: bool = True,
    audit: bool = True,
    details: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
    **observed: Any,
) -> ReportPage:
    r"""A self-contained HTML page of a trained VAE.

    On it: reconstructions and their differences, samples of the prior, traversals in the order of
    the coordinates' KL, :math:`E_x \mathrm{KL}(q(z_d \mid x) \,\|\, p(z_d))` of each with active
    units, aggregated posteriors beside the prior, the exact parts of the KL
    (:func:`kl_decomposition`), brackets of each code's information (:func:`mi_bracket`), an audit
    of the objective's mutual-information terms (:func:`audit`), scores where factors are known,
    and warnings: collapse, unused classes, holes in the aggregated posterior, bounds that
    contradict each other. What cannot be measured is named with the reason; the page comes out
    all the same. The model is read in evaluation mode, which is restored, without gradients.

    Args:
        model: A :class:`vaereg.VAE`, or anything with ``encode(x, **observed)`` that gives codes
            by name and ``decode(values, **observed)``.
        x: Data, ``(N, *event)``, at least 2 rows, a tensor or an array. Pictures are
            ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``, or rows with ``image_shape``; all
            else is drawn as curves. Real numbers of an array are given the model's precision.
        factors: Integer values of known factors, ``(N, K)`` or ``(N,)``.
        factor_names: Their names.
        title: Of the page.
        image_shape: ``(H, W)`` or ``(C, H, W)`` of rows that hold pictures.
        nll: ``(decoded, x) -> scalar`` or ``(B,)``, for models that are no :class:`vaereg.VAE`.
        rows: Rows that are read, at random, at most.
        fitted: Rows that critics and predictors are fitted and read on, at most.
        samples: Codes drawn for the exact parts of the KL and MIG's sampling form.
        trees: Boosting rounds of DCI's predictors (100 where published: minutes).
        traversals: Coordinates that are moved, at most.
        active: KL from which a coordinate counts as active, in nats.
        bracket: Fit critics for the brackets.
        audit: Fit critics for the audit.
        details: More to be said in the page's foot, by name.
        seed: Seed of all that is drawn, at least 0. Torch's own generators are left as they were.
        batch_size: Rows of a pass.
        progress: Show a progress bar (needs tqdm); plain lines where stderr is no terminal.
        observed: What the model is also given by name; tensors and arrays are cut as ``x`` is.

    Returns:
        A :class:`ReportPage`; ``.save("report.html")`` writes it.

    Raises:
        TypeError: If the model does not encode to codes by name, or factors are no integers.
        ValueError: If shapes or numbers of rows differ, ``x`` is not finite, or a number is out of
            its range.
        ImportError: If Pillow is not installed, or tqdm for ``progress``.

    Example:
        >>> import vaereg
        >>> from torch import nn
        >>> vae = vaereg.VAE(nn.Linear(6, 4), nn.Linear(2, 6), vaereg.Objective(kl=vaereg.KL("z")),
        ...                  likelihood="gaussian")
        >>> page = report(vae, torch.randn(100, 6), bracket=False)
        >>> page.html.startswith("<!doctype html>"), sorted(page.numbers["codes"])
        (True, ['z'])
    """
    check_numbers(
        rows=(rows, 2), fitted=(fitted, 2), samples=(samples, 2), trees=(trees, 1),
        traversals=(traversals, 0), batch_size=(batch_size, 1), seed=(seed, 0),
    )  # fmt: skip
    check_active(active)
    seed = int(seed)  # torch takes no integer of numpy's
    if not isinstance(title, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"title: expected a text, got {title!r}")
    x, observed = checked(model, x, observed)
    y = None if factors is None else factors_of(factors, len(x))
    names = names_of(factor_names, y)
    canvas = canvas_of(x, image_shape)
    if canvas.shape is not None and callable(getattr(model, "decode", None)):
        pillow()  # not after minutes of fitting
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:rows]
    part = x.detach()[chosen.to(x.device)].cpu()
    given = {
        n: v[chosen.to(v.device)] if isinstance(v, Tensor) and v.ndim else v
        for n, v in observed.items()
    }
    y = None if y is None else y[chosen.numpy()]
    where = device_of(model, x)
    say, done = _progress(progress)
    plan = Plan(active, samples, fitted, trees, seed, bracket, audit, say)
    try:
        with torch.random.fork_rng([where] if where.type == "cuda" else []):
            torch.default_generator.manual_seed(seed)
            if where.type == "cuda":
                with torch.cuda.device(where):
                    torch.cuda.manual_seed(seed)
            say("codes")
            seen = gather(model, part, given, nll, batch_size, where, fitted if audit else 0)
            found = measure(model, seen, y, names, plan)
            say("pictures")
            looks = looks_of(model, seen, found, canvas, traversals, seed)
    finally:
        done()
    return assemble(model, seen, found, looks, plan, title, dict(details or {}))


def _progress(show: bool) -> tuple[Callable[[str], None], Callable[[], None]]:
    if not show:
        return lambda text: None, lambda: None
    if not sys.stderr.isatty():  # a bar is drawn over itself, which only a terminal can
        return lambda text: print(f"report: {text}", file=sys.stderr, flush=True), lambda: None
    try:
        bar: Any = import_module("tqdm").tqdm(bar_format="{desc} {elapsed}")
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error

    def say(text: str) -> None:
        bar.set_description_str(f"report: {text}")

    return say, bar.close
