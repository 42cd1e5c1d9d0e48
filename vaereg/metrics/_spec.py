"""Which code a measurement is about: a variable, a part of one, or a joint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

__all__ = ["Part", "check_inside", "parse"]

_NAME = re.compile(r"\s*([^\[\]]+?)\s*(?:\[([-\d:,\s]+)\])?\s*")


class Part(NamedTuple):
    """A variable, or coordinates of it."""

    text: str
    name: str
    index: Any = None  # which coordinates along dim 1, None for all


def parse(spec: object) -> list[Part]:
    """The parts of ``"z"``, ``"z[:2]"`` or ``("z", "c")``."""
    texts = (spec,) if isinstance(spec, str) else spec
    if not isinstance(texts, (tuple, list)) or not texts:
        raise TypeError(f"code: expected a name or a tuple of names, got {spec!r}")
    parts = [_parse(text) for text in cast("Sequence[object]", texts)]
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"code: expected each variable once, got {spec!r}")
    return parts


def _parse(text: object) -> Part:
    match = _NAME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"code: expected a name like 'z' or a part like 'z[:2]', got {text!r}")
    (name, inside), whole = match.groups(), match[0].strip()
    try:
        if inside is None:
            return Part(whole, name)
        if ":" in inside:
            ends = [int(end) if end.strip() else None for end in inside.split(":")]
            return Part(whole, name, slice(*ends))
        return Part(whole, name, [int(i) for i in inside.split(",")])
    except (TypeError, ValueError):
        raise ValueError(
            f"code: expected a part like 'z[:2]', 'z[3]' or 'z[0,4]', got {text!r}"
        ) from None


def check_inside(part: Part, width: int) -> None:
    index = part.index
    if isinstance(index, slice):
        bounds = cast("list[int | None]", [index.start, index.stop])
        # Python clips a slice that runs over the end; here it is a mistake to be named.
        fit = all(end is None or -width <= end <= width for end in bounds)
        inside = fit and len(range(width)[cast("slice", index)]) > 0
    else:
        inside = all(-width <= i < width for i in index)
    if not inside:
        raise ValueError(
            f"code: expected part {part.text!r} inside of {part.name!r} of width {width}"
        )
