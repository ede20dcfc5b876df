"""Renders `docs/sources.md`, every key of a file in `conf/sources`, from the models; `segmentation docs` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel

from lakehouse.declare import table_of
from lakehouse.key_tables import summary_of, table_of_keys
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
        keys = [name for name in model.model_fields if (model, name) not in _NAMED_BY_THE_FILE]
        lines += [f"## {title}", "", summary_of(model), "", *table_of_keys(model, keys), ""]
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
