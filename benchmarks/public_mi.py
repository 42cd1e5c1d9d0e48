"""Accuracy of `vaereg.metrics.estimate_mi` on the tasks of the public benchmark package.

The package benchmark-mi (Czyz et al., Beyond Normal, NeurIPS 2023) holds 40 tasks of known mutual
information and estimators of its own. It asks for an equinox that no longer imports; in an
environment of its own install, in this order,

    pip install benchmark-mi
    pip install "jax==0.4.38" "jaxlib==0.4.38" "equinox>=0.11.12,<0.13" \\
        "tensorflow-probability==0.25.0"

Then, with that environment's Python for the first two commands and vaereg's for the others:

    python benchmarks/public_mi.py draw --data public_mi_data   # rows of all tasks, as npz
    python benchmarks/public_mi.py peers --data public_mi_data  # its neural estimators
    python benchmarks/public_mi.py ours --data public_mi_data   # estimate_mi
    python benchmarks/public_mi.py table                        # errors side by side

`peers` and `ours` go on where they were cut.

Both sides see the same rows. Their estimators run with the package's own settings.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "public_mi.json"
PEERS = {
    "MINE": "MINEEstimator",
    "InfoNCE": "InfoNCEEstimator",
    "NWJ": "NWJEstimator",
    "Donsker-Varadhan": "DonskerVaradhanEstimator",
}


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"estimators": {}}


def store(path: Path, record: dict[str, Any]) -> None:
    """Atomically: a run that is cut leaves the file of the last task."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)


def draw(args: argparse.Namespace) -> None:
    """Sample all tasks."""
    import numpy as np

    bmi = import_module("bmi")
    args.data.mkdir(parents=True, exist_ok=True)
    for name, task in bmi.benchmark.BENCHMARK_TASKS.items():
        x, y = task.sample(args.rows, seed=args.seed)
        truth = float(task.mutual_information)
        np.savez(
            args.data / f"{args.seed}_{name}.npz",
            x=np.asarray(x, float), y=np.asarray(y, float), mi=truth,
        )  # fmt: skip
    print(f"{len(bmi.benchmark.BENCHMARK_TASKS)} tasks of {args.rows} rows in {args.data}")


def run(
    args: argparse.Namespace,
    label: str,
    estimate: Callable[[Any, Any], dict[str, Any]],
    configuration: dict[str, Any],
) -> None:
    """One estimator over all tasks, whatever is not in the results yet."""
    import numpy as np

    files = sorted(args.data.glob(f"{args.seed}_*.npz"))
    if not files:
        raise SystemExit(f"no rows of seed {args.seed} in {args.data}: run `draw` first")
    for file in files:
        name = file.stem.split("_", 1)[1]
        data = np.load(file)
        record = load(args.out)
        mine = record["estimators"].setdefault(label, {"tasks": {}})
        # Results of another commit or configuration are not mixed with these.
        if mine.get("configuration") != configuration:
            mine = record["estimators"][label] = {"tasks": {}, "configuration": configuration}
        key = f"{name}@{args.seed}"
        if key in mine["tasks"]:
            continue
        start, cpu = time.perf_counter(), time.process_time()
        found = estimate(data["x"], data["y"])
        found["truth"] = float(data["mi"])
        found["seconds"] = round(time.perf_counter() - start, 2)
        found["cpu_seconds"] = round(time.process_time() - cpu, 2)
        # Read again: another estimator may have been running beside.
        record = load(args.out)
        record["estimators"].setdefault(label, mine)
        if record["estimators"][label].get("configuration") != configuration:
            record["estimators"][label] = mine
        record["estimators"][label]["tasks"][key] = found
        store(args.out, record)
        error = found["value"] - found["truth"]
        print(f"{label:18s} {name:50s} {found['truth']:.3f} {found['value']:.3f} {error:+.3f} "
              f"{found['cpu_seconds']:.0f} s", flush=True)  # fmt: skip


def peers(args: argparse.Namespace) -> None:
    """The package's neural estimators with its own settings."""
    bmi = import_module("bmi")
    versions = {name: metadata.version(name) for name in ("benchmark-mi", "jax", "equinox")}
    for label, cls in PEERS.items():
        if args.only and label not in args.only:
            continue

        def estimate(x: Any, y: Any, cls: str = cls) -> dict[str, Any]:
            return {"value": float(getattr(bmi.estimators, cls)(verbose=False).estimate(x, y))}

        settings = {"settings": "the package's defaults", "versions": versions, "device": "cpu",
                    "seed": args.seed, "rows": args.rows}  # fmt: skip
        run(args, f"benchmark-mi {label}", estimate, settings)


def ours(args: argparse.Namespace) -> None:
    """estimate_mi."""
    import torch

    from vaereg.metrics import estimate_mi

    torch.set_num_threads(args.threads)
    for method in args.only or ["best"]:

        def estimate(x: Any, y: Any, method: str = method) -> dict[str, Any]:
            found = estimate_mi(x, y, method=method, runs=args.runs, seed=args.seed)
            return {"value": found.mean, "values": list(found.values), "interval": found.interval,
                    "choices": list(found.choices)}  # fmt: skip

        settings = {"settings": f"estimate_mi(method={method!r}, runs={args.runs})",
                    "commit": commit(), "torch": torch.__version__, "device": "cpu",
                    "threads": args.threads, "python": platform.python_version(),
                    "seed": args.seed, "rows": args.rows}  # fmt: skip
        run(args, f"vaereg {method}", estimate, settings)


def table(args: argparse.Namespace) -> None:
    """Absolute errors, over the tasks that all estimators have finished."""
    record = load(args.out)
    names = [name for name, entry in record["estimators"].items() if entry["tasks"]]
    if not names:
        raise SystemExit(f"nothing in {args.out}")
    tasks = [set(record["estimators"][name]["tasks"]) for name in names]
    common = sorted(set.intersection(*tasks))
    print(f"absolute error in nats over {len(common)} tasks that all have finished")
    for name in sorted(names):
        entry = record["estimators"][name]["tasks"]
        errors = [abs(entry[k]["value"] - entry[k]["truth"]) for k in common]
        wall = [entry[k]["seconds"] for k in common]
        print(f"{name:32s} median {statistics.median(errors):.4f}  mean "
              f"{statistics.fmean(errors):.4f}  worst {max(errors):.3f}  "
              f"{statistics.median(wall):.0f} s a task")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function in (("draw", draw), ("peers", peers), ("ours", ours), ("table", table)):
        sub = commands.add_parser(name, help=(function.__doc__ or "").strip())
        sub.set_defaults(function=function)
        sub.add_argument(
            "--out", type=Path, default=RESULTS, help="results (default: %(default)s)"
        )
        if name == "table":
            continue
        sub.add_argument("--data", type=Path, required=True, help="folder of the sampled rows")
        sub.add_argument("--seed", type=int, default=0, help="seed of the rows (default 0)")
        sub.add_argument("--rows", type=int, default=10_000, help="rows a task (default 10000)")
        if name in ("peers", "ours"):
            sub.add_argument("--only", nargs="+", help="estimators (peers) or methods (ours)")
        if name == "ours":
            sub.add_argument("--runs", type=int, default=5, help="runs a task (default 5)")
            sub.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
