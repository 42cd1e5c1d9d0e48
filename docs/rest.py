"""A griffe extension: the docstrings' reST marks as Markdown, so that mkdocstrings renders them.

Docstrings hold ``:math:`` and ``:class:`` roles, ``.. math::`` blocks and ``| line`` blocks.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|obj):`(~?)([^`]+)`")
_MATH = re.compile(r":math:`([^`]+)`")


def _targets() -> set[str]:
    """The names documented on the API page: only these can be linked to."""
    text = Path(__file__).with_name("api.md").read_text(encoding="utf-8")
    return set(re.findall(r"^::: (\S+)$", text, re.M))


def _link(match: re.Match[str], targets: set[str]) -> str:
    short, name = bool(match[1]), " ".join(match[2].split())
    shown = name.rsplit(".", 1)[-1] if short else name
    parts = name.split(".")
    for kept in (1, 2):
        # Public names are documented as vaereg.Name, wherever the module is that defines them.
        owner = parts[-kept] if len(parts) >= kept else ""
        target = next((t for t in targets if owner and t.rsplit(".", 1)[-1] == owner), None)
        if target and (kept == 1 or owner[:1].isupper()):
            # A member links to its class, because attributes have no heading of their own.
            return f"[`{shown}`][{target}]"
    return f"`{shown}`"


def _math_blocks(text: str) -> str:
    lines = text.split("\n")
    out: list[str] = []
    while lines:
        line = lines.pop(0)
        found = re.match(r"^(\s*)\.\. math::\s*(.*)$", line)
        if found is None:
            out.append(line)
            continue
        indent, first = found[1], found[2]
        body: list[str] = []
        while lines and (not lines[0].strip() or lines[0].startswith(indent + " ")):
            body.append(lines.pop(0))
        trailing = 0
        while body and not body[-1].strip():
            body.pop()
            trailing += 1
        rows = [first, *textwrap.dedent("\n".join(body)).split("\n")]
        formula = "\n".join(row for row in rows if row.strip())
        if "&" in formula or "\\\\" in formula:
            formula = "\\begin{aligned}\n" + formula + "\n\\end{aligned}"
        block = ["", "$$", *formula.split("\n"), "$$", *[""] * max(1, trailing)]
        out += [indent + row if row else "" for row in block]
    return "\n".join(out)


def _references(match: re.Match[str]) -> str:
    # A section that griffe does not know would become an admonition; a list reads better.
    lines = textwrap.dedent(match[1]).split("\n")
    return "\n".join(
        ["**References**", "", *("- " + x[2:] if x.startswith("| ") else x for x in lines)]
    )


def markdown(text: str, targets: set[str]) -> str:
    r"""A docstring's reST marks as Markdown.

    Example:
        >>> markdown("The :class:`~vaereg.Code` of :math:`z`.", {"vaereg.Code"})
        'The [`Code`][vaereg.Code] of $z$.'
    """
    text = _math_blocks(text)
    text = re.sub(r"^(\s*)\.\. code-block:: (\w+)$", r"\1", text, flags=re.M)
    text = _MATH.sub(lambda m: "$" + " ".join(m[1].split()) + "$", text)
    text = _ROLE.sub(lambda m: _link(m, targets), text)
    text = re.sub(r"^(\s*)Example:$", r"\1Examples:", text, flags=re.M)
    return re.sub(r"^References:\n((?: +\S.*\n?|\n)+)", _references, text, flags=re.M)


class Rest(griffe.Extension):
    """Convert each docstring once it is collected."""

    def __init__(self) -> None:
        self.targets = _targets()

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Rewrite the object's docstring in place."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value, self.targets)
