"""The bench's segment rules as SQL conditions, read from the same YAML but not by the product's compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).with_name("conf")

_SIGNS = {
    "equals": "=",
    "not_equals": "<>",
    "greater_than": ">",
    "at_least": ">=",
    "less_than": "<",
    "at_most": "<=",
}


def segment_conditions() -> dict[str, str]:
    """Condition per segment id, in alphabetical order of ids; DuckDB and Polars both read it."""
    content = yaml.safe_load((CONF / "segments" / "bench.yml").read_text(encoding="utf-8"))
    found = {s["segment_id"]: condition(s["rule"]) for s in content["segments"]}
    return dict(sorted(found.items()))


def condition(rule: dict[str, Any]) -> str:
    """One rule as SQL."""
    if "all" in rule:
        return "(" + " AND ".join(condition(r) for r in rule["all"]) + ")"
    if "any" in rule:
        return "(" + " OR ".join(condition(r) for r in rule["any"]) + ")"
    if "not" in rule:
        return f"(NOT {condition(rule['not'])})"
    value = rule["value"]
    literal = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
    return f"({rule['feature']} {_SIGNS[rule['op']]} {literal})"
