"""The content of a lakehouse without what differs between equal runs: ids of runs and batches, and clocks."""

from __future__ import annotations

from pyspark.sql import functions as F

from lakehouse.declare import tables
from lakehouse.lake import Lake

VOLATILE = {
    "run_id",
    "entry_run_id",
    "exit_run_id",
    "last_run_id",
    "batch_id",
    "loaded_at",
    "updated_at",
    "created_at",
    "entered_at",
    "exited_at",
    "added_at",
    "last_refresh_at",
    "event_data",
    "file_path",
    "checked_ts",
    "built_at",
    "started_at",
    "ended_at",
    "duplicate_hash",
}
VOLATILE_IN = {"gold.customer_segment_event": {"event_id"}}
"""Columns that carry a clock in one table only: an event is known by the moment it was recorded, among others."""

SCHEMAS = ("silver", "gold", "feature")
SKIP = {"gold.audit_txn_ingest", "gold.segment_export"}


def state(
    lake: Lake, skip: frozenset[str] = frozenset(), schemas: tuple[str, ...] = SCHEMAS
) -> dict[str, tuple[int, int]]:
    """Rows and an order-independent checksum of every table of the schemas that exists."""
    found: dict[str, tuple[int, int]] = {}
    for name, table in tables().items():
        if table.schema not in schemas or name in SKIP | skip or not lake.exists(name):
            continue
        compared = [
            F.to_json(F.col(c)) if c.spec.type.startswith("map") else F.col(c)
            for c in table.columns
            if c not in VOLATILE | VOLATILE_IN.get(name, set())
        ]
        row = lake.read(name).agg(
            F.count(F.lit(1)).alias("n"), F.sum(F.xxhash64(*compared).cast("decimal(20,0)")).alias("h")
        )
        n, h = row.collect()[0]
        found[name] = (int(n), int(h or 0))
    return found
