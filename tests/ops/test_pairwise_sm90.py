"""What the compiler makes of the Triton kernels for an H100 or H200; no GPU is needed.

The unit for 2^x gives 16 results a cycle and multiprocessor, and 128 instructions start: a loop of
at most 8 instructions for one 2^x is as fast as that unit.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from vaereg.ops import _triton_kernels, pairwise_triton  # noqa: E402

LANES, REGISTERS = pairwise_triton._LANES, pairwise_triton._REGISTERS
ROWS = {"BI": LANES, "BJ": REGISTERS, "SUB": pairwise_triton._GENERAL}
COMPONENTS = {**ROWS, "BI": REGISTERS, "BJ": LANES}
INTEGERS = {"b", "m", "n", "d", "nb", "nm", "offset", "per", "splits", "blocks"}
USUAL, PAIRS = {"KIND": 0, "OWN": 1}, {"KIND": 2, "OWN": 2}


def disassembler() -> str:
    try:
        return triton.knobs.nvidia.cuobjdump.path
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"this build of Triton has no cuobjdump: {error}")


@functools.cache
def compiled(name: str, options: str, constants: tuple[tuple[str, Any], ...]) -> bytes:
    fixed = dict(constants)
    kernel = getattr(_triton_kernels, name)
    types = {
        a: "constexpr" if a in fixed else "i32" if a in INTEGERS else "*fp32"
        for a in kernel.arg_names
    }
    if "shifted" in types:
        types["shifted"] = "*i32"
    aligned = {
        (k,): [["tt.divisibility", 16]] for k, t in enumerate(types.values()) if t[0] == "*"
    }
    found = triton.compile(
        ASTSource(kernel, types, fixed, aligned),
        target=GPUTarget("cuda", 90, 32),
        options=getattr(pairwise_triton, options),
    )
    return found.asm["cubin"]


def disassembled(path: Path, name: str, options: str, **constants: Any) -> tuple[int, int, str]:
    """Registers of a thread, bytes that spill, and the instructions."""
    tool = disassembler()
    path = path / "kernel.cubin"
    path.write_bytes(compiled(name, options, tuple(constants.items())))
    text = subprocess.run(
        [tool, "-sass", "-res-usage", str(path)], capture_output=True, text=True, check=True
    ).stdout
    registers, stack, local = (
        int(n) for n in re.search(r"REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", text).groups()
    )
    return registers, stack + local, text


def loops(text: str) -> list[Counter[str]]:
    """Instructions of each innermost loop."""
    code = [
        (int(at, 16), what) for at, what in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", text)
    ]
    back = []
    for at, what in code:
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", what)
        if jump and int(jump.group(1), 16) < at:
            back.append((int(jump.group(1), 16), at))
    inner = [
        (first, last)
        for first, last in back
        if not any(first <= f and ll <= last and (f, ll) != (first, last) for f, ll in back)
    ]
    return [
        Counter(
            re.sub(r"^@!?U?P\w+\s+", "", what).split()[0]
            for at, what in code
            if first <= at <= last
        )
        for first, last in inner
    ]


@pytest.mark.parametrize(
    "name, options, constants",
    [
        ("prepare", "_WARPS", {"KIND": 0, "BACKWARD": True}),
        ("forward", "_WARP", USUAL | ROWS),
        ("forward", "_WARP", PAIRS | ROWS),
        ("combine", "_WARP", USUAL | {"BD": pairwise_triton._COLUMNS, "BJ": REGISTERS}),
        ("backward_rows", "_WARP", USUAL | ROWS),
        ("backward_rows", "_WARP", PAIRS | ROWS),
        ("backward_components", "_WARP", USUAL | COMPONENTS),
        ("backward_components", "_WARP", PAIRS | COMPONENTS),
        ("gradients", "_WARPS", {"OF_ROWS": False}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_nothing_spills(tmp_path, name, options, constants):
    registers, spilled, text = disassembled(tmp_path, name, options, **constants)
    print(f"{name}: {registers} registers, {spilled} bytes spilled")
    assert not spilled and not re.search(r"\b(STL|LDL)\b", text)


@pytest.mark.parametrize(
    "name, constants, most",
    [
        ("forward", USUAL | ROWS, 8.0),
        ("backward_rows", USUAL | ROWS, 9.0),
        ("backward_components", USUAL | COMPONENTS, 11.0),
    ],
    ids=["forward", "backward_rows", "backward_components"],
)
def test_instructions_for_each_exponential(tmp_path, name, constants, most):
    _, _, text = disassembled(tmp_path, name, "_WARP", **constants)
    # The loop of a whole tile: the other one is of tiles with weights of pairs.
    tile = LANES * REGISTERS // 32
    found = [loop for loop in loops(text) if loop["MUFU.EX2"] == tile]
    assert len(found) == 1
    each = found[0].total() / tile
    print(f"{name}: {each:.2f} instructions for each 2^x")
    assert each <= most
