"""What the command says of an error: one line, with whose code it came from."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Any

from vaereg.metrics.reporting._gather import reason

__all__ = ["said"]

_OWN = str(Path(__file__).resolve().parents[2])
_INSTALLED = tuple(
    str(Path(sysconfig.get_path(name)).resolve())
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def said(error: Exception, x: Any) -> str:
    """An error in one line; of one that is not this library's, where it was raised, and a hint
    where pictures seem to have their channels last."""
    text = reason(error)
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if frames and _is(frames[-1], _OWN):
        return text
    own = next(
        (
            frame
            for frame in reversed(traceback.extract_tb(error.__traceback__))
            if not frame.filename.startswith("<") and not _is(frame.filename, _OWN, *_INSTALLED)
        ),
        None,
    )
    if own is not None:
        text += f" ({Path(own.filename).name}, line {own.lineno}, in {own.name})"
    elif any("torch" in Path(name).parts for name in frames):
        text += " (in a layer of the model)"
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4):
        text += (
            f"; x is {shape}: models of pictures mostly take channels first, (N, C, H, W), "
            "x.transpose(0, 3, 1, 2) of an array"
        )
    return text


def _is(name: str, *folders: str) -> bool:
    path = Path(name).resolve()
    return any(path.is_relative_to(folder) for folder in folders)
