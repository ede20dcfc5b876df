"""Files land exactly once: inspected, planned, read, typed and appended, whatever dies when.

The order of writes makes it so. A plan of the batch is written first, then `bronze.stg_<subject>`, then the append to
`bronze.raw_<subject>` under the feed's transaction id, then errors, manifest and audit, and last the plan is closed.
The next run finds an open plan and looks at `stg_`: a batch it holds is finished from there, without reading the file
again; a batch it does not hold has left no trace and is planned anew. `stg_` of a subject is not written again before
its batch is closed.

Columnar files are cheap to read and dear to write twice. Of a large batch of them `stg_` gets the refused rows only and
`raw_` the others straight from private copies of the files; what `raw_` holds then says whether the batch is in.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse import ddl
from lakehouse.declare import table_of
from lakehouse.errors import SegmentationError, SourceError
from lakehouse.lake import Lake, exact_sum
from lakehouse.logs import get_logger
from pipelines.bronze.preflight import Identity, Inspection, ReadColumn, identify, inspect, unchanged
from pipelines.bronze.rows import SEQUENCE_STEP, Part, alike, read_delivered, type_rows, union_rows
from pipelines.bronze.samples import generate
from pipelines.bronze.scratch import Scratch
from pipelines.bronze.sources import Feed, Source, locate

MAX_FILES = 64
"""Files of one batch: each is a branch of the plan Spark makes."""

LARGE_ROWS = 250_000
"""Rows from which a batch of columnar files is not staged as a whole."""

SLICE_ROWS = 10_000_000
"""Rows one task writes of a row group. Each slice decodes the whole group, which costs a tenth of writing it."""

_LEAST_BYTES = 10
"""Bytes a row of text takes at the least."""

PLAN, MANIFEST, ERRORS = "ingest.stg_raw", "ingest.raw_records", "ingest.ref_parsing_errors"
SCHEMAS, AUDIT, RETRIES = "ingest.ref_file_schema", "ingest.audit_ingest", "ingest.stage_retries"

_ACCEPTED = ("landed", "landed_with_rejects", "empty")
_log = get_logger(__name__)

Record = dict[str, Any]


class RunLike(Protocol):
    """What ingestion needs to know of a run."""

    @property
    def run_id(self) -> str:
        """Identifies the run in every record."""

    @property
    def started_at(self) -> datetime:
        """Start, naive UTC."""


@dataclass(frozen=True)
class FeedResult:
    """What happened to one feed.

    Attributes:
        source: Source.
        feed: Feed.
        files_new: Files read.
        rows_accepted: Rows appended to `bronze.raw_<subject>`.
        rows_rejected: Rows refused, with reasons in `ingest.ref_parsing_errors`.
        refused_files: Path and reason of each file that was not read.
        seconds: Wall seconds of looking and landing.
        notes: What is odd about the files, for people.
    """

    source: str
    feed: str
    files_new: int = 0
    rows_accepted: int = 0
    rows_rejected: int = 0
    refused_files: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


Progress = Callable[[str, FeedResult | None], None]
"""Called with `source.feed` when a feed's files start to be read (None) and when they are in."""


def land_source(
    lake: Lake, source: Source, feeds: Iterable[str] | None = None, *, run: RunLike, progress: Progress | None = None
) -> list[FeedResult]:
    """Land the new files of one source; see `land_sources`.

    Args:
        lake: Where tables are.
        source: From `load_sources`.
        feeds: Names of feeds to land; all when None.
        run: Who lands it and since when.
        progress: Told of each feed's start and end.
    """
    chosen = source.feeds if feeds is None else tuple(source.feed(f) for f in feeds)
    return land_sources(lake, [(source, chosen)], run=run, progress=progress)


def land_sources(
    lake: Lake, wanted: Sequence[tuple[Source, Sequence[Feed]]], *, run: RunLike, progress: Progress | None = None
) -> list[FeedResult]:
    """Land the new files of several sources, first finishing what an earlier run left open.

    A file is known by its bytes: the same bytes at the same path are not read again, other bytes at a known path are a
    changed file and land as a later delivery, and known bytes at a new path are recorded as delivered again.

    Returns:
        One result per feed, in the given order. A file that cannot be read whole is in `refused_files` and is tried
        again by the next run; the other files land.

    Raises:
        SourceError: when Spark cannot read a file that is still as it was inspected.
    """
    recover(lake, run)
    book = _Book(lake, run, {s.name for s, _ in wanted})
    surveys = [_survey(lake, book, source, feed) for source, feeds in wanted for feed in feeds]
    results = {s.name: s.result() for s in surveys}
    records = [r for s in surveys for r in s.records]
    retries = [r for s in surveys for r in s.retries]
    for wave in _waves([b for s in surveys for b in s.batches(book)]):
        plan = _Plan(lake, [f.plan for b in wave for f in b.files])
        landed = _land_wave(lake, wave, plan, run, results, progress)
        _commit(lake, run, plan, landed, book, records, retries)
        records, retries = [], []
    if records or retries:
        _commit(lake, run, None, [], book, records, retries)
    return list(results.values())


def recover(lake: Lake, run: RunLike) -> list[int]:
    """Finish the batches an earlier run left open; returns their numbers.

    Batches that never reached `bronze.stg_` are closed as dropped: nothing of them is anywhere, and their files are
    new to the next survey.
    """
    rows = [r.asDict() for r in lake.for_rows(0).read(PLAN).collect()] if lake.exists(PLAN) else []
    opened = [r for r in rows if r["status"] == "planned"]
    if not opened:
        return []
    plan = _Plan(lake, rows, write=False)
    landed: list[Record] = []
    for batch_id in sorted({r["batch_id"] for r in opened}):
        files = [r for r in opened if r["batch_id"] == batch_id]
        in_raw = _holds(lake, f"bronze.raw_{files[0]['subject']}", files)
        if files[0]["staging"] == "refused":
            if in_raw or _all_refused(lake, files):
                landed += _count_large(lake, files)
            else:
                plan.close(files, "dropped", None)
            continue
        if not _holds(lake, f"bronze.stg_{files[0]['subject']}", files):
            plan.close(files, "dropped", None)
            continue
        if not in_raw:
            # The run may have died before it saw that a file had changed under it.
            moved = [r for r in files if not unchanged(_identity(r))]
            plan.close(moved, "refused", _CHANGED)
            files = [r for r in files if r not in moved]
        if files:
            landed += _append(lake, plan, files)
    _log.info("open batches found", extra={"files": len(opened), "finished": len(landed)})
    _commit(lake, run, plan, landed, _Book(lake, run, {r["source"] for r in opened}), [], [])
    return sorted({r["batch_id"] for r in landed})


def _holds(lake: Lake, name: str, files: Sequence[Record]) -> bool:
    """Whether a table has rows of a batch."""
    return bool(_rows_of(lake, name, files).limit(1).count())


def _rows_of(lake: Lake, name: str, files: Sequence[Record]) -> DataFrame:
    """Rows of a batch; its files are named too, because tables keep statistics of them."""
    rows = lake.read(name).where(F.col("file_id").isin(*[r["payload_hash"] for r in files]))
    return rows.where(F.col("batch_id") == files[0]["batch_id"])


def _all_refused(lake: Lake, files: Sequence[Record]) -> bool:
    staged = lake.read(f"bronze.stg_{files[0]['subject']}").where(F.col("batch_id") == files[0]["batch_id"])
    return bool(staged.count() == sum(r["expected_rows"] for r in files))


# What is new ------------------------------------------------------------------------------------------------------


class _Book:
    """What the manifest knows of some sources, and the numbers it gives out."""

    def __init__(self, lake: Lake, run: RunLike, sources: set[str]) -> None:
        self.run = run
        self._lake = lake.for_rows(0)
        self._next: int | None = None
        self._files: dict[tuple[str, str], list[Record]] = {}
        for r in self._rows(MANIFEST, "source_system_id", sources):
            self._files.setdefault((r["source_system_id"], r["feed"]), []).append(r)
        self.retries = {(r["source"], r["feed"], r["file_path"]): r for r in self._rows(RETRIES, "source", sources)}
        layouts = self._rows(SCHEMAS, "source", sources, "source", "feed", "schema_hash")
        self.layouts = {(r["source"], r["feed"], r["schema_hash"]) for r in layouts}

    def files(self, source: Source, feed: Feed) -> list[Record]:
        """Manifest rows of a feed."""
        return self._files.get((source.name, feed.name), [])

    def next_batch(self) -> int:
        """A number that no batch had before."""
        if self._next is None:
            newest = [
                self._lake.read(name).agg(F.max("batch_id").alias("n")).collect()[0]["n"]
                for name in (PLAN, MANIFEST)
                if self._lake.exists(name)
            ]
            self._next = max((n for n in newest if n is not None), default=0)
        self._next += 1
        return self._next

    def _rows(self, name: str, column: str, sources: set[str], *only: str) -> list[Record]:
        if not sources or not self._lake.exists(name):
            return []
        rows = self._lake.read(name).where(F.col(column).isin(*sorted(sources)))
        return [r.asDict() for r in (rows.select(*only).distinct() if only else rows).collect()]


@dataclass(frozen=True)
class _File:
    """A file to land and its row of the plan."""

    inspection: Inspection
    plan: Record


@dataclass(frozen=True)
class _Batch:
    """Files of one feed that land together."""

    source: Source
    feed: Feed
    batch_id: int
    files: tuple[_File, ...]

    @property
    def name(self) -> str:
        return f"{self.source.name}.{self.feed.name}"

    @property
    def size(self) -> int:
        return sum(f.inspection.identity.size for f in self.files)

    @property
    def is_large(self) -> bool:
        return self.files[0].plan["staging"] == "refused"

    @property
    def rows(self) -> int:
        """Rows it holds, or as many as its bytes can hold when the files do not say."""
        known = [(f.inspection.rows, f.inspection.identity) for f in self.files]
        return sum(rows if rows is not None else about.size // _LEAST_BYTES for rows, about in known)


@dataclass
class _Survey:
    """What one look at a feed's files found: files to land, manifest rows of others, and what to try again."""

    source: Source
    feed: Feed
    files: list[_File] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    retries: list[Record] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.source.name}.{self.feed.name}"

    def result(self) -> FeedResult:
        notes = tuple(f"{Path(f.inspection.identity.path).name}: {n}" for f in self.files for n in f.inspection.notes)
        return FeedResult(
            self.source.name, self.feed.name, refused_files=tuple(self.refused), seconds=self.seconds, notes=notes
        )

    def batches(self, book: _Book) -> list[_Batch]:
        made: list[_Batch] = []
        for chunk in (self.files[i : i + MAX_FILES] for i in range(0, len(self.files), MAX_FILES)):
            is_large = self.feed.format == "parquet" and sum(f.inspection.rows or 0 for f in chunk) > LARGE_ROWS
            planned = {"batch_id": book.next_batch(), "staging": "refused" if is_large else "all"}
            files = tuple(replace(f, plan=f.plan | planned) for f in chunk)
            made.append(_Batch(self.source, self.feed, planned["batch_id"], files))
        return made


def _survey(lake: Lake, book: _Book, source: Source, feed: Feed) -> _Survey:
    began = time.monotonic()
    found = _Survey(source, feed)
    try:
        if feed.generator:
            generate(feed.generator, source, feed, lake.settings.conf_dir, lake.settings.data_dir)
        paths = locate(source, feed, lake.settings.conf_dir, lake.settings.data_dir)
    except SourceError as e:
        found.refused.append((feed.location, str(e)))
        return found
    known = book.files(source, feed)
    known_paths = {r["file_path"] for r in known}
    done = {(r["file_path"], r["payload_hash"]) for r in known if _is_done(r, feed)}
    accepted = {r["payload_hash"] for r in known if r["status_id"] in _ACCEPTED}
    landed_paths = {r["file_path"] for r in known if r["status_id"] in _ACCEPTED}
    numbered = [r["delivery_seq"] for r in known if r["delivery_seq"] is not None]
    last = max(numbered, default=0) // SEQUENCE_STEP
    for path in sorted(paths, key=lambda p: (_natural(p.name), str(p))):
        seen = identify(path) if str(path) in known_paths else None
        if seen and (seen.path, seen.sha256) in done:
            continue
        looked = inspect(path, feed)
        here = looked.identity
        if looked.refusal:
            found.refused.append((here.path or str(path), looked.refusal[1]))
            found.retries.append(_retry(book, source, feed, here.path, here.sha256, looked.refusal))
            if not any(r["record_key"] == _record_key(source, feed, here) for r in known):
                found.records.append(_manifest_row(book.run, source, feed, looked, "refused"))
        elif here.sha256 in accepted:
            found.records.append(_manifest_row(book.run, source, feed, looked, "redelivered"))
        else:
            accepted.add(here.sha256)
            last += 1
            number = _digits(path.name) if feed.delivery.order == "name" else last
            change = "changed" if here.path in landed_paths else "new"
            row = _plan_row(book.run, source, feed, looked, change, number * SEQUENCE_STEP)
            found.files.append(_File(looked, row))
    present = {str(p) for p in paths}
    found.retries += [
        r | {"status": "withdrawn", "last_tried_at": book.run.started_at, "run_id": book.run.run_id}
        for (s, f, path), r in book.retries.items()
        if (s, f) == (source.name, feed.name) and r["status"] == "waiting" and path not in present
    ]
    found.seconds = time.monotonic() - began
    return found


def _is_done(record: Record, feed: Feed) -> bool:
    """Whether a delivery needs no further look; one rejected whole gets one when its feed is declared anew."""
    if record["status_id"] == "rejected":
        return bool(record["declaration"] == feed.fingerprint)
    return record["status_id"] in (*_ACCEPTED, "redelivered")


def _waves(batches: Sequence[_Batch]) -> list[list[_Batch]]:
    """Batches side by side, no subject twice in one wave: a subject has one `stg_` table."""
    waves: list[list[_Batch]] = []
    for b in batches:
        for wave in waves:
            if all(w.feed.subject != b.feed.subject for w in wave):
                wave.append(b)
                break
        else:
            waves.append([b])
    return waves


# Landing ----------------------------------------------------------------------------------------------------------

_CHANGED = "the file changed or disappeared while it was being read; nothing of it was kept."


class _Plan:
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
        _write_records(self._lake, PLAN, self.rows.values())

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


def _land_wave(
    whole: Lake,
    wave: Sequence[_Batch],
    plan: _Plan,
    run: RunLike,
    results: dict[str, FeedResult],
    progress: Progress | None,
) -> list[Record]:
    def work(batch: _Batch) -> list[Record]:
        began = time.monotonic()
        lake = whole.for_rows(batch.rows)
        if progress and results[batch.name].files_new == 0:
            progress(batch.name, None)
        if batch.is_large:
            landed = _land_large(lake, batch, plan, run)
        else:
            kept = _stage(lake, batch, plan, run)
            landed = _append(lake, plan, kept) if kept else []
        before = results[batch.name]
        keys = {r["record_key"] for r in landed}
        lost = [f.plan for f in batch.files if f.plan["record_key"] not in keys]
        results[batch.name] = replace(
            before,
            files_new=before.files_new + len(landed),
            rows_accepted=before.rows_accepted + sum(r["rows_accepted"] for r in landed),
            rows_rejected=before.rows_rejected + sum(r["rows_rejected"] for r in landed),
            refused_files=(*before.refused_files, *((r["file_path"], _CHANGED) for r in lost)),
            seconds=before.seconds + time.monotonic() - began,
        )
        if progress:
            progress(batch.name, results[batch.name])
        return landed

    with ThreadPoolExecutor(max_workers=whole.settings.parallel_steps) as pool:
        # Largest first, so that the small ones fill the gaps.
        landed = pool.map(work, sorted(wave, key=lambda b: -b.size))
        return [r for rows in landed for r in rows]


def _stage(lake: Lake, batch: _Batch, plan: _Plan, run: RunLike) -> list[Record]:
    """Write `stg_` with the files that stay as they were inspected; returns their plan rows."""
    files = list(batch.files)
    with Scratch(lake.settings.data_dir, batch.batch_id) as scratch:
        while files:
            rows = 0
            failure: Exception | None = None
            wanted = [(f.inspection, f.plan["delivery_seq"]) for f in files]
            try:
                rows = land(lake, batch.source, batch.feed, wanted, batch.batch_id, run, scratch)
            except SegmentationError:
                raise
            except Exception as e:
                failure = e
            moved = [f for f in files if not unchanged(f.inspection.identity)]
            if not moved and failure is not None:
                names = ", ".join(Path(f.inspection.identity.path).name for f in files[:5])
                raise SourceError(
                    f"source '{batch.source.name}', feed '{batch.feed.name}': Spark could not read {names}: "
                    f"{_first_line(failure)}. Nothing of the batch was kept."
                ) from failure
            if not moved:
                _expect_rows(batch, files, rows)
                return [f.plan for f in files]
            plan.close([f.plan for f in moved], "refused", _CHANGED, store=True)
            files = [f for f in files if f not in moved]
    return []


def _land_large(lake: Lake, batch: _Batch, plan: _Plan, run: RunLike) -> list[Record]:
    """Refused rows to `stg_`, the others straight to `raw_`; returns the plan rows with counts and checksums."""
    with Scratch(lake.settings.data_dir, batch.batch_id) as scratch:
        copies = [(f, scratch.copy(f.inspection)) for f in batch.files]
        if moved := [f.plan for f, copy in copies if copy is None]:
            plan.close(moved, "refused", _CHANGED, store=True)
        files = [f for f, copy in copies if copy is not None]
        if not files:
            return []
        parts = [
            part
            for f, copy in copies
            if copy is not None
            for part in _slices(
                replace(scratch.parts(batch.feed, f.inspection, f.plan["delivery_seq"])[0], path=str(copy)),
                f.inspection,
            )
        ]
        typed = _typed(lake, batch.source, batch.feed, parts, batch.batch_id, run)
        refused = lake.write(f"bronze.stg_{batch.feed.subject}", typed.where(F.col("parse_errors").isNotNull()))
        accepted = typed.where(F.col("parse_errors").isNull()).drop("parse_errors")
        written = lake.write(f"bronze.raw_{batch.feed.subject}", accepted, txn=_raw_txn(files[0].plan))
    if written.rows_written:
        _expect_rows(batch, files, written.rows_written + refused.rows_written)
    return _count_large(lake, [f.plan for f in files])


def _slices(part: Part, found: Inspection) -> list[Part]:
    """Spark reads a row group in one task, so a large one is read by several, each taking a span of its rows."""
    count = max(1, round(found.largest_group / SLICE_ROWS))
    rows = found.rows or 0
    edges = [rows * i // count for i in range(count + 1)]
    return [replace(part, span=(a, b)) for a, b in pairwise(edges)] if count > 1 else [part]


def _count_large(lake: Lake, files: Sequence[Record]) -> list[Record]:
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


def _raw_txn(row: Record) -> tuple[str, int]:
    return f"ingest:{row['source']}.{row['feed']}", row["batch_id"]


def _expect_rows(batch: _Batch, files: Sequence[_File], rows: int) -> None:
    expected = [f.inspection.rows for f in files]
    if None not in expected and rows != sum(n or 0 for n in expected):
        raise SourceError(
            f"source '{batch.source.name}', feed '{batch.feed.name}': the files say they hold "
            f"{sum(n or 0 for n in expected):,} rows but {rows:,} were read; nothing of the batch was kept."
        )


def _append(lake: Lake, plan: _Plan, files: Sequence[Record]) -> list[Record]:
    """Append the accepted rows of a staged batch once; returns its plan rows with counts and checksums."""
    first = files[0]
    staged = _staged(lake, plan, first["subject"], first["batch_id"], files)
    counts = {r["file_id"]: r for r in _count_rows(staged, with_keys=first["file_type"].startswith("jsonl"))}
    accepted = staged.where(F.col("parse_errors").isNull()).drop("parse_errors")
    lake.write(f"bronze.raw_{first['subject']}", accepted, txn=_raw_txn(first))
    return [r | _counted(counts.get(r["payload_hash"])) for r in files]


def _staged(lake: Lake, plan: _Plan, subject: str, batch_id: int, files: Sequence[Record]) -> DataFrame:
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


# Writing it down --------------------------------------------------------------------------------------------------


def _commit(
    lake: Lake,
    run: RunLike,
    plan: _Plan | None,
    landed: Sequence[Record],
    book: _Book,
    records: Sequence[Record],
    retries: Sequence[Record],
) -> None:
    """Write errors, manifest, layouts, audit and retries, then close the plan. Each write may be repeated."""
    number = max((r["batch_id"] for r in landed), default=0)
    if plan is not None and any(r["rows_rejected"] for r in landed):
        lake.write(ERRORS, _error_rows(lake, plan, landed), txn=(ERRORS, number))
    manifest = [*records, *(_landed_row(r) for r in landed)]
    lost = [r for r in plan.rows.values() if r["status"] == "refused"] if plan is not None else []
    if manifest:
        _write_records(lake, MANIFEST, {r["record_key"]: r for r in manifest}.values())
    layouts = {k: v for r in landed for k, v in _layout_rows(r).items() if k[:3] not in book.layouts}
    if layouts:
        _write_records(lake, SCHEMAS, layouts.values())
    if landed:
        _write_records(lake, AUDIT, _audit_rows(run, landed), txn=(AUDIT, number))
    tried = {(r["source"], r["feed"], r["file_path"]): r for r in retries}
    for r in landed:
        key = (r["source"], r["feed"], r["file_path"])
        if key in book.retries and book.retries[key]["status"] != "resolved":
            tried[key] = book.retries[key] | {
                "status": "resolved",
                "last_tried_at": run.started_at,
                "run_id": run.run_id,
            }
    for r in lost:
        refusal = ("changed_while_read", str(r["reason"]))
        key = (r["source"], r["feed"], r["file_path"])
        tried[key] = _retry_row(book, run, key, r["payload_hash"], refusal)
    if tried:
        _write_records(lake, RETRIES, tried.values())
    if plan is not None:
        plan.close([plan.rows[r["record_key"]] for r in landed], "landed", None)
        plan.store()
    book.layouts |= {k[:3] for k in layouts}


def _error_rows(lake: Lake, plan: _Plan, landed: Sequence[Record]) -> DataFrame:
    frames: list[DataFrame] = []
    batches = {(r["subject"], r["batch_id"]) for r in landed if r["rows_rejected"]}
    for subject, batch_id in sorted(batches):
        files = [r for r in landed if r["batch_id"] == batch_id]
        refused = _staged(lake, plan, subject, batch_id, files).where(F.col("parse_errors").isNotNull())
        exploded = refused.withColumn("_code", F.explode("parse_errors"))
        named = F.substring_index("_code", ":", 1)
        frames.append(
            exploded.select(
                "source",
                "feed",
                "file_id",
                "file_path",
                "delivery",
                "row_number",
                F.when(~named.isin("ragged", "malformed"), _after_colon(F.col("_code"))).alias("column_name"),
                named.alias("reason"),
                "row_hash",
                "batch_id",
                "loaded_at",
            )
        )
    return union_rows(frames)


def _after_colon(code: Column) -> Column:
    return F.regexp_replace(code, r"^[^:]*:", "")


def _plan_row(run: RunLike, source: Source, feed: Feed, found: Inspection, change: str, delivery_seq: int) -> Record:
    layout = _layout(feed, found)
    return {
        "record_key": _record_key(source, feed, found.identity),
        "batch_id": 0,
        "source": source.name,
        "feed": feed.name,
        "subject": feed.subject,
        "status": "planned",
        "file_path": found.identity.path,
        "file_name": Path(found.identity.path).name,
        "file_type": file_type(feed, found.identity.path),
        "payload_hash": found.identity.sha256,
        "size_bytes": found.identity.size,
        "modified_ns": found.identity.modified_ns,
        "delivery_seq": delivery_seq,
        "change": change,
        "line_count": found.lines or None,
        "expected_rows": found.rows,
        "undecodable_lines": found.undecodable,
        "encoding": found.encoding,
        "staging": "all",
        "observed": json.dumps(layout),
        "schema_hash": _hash(feed.fingerprint, json.dumps(layout)),
        "declaration": feed.fingerprint,
        "is_sample": source.is_sample,
        "notes": list(found.notes),
        "reason": None,
        "run_id": run.run_id,
        "planned_at": run.started_at,
    }


def _layout(feed: Feed, found: Inspection) -> list[Record]:
    rows: list[Record] = []
    columns: dict[str, ReadColumn] = {c.header: c for s in found.sheets for c in s.columns}
    for i, c in enumerate(columns.values() if columns else found.columns, start=1):
        expected = feed.columns[c.declared] if c.declared else None
        rows.append(
            {
                "column_name": c.header,
                "position": i,
                "declared_name": c.declared,
                "expected_type": expected.type if expected else None,
                "observed_type": c.stored or "text",
                "is_required": bool(expected and expected.required),
                "drift": "extra" if expected is None else "as_declared" if c.declared == c.header else "alias",
            }
        )
    rows += [
        {
            "column_name": m,
            "position": None,
            "declared_name": m,
            "expected_type": feed.columns[m].type,
            "observed_type": None,
            "is_required": feed.columns[m].required,
            "drift": "missing",
        }
        for m in found.missing
    ]
    return rows


def _layout_rows(landed: Record) -> dict[tuple[str, str, str, str], Record]:
    """Rows of `ref_file_schema` for one file's layout, and the further keys its JSON records turned out to have."""
    columns = json.loads(landed["observed"])
    known = {c["column_name"] for c in columns}
    more = [k for k in landed["keys"] if k not in known]
    columns += [
        {
            "column_name": k,
            "position": None,
            "declared_name": None,
            "expected_type": None,
            "observed_type": "text",
            "is_required": False,
            "drift": "extra",
        }
        for k in more
    ]
    schema_hash = _hash(landed["schema_hash"], *more) if more else landed["schema_hash"]
    about = {
        "source": landed["source"],
        "feed": landed["feed"],
        "schema_hash": schema_hash,
        "first_file_id": landed["payload_hash"],
        "first_batch_id": landed["batch_id"],
        "first_seen_at": landed["planned_at"],
    }
    return {(landed["source"], landed["feed"], schema_hash, c["column_name"]): about | c for c in columns}


def _landed_row(r: Record) -> Record:
    status = (
        "empty"
        if r["rows_read"] == 0
        else "rejected"
        if r["rows_accepted"] == 0
        else "landed_with_rejects"
        if r["rows_rejected"]
        else "landed"
    )
    return {
        **{
            k: r[k]
            for k in (
                "record_key",
                "feed",
                "subject",
                "change",
                "batch_id",
                "file_path",
                "file_name",
                "payload_hash",
                "size_bytes",
                "delivery_seq",
                "rows_read",
                "rows_accepted",
                "rows_rejected",
                "checksum_accepted",
                "checksum_rejected",
                "line_count",
                "schema_hash",
                "declaration",
                "is_sample",
                "notes",
                "run_id",
            )
        },
        "source_system_id": r["source"],
        "status_id": status,
        "file_type_id": r["file_type"],
        "recorded_at": r["planned_at"],
    }


def _manifest_row(run: RunLike, source: Source, feed: Feed, found: Inspection, status: str) -> Record:
    code, reason = found.refusal or (None, None)
    return {
        "record_key": _record_key(source, feed, found.identity),
        "source_system_id": source.name,
        "feed": feed.name,
        "subject": feed.subject,
        "status_id": status,
        "change": "redelivered" if status == "redelivered" else "new",
        "batch_id": None,
        "file_path": found.identity.path,
        "file_name": Path(found.identity.path).name,
        "file_type_id": file_type(feed, found.identity.path),
        "payload_hash": found.identity.sha256,
        "size_bytes": found.identity.size,
        "delivery_seq": None,
        "rows_read": 0,
        "rows_accepted": 0,
        "rows_rejected": 0,
        "checksum_accepted": 0,
        "checksum_rejected": 0,
        "line_count": found.lines or None,
        "schema_hash": None,
        "declaration": feed.fingerprint,
        "is_sample": source.is_sample,
        "notes": list(found.notes),
        "reason_code": code,
        "reason": reason,
        "run_id": run.run_id,
        "recorded_at": run.started_at,
    }


def _audit_rows(run: RunLike, landed: Sequence[Record]) -> list[Record]:
    rows: list[Record] = []
    for batch_id in sorted({r["batch_id"] for r in landed}):
        files = [r for r in landed if r["batch_id"] == batch_id]
        totals = {
            k: sum(r[k] for r in files)
            for k in (
                "rows_read",
                "rows_accepted",
                "rows_rejected",
                "checksum_accepted",
                "checksum_rejected",
                "size_bytes",
            )
        }
        about = {k: files[0][k] for k in ("batch_id", "source", "feed", "subject")}
        rows.append(about | totals | {"run_id": run.run_id, "files": len(files), "landed_at": run.started_at})
    return rows


def _retry(book: _Book, source: Source, feed: Feed, path: str, payload_hash: str, refusal: tuple[str, str]) -> Record:
    return _retry_row(book, book.run, (source.name, feed.name, path), payload_hash, refusal)


def _retry_row(
    book: _Book, run: RunLike, key: tuple[str, str, str], payload_hash: str, refusal: tuple[str, str]
) -> Record:
    before = book.retries.get(key)
    return {
        "source": key[0],
        "feed": key[1],
        "file_path": key[2],
        "status": "waiting",
        "reason_code": refusal[0],
        "reason": refusal[1],
        "payload_hash": payload_hash,
        "attempts": (before["attempts"] if before else 0) + 1,
        "first_refused_at": before["first_refused_at"] if before else run.started_at,
        "last_tried_at": run.started_at,
        "run_id": run.run_id,
    }


def _write_records(
    lake: Lake, name: str, records: Iterable[Mapping[str, Any]], *, txn: tuple[str, int] | None = None
) -> None:
    t = table_of(name)
    values = [tuple(_stored(c.spec.type, r.get(c)) for c in t.columns) for r in records]
    lake = lake.for_rows(len(values))
    lake.write(t, lake.spark.createDataFrame(values, ddl.struct_of(t)), txn=txn)


def _stored(kind: str, value: Any) -> Any:
    return Decimal(value) if kind.startswith("decimal") and value is not None else value


def file_type(feed: Feed, path: str) -> str:
    """Key of `ingest.dim_file_type`."""
    return f"{feed.format}.gz" if path.lower().endswith(".gz") else feed.format


def _record_key(source: Source, feed: Feed, identity: Identity) -> str:
    return _hash(source.name, feed.name, identity.path, identity.sha256)


def _identity(row: Record) -> Identity:
    return Identity(row["file_path"], row["size_bytes"], row["modified_ns"], row["payload_hash"])


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `file9` before `file10`."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _digits(name: str) -> int:
    return int("".join(re.findall(r"\d", name))[:15] or 0)


def _first_line(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return f"{type(e).__name__}: {lines[0][:300]}" if lines else type(e).__name__
