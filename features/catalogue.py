"""Renders `docs/feature-catalogue.md` from the registry; `segmentation docs` writes it."""

from __future__ import annotations

from pathlib import Path

from features.registry import RegisteredFeature, features
from lakehouse.declare import table_of
from lakehouse.tables import feature as declarations

_FAMILIES = {
    "rfm": "Recency, frequency, monetary value",
    "behaviour": "Behaviour",
    "affinity": "Affinity",
    "lifecycle": "Life cycle",
    "engagement": "Engagement",
}

_HEAD = (
    "| feature | meaning | unit | window | type | made from |",
    "|---|---|---|---|---|---|",
)


def render_catalogue() -> str:
    """Return the whole page as Markdown."""
    known = list(features().values())
    lines = [
        "# Feature catalogue",
        "",
        "Made from the table declarations by `segmentation docs`; do not edit.",
        "",
        f"`feature.customer` has {len(known)} features. {table_of('feature.customer').comment}",
        "A feature that can be unknown is empty then, never 0.",
        "",
        _terms(),
        "",
    ]
    for family in dict.fromkeys(f.family for f in known):
        lines += [f"## {_FAMILIES.get(family, family)}", "", f"Computed in `features/{family}.py`.", "", *_HEAD]
        lines += [_row(f) for f in known if f.family == family]
        lines.append("")
    return "\n".join(lines)


def _terms() -> str:
    """What basket, return and money mean: the second paragraph of the declarations' own words."""
    return str(declarations.__doc__).split("\n\n")[1].strip()


def _row(feature: RegisteredFeature) -> str:
    meaning = feature.meaning
    if feature.values:
        meaning += " One of: " + ", ".join(feature.values) + "."
    type_ = feature.type + (", can be unknown" if feature.is_optional else "")
    cells = (f"`{feature.name}`", meaning, feature.unit, feature.window, type_, feature.source)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def write_catalogue(docs: Path) -> Path:
    """Write the page into `docs`; returns its path."""
    path = docs / "feature-catalogue.md"
    path.write_text(render_catalogue(), encoding="utf-8")
    return path
