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

from collections.abc import Iterable, Sequence
from pathlib import Path

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.lake import Lake
from lakehouse.logs import get_logger
from pipelines.bronze import scratch
from pipelines.bronze.landing import (
    CHANGED,
    Plan,
    all_refused,
    append,
    count_large,
    holds,
    land_wave,
    miscounted,
    staged_rows,
)
from pipelines.bronze.preflight import unchanged
from pipelines.bronze.records import (
    AUDIT,
    ERRORS,
    MANIFEST,
    PLAN,
    RETRIES,
    SCHEMAS,
    FeedResult,
    Progress,
    Record,
    RunLike,
    audit_rows,
    identity_of,
    landed_row,
    layout_rows,
    lost_row,
    retry_row,
    with_landed,
    write_records,
)
from pipelines.bronze.rows import union_rows
from pipelines.bronze.sources import Feed, Source
from pipelines.bronze.survey import Book, survey, waves

_log = get_logger(__name__)


def land_source(
    lake: Lake,
    source: Source,
    feeds: Iterable[str] | None = None,
    *,
    run: RunLike,
    declared: Iterable[Source] = (),
    progress: Progress | None = None,
) -> list[FeedResult]:
    """Land the new files of one source; see `land_sources`.

    Args:
        lake: Where tables are.
        source: From `load_sources`.
        feeds: Names of feeds to land; all when None.
        run: Who lands it and since when.
        declared: All sources there are; those of the same merchant stand in one order with it.
        progress: Told of each feed's start and end.
    """
    chosen = source.feeds if feeds is None else tuple(source.feed(f) for f in feeds)
    return land_sources(lake, [(source, chosen)], run=run, declared=declared, progress=progress)


def land_sources(
    lake: Lake,
    wanted: Sequence[tuple[Source, Sequence[Feed]]],
    *,
    run: RunLike,
    declared: Iterable[Source] = (),
    progress: Progress | None = None,
) -> list[FeedResult]:
    """Land the new files of several sources, first finishing what an earlier run left open.

    A file is known by its bytes: the same bytes at the same path are not read again, other bytes at a known path are a
    changed file and land as a later delivery, and known bytes at a new path are recorded as delivered again.

    Args:
        lake: Where tables are.
        wanted: Sources, each with its feeds to land.
        run: Who lands them and since when.
        declared: All sources there are. What arrives stands after what any source of its merchant delivered, also one
            that is not landed now.
        progress: Told of each feed's start and end.

    Returns:
        One result per feed, in the given order, then one per other feed of which an earlier run had left files open;
        what is finished of an earlier run counts as landed now. A file that cannot be read whole is in `refused_files`
        and is tried again by the next run; the other files land.

    Raises:
        SourceError: when files that Spark can read cannot be landed.
    """
    scratch.clear(lake.settings.data_dir)
    finished, lost = recover(lake, run)
    everyone = {s.name: s for s in (*declared, *(s for s, _ in wanted))}
    book = Book(lake, run, [s.name for s, _ in wanted], everyone.values())
    surveys = [survey(lake, book, source, feed) for source, feeds in wanted for feed in feeds]
    results = {s.name: s.result() for s in surveys}
    records = [r for s in surveys for r in s.records]
    retries = [r for s in surveys for r in s.retries]
    for wave in waves([b for s in surveys for b in s.batches()], book):
        plan = Plan(lake, [f.plan for b in wave for f in b.files])
        landed = land_wave(lake, wave, plan, run, results, progress)
        _commit(lake, run, plan, landed, book, records, retries)
        records, retries = [], []
    if records or retries:
        _commit(lake, run, None, [], book, records, retries)
    for r in (*finished, *lost):
        name = f"{r['source']}.{r['feed']}"
        before = results.get(name, FeedResult(r["source"], r["feed"]))
        results[name] = with_landed(before, [], [r]) if r["status"] == "refused" else with_landed(before, [r])
    return list(results.values())


def recover(lake: Lake, run: RunLike) -> tuple[list[Record], list[Record]]:
    """Finish the batches an earlier run left open.

    Batches that never reached `bronze.stg_` are closed as dropped: nothing of them is anywhere, and their files are
    new to the next survey.

    Returns:
        Plan rows of the files that are in, with counts, and of those that were refused and are there no more, so that
        no survey will tell of them.
    """
    rows = [r.asDict() for r in lake.for_rows(0).read(PLAN).collect()] if lake.exists(PLAN) else []
    opened = [r for r in rows if r["status"] == "planned"]
    if not opened:
        return [], []
    plan = Plan(lake, rows, write=False)
    landed: list[Record] = []
    for batch_id in sorted({r["batch_id"] for r in opened}):
        files = [r for r in opened if r["batch_id"] == batch_id]
        in_raw = holds(lake, f"bronze.raw_{files[0]['subject']}", files)
        if files[0]["staging"] == "refused":
            if in_raw or all_refused(lake, files):
                landed += count_large(lake, files)
            else:
                plan.close(files, "dropped", None)
            continue
        if not holds(lake, f"bronze.stg_{files[0]['subject']}", files):
            plan.close(files, "dropped", None)
            continue
        if not in_raw:
            # The run may have died before it saw that a file had changed under it, or was not read whole.
            wrong = miscounted(lake, files) | {r["record_key"]: CHANGED for r in files if _may_have_changed(r)}
            for r in files:
                if reason := wrong.get(r["record_key"]):
                    plan.close([r], "refused", reason)
            files = [r for r in files if r["record_key"] not in wrong]
        if files:
            landed += append(lake, plan, files)
    lost = [r for r in plan.rows.values() if r["status"] == "refused" and not Path(r["file_path"]).exists()]
    _log.info("open batches found", extra={"files": len(opened), "finished": len(landed), "lost": len(lost)})
    _commit(lake, run, plan, landed, Book(lake, run, {r["source"] for r in opened}), [], [])
    return landed, lost


def _may_have_changed(r: Record) -> bool:
    """Whether a staged file may have changed while it was read.

    One that is gone may just have been put away since: that all its rows are there tells that it was read whole.
    """
    tells_rows = r["expected_rows"] is not None
    return not unchanged(identity_of(r)) and (not tells_rows or Path(r["file_path"]).exists())


def _commit(
    lake: Lake,
    run: RunLike,
    plan: Plan | None,
    landed: Sequence[Record],
    book: Book,
    records: Sequence[Record],
    retries: Sequence[Record],
) -> None:
    """Write errors, manifest, layouts, audit and retries, then close the plan. Each write may be repeated."""
    number = max((r["batch_id"] for r in landed), default=0)
    if plan is not None and any(r["rows_rejected"] for r in landed):
        lake.write(ERRORS, _error_rows(lake, plan, landed), txn=(ERRORS, number))
    lost = [r for r in plan.rows.values() if r["status"] == "refused"] if plan is not None else []
    codes = {r["record_key"]: "changed_while_read" if r["reason"] == CHANGED else "not_read_whole" for r in lost}
    manifest = [
        *records,
        *(lost_row(r, codes[r["record_key"]]) for r in lost),
        *(landed_row(r) for r in landed),
    ]
    if manifest:
        write_records(lake, MANIFEST, {r["record_key"]: r for r in manifest}.values())
    layouts = {k: v for r in landed for k, v in layout_rows(r).items() if k[:3] not in book.layouts}
    if layouts:
        write_records(lake, SCHEMAS, layouts.values())
    if landed:
        write_records(lake, AUDIT, audit_rows(run, landed), txn=(AUDIT, number))
    tried = {(r["source"], r["feed"], r["file_path"]): r for r in retries}
    for r in landed:
        key = (r["source"], r["feed"], r["file_path"])
        for row in book.closed(key, "resolved"):
            tried[key] = row
    for r in lost:
        refusal = (codes[r["record_key"]], str(r["reason"]))
        key = (r["source"], r["feed"], r["file_path"])
        tried[key] = retry_row(book.retries.get(key), run, key, r["payload_hash"], refusal)
    if tried:
        write_records(lake, RETRIES, tried.values())
    if plan is not None:
        plan.close([plan.rows[r["record_key"]] for r in landed], "landed", None)
        plan.store()
    book.layouts |= {k[:3] for k in layouts}


def _error_rows(lake: Lake, plan: Plan, landed: Sequence[Record]) -> DataFrame:
    frames: list[DataFrame] = []
    batches = {(r["subject"], r["batch_id"]) for r in landed if r["rows_rejected"]}
    for subject, batch_id in sorted(batches):
        files = [r for r in landed if r["batch_id"] == batch_id]
        refused = staged_rows(lake, plan, subject, batch_id, files).where(F.col("parse_errors").isNotNull())
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
