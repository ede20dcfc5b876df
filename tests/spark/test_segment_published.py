"""The published list of segments: their state, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from lakehouse.declare import table_of
from segments.definitions import build_customer_segment, measure_segments
from segments.language import Segment, ask_for, feature
from segments.load import segment_of_row
from segments.states import TRANSITIONS, move
from tests.spark.test_segment_evaluate import customers
from tests.support.rows import rows
from tests.support.segment_features import FEATURES
from tests.support.segment_tables import (
    DAY,
    MEMBERSHIP,
    OFTEN,
    RECENT,
    Tables,
    at,
)

pytestmark = pytest.mark.spark


@pytest.fixture
def tables(spark: SparkSession) -> Tables:
    return Tables(spark)


def test_a_refresh_asked_for_once_and_killed_is_not_left_as_processing(tables: Tables) -> None:
    manual = replace(OFTEN, refresh_mode="manual")
    published = {"segment_id": "often", "refresh_mode": "manual", "is_active": True, "refresh_status": "processing"}
    (row,) = publish_over(tables, published, manual)
    assert (row["refresh_status"], row["refresh_message"]) == ("stale", "its last refresh was not finished")


def test_what_was_evaluated_before_a_run_failed_is_published_by_the_next(spark: SparkSession, tables: Tables) -> None:
    tables.refresh(customers(spark, {"recency_days": 1}), [RECENT])
    (row,) = publish_over(tables, {"segment_id": "recent", "is_active": True, "refresh_status": "error"}, RECENT)
    assert (row["refresh_status"], row["refresh_message"]) == ("completed", None)


def test_an_edited_manual_segment_keeps_the_definition_of_its_members(spark: SparkSession, tables: Tables) -> None:
    manual = replace(OFTEN, refresh_mode="manual")
    edited = replace(manual, name="Oftener", rule=feature("frequency").at_least(9))
    tables.refresh(customers(spark, {"frequency": 1}), [manual])
    was = {"segment_id": "often", "refresh_mode": "manual", "is_active": True, "refresh_status": "completed"}
    was |= {"conditions": manual.conditions_json, "version": manual.version, "last_refresh_at": at(2018, 1, 1)}

    (row,) = publish_over(tables, was, edited)
    assert (row["name"], row["conditions"], row["version"]) == ("Oftener", manual.conditions_json, manual.version)

    tables.refresh(customers(spark, {"frequency": 1}), ask_for([edited], ["often"]))
    (row,) = publish_over(tables, was, edited)
    assert (row["conditions"], row["version"]) == (edited.conditions_json, edited.version)


def publish_over(tables: Tables, published: dict[str, Any], *segments: Segment) -> list[Row]:
    return build_customer_segment(
        tables.read("gold.customer_segment_customer"),
        tables.read("gold.customer_segment_guest"),
        tables.read("gold.customer_segment_refresh"),
        rows(tables.spark, "gold.customer_segment", [published]),
        segments=segments,
        as_of=DAY,
        started_at=at(2018, 1, 2),
    ).collect()


def test_definitions_keep_their_birthday_and_note_their_edits(spark: SparkSession, tables: Tables) -> None:
    def publish(segments: Sequence[Segment], when: datetime) -> Mapping[tuple[Any, ...], dict[str, Any]]:
        for s in segments:
            if s.refresh_mode == "auto" and (
                known := tables.content.get("gold.customer_segment", {}).get((s.segment_id,))
            ):
                known["refresh_status"] = "processing"
        frame = build_customer_segment(
            tables.read("gold.customer_segment_customer"),
            tables.read("gold.customer_segment_guest"),
            tables.read("gold.customer_segment_refresh"),
            tables.read("gold.customer_segment"),
            segments=segments,
            as_of=DAY,
            started_at=when,
        )
        tables.write("gold.customer_segment", frame)
        return tables.content["gold.customer_segment"]

    tables.refresh(customers(spark, {"recency_days": 1}), [RECENT, OFTEN])
    first, second = at(2018, 1, 1, 6), at(2018, 1, 2, 6)
    waiting = Segment("waiting", "Waiting", OFTEN.rule, refresh_mode="manual", website_ids=("shop",))
    now = publish([RECENT, OFTEN, waiting], first)
    assert {
        k[0]: (r["matched_customers_count"], r["refresh_status"], r["last_refresh_at"]) for k, r in now.items()
    } == {
        "recent": (1, "completed", first),
        "often": (0, "completed", first),
        "waiting": (0, "pending", None),
    }
    assert now[("waiting",)]["website_ids"] == ["shop"]
    assert now[("recent",)]["conditions"] == '{"feature":"recency_days","op":"at_most","value":30}'

    now = publish([replace(RECENT, name="Lately"), waiting], second)
    assert {k[0]: (r["is_active"], r["created_at"], r["updated_at"]) for k, r in now.items()} == {
        "recent": (True, first, second),
        "often": (False, first, second),
        "waiting": (True, first, first),
    }
    assert now[("often",)]["refresh_status"] == "completed"
    now[("often",)] |= {"refresh_status": "error", "refresh_message": "The last run failed: no disk"}
    now[("waiting",)]["refresh_status"] = "processing"  # asked for, by a run that was killed
    now = publish([replace(RECENT, name="Lately"), waiting], at(2018, 1, 3))
    assert now[("often",)]["updated_at"] == second
    assert {k[0]: (r["refresh_status"], r["refresh_message"]) for k, r in now.items()} == {
        "recent": ("completed", None),
        "often": ("pending", None),
        "waiting": ("stale", "its last refresh was not finished"),
    }
    assert now[("often",)]["name"] == "Often"


def test_only_websites_a_segment_applies_to_grade_it(spark: SparkSession) -> None:
    was = Segment("here", "Here", feature("recency_days").at_most(30), website_ids=("a",), max_change_share=0.1)
    now = replace(was, rule=feature("recency_days").at_most(3))
    narrowed, nowhere = replace(now, segment_id="narrowed"), replace(now, segment_id="nowhere", website_ids=("c",))

    def publish(**graded: tuple[str, str]) -> dict[str, tuple[str, bool]]:
        """Of each segment its state and whether it has the new definition, after these refreshes on a and b."""
        refreshed = [
            {"segment_id": i, "website_id": website, "as_of": DAY, "refresh_status": status}
            for i, both in graded.items()
            for website, status in zip("ab", both, strict=True)
        ]
        told = {"is_active": True, "refresh_status": "processing", "version": was.version, "website_ids": ["a"]}
        published = build_customer_segment(
            rows(spark, "gold.customer_segment_customer"),
            rows(spark, "gold.customer_segment_guest"),
            rows(spark, "gold.customer_segment_refresh", refreshed),
            rows(spark, "gold.customer_segment", [told | {"segment_id": i, "name": i} for i in graded]),
            segments=[now, narrowed, nowhere],
            as_of=DAY,
            started_at=at(2018, 1, 1),
        ).collect()
        return {r.segment_id: (r.refresh_status, r.version != was.version) for r in published if r.segment_id in graded}

    assert publish(
        here=("error", "completed"),
        narrowed=("completed", "error"),
        nowhere=("stale", "completed"),
    ) == {"here": ("error", False), "narrowed": ("error", True), "nowhere": ("completed", True)}
    assert publish(here=("completed", "stale")) == {"here": ("completed", True)}


def test_a_state_that_may_not_follow_fails_the_write(spark: SparkSession) -> None:
    steps = [(b, a) for b in TRANSITIONS for a in TRANSITIONS]
    frame = spark.createDataFrame([(None, "pending"), *steps], "before string, after string")
    lawful = F.concat("before", F.lit(">"), "after").isin([f"{b}>{a}" for b, a in steps if a in TRANSITIONS[b]])
    moved = F.when(F.col("before").isNull() | lawful, move(F.col("before"), F.col("after")))
    assert {(r.before, r.after) for r in frame.where(moved.isNotNull()).collect()} == {
        (None, "pending"),
        *((b, a) for b, a in steps if a in TRANSITIONS[b]),
    }
    with pytest.raises(Exception, match="cannot go from pending to completed"):
        spark.range(1).select(move(F.lit("pending"), F.lit("completed"))).collect()


def test_sizes_count_members_value_and_movement(spark: SparkSession, tables: Tables) -> None:
    from decimal import Decimal

    frame = customers(
        spark,
        {"recency_days": 1, "frequency": 3, "monetary_net": Decimal("30.10")},
        {"recency_days": 1, "frequency": 1, "monetary_net": Decimal("9.90")},
        {"recency_days": 99, "frequency": 1, "monetary_net": Decimal("60.00")},
        {"recency_days": None, "monetary_net": None},
    )
    tables.refresh(frame, [RECENT, OFTEN])
    nobody = Segment("nobody", "Nobody", feature("frequency").less_than(0))

    sized = measure_segments(
        tables.read(MEMBERSHIP),
        frame.withColumn("as_of", F.lit(DAY)),
        tables.read("gold.customer_segment_history"),
        tables.read("gold.customer_segment_refresh"),
        tables.read("gold.customer_segment_size"),
        segments=[RECENT, OFTEN, nobody],
        as_of=DAY,
    )

    assert sized.columns == list(table_of("gold.customer_segment_size").column_names)
    found = {r.segment_id: r for r in sized.collect()}
    recent = found["recent"]
    assert (recent.customers, recent.members, recent.primary_members, recent.share) == (4, 2, 1, 0.5)
    assert (recent.net_amount, recent.value_share, recent.entered, recent.exited) == (Decimal("40.00"), 0.4, 2, 0)
    assert (found["nobody"].members, found["nobody"].net_amount, found["nobody"].entered) == (0, Decimal(0), 0)


def test_members_that_a_limit_kept_are_told_by_the_definition_that_made_them(
    spark: SparkSession, tables: Tables
) -> None:
    shop, other = [{"recency_days": 25}] * 4, [{"recency_days": 5, "merchant_id": "other"}] * 2
    frame = customers(spark, *shop, *other)
    first = replace(RECENT, max_change_share=0.5)
    second = replace(first, rule=feature("recency_days").at_most(20))  # nobody of the shop, all of the other
    third = replace(first, rule=feature("recency_days").at_most(1))  # nobody

    def refresh(segment: Segment, days: int) -> tuple[str, str, dict[str, str]]:
        as_of = DAY + timedelta(days=days)
        tables.refresh(frame, [segment], as_of)
        if known := tables.content.get("gold.customer_segment", {}).get(("recent",)):
            known["refresh_status"] = "processing"
        names = ("customer_segment_customer", "customer_segment_guest", "customer_segment_refresh", "customer_segment")
        told = [tables.read(f"gold.{name}") for name in names]
        published = build_customer_segment(*told, segments=[segment], as_of=as_of, started_at=at(2018, 1, 1 + days))
        tables.write("gold.customer_segment", published)
        names = ("customer_membership", "customer_segment_history", "customer_segment_refresh", "customer_segment_size")
        members, *others = (tables.read(f"gold.{name}") for name in names)
        today = frame.withColumn("as_of", F.lit(as_of))
        sized = measure_segments(members, today, *others, segments=[segment], as_of=as_of)
        tables.write("gold.customer_segment_size", sized)
        row = tables.content["gold.customer_segment"][("recent",)]
        assert segment_of_row(row, FEATURES).version == row["version"]
        sizes = tables.content["gold.customer_segment_size"].values()
        of_day = {r["website_id"]: r["version"] for r in sizes if r["as_of"] == as_of}
        return row["version"], row["refresh_status"], of_day

    one, two = first.version, second.version
    assert refresh(first, 0) == (one, "completed", {"shop": one, "other": one})
    assert refresh(second, 1) == (two, "error", {"shop": one, "other": two})
    assert refresh(third, 2) == (two, "error", {"shop": one, "other": two})
    assert refresh(third, 2) == (two, "error", {"shop": one, "other": two})
    assert len(tables.members()) == 6
