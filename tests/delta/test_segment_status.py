from __future__ import annotations

import io
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from jobs.maintain import maintain
from jobs.progress import Progress
from jobs.segment_status import failures_told, needs_republishing
from lakehouse.errors import DeclarationError, StepFailed
from lakehouse.lake import Lake
from lakehouse.runner import AuditLog, Run
from tests.support.rows import rows

pytestmark = [pytest.mark.spark, pytest.mark.delta]

SEGMENT = "gold.customer_segment"


def states(lake: Lake) -> dict[str, tuple[str, str | None, int]]:
    return {
        r["segment_id"]: (r["refresh_status"], r["refresh_message"], r["matched_customers_count"])
        for r in lake.read(SEGMENT).collect()
    }


def test_a_failed_run_leaves_the_members_and_says_so(lake: Lake) -> None:
    good = {"name": "N", "is_active": True, "refresh_status": "completed", "matched_customers_count": 7}
    segments: list[dict[str, Any]] = [
        good | {"segment_id": "auto", "refresh_mode": "auto"},
        good | {"segment_id": "manual", "refresh_mode": "manual"},
        good | {"segment_id": "off", "refresh_mode": "auto", "is_active": False},
    ]
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, segments))
    job: Any = SimpleNamespace(lake=lake)
    assert not needs_republishing(lake, [])

    with pytest.raises(StepFailed), failures_told(job, "stale"):
        raise StepFailed("Step features failed")

    assert states(lake) == {
        "auto": ("stale", "The last run failed: Step features failed", 7),
        "manual": ("completed", None, 7),
        "off": ("completed", None, 7),
    }
    assert needs_republishing(lake, [])


def test_a_retention_of_no_table_is_refused(lake: Lake) -> None:
    settings = lake.settings.model_copy(update={"retention_days": {"gold.customer_segment_histroy": 3}})
    job: Any = SimpleNamespace(lake=lake, settings=settings)
    with pytest.raises(DeclarationError, match="Did you mean"):
        maintain(job, None)  # type: ignore[arg-type]


def test_only_events_somebody_acted_on_are_removed_and_the_count_is_audited(lake: Lake) -> None:
    event = "gold.customer_segment_event"
    old, new = datetime(2020, 1, 1), datetime(2020, 5, 20)
    lake.write(
        event,
        rows(
            lake.spark,
            event,
            [
                {"event_id": 1, "created_at": old, "is_processed": True},
                {"event_id": 2, "created_at": old, "is_processed": False},
                {"event_id": 3, "created_at": new, "is_processed": True},
            ],
        ),
    )
    log = AuditLog(lake)
    run = Run("run-1", datetime(2020, 6, 1))
    job: Any = SimpleNamespace(lake=lake, settings=lake.settings, run=run, audit_log=log)

    assert maintain(job, Progress(Console(file=io.StringIO())))[event] == 1

    assert {r["event_id"] for r in lake.read(event).collect()} == {2, 3}
    (row,) = lake.read("ingest.audit_transforms").where("step LIKE 'jobs.maintain%'").collect()
    assert (row["table_name"], row["rows_written"], row["run_id"]) == (event, 1, "run-1")
