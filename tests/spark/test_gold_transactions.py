"""Lines in the base currency, as rates and the base itself become known and change."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.bronze.sources import Sources
from pipelines.gold.accounts import build_dim_account
from pipelines.gold.transactions import build_fact_transactions
from tests.support.feeds import make_source
from tests.support.rows import rows

pytestmark = pytest.mark.spark

LINE, RATE, FACT = "silver.transaction_line", "gold.ref_exchange_rates", "gold.fact_transactions"


def line(n: int, day: int, currency: str = "NZD", **more: Any) -> dict[str, Any]:
    usual = {
        "transaction_id": n,
        "merchant_id": "shop",
        "txn_type": "sale",
        "sold_at": datetime(2024, 1, day, 12),
        "sold_on": date(2024, 1, day),
        "quantity": Decimal(1),
        "amount": Decimal("10.01"),
        "currency": currency,
        "_deleted": False,
    }
    return usual | more


def rate(day: int, value: str, pair: str = "NZD-EUR", **more: Any) -> dict[str, Any]:
    one, other = pair.split("-")
    return {"from_currency": one, "to_currency": other, "valid_from": date(2024, 1, day), "rate": Decimal(value)} | more


def build(
    spark: SparkSession,
    lines: list[dict[str, Any]],
    rates: list[dict[str, Any]],
    held: DataFrame | None = None,
    *,
    changed: list[dict[str, Any]] | None = None,
) -> DataFrame:
    changes = rows(spark, LINE, lines)
    if not lines:
        changes = changes.withColumn("_deleted", F.lit(False))
    moved = rows(spark, RATE, rates if changed is None else changed).withColumn("_deleted", F.lit(False))
    made = build_fact_transactions(changes, rows(spark, RATE, rates), moved, base_currency="EUR", previous=held)
    told = made.collect()
    assert len({r["transaction_id"] for r in told}) == len(told)
    return rows(spark, FACT, [{c: v for c, v in r.asDict().items() if c != "_deleted"} for r in told])


def amounts(facts: DataFrame) -> dict[int, Decimal | None]:
    return {r["transaction_id"]: r["base_amount"] for r in facts.collect()}


def test_the_rate_in_force_on_the_business_day_counts(spark: SparkSession) -> None:
    lines = [line(1, 4), line(2, 5), line(3, 9), line(4, 10), line(5, 4, "EUR"), line(6, 9, "USD")]
    made = build(spark, lines, [rate(5, "0.5"), rate(10, "0.55")])
    assert amounts(made) == {
        1: None,
        2: Decimal("5.01"),  # 5.005, half away from zero
        3: Decimal("5.01"),
        4: Decimal("5.51"),
        5: Decimal("10.01"),
        6: None,
    }


def test_a_pair_that_is_told_the_other_way_only_is_divided_by(spark: SparkSession) -> None:
    both = [rate(1, "0.5"), rate(2, "4", "EUR-NZD"), rate(3, "0.1", is_sample=True)]
    lines = [line(1, 4), line(2, 4, "USD"), line(3, 6, "USD"), line(4, 4, "EUR"), line(5, 4, "GBP")]
    held = build(spark, lines, [*both, rate(4, "2", "EUR-USD")])
    told = {
        1: Decimal("5.01"),  # neither by the way back nor by a sample, though both are newer
        2: Decimal("5.01"),  # 5.005, half away from zero
        3: Decimal("5.01"),
        4: Decimal("10.01"),
        5: None,
    }
    assert amounts(held) == told
    late = rate(5, "1.6", "EUR-USD")
    made = build(spark, [], [*both, rate(4, "2", "EUR-USD"), late], held, changed=[late])
    assert amounts(made) == {3: Decimal("6.26")}  # 6.25625


def test_a_rate_that_comes_late_or_is_corrected_reaches_lines_that_stay(spark: SparkSession) -> None:
    lines = [line(1, 4), line(2, 5), line(3, 10), line(4, 4, "EUR")]
    held = build(spark, lines, [rate(5, "0.5"), rate(10, "0.55")])
    rates = [rate(1, "0.4"), rate(5, "0.6"), rate(10, "0.55")]
    changed = [line(2, 10), line(9, 5)]
    made = build(spark, changed, rates, held, changed=rates[:2])
    assert amounts(made) == {1: Decimal("4.00"), 2: Decimal("5.51"), 9: Decimal("6.01")}


def test_a_rate_that_is_gone_leaves_lines_without_an_amount(spark: SparkSession) -> None:
    held = build(spark, [line(1, 5), line(2, 5, "EUR")], [rate(5, "0.5")])
    assert amounts(build(spark, [], [], held, changed=[rate(5, "0.5")])) == {1: None}


def test_nothing_is_made_again_while_rates_stay_or_come_to_the_same(spark: SparkSession) -> None:
    held = build(spark, [line(1, 5), line(2, 4)], [rate(5, "0.5")])
    assert amounts(build(spark, [], [rate(5, "0.5")], held)) == {}
    # Those of another rate are not even looked at.
    assert amounts(build(spark, [], [rate(5, "0.7")], held, changed=[])) == {}


def test_a_customer_called_guest_has_an_account_beside_that_of_the_guests(spark: SparkSession) -> None:
    held = build(spark, [line(1, 5, customer_id="guest"), line(2, 5, customer_id=None)], [])
    booked = {r["transaction_id"]: r["account_id"] for r in held.collect()}
    assert booked == {1: "shop:guest", 2: "shop/guest"}
    source = make_source("x.csv")
    sources = Sources(conf_dir=Path(), sources=(source,))
    made = build_dim_account(
        rows(spark, "silver.customer", [{"merchant_id": "shop", "customer_id": "guest"}]), sources=sources
    )
    assert {r["account_id"]: r["account_type"] for r in made.collect()} == {
        "shop:guest": "loyalty",
        "shop/guest": "guest",
    }
