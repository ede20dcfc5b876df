"""Settlements and exchange rates: which delivery wins, what is refused, and that every row is accounted for."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from lakehouse.tables.gold_finance import RECONCILED
from lakehouse.tables.silver import SUBJECTS
from pipelines.bronze.load_sources import load_sources
from pipelines.gold.daily import build_calendar
from pipelines.gold.finance_conf import load_finance
from pipelines.gold.rates import build_exchange_rates
from pipelines.gold.recon import reconcile_deliveries
from pipelines.gold.registers import build_channels, build_registers
from pipelines.gold.settlements import conform_settlements
from pipelines.silver.rejects import reject_subjects
from pipelines.silver.rules import FeedRules
from tests.support.rows import rows

pytestmark = pytest.mark.spark

CONF = Path(__file__).parents[2] / "conf"
BANK = FeedRules("bank", "settled", "shop")
DESK = FeedRules("desk", "rates", None)
RAW_SETTLEMENT, RAW_RATE = "bronze.raw_settlements", "bronze.raw_exchange_rates"


def delivered(rules: FeedRules, n: int, delivery: int, **values: Any) -> dict[str, Any]:
    """A delivered row; what is delivered first is loaded last, as a file that arrives late is."""
    usual = {
        "source": rules.source,
        "feed": rules.feed,
        "file_id": f"file-{delivery}",
        "delivery": f"day-{delivery}",
        "delivery_seq": delivery,
        "batch_id": 10 - delivery,
        "loaded_at": datetime(2024, 6, 10 - delivery),
        "row_number": n,
        "row_hash": 1000 * delivery + n,
    }
    return usual | values


def settled(n: int, delivery: int, number: str | None = "s1", **values: Any) -> dict[str, Any]:
    usual = {
        "settlement_id": number,
        "settled_on": date(2024, 5, 1),
        "gross_amount": Decimal(10),
        "net_amount": Decimal(9),
        "currency": " eur",
    }
    return delivered(BANK, n, delivery, **usual | values)


def rate(n: int, delivery: int, value: str | None, day: int = 1) -> dict[str, Any]:
    values = {"from_currency": "usd ", "to_currency": "EUR", "valid_on": date(2024, 5, day), "rate": value}
    return delivered(DESK, n, delivery, **values)


SETTLEMENTS = [
    settled(1, 1, channel=" Store", gross_amount=Decimal(1)),
    settled(2, 1, None),
    settled(3, 1, "s2", settled_on=None),
    settled(4, 1, "s2", net_amount=None),
    settled(5, 1, "s3", channel=" "),
    settled(6, 2, channel="Store", fee_amount=Decimal("0.50")),
]
RATES = [rate(1, 1, "0.9"), rate(2, 1, "n/a"), rate(3, 1, "-1"), rate(4, 1, "0.7", day=3), rate(5, 2, "0.8")]


def stage(spark: SparkSession, all_rows: list[dict[str, Any]], new: list[dict[str, Any]], held: Any) -> DataFrame:
    changes = rows(spark, RAW_SETTLEMENT, [r | {"_deleted": False} for r in new])
    return conform_settlements(rows(spark, RAW_SETTLEMENT, all_rows), changes, sources=[BANK], previous=held)


def test_the_later_delivery_of_a_settlement_wins_though_it_arrived_first(spark: SparkSession) -> None:
    made = {r["settlement_id"]: r for r in stage(spark, SETTLEMENTS, SETTLEMENTS, None).collect()}
    assert {n: (r["gross_amount"], r["fee_amount"], r["channel_id"], r["currency"]) for n, r in made.items()} == {
        "s1": (Decimal(10), Decimal("0.50"), "store", "EUR"),
        "s3": (Decimal(10), Decimal(1), "unknown", "EUR"),
    }
    held = rows(spark, "silver.stage_settlements", [r.asDict() for r in made.values()])
    late = stage(spark, SETTLEMENTS, SETTLEMENTS[:1], held).collect()
    assert [r.asDict() for r in late] == [made["s1"].asDict()]


def test_the_later_delivery_of_a_rate_wins_and_holds_until_the_next(spark: SparkSession) -> None:
    made = build_exchange_rates(rows(spark, RAW_RATE, RATES), sources=[DESK]).orderBy("valid_from").collect()
    assert [(r["from_currency"], r["valid_from"].day, r["valid_to"], r["rate"]) for r in made] == [
        ("USD", 1, date(2024, 5, 3), Decimal("0.8")),
        ("USD", 3, None, Decimal("0.7")),
    ]


def test_a_real_rate_goes_before_a_sample_of_its_day_and_of_later_ones(spark: SparkSession) -> None:
    made_up = FeedRules("made_up", "rates", None, is_sample=True)
    named = {"source": made_up.source, "feed": made_up.feed}
    samples = [rate(n, 9, "2", day=n) | named for n in (1, 3, 5)]
    real = [rate(n, 1, "1", day=n) for n in (3, 4)]
    made = build_exchange_rates(rows(spark, RAW_RATE, [*samples, *real]), sources=[DESK, made_up])
    columns = ("is_sample", "valid_to", "delivered_count")
    assert {r["valid_from"].day: tuple(r[c] for c in columns) for r in made.collect()} == {
        1: (True, date(2024, 5, 3), 1),
        3: (False, date(2024, 5, 4), 2),
        4: (False, None, 1),
        5: (True, date(2024, 5, 5), 1),
    }


def test_a_channel_that_is_sold_on_but_not_configured_is_there(spark: SparkSession) -> None:
    finance = load_finance(CONF)
    sales = rows(spark, "gold.fact_daily_sales", [{"channel_id": c} for c in ("app", "store", "app")])
    settlements = rows(spark, "silver.stage_settlements", [{"channel_id": "kiosk"}])
    made = {
        r["channel_id"]: (r["channel_name"], r["is_online"])
        for r in build_channels(sales, settlements, finance=finance).collect()
    }
    assert made == {c.id: (c.name, c.is_online) for c in finance.channels} | {
        "app": ("app", None),
        "kiosk": ("kiosk", None),
    }


def test_retailers_are_told_as_their_sources_describe_them(spark: SparkSession) -> None:
    sources = load_sources(CONF, {})
    made = build_registers(rows(spark, "ingest.raw_records", []), sources=sources, finance=load_finance(CONF))
    found = {r["merchant_id"]: r for r in made["gold.dim_merchant"].collect()}
    shop = found["complete_journey"]
    assert (shop["merchant_name"], shop["opened_on"]) == ("The Complete Journey", date(2017, 1, 1))


def test_days_around_new_year_tell_the_year_of_their_week(spark: SparkSession) -> None:
    sales = rows(spark, "gold.fact_daily_sales", [{"business_date": date(y, 6, 1)} for y in (2020, 2025)])
    days = build_calendar(sales).collect()
    assert len(days) == (date(2026, 1, 1) - date(2020, 1, 1)).days
    for r in days:
        d = r["calendar_date"]
        assert (r["iso_year"], r["iso_week"], r["day_of_week"]) == tuple(d.isocalendar())
        assert r["year"] == d.year


def test_every_row_is_accepted_refused_with_a_reason_or_a_duplicate(spark: SparkSession) -> None:
    given = {RAW_SETTLEMENT: SETTLEMENTS, RAW_RATE: RATES}
    changed = [
        rows(spark, name, [r | {"_deleted": False} for r in given.get(name, ())])
        for name in (f"bronze.raw_{subject}" for subject in SUBJECTS)
    ]
    rules = [BANK, DESK]
    rejects = reject_subjects(*changed, sources=rules).collect()
    assert {(r["subject"], r["row_number"]): r["reasons"] for r in rejects} == {
        ("settlements", 2): ["missing_settlement_id"],
        ("settlements", 3): ["missing_settled_on"],
        ("settlements", 4): ["missing_amount"],
        ("exchange_rates", 2): ["unusable_rate"],
        ("exchange_rates", 3): ["unusable_rate"],
    }
    staged = stage(spark, SETTLEMENTS, SETTLEMENTS, None).collect()
    rates = build_exchange_rates(rows(spark, RAW_RATE, RATES), sources=rules).collect()
    content = given | {
        "silver.subject_reject": [r.asDict() for r in rejects],
        "silver.stage_settlements": [r.asDict() for r in staged],
        "gold.ref_exchange_rates": [r.asDict() for r in rates],
        "ingest.raw_records": [
            {"source_system_id": "bank", "feed": "settled", "subject": "settlements", "rows_rejected": 7}
        ],
    }
    frames = [rows(spark, name, content.get(name, ())) for name in RECONCILED]
    told = reconcile_deliveries(*frames, sources=rules).collect()
    counts = ("delivered_rows", "accepted_rows", "duplicate_rows", "rejected_rows", "is_balanced", "unparsed_rows")
    assert {(r["subject"], r["merchant_id"]): tuple(r[c] for c in counts) for r in told} == {
        ("settlements", "shop"): (6, 2, 1, 3, True, 7),
        ("exchange_rates", "all"): (5, 2, 1, 2, True, 0),
    }
