"""The gate around a publish: what it stops, what it lets through, and what it leaves behind."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse import runner
from lakehouse.declare import table_of
from lakehouse.errors import QualityError, SettingsError, StepFailed
from lakehouse.lake import Lake, WriteResult
from lakehouse.quality import quality_gate
from lakehouse.quality_rules import ExpectationRule, QualityRules, TableRules
from lakehouse.runner import Run, run_steps
from lakehouse.steps import Step, plan_steps
from tests.support.rows import rows

CONSENT = "silver.consent"
# An id that reads like a time of an impossible zone, as one in ten does.
RUN = Run("20261127T115811-2560ad", datetime.fromisoformat("2026-01-01"), {})
SECRET = "customer-4711"


def rules(*expectations: dict[str, Any], when: str = "before_publish") -> QualityRules:
    made = tuple(ExpectationRule.model_validate(e) for e in expectations)
    return QualityRules({CONSENT: TableRules.model_validate({"when": when, "expectations": made})})


def publish(lake: Lake, gate: Any, frame: DataFrame) -> int:
    """What the runner does around a write."""
    step = Step("test:consents", (table_of(CONSENT),), ())
    return runner._publish(lake, step, RUN, table_of(CONSENT), frame, {}, gate).rows_written


def consents(lake: Lake, *cases: dict[str, Any]) -> DataFrame:
    return rows(lake.spark, CONSENT, [{"merchant_id": "m", "channel": "email", **c} for c in cases])


def results(lake: Lake) -> dict[str, tuple[Any, ...]]:
    found = lake.read("gov.fact_data_quality").where(f"dataset_id = '{CONSENT}'")
    columns = ("check_name", "check_status", "severity", "element_count", "unexpected_count")
    return {r[0]: tuple(r)[1:] for r in found.select(*columns).collect()}


def everything_written(lake: Lake) -> str:
    pages = lake.settings.data_dir / "_quality"
    return "".join(p.read_text(encoding="utf-8") for p in pages.rglob("*") if p.suffix in (".html", ".json"))


def test_a_blocking_failure_publishes_nothing_and_is_recorded_without_a_value(lake: Lake) -> None:
    gate = quality_gate(lake, rules())
    assert publish(lake, gate, consents(lake, {"customer_id": "1"})) == 1
    gate.finish()
    again = quality_gate(lake, rules())
    twice = consents(lake, {"customer_id": SECRET}, {"customer_id": SECRET}, {"customer_id": "2", "channel": "fax"})
    with pytest.raises(QualityError, match=r"channel_values \(1 of 3 rows\); key_unique \(1 of 3 rows\)") as raised:
        publish(lake, again, twice)
    again.finish()
    assert [r["customer_id"] for r in lake.read(CONSENT).collect()] == ["1"]
    bad = lake.read("gov.fact_data_quality").where("check_status != 'passed'").collect()
    assert sorted((r["check_name"], r["element_count"], r["unexpected_count"]) for r in bad) == [
        ("channel_values", 3, 1),
        ("key_unique", 3, 1),
    ]
    assert SECRET not in str(raised.value) + str(bad) + everything_written(lake)


def test_conditions_that_cannot_be_asked_of_their_table_are_told_before_a_step_runs(lake: Lake) -> None:
    conditions = {"one": "is_grantd", "two": "channel = (", "three": "channel"}
    wrong = ({"name": name, "condition": condition} for name, condition in conditions.items())
    with pytest.raises(SettingsError) as raised:
        quality_gate(lake, rules({"name": "fine", "condition": "is_granted"}, *wrong, when="while_writing"))
    said = str(raised.value)
    assert "conf/quality has 3 problem(s)" in said
    assert "silver.consent: one: " in said
    assert "`is_granted`" in said
    assert "silver.consent: two: " in said
    assert "silver.consent: three: " in said


def test_a_warning_is_recorded_and_published(lake: Lake) -> None:
    gate = quality_gate(
        lake,
        rules(
            {"name": "granted", "condition": "is_granted", "severity": "warning"},
            {"type": "expect_column_unique_value_count_to_be_between", "severity": "warning",
             "kwargs": {"column": "channel", "min_value": 2}},
            {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "merchant_id", "regex": "^m+$"}},
        ),
    )  # fmt: skip
    frame = consents(lake, {"customer_id": "1", "is_granted": False}, {"customer_id": "2", "is_granted": True})
    assert publish(lake, gate, frame) == 2
    gate.finish()
    found = results(lake)
    assert found["granted"] == ("failed", "warning", 2, 1)
    assert found["channel_column_unique_value_count_to_be_between"][:2] == ("failed", "warning")
    assert found["merchant_id_match_regex"] == ("passed", "blocking", 2, 0)
    assert found["key_unique"] == ("passed", "blocking", 2, 0)


def test_a_balance_that_does_not_hold_is_published_and_recorded(lake: Lake) -> None:
    gate, table = quality_gate(lake), table_of("gold.audit_recon")
    held = [{"subject": "products"}, {"subject": "transactions", "is_balanced": False}]
    frame = rows(lake.spark, table.name, [{"is_balanced": True, **r} for r in held])
    assert runner._publish(lake, Step("test:recon", (table,), ()), RUN, table, frame, {}, gate).rows_written == 2
    gate.finish()
    found = lake.read("gov.fact_data_quality").where("check_name = 'nothing_vanished'").collect()
    assert [(r["check_status"], r["severity"], r["unexpected_count"]) for r in found] == [("failed", "warning", 1)]


def test_rows_that_are_to_be_deleted_are_not_checked(lake: Lake) -> None:
    kept, gone = {"customer_id": "1"}, {"customer_id": "2", "channel": "fax", "_deleted": True}
    gates = [quality_gate(lake, rules(when=when)) for when in ("before_publish", "while_writing")]
    # The second write finds everything as it is.
    assert [publish(lake, gate, consents(lake, kept, gone)) for gate in gates] == [1, 0]
    assert [r["customer_id"] for r in lake.read(CONSENT).collect()] == ["1"]


@pytest.mark.parametrize("bad", [{"channel": "fax"}, {"merchant_id": "x"}])
def test_while_writing_a_bad_row_ends_the_write_and_is_named(lake: Lake, bad: dict[str, Any]) -> None:
    gate = quality_gate(lake, rules({"name": "ours", "condition": "merchant_id = 'm'"}, when="while_writing"))
    name = "channel_values" if "channel" in bad else "ours"
    publish(lake, gate, consents(lake, {"customer_id": "1"}))
    for customer in ("2", "1"):  # an insert, and a merge into an existing row
        with pytest.raises(QualityError, match=name) as raised:
            publish(lake, gate, consents(lake, {"customer_id": customer, **bad}))
        assert "fax" not in str(raised.value)
    gate.finish()
    assert lake.count(CONSENT) == 1
    failed = lake.read("gov.fact_data_quality").where("check_status = 'failed'")
    assert [(r["check_name"], r["moment"]) for r in failed.collect()] == [(name, "while_writing")] * 2


def test_while_writing_a_row_that_a_filter_removes_is_not_judged(lake: Lake, tmp_path: Path) -> None:
    gate = quality_gate(lake, rules(when="while_writing"))
    # The filter is null for the row without a customer, and `null AND ...` evaluates what stands beside it.
    consents(lake, {"customer_id": "b"}, {"customer_id": None}).write.parquet(str(tmp_path / "both"))
    kept = lake.spark.read.parquet(str(tmp_path / "both")).where(F.col("customer_id") > F.lit("a"))
    watched = gate.watch(RUN, table_of(CONSENT), kept.select("*", F.length("customer_id").alias("n")).drop("n"))
    assert [r["customer_id"] for r in watched.collect()] == ["b"]


def test_while_writing_warnings_are_counted_along_the_way(lake: Lake) -> None:
    mostly = {"type": "expect_column_values_to_be_in_set", "severity": "warning", "name": "by_mail",
              "kwargs": {"column": "channel", "value_set": ["email"], "mostly": 0.5}}  # fmt: skip
    granted = {"name": "granted", "condition": "is_granted", "severity": "warning"}
    gate = quality_gate(lake, rules(mostly, granted, when="while_writing"))
    cases = ({"customer_id": "1", "is_granted": True}, {"customer_id": "2"}, {"customer_id": "3", "channel": "sms"})
    publish(lake, gate, consents(lake, *cases))
    publish(lake, gate, consents(lake, {"customer_id": "1", "is_granted": False}))
    gate.finish()
    found = lake.read("gov.fact_data_quality").where("check_name in ('by_mail', 'granted')").orderBy("checked_ts")
    counted = [(r["check_name"], r["check_status"], r["element_count"], r["unexpected_count"]) for r in found.collect()]
    assert counted == [
        ("by_mail", "passed", 3, 1),
        ("granted", "failed", 3, 2),
        ("by_mail", "passed", 1, 0),
        ("granted", "failed", 1, 1),
    ]
    assert results(lake)["customer_id_not_null"][0] == "passed"


def test_while_writing_rows_that_are_to_be_deleted_are_not_counted(lake: Lake) -> None:
    mostly = {"type": "expect_column_value_lengths_to_be_between", "severity": "warning", "name": "short",
              "kwargs": {"column": "customer_id", "min_value": 2, "max_value": 3, "mostly": 0.6}}  # fmt: skip
    gate = quality_gate(lake, rules(mostly, when="while_writing"))
    gone = [{"customer_id": f"gone-{n}", "_deleted": True} for n in range(3)]
    publish(lake, gate, consents(lake, {"customer_id": "long-1"}, {"customer_id": "ok"}, *gone))
    gate.finish()
    assert results(lake)["short"] == ("failed", "warning", 2, 1)


def test_delta_itself_refusing_a_row_reads_like_a_failed_check(lake: Lake) -> None:
    class Blind:
        """A gate that does not look, so that the table's own constraint is what stops the row."""

        def __init__(self) -> None:
            self._gate = quality_gate(lake, rules())
            self.published = self._gate.published
            self.refused = self._gate.refused

        def watch(self, run: Run, table: Any, frame: DataFrame) -> DataFrame:
            return frame

        def before_publish(self, run: Run, table: Any) -> None:
            return None

    with pytest.raises(QualityError, match="channel_values") as raised:
        publish(lake, Blind(), consents(lake, {"customer_id": "1", "channel": "fax"}))
    assert "fax" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_unknown_is_no_failure_of_a_closed_set_but_a_value_outside_is(lake: Lake) -> None:
    which = "gold.customer_segment_history"
    gate = quality_gate(lake, QualityRules())
    lake.write(which, rows(lake.spark, which, [{"exit_reason": None}]), audit=gate.before_publish(RUN, table_of(which)))
    assert lake.count(which) == 1


def test_a_check_only_great_expectations_can_measure_runs_on_the_frame(lake: Lake) -> None:
    longest = {"type": "expect_column_most_common_value_to_be_in_set", "severity": "warning", "name": "usual",
               "kwargs": {"column": "channel", "value_set": ["sms"]}}  # fmt: skip
    gate = quality_gate(lake, rules(longest))
    publish(lake, gate, consents(lake, {"customer_id": "1"}))
    gate.finish()
    assert results(lake)["usual"][:2] == ("failed", "warning")


def test_the_pages_show_each_table_once_with_its_latest_results(lake: Lake) -> None:
    for customer in ("1", "2"):
        gate = quality_gate(lake, rules())
        publish(lake, gate, consents(lake, {"customer_id": customer}))
        gate.finish()
    site: Path = lake.settings.data_dir / "_quality" / "site"
    assert len(list((site / "validations").rglob("*.html"))) == 1
    assert "silver.consent" in (site / "index.html").read_text(encoding="utf-8")


def test_a_run_that_the_gate_stops_says_why_and_keeps_the_results(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = consents(lake, {"customer_id": "1", "channel": "fax"})
    step = Step("lakehouse.quality:quality_gate", (table_of(CONSENT),), ())
    monkeypatch.setattr(Step, "function", lambda self: lambda: frame)
    gate = quality_gate(lake, rules())
    with pytest.raises(StepFailed, match="channel_values") as stopped:
        run_steps(lake, [step], RUN, audit=gate)
    assert stopped.value.exit_code == QualityError.exit_code
    assert "Start the run again" not in str(stopped.value)
    gate.finish()
    assert results(lake)["channel_values"][0] == "failed"


def test_what_a_step_reads_of_itself_is_written_last(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run that dies between its tables is repeated from what it wrote, and counts nobody as entered."""
    step = next(s for s in plan_steps() if s.producer == "segments.membership:plan_membership")
    made = {o.name: lake.empty(o) for o in step.outputs}
    written: list[str] = []

    def publish_one(self: Lake, which: Any, frame: DataFrame, **_: Any) -> WriteResult:
        written.append(table_of(which).name)
        return WriteResult(0, 0, 0)

    monkeypatch.setattr(Step, "function", lambda self: lambda *frames: made)
    monkeypatch.setattr(Lake, "write", publish_one)
    run_steps(lake, [step], RUN)
    about = [name for name in written if name in made]
    assert about == ["gold.customer_segment_refresh", "gold.customer_membership"]
