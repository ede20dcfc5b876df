from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.settings import Settings
from segments.definitions import build_customer_segment
from segments.history import emit_events, publish_members, record_history
from segments.inspect import beaten_segments, flows_between, overlap_segments
from segments.language import Segment, ask_for, feature
from segments.membership import REFRESH, plan_membership
from tests.spark.test_segment_evaluate import customers
from tests.support.rows import rows
from tests.support.segment_tables import (
    DAY,
    EVALUATION,
    GUEST_HISTORY,
    MEMBERSHIP,
    OFTEN,
    PIN,
    PROMOTION,
    RECENT,
    Tables,
    at,
)

pytestmark = pytest.mark.spark


@pytest.fixture
def tables(spark: SparkSession) -> Tables:
    return Tables(spark)


def test_customers_enter_and_leave_with_history_and_events(spark: SparkSession, tables: Tables) -> None:
    first = customers(spark, {"recency_days": 5, "frequency": 3}, {"recency_days": 40, "frequency": 1}, {})
    later = customers(spark, {"recency_days": 35, "frequency": 3}, {"recency_days": 1, "frequency": 2})
    tables.refresh(first, [RECENT, OFTEN])
    assert tables.members() == {("recent", 1), ("often", 1)}
    assert tables.content[MEMBERSHIP]["shop", 3]["segment_ids"] == []

    tables.refresh(later, [RECENT, OFTEN], DAY + timedelta(days=30), "later")

    assert tables.members() == {("recent", 2), ("often", 1)}
    entered, left = DAY, DAY + timedelta(days=30)
    assert tables.stays() == {
        ("recent", 1, entered, left, "rule_not_true"),
        ("often", 1, entered, None, None),
        ("recent", 2, left, None, None),
    }
    assert tables.events() == {
        ("recent", 1, "segment_entered", entered),
        ("often", 1, "segment_entered", entered),
        ("recent", 1, "segment_exited", left),
        ("recent", 2, "segment_entered", left),
    }
    gone = tables.content[MEMBERSHIP]["shop", 3]
    assert (gone["is_present"], gone["segment_ids"]) == (False, [])
    (closed,) = [s for s in tables.content["gold.customer_segment_history"].values() if s["exited_on"]]
    assert (closed["entry_run_id"], closed["exit_run_id"]) == ("run", "later")
    assert (closed["entry_version"], closed["exit_version"]) == (RECENT.version, RECENT.version)


def test_the_same_refresh_again_changes_nothing(spark: SparkSession, tables: Tables) -> None:
    frame = customers(spark, {"recency_days": 5, "frequency": 3}, {"recency_days": 40}, {})
    assert tables.refresh(frame, [RECENT, OFTEN]) == [3, 2, 2, 2]

    assert tables.refresh(frame, [RECENT, OFTEN], run_id="again") == [0, 0, 0, 0]
    assert tables.refresh(frame, [RECENT, OFTEN], DAY + timedelta(days=1), run_id="next day") == [0, 0, 0, 0]


def test_why_a_stay_ended_is_kept(spark: SparkSession, tables: Tables) -> None:
    others = [replace(RECENT, segment_id=i, name=i) for i in ("edited", "switched_off", "removed", "kept")]
    frame = customers(spark, {"recency_days": 20}, {"recency_days": 5})
    tables.refresh(frame, others)

    edited = replace(others[0], rule=feature("recency_days").at_most(10))
    off = replace(others[1], is_active=False)
    tables.refresh(frame.where("customer_key = 1"), [edited, off, others[3]], DAY + timedelta(days=1))

    left = {(segment, key): reason for segment, key, _, _, reason in tables.stays()}
    assert left == {
        ("edited", 1): "definition_changed",
        ("switched_off", 1): "segment_inactive",
        ("removed", 1): "segment_inactive",
        ("kept", 1): None,
    } | {(s.segment_id, 2): "customer_absent" for s in others}


def test_who_leaves_a_segment_edited_long_ago_did_something_since(spark: SparkSession, tables: Tables) -> None:
    tables.refresh(customers(spark, {"recency_days": 5}), [RECENT])
    edited = replace(RECENT, rule=feature("recency_days").at_most(20))
    tables.refresh(customers(spark, {"recency_days": 6}), [edited], DAY + timedelta(days=1))
    assert tables.stays() == {("recent", 1, DAY, None, None)}
    tables.refresh(customers(spark, {"recency_days": 21}), [edited], DAY + timedelta(days=16))
    (stay,) = tables.content["gold.customer_segment_history"].values()
    assert (stay["exit_reason"], stay["exit_detail"]) == ("rule_not_true", "recency_days at_most 20 became false")


def test_who_leaves_when_an_edit_is_taken_back_leaves_by_the_definition(spark: SparkSession, tables: Tables) -> None:
    wider = replace(RECENT, rule=feature("recency_days").at_most(60))
    tables.refresh(customers(spark, {"recency_days": 5}, {"recency_days": 5}), [RECENT])
    aged = customers(spark, {"recency_days": 45}, {"recency_days": 5})
    tables.refresh(aged, [wider], DAY + timedelta(days=40))
    tables.refresh(aged, [RECENT], DAY + timedelta(days=41))
    tables.refresh(customers(spark, {"recency_days": 45}, {"recency_days": 31}), [RECENT], DAY + timedelta(days=66))

    left = {(key, reason) for _, key, _, _, reason in tables.stays()}
    assert left == {(1, "definition_changed"), (2, "rule_not_true")}


def test_in_and_out_and_in_again_on_one_day_are_two_stays_and_three_events(spark: SparkSession, tables: Tables) -> None:
    frame = customers(spark, {"recency_days": 5})
    for rule in (RECENT.rule, feature("recency_days").at_most(3), RECENT.rule):
        tables.refresh(frame, [replace(RECENT, rule=rule)])

    assert tables.members() == {("recent", 1)}
    assert tables.stays() == {("recent", 1, DAY, DAY, "definition_changed"), ("recent", 1, DAY, None, None)}
    told = sorted(tables.content["gold.customer_segment_event"].values(), key=lambda e: e["created_at"])
    assert [e["event_type"] for e in told] == ["segment_entered", "segment_exited", "segment_entered"]


def test_a_processed_event_stays_processed_and_old_ones_do_not_come_back(spark: SparkSession, tables: Tables) -> None:
    tables.refresh(customers(spark, {"recency_days": 5}), [RECENT])
    events = tables.content["gold.customer_segment_event"]
    for event in events.values():
        event["is_processed"] = True

    tables.refresh(customers(spark, {"recency_days": 31}), [RECENT], DAY + timedelta(days=26))
    assert {(e["event_type"], e["is_processed"]) for e in events.values()} == {
        ("segment_entered", True),
        ("segment_exited", False),
    }

    events.clear()  # as maintenance does with processed events past their 30 days
    tables.seen.clear()
    tables.refresh(customers(spark, {"recency_days": 31}), [RECENT], DAY + timedelta(days=40))
    assert tables.events() == {("recent", 1, "segment_exited", DAY + timedelta(days=26))}


def test_an_event_acted_on_does_not_come_back_where_the_newest_day_is_long_ago(
    spark: SparkSession, tables: Tables
) -> None:
    """`maintain` counts by the clock."""
    frame = customers(spark, {"recency_days": 5})
    tables.refresh(frame, [RECENT])
    tables.content["gold.customer_segment_event"].clear()
    tables.seen.clear()
    tables.refresh(frame, [RECENT], lag=timedelta(days=31))
    assert tables.events() == set()


def test_an_entry_that_a_later_run_records_is_told_however_old_its_day(spark: SparkSession, tables: Tables) -> None:
    frame = customers(spark, {"recency_days": 5})
    tables.refresh(frame, [RECENT], stop_after=1)
    tables.refresh(frame, [RECENT], DAY + timedelta(days=40))
    assert tables.events() == {("recent", 1, "segment_entered", DAY)}


def test_a_missing_feature_day_and_an_older_day_move_no_one(spark: SparkSession, tables: Tables) -> None:
    frame = customers(spark, {"recency_days": 5})
    tables.refresh(frame, [RECENT])

    assert tables.refresh(frame.where("false"), [RECENT], DAY + timedelta(days=1)) == [0, 0, 0, 0]
    assert tables.refresh(customers(spark, {"recency_days": 99}), [RECENT], DAY - timedelta(days=1)) == [0, 0, 0, 0]


def test_a_manual_segment_waits_to_be_asked(spark: SparkSession, tables: Tables) -> None:
    manual = replace(OFTEN, refresh_mode="manual")
    tables.refresh(customers(spark, {"recency_days": 1, "frequency": 3}), [RECENT, manual])
    assert tables.members() == {("recent", 1)}

    tables.refresh(customers(spark, {"recency_days": 1, "frequency": 3}), ask_for([RECENT, manual], ["often"]))
    assert tables.members() == {("recent", 1), ("often", 1)}
    assert tables.content[MEMBERSHIP]["shop", 1]["primary_segment_id"] == "often"

    tables.refresh(customers(spark, {"recency_days": 99, "frequency": 1}), [RECENT, manual], DAY + timedelta(days=1))
    assert tables.members() == {("often", 1)}
    assert tables.content[MEMBERSHIP]["shop", 1]["primary_segment_id"] == "often"


def test_a_segment_that_would_change_too_much_keeps_its_members(spark: SparkSession, tables: Tables) -> None:
    guarded = replace(RECENT, max_change_share=0.5)
    tables.refresh(customers(spark, *[{"recency_days": 1, "frequency": 3}] * 4), [guarded, OFTEN])

    moved = customers(spark, *[{"recency_days": 99, "frequency": 1}] * 3, {"recency_days": 1, "frequency": 3})
    tables.refresh(moved, [guarded, OFTEN], DAY + timedelta(days=1))

    assert tables.members() == {("recent", 1), ("recent", 2), ("recent", 3), ("recent", 4), ("often", 4)}
    grades = {
        (r["segment_id"], r["as_of"]): (r["refresh_status"], r["exited_count"], r["message"])
        for r in tables.content["gold.customer_segment_refresh"].values()
    }
    assert grades["often", DAY + timedelta(days=1)] == ("completed", 3, None)
    assert grades["recent", DAY + timedelta(days=1)] == (
        "error",
        3,
        "3 of 4 members would change, above the limit of 50 %; the last good membership was kept",
    )
    published = build_customer_segment(
        tables.read("gold.customer_segment_customer"),
        tables.read("gold.customer_segment_guest"),
        tables.read("gold.customer_segment_refresh"),
        tables.read("gold.customer_segment"),
        segments=[guarded, OFTEN],
        as_of=DAY + timedelta(days=1),
        started_at=at(2018, 1, 2),
    )
    tables.write("gold.customer_segment", published)
    recent = tables.content["gold.customer_segment"][("recent",)]
    assert (recent["refresh_status"], recent["matched_customers_count"], recent["last_refresh_at"]) == (
        "error",
        4,
        None,
    )
    assert recent["refresh_message"].startswith("shop: 3 of 4 members would change")

    half = customers(spark, *[{"recency_days": 99}] * 2, *[{"recency_days": 1}] * 2)
    tables.refresh(half, [guarded, OFTEN], DAY + timedelta(days=2))
    assert {m for m in tables.members() if m[0] == "recent"} == {("recent", 3), ("recent", 4)}


@pytest.mark.parametrize("limit", [None, 0.75])
def test_who_a_limit_kept_is_looked_at_again_when_it_is_gone_or_wider(
    spark: SparkSession, tables: Tables, limit: float | None
) -> None:
    guarded = replace(RECENT, max_change_share=0.5)
    tables.refresh(customers(spark, *[{"recency_days": 1}] * 4), [guarded])
    moved = customers(spark, *[{"recency_days": 99}] * 3, {"recency_days": 1}).where("customer_key != 3")
    tables.refresh(moved, [guarded], DAY + timedelta(days=1))
    assert len(tables.members()) == 4

    tables.refresh(moved, [replace(guarded, max_change_share=limit)], DAY + timedelta(days=1))

    assert tables.members() == {("recent", 4)}
    left = {1: "rule_not_true", 2: "rule_not_true", 3: "customer_absent"}
    assert {s for s in tables.stays() if s[3]} == {
        ("recent", key, DAY, DAY + timedelta(days=1), why) for key, why in left.items()
    }


def test_a_limit_keeps_customers_whom_a_truncated_delivery_took_away(spark: SparkSession, tables: Tables) -> None:
    guarded = replace(RECENT, max_change_share=0.5)
    everyone = customers(spark, *[{"recency_days": 1, "frequency": 3}] * 5)
    tables.refresh(everyone, [guarded, OFTEN])
    kept = {("recent", key) for key in range(1, 6)}

    truncated = everyone.where("customer_key > 3")
    tables.refresh(truncated, [guarded, OFTEN], DAY + timedelta(days=1))
    assert tables.members() == kept | {("often", 4), ("often", 5)}
    assert tables.refresh(truncated, [guarded, OFTEN], DAY + timedelta(days=1), is_full=True) == [0, 0, 0, 0]
    assert tables.members() == {(s, k) for s, k, _, left, _ in tables.stays() if left is None}
    assert {(s, k) for s, k, what, _ in tables.events() if what == "segment_exited"} == {
        ("often", k) for k in (1, 2, 3)
    }
    gone = tables.content[MEMBERSHIP]["shop", 1]
    assert (gone["segment_ids"], gone["primary_segment_id"], gone["is_present"]) == (["recent"], "recent", False)

    key = {"segment_id": "recent", "website_id": "shop", "customer_id": "x", "note": "n"}
    tables.content[PIN] = {("recent", "shop", 1): key | {"customer_key": 1, "is_in": False}}
    del tables.content[MEMBERSHIP]["shop", 2]  # erased
    tables.refresh(truncated, [replace(guarded, max_change_share=0.2), OFTEN], DAY + timedelta(days=2))
    held = {k: r["segment_ids"] for (_, k), r in tables.content[MEMBERSHIP].items()}
    assert held == {1: [], 3: ["recent"], 4: ["often", "recent"], 5: ["often", "recent"]}
    assert {s[4] for s in tables.stays() if s[:2] == ("recent", 1)} == {"barred"}

    tables.refresh(everyone.where("customer_key > 2"), [guarded, OFTEN], DAY + timedelta(days=3))
    back = tables.content[MEMBERSHIP]["shop", 3]
    assert (back["segment_ids"], back["is_present"]) == (["often", "recent"], True)
    assert {r["refresh_status"] for r in tables.content[REFRESH].values() if r["as_of"] > DAY + timedelta(days=2)} == {
        "completed"
    }


def test_a_full_pass_lets_go_of_customers_nobody_names(spark: SparkSession, tables: Tables) -> None:
    tables.refresh(customers(spark, {"recency_days": 1}, {"recency_days": 1}), [RECENT])
    next_day = DAY + timedelta(days=1)

    tables.refresh(customers(spark, {"recency_days": 1}), [RECENT], next_day, is_full=True)

    assert tables.members() == {("recent", 1)}
    assert {s[:4] for s in tables.stays()} == {("recent", 1, DAY, None), ("recent", 2, DAY, next_day)}


@pytest.mark.parametrize(
    ("limit", "members", "said"), [(0.29, 100, None), (0.285, 100, "above the limit of 28.5 %; the last good")]
)
def test_a_limit_is_what_was_written(
    spark: SparkSession, tables: Tables, limit: float, members: int, said: str | None
) -> None:
    guarded = replace(RECENT, max_change_share=limit)
    tables.refresh(customers(spark, *[{"recency_days": 1}] * members), [guarded])
    moved = [{"recency_days": 99 if key < 29 else 1} for key in range(members)]
    tables.refresh(customers(spark, *moved), [guarded], DAY + timedelta(days=1))

    (refresh,) = [r for r in tables.content["gold.customer_segment_refresh"].values() if r["as_of"] > DAY]
    assert len(tables.members()) == (members if said else members - 29)
    assert (said or "") in (refresh["message"] or "")


def test_producers_return_what_their_tables_declare(spark: SparkSession) -> None:
    evaluated = rows(spark, EVALUATION, [{"_deleted": False}])
    planned = plan_membership(
        rows(spark, EVALUATION),
        evaluated,
        rows(spark, PIN),
        rows(spark, PIN, [{"_deleted": False}]),
        rows(spark, PROMOTION),
        rows(spark, PROMOTION),
        customers(spark).withColumn("as_of", F.lit(DAY)),
        rows(spark, MEMBERSHIP),
        segments=[RECENT],
        as_of=DAY,
        run_id="r",
        started_at=at(2018, 1, 1),
        is_full=False,
    )
    history = rows(spark, "gold.customer_segment_history", [{"_deleted": False}])
    made = dict(planned) | {
        "gold.customer_segment_history": record_history(
            rows(spark, MEMBERSHIP, [{"_deleted": False}]),
            history.drop("_deleted"),
            segments=[RECENT],
            run_id="r",
            started_at=at(2018, 1, 1),
        ),
        "gold.customer_segment_event": emit_events(
            history,
            rows(spark, GUEST_HISTORY, [{"_deleted": False}]),
            rows(spark, "gold.customer_segment_event"),
            started_at=at(2018, 1, 1),
            settings=Settings(),
        ),
    }
    for name, out in made.items():
        declared = rows(spark, name)
        assert {f.name: f.dataType.simpleString() for f in out.schema} == {
            f.name: f.dataType.simpleString() for f in declared.schema
        }, name


def test_many_days_with_kills_end_where_one_clean_pass_per_day_would(spark: SparkSession) -> None:
    """Random days, kills and definition changes: members equal an evaluation from nothing, stays an unkilled run."""
    pick = random.Random(7)
    killed, clean = Tables(spark), Tables(spark)
    rules = [RECENT, OFTEN, Segment("both", "Both", RECENT.rule & OFTEN.rule, priority=0)]
    for n in range(4):
        as_of = DAY + timedelta(days=n)
        segments = [replace(s, rule=~s.rule) if pick.random() < 0.2 else s for s in rules if pick.random() < 0.9]
        frame = customers(
            spark,
            *[{"recency_days": pick.choice([1, 99, None]), "frequency": pick.choice([1, 5])} for _ in range(12)],
        ).where(F.col("customer_key") != pick.randint(1, 12))
        for _ in range(2):
            killed.refresh(frame, segments, as_of, stop_after=pick.randint(0, 3))
        killed.refresh(frame, segments, as_of)
        clean.refresh(frame, segments, as_of)

        scratch = Tables(spark)
        scratch.refresh(frame, segments, as_of)
        assert killed.members() == scratch.members()
        assert killed.members() == {(s, k) for s, k, _, left, _ in killed.stays() if left is None}
    assert killed.stays() == clean.stays()
    assert killed.events() == clean.events()


def test_a_pin_holds_against_the_rule_until_it_is_taken_away(spark: SparkSession, tables: Tables) -> None:
    frame = customers(spark, {"recency_days": 1}, {"recency_days": 99})
    tables.refresh(frame, [RECENT])
    key = {"segment_id": "recent", "website_id": "shop", "customer_id": "x", "note": "the owner's mother"}
    tables.content[PIN] = {
        ("recent", "shop", 1): key | {"customer_key": 1, "is_in": False},
        ("recent", "shop", 2): key | {"customer_key": 2, "is_in": True},
    }
    tables.refresh(frame, [RECENT], run_id="pinned")
    assert tables.members() == {("recent", 2)}
    stays = {r["customer_key"]: r for r in tables.content["gold.customer_segment_history"].values()}
    assert (stays[1]["exit_reason"], stays[2]["entry_reason"]) == ("barred", "pinned")

    tables.refresh(customers(spark, {"recency_days": 2}, {"recency_days": 98}), [RECENT], DAY + timedelta(days=1))
    assert tables.members() == {("recent", 2)}

    tables.content[PIN] = {("recent", "shop", 2): key | {"customer_key": 2, "is_in": False}}
    tables.refresh(frame, [RECENT], DAY + timedelta(days=2))
    assert tables.members() == {("recent", 1)}
    stays = {r["customer_key"]: r for r in tables.content["gold.customer_segment_history"].values()}
    assert stays[2]["exit_reason"] == "barred"  # the rule would not have had them in


def test_the_end_of_a_pin_is_why_a_customer_comes_or_goes(spark: SparkSession, tables: Tables) -> None:
    tables.refresh(customers(spark, {"recency_days": 99}, {"recency_days": 1}), [RECENT])
    frame = customers(spark, {"recency_days": 1}, {"recency_days": 99})
    tables.refresh(frame, [RECENT], DAY + timedelta(days=1))  # both move by the rule, and it is kept why
    key = {"segment_id": "recent", "website_id": "shop", "customer_id": "x", "note": "n"}
    tables.content[PIN] = {
        ("recent", "shop", 1): key | {"customer_key": 1, "is_in": False},
        ("recent", "shop", 2): key | {"customer_key": 2, "is_in": True},
    }
    tables.refresh(frame, [RECENT], DAY + timedelta(days=2))
    tables.content[PIN] = {}
    tables.refresh(frame, [RECENT], DAY + timedelta(days=3))

    assert tables.members() == {("recent", 1)}
    stays = tables.content["gold.customer_segment_history"].values()
    (entered,) = [s for s in stays if s["customer_key"] == 1 and s["exited_on"] is None]
    (left,) = [s for s in stays if s["customer_key"] == 2 and s["exited_on"] == DAY + timedelta(days=3)]
    assert (entered["entry_reason"], entered["entry_detail"]) == ("rule_true", "the pin was taken away")
    assert (left["exit_reason"], left["exit_detail"]) == ("rule_not_true", "the pin was taken away")


def test_a_pin_holds_while_a_limit_keeps_the_other_members(spark: SparkSession, tables: Tables) -> None:
    guarded = replace(RECENT, max_change_share=0.2)
    tables.refresh(customers(spark, *[{"recency_days": 1}] * 5, {"recency_days": 99}), [guarded])
    key = {"segment_id": "recent", "website_id": "shop", "customer_id": "x", "note": "n"}
    tables.content[PIN] = {
        ("recent", "shop", 5): key | {"customer_key": 5, "is_in": False},
        ("recent", "shop", 6): key | {"customer_key": 6, "is_in": True},
    }
    # Pins alone are two of five members, which no limit is about.
    tables.refresh(customers(spark, *[{"recency_days": 1}] * 5, {"recency_days": 99}), [guarded], run_id="pinned")
    expected = {("recent", key) for key in (1, 2, 3, 4, 6)}
    assert tables.members() == expected
    tables.content[PIN] = {
        ("recent", "shop", 5): key | {"customer_key": 5, "is_in": True},
        ("recent", "shop", 6): key | {"customer_key": 6, "is_in": False},
    }
    left = customers(spark, *[{"recency_days": 99}] * 4, {"recency_days": 99}, {"recency_days": 99})
    tables.refresh(left, [guarded], DAY + timedelta(days=1))
    assert tables.members() == {("recent", key) for key in (1, 2, 3, 4, 5)}


def test_the_condition_that_changed_is_kept_with_the_stay(spark: SparkSession, tables: Tables) -> None:
    both = Segment("both", "Both", RECENT.rule & OFTEN.rule)
    tables.refresh(customers(spark, {"recency_days": 1, "frequency": 1}), [both])
    tables.refresh(customers(spark, {"recency_days": 1, "frequency": 3}), [both], DAY + timedelta(days=1))
    tables.refresh(customers(spark, {"recency_days": 31, "frequency": 3}), [both], DAY + timedelta(days=2))

    (stay,) = tables.content["gold.customer_segment_history"].values()
    assert stay["entry_detail"] == "frequency at_least 3 became true"
    assert stay["exit_detail"] == "recency_days at_most 30 became false"


def test_pairs_flows_and_who_was_beaten_are_counted(spark: SparkSession, tables: Tables) -> None:
    rare = Segment("rare", "Rare", ~OFTEN.rule, priority=3)
    segments = [RECENT, OFTEN, rare]
    tables.refresh(
        customers(spark, *[{"recency_days": 1, "frequency": 3}] * 2, {"recency_days": 1, "frequency": 1}), segments
    )

    pairs = {(r.segment_a, r.segment_b): r for r in overlap_segments(tables.read(MEMBERSHIP)).collect()}
    assert {k: (r.members_a, r.members_b, r.both) for k, r in pairs.items()} == {
        ("often", "recent"): (2, 3, 2),
        ("rare", "recent"): (1, 3, 1),
    }
    assert pairs["often", "recent"].jaccard == pytest.approx(2 / 3)
    beaten = beaten_segments(tables.read(MEMBERSHIP)).collect()
    assert {(r.segment_id, r.primary_segment_id, r.members) for r in beaten} == {
        ("often", "often", 2),
        ("recent", "often", 2),
        ("recent", "recent", 1),
        ("rare", "recent", 1),
    }

    later = [{"recency_days": 1, "frequency": 1}] * 3
    tables.refresh(customers(spark, *later), segments, DAY + timedelta(days=1))
    moves = flows_between(tables.read("gold.customer_segment_history")).collect()
    assert [(r.day, r.left, r.entered, r.customers) for r in moves] == [(DAY + timedelta(days=1), "often", "rare", 2)]


def test_an_old_stay_past_its_retention_moves_no_one(spark: SparkSession, tables: Tables) -> None:
    history = "gold.customer_segment_history"
    for n, recency in enumerate([1, 99, 1]):
        tables.refresh(customers(spark, {"recency_days": recency}), [RECENT], DAY + timedelta(days=n))
    for key in [k for k, r in tables.content[history].items() if r["exited_on"]]:
        del tables.content[history][key]

    tables.write(
        "gold.customer_segment_customer", publish_members(tables.changes(history, "c"), started_at=at(2018, 2, 1))
    )
    assert tables.members() == {("recent", 1)}
