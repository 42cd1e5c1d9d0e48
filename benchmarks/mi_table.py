"""Every method of `vaereg.metrics.estimate_mi` on every distribution of known mutual information.

The distributions are `CASES` of tests/metrics/exact_mi.py; rows are drawn anew for each seed, and
each method reads the same rows with its defaults and one run a seed. Results go to
benchmarks/results/mi_table.json, written after each cell, with the commit that measured it;
`python docs/estimators.py` makes the page of them. `--resume` goes on where a run was broken off,
as long as neither the commit nor the configuration has changed.

    python benchmarks/mi_table.py --resume
    python benchmarks/mi_table.py --cases gaussian xor --methods best --rows 600 --out t.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "metrics"))
from exact_mi import CASES, Case  # noqa: E402

import vaereg  # noqa: E402
from vaereg.metrics import estimate_mi  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "mi_table.json"
METHODS = ("best", "classifier", "mine", "nwj", "jsd", "infonce", "smile", "club")
# These take labels as integers; the others see them one-hot.
LABELS = ("best", "classifier")
Record = dict[str, Any]


def commit() -> str:
    """The commit, with a digest of the measured code where it differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    head = git("rev-parse", "HEAD") or "unknown"
    cases = Path(sys.modules[Case.__module__].__file__ or "")
    package = Path(vaereg.__file__).parent
    if not git("status", "--porcelain", "--", str(package), str(cases)):
        return head
    digest = hashlib.sha256()
    for path in (*sorted(package.rglob("*.py")), cases):
        digest.update(path.read_bytes())
    return f"{head}-dirty.{digest.hexdigest()[:8]}"


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def describe(case: Case, rows: int, seeds: list[int]) -> Record:
    """What is known of a case, and how its exact log ratio spreads over the drawn rows."""
    ratios = np.concatenate([case.oracle(*case.rows(rows, seed)) for seed in seeds])
    return {
        "truth": case.truth,
        "club": case.club,
        "discrete": case.discrete,
        "dimensions": list(case.dimensions),
        "note": case.note,
        "log_ratio_mean": float(ratios.mean()),
        "log_ratio_std": float(ratios.std()),
        "methods": {},
    }


def measure(case: Case, method: str, args: argparse.Namespace) -> Record:
    """One cell: a value for each seed."""
    cell: Record = {"values": [], "cpu_seconds": [], "gaps": [], "intervals": [], "warnings": 0}
    for seed in args.seeds:
        a, b = case.rows(args.rows, seed, codes=method not in LABELS)
        start = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = estimate_mi(
                a, b, method=method, runs=args.runs, seed=seed, device=args.device
            )  # fmt: skip
        cell["cpu_seconds"].append(round(time.process_time() - start, 2))
        cell["values"].append(found.mean if math.isfinite(found.mean) else None)
        cell["gaps"].append(found.gap if math.isfinite(found.gap) else None)
        cell["warnings"] += sum("estimate_mi" in str(w.message) for w in caught)
        interval = getattr(found, "interval", None)
        cell["intervals"].append(None if interval is None else list(interval))
        for name in ("bound", "ceiling"):
            cell[name] = getattr(found, name, None)
    cell["commit"] = commit()
    values = cell["values"]
    finite = None not in values
    cell["mean"] = float(np.mean(values)) if finite else None
    cell["std"] = float(np.std(values, ddof=1)) if finite and len(values) > 1 else None
    return cell


def write(path: Path, record: Record) -> None:
    """Replace the file in one step: a run that is broken off leaves the last whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def progress(total: int) -> Any:
    """A tqdm bar, or None without tqdm."""
    try:
        return import_module("tqdm").tqdm(total=total, unit="cell")
    except ImportError:
        return None


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rows", type=int, default=10_000, help="rows drawn of each case (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S",
        help="seeds of data, split and critics (default: 0 1 2)")  # fmt: skip
    add("--runs", type=int, default=1, help="runs of estimate_mi a seed (default: %(default)s)")
    add("--methods", nargs="+", default=list(METHODS), metavar="M",
        help=f"of {', '.join(METHODS)}; default all")  # fmt: skip
    add("--cases", nargs="+", metavar="TEXT",
        help="only cases with one of these in their name; default all; see --list")  # fmt: skip
    add("--list", action="store_true", help="list cases and exact values, and stop")
    add("--resume", action="store_true",
        help="keep the cells that --out holds of this commit and configuration")  # fmt: skip
    add("--keep-commits", action="store_true",
        help="with --resume: keep cells of other commits as well, where what has changed since "
        "cannot have changed them; each cell names its own")  # fmt: skip
    add("--threads", type=int, default=1, help="torch threads (default: %(default)s)")
    add("--device", default="cpu", help="where critics are fitted (default: %(default)s)")
    add("--out", type=Path, default=OUT, help="JSON file to write (default: %(default)s)")
    args = parser.parse_args(given)
    unknown = [m for m in args.methods if m not in METHODS]
    if unknown:
        parser.error(f"--methods: expected some of {', '.join(METHODS)}, got {', '.join(unknown)}")
    for text in args.cases or ():
        if not any(text in name for name in CASES):
            parser.error(f"--cases: no case has {text!r} in its name; see --list")
    partial = args.cases or set(args.methods) != set(METHODS)
    if (
        partial
        and not args.list
        and not args.resume
        and args.out.resolve() == OUT
        and OUT.exists()
    ):
        parser.error(
            "a part of the table would replace all of it: add --resume, or --out ELSEWHERE"
        )
    return args


def configuration(args: argparse.Namespace) -> Record:
    return {
        "rows": args.rows,
        "runs": args.runs,
        "data": "drawn anew for each seed",
        "labels": f"integers for {' and '.join(LABELS)}, one-hot for the others",
        "estimate_mi": "defaults",
        "unit": "nats",
    }


def start(args: argparse.Namespace) -> Record:
    """The record to go on with: the file's where ``--resume`` may keep it, else an empty one."""
    record: Record = {
        "commit": commit(),
        "seeds": args.seeds,
        "device": device_name(args.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "configuration": configuration(args),
        "cases": {},
    }
    if args.resume and args.out.exists():
        stored = json.loads(args.out.read_text(encoding="utf-8"))
        free = {"cases", "commit"} if args.keep_commits else {"cases"}
        changed = [key for key in record if key not in free and stored.get(key) != record[key]]
        if not changed:
            return {**stored, "commit": record["commit"]}
        print(f"--resume: other {', '.join(changed)} in {args.out.name}: starting anew")
        if args.cases or set(args.methods) != set(METHODS):
            raise SystemExit("a part of the table would replace all of it: give another --out")
    return record


def main(given: list[str] | None = None) -> int:
    """Measure and write."""
    args = arguments(given)
    cases = [c for c in CASES.values() if not args.cases or any(t in c.name for t in args.cases)]
    if args.list:
        for case in cases:
            kind = "labels" if case.discrete else "pair"
            print(f"{case.name:34s} {case.truth:8.4f}  {kind:6s} {case.dimensions}  {case.note}")
        return 0
    torch.set_num_threads(args.threads)
    record = start(args)
    cells = [
        (case, method)
        for case in cases
        for method in args.methods
        if case.discrete or method != "classifier"
    ]
    missing: set[str] = set()
    bar = progress(len(cells))
    say = print if bar is None else bar.write
    try:
        for case, method in cells:
            entry = record["cases"].get(case.name)
            if entry is None:
                entry = record["cases"][case.name] = describe(case, args.rows, args.seeds)
            done = entry["methods"].get(method)
            if method not in missing and (done is None or "error" in done):
                if bar is not None:
                    bar.set_postfix_str(f"{case.name}, {method}")
                try:
                    entry["methods"][method] = measure(case, method, args)
                except (ValueError, RuntimeError, ArithmeticError) as error:
                    if str(error).startswith("method: expected"):
                        missing.add(method)
                        say(f"{method}: not a method of this estimate_mi, skipped")
                    else:
                        entry["methods"][method] = {"error": f"{type(error).__name__}: {error}"}
                        say(f"{case.name}, {method}: {error}")
                write(args.out, record)
            if bar is not None:
                bar.update()
            elif method in entry["methods"]:
                print(line(case, method, entry["methods"][method]))
    finally:
        if bar is not None:
            bar.close()
    # The registry's order, whatever the order of the parts that were measured.
    record["cases"] = {name: record["cases"][name] for name in CASES if name in record["cases"]}
    write(args.out, record)
    if bar is not None:
        for case, method in cells:
            if method in record["cases"][case.name]["methods"]:
                print(line(case, method, record["cases"][case.name]["methods"][method]))
    return 0


def line(case: Case, method: str, cell: Record) -> str:
    head = f"{case.name:34s} {method:10s} truth {case.truth:7.3f}"
    if cell.get("mean") is None:
        return f"{head}  {cell.get('error', 'not finite')}"
    spread = "" if cell["std"] is None else f" ± {cell['std']:.3f}"
    seconds = np.mean(cell["cpu_seconds"])
    return (
        f"{head}  {cell['mean']:7.3f}{spread}  error {cell['mean'] - case.truth:+.3f} "
        f"{seconds:6.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
