"""What a command says at its end, for people: segments, status, one table."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid
from rich.text import Text

from jobs.context import Job
from lakehouse.declare import Changes, table_of, tables

if TYPE_CHECKING:
    from jobs.flow import Outcome


def print_summary(job: Job, outcome: Outcome, console: Console, seconds: float) -> None:
    """Segments with size, share, value and change; balance of the reconciliation; where the results are."""
    console.print()
    if outcome.nothing_new:
        console.print("[bold]Nothing new:[/] no new files, every step is up to date.")
    print_segments(job, console)
    _print_balance(job, console)
    console.print(f"\n  as of    {outcome.as_of} (sales before that day count)", highlight=False)
    if outcome.report:
        console.print(f"  report   {outcome.report}", highlight=False, soft_wrap=True)
    if outcome.exports:
        count, top = len(outcome.exports), Path(os.path.commonpath(outcome.exports))
        console.print(f"  exports  {top} ({count} folder{'s' if count > 1 else ''})", highlight=False, soft_wrap=True)
    console.print(f"  tables   {job.settings.data_dir.resolve()}", highlight=False, soft_wrap=True)
    console.print(f"  took     {seconds:,.1f} s", highlight=False)


def print_segments(job: Job, console: Console) -> None:
    """The newest size of every active segment beside the size before."""
    lake = job.lake.for_rows(0)
    sizes = lake.read("gold.customer_segment_size")
    per_segment = Window.partitionBy("segment_id", "website_id")
    by_day = per_segment.orderBy("as_of")
    latest = (
        sizes.withColumn("before", F.lag("members").over(by_day))
        .withColumn("newest", F.max("as_of").over(Window.partitionBy("website_id")))
        .where(F.col("as_of") == F.col("newest"))
        .join(
            lake.read("gold.customer_segment").where("is_active").select("segment_id", "name", "priority"),
            "segment_id",
        )
        .orderBy("website_id", "priority", "segment_id")
        .collect()
    )
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
    for r in latest:
        if r["website_id"] != website:
            website = r["website_id"]
            grid.add_row(f"[dim]{escape(website)}, {r['customers']:,} customers[/]")
        grid.add_row(
            f"  {escape(r['name'])}",
            f"{r['members']:,}",
            f"{r['share']:.1%}" if r["share"] is not None else "",
            f"{r['net_amount']:,.0f}" if r["net_amount"] is not None else "",
            f"{r['value_share']:.1%}" if r["value_share"] is not None else "",
            "new" if r["before"] is None else f"{r['members'] - r['before']:+,}",
        )
    console.print(grid)


def print_status(job: Job, console: Console) -> None:
    """Last run per step, failures, freshness, files waiting for a retry."""
    lake = job.lake.for_rows(0)
    newest = Window.partitionBy("step", "table_name").orderBy(F.col("ended_at").desc())
    rows = (
        lake.read("ingest.audit_transforms")
        .withColumn("_rank", F.row_number().over(newest))
        .where("_rank = 1")
        .orderBy("ended_at")
        .collect()
    )
    if not rows:
        console.print("Nothing has run yet. Start with: segmentation run")
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
            console.print(f"[red]{r['step']}[/]: {r['message']}", highlight=False)
    waiting = lake.read("ingest.stage_retries").count() if lake.exists("ingest.stage_retries") else 0
    if waiting:
        console.print(
            f"\n{waiting} refused file(s) wait for a retry: segmentation tables show ingest.stage_retries --rows 20"
        )
    _print_balance(job, console)


def print_table(
    job: Job, console: Console, name: str, rows: int = 0, version: int | None = None, day: date | None = None
) -> None:
    """A declaration for people; rows with personal columns masked."""
    t = table_of(name)
    console.print(f"[bold]{t.name}[/]  {type(t.kind).__name__}  owner {t.owner}\n{t.comment}\n", highlight=False)
    grid = Grid("column", "type", "null", "personal", "meaning", box=None, pad_edge=False, header_style="bold")
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
        frame = job.lake.read(t, version=version, day=day).limit(rows)
        shown = frame.select(
            *[F.lit("***").alias(str(c)) if c.spec.pii else F.col(str(c)) for c in t.columns]
        ).collect()
        # One under the other: tables are wider than terminals.
        for found in shown:
            content = Grid(box=None, pad_edge=False, show_header=False)
            for c, value in zip(t.column_names, found, strict=True):
                content.add_row(c, Text("" if value is None else str(value)))
            console.print()
            console.print(content)


def _print_balance(job: Job, console: Console) -> None:
    recon = job.lake.for_rows(0).read("gold.audit_recon")
    counted = recon.agg(
        F.count(F.lit(1)).alias("n"), F.sum((~F.col("is_balanced")).cast("int")).alias("bad")
    ).collect()[0]
    if counted["n"]:
        bad = counted["bad"] or 0
        word = "[green]balanced[/]" if not bad else f"[red]{bad} not balanced[/] (gold.audit_recon)"
        console.print(f"\n  reconciliation of {counted['n']} subjects: {word}", highlight=False)


def _age(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else (f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d")
