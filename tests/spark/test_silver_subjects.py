"""What the smaller subjects have in common: which of several rows about one thing wins."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.columns import Pii
from lakehouse.declare import table_of
from lakehouse.tables.silver import SUBJECTS
from pipelines.silver.campaigns import conform_campaigns, conform_coupon_redemptions
from pipelines.silver.consents import conform_consents
from pipelines.silver.promotions import conform_promotions
from pipelines.silver.rejects import reject_subjects
from pipelines.silver.rules import FeedRules
from pipelines.silver.subjects import keep_latest
from segments.events import EVENTS
from tests.support.rows import rows

pytestmark = pytest.mark.spark


def test_days_told_by_bits_find_the_same_winners(spark: SparkSession) -> None:
    drawn = random.Random(7)
    content = [
        (drawn.choice("ab"), drawn.choice("xyz"), date(2024, 1, 1) + timedelta(weeks=drawn.randrange(140)), 1, 1, n,
         drawn.getrandbits(62))
        for n in range(400)
    ]  # fmt: skip
    schema = "product string, store string, week date, delivery_seq long, batch_id long, row_number long, row_hash long"
    given = spark.createDataFrame(content, schema)
    key = ("product", "store", "week")
    by_bits = keep_latest(given, *key, day="week").orderBy(*key).collect()
    plain = keep_latest(given, *key).orderBy(*key).collect()
    assert by_bits == plain
    assert len(plain) < len(content)
    assert sum(r.delivered_count for r in plain) == len(content)
    assert given.agg(F.bit_xor("row_hash").alias("h")).collect()[0].h == _folded(plain)


def test_weeks_of_two_years_that_are_both_numbered_from_one_stay_apart(spark: SparkSession) -> None:
    years = {"y2024": date(2024, 1, 1), "y2025": date(2024, 12, 30)}
    book = [FeedRules("shop", feed, "shop", week_one_starts_on=day) for feed, day in years.items()]
    placed = {"source": "shop", "product_id": "tea", "store_id": "s1", "display_code": "A"}
    said = [placed | {"feed": feed, "week": week, "delivery_seq": 1} for feed in years for week in (1, 2)]
    # Week 53 of the first year is week 1 of the second, which tells it later.
    said.append(placed | {"feed": "y2024", "week": 53, "delivery_seq": 0, "display_code": "0"})
    raw = rows(spark, "bronze.raw_promotions", said)

    def weeks(found: DataFrame) -> dict[date, tuple[int, int, bool]]:
        return {r.week_starts_on: (r.week, r.delivered_count, r.is_displayed) for r in found.collect()}

    twice = {date(2024, 12, 30): (1, 2, True)}
    assert weeks(conform_promotions(raw, raw, sources=book)) == twice | {
        date(2024, 1, 1): (1, 1, True),
        date(2024, 1, 8): (2, 1, True),
        date(2025, 1, 6): (2, 1, True),
    }
    changed = raw.where("feed = 'y2025' AND week = 1")
    held = rows(spark, "silver.promotion", [])
    assert weeks(conform_promotions(raw, changed, sources=book, previous=held)) == twice


def test_what_cannot_be_understood_ends_a_consent(spark: SparkSession) -> None:
    """A word nobody declared, no usable time, a time that has not come: each may mean that a person said no."""
    arrived = datetime(2024, 6, 1)
    feed = FeedRules("crm", "consents", "shop", timezone="UTC")

    def said(customer: str, *choices: tuple[str | None, datetime | None]) -> list[dict[str, Any]]:
        return [
            {"customer_id": customer, "channel": "ads", "status": status, "changed_at": at, "source": feed.source,
             "feed": feed.feed, "row_number": n, "row_hash": hash((customer, n)), "loaded_at": arrived,
             "delivery_seq": n, "batch_id": 1}
            for n, (status, at) in enumerate(choices)
        ]  # fmt: skip

    early, late, never = datetime(2024, 1, 1), datetime(2024, 4, 1), datetime(3000, 1, 1)
    raw = rows(
        spark,
        "bronze.raw_consents",
        [
            *said("word", ("granted", early), ("withdrawn", late)),
            *said("older word", ("withdrawn", early), ("granted", late)),
            *said("no time", ("granted", early), ("denied", None)),
            *said("granted without time", ("denied", early), ("granted", None)),
            *said("far ahead", ("denied", early), ("granted", never)),
            *said("denied far ahead", ("granted", early), ("denied", never)),
            *said("again", ("granted", early), ("nope", late), ("granted", datetime(2024, 5, 1))),
            *said("only words", ("maybe", late)),
        ],
    )
    found = conform_consents(raw, raw, sources=(feed,))
    assert {r.customer_id: r.is_granted for r in found.collect()} == {
        "word": False,
        "older word": True,
        "no time": False,
        "granted without time": False,
        "far ahead": False,
        "denied far ahead": False,
        "again": True,
    }
    landed = [raw if s == "consents" else rows(spark, f"bronze.raw_{s}") for s in SUBJECTS]
    refused = reject_subjects(*landed, sources=(feed,))
    accepted = found.agg(F.sum("delivered_count").alias("n"), F.bit_xor("delivered_hash").alias("h")).collect()[0]
    rejected = refused.agg(F.count("*").alias("n"), F.bit_xor("row_hash").alias("h")).collect()[0]
    whole = raw.agg(F.count("*").alias("n"), F.bit_xor("row_hash").alias("h")).collect()[0]
    assert (accepted.n + rejected.n, accepted.h ^ rejected.h) == (whole.n, whole.h)


def test_what_lies_further_ahead_than_a_wrong_clock_explains_is_refused(spark: SparkSession) -> None:
    """A profile of the year 3000 would hold for ever, whatever came later."""
    feed, arrived = FeedRules("crm", "feed", "shop"), datetime(2024, 6, 1)
    usual = {"source": feed.source, "feed": feed.feed, "loaded_at": arrived}
    usable: dict[str, tuple[str, dict[str, Any]]] = {
        "customers": ("changed_at", {"customer_id": "a"}),
        "consents": ("changed_at", {"customer_id": "a", "channel": "ads", "status": "granted"}),
        "coupon_redemptions": ("redeemed_at", {"customer_id": "a", "coupon_id": "b", "campaign_id": "c"}),
        "visitor_events": ("happened_at", {"visitor_id": "a", "event_id": "b", "event_type": "visit"}),
        "settlements": (
            "settled_on",
            {"settlement_id": "a", "gross_amount": Decimal(2), "net_amount": Decimal(1), "currency": "GBP"},
        ),
    }
    times = (datetime(2024, 5, 1), datetime(2024, 6, 3), datetime(2024, 6, 4), datetime(3000, 1, 1))
    delivered = {
        s: [
            usual | said | {column: at.date() if column.endswith("_on") else at, "row_number": n}
            for n, at in enumerate(times)
        ]
        for s, (column, said) in usable.items()
    }
    landed = [rows(spark, f"bronze.raw_{s}", delivered.get(s, [])) for s in SUBJECTS]
    found = reject_subjects(*landed, sources=(feed,)).collect()
    assert {(r.subject, r.row_number, *r.reasons) for r in found} == {
        (s, n, "time_in_future") for s in usable for n in (2, 3)
    }


def test_a_redemption_listed_again_in_a_delivery_is_a_copy_unless_the_feed_keeps_repeats(spark: SparkSession) -> None:
    feeds = (
        FeedRules("keeps", "feed", "keeps", repeats_are_lines=True),
        FeedRules("loose", "feed", "loose"),
        FeedRules("keyed", "feed", "keyed", key=("customer_id", "coupon_id", "campaign_id", "redeemed_at")),
    )
    usual: dict[str, Any] = {"feed": "feed", "customer_id": "a", "coupon_id": "b", "campaign_id": "c"}
    usual |= {"redeemed_at": datetime(2024, 5, 1), "loaded_at": datetime(2024, 5, 2)}
    # The third row differs from the others in a cell that is no part of a redemption.
    delivered = [
        usual | {"source": f.source, "row_number": n, "row_hash": row_hash, "file_id": file, "delivery_seq": seq}
        for f in feeds
        for seq, file in enumerate(("one", "two"))
        for n, row_hash in enumerate((7, 7, 8), start=1)
    ]
    raw = rows(spark, "bronze.raw_coupon_redemptions", delivered)
    found = conform_coupon_redemptions(raw, raw, sources=feeds).collect()
    assert sorted((r.merchant_id, r.occurrence, r.delivered_count) for r in found) == [
        ("keeps", 1, 2),
        ("keeps", 2, 2),
        ("keeps", 3, 2),
        ("keyed", 1, 6),
        ("loose", 1, 4),
        ("loose", 2, 2),
    ]


def test_a_contact_happens_when_the_first_day_of_its_campaign_begins_in_the_shop(spark: SparkSession) -> None:
    """Else what was bought in New York the evening before would be an answer to it."""
    new_york = FeedRules("crm", "campaigns", "shop", timezone="America/New_York")
    said = {"source": "crm", "feed": "campaigns", "campaign_id": "c", "starts_on": date(2018, 1, 4)}
    raw = rows(spark, "bronze.raw_campaigns", [said | {"ends_on": date(2018, 1, 9)}])
    campaigns = conform_campaigns(raw, raw, sources=(new_york,))
    contact = [{"merchant_id": "shop", "campaign_id": "c", "customer_id": "1"}]
    tables = {"silver.campaign": campaigns, "silver.campaign_contact": rows(spark, "silver.campaign_contact", contact)}
    (found,) = EVENTS["campaign_contact"].build(tables).collect()
    assert (found["at"], found["day"]) == (datetime(2018, 1, 4, 5), date(2018, 1, 4))


def test_what_was_delivered_is_as_personal_as_what_it_holds() -> None:
    for name, worst in (("contact_points", Pii.CONTACT), ("consents", Pii.IDENTIFIER), ("products", None)):
        for table in (table_of(f"bronze.stg_{name}"), table_of(f"bronze.raw_{name}")):
            assert {table.column(c).spec.pii for c in ("payload", "extra")} == {worst}


def _folded(winners: list[Any]) -> int:
    found = 0
    for r in winners:
        found ^= r.delivered_hash
    return found


def test_two_feeds_may_refuse_the_same_row_of_one_file(spark: SparkSession) -> None:
    """A file that tells of customers and how to reach them is delivered to two feeds."""
    rules = [FeedRules("crm", "people", "shop"), FeedRules("crm", "addresses", "shop")]
    nobody = {"source": "crm", "file_id": "one", "delivery": "day-1", "row_number": 7, "customer_id": None}
    feeds = {"customers": "people", "contact_points": "addresses"}
    changed = [
        rows(spark, f"bronze.raw_{s}", [nobody | {"feed": feeds[s], "_deleted": False}] if s in feeds else [])
        for s in SUBJECTS
    ]
    made = reject_subjects(*changed, sources=rules).collect()
    key = table_of("silver.subject_reject").key
    assert len({tuple(r[k] for k in key) for r in made}) == len(made) == 2
