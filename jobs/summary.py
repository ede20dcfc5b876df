"""What a command says at its end, for people: segments, status, one table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pyspark.sql import Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from jobs.context import Job
from jobs.grids import grid_of
from jobs.terminal import escape, plain
from lakehouse.causes import is_not_kept
from lakehouse.declare import Changes, table_of, tables
from lakehouse.errors import SettingsError, SourceError
from lakehouse.lake import Lake

if TYPE_CHECKING:
    from jobs.flow import Outcome
    from pipelines.bronze.records import FeedResult


ENDED_DAYS = 60
"""Days without a sale from which a retailer's data have ended, as far as the other retailers' day goes."""


@dataclass(frozen=True)
class Told:
    """What a run tells at its end, as plain values.

    Attributes:
        as_of: Day of the segments, ISO.
        sizes: A row per active segment of the newest day, see `segment_sizes`.
        subjects: Subjects reconciled.
        unbalanced: Those of them that do not balance.
        report: Path of the report page.
        exports: Folders written to.
        tables: Folder of the tables.
        late: Feeds that have brought no file for longer than they are declared to.
        ended: Days since the newest sale of retailers who have sold nothing for more than `ENDED_DAYS`.
    """

    as_of: str
    sizes: list[dict[str, Any]]
    subjects: int
    unbalanced: int
    report: str | None
    exports: list[str]
    tables: str
    late: list[str] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)


def tell(job: Job, outcome: Outcome) -> Told:
    """Read what a finished run has to say."""
    subjects, unbalanced = _balance(job)
    return Told(
        as_of=str(outcome.as_of),
        sizes=segment_sizes(job),
        subjects=subjects,
        unbalanced=unbalanced,
        report=str(outcome.report) if outcome.report else None,
        exports=[str(path) for path in outcome.exports],
        tables=str(job.settings.data_dir.resolve()),
        ended={} if outcome.as_of is None else ended_retailers(job, outcome.as_of),
        late=_late(job),
    )


def print_summary(told: Told, console: Console, seconds: float, *, nothing_new: bool) -> None:
    """Segments with size, share, value and change; balance of the reconciliation; where the results are."""
    console.print()
    if nothing_new:
        console.print("[bold]Nothing new:[/] no new files, every step is up to date.")
    print_segments(told.sizes, console)
    _print_balance(told.subjects, told.unbalanced, console)
    _print_late(told.late, console)
    console.print(f"\n  as of    {told.as_of} (sales before that day count)", highlight=False)
    for merchant_id, days in told.ended.items():
        console.print(
            f"  [yellow]note[/] the newest sale of {escape(merchant_id)} lies {days:,} days before that, so hardly "
            "anyone there is active. Retailers whose data end at other times want a folder each: --data-dir.",
            highlight=False,
        )
    if told.report:
        console.print(f"  report   {escape(told.report)}", highlight=False, soft_wrap=True)
    if told.exports:
        count, top = len(told.exports), os.path.commonpath(told.exports)
        console.print(
            f"  exports  {escape(top)} ({count} folder{'s' if count > 1 else ''})", highlight=False, soft_wrap=True
        )
    console.print(f"  tables   {escape(told.tables)}", highlight=False, soft_wrap=True)
    console.print(f"  took     {seconds:,.1f} s", highlight=False)


def print_landed(feeds: Sequence[FeedResult], console: Console) -> None:
    """What is odd about delivered files, then files and rows of each feed."""
    for note in [n for f in feeds for n in f.notes]:
        console.print(f"  [yellow]note[/] {escape(note)}", highlight=False)
    if feeds:
        grid = grid_of("feed", "new files", "accepted", "rejected")
        for f in feeds:
            grid.add_row(f"{f.source}.{f.feed}", f"{f.files_new:,}", f"{f.rows_accepted:,}", f"{f.rows_rejected:,}")
        console.print(grid)
    if any(f.rows_rejected for f in feeds):
        console.print(
            "Why rows were rejected: segmentation tables show ingest.ref_parsing_errors --rows 20\n"
            "Of a file some rows of which landed, the others come in when it is delivered again with a change."
        )


def segment_sizes(job: Job) -> list[dict[str, Any]]:
    """The newest size of every active segment beside that of the day before, in order of retailer and priority."""
    from segments.inspect import sizes_beside_previous

    lake = job.lake.for_rows(0)
    currencies = lake.read("gold.dim_merchant").select(F.col("merchant_id").alias("website_id"), "currency")
    latest = (
        sizes_beside_previous(lake.read("gold.customer_segment_size"))
        .withColumn("newest", F.max("as_of").over(Window.partitionBy("website_id")))
        .where(F.col("as_of") == F.col("newest"))
        .join(
            lake.read("gold.customer_segment").where("is_active").select("segment_id", "name", "priority"),
            "segment_id",
        )
        .join(currencies, "website_id", how="left")
        .orderBy("website_id", "priority", "segment_id")
    )
    amount = F.col("net_amount").cast("double").alias("net_amount")
    told = ("website_id", "currency", "customers", "name", "members", "share", amount, "value_share", "members_before")
    return [r.asDict() for r in latest.select(*told).collect()]


def ended_retailers(job: Job, as_of: date) -> dict[str, int]:
    """Days from the newest sale to `as_of`, of retailers for whom these are more than `ENDED_DAYS`."""
    sales = job.lake.for_rows(0).read("gold.fact_daily_sales").where(F.col("business_date") < F.lit(as_of))
    since = sales.groupBy("merchant_id").agg(F.datediff(F.lit(as_of), F.max("business_date")).alias("days"))
    return dict(since.where(F.col("days") > F.lit(ENDED_DAYS)).orderBy("merchant_id").collect())  # type: ignore[arg-type]


def print_segments(sizes: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Show what `segment_sizes` returned."""
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for title, right in (
        ("segment", False),
        ("customers", True),
        ("share", True),
        ("value", True),
        ("of value", True),
        ("change", True),
    ):
        grid.add_column(title, justify="right" if right else "left")
    website = None
    for r in sizes:
        if r["website_id"] != website:
            website = r["website_id"]
            money = f", value in {r['currency']}" if r["currency"] else ""
            grid.add_row(f"[dim]{escape(website)}, {r['customers']:,} customers{escape(money)}[/]")
        grid.add_row(
            f"  {escape(r['name'])}",
            f"{r['members']:,}",
            f"{r['share']:.1%}" if r["share"] is not None else "",
            f"{r['net_amount']:,.0f}" if r["net_amount"] is not None else "",
            f"{r['value_share']:.1%}" if r["value_share"] is not None else "",
            "new" if r["members_before"] is None else f"{r['members'] - r['members_before']:+,}",
        )
    console.print(grid)


def print_status(job: Job, console: Console) -> None:
    """Last run per step, failures, freshness, files waiting for a retry, feeds that are late."""
    lake = job.lake.for_rows(0)
    newest = Window.partitionBy("step", "table_name").orderBy(F.col("ended_at").desc())
    rows = (
        lake.read("ingest.audit_transforms")
        .where("status <> 'started'")
        .withColumn("_rank", F.row_number().over(newest))
        .where("_rank = 1")
        .orderBy("ended_at")
        .collect()
    )
    if not rows:
        # Files may have landed, or been refused, by `segmentation ingest`, which is not a step.
        console.print("Nothing has been built yet. Start with: segmentation run")
        _print_waiting(lake, console)
        _print_late(_late(job), console)
        return
    now = datetime.now(UTC).replace(tzinfo=None)
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for title in ("table", "status", "age", "rows written", "seconds", "run"):
        # On a narrow terminal the number of the run is cut, and nothing before it.
        grid.add_column(title, no_wrap=title != "run", overflow="ellipsis")
    for r in rows:
        hours = (now - r["ended_at"]).total_seconds() / 3600
        promised = table_of(r["table_name"]).freshness_hours if r["table_name"] in tables() else None
        stale = promised is not None and hours > promised
        style = {"failed": "red"}.get(r["status"], "yellow" if stale else "")
        word = "stale" if stale and r["status"] == "succeeded" else r["status"]
        grid.add_row(
            r["table_name"],
            word,
            _age(hours),
            f"{r['rows_written'] or 0:,}",
            f"{r['seconds']:.1f}",
            r["run_id"],
            style=style,
        )
    console.print(grid)
    for r in rows:
        if r["status"] == "failed":
            console.print(f"[red]{escape(r['step'])}[/]: {escape(r['message'])}", highlight=False)
    _print_waiting(lake, console)
    _print_late(_late(job), console)
    _print_balance(*_balance(job), console)


def _print_waiting(lake: Lake, console: Console) -> None:
    """Say how many files wait; those read since, or taken away, are in the table as well."""
    retries = "ingest.stage_retries"
    waiting = lake.read(retries).where("status = 'waiting'").count() if lake.exists(retries) else 0
    if waiting:
        console.print(
            f"\n{waiting} refused file(s) wait for a retry: segmentation tables show ingest.stage_retries --rows 20"
        )


def _late(job: Job) -> list[str]:
    """Feeds that have brought no file for too long; none where sources cannot be told, as commands that read say."""
    from pipelines.bronze.records import MANIFEST
    from pipelines.bronze.sources import LATE_AFTER, late_feeds

    try:
        sources = job.sources
    except SourceError:
        return []
    if not any(f.cadence in LATE_AFTER for s in sources for f in s.feeds) or not job.lake.exists(MANIFEST):
        return []
    readable = job.lake.for_rows(0).read(MANIFEST).where("status_id <> 'refused'")
    newest = readable.groupBy("source_system_id", "feed").agg(F.max("recorded_at")).collect()
    return late_feeds(sources, {(source, feed): at for source, feed, at in newest}, job.run.started_at)


def _print_late(late: Sequence[str], console: Console) -> None:
    for feed in late:
        console.print(f"  [yellow]late[/] {escape(feed)}", highlight=False)


def print_table(
    job: Job, console: Console, name: str, rows: int = 0, version: int | None = None, day: date | None = None
) -> None:
    """A declaration for people; rows with personal columns masked.

    Raises:
        SettingsError: There is no such version or day, or it is not kept any more.
    """
    t = table_of(name)
    newest = job.lake.version(t) if version is not None else None
    if newest is not None and version is not None and not 0 <= version <= newest:
        raise SettingsError(f"{t.name} has no version {version}; its newest is {newest}.")
    console.print(f"[bold]{t.name}[/]  {type(t.kind).__name__}  owner {t.owner}\n{t.comment}\n", highlight=False)
    grid = grid_of("column", "type", "null", "personal", "meaning", header_style="bold")
    for c in t.columns:
        marks = "key" if c in t.key else ("yes" if c.spec.optional else "no")
        grid.add_row(str(c), c.spec.type, marks, c.spec.pii.value if c.spec.pii else "", c.spec.comment)
    console.print(grid)
    console.print(f"\nproduced by {t.producer}", highlight=False)
    for r in t.reads:
        console.print(f"  reads {r}{' (changes only)' if isinstance(r, Changes) else ''}", highlight=False)
    for reader in tables().values():
        if any(str(r) == t.name for r in reader.reads):
            console.print(f"  read by {reader.name}", highlight=False)
    if rows:
        columns = [F.lit("***").alias(str(c)) if c.spec.pii else F.col(str(c)) for c in t.columns]
        try:
            shown = job.lake.read(t, version=version, day=day).limit(rows).select(*columns).collect()
        except Exception as e:
            if (version is None and day is None) or not is_not_kept(e):
                raise
            raise SettingsError(
                f"{t.name} is not kept any more as it was then: `segmentation maintain` removes the files that no "
                "version of the last seven days needs."
            ) from None
        # One under the other: tables are wider than terminals.
        for found in shown:
            content = Grid(box=None, pad_edge=False, show_header=False)
            for c, value in zip(t.column_names, found, strict=True):
                content.add_row(c, Text("" if value is None else plain(value)))
            console.print()
            console.print(content)


def _balance(job: Job) -> tuple[int, int]:
    """Subjects reconciled, and those that do not balance."""
    unbalanced = F.sum((~F.col("is_balanced")).cast("int"))
    recon = job.lake.for_rows(0).read("gold.audit_recon")
    counted = recon.agg(F.count(F.lit(1)).alias("n"), unbalanced.alias("bad")).collect()[0]
    return int(counted["n"]), int(counted["bad"] or 0)


def _print_balance(subjects: int, unbalanced: int, console: Console) -> None:
    if subjects:
        word = "[green]balanced[/]" if not unbalanced else f"[red]{unbalanced} not balanced[/] (gold.audit_recon)"
        console.print(f"\n  reconciliation of {subjects} subjects: {word}", highlight=False)


def _age(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else (f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d")
