"""Keeps tables small and fast: retention, compaction, vacuum."""

from __future__ import annotations

from datetime import timedelta

from jobs.context import Job
from jobs.progress import Progress
from lakehouse.declare import ReplaceSlice, Table, tables
from lakehouse.lake import Lake

_SMALL_FILES = 16
"""Files below which compacting a table is not worth a commit."""


def maintain(job: Job, progress: Progress, *, dry_run: bool = False) -> dict[str, int]:
    """Remove what is past its retention, compact tables of many small files, and vacuum.

    Returns:
        Rows removed (or, for a dry run, that would be) per table.
    """
    lake = job.lake
    removed: dict[str, int] = {}
    for t in tables().values():
        if not lake.exists(t):
            continue
        where = _expired(job, lake, t)
        if where:
            with progress.task("maintain", f"expire {t.name}") as done:
                removed[t.name] = lake.delete(t, where, dry_run=dry_run)
                done(removed[t.name])
        if not dry_run and lake.file_count(t) >= _SMALL_FILES:
            with progress.task("maintain", f"compact {t.name}") as done:
                before = lake.file_count(t)
                lake.optimize(t)
                done(f"{before} to {lake.file_count(t)} files")
        if not dry_run:
            lake.vacuum(t)
    return removed


def _expired(job: Job, lake: Lake, t: Table) -> str | None:
    """SQL predicate of rows past retention, over the table's own dates."""
    if isinstance(t.kind, ReplaceSlice) and t.kind.by == ("as_of",) and t.schema == "feature":
        newest = lake.read(t).agg({"as_of": "max"}).collect()[0][0]
        if newest is None:
            return None
        edge = newest - timedelta(days=job.settings.keep_as_of_days)
        # Month ends stay: they are what trends and migrations are drawn from.
        return f"as_of < DATE '{edge.isoformat()}' AND as_of <> trunc(as_of, 'MM')"
    if t.retention_days is None:
        return None
    dated = [str(c) for c in t.columns if c.spec.type == "timestamp"]
    if not dated:
        return None
    edge_at = job.run.started_at - timedelta(days=t.retention_days)
    return f"{dated[-1]} < TIMESTAMP '{edge_at.isoformat(sep=' ')}'"
