"""What a step is given of its last run."""

from __future__ import annotations

from datetime import date

import pytest
from pyspark.sql import DataFrame

from lakehouse.lake import Lake
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
