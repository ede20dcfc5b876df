"""What a step is given of its last run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame

from lakehouse.declare import table_of
from lakehouse.errors import StepFailed
from lakehouse.lake import Lake
from lakehouse.records import AuditLog, write_rows
from lakehouse.runner import Run, run_steps
from lakehouse.steps import Step, plan_steps
from tests.support.rows import rows

pytestmark = [pytest.mark.spark, pytest.mark.delta]

FEATURES = "features.build:build_customer_features"


def test_a_slice_that_is_gone_or_was_empty_is_not_carried_on(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes a run has seen are in no slice then, so the next one is made of everything."""
    step = next(s for s in plan_steps() if s.producer == FEATURES)
    given: list[bool] = []
    customers = [1, 2]

    def build(*frames: DataFrame, as_of: date, previous: DataFrame | None) -> DataFrame:
        given.append(previous is not None)
        scores = {"r_score": 1, "f_score": 1, "m_score": 1}
        made = [{"merchant_id": "m", "customer_key": k, "as_of": as_of} | scores for k in customers]
        return rows(lake.spark, "feature.customer", made)

    lake.ensure("gold.fact_transactions")  # nothing is carried on where nothing was read
    monkeypatch.setattr(Step, "function", lambda self: build)

    def run(day: date) -> str:
        return run_steps(lake, [step], Run.begin(as_of=day))[0].status

    assert run(date(2024, 7, 1)) == run(date(2024, 7, 2)) == "succeeded"
    assert given == [False, True]
    assert run(date(2024, 7, 2)) == "up to date"

    customers.clear()
    assert run(date(2000, 1, 1)) == "succeeded"
    assert run(date(2000, 1, 1)) == "up to date", "it was empty before, and would be again"
    customers.append(3)
    run(date(2024, 7, 3))
    assert given == [False, True, True, False]

    run(date(2024, 7, 4))
    lake.delete("feature.customer", "as_of = DATE '2024-07-04'")
    run(date(2024, 7, 5))
    assert given[4:] == [True, False]


BALANCES = "pipelines.gold.accounts:build_balance_snapshots"
DAILY = "pipelines.gold.daily:build_daily_sales"
FACTS = "gold.fact_transactions"


def test_a_full_pass_takes_away_what_it_does_not_make_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed code names a thing otherwise, or no longer accepts it: nothing else would ever take the old row away."""
    step = next(s for s in plan_steps() if s.producer == BALANCES)
    accounts = ["m:guest", "m:1"]
    given: list[bool] = []

    def build(facts: DataFrame, changed: DataFrame, *, previous: DataFrame | None) -> DataFrame:
        given.append(previous is not None)
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance(a) for a in accounts])

    lake.ensure("gold.fact_transactions")  # nothing is carried on where nothing was read
    monkeypatch.setattr(Step, "function", lambda self: build)

    def run(**options: bool) -> set[str]:
        run_steps(lake, [step], Run.begin(), **options)
        held = lake.read("gold.fact_balance_snapshots").select("account_id").collect()
        return {r[0] for r in held}

    assert run() == {"m:guest", "m:1"}
    accounts[:] = ["m/guest", "m:1"]
    assert run(force=True) == {"m/guest", "m:1"}
    accounts[:] = ["m:1"]
    lake.write("gold.fact_transactions", rows(lake.spark, "gold.fact_transactions", [{"transaction_id": 1}]))
    assert run() == {"m/guest", "m:1"}, "what follows changes says itself what is gone"
    accounts.clear()
    assert run(force=True) == set()
    assert given == [False, False, True, False]


def test_a_full_pass_keeps_what_was_so_on_other_days(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    step = next(s for s in plan_steps() if s.producer == BALANCES)

    def build(facts: DataFrame, changed: DataFrame, *, as_of: date) -> DataFrame:
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance("m:1") | {"month_end": as_of}])

    monkeypatch.setattr(Step, "function", lambda self: build)
    for day in (date(2024, 6, 30), date(2024, 7, 31)):
        run_steps(lake, [step], Run.begin(as_of=day), force=True)
    assert lake.count("gold.fact_balance_snapshots") == 2


def test_a_full_pass_keeps_what_was_made_of_rows_past_their_retention(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = next(s for s in plan_steps() if s.producer == BALANCES)
    accounts = ["m:1", "m:2"]

    def build(facts: DataFrame, changed: DataFrame, *, previous: DataFrame | None) -> DataFrame:
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance(a) for a in accounts])

    monkeypatch.setattr(Step, "function", lambda self: build)
    lake.settings = lake.settings.model_copy(update={"retention_days": {"gold.fact_transactions": 730}})
    run_steps(lake, [step], Run.begin())
    accounts.pop()
    run_steps(lake, [step], Run.begin(), force=True)
    assert lake.count("gold.fact_balance_snapshots") == 2


def test_a_step_begins_anew_where_its_changes_were_vacuumed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that has not run for longer than changes are kept would fail with every run to come."""
    step = next(s for s in plan_steps() if s.producer == BALANCES)
    seen: list[tuple[bool, int]] = []

    def build(facts: DataFrame, changed: DataFrame, *, previous: DataFrame | None) -> DataFrame:
        seen.append((previous is not None, changed.count()))
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance("m:1")])

    def sell(transaction: int, amount: int) -> None:
        lake.write(FACTS, rows(lake.spark, FACTS, [{"transaction_id": transaction, "amount": Decimal(amount)}]))

    monkeypatch.setattr(Step, "function", lambda self: build)
    sell(1, 1)
    sell(2, 2)
    run_steps(lake, [step], Run.begin())
    sell(2, 3)
    run_steps(lake, [step], Run.begin())
    sell(1, 4)
    for told in (lake.path(FACTS) / "_change_data").iterdir():
        told.unlink()
    run_steps(lake, [step], Run.begin())
    sell(2, 5)
    run_steps(lake, [step], Run.begin())
    assert seen == [(False, 2), (True, 2), (False, 2), (True, 2)], "as they were and as they are"


class Killed(AuditLog):
    """What is left of a run that dies before the rows it held back are written."""

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        pass

    def begin(self, rows: list[dict[str, Any]]) -> None:
        write_rows(self._lake, "ingest.audit_transforms", rows)


def test_rows_of_a_run_that_was_killed_do_not_stay_when_its_definition_is_put_back(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = next(s for s in plan_steps() if s.producer == BALANCES)
    given: list[bool] = []

    def build(facts: DataFrame, changed: DataFrame, *, account: str, previous: DataFrame | None) -> DataFrame:
        given.append(previous is not None)
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance(account)])

    lake.ensure(FACTS)
    monkeypatch.setattr(Step, "function", lambda self: build)

    def run(account: str, log: AuditLog | None = None) -> tuple[str, set[str]]:
        status = run_steps(lake, [step], Run.begin(account=account), log=log)[0].status
        held = lake.read("gold.fact_balance_snapshots").select("account_id").collect()
        return status, {r[0] for r in held}

    assert run("a") == ("succeeded", {"a"})
    run("b", Killed(lake))
    assert run("a") == ("succeeded", {"a"}), "what b made is gone"
    assert run("a") == ("up to date", {"a"})
    run("a", Killed(lake))
    assert run("a") == ("up to date", {"a"})
    assert given == [False, True, False]


def test_rows_published_before_another_table_was_refused_do_not_stay_when_the_definition_is_put_back(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    balances, daily = "gold.fact_balance_snapshots", "gold.fact_daily_sales"
    known = next(s for s in plan_steps() if s.producer == BALANCES)
    step = replace(known, outputs=(*known.outputs, table_of(daily)))

    def build(facts: DataFrame, changed: DataFrame, *, account: str) -> dict[str, DataFrame]:
        second = daily if account == "a" else balances  # rows of another table are refused
        spark = facts.sparkSession
        return {balances: rows(spark, balances, [_balance(account)]), daily: rows(spark, second, [])}

    lake.ensure(FACTS)
    monkeypatch.setattr(Step, "function", lambda self: build)

    def run(account: str) -> str:
        return run_steps(lake, [step], Run.begin(account=account))[0].status

    run("a")
    with pytest.raises(StepFailed):
        run("b")
    assert lake.count(balances) == 2
    assert run("a") == "succeeded"
    assert lake.read(balances).select("account_id").collect() == [("a",)]
    assert run("a") == "up to date"


def test_what_was_tried_and_undone_is_not_the_last_that_is_known_of_a_step(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = next(s for s in plan_steps() if s.producer == BALANCES)

    def build(facts: DataFrame, changed: DataFrame, *, account: str) -> DataFrame:
        if account == "bad":
            raise RuntimeError("no")
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance(account)])

    lake.ensure(FACTS)
    monkeypatch.setattr(Step, "function", lambda self: build)

    def run(account: str) -> list[str]:
        return [r.status for r in run_steps(lake, [step], Run.begin(account=account))]

    run("a")
    with pytest.raises(StepFailed):
        run("bad")
    assert run("a") == run("a") == ["up to date"]
    audits = lake.read("ingest.audit_transforms").orderBy("ended_at").select("status", "rows_written").collect()
    assert [tuple(r) for r in audits] == [("succeeded", 1), ("started", None), ("failed", None), ("succeeded", 0)]


def test_an_interrupted_run_keeps_what_it_did(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    step = next(s for s in plan_steps() if s.producer == BALANCES)

    def build(facts: DataFrame, changed: DataFrame) -> DataFrame:
        return rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance("m:1")])

    def interrupted(*futures: object, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Step, "function", lambda self: build)
    with monkeypatch.context() as patched:
        patched.setattr("lakehouse.runner.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_steps(lake, [step], Run.begin())
    assert run_steps(lake, [step], Run.begin())[0].status == "up to date"


def test_what_succeeded_beside_a_failure_has_its_lineage(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [s for s in plan_steps() if s.producer in (BALANCES, DAILY)]

    def build(self: Step) -> Callable[..., DataFrame]:
        if self.producer == DAILY:
            raise RuntimeError("no")
        return lambda facts, changed: rows(facts.sparkSession, "gold.fact_balance_snapshots", [_balance("m:1")])

    monkeypatch.setattr(Step, "function", build)
    with pytest.raises(StepFailed):
        run_steps(lake, sorted(chosen, key=lambda s: s.producer == DAILY), Run.begin())
    edges = lake.read("gov.stage_lineage").select("downstream").collect()
    assert {e["downstream"] for e in edges} == {"gold.fact_balance_snapshots"}


def _balance(account: str) -> dict[str, object]:
    return {"account_id": account, "merchant_id": "m", "currency": "EUR", "month_end": date(2024, 6, 30)}
