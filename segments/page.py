"""The table of operators in `docs/segment-language.md`, made from the operators."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from segments.operators import OPERATORS, Family, Operator

_HEAD: Final = "| operator | takes | true when the feature | null |\n|---|---|---|---|\n"
_KINDS: Final = {
    Family.NUMBER: "number",
    Family.TEXT: "text",
    Family.FLAG: "flag",
    Family.DATE: "day",
    Family.INSTANT: "time",
    Family.LIST: "list",
}
_OF_NULL: Final = {"is_empty": "true", "is_not_empty": "false"}


def render_operators() -> str:
    """Returns the table as Markdown, with its head."""
    return _HEAD + "".join(map(_row, OPERATORS.values()))


def write_operators(docs: Path) -> Path:
    """Put the table in the place of the one on the page of the language in `docs`; returns the page's path."""
    path = docs / "segment-language.md"
    before, rest = path.read_text(encoding="utf-8").split(_HEAD)
    path.write_text(before + render_operators() + "\n" + rest.partition("\n\n")[2], encoding="utf-8")
    return path


def _row(operator: Operator) -> str:
    kinds = [kind for family, kind in _KINDS.items() if family in operator.takes]
    takes = "all" if len(kinds) == len(Family) else ", ".join(kinds)
    return f"| `{operator.name}` | {takes} | {operator.help} | {_OF_NULL.get(operator.name, 'unknown')} |\n"
