"""How a batch of files gets in: read, typed, staged in `bronze.stg_`, appended to `bronze.raw_`, counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.causes import cause_of
from lakehouse.errors import SegmentationError, SourceError
from lakehouse.lake import Lake, exact_sum
from pipelines.bronze.preflight import Inspection, unchanged
from pipelines.bronze.records import PLAN, FeedResult, Progress, Record, RunLike, with_landed, write_records
from pipelines.bronze.rows import Part, alike, read_delivered, type_rows, union_rows
from pipelines.bronze.scratch import Scratch
from pipelines.bronze.sources import Feed, Source
from pipelines.bronze.survey import Batch, File

SLICE_ROWS = 10_000_000
"""Rows one task writes of a row group. Each slice decodes the whole group, which costs a tenth of writing it."""

CHANGED = "the file changed or disappeared while it was being read; nothing of it was kept."


class Plan:
    """The open plan as stored. Batches land side by side, so changes are made one at a time."""

    def __init__(self, lake: Lake, rows: Sequence[Record], *, write: bool = True) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self.rows = {r["record_key"]: r for r in rows}
        if write:
            self.store()

    def close(self, files: Iterable[Record], status: str, reason: str | None, *, store: bool = False) -> None:
        """Set the status of files."""
        with self._lock:
            for r in files:
                self.rows[r["record_key"]] = self.rows[r["record_key"]] | {"status": status, "reason": reason}
            if store:
                self.store()

    def store(self) -> None:
        """Write the plan."""
        write_records(self._lake, PLAN, self.rows.values())

    def is_partly_refused(self, batch_id: int) -> bool:
        """Whether `stg_` may hold rows of files that were refused since."""
        return any(r["batch_id"] == batch_id and r["status"] != "planned" for r in self.rows.values())


def land(
    lake: Lake,
    source: Source,
    feed: Feed,
    files: Sequence[tuple[Inspection, int]],
    batch_id: int,
    run: RunLike,
    scratch: Scratch,
) -> int:
    """Read and type the files of one batch into `bronze.stg_<subject>`; returns the number of rows.

    Args:
        lake: Where tables are.
        source: Source of the feed.
        feed: What the files are.
        files: What preflight found of each, and its delivery number.
        batch_id: Number of the batch.
        run: Its start becomes `loaded_at`.
        scratch: Where files that Spark cannot read as they are get rewritten.
    """
    parts = [part for found, number in files for part in scratch.parts(feed, found, number)]
    typed = _typed(lake, source, feed, parts, batch_id, run)
    return lake.write(f"bronze.stg_{feed.subject}", typed).rows_written


def _typed(lake: Lake, source: Source, feed: Feed, parts: Iterable[Part], batch_id: int, run: RunLike) -> DataFrame:
    return union_rows(
        type_rows(read_delivered(lake.spark, feed, group), source, feed, group[0], batch_id, run.started_at)
        for group in alike(parts)
    )


def land_wave(
    whole: Lake,
    wave: Sequence[Batch],
    plan: Plan,
    run: RunLike,
    results: dict[str, FeedResult],
    progress: Progress | None,
) -> list[Record]:
    """Land batches side by side; returns the plan rows of what got in, with counts and checksums.

    `results` is brought up to date per feed, and `progress` is told of each start and end.
    """

    def work(batch: Batch) -> list[Record]:
        began = time.monotonic()
        lake = whole.for_rows(batch.rows)
        if progress and results[batch.name].files_new == 0:
            progress(batch.name, None)
        if batch.is_large:
            landed = _land_large(lake, batch, plan, run)
        else:
            kept = _stage(lake, batch, plan, run)
            landed = append(lake, plan, kept) if kept else []
        before = results[batch.name]
        keys = {r["record_key"] for r in landed}
        lost = [plan.rows[f.plan["record_key"]] for f in batch.files if f.plan["record_key"] not in keys]
        spent = before.seconds + time.monotonic() - began
        results[batch.name] = replace(with_landed(before, landed, lost), seconds=spent)
        if progress:
            progress(batch.name, results[batch.name])
        return landed

    with ThreadPoolExecutor(max_workers=whole.settings.parallel_steps) as pool:
        # Largest first, so that the small ones fill the gaps.
        landed = pool.map(work, sorted(wave, key=lambda b: -b.size))
        return [r for rows in landed for r in rows]


def _stage(lake: Lake, batch: Batch, plan: Plan, run: RunLike) -> list[Record]:
    """Write `stg_` with the files that stay as they were inspected and are read whole; returns their plan rows."""
    with _scratch(lake, batch) as scratch:

        def parts(f: File) -> list[Part]:
            return scratch.parts(batch.feed, f.inspection, f.plan["delivery_seq"])

        def write(files: Sequence[File]) -> dict[str, str]:
            wanted = [(f.inspection, f.plan["delivery_seq"]) for f in files]
            try:
                rows = land(lake, batch.source, batch.feed, wanted, batch.batch_id, run, scratch)
            except Exception:
                if moved := _moved(files):
                    return moved
                raise
            return _moved(files) or ({} if _are_all(files, rows) else miscounted(lake, [f.plan for f in files]))

        return _refusing(lake, batch, plan, run, batch.files, parts, write)


def _refusing(
    lake: Lake,
    batch: Batch,
    plan: Plan,
    run: RunLike,
    files: Sequence[File],
    parts: Callable[[File], list[Part]],
    write: Callable[[Sequence[File]], dict[str, str]],
) -> list[Record]:
    """Write a batch without the files found wrong on the way, which are refused; returns plan rows of the others.

    Args:
        lake: Where tables are.
        batch: The batch.
        plan: Has its files.
        run: Who lands it.
        files: Those to write.
        parts: What Spark reads for a file.
        write: Writes files at once, or says which of them are wrong and why. It may be repeated with fewer of them.
    """
    while files:
        try:
            lost = write(files)
        except SegmentationError:
            raise
        except Exception as e:
            lost = _unreadable(lake, batch, files, run, parts)
            if not lost:
                names = ", ".join(Path(f.inspection.identity.path).name for f in files[:5])
                raise SourceError(
                    f"source '{batch.source.name}', feed '{batch.feed.name}': {names} could not be landed: "
                    f"{cause_of(e)}. Nothing of the batch was kept."
                ) from e
        if not lost:
            break
        for f in files:
            if reason := lost.get(f.plan["record_key"]):
                plan.close([f.plan], "refused", reason)
        plan.store()
        files = [f for f in files if f.plan["record_key"] not in lost]
    return [f.plan for f in files]


def _moved(files: Sequence[File]) -> dict[str, str]:
    return {f.plan["record_key"]: CHANGED for f in files if not unchanged(f.inspection.identity)}


def _scratch(lake: Lake, batch: Batch) -> Scratch:
    settings = lake.settings
    return Scratch(settings.data_dir, batch.batch_id, is_remote=settings.spark.engine != "local")


def _unreadable(
    lake: Lake, batch: Batch, files: Sequence[File], run: RunLike, parts: Callable[[File], list[Part]]
) -> dict[str, str]:
    """Keys of the files Spark fails on, with the reason. Each is read by itself, and nothing is written.

    `stg_` with some files of an open batch would be taken for the whole batch after a crash.
    """
    failed: dict[str, str] = {}
    for f in files:
        try:
            typed = _typed(lake, batch.source, batch.feed, parts(f), batch.batch_id, run)
            typed.write.format("noop").mode("overwrite").save()
        except Exception as e:
            failed[f.plan["record_key"]] = f"Spark cannot read it ({cause_of(e)}); nothing of it was kept."
    return failed


def _are_all(files: Sequence[File], rows: int) -> bool:
    """Whether as many rows were read as the files hold, as far as that is known."""
    expected = [f.inspection.rows for f in files if f.inspection.rows is not None]
    return len(expected) < len(files) or rows == sum(expected)


def miscounted(lake: Lake, files: Sequence[Record]) -> dict[str, str]:
    """Keys of the files of a staged batch of which `stg_` has more or fewer rows than they hold, with the reason."""
    return _miscounted(_rows_of(lake, f"bronze.stg_{files[0]['subject']}", files), files)


def _miscounted(rows: DataFrame, files: Sequence[Record]) -> dict[str, str]:
    counts = {r["file_id"]: r["count"] for r in rows.groupBy("file_id").count().collect()}
    wrong = [r for r in files if r["expected_rows"] not in (None, counts.get(r["payload_hash"], 0))]
    return {
        r["record_key"]: f"it holds {r['expected_rows']:,} rows but {counts.get(r['payload_hash'], 0):,} were read; "
        "nothing of it was kept. Check its quotes and line breaks, and deliver it again."
        for r in wrong
    }


def _land_large(lake: Lake, batch: Batch, plan: Plan, run: RunLike) -> list[Record]:
    """Refused rows to `stg_`, the others straight to `raw_`; returns the plan rows with counts and checksums."""
    with _scratch(lake, batch) as scratch:
        copies = {f.plan["record_key"]: scratch.copy(f.inspection) for f in batch.files}
        if moved := [f.plan for f in batch.files if copies[f.plan["record_key"]] is None]:
            plan.close(moved, "refused", CHANGED, store=True)

        def parts(f: File) -> list[Part]:
            (part,) = scratch.parts(batch.feed, f.inspection, f.plan["delivery_seq"])
            return _slices(replace(part, path=str(copies[f.plan["record_key"]])), f.inspection, batch.feed)

        def write(files: Sequence[File]) -> dict[str, str]:
            wanted = [part for f in files for part in parts(f)]
            # Of columnar files Spark counts rows without reading any. Once they are appended it is too late.
            rows = union_rows(
                read_delivered(lake.spark, batch.feed, g).select(F.col("_file_id").alias("file_id"))
                for g in alike(wanted)
            )
            if not _are_all(files, rows.count()):
                return _miscounted(rows, [f.plan for f in files])
            typed = _typed(lake, batch.source, batch.feed, wanted, batch.batch_id, run)
            lake.write(f"bronze.stg_{batch.feed.subject}", typed.where(F.col("parse_errors").isNotNull()))
            lake.write(f"bronze.raw_{batch.feed.subject}", accepted(typed), txn=_raw_txn(files[0].plan))
            return {}

        files = [f for f in batch.files if copies[f.plan["record_key"]]]
        kept = _refusing(lake, batch, plan, run, files, parts, write)
    return count_large(lake, kept) if kept else []


def _slices(part: Part, found: Inspection, feed: Feed) -> list[Part]:
    """Spark reads a row group in one task, so a large one is read by several, each taking a span of its rows.

    Where the numbers of a file are put in order, all its rows have to be seen.
    """
    count = 1 if feed.delivery.is_by_number else max(1, round(found.largest_group / SLICE_ROWS))
    rows = found.rows or 0
    edges = [rows * i // count for i in range(count + 1)]
    return [replace(part, span=(a, b)) for a, b in pairwise(edges)] if count > 1 else [part]


def count_large(lake: Lake, files: Sequence[Record]) -> list[Record]:
    """Plan rows of a large batch with counts and checksums, from what the tables hold."""

    def counted(name: str) -> dict[str, Any]:
        here = _rows_of(lake, f"bronze.{name}_{files[0]['subject']}", files)
        found = (
            here.groupBy("file_id")
            .agg(F.count(F.lit(1)).alias("rows"), exact_sum(F.col("row_hash")).alias("hashes"))
            .collect()
        )
        return {r["file_id"]: r.asDict() for r in found}

    refused, taken, none = counted("stg"), counted("raw"), {"rows": 0, "hashes": 0}
    return [
        r
        | {
            "rows_read": refused.get(r["payload_hash"], none)["rows"] + taken.get(r["payload_hash"], none)["rows"],
            "rows_accepted": taken.get(r["payload_hash"], none)["rows"],
            "rows_rejected": refused.get(r["payload_hash"], none)["rows"],
            "checksum_accepted": int(taken.get(r["payload_hash"], none)["hashes"]),
            "checksum_rejected": int(refused.get(r["payload_hash"], none)["hashes"]),
            "keys": [],
        }
        for r in files
    ]


def accepted(typed: DataFrame) -> DataFrame:
    """What goes on to `raw_`, without what only `stg_` has."""
    return typed.where(F.col("parse_errors").isNull()).drop("parse_errors", "file_path")


def _raw_txn(row: Record) -> tuple[str, int]:
    return f"ingest:{row['source']}.{row['feed']}", row["batch_id"]


def append(lake: Lake, plan: Plan, files: Sequence[Record]) -> list[Record]:
    """Append the accepted rows of a staged batch once; returns its plan rows with counts and checksums."""
    first = files[0]
    staged = staged_rows(lake, plan, first["subject"], first["batch_id"], files)
    counts = {r["file_id"]: r for r in _count_rows(staged, with_keys=first["file_type"].startswith(("jsonl", "excel")))}
    lake.write(f"bronze.raw_{first['subject']}", accepted(staged), txn=_raw_txn(first))
    return [r | _counted(counts.get(r["payload_hash"])) for r in files]


def staged_rows(lake: Lake, plan: Plan, subject: str, batch_id: int, files: Sequence[Record]) -> DataFrame:
    """Rows of a batch in `bronze.stg_<subject>` without those of files that were refused since."""
    staged = lake.read(f"bronze.stg_{subject}").where(F.col("batch_id") == batch_id)
    if plan.is_partly_refused(batch_id):
        staged = staged.where(F.col("file_id").isin(*[r["payload_hash"] for r in files]))
    return staged


def _count_rows(staged: DataFrame, *, with_keys: bool) -> list[Any]:
    refused = F.col("parse_errors").isNotNull()
    keys = [F.array_distinct(F.flatten(F.collect_set(F.map_keys("extra")))).alias("keys")] if with_keys else []
    return (
        staged.groupBy("file_id")
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.count_if(refused).alias("rejected"),
            exact_sum(F.col("row_hash")).alias("hashes"),
            exact_sum(F.when(refused, F.col("row_hash"))).alias("refused_hashes"),
            *keys,
        )
        .collect()
    )


def _counted(row: Any) -> Record:
    if row is None:
        return {
            "rows_read": 0,
            "rows_accepted": 0,
            "rows_rejected": 0,
            "checksum_accepted": 0,
            "checksum_rejected": 0,
            "keys": [],
        }
    return {
        "rows_read": row["rows"],
        "rows_accepted": row["rows"] - row["rejected"],
        "rows_rejected": row["rejected"],
        "checksum_accepted": int(row["hashes"] or 0) - int(row["refused_hashes"] or 0),
        "checksum_rejected": int(row["refused_hashes"] or 0),
        "keys": sorted(row["keys"]) if "keys" in row else [],
    }


def holds(lake: Lake, name: str, files: Sequence[Record]) -> bool:
    """Whether a table has rows of a batch."""
    return bool(_rows_of(lake, name, files).limit(1).count())


def _rows_of(lake: Lake, name: str, files: Sequence[Record]) -> DataFrame:
    """Rows of a batch that are of some files; tables keep statistics of the batch."""
    rows = lake.read(name).where(F.col("file_id").isin(*[r["payload_hash"] for r in files]))
    return rows.where(F.col("batch_id") == files[0]["batch_id"])


def all_refused(lake: Lake, files: Sequence[Record]) -> bool:
    """Whether every row of a batch was refused, so that `raw_` holds none of a batch that is in."""
    staged = _rows_of(lake, f"bronze.stg_{files[0]['subject']}", files)
    return staged.count() == sum(r["expected_rows"] for r in files)
