"""The catalogue as tables: datasets, owners, tags, classes and promises, from the declarations."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lakehouse.access import Access, load_access
from lakehouse.columns import Pii
from lakehouse.ddl import fingerprint
from lakehouse.declare import Table, tables
from lakehouse.lake import Lake
from lakehouse.quality_checks import required_checks
from lakehouse.quality_load import load_rules
from lakehouse.quality_rules import QualityRules
from lakehouse.records import write_rows
from lakehouse.runner import Run
from lakehouse.settings import Settings
from lakehouse.unity import column_tags, table_tags

_MEANING: dict[Pii | None, tuple[str, str]] = {
    Pii.IDENTIFIER: ("Names one person inside the shop, such as a customer number.", "confidential"),
    Pii.CONTACT: ("Reaches one person: e-mail, phone, postal address.", "restricted"),
    Pii.QUASI: ("Describes a person: age band, income band, postcode area.", "confidential"),
    None: ("Says nothing about a person.", "internal"),
}
_LEVELS = {
    "open": "May leave the company.",
    "internal": "For everyone with access to the schema.",
    "confidential": "About persons; shown to the groups named for the class, hidden from others.",
    "restricted": "Reaches persons; shown to the fewest.",
}
_STATUSES = [
    ("passed", "check", True, "The check held."),
    ("failed", "check", False, "The check did not hold; a blocking one stopped the publish."),
    ("error", "check", False, "The check could not be evaluated, which counts as failed."),
    ("succeeded", "step", True, "The step wrote its tables."),
    ("failed", "step", False, "The step raised; the next run resumes there."),
    (
        "started",
        "step",
        False,
        "The step was to run by other code, definitions or day than before; how it ended is another row.",
    ),
]


def record_catalog(lake: Lake, run: Run) -> bool:
    """Write the `gov` tables made from declarations; does nothing while the declarations and rules stay as recorded.

    Returns:
        Whether something was written.
    """
    access, rules = load_access(lake.settings.conf_dir), load_rules(lake.settings.conf_dir)
    rows = catalogue_rows(access, rules, lake.settings)
    mark = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()[:16]
    if lake.exists("gov.dim_dataset"):
        recorded = lake.read("gov.dim_dataset").select("catalog_fingerprint").limit(1).collect()
        if recorded and recorded[0]["catalog_fingerprint"] == mark:
            return False
    for row in rows["gov.dim_dataset"]:
        row |= {"catalog_fingerprint": mark, "recorded_ts": run.started_at}
    # The table with the mark goes last, so that an interrupted recording is repeated.
    first = [name for name in rows if name != "gov.dim_dataset"]
    with ThreadPoolExecutor(max_workers=lake.settings.parallel_steps) as pool:
        list(pool.map(lambda name: write_rows(lake, name, rows[name]), first))
    write_rows(lake, "gov.dim_dataset", rows["gov.dim_dataset"])
    return True


def catalogue_rows(access: Access, rules: QualityRules, settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Rows of each table, without the columns that say when they were recorded.

    Args:
        access: Who may see what, which decides the tags.
        rules: Checks beyond those of declarations.
        settings: How long rows of a table are kept, where not as declared.
    """
    known = list(tables().values())
    return {
        "gov.dim_owner": _owners(known, access),
        "gov.dim_tag": _tags(known, access),
        "gov.dim_classification": _classifications(known, access),
        "gov.dim_sensitivity": [
            {"sensitivity_id": s, "level": i, "description": d, "dataset_count": _count(known, s)}
            for i, (s, d) in enumerate(_LEVELS.items())
        ],
        "gov.ref_sla": [
            {
                "dataset_id": t.name,
                "owner_id": t.owner,
                "freshness_hours": t.freshness_hours,
                "blocking_checks": required_checks(t, rules)["blocking"],
                "warning_checks": required_checks(t, rules)["warning"],
            }
            for t in known
            if t.freshness_hours is not None
        ],
        "gov.dim_status": [
            {"status_id": s, "subject": of, "is_good": good, "description": d} for s, of, good, d in _STATUSES
        ],
        "gov.dim_dataset": [_dataset(t, settings) for t in known],
    }


def sensitivity_of(t: Table) -> str:
    """The level of a table: that of its most personal column."""
    levels = list(_LEVELS)
    return max((_MEANING[c.spec.pii][1] for c in t.columns), key=levels.index)


def _dataset(t: Table, settings: Settings) -> dict[str, Any]:
    return {
        "dataset_id": t.name,
        "schema_name": t.schema,
        "table_name": t.short,
        "subject": t.subject or t.schema,
        "description": t.comment,
        "kind": type(t.kind).__name__,
        "key_columns": list(t.key),
        "column_count": len(t.columns),
        "owner_id": t.owner,
        "sensitivity_id": sensitivity_of(t),
        "producer": t.producer,
        "reads": list(dict.fromkeys(str(r) for r in t.reads)),
        "is_made_by_runtime": t.by_runtime,
        "has_change_feed": t.change_feed,
        "retention_days": settings.days_kept(t),
        "declaration": fingerprint(t),
    }


def _owners(known: list[Table], access: Access) -> list[dict[str, Any]]:
    return [
        {
            "owner_id": name,
            "group_name": owner.group,
            "description": owner.description,
            "dataset_count": sum(t.owner == name for t in known),
        }
        for name, owner in sorted(access.owners.items())
    ]


def _tags(known: list[Table], access: Access) -> list[dict[str, Any]]:
    applied: dict[tuple[str, str, str], list[str]] = {}
    for t in known:
        for key, value in table_tags(t).items():
            applied.setdefault(("table", key, value), []).append(t.name)
        for column, key, value in column_tags(t, access):
            applied.setdefault(("column", key, value), []).append(f"{t.name}.{column}")
    return [
        {
            "tag_id": f"{level}:{key}={value}",
            "tag_key": key,
            "tag_value": value,
            "level": level,
            "applied_to": sorted(on),
        }
        for (level, key, value), on in sorted(applied.items())
    ]


def _classifications(known: list[Table], access: Access) -> list[dict[str, Any]]:
    def masking(pii: Pii | None) -> str:
        if pii is None:
            return "shown"
        return "three stars" if access.pii[pii].others_see == "redacted" else "null"

    return [
        {
            "classification_id": pii.value if pii else "none",
            "description": meaning,
            "sensitivity_id": level,
            "masking": masking(pii),
            "column_count": sum(c.spec.pii is pii for t in known for c in t.columns),
        }
        for pii, (meaning, level) in _MEANING.items()
    ]


def _count(known: list[Table], level: str) -> int:
    return sum(sensitivity_of(t) == level for t in known)
