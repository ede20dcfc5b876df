"""The data dictionary: one page per schema and an index, from the declarations and the quality rules."""

from __future__ import annotations

from pathlib import Path

from lakehouse.catalogue import sensitivity_of
from lakehouse.columns import Column
from lakehouse.declare import SCHEMAS, Append, Changes, Merge, Replace, ReplaceSlice, Scd1, Scd2, Table, tables
from lakehouse.quality_checks import checks_of
from lakehouse.quality_load import load_rules
from lakehouse.quality_rules import Moment, QualityRules, TableRules
from lakehouse.settings import find_conf

FOLDER = "data-dictionary"

_WHEN: dict[Moment, str] = {
    "before_publish": "before it is published",
    "while_writing": "row by row while it is written",
}
_HEADER = "<!-- Made by `segmentation docs` from the declarations. Do not edit. -->\n\n"


def write_dictionary(docs: Path, conf_dir: Path | None = None) -> list[Path]:
    """Write every page under `docs/data-dictionary`; returns their paths."""
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pages = render_dictionary(conf_dir or find_conf())
    for gone in set(folder.glob("*.md")) - {folder / name for name in pages}:
        gone.unlink()
    for name, content in pages.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in pages]


def render_dictionary(conf_dir: Path) -> dict[str, str]:
    """Text of every page by file name."""
    rules = load_rules(conf_dir)
    by_schema: dict[str, list[Table]] = {s: [] for s in SCHEMAS}
    for t in tables().values():
        by_schema[t.schema].append(t)
    used = {s: found for s, found in by_schema.items() if found}
    pages = {"README.md": _index(used)}
    for schema, found in used.items():
        pages[f"{schema}.md"] = _page(schema, found, rules)
    return pages


def _index(used: dict[str, list[Table]]) -> str:
    lines = [
        _HEADER + "# Data dictionary",
        "",
        "Every table, one page per schema. Money is `decimal(18,2)`, time is UTC, null is unknown.",
        "",
        "| schema | tables | holds |",
        "|---|---:|---|",
        *(f"| [{s}]({s}.md) | {len(found)} | {SCHEMAS[s]} |" for s, found in used.items()),
    ]
    for s, found in used.items():
        lines += ["", f"## {s}", "", "| table | grain | kind | owner | about persons |", "|---|---|---|---|---|"]
        lines += [
            f"| [{t.short}]({s}.md#{_anchor(t)}) | {_cell(t.comment)} | {_kind(t)} | {t.owner} | "
            f"{sensitivity_of(t) if t.pii_columns else ''} |"
            for t in found
        ]
    return "\n".join(lines) + "\n"


def _page(schema: str, found: list[Table], rules: QualityRules) -> str:
    lines = [_HEADER + f"# {schema}", "", SCHEMAS[schema], "", "[All schemas](README.md)", ""]
    lines += _lineage(found)
    for t in found:
        lines += ["", *_table(t, rules.of(t))]
    return "\n".join(lines) + "\n"


_AGES_BY = {"clock": "", "data": " before the newest row"}


def _table(t: Table, rules: TableRules) -> list[str]:
    facts = {
        "Kind": _kind(t),
        "Key": _names(t.key) or "none",
        "Owner": t.owner,
        "Made by": f"`{t.producer}`" + (" while the platform runs" if t.by_runtime else ""),
        "Reads": ", ".join(_link(r) + (" (changes)" if isinstance(r, Changes) else "") for r in t.reads),
        "Laid out by": _names(t.cluster_by),
        "Fresh within": f"{t.freshness_hours} hours" if t.freshness_hours else "",
        "History kept": f"{t.retention_days} days{_AGES_BY[t.ages_by]}" if t.retention_days else "",
        "Change feed": "yes" if t.change_feed else "",
        "Checked": "by its constraints" if t.by_runtime else _WHEN[rules.when],
    }
    lines = [f"## {t.short}", "", t.comment, ""]
    lines += [f"- **{name}**: {value}" for name, value in facts.items() if value]
    lines += ["", "| column | type | null | about persons | meaning | must hold |", "|---|---|---|---|---|---|"]
    lines += [_column(c, t) for c in t.columns]
    more = [(name, predicate) for name, predicate in t.checks.items()]
    if more:
        lines += ["", "Rows must satisfy:", ""]
        lines += [f"- `{name}`: `{_one_line(predicate)}`" for name, predicate in more]
    added = checks_of(t, rules)[len(checks_of(t)) :]
    if added and not t.by_runtime:
        why = {e.name: e.why for e in rules.expectations if e.name and e.why}
        lines += ["", "Also checked:", ""]
        lines += [f"- `{c.name}` ({c.severity}){': ' + why[c.name] if c.name in why else ''}" for c in added]
    return lines


def _column(c: Column, t: Table) -> str:
    spec = c.spec
    holds = []
    if spec.values:
        holds.append("one of " + ", ".join(f"`{v}`" for v in spec.values))
    if spec.check:
        holds.append(f"`{_one_line(spec.check)}`")
    if spec.references:
        parent, column = spec.references.rsplit(".", 1)
        holds.append(f"in {_link(parent)}.{column}")
    key = " (key)" if str(c) in t.key else ""
    about = spec.pii.value if spec.pii else ""
    cells = (f"`{c}`{key}", _cell(spec.type), "yes" if spec.optional else "", about, _cell(spec.comment))
    return f"| {' | '.join(cells)} | {_cell('; '.join(holds))} |"


def _lineage(found: list[Table]) -> list[str]:
    """What the schema's tables are made from, as a Mermaid graph; dotted arrows carry only changes."""
    edges = {
        f"  {_node(str(r))} {'-.->' if isinstance(r, Changes) else '-->'} {_node(t.name)}"
        for t in found
        for r in t.reads
        if str(r) != t.name
    }
    if not edges:
        return []
    return ["```mermaid", "graph LR", *sorted(edges), "```"]


def _node(name: str) -> str:
    return f'{name.replace(".", "_")}["{name}"]'


def _kind(t: Table) -> str:
    match t.kind:
        case Append():
            return "append"
        case Replace():
            return "replaced by each write"
        case ReplaceSlice(by):
            return f"replaced by {', '.join(by)}"
        case Merge():
            return "merged on its key"
        case Scd1():
            return "merged on its key, latest values"
        case Scd2(business_key):
            return f"versions per {', '.join(business_key)}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{n}`" for n in names)


def _link(name: str) -> str:
    schema, short = name.split(".")
    return f"[{name}]({schema}.md#{short})"


def _anchor(t: Table) -> str:
    return t.short


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")
