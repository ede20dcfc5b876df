from __future__ import annotations

import io
from datetime import date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from jobs.cli import app
from jobs.context import Job
from jobs.flow import build_segments
from jobs.maintain import maintain
from jobs.progress import Progress
from jobs.segment_status import Announced, begin_refresh, failures_told, needs_republishing
from jobs.segments import mark_processed, unprocessed_events
from lakehouse.declare import table_of
from lakehouse.errors import DeclarationError, ModelError, SettingsError, StepFailed
from lakehouse.lake import Lake
from lakehouse.records import AuditLog
from lakehouse.runner import Run
from segments.language import Segment, feature
from tests.support.rows import rows

pytestmark = [pytest.mark.spark, pytest.mark.delta]

SEGMENT = "gold.customer_segment"
NOW = datetime(2020, 6, 2, 6)


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
    assert not needs_republishing(lake, [], NOW)

    with pytest.raises(StepFailed), failures_told(job, "stale"):
        raise StepFailed("Step features failed")

    assert states(lake) == {
        "auto": ("stale", "The last run failed: Step features failed", 7),
        "manual": ("completed", None, 7),
        "off": ("completed", None, 7),
    }
    assert needs_republishing(lake, [], NOW)


def test_a_layer_of_facts_that_fails_by_itself_is_told_as_in_a_whole_run(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, __: object, layers: list[str], **___: object) -> None:
        raise StepFailed(f"Layer {layers[0]} failed")

    segment = {"segment_id": "a", "refresh_mode": "auto", "is_active": True, "refresh_status": "completed"}
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, [segment]))
    job = Job(lake.settings)
    job.__dict__["lake"] = lake
    recorded: list[Lake] = []
    monkeypatch.setattr("jobs.context.Job.start", lambda *_, **__: job)
    monkeypatch.setattr("lakehouse.catalogue.record_catalog", lambda to, _: recorded.append(to))
    monkeypatch.setattr("jobs.flow.build", fail)

    ended = CliRunner().invoke(app, ["build", "--layer", "features", "--layer", "silver"])

    assert ended.exit_code == StepFailed.exit_code, ended.output
    assert states(lake)["a"][:2] == ("stale", "The last run failed: Layer silver failed")
    assert recorded == [lake]


def test_a_model_that_fails_is_told_as_the_state_of_the_segments(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModelError("Model m/1 cannot be read any more")

    segment = {"segment_id": "a", "refresh_mode": "auto", "is_active": True, "refresh_status": "completed"}
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, [segment]))
    job = Job(lake.settings.model_copy(update={"as_of": date(2020, 6, 2)}))
    job.__dict__["lake"] = lake
    monkeypatch.setattr("models.training.cluster_models", fail)

    with pytest.raises(ModelError):
        build_segments(job, Progress(Console(file=io.StringIO())))

    assert states(lake)["a"][:2] == ("error", "The last run failed: Model m/1 cannot be read any more")


def test_a_refresh_that_was_killed_is_taken_up(lake: Lake) -> None:
    rule = feature("recency_days").at_most(30)
    auto, manual = Segment("auto", "A", rule), Segment("manual", "M", rule, refresh_mode="manual")
    published = [
        {"segment_id": s.segment_id, "refresh_mode": s.refresh_mode, "is_active": True, "refresh_status": "completed"}
        for s in (auto, manual)
    ]
    begin_refresh(lake, [auto])
    assert not lake.exists(SEGMENT)
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, published))

    begin_refresh(lake, [auto, manual])
    assert {k: v[0] for k, v in states(lake).items()} == {"auto": "processing", "manual": "completed"}
    assert needs_republishing(lake, [], NOW)
    begin_refresh(lake, [auto, manual])
    job: Any = SimpleNamespace(lake=lake)
    with pytest.raises(StepFailed), failures_told(job, "error"):
        raise StepFailed("Step segments failed")
    assert {k: v[0] for k, v in states(lake).items()} == {"auto": "error", "manual": "completed"}


def test_what_became_of_a_manual_segment_is_not_taken_up_by_runs_that_do_not_refresh_it(lake: Lake) -> None:
    failed = {"refresh_status": "error", "refresh_message": "The last run failed: x", "is_active": True}
    manual = failed | {"segment_id": "manual", "refresh_mode": "manual"}
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, [manual]))
    assert not needs_republishing(lake, [], NOW)
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, [manual | {"refresh_mode": "auto"}]))
    assert needs_republishing(lake, [], NOW)


def test_a_refresh_that_finds_nothing_new_counts_once_a_day(lake: Lake) -> None:
    good = {"is_active": True, "refresh_mode": "auto", "refresh_status": "completed"}
    segments = [
        good | {"segment_id": "auto", "last_refresh_at": datetime(2020, 6, 1, 23)},
        good | {"segment_id": "held", "refresh_status": "error", "last_refresh_at": datetime(2020, 5, 1)},
        good | {"segment_id": "manual", "refresh_mode": "manual", "last_refresh_at": datetime(2020, 5, 1)},
    ]
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, segments))
    assert needs_republishing(lake, [], NOW)
    lake.write(SEGMENT, rows(lake.spark, SEGMENT, [segments[0] | {"last_refresh_at": datetime(2020, 6, 2)}]))
    assert not needs_republishing(lake, [], NOW)


def test_a_refresh_is_announced_once_and_only_when_something_is_written() -> None:
    told: list[str] = []
    gate: Any = SimpleNamespace(watch=lambda run, table, frame: frame)
    announced = Announced(gate, lambda: told.append("begun"))
    run: Any = None
    announced.watch(run, table_of("gold.fact_transactions"), run)
    assert told == []
    announced.watch(run, table_of("gold.customer_evaluation"), run)
    announced.watch(run, table_of("gold.customer_membership"), run)
    assert told == ["begun"]


def test_a_retention_of_no_table_is_refused(lake: Lake) -> None:
    settings = lake.settings.model_copy(update={"retention_days": {"gold.customer_segment_histroy": 3}})
    job: Any = SimpleNamespace(lake=lake, settings=settings, audit_log=AuditLog(lake))
    with pytest.raises(DeclarationError, match="Did you mean"):
        maintain(job, None)  # type: ignore[arg-type]
    for name, said in (
        ("gold.dim_time", "no column that tells"),
        ("feature.customer", "keep_as_of_days"),
        ("gold.fact_transactions", "would leave .*gold.fact_balance_snapshots"),
        (
            "bronze.raw_visitor_events",
            "would leave .*silver.visitor_event .* Delivered rows may leave bronze.raw_transac",
        ),
        ("bronze.raw_exchange_rates", "would leave .*gold.ref_exchange_rates"),
        ("ingest.raw_records", "would leave .*gold.audit_recon"),
        ("gold.activation_switch", r"has no limit of its own, so all rows are kept\..*gold.activation_outcome"),
        *((f"gold.{t}", "no limit of its own") for t in ("activation_member", "dim_account", "customer_segment")),
    ):
        job.settings = lake.settings.model_copy(update={"retention_days": {name: 3}})
        with pytest.raises(SettingsError, match=said):
            maintain(job, None)  # type: ignore[arg-type]
    may = {"bronze.raw_transactions": 400, "gold.customer_segment_history": 730}
    job.settings = lake.settings.model_copy(update={"retention_days": may})
    assert maintain(job, None, dry_run=True) == {}  # type: ignore[arg-type]


def test_whoever_acts_on_events_marks_them(lake: Lake) -> None:
    event = "gold.customer_segment_event"
    days = [datetime(2020, 1, day) for day in (3, 1, 2)]
    told = [{"event_id": n, "created_at": at, "segment_id": "ab"[n % 2]} for n, at in enumerate(days)]
    lake.write(event, rows(lake.spark, event, told))
    job: Any = SimpleNamespace(lake=lake)
    assert [r["event_id"] for r in unprocessed_events(job).collect()] == [1, 2, 0]

    acted_on = unprocessed_events(job, "a")
    assert mark_processed(job, acted_on.where("event_id = 2")).rows_written == 1
    assert [r["event_id"] for r in unprocessed_events(job).collect()] == [1, 0]


def test_guests_age_by_what_was_delivered_and_not_by_the_clock(lake: Lake) -> None:
    guest = "gold.customer_segment_guest"
    seen = [datetime(2017, 1, 1), datetime(2017, 10, 1), datetime(2017, 12, 30)]
    lake.write(
        guest, rows(lake.spark, guest, [{"visitor_id": f"v{n}", "last_visit_at": at} for n, at in enumerate(seen)])
    )
    log = AuditLog(lake)
    job: Any = SimpleNamespace(lake=lake, settings=lake.settings, run=Run("run-1", datetime(2026, 6, 1)), audit_log=log)

    assert maintain(job, Progress(Console(file=io.StringIO())))[guest] == 1

    assert {r["visitor_id"] for r in lake.read(guest).collect()} == {"v1", "v2"}


def test_slices_of_customers_are_kept_alike_in_every_schema_and_counted_from_today(lake: Lake) -> None:
    days = [date(2020, 4, 1), date(2020, 4, 15), date(2020, 5, 31), date(2099, 6, 2)]
    names = ("feature.customer_cluster", "success.churn_predictions")
    for name in names:
        lake.write(name, rows(lake.spark, name, [{"customer_key": 1, "as_of": day} for day in days]))
    log = AuditLog(lake)
    job: Any = SimpleNamespace(lake=lake, settings=lake.settings, run=Run("run-1", NOW), audit_log=log)

    assert maintain(job, Progress(Console(file=io.StringIO()))) == dict.fromkeys(names, 1)

    for name in names:
        assert {r["as_of"] for r in lake.read(name).collect()} == {days[0], *days[2:]}, "a month's first day stays"


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
