"""The arrows between modules, and an import without side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vaereg"
FILES = sorted(PACKAGE.rglob("*.py"))

# What each module or package may import from inside; packages may also import themselves.
ARROWS: dict[str, set[str]] = {
    "ops": {"ops"},
    "functional": {"functional", "ops"},
    "schedules": set(),
    "critics": {"critics"},
    "codes": {"functional"},
    "_names": set(),
    "_checks": {"_names", "codes", "functional"},
    "regularizer": {"_checks", "_names", "codes", "critics", "functional", "objective"},
    "_pairs": {"_checks", "_names", "codes", "critics", "regularizer"},
    "regularizers": {
        "_checks", "_names", "_pairs", "codes", "critics", "functional", "regularizer",
        "schedules",
    },
    "report": {"schedules"},
    "objective": {"codes", "regularizer", "report", "schedules"},
    "distributed": {"objective"},
    "vae": {"codes", "functional", "objective", "report"},
    "metrics": {"metrics", "_names", "functional", "critics"},
}  # fmt: skip


def imported(tree: ast.AST, package: str) -> Iterator[tuple[str, ast.AST]]:
    """Every imported module by its full name; ``from vaereg import x`` gives ``vaereg.x``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            if base == "vaereg":
                for alias in node.names:
                    yield f"vaereg.{alias.name}", node
            else:
                yield base, node


def parse(path: Path) -> tuple[ast.AST, str]:
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    return ast.parse(path.read_text(encoding="utf-8")), package


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path):
    allowed = ARROWS.get(layer(path))
    if allowed is None:
        pytest.skip("no rule for this module")
    inside = path.name == "__init__.py" and path.parent != PACKAGE
    for name, _ in imported(*parse(path)):
        if not name.startswith("vaereg."):
            continue
        target = name.split(".")[1]
        fine = target in allowed or (inside and target == layer(path))
        assert fine, f"{path.name} imports {name}"


def test_regularizers_never_import_each_other():
    for path in (PACKAGE / "regularizers").glob("*.py"):
        if path.name != "__init__.py":
            names = [name for name, _ in imported(*parse(path))]
            assert not any(name.startswith("vaereg.regularizers") for name in names), path.name


def test_the_late_import_of_the_objective_is_late():
    """Only inside of functions, or for the type checker."""
    tree, package = parse(PACKAGE / "regularizer.py")
    for statement in tree.body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            names = [name for name, _ in imported(ast.Module([statement], []), package)]
            assert "vaereg.objective" not in names


TRITON = ("_triton_backward", "_triton_common", "_triton_forward", "pairwise_triton")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages(path):
    """matplotlib in plots only, triton in its kernels' files only, test tools nowhere."""
    homes = {
        "matplotlib": {"plots"},
        "triton": {f"ops/{name}" for name in TRITON},
        "pytest": set[str](),
        "torchvision": set[str](),
    }
    here = path.relative_to(PACKAGE).with_suffix("").as_posix()
    for name, _ in imported(*parse(path)):
        home = homes.get(name.split(".")[0])
        assert home is None or {here, layer(path)} & home, f"{here} imports {name}"


def test_arrows_are_really_read():
    """The reader sees every form of an import."""
    text = "import vaereg.a\nfrom vaereg import b\nfrom . import c\nfrom .d import e\n"
    text += "def f():\n    from vaereg.g import h\n"
    names = {name for name, _ in imported(ast.parse(text), "vaereg")}
    assert names == {"vaereg.a", "vaereg.b", "vaereg.c", "vaereg.d", "vaereg.g"}


SCRIPT = """
import random, sys, warnings
for name in ("triton", "matplotlib", "sklearn", "tqdm", "scipy", "pytest", "PIL"):
    sys.modules[name] = None
import numpy, torch
def world():
    numpy_state = numpy.random.get_state()[1].tobytes()
    return (
        torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy_state,
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
        list(warnings.filters), sys.getrecursionlimit(),
    )
before = world()
import vaereg
import vaereg.testing
assert world() == before, "the import has a side effect"
y = vaereg.labels(torch.tensor([0, 1, 0, 1]), 2)
term = vaereg.MINE("z", "y", critic=vaereg.critics.mlp(4, 1, width=8))
objective = vaereg.Objective(kl=vaereg.KL("z"), leak=term)
vae = vaereg.VAE(torch.nn.Linear(6, 4), torch.nn.Linear(2, 6), objective)
out = vae(torch.rand(4, 6), y=y)
out.loss.backward()
objective.critic_step(out.batch, objective.critic_optimizer(torch.optim.Adam, lr=1e-3))
print(sorted(out.report.scalars()))
"""


def test_import_needs_torch_and_numpy_only_and_changes_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'weight/leak'" in done.stdout
