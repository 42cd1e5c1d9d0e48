"""Names of variables, their parts and joints: the grammar that terms and measurements share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

__all__ = ["Part", "Spec", "parse"]

Spec: TypeAlias = "str | tuple[str, ...]"

_NAME = re.compile(r"^\s*(?P<name>[^\[\]]+?)\s*(?:\[(?P<index>[^\[\]]*)\])?\s*$")
_SLICE = re.compile(r"^\s*(-?\d+)?\s*:\s*(-?\d+)?\s*(?::\s*(\d+))?\s*$")
_LIST = re.compile(r"^\s*-?\d+\s*(?:,\s*-?\d+\s*)*$")


class Part(NamedTuple):
    """A variable, or coordinates of it."""

    text: str
    """As the user wrote it."""
    name: str
    index: Any = None
    """Which coordinates along dim 1: a slice or a list, None for all."""

    def check(self, where: str, width: int) -> None:
        """Raise unless the part lies inside of a variable of this width.

        Raises:
            ValueError: Naming the part and the width.
        """
        index = self.index
        if isinstance(index, slice):
            bounds = cast("list[int | None]", [index.start, index.stop])
            # Python clips a slice that runs over the end; here it is a mistake to be named.
            inside = len(range(width)[cast("slice", index)]) > 0
            inside = inside and all(end is None or -width <= end <= width for end in bounds)
        else:
            inside = index is None or all(-width <= i < width for i in index)
        if not inside:
            raise ValueError(
                f"{where}: expected part {self.text!r} inside of {self.name!r} of width {width}"
            )


def parse(spec: object, where: str) -> tuple[Part, ...]:
    """The parts of ``"z"``, ``"z[:2]"`` or ``("z", "c")``.

    Args:
        spec: What the user wrote.
        where: The term or argument it was written for, for error messages.

    Raises:
        TypeError: If it is neither a name nor a sequence of names.
        ValueError: If a name has no such form.
    """
    texts = (spec,) if isinstance(spec, str) else spec
    named = isinstance(texts, (tuple, list)) and all(
        isinstance(text, str) for text in cast("Sequence[object]", texts)
    )
    if not named or not texts:
        raise TypeError(f"{where}: expected a variable name or a tuple of names, got {spec!r}")
    return tuple(_part(text, where) for text in cast("Sequence[str]", texts))


def _part(text: str, where: str) -> Part:
    match = _NAME.match(text)
    if match is None:
        raise ValueError(f"{where}: expected a name like 'z' or a part like 'z[:2]', got {text!r}")
    whole, name, index = text.strip(), match["name"], match["index"]
    if index is None:
        return Part(whole, name)
    bounds = _SLICE.match(index)
    if bounds is not None:
        return Part(whole, name, slice(*(int(g) if g else None for g in bounds.groups())))
    if _LIST.match(index):
        return Part(whole, name, [int(entry) for entry in index.split(",")])
    raise ValueError(f"{where}: expected a part like 'z[:2]', 'z[3]' or 'z[0,4]', got {text!r}")
