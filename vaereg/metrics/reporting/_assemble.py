"""The sections that show what is decoded, and the page with all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from vaereg.metrics.reporting import _page as pages
from vaereg.metrics.reporting._gather import Gathered
from vaereg.metrics.reporting._knowledge import audited, bracketed, kl_parts, scored
from vaereg.metrics.reporting._measure import Measured, Plan
from vaereg.metrics.reporting._notices import Notice, notices
from vaereg.metrics.reporting._pictures import Canvas, reconstructions, samples, walks

__all__ = ["ReportPage", "assemble", "looks_of"]

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
        if path.is_dir():
            raise IsADirectoryError(f"path: expected a file, got the folder {path}")
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


def looks_of(
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


def assemble(
    model: Any,
    seen: Gathered,
    found: Measured,
    looks: list[pages.Section],
    plan: Plan,
    title: str,
    details: dict[str, Any],
) -> ReportPage:
    sections, n = [*looks], len(seen.x)
    body = found.attempt("coordinates", lambda: pages.coordinates(seen, plan.active))
    if body is not None:
        sections.append(("kl", "Coordinates", body))
    if found.parts:
        sections.append(("parts", "Parts of the KL", kl_parts(found, n)))
    if found.brackets:
        body = bracketed(found.brackets, min(n, plan.fitted), n)
        sections.append(("information", "Information", body))
    if found.audit is not None:
        sections.append(("audit", "Audit", audited(found.audit)))
    if found.scores:
        sections.append(("scores", "Known factors", scored(found.scores, n)))
    warned = notices(seen, found, plan.active)
    kind = getattr(model, "likelihood", None)
    version = import_module("vaereg").__version__
    foot = {**details, "rows": n, "seed": plan.seed, "vaereg": version}
    shape = _TIMES.join(str(n) for n in seen.x.shape[1:])
    codes = ", ".join(
        f"{name} of {_TIMES.join(str(n) for n in code.value.shape[1:])}"
        for name, code in seen.codes.items()
    )
    subtitle = f"{n} rows of {shape}; code {codes}"
    subtitle += f"; {kind} likelihood" if isinstance(kind, str) else ""
    numbers = _numbers(seen, found, warned)
    html = pages.page(
        title, subtitle, pages.tiles(seen, found, plan.active), warned, sections, found.skipped,
        foot, numbers, [name for name, code in seen.codes.items() if code.kl is None],
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
