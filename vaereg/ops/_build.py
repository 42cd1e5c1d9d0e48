"""The C++ kernel: compiled on first use by the compiler that is at hand, and kept."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

__all__ = ["build_error", "library"]

_SOURCE = Path(__file__).with_name("pairwise.cpp")
_FLAGS = (
    "-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-Wno-psabi",
)  # fmt: skip
_NATIVE = {"x86_64": "-march=native", "amd64": "-march=native"}
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_WEIGHTS = (_POINTER, _INT, _FLOAT, _POINTER, _INT, _INT)
_SIGNATURES = {
    "pairwise_prepared_size": ((_INT, _INT), _INT),
    "pairwise_prepare": ((_POINTER, _POINTER, _INT, _INT, _POINTER), None),
    "pairwise_forward": ((_POINTER, _POINTER, *[_INT] * 4, *_WEIGHTS, *[_POINTER] * 4), None),
    "pairwise_backward": ((_POINTER, _POINTER, *[_INT] * 4, *_WEIGHTS, *[_POINTER] * 7), None),
}


def _compiler() -> list[str] | None:
    """The compiler and its own options, as ``CXX="ccache g++"`` may name them."""
    named = shlex.split(os.environ.get("CXX", ""))
    for name, *options in (named,) if named else (["g++"], ["clang++"], ["c++"]):
        found = shutil.which(name)
        if found:
            return [found, *options]
    return None


def _processor() -> str:
    """What native code depends on: a cache folder may be shared by several machines."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
        return lines[0] if lines else platform.processor()
    except OSError:
        return platform.processor()


def _cache() -> Path:
    named = os.environ.get("VAEREG_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vaereg"


def _writable(folder: Path) -> Path:
    """The folder, or where it cannot be written one for this process and its successors."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    spare = Path(tempfile.gettempdir()) / f"vaereg-{os.getuid() if hasattr(os, 'getuid') else ''}"
    spare.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A library of another user's would run with this one's rights.
    if hasattr(os, "getuid") and spare.stat().st_uid != os.getuid():
        raise RuntimeError(f"{spare}: expected a folder of one's own to keep the kernel in")
    return spare


def _compile() -> Path:
    """The path of the compiled library.

    Raises:
        RuntimeError: If there is no compiler, or it fails.
    """
    compiler = _compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler: expected g++, clang++ or c++, or one named by CXX")
    flags = [*_FLAGS, *filter(None, [_NATIVE.get(platform.machine().lower())])]
    digest = hashlib.sha256(_SOURCE.read_bytes())
    digest.update("\0".join([*compiler, *flags, platform.machine(), _processor()]).encode())
    folder = _writable(_cache())
    target = folder / f"pairwise-{digest.hexdigest()[:16]}.so"
    if target.is_file():
        return target
    # Beside the target and then renamed: another process never loads half of a file.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / "pairwise.so"
        command = [*compiler, *flags, str(_SOURCE), "-o", str(made)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        if run.returncode:
            raise RuntimeError(f"{shlex.join(compiler)} failed: {run.stderr.strip()[-500:]}")
        os.replace(made, target)
    return target


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("VAEREG_NO_COMPILER", "0") != "0":
        return None, "VAEREG_NO_COMPILER is set"
    try:
        loaded = ctypes.CDLL(str(_compile()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        warnings.warn(
            "vaereg: the C++ kernel of pairwise_log_density could not be built; chunks of rows, "
            f"which are slower, serve in its place ({error}). VAEREG_NO_COMPILER=1 takes them "
            "without this warning.",
            stacklevel=3,
        )
        return None, str(error)
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = list(arguments), result
    return loaded, ""


def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had; see :func:`build_error`."""
    return _load()[0]


def build_error() -> str:
    """Why :func:`library` is None; empty where it is not."""
    return _load()[1]
