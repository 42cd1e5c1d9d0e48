"""The table of estimators: what is measured, kept and skipped, and the page made of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "docs"))

import estimators  # noqa: E402
import mi_table  # noqa: E402

from vaereg.metrics import MIEstimate  # noqa: E402

PAIR, RING = "gaussian d=1 rho=0.5", "ring noise=0.4"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, tuple[int, ...]]]:
    """Every call of an estimate_mi that knows three methods and fails in one."""
    seen: list[tuple[str, int, tuple[int, ...]]] = []

    def estimate(a: Any, b: Any, *, method: str, seed: int, **options: Any) -> MIEstimate:
        if method not in ("best", "mine", "club"):
            raise ValueError(f"method: expected one of best, club, mine, got {method!r}")
        seen.append((method, seed, b.shape))
        if method == "club":
            raise ValueError("b: cannot")
        return MIEstimate(0.1 + 0.2 * seed, 0.0, (0.1 + 0.2 * seed,), 0.01)

    monkeypatch.setattr(mi_table, "estimate_mi", estimate)
    monkeypatch.setattr(mi_table, "commit", lambda: "0123456789abcdef")
    return seen


def measure(out: Path, *more: str) -> dict[str, Any]:
    given = ["--rows", "100", "--seeds", "0", "1", "--cases", PAIR, RING, "--out", str(out)]
    assert mi_table.main([*given, *more]) == 0
    return json.loads(out.read_text(encoding="utf-8"))


def test_cells_are_measured_skipped_and_kept(
    calls: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.json"
    record = measure(out)
    cell = record["cases"][PAIR]["methods"]["mine"]
    assert cell["values"] == [0.1, pytest.approx(0.3)] and cell["mean"] == pytest.approx(0.2)
    assert cell["std"] == pytest.approx(0.2 / 2**0.5) and len(cell["cpu_seconds"]) == 2
    assert "cannot" in record["cases"][PAIR]["methods"]["club"]["error"]
    assert set(record["cases"][RING]["methods"]) == {"best", "mine", "club"}
    assert record["seeds"] == [0, 1] and record["configuration"]["rows"] == 100
    # Labels: integers for best, one-hot for mine.
    assert ("best", 0, (100,)) in calls and ("mine", 0, (100, 5)) in calls
    said = capsys.readouterr()
    assert (said.out + said.err).count("nwj: not a method of this estimate_mi, skipped") == 1
    # Again: only what failed is tried again.
    calls.clear()
    assert measure(out, "--resume") == record
    assert {name for name, _, _ in calls} == {"club"}
    # Another configuration: nothing is kept, and a part does not replace the whole.
    with pytest.raises(SystemExit, match="another --out"):
        measure(out, "--resume", "--rows", "120")
    assert json.loads(out.read_text(encoding="utf-8")) == record
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_cells_of_another_commit_are_kept_on_demand_and_named(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.json"
    measure(out)
    monkeypatch.setattr(mi_table, "commit", lambda: "fedcba9876543210")
    record = json.loads(out.read_text(encoding="utf-8"))
    del record["cases"][PAIR]["methods"]["best"]
    out.write_text(json.dumps(record), encoding="utf-8")
    kept = measure(out, "--resume", "--keep-commits")
    cells = kept["cases"][PAIR]["methods"]
    assert cells["best"]["commit"] == "fedcba9876543210" == kept["commit"]
    assert cells["mine"]["commit"] == "0123456789abcdef"


def test_a_broken_run_leaves_whole_cells(
    calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mi_table.measure

    def stop(case: Any, method: str, args: Any) -> Any:
        if case.name == RING:
            raise KeyboardInterrupt
        return whole(case, method, args)

    monkeypatch.setattr(mi_table, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path / "t.json")
    stored = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    assert set(stored["cases"]) == {PAIR}


@pytest.mark.parametrize(
    ("given", "message"),
    [(["--methods", "knn"], "expected some of best"), (["--cases", "nothing"], "no case has")],
)
def test_wrong_arguments(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        mi_table.main(given)
    assert message in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert mi_table.main(["--list", "--cases", "xor bits"]) == 0
    assert "0.3681  labels" in capsys.readouterr().out


# ---- the page


def test_page_is_not_stale() -> None:
    assert estimators.main(["--check"]) == 0


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    marks = (
        f"<!-- begin generated: {n} -->\n<!-- end generated: {n} -->\n"
        for n in ("guidance", "summary", "estimates")
    )
    (tmp_path / "page.md").write_text("\n".join(marks), encoding="utf-8")
    monkeypatch.setattr(estimators, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(estimators, "RESULTS", tmp_path / "t.json")
    return tmp_path / "page.md"


def cell(value: float | None, **changes: Any) -> dict[str, Any]:
    base = {"values": [value], "mean": value, "std": 0.01, "cpu_seconds": [1.0, 2.0]}
    return {**base, "bound": "lower", "ceiling": 2.0, **changes}


def case(truth: float, methods: dict[str, Any], **changes: Any) -> dict[str, Any]:
    base = {"truth": truth, "club": None, "discrete": False, "log_ratio_std": 1.0}
    return {**base, "methods": methods, **changes}


def store(page: Path, cases: dict[str, Any], **changes: Any) -> str:
    record = {
        "commit": "0123456789abcdef-dirty.01234567", "seeds": [0, 1], "device": "cpu",
        "threads": 1, "torch": "2.6",
        "configuration": {"rows": 10_000, "runs": 1, "labels": "integers"}, "cases": cases,
    }  # fmt: skip
    (page.parent / "t.json").write_text(json.dumps({**record, **changes}), encoding="utf-8")
    assert estimators.main(["--check"]) == 1 and estimators.main([]) == 0
    assert estimators.main(["--check"]) == 0
    return page.read_text(encoding="utf-8")


def test_absent_results_are_said_to_be_absent(page: Path) -> None:
    assert estimators.main([]) == 0
    assert page.read_text(encoding="utf-8").count("No results stored yet") == 3


def test_results_become_tables_and_sentences(page: Path) -> None:
    club = cell(2.9, bound="upper", ceiling=None)
    text = store(page, {
        "gaussian": case(0.5, {"mine": cell(0.45), "nwj": cell(0.6), "club": club}, club=3.0),
        "sign flip": case(0.4, {"mine": cell(0.39), "nwj": cell(0.1), "club": club}),
        "wide": case(5.0, {"mine": cell(1.9)}),
        "nothing": case(0.0, {"mine": cell(0.002), "nwj": {"error": "ValueError: no"}}),
        "ring": case(1.0, {"mine": cell(None)}, discrete=True),
    })  # fmt: skip
    # One fifth of 2 x 10,000 rows is held out: 1 / sqrt(4000).
    assert "| gaussian | 0.500 | 0.016 | 3.000 | 0.450 ± 0.010<br>1.5 s | 0.600" in text
    assert "| nothing | 0.000 | 0.016 | — | 0.002 ± 0.010<br>1.5 s | error | — |" in text
    assert "| ring | 1.000 | 0.016 | not finite |" in text
    # nwj: errors 0.1 and -0.3, the first by more than twice the noise; a bound from below.
    assert (
        "| `nwj` | from below | 2 | 0.200 | 0.300 (sign flip) | 0.100 | -0.300 | 1 | 1.5 s" in text
    )
    assert "- Uncorrelated, but dependent (1 case): read by `mine`; off by more than half" in text
    assert "- Above a ceiling, I(wide) = 5.00: `mine` 1.900 of 2.00." in text
    assert "Largest value where there is nothing (1 case): `mine` 0.002." in text
    assert "median distance from it, where known, is 0.100, from I 2.400 (cases: 1)" in text
    assert "commit `0123456789ab` with changes" in text
    # Best first.
    assert text.index("| `mine` | from below |") < text.index("| `nwj` | from below |")
