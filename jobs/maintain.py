"""Keeps tables small and fast: retention, compaction, vacuum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.context import Job
from jobs.progress import Progress
from lakehouse.declare import ReplaceSlice, Table, table_of, tables
from lakehouse.lake import Lake

_SMALL_FILES = 16
"""Files below which compacting a table is not worth a commit."""


def maintain(job: Job, progress: Progress, *, dry_run: bool = False) -> dict[str, int]:
    """Remove what is past its retention, compact tables of many small files, and vacuum.

    Returns:
        Rows removed (or, for a dry run, that would be) per table.
    """
    lake = job.lake
    for name in job.settings.retention_days:
        table_of(name)  # a name that is no table is a mistake, and would keep nothing
    removed: dict[str, int] = {}
    for t in tables().values():
        if not lake.exists(t):
            continue
        where = _expired(job, lake, t)
        if where:
            with progress.task("maintain", f"expire {t.name}") as done:
                removed[t.name] = lake.delete(t, where, dry_run=dry_run)
                done(removed[t.name])
            if removed[t.name] and not dry_run:
                job.audit_log.add([_audited(job, lake, t, removed[t.name])])
        if not dry_run and lake.file_count(t) >= _SMALL_FILES:
            with progress.task("maintain", f"compact {t.name}") as done:
                before = lake.file_count(t)
                lake.optimize(t)
                done(f"{before} to {lake.file_count(t)} files")
        if not dry_run:
            lake.vacuum(t)
    if not dry_run:
        lake.sweep()
    job.audit_log.flush()
    return removed


def _audited(job: Job, lake: Lake, t: Table, removed: int) -> dict[str, Any]:
    now = datetime.now(UTC).replace(tzinfo=None)
    return {
        "run_id": job.run.run_id,
        "step": f"jobs.maintain:expire {t.name}",
        "table_name": t.name,
        "status": "succeeded",
        "started_at": job.run.started_at,
        "ended_at": now,
        "seconds": (now - job.run.started_at).total_seconds(),
        "input_versions": {},
        "output_version": lake.version(t),
        "fingerprint": "",
        "rows_written": removed,
    }


def _expired(job: Job, lake: Lake, t: Table) -> str | None:
    """SQL predicate of rows past retention, over the table's own dates."""
    if isinstance(t.kind, ReplaceSlice) and t.kind.by == ("as_of",) and t.schema == "feature":
        newest = lake.read(t).agg({"as_of": "max"}).collect()[0][0]
        if newest is None:
            return None
        edge = newest - timedelta(days=job.settings.keep_as_of_days)
        # Month ends stay: they are what trends and migrations are drawn from.
        return f"as_of < DATE '{edge.isoformat()}' AND as_of <> trunc(as_of, 'MM')"
    kept_days = job.settings.retention_days.get(t.name, t.retention_days)
    if kept_days is None:
        return None
    dated = [str(c) for c in t.columns if c.spec.type == "timestamp"]
    if not dated:
        return None
    now = job.run.started_at
    if t.ages_by == "data":
        now = min(lake.read(t).agg({dated[-1]: "max"}).collect()[0][0] or now, now)
    edge_at = now - timedelta(days=kept_days)
    expired = f"{dated[-1]} < TIMESTAMP '{edge_at.isoformat(sep=' ')}'"
    # What nobody has acted on yet is kept, however old.
    return f"{expired} AND is_processed" if "is_processed" in t.column_names else expired
