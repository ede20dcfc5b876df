"""Renders `docs/sources.md`, every key of a file in `conf/sources`, from the models; `segmentation docs` writes it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lakehouse.declare import table_of
from pipelines.bronze.sources import (
    Delivery,
    Feed,
    FeedColumn,
    Merchant,
    ReadOptions,
    Source,
    TransactionRules,
    canonical_fields,
    subjects,
)

_PARTS: Final[dict[type[BaseModel], str]] = {
    Source: "The file",
    Merchant: "`merchant`",
    Feed: "`feeds`, each",
    FeedColumn: "`feeds: columns`, each",
    ReadOptions: "`feeds: options`",
    Delivery: "`feeds: delivery`",
    TransactionRules: "`feeds: transactions`",
}
_NAMED_BY_THE_FILE: Final = ((Source, "name"),)


def render_sources() -> str:
    """Return the whole page as Markdown."""
    lines = [
        "# Sources",
        "",
        "Made from `pipelines/bronze/sources.py` by `segmentation docs`; do not edit.",
        "",
        "A source is a file `conf/sources/<name>.yml`. Copy the nearest one there is; every mistake in it is told with",
        "its place before anything is read.",
        "",
    ]
    for model, title in _PARTS.items():
        summary, meanings = _said(model)
        lines += [f"## {title}", "", summary, "", "| key | when left out | meaning |", "|---|---|---|"]
        lines += [
            f"| `{name}` | {_left_out(field)} | {_cell(_with_values(meanings[name], field))} |"
            for name, field in model.model_fields.items()
            if (model, name) not in _NAMED_BY_THE_FILE
        ]
        lines.append("")
    lines += ["## Subjects and their fields", "", "What `subject` can be, and what `to` can name.", ""]
    lines += ["| subject | fields |", "|---|---|"]
    lines += [f"| `{s}` | {', '.join(f'`{f}`' for f in canonical_fields(s))} |" for s in subjects()]
    lines += ["", f"Types and meanings: `segmentation tables show {table_of('bronze.raw_transactions').name}`.", ""]
    return "\n".join(lines)


def write_sources(docs: Path) -> Path:
    """Write the page into `docs`; returns its path."""
    path = docs / "sources.md"
    path.write_text(render_sources(), encoding="utf-8")
    return path


def _said(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the whole, and of each attribute."""
    summary, _, attributes = (inspect.getdoc(model) or "").partition("\n\nAttributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, flags=re.MULTILINE)
    return _flat(summary), {name: _flat(meaning) for name, meaning in found}


def _flat(text: str) -> str:
    return " ".join(text.split())


def _left_out(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if isinstance(default, str) and default else ""


def _with_values(meaning: str, field: FieldInfo) -> str:
    """A meaning with the words a field takes, where it does not tell them itself."""
    kinds = (field.annotation, *get_args(field.annotation))
    words = [w for kind in kinds if get_origin(kind) is Literal for w in get_args(kind)]
    return meaning if all(f"`{w}`" in meaning for w in words) else f"{meaning} {', '.join(f'`{w}`' for w in words)}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
