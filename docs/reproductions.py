"""Write the tables of docs/reproductions.md, and of one example, from the stored results.

python docs/reproductions.py           # rewrite the pages
python docs/reproductions.py --check   # fail if a page is stale
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reproductions.md"
MMVAE = ROOT / "examples" / "mmvae" / "results"
DISENTANGLED = ROOT / "examples" / "disentangled" / "results"
VMI = ROOT / "examples" / "vmi" / "results"
BENCHMARKS = ROOT / "benchmarks" / "results"

QUANTITIES = ("I(c;y)", "I(z;y)", "I(z;c)")
# Sedong Kim (2019), tables 2 and 3: bits, mean and standard deviation; swap accuracy in percent.
PAPER: dict[str, dict[str, str]] = {
    "r-cvae": {
        "I(c;y)": "0.895 ± 0.014",
        "I(z;y)": "0.245 ± 0.005",
        "I(z;c)": "1.391 ± 0.044",
        "swap": "94.35%",
    },
    "csvae": {
        "I(c;y)": "0.909 ± 0.012",
        "I(z;y)": "0.210 ± 0.018",
        "I(z;c)": "0.498 ± 0.051",
        "swap": "96.50%",
    },
    "mmvae": {
        "I(c;y)": "0.908 ± 0.016",
        "I(z;y)": "0.175 ± 0.017",
        "I(z;c)": "0.400 ± 0.025",
        "swap": "97.17%",
    },
}
# By data set and whether the term is on: accuracy, KL of the code in nats. MNIST: Serdega and Kim
# (2020); Fashion-MNIST: InfoVAEGAN (Information Sciences, 2021), table 1, another method.
PAPER_VMI: dict[tuple[str, bool], tuple[str, str]] = {
    ("mnist", False): ("21%", "—"),
    ("mnist", True): ("82%", "2.27"),
    ("fashion", True): ("51.24% (InfoVAEGAN)", "—"),
}
# Best setting of each method in the comparison of 2020: beta-VAE score, FactorVAE score, MIG.
PAPER_DSPRITES: dict[str, tuple[str, str, str]] = {
    "beta": ("0.867 ± 0.079", "0.737 ± 0.031", "0.270 ± 0.013"),
    "factor": ("0.894 ± 0.033", "0.758 ± 0.054", "0.297 ± 0.061"),
    "tc": ("0.884 ± 0.049", "0.736 ± 0.028", "0.285 ± 0.060"),
    "dip1": ("0.612 ± 0.041", "0.479 ± 0.038", "0.039 ± 0.011"),
    "dip2": ("0.612 ± 0.041", "0.479 ± 0.038", "0.039 ± 0.011"),
}
VMI_FILES = ("mnist", "mnist_without", "fashion", "digits")
MODELS = {"r-cvae": "r-CVAE", "csvae": "CSVAE", "mmvae": "MMVAE"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(header), ["---"] * len(header), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _public(text: str) -> str:
    """A text without folders of the machine that wrote it."""
    text = re.sub(r"\s--output[ =]\S+", "", text)
    return re.sub(r"(?<![\w.])/(?:[\w.\-]+/)*([\w.\-]+)", r"\1", text)


def _spread(values: list[float], digits: int = 3, sign: str = "") -> str:
    text = f"{mean(values):.{digits}f}{sign}"
    return text + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def _mi(runs: list[dict[str, Any]], quantity: str) -> str:
    found = [run["mi_bits"][quantity] for run in runs if quantity in run["mi_bits"]]
    if not found:
        return "—"
    if len(found) > 1:
        return _spread([one["mean"] for one in found])
    return f"{found[0]['mean']:.3f} ± {found[0]['std']:.3f}"


def _swap(runs: list[dict[str, Any]], attribute: str) -> str:
    found = [run["swap"][attribute] for run in runs if attribute in run["swap"]]
    if not found:
        return "—"
    if len(found) > 1:
        return _spread([100 * one["accuracy"] for one in found], 1, "%")
    low, high = (100 * bound for bound in found[0]["interval"])
    return f"{100 * found[0]['accuracy']:.1f}% [{low:.1f}, {high:.1f}]"


def _setting(runs: list[dict[str, Any]], name: str) -> str:
    values = dict.fromkeys(str(run["settings"].get(name, "?")) for run in runs)
    return ", ".join(values)


def mmvae_section(path: Path) -> str:
    """One result file: what was run, and the paper's numbers beside ours."""
    content = json.loads(path.read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = content["runs"]
    attributes: list[str] = content["attributes"]
    images: dict[str, int] = content["images"]
    names = list(dict.fromkeys(run["name"] for run in runs))
    with_paper = len(attributes) == 1
    header = ["model"]
    for quantity in QUANTITIES:
        header += [f"{quantity} bits, paper", "ours"] if with_paper else [f"{quantity} bits"]
    if with_paper:
        header += ["swap, paper", "ours"]
    else:
        header += [f"swap {attribute}" for attribute in attributes]
    rows: list[list[str]] = []
    for name in names:
        own = [run for run in runs if run["name"] == name]
        paper = PAPER.get(name, {})
        row = [MODELS.get(name, name)]
        for quantity in QUANTITIES:
            row += [paper.get(quantity, "—")] if with_paper else []
            row.append(_mi(own, quantity))
        row += [paper.get("swap", "—")] if with_paper else []
        row += [_swap(own, attribute) for attribute in attributes]
        rows.append(row)
    accuracy = content["classifier_accuracy_on_real_images"]
    real = ", ".join(f"{name} {100 * value:.2f}%" for name, value in accuracy.items())
    measured = content["measured_on"]
    facts = [
        f"Data: {_public(str(content['data']))}; "
        + ", ".join(f"{number} {part}" for part, number in images.items())
        + f" images; measured on {measured['rows']} images "
        f"({_public(str(measured['data']))}), H(y) = {content['entropy_bits']:.3f} bits.",
        f"Runs: preset {_setting(runs, 'preset')}, {_setting(runs, 'epochs')} epochs, batch "
        f"{_setting(runs, 'batch')}, pixel standard deviation {_setting(runs, 'pixel_std')}, "
        f"alpha {_setting(runs, 'alpha')}, beta {_setting(runs, 'beta')}, gamma "
        f"{_setting(runs, 'gamma')}, warm-up {_setting(runs, 'warmup')} epochs, critic rate "
        f"{_setting(runs, 'critic_lr')} with {_setting(runs, 'critic_steps')} steps, seeds "
        f"{_setting(runs, 'seed')}.",
        f"Classifier on real test images: {real}. Device: {content['device']}; torch "
        f"{content['torch']}; commit `{content['commit'][:12]}`.",
        f"Command: `python examples/mmvae_celeba.py {_public(' ' + content['command']).strip()}`",
    ]
    order = _order(runs, names, attributes)
    lines = [f"### {path.stem}", "", f"Attributes: {', '.join(attributes)}.", ""]
    lines += [
        table(header, rows),
        "",
        *(["Order here: " + "; ".join(order) + ".", ""] if order else []),
    ]
    lines += [f"- {fact}" for fact in [*_intervals(runs, names), *facts]]
    return "\n".join(lines)


# 97.5% quantiles of Student's t by degrees of freedom.
T_QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def _interval(values: list[float]) -> str:
    half = T_QUANTILES[len(values) - 1] * stdev(values) / math.sqrt(len(values))
    return f"[{mean(values) - half:.3f}, {mean(values) + half:.3f}]"


def _intervals(runs: list[dict[str, Any]], names: list[str]) -> list[str]:
    """95% t-intervals of both leaks over seeds, and of each model's excess over the last one."""
    by_seed = {(run["name"], run["settings"]["seed"]): run["mi_bits"] for run in runs}
    seeds = sorted({seed for _, seed in by_seed})
    complete = all((name, seed) in by_seed for name in names for seed in seeds)
    if not complete or len(seeds) - 1 not in T_QUANTILES:
        return []
    found: list[str] = []
    for quantity in ("I(z;y)", "I(z;c)"):
        values = {n: [by_seed[n, seed][quantity]["mean"] for seed in seeds] for n in names}
        texts = [f"{MODELS.get(n, n)} {_interval(values[n])}" for n in names]
        for name in names[:-1]:
            excess = [a - b for a, b in zip(values[name], values[names[-1]], strict=True)]
            last = MODELS.get(names[-1], names[-1])
            texts.append(f"{MODELS.get(name, name)} minus {last} {_interval(excess)}")
        found.append(
            f"{quantity}, 95% t-intervals over {len(seeds)} seeds, differences paired by seed: "
            + "; ".join(texts)
            + "."
        )
    return found


def _order(runs: list[dict[str, Any]], names: list[str], attributes: list[str]) -> list[str]:
    """The models by each leak and by swap accuracy, as found."""
    if len(names) < 2:
        return []
    found: list[str] = []

    def ranked(key: Callable[[dict[str, Any]], float]) -> list[str]:
        value = {n: mean(key(run) for run in runs if run["name"] == n) for n in names}
        return [MODELS.get(n, n) for n in sorted(names, key=lambda n: value[n])]

    for quantity in ("I(z;y)", "I(z;c)"):
        key = lambda run, q=quantity: run["mi_bits"][q]["mean"]  # noqa: E731
        found.append(f"{quantity} " + " < ".join(ranked(key)) + _agreement(runs, names, key))
    for attribute in attributes:
        key = lambda run, a=attribute: run["swap"][a]["accuracy"]  # noqa: E731
        order = " < ".join(ranked(key))
        found.append(f"swap {attribute} {order}" + _agreement(runs, names, key))
    return found


def _agreement(
    runs: list[dict[str, Any]], names: list[str], key: Callable[[dict[str, Any]], float]
) -> str:
    """In how many seeds the order of the means is the order of that seed."""
    seeds = sorted({run["settings"]["seed"] for run in runs})
    pairs = {(run["name"], run["settings"]["seed"]) for run in runs}
    if len(seeds) < 2 or len(pairs) < len(names) * len(seeds):
        return ""

    def order(own: list[dict[str, Any]]) -> list[str]:
        return sorted(names, key=lambda n: mean(key(run) for run in own if run["name"] == n))

    same = [
        order([run for run in runs if run["settings"]["seed"] == seed]) == order(runs)
        for seed in seeds
    ]
    return f" (so in {sum(same)} of {len(seeds)} seeds)"


def vmi_section(files: Sequence[Path]) -> str:
    """All result files in one table, a row for each weight of the term; then their facts."""
    header = ["results", "weight", "seeds", "accuracy, published", "one-to-one", "range", "picked"]
    header += ["majority", "KL of c, published", "ours"]
    rows: list[list[str]] = []
    facts: list[str] = []
    for path in files:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups: dict[float, list[dict[str, Any]]] = {}
        for run in content["runs"]:
            groups.setdefault(run["settings"]["mi"], []).append(run)
        for weight, own in sorted(groups.items()):
            rows.append(_vmi_row(path.stem, weight, own, content["summary"][f"{weight:g}"]))
        facts.append(_vmi_facts(path.stem, content, groups))
    return table(header, rows) + "\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _vmi_row(
    stem: str, weight: float, runs: list[dict[str, Any]], summary: dict[str, Any]
) -> list[str]:
    paper = PAPER_VMI.get((stem.split("_")[0], weight > 0), ("—", "—"))
    scores = [100 * run["accuracy"]["one_to_one"] for run in runs]
    several = len(runs) > 1
    return [
        stem,
        f"{weight:g}",
        str(len(runs)),
        paper[0],
        _spread(scores, 2, "%"),
        f"{min(scores):.2f} to {max(scores):.2f}%" if several else "—",
        f"{100 * summary['picked_one_to_one']:.2f}%" if several else "—",
        _spread([100 * run["accuracy"]["majority"] for run in runs], 2, "%"),
        paper[1],
        _spread([run["held_out"]["kl_c"] for run in runs]),
    ]


def _vmi_facts(
    stem: str, content: dict[str, Any], groups: dict[float, list[dict[str, Any]]]
) -> str:
    source, images, runs = _public(str(content["data"])), content["images"], content["runs"]
    text = f"*{stem}*: {source}, {images['train']} images to train and {images['test']} to score. "
    if source.endswith("holdout"):
        text += "These are not the official test images: no published number has this split. "
    for weight, own in sorted(groups.items()):
        rank = content["summary"][f"{weight:g}"]["rank_correlation_with_one_to_one"].get("bound")
        if rank is not None:
            text += (
                f"Rank correlation of the criterion with the accuracy at weight {weight:g}: "
                f"{rank:+.2f}, of {len(own)} runs. "
            )
    commit, _, changed = str(content["commit"]).partition("-")
    state = " (with changes not committed)" if changed else ""
    return text + (
        f"{_setting(runs, 'epochs')} passes, batch {_setting(runs, 'batch')}, z of "
        f"{_setting(runs, 'z')} numbers, c of {_setting(runs, 'k')} classes, seeds "
        f"{_setting(runs, 'seed')}. Device: {content['device']}; torch {content['torch']}; commit "
        f"`{commit[:12]}`{state}. Command: `python examples/vmi_digits.py "
        f"{_public(' ' + content['command']).strip()}`"
    )


def _vmi() -> str:
    """The section on the results that are there, and a line for each that is not."""
    found = sorted(VMI.glob("*.json"))
    # Others hold trial runs, or runs of the Gaussian model, which has no classes to score.
    scored = [
        path
        for path in found
        if (content := json.loads(path.read_text(encoding="utf-8"))).get("summary")
        and all("accuracy" in run for run in content["runs"])
    ]
    stems = {path.stem for path in scored}
    absent = [_missing(f"examples/vmi/results/{n}.json") for n in VMI_FILES if n not in stems]
    return "\n\n".join([*([vmi_section(scored)] if scored else []), *absent])


def disentangled_section(path: Path) -> str:
    """Scores of each objective, and what is gained over beta-VAEs of the same error."""
    content = json.loads(path.read_text(encoding="utf-8"))
    header = [
        "objective",
        "seeds",
        "beta-VAE score, published",
        "ours",
        "FactorVAE score, published",
    ]
    header += ["ours", "MIG, published", "ours", "MIG of q(z given x)", "DCI", "-log p(x given z)"]
    header += ["I(x; z)", "TC"]

    def cell(entry: dict[str, float], digits: int = 3) -> str:
        spread = f" ± {entry['std']:.{digits}f}" if "std" in entry else ""
        return f"{entry['mean']:.{digits}f}{spread}"

    rows: list[list[str]] = []
    for objective, found in content["summary"].items():
        plain = "+" not in objective and "," not in objective
        paper = PAPER_DSPRITES.get(objective.split(":")[0], ("—",) * 3) if plain else ("—",) * 3
        row = [f"`{objective}`", str(found["mig"]["seeds"])]
        for published, name in zip(paper, ("beta_vae", "factor_vae", "mig"), strict=True):
            row += [published, cell(found[name])]
        row += [cell(found["mig_sampled"]), cell(found["dci"]), cell(found["nll"], 1)]
        rows.append([*row, cell(found["mi"], 2), cell(found["tc"])])
    text = table(header, rows)
    near = dict.fromkeys(
        f"`{run['settings']['objective']}`"
        for run in content["runs"]
        if run["unsupervised"]["mi"] > 0.75 * math.log(run["rows"])
    )
    if near:
        most = math.log(content["runs"][0]["rows"])
        text += (
            f"\n\nOf {', '.join(near)}, I(x; z) of a run at least is above three quarters of its "
            f"ceiling, the logarithm of the pictures measured ({most:.1f} nats): it is read too "
            "low there, and TC too high (`benchmarks/README.md` has by how much)."
        )
    gains = content.get("equal_reconstruction", {})
    names = ("mig", "factor_vae", "dci", "tc")
    lines = [
        [f"`{objective}`", f"{entry['seeds']} of {entry['seeds'] + entry['outside']}"]
        + [
            f"{cell(entry[n])} (above in {entry[n]['above']} of {entry[n]['of']})"
            if n in entry
            else "—"
            for n in names
        ]
        for objective, entry in gains.items()
        if entry["seeds"]
    ]
    if lines:
        text += (
            "\n\nLess the beta-VAE of the same error and seed, interpolated between weights:\n\n"
        )
        text += table(
            ["objective", "seeds compared", "MIG", "FactorVAE score", "DCI", "TC"], lines
        )
    runs = content["runs"]
    trained = ", ".join(dict.fromkeys(run["commit"][:12] for run in runs))
    return text + (
        f"\n\n- {content['data']}, {content['pictures']} pictures; {_setting(runs, 'steps')} "
        f"steps of {_setting(runs, 'batch')}, rate {_setting(runs, 'lr')}, critic "
        f"{_setting(runs, 'critic_depth')} x {_setting(runs, 'critic_width')}, precision "
        f"{_setting(runs, 'precision')}; measured on {runs[0]['rows']} pictures, boosting rounds "
        f"{content['measured']['trees']}. Device: {content['device']}; torch {content['torch']}; "
        f"trained by commit `{trained}`, tables by "
        f"`{content['commit'][:12]}`. Command: `python examples/disentangled_dsprites.py "
        f"{_public(' ' + content['command']).strip()}`"
    )


def accuracy_section(path: Path) -> str:
    """Estimates beside the known truth; the bar is the error that was asked for beforehand."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows: list[list[str]] = []
    for name, case in content["cases"].items():
        error = case["mean"] - case["truth"]
        bar = "—" if case["bar"] is None else "[{:.2f}, {:.2f}]".format(*case["bar"])
        met = {None: "—", True: "met", False: "**missed**"}[case["met"]]
        gap = mean(case["gaps"])
        numbers = [f"{case['truth']:.3f}", f"{case['mean']:.3f} ± {case['std']:.3f}"]
        rows.append([name, *numbers, f"{error:+.3f}", bar, met, f"{gap:+.3f}"])
    header = ["case", "truth", "estimate", "error", "bar for the error", "", "gap"]
    facts = (
        f"{len(content['seeds'])} seeds, data drawn anew for each; "
        f"{content['configuration']['rows']} rows but where a case says "
        f"otherwise; device {content['device']}, torch "
        f"{content['torch']}, commit `{content['commit'][:12]}`."
    )
    return table(header, rows) + (
        "\n\nIn nats; the spread is over seeds; the gap is the bound on the critics' own training "
        f"rows minus the held-out one. {facts}"
    )


def cost_section(path: Path) -> str:
    """Times and ratios, a column a provider."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    groups: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        median, low, high = (float(row[key]) for key in ("median", "q20", "q80"))
        cell = f"{median:.4g} [{low:.4g}, {high:.4g}]"
        groups.setdefault((row["case"], row["metric"], row["unit"]), {})[row["provider"]] = cell
    header = ["case", "metric", "unit", *providers]
    body = table(
        header,
        ([*key, *(cells.get(name, "—") for name in providers)] for key, cells in groups.items()),
    )

    def common(name: str) -> str:
        return ", ".join(dict.fromkeys(row[name] for row in rows))

    return (
        f"{body}\n\nMedian over the rounds with the 20% and 80% quantiles. Device "
        f"{common('device')}, {common('threads')} threads, torch {common('torch')}, commit "
        f"`{common('commit')}`."
    )


def _missing(where: str) -> str:
    return f"*No results stored yet in `{where}`.*"


def sections() -> dict[str, str]:
    """The generated text of each section."""
    files = sorted(MMVAE.glob("*.json"))
    parts: dict[str, str] = {
        "mmvae": "\n\n".join(map(mmvae_section, files)) or _missing("examples/mmvae/results"),
        "vmi": _vmi(),
        "disentangled": "\n\n".join(map(disentangled_section, sorted(DISENTANGLED.glob("*.json"))))
        or _missing("examples/disentangled/results"),
    }
    tables = {"mi_accuracy.json": accuracy_section, "critic_cost.csv": cost_section}
    for name, section in tables.items():
        path = BENCHMARKS / name
        text = section(path) if path.is_file() else _missing(f"benchmarks/results/{name}")
        parts[path.stem] = text
    return parts


def renewed(path: Path, parts: Mapping[str, str]) -> str:
    """The page with its generated parts renewed.

    Raises:
        ValueError: If a section's markers are missing.
    """
    text = path.read_text(encoding="utf-8")
    for name, body in parts.items():
        begin, end = f"<!-- begin generated: {name} -->", f"<!-- end generated: {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{path.name}: expected the markers {begin} and {end}")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}\n\n{body}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages.

    Returns:
        1 if a page is stale under ``--check``, else 0.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is stale")
    options = parser.parse_args(arguments)
    parts = sections()
    readme = DISENTANGLED.parent / "README.md"
    stale = 0
    for path, own in ((PAGE, parts), (readme, {"disentangled": parts["disentangled"]})):
        fresh = renewed(path, own)
        if not options.check:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != path.read_text(encoding="utf-8"):
            print(f"{path} is stale: run python docs/reproductions.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
