r"""One page that shows a trained VAE: what it reconstructs, what its codes hold and know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vaereg.metrics._encoding import device_of
from vaereg.metrics.reporting import _page as pages
from vaereg.metrics.reporting._gather import NLL, Gathered, gather
from vaereg.metrics.reporting._measure import Measured, Plan, measure
from vaereg.metrics.reporting._notices import Notice, notices
from vaereg.metrics.reporting._pictures import (
    Canvas,
    canvas_of,
    pillow,
    reconstructions,
    samples,
    walks,
)

__all__ = ["Notice", "ReportPage", "report"]

_TIMES = " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True)
class ReportPage:
    """A report: the page, and what is on it.

    Attributes:
        html: The page, one file that needs nothing else.
        numbers: All that was measured, in plain numbers and texts, as JSON takes them.
        notices: The warnings, the bad ones first.
        skipped: What could not be measured, and why.
    """

    html: str
    numbers: dict[str, Any]
    notices: tuple[Notice, ...]
    skipped: tuple[tuple[str, str], ...]

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all; folders are made.

        Returns:
            Where it is.

        Raises:
            OSError: If it cannot be written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.part")
        try:
            scratch.write_text(self.html, encoding="utf-8")
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        return path

    def __repr__(self) -> str:
        return (
            f"ReportPage({len(self.html) // 1024} KiB, {len(self.notices)} notices, "
            f"{len(self.skipped)} not measured)"
        )


def report(
    model: Any,
    x: Tensor,
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
        x: Data, ``(N, *event)``, at least 2 rows. Pictures are ``(N, H, W)``, ``(N, 1, H, W)`` or
            ``(N, 3, H, W)``, or rows with ``image_shape``; all else is drawn as curves.
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
        seed: Seed of all that is drawn. Torch's own generators are left as they were.
        batch_size: Rows of a pass.
        progress: Show a progress bar (needs tqdm).
        observed: What the model is also given by name; tensors are cut as ``x`` is.

    Returns:
        A :class:`ReportPage`; ``.save("report.html")`` writes it.

    Raises:
        TypeError: If the model does not encode to codes by name.
        ValueError: If shapes or numbers of rows differ, or ``x`` is not finite.
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
    for name, value, least in (
        ("rows", rows, 2), ("fitted", fitted, 2), ("samples", samples, 2), ("trees", trees, 1),
        ("traversals", traversals, 0), ("batch_size", batch_size, 1),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    _check(x, observed)
    y, names = _factors(factors, factor_names, len(x))
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
            looks = _looks(model, seen, found, canvas, traversals, seed)
    finally:
        done()
    return _assemble(model, seen, found, looks, plan, title, dict(details or {}))


def _check(x: Tensor, observed: Mapping[str, Any]) -> None:
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) < 2:  # pyright: ignore[reportUnnecessaryIsInstance]
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__  # pyright: ignore
        raise ValueError(f"x: expected a tensor (N, *event) of at least 2 rows, got {got}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x: expected finite values, got nan or inf")
    for name, value in observed.items():
        if isinstance(value, Tensor) and value.ndim and len(value) != len(x):
            raise ValueError(f"{name}: expected as many rows as x, {len(x)}, got {len(value)}")


def _factors(factors: Any, names: Sequence[str] | None, rows: int) -> tuple[Any, list[str]]:
    if factors is None:
        if names is not None:
            raise ValueError("factor_names: expected factors beside them, got none")
        return None, []
    y = np.asarray(factors.cpu() if isinstance(factors, Tensor) else factors)
    y = y[:, None] if y.ndim == 1 else y
    if y.ndim != 2 or len(y) != rows or y.dtype.kind not in "iub":
        raise ValueError(
            f"factors: expected integers ({rows}, K) or ({rows},), got {y.dtype} {y.shape}"
        )
    known = [f"factor {k}" for k in range(y.shape[1])] if names is None else list(names)
    if len(known) != y.shape[1]:
        raise ValueError(f"factor_names: expected {y.shape[1]} names, got {len(known)}")
    return y.astype(np.int64), known


def _progress(show: bool) -> tuple[Callable[[str], None], Callable[[], None]]:
    if not show:
        return lambda text: None, lambda: None
    try:
        bar: Any = import_module("tqdm").tqdm(desc="report", bar_format="{desc}: {elapsed}")
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error

    def say(text: str) -> None:
        bar.set_description(f"report: {text}")

    return say, bar.close


def _looks(
    model: Any, seen: Gathered, found: Measured, canvas: Canvas, most: int, seed: int
) -> list[pages.Section]:
    """Sections that show what is decoded."""
    if not callable(getattr(model, "decode", None)):
        found.skipped.append(("pictures", "the model has no decode"))
        return []
    sections: list[pages.Section] = []

    def add(anchor: str, head: str, body: str | None) -> None:
        if body:
            sections.append((anchor, head, body))

    def compared() -> list[tuple[str, str]]:
        x, again = reconstructions(model, seen)
        if canvas.shape is None:
            return [("data (grey), decoded", canvas.strip(again, "decoded", over=x))]
        return [
            ("data", canvas.strip(x, "data")),
            ("decoded", canvas.strip(again, "reconstructions")),
            ("difference", canvas.difference(x, again, "absolute differences")),
        ]

    def drawn() -> list[tuple[str, str]]:
        # A categorical code shows its classes in turn, whatever its prior weighs them by.
        turns = [name for name, code in seen.codes.items() if code.discrete]
        label = "samples of the prior" + (f", classes of {', '.join(turns)} in turn" * bool(turns))
        return [(label, canvas.strip(samples(model, seen, seed), "samples of the prior"))]

    def moved() -> str:
        return pages.walked(*walks(model, seen, most), canvas)

    strips = found.attempt("reconstructions", compared) or []
    strips += found.attempt("samples of the prior", drawn) or []
    hint = "Decoded from the means, or most likely classes, of the first rows' codes."
    add("reconstructions", "Reconstructions", pages.shown(strips, hint) if strips else None)
    if most:
        add("traversals", "Traversals", found.attempt("traversals", moved))
    return sections


def _assemble(
    model: Any,
    seen: Gathered,
    found: Measured,
    looks: list[pages.Section],
    plan: Plan,
    title: str,
    details: dict[str, Any],
) -> ReportPage:
    sections = [*looks]
    sections.append(("kl", "Coordinates", pages.coordinates(seen, plan.active)))
    if found.parts:
        sections.append(("parts", "Parts of the KL", pages.kl_parts(found, len(seen.x))))
    if found.brackets:
        sections.append(("information", "Information", pages.bracketed(found.brackets)))
    if found.audit is not None:
        sections.append(("audit", "Audit", pages.audited(found.audit)))
    if found.scores:
        sections.append(("scores", "Known factors", pages.scored(found.scores)))
    warned = notices(seen, found, plan.active)
    kind = getattr(model, "likelihood", None)
    version = import_module("vaereg").__version__
    foot = {**details, "rows": len(seen.x), "seed": plan.seed, "vaereg": version}
    shape = _TIMES.join(str(n) for n in seen.x.shape[1:])
    codes = ", ".join(
        f"{name} of {_TIMES.join(str(n) for n in code.value.shape[1:])}"
        for name, code in seen.codes.items()
    )
    subtitle = f"{len(seen.x)} rows of {shape}; code {codes}"
    subtitle += f"; {kind} likelihood" if isinstance(kind, str) else ""
    numbers = _numbers(seen, found, warned)
    html = pages.page(
        title, subtitle, pages.tiles(seen, found, plan.active), warned, sections, found.skipped,
        foot, numbers,
    )  # fmt: skip
    return ReportPage(html, numbers, tuple(warned), tuple(found.skipped))


def _numbers(seen: Gathered, found: Measured, warned: Sequence[Notice]) -> dict[str, Any]:
    codes = {
        name: {
            "kl": None if code.kl is None else list(code.kl),
            "parts": asdict(found.parts[name]) if name in found.parts else None,
            "bracket": asdict(found.brackets[name]) if name in found.brackets else None,
            "scores": found.scores[name].values if name in found.scores else None,
        }
        for name, code in seen.codes.items()
    }
    return _plain({
        "rows": len(seen.x), "nll": seen.nll, "nll_of_the_mean": seen.blank, "codes": codes,
        "audit": None if found.audit is None else found.audit.to_dict(),
        "notices": [asdict(notice) for notice in warned],
        "skipped": [list(pair) for pair in found.skipped],
    })  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(value, np.generic):
        return _plain(cast("Any", value.item()))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        named = cast("Mapping[Any, Any]", value)
        return {str(key): _plain(entry) for key, entry in named.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in cast("Sequence[Any]", value)]
    return value
