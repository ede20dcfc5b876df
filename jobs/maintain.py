"""Keeps tables small and fast: retention, compaction, vacuum."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobs.context import Job
from jobs.progress import Progress
from lakehouse.columns import Column
from lakehouse.declare import Append, Changes, ReplaceSlice, Table, table_of, tables
from lakehouse.errors import SettingsError
from lakehouse.lake import Lake
from lakehouse.steps import plan_steps

_SMALL_FILES = 16
"""Files below which compacting a table is not worth a commit."""


def maintain(job: Job, progress: Progress, *, dry_run: bool = False) -> dict[str, int]:
    """Remove what is past its retention, compact tables of many small files, and vacuum.

    Returns:
        Rows removed (or, for a dry run, that would be) per table.
    """
    lake = job.lake
    for name in job.settings.retention_days:
        _require_age(table_of(name))  # a name that is no table is a mistake, and would keep nothing
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


def _require_age(t: Table) -> None:
    """Refuse a retention that would do nothing, or more than it says.

    Old rows may leave where the declaration has a limit, and where they are only followed.

    Raises:
        SettingsError: The table's slices are kept by another setting, nothing in it tells a row's age, or its rows
            count however old: what was made of them would go with them, or be made again without them.
    """
    if _is_slices_of_customers(t):
        raise SettingsError(f"retention_days: {t.name} keeps slices by keep_as_of_days, and month ends for ever.")
    if _dated(t) is None:
        raise SettingsError(f"retention_days: {t.name} has no column that tells how old a row is, so all are kept.")
    free = [n for n, d in tables().items() if isinstance(d.kind, Append) and d.change_feed and not _made_of_all(d)]
    if t.retention_days is not None or t.name in free:
        return
    if made := _made_of_all(t):
        raise SettingsError(
            f"retention_days: rows that leave {t.name} would leave {', '.join(made)} as well, made of all of it or "
            f"told of what leaves it. Delivered rows may leave {', '.join(free)}, which is only followed."
        )
    limited = [n for n, d in tables().items() if d.retention_days is not None]
    raise SettingsError(
        f"retention_days: {t.name} has no limit of its own, so all rows are kept. Tables with one are "
        f"{', '.join(limited)}."
    )


def _made_of_all(t: Table) -> list[str]:
    """Names of tables that would say something else once old rows of a table are gone.

    Who follows rows that are only added is not told of one that is gone. Of slices a reader takes those it is about.
    """

    def misses(read: str) -> bool:
        follows = isinstance(read, Changes)
        return read == t.name and not isinstance(t.kind, Append if follows else ReplaceSlice)

    return sorted({o.name for s in plan_steps() if any(map(misses, s.reads)) for o in s.outputs} - {t.name})


def _is_slices_of_customers(t: Table) -> bool:
    """Whether each day adds a slice of features, or of a row per customer in another schema."""
    is_daily = isinstance(t.kind, ReplaceSlice) and t.kind.by == ("as_of",)
    return is_daily and (t.schema == "feature" or "customer_key" in t.key)


def _dated(t: Table) -> Column | None:
    """The column that tells how old a row is: its last instant, else the day its slice is of."""
    instants = [c for c in t.columns if c.spec.type == "timestamp"]
    days = [c for c in t.columns if c.spec.type == "date" and isinstance(t.kind, ReplaceSlice) and c in t.kind.by]
    return (instants or days or [None])[-1]


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
    if _is_slices_of_customers(t):
        newest = lake.read(t).agg({"as_of": "max"}).collect()[0][0]
        if newest is None:
            return None
        # A slice of a day far ahead does not make those of today old.
        oldest = min(newest, job.run.started_at.date()) - timedelta(days=job.settings.keep_as_of_days)
        # Month ends stay: they are what trends and migrations are drawn from.
        return f"as_of < DATE '{oldest.isoformat()}' AND as_of <> trunc(as_of, 'MM')"
    kept_days = job.settings.days_kept(t)
    if kept_days is None:
        return None
    dated = _dated(t)
    if dated is None:
        return None
    now = job.run.started_at
    if t.ages_by == "data":
        now = min(lake.read(t).agg({dated: "max"}).collect()[0][0] or now, now)
    edge_at = now - timedelta(days=kept_days)
    edge = (
        f"TIMESTAMP '{edge_at.isoformat(sep=' ')}'" if dated.spec.type == "timestamp" else f"DATE '{edge_at:%Y-%m-%d}'"
    )
    expired = f"{dated} < {edge}"
    # What nobody has acted on yet is kept, however old.
    return f"{expired} AND is_processed" if "is_processed" in t.column_names else expired
