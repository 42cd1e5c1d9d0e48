"""Write the tables of docs/estimators.md from benchmarks/results/mi_table.json.

python docs/estimators.py           # rewrite the page
python docs/estimators.py --check   # fail if the page is stale
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "estimators.md"
RESULTS = ROOT / "benchmarks" / "results" / "mi_table.json"

BOUNDS = {"lower": "from below", "upper": "from above, if q is right", "none": "none"}
HELD = 0.2  # the part of the rows that one run reads
MISSED = 0.5  # error over the truth beyond which a dependence counts as missed
Record = dict[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(names: Iterable[str]) -> list[str]:
    return [f"`{name}`" for name in names]


def count(names: Sequence[str]) -> str:
    return f"{len(names)} case{'s' if len(names) != 1 else ''}"


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100.0 else f"{value:.3g}"


class Results:
    """The stored results, and what the page says of them."""

    def __init__(self, content: Record) -> None:
        self.content = content
        self.cases: dict[str, Record] = content["cases"]
        found = (m for case in self.cases.values() for m in case["methods"])
        self.methods = list(dict.fromkeys(found))

    def names(self, discrete: bool) -> list[str]:
        return [name for name, case in self.cases.items() if case["discrete"] == discrete]

    def noise(self, name: str) -> float:
        """Standard error of the exact log ratio's mean over the held-out rows of all seeds."""
        configuration = self.content["configuration"]
        share = min(1.0, HELD * configuration["runs"])
        rows = share * configuration["rows"] * len(self.content["seeds"])
        return self.cases[name]["log_ratio_std"] / math.sqrt(rows)

    def mean(self, name: str, method: str) -> float | None:
        return self.cases[name]["methods"].get(method, {}).get("mean")

    def error(self, name: str, method: str) -> float | None:
        value = self.mean(name, method)
        return None if value is None else value - self.cases[name]["truth"]

    def errors(self, names: Iterable[str], method: str) -> dict[str, float]:
        found = {name: self.error(name, method) for name in names}
        return {name: error for name, error in found.items() if error is not None}

    def seconds(self, names: Iterable[str], method: str) -> list[float]:
        cells = (self.cases[name]["methods"].get(method, {}) for name in names)
        return [mean(cell["cpu_seconds"]) for cell in cells if cell.get("cpu_seconds")]

    def bound(self, method: str) -> str:
        cells = (case["methods"].get(method, {}) for case in self.cases.values())
        return BOUNDS.get(next((c["bound"] for c in cells if c.get("bound")), ""), "—")

    # The tables.

    def _cell(self, name: str, method: str) -> str:
        cell = self.cases[name]["methods"].get(method)
        if cell is None:
            return "—"
        if cell.get("mean") is None:
            return "error" if "error" in cell else "not finite"
        text = number(cell["mean"])
        if cell["std"] is not None:
            text += f" ± {number(cell['std'])}"
        return f"{text}<br>{mean(cell['cpu_seconds']):.1f} s"

    def estimates(self, discrete: bool) -> str:
        """A row a case, a column a method."""
        names = self.names(discrete)
        methods = [m for m in self.methods if any(self._has(name, m) for name in names)]
        clubs = not discrete and any(self.cases[name]["club"] is not None for name in names)
        header = ["case", "I", "noise", *(["CLUB's own"] if clubs else []), *code(methods)]
        rows: list[list[str]] = []
        for name in names:
            case = self.cases[name]
            row = [name, f"{case['truth']:.3f}", f"{self.noise(name):.3f}"]
            if clubs:
                row.append("—" if case["club"] is None else number(case["club"]))
            rows.append([*row, *(self._cell(name, m) for m in methods)])
        return table(header, rows)

    def _has(self, name: str, method: str) -> bool:
        return method in self.cases[name]["methods"]

    def summary(self, discrete: bool) -> str:
        """A row a method, best first."""
        rows: list[tuple[float, list[str]]] = []
        for method in self.methods:
            errors = self.errors(self.names(discrete), method)
            if not errors:
                continue
            sizes = {name: abs(error) for name, error in errors.items()}
            worst = max(sizes, key=sizes.__getitem__)
            above = [n for n, error in errors.items() if error > max(0.01, 2.0 * self.noise(n))]
            seconds = self.seconds(errors, method)
            rows.append((
                median(sizes.values()),
                [f"`{method}`", self.bound(method), str(len(errors)),
                 number(median(sizes.values())),
                 f"{number(sizes[worst])} ({worst})",
                 f"{number(max(errors.values()))}", f"{number(min(errors.values()))}",
                 str(len(above)), f"{median(seconds):.1f} s", f"{max(seconds):.1f} s"],
            ))  # fmt: skip
        header = ["method", "bound", "cases", "median of abs. error", "worst", "highest error",
                  "lowest error", "clearly above I", "median CPU time", "longest"]  # fmt: skip
        return table(header, [row for _, row in sorted(rows, key=lambda r: r[0])])

    # What the numbers say.

    def _split(self, names: list[str]) -> str:
        """Which methods come near the truth in all of these cases, and which do not."""
        whole = [m for m in self.methods if len(self.errors(names, m)) == len(names)]

        def near(method: str) -> bool:
            errors = self.errors(names, method)
            return all(abs(e) <= MISSED * self.cases[n]["truth"] for n, e in errors.items())

        good, bad = ([m for m in whole if near(m) == wanted] for wanted in (True, False))
        parts = [f"read by {', '.join(code(good))}"] if good else []
        if bad:
            parts.append(f"off by more than half of I in some case: {', '.join(code(bad))}")
        return "; ".join(parts)

    def _ranked(self, names: list[str], key: Callable[[dict[str, float]], float]) -> str:
        """Methods by a number of their errors in those of the cases that they can read."""
        values = {m: key(errors) for m in self.methods if (errors := self.errors(names, m))}
        order = sorted(values, key=values.__getitem__)
        return ", ".join(f"`{m}` {number(values[m])}" for m in order)

    def guidance(self) -> str:
        lines: list[str] = []

        def largest(errors: dict[str, float]) -> float:
            return max(abs(e) for e in errors.values())

        def middle(errors: dict[str, float]) -> float:
            return median(abs(e) for e in errors.values())

        for discrete, what in ((False, "two continuous variables"), (True, "labels")):
            names = self.names(discrete)
            if names:
                lines.append(f"For {what}, median absolute error: {self._ranked(names, middle)}.")
        for title, pattern in (
            ("Gaussian pairs behind monotone maps", "of gaussian"),
            ("Heavy tails", "student"),
            ("Uncorrelated, but dependent", "sign flip"),
            ("Labels that only two columns together tell", "xor"),
            ("Labels with sharp boundaries", "checkerboard"),
        ):
            names = [n for n, c in self.cases.items() if pattern in n and c["truth"] > 0.0]
            text = self._split(names) if names else ""
            if text:
                lines.append(f"{title} ({count(names)}): {text}.")
        independent = [n for n, c in self.cases.items() if c["truth"] == 0.0]
        if independent:
            lines.append(
                f"Largest value where there is nothing ({count(independent)}): "
                f"{self._ranked(independent, largest)}."
            )
        lines += self._ceilings()
        lines += self._club()
        return "\n".join(f"- {line}" for line in lines)

    def _ceilings(self) -> list[str]:
        found: dict[str, list[str]] = {}
        for name, case in self.cases.items():
            for method, cell in case["methods"].items():
                ceiling = cell.get("ceiling")
                if ceiling is not None and cell.get("mean") is not None:
                    if case["truth"] > ceiling:
                        text = f"`{method}` {number(cell['mean'])} of {ceiling:.2f}"
                        found.setdefault(name, []).append(text)
        return [
            f"Above a ceiling, I({name}) = {self.cases[name]['truth']:.2f}: {', '.join(texts)}."
            for name, texts in found.items()
        ]

    def _club(self) -> list[str]:
        own: list[float] = []
        away: list[float] = []
        for case in self.cases.values():
            value = case["methods"].get("club", {}).get("mean")
            if value is not None and case["club"] is not None:
                own.append(abs(value - case["club"]))
                away.append(abs(value - case["truth"]))
        if not own:
            return []
        return [
            "`club` estimates another quantity: its median distance from it, where known, is "
            f"{number(median(own))}, from I {number(median(away))} (cases: {len(own)})."
        ]

    def facts(self) -> str:
        content = self.content
        configuration = content["configuration"]
        found = {
            cell.get("commit", content["commit"]): None
            for case in self.cases.values()
            for cell in case["methods"].values()
        }
        commits = ", ".join(
            f"`{name.partition('-')[0][:12]}`" + (" with changes" if "-" in name else "")
            for name in found
        )
        return (
            f"{configuration['rows']} rows of each case, drawn anew for each of "
            f"{len(content['seeds'])} seeds, {configuration['runs']} run a seed, defaults of "
            f"`estimate_mi`; labels as {configuration['labels']}. Device {content['device']}, "
            f"{content['threads']} threads, torch {content['torch']}, "
            f"commit{'s' if len(found) > 1 else ''} {commits}."
        )


def sections() -> dict[str, str]:
    """The generated text of each section."""
    if not RESULTS.is_file():
        missing = "*No results stored yet in `benchmarks/results/mi_table.json`.*"
        return dict.fromkeys(("summary", "guidance", "estimates"), missing)
    results = Results(json.loads(RESULTS.read_text(encoding="utf-8")))
    kinds = [
        (d, t) for d, t in ((False, "Continuous pairs"), (True, "Labels")) if results.names(d)
    ]
    return {
        "summary": "\n\n".join(f"### {t}: errors\n\n{results.summary(d)}" for d, t in kinds),
        "guidance": results.guidance(),
        "estimates": "\n\n".join(f"### {t}\n\n{results.estimates(d)}" for d, t in kinds)
        + f"\n\n{results.facts()}",
    }


def page(text: str) -> str:
    """The page with its generated parts renewed.

    Raises:
        ValueError: If a section's markers are missing.
    """
    for name, body in sections().items():
        begin, end = f"<!-- begin generated: {name} -->", f"<!-- end generated: {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{PAGE.name}: expected the markers {begin} and {end}")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}\n\n{body}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Write or check the page.

    Returns:
        1 if the page is stale under ``--check``, else 0.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is stale")
    options = parser.parse_args(arguments)
    text = PAGE.read_text(encoding="utf-8")
    fresh = page(text)
    if options.check and fresh != text:
        print("docs/estimators.md is stale: run python docs/estimators.py", file=sys.stderr)
        return 1
    if not options.check:
        PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
