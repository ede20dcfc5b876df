"""What a failed run leaves readers to see: the last good members, and that they are no more than that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pyspark.sql import functions as F

from jobs.context import Job
from lakehouse.errors import SegmentationError
from lakehouse.lake import Lake
from lakehouse.logs import get_logger
from lakehouse.runner import StepResult

log = get_logger(__name__)

TABLE = "gold.customer_segment"
PUBLISHER = "segments.definitions:build_customer_segment"

_MARK = "The last run failed: "
"""How a message of ours begins, so that a run that goes well knows which to take back."""


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
            _mark(job.lake, status, str(e))
        except Exception as unnoted:  # must not hide the failure itself; an engine's message may show values of a row
            log.warning("the state of the segments could not be noted", extra={"error": type(unnoted).__name__})
        raise


def needs_republishing(lake: Lake, results: list[StepResult]) -> bool:
    """Whether a failure is still noted although the run went well and had no reason to publish states again."""
    published = any(r.step.producer == PUBLISHER and r.status == "succeeded" for r in results)
    if published or not lake.exists(TABLE):
        return False
    noted = lake.read(TABLE).where(F.startswith("refresh_message", F.lit(_MARK))).limit(1)
    return bool(noted.collect())


def _mark(lake: Lake, status: str, reason: str) -> None:
    if not lake.exists(TABLE):
        return
    said = F.lit((_MARK + reason)[:1000])
    concerned = lake.read(TABLE).where("is_active AND refresh_mode = 'auto'")
    lake.write(TABLE, concerned.withColumn("refresh_status", F.lit(status)).withColumn("refresh_message", said))
