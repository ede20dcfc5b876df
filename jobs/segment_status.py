"""The state of segments while they refresh and after a failure, as readers see it: the last good members stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.context import Job
from lakehouse.declare import Table
from lakehouse.errors import SegmentationError
from lakehouse.lake import Lake, WriteResult
from lakehouse.logs import get_logger
from lakehouse.runner import Audit, Run, StepResult
from segments.language import Segment
from segments.states import move

log = get_logger(__name__)

TABLE = "gold.customer_segment"
PUBLISHER = "segments.definitions:build_customer_segment"
REFRESHING = frozenset({"gold.customer_evaluation", "gold.customer_membership", "gold.customer_segment_guest"})
"""Tables a refresh begins with; which of them comes first depends on what is new."""

FAILED_RUN = "The last run failed: "
"""How a message of ours begins, so that a run that goes well knows which to take back."""


class Announced:
    """A quality gate that also says `processing` when the first table of a refresh is about to be written.

    Steps with nothing new never come to be written, so a run that changes nothing announces nothing.
    """

    def __init__(self, gate: Audit, begin: Callable[[], None]) -> None:
        """Wrap a gate; `begin` is called once."""
        self._gate, self._begin, self._is_begun = gate, begin, False

    def before_publish(self, run: Run, table: Table) -> Callable[[DataFrame], None] | None:
        """As the gate."""
        return self._gate.before_publish(run, table)

    def watch(self, run: Run, table: Table, frame: DataFrame) -> DataFrame:
        """As the gate."""
        if table.name in REFRESHING and not self._is_begun:
            self._is_begun = True
            self._begin()
        return self._gate.watch(run, table, frame)

    def published(self, run: Run, table: Table, written: WriteResult) -> None:
        """As the gate."""
        self._gate.published(run, table, written)

    def refused(self, run: Run, table: Table, error: Exception) -> SegmentationError | None:
        """As the gate."""
        return self._gate.refused(run, table, error)


def begin_refresh(lake: Lake, segments: Sequence[Segment]) -> None:
    """Note that the active segments that refresh by themselves are being refreshed; those not yet published are not."""
    ids = [s.segment_id for s in segments if s.is_active and (s.refresh_mode == "auto" or s.entity == "guest")]
    _move(lake, F.col("segment_id").isin(ids), "processing", None)


@contextmanager
def failures_told(job: Job, status: Literal["stale", "error"]) -> Iterator[None]:
    """Note a failure within as the state of every segment that refreshes by itself, and raise it again.

    Args:
        job: The run.
        status: `stale` when what segments are made from failed, `error` when their refresh did.
    """
    try:
        yield
    except SegmentationError as e:
        try:
            concerned = F.expr("is_active AND (refresh_mode = 'auto' OR refresh_status = 'processing')")
            _move(job.lake, concerned, status, (FAILED_RUN + str(e))[:1000])
        except Exception as unnoted:  # must not hide the failure itself; an engine's message may show values of a row
            log.warning("the state of the segments could not be noted", extra={"error": type(unnoted).__name__})
        raise


def needs_republishing(lake: Lake, results: list[StepResult], now: datetime) -> bool:
    """Whether a run that had no reason to publish is to do so all the same.

    A failure, or a refresh that was killed, is still noted; that of a manual segment stays noted until it is asked for
    again. Or the last refresh was on an earlier day: one that finds nothing new counts as well.

    Args:
        lake: Holds the published segments.
        results: How the steps of the run ended.
        now: When the run started, UTC.
    """
    published = any(r.step.producer == PUBLISHER and r.status == "succeeded" for r in results)
    if published or not lake.exists(TABLE):
        return False
    is_taken_up = F.expr("is_active AND (refresh_mode = 'auto' OR entity = 'guest')")
    has_failed = is_taken_up & F.startswith("refresh_message", F.lit(FAILED_RUN))
    is_cut_off = F.col("is_active") & (F.col("refresh_status") == "processing")
    went_well = is_taken_up & (F.col("refresh_status") == "completed")
    is_of_before = went_well & (F.col("last_refresh_at") < F.lit(now.date()))
    return bool(lake.read(TABLE).where(has_failed | is_cut_off | is_of_before).limit(1).collect())


def _move(lake: Lake, concerned: Column, status: str, message: str | None) -> None:
    if not lake.exists(TABLE):
        return
    rows = lake.read(TABLE).where(concerned)
    state = move(F.col("refresh_status"), F.lit(status))
    lake.write(TABLE, rows.withColumns({"refresh_status": state, "refresh_message": F.lit(message).cast("string")}))
