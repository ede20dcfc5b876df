"""What makes a step run again."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from lakehouse.fingerprints import step_fingerprint
from lakehouse.steps import Step, plan_steps
from segments.language import Segment, feature, in_list

EVALUATION = next(s for s in plan_steps() if s.producer == "segments.evaluation:evaluate_customers")
GOOD = Segment("good", "Good", feature("frequency").at_least(3))


def mark(*segments: Segment) -> str:
    offered = {"segments": segments, "as_of": date(2024, 3, 31), "earlier": ()}
    return step_fingerprint(EVALUATION, EVALUATION.function(), offered)


def test_a_list_with_other_customers_is_another_definition() -> None:
    some, others = (Segment("vips", "VIPs", in_list("vip", who)) for who in ({"C1", "C2"}, {"C1", "C3"}))
    assert mark(GOOD, some) == mark(GOOD, replace(some))
    assert mark(GOOD, some) != mark(GOOD, others)


def test_what_a_refresh_writes_of_a_definition_counts() -> None:
    for other in ({"name": "Best"}, {"priority": 7}, {"is_active": False}, {"max_change_share": 0.5}):
        assert mark(GOOD) != mark(replace(GOOD, **other))  # type: ignore[arg-type]


def test_another_setting_that_a_step_asks_for_means_a_full_pass() -> None:
    priced = next(s for s in plan_steps() if s.producer == "pipelines.gold.transactions:build_fact_transactions")

    def of(step: Step, base: str) -> list[str]:
        return step_fingerprint(step, step.function(), {}, {"base_currency": base}).split(".")

    assert of(priced, "EUR") == of(priced, "EUR")
    assert of(priced, "EUR")[0] != of(priced, "USD")[0]
    assert of(EVALUATION, "EUR") == of(EVALUATION, "USD")
