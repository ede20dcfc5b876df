from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.tables.silver import SUBJECTS
from pipelines.silver.rejects import reject_subjects
from pipelines.silver.rules import FeedRules
from pipelines.silver.visitors import conform_visitor_events
from tests.support.rows import rows
from tests.support.segment_worlds import SHOP, World

pytestmark = pytest.mark.spark

WEB = FeedRules("web", "events", SHOP, timezone="America/New_York", is_sample=True)
RAW = "bronze.raw_visitor_events"


def raw(n: int, kind: str, at: datetime, visitor: str = "v", delivery: int = 1, **more: Any) -> dict[str, Any]:
    origin = {"source": WEB.source, "feed": WEB.feed, "batch_id": delivery, "delivery_seq": delivery}
    told = {"event_id": f"{n:04}", "visitor_id": visitor, "event_type": kind, "happened_at": at}
    return origin | told | {"row_number": n, "row_hash": 100 * delivery + n} | more


def conform(spark: SparkSession, delivered: list[Any], new: list[Any] | None = None) -> DataFrame:
    changed = rows(spark, RAW, new if new is not None else delivered).withColumn("_deleted", F.lit(False))
    previous = None if new is None else rows(spark, "silver.visitor_event")
    return conform_visitor_events(rows(spark, RAW, delivered), changed, sources=(WEB,), previous=previous)


def test_events_before_and_after_a_login_are_the_customers_from_the_day_it_is_known(spark: SparkSession) -> None:
    at = datetime(2018, 1, 10, 2)  # still the 9th in New York
    delivered = [
        raw(1, " Cart_Add ", at, email=" Ann@Example.COM ", product_id="p1"),
        raw(2, "login", at + timedelta(days=3), customer_id=" 7 "),
        raw(3, "visit", at + timedelta(days=4)),
        raw(4, "login", at + timedelta(days=5), customer_id="8"),
        raw(5, "visit", at + timedelta(days=6)),
        raw(6, "visit", at, "other"),
        raw(1, "visit", at, delivery=2),
    ]
    made = conform(spark, delivered).orderBy("visitor_id", "event_id").collect()
    told = [(r.event_id, r.customer_id, r.known_on) for r in made if r.delivered_count and r.event_id != "0006"]
    assert told == [
        ("0001", "7", date(2018, 1, 12)),
        ("0002", "7", date(2018, 1, 12)),
        ("0003", "7", date(2018, 1, 13)),
        ("0004", "8", date(2018, 1, 14)),
        ("0005", "8", date(2018, 1, 15)),
    ]
    first = next(r for r in made if r.event_id == "0001")
    assert (first.event_type, first.happened_on, first.email, first.product_id) == (
        "cart_add",
        date(2018, 1, 9),
        "ann@example.com",
        "P1",
    )
    assert (first.delivered_count, first.delivered_hash, first.is_sample) == (2, 101 ^ 201, True)
    other = next(r for r in made if r.event_id == "0006")
    assert (other.customer_id, other.known_on) == (None, None)
    assert len(other.visitor_id) == 64
    assert other.visitor_id != first.visitor_id


def test_what_arrives_late_gives_what_all_at_once_gives(spark: SparkSession) -> None:
    world = World(random.Random(3))
    for _ in range(60):
        world.number += 1
        day = world.pick.randint(1, 20)
        world.click(world.pick.randrange(6), datetime(2018, 1, day, 15))
    clicks = [
        raw(n, c["event_type"], c["happened_at"], c["visitor_id"], 1 + n % 3, customer_id=c["customer_id"])
        for n, c in world.clicks.items()
    ]
    kept: dict[str, Any] = {}
    for delivery in (1, 2, 3):
        so_far = [c for c in clicks if c["delivery_seq"] <= delivery]
        new = [c for c in clicks if c["delivery_seq"] == delivery]
        made = conform(spark, so_far, new if delivery > 1 else None)
        kept |= {r.event_id: (r.customer_id, r.known_on) for r in made.collect()}
    # Nothing happens after midnight in New York that happened before it in UTC.
    assert kept == {c["event_id"]: (c["customer_id"], c["known_on"]) for c in world.visits().values()}


def test_what_cannot_be_an_event_is_refused_with_its_reason(spark: SparkSession) -> None:
    at = datetime(2018, 1, 10, 12)
    bad = [
        raw(1, "login", at),
        raw(2, "wink", at),
        raw(3, "visit", at, " "),
        raw(4, "visit", at, happened_at=None),
        raw(5, "visit", at),
        raw(6, "checkout", at, amount=Decimal(-1)),
        raw(7, "cart_add", at, quantity=Decimal(-1)),
    ]
    assert [r.event_id for r in conform(spark, bad).collect()] == ["0005"]
    frames = [rows(spark, f"bronze.raw_{s}", bad if s == "visitor_events" else []) for s in SUBJECTS]
    refused = reject_subjects(*frames, sources=(WEB,)).collect()
    assert {(r.row_number, *r.reasons) for r in refused} == {
        (1, "login_without_customer"),
        (2, "unknown_event"),
        (3, "missing_visitor_id"),
        (4, "missing_happened_at"),
        (6, "negative_amount"),
        (7, "negative_amount"),
    }
