"""The ledger on Delta. What is learnt is appended as it is learnt, and folded into the state of members afterwards.

The journal is appended because an append of a batch costs half a second whatever the audience's size, and a merge of it
does not. The plan is written once and read in buckets, so that the driver never holds more than a window of rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from connectors.audience import Audience
from connectors.base import BatchDestination
from connectors.brakes import PlacePlan
from connectors.changes import BUCKETS, PLACE, ROW, fold_journal, plan_changes
from connectors.exchange import (
    Batch,
    Lane,
    NotEligible,
    Op,
    Place,
    Row,
    Settled,
    cut_batches,
    event_id,
)
from connectors.ledger import OpenReceipt, RowOutcome, RunReport
from connectors.pace import Clock, utc_now
from lakehouse.lake import Lake
from lakehouse.records import write_rows
from lakehouse.tables.activation import ActivationBatch as B
from lakehouse.tables.activation import ActivationMember as M
from lakehouse.tables.activation import ActivationOutcome as O
from lakehouse.tables.activation import ActivationPlan as P
from lakehouse.tables.activation import ActivationRun as R

_READ_ROWS: Final = 50_000
"""Rows read from the plan at a time, about; the driver holds no more."""


def open_ledger(
    lake: Lake,
    destination: BatchDestination,
    audience: Audience,
    segments: Mapping[str, str],
    *,
    run_id: str,
    started_at: datetime,
    clock: Clock,
    is_forced: bool = False,
) -> DeltaLedger:
    """Returns the ledger of one destination for one run.

    Args:
        lake: Holds the tables.
        destination: Its settings.
        audience: Made for this destination.
        segments: Names people read, by id: the segments that leave.
        run_id: Run.
        started_at: When it started, UTC.
        clock: Tells when things are recorded.
        is_forced: Also send rows that were refused before and have not changed.

    Raises:
        NotEligible: the audience is none, or another destination's.
    """
    if not isinstance(audience, Audience) or audience.destination != destination:
        raise NotEligible(f"The ledger of {destination.name} takes the audience planned for it and nothing else.")
    return DeltaLedger(lake, destination, audience, segments, run_id, started_at, clock, is_forced)


class DeltaLedger:
    """State of one destination; see `connectors.ledger.Ledger`."""

    def __init__(
        self,
        lake: Lake,
        destination: BatchDestination,
        audience: Audience,
        segments: Mapping[str, str],
        run_id: str,
        started_at: datetime,
        clock: Clock,
        is_forced: bool,
    ) -> None:
        self._lake = lake
        self._destination = destination
        self._audience = audience
        self._segments = dict(segments)
        self._run_id = run_id
        self._started_at = started_at
        self._clock = clock
        self._is_forced = is_forced
        self._seq = itertools.count(1)
        self._planned_rows = 0

    # Beginning and end -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take in what runs that died wrote down, and record that this one runs."""
        fold_dead_runs(self._lake, self._destination)
        self._write_run(RunReport(), is_folded=False)

    def finish(self, report: RunReport) -> None:
        """Record how the run ended; its outcomes have been folded."""
        self._write_run(report, is_folded=True)

    def _write_run(self, report: RunReport, *, is_folded: bool) -> None:
        held = sum(p.removals + p.additions for p in report.plans if p.place in report.held)
        why = "; ".join(f"{p.segment_id}: {w}" for p, w in [*report.held.items(), *report.failed.items()])
        row = {
            R.run_id: self._run_id,
            R.destination: self._destination.name,
            R.state: report.state,
            R.started_at: self._started_at,
            R.ended_at: utc_now(self._clock) if is_folded else None,
            R.is_folded: is_folded,
            R.planned: report.planned,
            R.ok: report.ok,
            R.accepted: report.accepted,
            R.rejected: report.rejected,
            R.left_over: report.left,
            R.held: held,
            R.requests: report.requests,
            R.match_rate: next(reversed(list(report.match_rates.values())), None),
            R.message: "; ".join(x for x in (report.code, why) if x) or None,
        }
        self._lake.write(R, self._lake.frame(R, [{str(k): v for k, v in row.items()}]))

    # Jobs of the destination's ---------------------------------------------------------------------------------

    def receipts(self) -> Sequence[OpenReceipt]:
        """Jobs still open at the destination."""
        op = F.when(F.col(M.status) == "adding", F.lit("add")).otherwise(F.lit("remove"))
        waiting = self._waiting().select(M.receipt, *PLACE, op).distinct().orderBy(M.receipt)
        return [OpenReceipt(r[0], Place(r[1], r[2]), r[3]) for r in waiting.collect()]

    def settle(self, receipt: OpenReceipt, settled: Settled) -> int:
        """Record the end of a job for every row that waits for it; the rows never leave Spark."""
        status = "adding" if receipt.op == "add" else "removing"
        rows = self._of(M).where((F.col(M.receipt) == F.lit(receipt.receipt)) & (F.col(M.status) == status))
        verdict: Column = F.lit(settled.verdict)
        code: Column = F.lit(settled.code or None).cast("string")
        if settled.rejected:
            refused = pa.table({"member_id": list(settled.rejected), "_why": list(settled.rejected.values())})
            rows = rows.join(self._lake.spark.createDataFrame(refused), on="member_id", how="left")
            verdict = F.when(F.col("_why").isNotNull(), F.lit("reject")).otherwise(verdict)
            code = F.coalesce("_why", code)
        # Of a row that was to be removed while the job ran, nobody knows what came last.
        verdict = F.when(F.col(M.last_op) != F.lit(receipt.op), F.lit("unknown")).otherwise(verdict)
        made = rows.select(
            F.lit(self._run_id).alias(O.run_id),
            F.lit(next(self._seq)).cast("bigint").alias(O.seq),
            *[F.col(c) for c in (O.destination, *PLACE)],
            F.lit(receipt.receipt).alias(O.batch_key),
            F.lit(receipt.op).alias(O.op),
            O.member_id,
            O.key_set,
            verdict.alias(O.verdict),
            code.alias(O.code),
            F.lit(None).cast("string").alias(O.receipt),
            F.lit(None).cast("string").alias(O.remote_id),
            F.lit(utc_now(self._clock)).alias(O.recorded_at),
        )
        return self._lake.write(O, made).rows_written

    def _waiting(self) -> DataFrame:
        return self._of(M).where(F.col(M.status).isin("adding", "removing") & F.col(M.receipt).isNotNull())

    # Planning --------------------------------------------------------------------------------------------------

    def plan(self, *, write: bool = True) -> Sequence[PlacePlan]:
        """Compare who is eligible with what the destination acknowledged; see `plan_changes`.

        Segments that no longer leave are compared too: nobody of theirs is wanted, and whoever withdraws must be
        taken away from wherever they were sent.
        """
        self._changes = plan_changes(
            self._audience,
            self._of(M),
            destination=self._destination,
            segments=tuple(self._segments),
            run_id=self._run_id,
            started_at=self._started_at,
            is_forced=self._is_forced,
        )
        if write:
            self._lake.write(P, self._changes, slice_of={"destination": self._destination.name})
            self._changes = self._of(P)
        return self._count()

    def _count(self) -> list[PlacePlan]:
        members = self._audience.frame.where(F.col("segment_id").isin(*self._segments))
        found: dict[Place, dict[str, int]] = {}

        def add(rows: DataFrame) -> None:
            for row in rows.collect():
                counts = found.setdefault(Place(row[0], row[1]), {})
                counts |= {k: v for k, v in row.asDict().items() if k not in PLACE}

        add(
            members.groupBy(*PLACE).agg(
                F.count(F.lit(1)).alias("members"), F.count_if(F.col("excluded").isNull()).alias("eligible")
            )
        )
        add(
            self._of(M)
            .where(F.col(M.status) != "removed")  # an audience that was emptied is none of this run's
            .groupBy(*PLACE)
            .agg(F.count_if(F.col(M.status) == "present").alias("present"))
        )
        sizes = [F.count_if(F.col("lane") == lane).alias(lane) for lane in ("withdrawal", "removal", "addition")]
        known = self._of(M).select(*ROW, M.status)
        sizes.append(F.count_if((F.col("lane") == "removal") & (F.col(M.status) == "rejected")).alias("refused"))
        # One row per key on either side.
        add(self._changes.join(known, on=list(ROW), how="left").groupBy(*PLACE).agg(*sizes))
        counted = ("members", "eligible", "present", "withdrawal", "removal", "addition", "refused")
        plans = [
            PlacePlan(
                place,
                self._segments.get(place.segment_id, place.segment_id),
                *(c.get(k, 0) for k in counted),
            )
            for place, c in sorted(found.items(), key=lambda i: (i[0].website_id, i[0].segment_id))
        ]
        self._planned_rows = sum(p.withdrawals + p.removals + p.additions for p in plans)
        return plans

    def windows(self, lane: Lane, places: Collection[Place], *, limit: int, batches: int) -> Iterator[Sequence[Batch]]:
        """Yields planned batches, a bucketful of the plan at a time."""
        op: Op = "add" if lane == "addition" else "remove"
        chosen = F.lit(False)
        for p in places:
            chosen = chosen | ((F.col("website_id") == p.website_id) & (F.col("segment_id") == p.segment_id))
        rows = self._changes.where((F.col("lane") == lane) & chosen).select(
            *ROW, "keys", "remote_id", "generation", "bucket", "stored_keys"
        )
        if op == "add" and self._audience.details:
            # Details are read afresh for each window and written nowhere.
            told = self._audience.frame.where(F.col("excluded").isNull()).select(
                *PLACE, "member_id", F.struct(*self._audience.details).alias("_details")
            )
            rows = rows.join(told, on=[*PLACE, "member_id"], how="left")  # one row per member and segment
        step = max(1, min(BUCKETS, BUCKETS * _READ_ROWS // max(1, self._planned_rows)))
        for start in range(0, BUCKETS, step):
            part = rows.where(F.col("bucket").between(start, start + step - 1))
            by_place: dict[Place, list[Row]] = {}
            # Ordered here, where there are few: the same plan is cut into the same batches.
            for r in sorted(part.collect(), key=lambda r: tuple(r[c] for c in ROW)):
                place = Place(r["website_id"], r["segment_id"])
                by_place.setdefault(place, []).append(self._row(r, place, op))
            cut = [b for place, found in by_place.items() for b in cut_batches(place, op, found, limit)]
            for first in range(0, len(cut), batches):
                yield cut[first : first + batches]

    def _row(self, r: Any, place: Place, op: Op) -> Row:
        said = r.asDict(recursive=True)
        details = said.get("_details") or {}
        return Row(
            r["member_id"],
            r["key_set"],
            event_id(self._destination.name, place, op, r["member_id"], r["key_set"], r["generation"]),
            r["keys"] or {},
            {k.removeprefix("detail_"): v for k, v in details.items() if v is not None},
            r["remote_id"] or "",
        )

    # Writing down ----------------------------------------------------------------------------------------------

    def sending(self, batches: Sequence[Batch]) -> None:
        """Record that these batches are about to leave."""
        self._journal(
            [
                (b.key, b.place, b.op, r.member_id, r.key_set, "sending", None, None, None)
                for b in batches
                for r in b.rows
            ]
        )
        self._note_batches("sending", [(b.key, b.place, b.op, len(b.rows), (0, 0, 0, 0)) for b in batches])

    def record(self, outcomes: Sequence[RowOutcome]) -> None:
        """Record outcomes of rows."""
        self._journal(
            [
                (
                    o.batch_key, o.place, o.op, o.row.member_id, o.row.key_set, o.outcome.verdict,
                    o.outcome.code or None, o.outcome.receipt or None, o.outcome.remote_id or None,
                )
                for o in outcomes
            ]
        )  # fmt: skip
        counts: dict[tuple[str, Place, Op], list[int]] = {}
        for o in outcomes:
            held = counts.setdefault((o.batch_key, o.place, o.op), [0, 0, 0, 0])
            held[{"ok": 0, "accepted": 1, "reject": 2}.get(o.outcome.verdict, 3)] += 1
        self._note_batches("settled", [(*k, sum(c), tuple(c)) for k, c in counts.items()])

    def _journal(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        n, seq, now = len(rows), next(self._seq), utc_now(self._clock)
        key, place, op, member, key_set, verdict, code, receipt, remote = zip(*rows, strict=True)
        table = pa.table(
            {
                str(O.run_id): [self._run_id] * n,
                str(O.seq): [seq] * n,
                str(O.destination): [self._destination.name] * n,
                str(O.website_id): [p.website_id for p in place],
                str(O.segment_id): [p.segment_id for p in place],
                str(O.batch_key): list(key),
                str(O.op): list(op),
                str(O.member_id): list(member),
                str(O.key_set): list(key_set),
                str(O.verdict): list(verdict),
                str(O.code): pa.array(code, pa.string()),
                str(O.receipt): pa.array(receipt, pa.string()),
                str(O.remote_id): pa.array(remote, pa.string()),
                str(O.recorded_at): pa.array([now.replace(tzinfo=UTC)] * n, pa.timestamp("us", tz="UTC")),
            }
        )
        self._lake.write(O, self._lake.spark.createDataFrame(table))

    def _note_batches(self, state: str, found: list[tuple[Any, ...]]) -> None:
        rows = [
            {
                B.run_id: self._run_id, B.destination: self._destination.name, B.website_id: place.website_id,
                B.segment_id: place.segment_id, B.batch_key: key, B.op: op, B.state: state, B.rows: size,
                B.ok: c[0], B.accepted: c[1], B.rejected: c[2], B.left_over: c[3], B.recorded_at: utc_now(self._clock),
            }
            for key, place, op, size, c in found
        ]  # fmt: skip
        if rows:
            write_rows(self._lake, "gold.activation_batch", [{str(k): v for k, v in r.items()} for r in rows])

    # Folding ---------------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Bring the state of members to what this run recorded; the same journal folds to the same state."""
        _fold(self._lake, self._destination, self._run_id)

    # Small things ----------------------------------------------------------------------------------------------

    def _of(self, table: type) -> DataFrame:
        return _of(self._lake, self._destination, table)


def fold_dead_runs(lake: Lake, destination: BatchDestination) -> None:
    """Take in what runs of a destination that died wrote down."""
    dead = _of(lake, destination, R).where(~F.col(R.is_folded)).orderBy(R.started_at).collect()
    for run in dead:
        _fold(lake, destination, str(run[R.run_id]))
        lake.write(R, lake.frame(R, [{**run.asDict(), str(R.is_folded): True}]))


def _fold(lake: Lake, destination: BatchDestination, run_id: str) -> None:
    last = Window.partitionBy(*ROW).orderBy(F.col(O.seq).desc())
    journal = _of(lake, destination, O).where(F.col(O.run_id) == F.lit(run_id))
    journal = journal.withColumn("_rank", F.row_number().over(last)).where("_rank = 1").drop("_rank")
    if not journal.limit(1).collect():
        return
    plan = _of(lake, destination, P).where(F.col(P.run_id) == F.lit(run_id))
    members = _of(lake, destination, M)
    lake.write(M, fold_journal(journal, plan, members, destination=destination, run_id=run_id))


def _of(lake: Lake, destination: BatchDestination, table: type) -> DataFrame:
    return lake.read(table).where(F.col("destination") == F.lit(destination.name))
