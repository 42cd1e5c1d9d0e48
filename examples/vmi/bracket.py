"""What the code of each trained model knows, between two bounds: ``python -m vmi.bracket``.

Reads the checkpoints in the folder of finished runs and writes ``brackets.json`` beside their
results: a fresh critic's bound on real pictures <= I(c; x) <= the KL rate, and the bound on what
is decoded, on a quarter of the test pictures, which neither model nor critic has seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness.checkpoint import write_text
from harness.command import commit
from harness.logs import terminal
from harness.output import tell_if_nothing_to_resume
from vaereg.metrics import mi_bracket

from .data import load
from .settings import Settings
from .train import train


def brackets(folder: Path, data: str, part: str, seed: int, progress: bool) -> dict[str, Any]:
    """The bracket of each run in ``folder``.

    Raises:
        ValueError: If there are no results in the folder.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(f"--runs: expected a folder with results.json, got {folder}")
    pictures = load(data)
    x = pictures.tensor("test")
    found: list[dict[str, Any]] = []
    for run in json.loads(path.read_text())["runs"]:
        settings = Settings(**run["settings"])
        name = f"{settings.model}_mi={settings.mi:g}"
        where = folder / f"seed{settings.seed}" / name
        tell_if_nothing_to_resume(where, [where])
        trained = train(
            settings, pictures, where, device=torch.device("cpu"), resume=True, progress=progress
        )
        bracket = mi_bracket(
            trained.vae, x, code=part, seed=seed, progress=progress and terminal()
        )
        print(f"{run['name']}: {bracket}", flush=True)
        found.append({"name": run["name"], **asdict(bracket), "consistent": bracket.consistent})
    return {
        "commit": commit(), "torch": torch.__version__, "device": "cpu", "code": part,
        "data": f"{pictures.source}, test", "seed": seed, "threads": torch.get_num_threads(),
        "runs": found,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Read, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--runs", type=Path, required=True, help="the --output folder of finished runs")
    add("--data", default="digits", help="the pictures that they were trained on")
    add("--code", default="c", help="a code, a part or a joint (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the critics (default: %(default)s)")
    add("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)
    try:
        content = brackets(
            options.runs, options.data, options.code, options.seed, not options.quiet
        )
    except (ValueError, OSError) as error:
        print(f"bracket: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    write_text(options.runs / "brackets.json", json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
