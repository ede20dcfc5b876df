"""What is evaluated again, and that everything else would have come out the same."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.declare import Changes, table_of
from segments.catalogue import CUSTOMERS, GROUP, GROUP_COLUMN
from segments.earlier import Earlier
from segments.evaluation import evaluate_changed
from segments.events import SOURCES
from segments.language import Segment, event, feature, in_segment
from segments.rules import segments_in
from tests.spark.test_segment_evaluate import customers
from tests.support.hold import holding
from tests.support.rows import rows
from tests.support.segment_worlds import CATALOGUE, DAY, SHOP, World

pytestmark = pytest.mark.spark

Rows = dict[Any, dict[str, Any]]
EVALUATION = "gold.customer_evaluation"
SHOWN_BEFORE = {str(r) for r in table_of(EVALUATION).reads if isinstance(r, Changes) and r.also_before}


class Evaluations:
    """`gold.customer_evaluation` as dictionaries by key, and what its producer has seen of the events."""

    def __init__(self, spark: SparkSession, world: World) -> None:
        self.spark, self.world = spark, world
        self.content: Rows = {}
        self.seen: dict[str, Rows] = {name: {} for name in SOURCES}
        self.defined: list[Segment] = []

    def tables(self) -> dict[str, Rows]:
        return {
            "gold.fact_transactions": dict(self.world.lines),
            "gold.dim_product": {
                (shop, product): {"merchant_id": shop, "product_id": product, "category": category}
                for shop in SHOPS
                for product, category in self.world.categories.items()
            },
            "silver.campaign": {
                (shop, campaign): {"merchant_id": shop, "campaign_id": campaign, "starts_on": day}
                for shop in SHOPS
                for campaign, day in self.world.campaigns.items()
            },
            "silver.campaign_contact": {
                (key, campaign): {
                    "merchant_id": self.world.shop_of(key),
                    "campaign_id": campaign,
                    "customer_id": str(key),
                }
                for key, campaign in self.world.contacts
            },
            "silver.coupon_redemption": {
                n: {k: v for k, v in r.items() if k != "customer_key"} for n, r in self.world.redemptions.items()
            },
            "silver.visitor_event": self.world.visits(),
        }

    def refresh(self, segments: list[Segment], as_of: date, *, is_full: bool = False) -> int:
        """Evaluate a day; returns how many customers were."""
        # Spark computes customer_key of a redemption itself; the world's keys are small numbers.
        now = self.tables()
        frames: dict[str, DataFrame] = {}
        changed: dict[str, DataFrame] = {}
        for name, content in now.items():
            before = self.seen[name]
            frames[name] = rows(self.spark, name, content.values())
            new = [r | {"_deleted": False} for k, r in content.items() if before.get(k) != r]
            # As the change feed of a table: rows that changed also come as they were, where the producer asks for it.
            is_shown = name in SHOWN_BEFORE
            gone = [
                r | {"_deleted": True}
                for k, r in before.items()
                if content.get(k) != r and (k not in content or is_shown)
            ]
            changed[name] = rows(self.spark, name, new + gone)
        named = {k: f | _named(k) for k, f in self.world.features.items()}
        features = customers(self.spark, *[{n: v for n, v in f.items() if n != GROUP} for f in named.values()])
        groups = [
            _named(k) | {str(GROUP_COLUMN): f[GROUP], "valid_from": datetime(2000, 1, 1)}
            for k, f in named.items()
            if f.get(GROUP)
        ]
        features = features.withColumn("as_of", F.lit(as_of))
        with holding() as hold:
            self.made = evaluate_changed(
                features,
                {CUSTOMERS: rows(self.spark, CUSTOMERS, groups)},
                frames,
                changed,
                rows(self.spark, EVALUATION, self.content.values()),
                segments=segments,
                as_of=as_of,
                catalogue=CATALOGUE,
                earlier=Earlier(lambda: self.defined),
                hold=hold,
                is_full=is_full,
            )
            written = [r.asDict() for r in self.made.collect()]
        assert len({r["customer_key"] for r in written}) == len(written)
        for row in written:
            if row.pop("_deleted"):
                del self.content[row["customer_key"]]
            else:
                self.content[row["customer_key"]] = row
        self.seen, self.defined = now, segments
        return len(written)

    def members(self) -> dict[int, list[str]]:
        return {int(r["customer_id"]): r["segment_ids"] for r in self.content.values()}


SHOPS = (SHOP, "other")


def _shop_of(key: int) -> str:
    return SHOPS[key % 4 == 0]


def _named(key: int) -> dict[str, Any]:
    return {"merchant_id": _shop_of(key), "customer_key": KEYS[key], "customer_id": str(key)}


KEYS: dict[int, int] = {}
"""customer_key of each customer number, as the lakehouse hashes it."""


@pytest.fixture(scope="module", autouse=True)
def _keys(spark: SparkSession) -> None:
    shop = F.when(F.col("id") % 4 == 0, SHOPS[1]).otherwise(SHOP)
    hashed = spark.range(0, 200).select("id", F.xxhash64(shop, F.col("id").cast("string")).alias("k"))
    KEYS.update({r.id: r.k for r in hashed.collect()})


class KeyedWorld(World):
    """A world whose facts carry the keys of the lakehouse."""

    def happen(self, key: int, day: date) -> None:
        super().happen(key, day)
        if self.number in self.lines:
            self.lines[self.number]["customer_key"] = KEYS[key]

    def book_on(self, number: int, key: int, day: date) -> None:
        super().book_on(number, key, day)
        self.lines[number]["customer_key"] = KEYS[key]

    def shop_of(self, key: int) -> str:
        return _shop_of(key)

    def lines_of(self, key: int) -> list[dict[str, Any]]:
        return [line for line in self.lines.values() if line["customer_key"] == KEYS[key]]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_carried_over_equals_everyone_evaluated_from_nothing(spark: SparkSession, seed: int) -> None:
    """50 random definitions over the random histories of 20 customers, four times: 200 cases of three days each."""
    world = KeyedWorld(random.Random(seed))
    world.begin(20)
    segments = world.define(50)
    kept = Evaluations(spark, world)
    evaluated = []
    as_of = DAY
    for _ in range(3):
        evaluated.append(kept.refresh(segments, as_of) / len(world.features))
        assert kept.members() == world.members(segments, as_of)
        world.pass_a_day(as_of)
        as_of += timedelta(days=world.pick.choice([0, 1, 1, 9]))
    assert evaluated[0] == 1
    assert min(evaluated[1:]) < 1  # some were carried over


def test_who_was_evaluated_for_a_later_day_is_evaluated_again_with_everyone(spark: SparkSession) -> None:
    world = KeyedWorld(random.Random(3))
    world.begin(5)
    segments = [Segment("year", "Year", event("purchase").within_last_days(365).did())]
    kept, later = Evaluations(spark, world), DAY + timedelta(days=800)
    kept.refresh(segments, later)
    assert kept.refresh(segments, DAY) == 0
    kept.refresh(segments, DAY, is_full=True)
    assert kept.members() == world.members(segments, DAY) != world.members(segments, later)


WEEK = event("purchase").within_last_days(7)
ALONE = {
    "first time": WEEK.first_time(),
    "not stopped": ~event("purchase").within_last_days(3).stopped(),
    "nothing since": WEEK.did_unless_since(event("return")),
    "once": event("purchase").from_to(DAY - timedelta(days=9), DAY + timedelta(days=2)).exactly(1),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_definition_alone_is_carried_over_as_well(spark: SparkSession, name: str) -> None:
    """Beside many others everyone is asked again on nearly every day, whichever of them it is for."""
    world = KeyedWorld(random.Random(5))
    world.begin(20)
    world.redemptions.clear()
    world.clicks.clear()
    segments = [Segment("alone", "Alone", ALONE[name])]
    kept = Evaluations(spark, world)
    for days in (0, 3, 9):
        kept.refresh(segments, DAY + timedelta(days=days))
        assert kept.members() == world.members(segments, DAY + timedelta(days=days))


def test_only_those_are_asked_again_whose_answer_can_have_changed(spark: SparkSession) -> None:
    world = KeyedWorld(random.Random(0))
    world.begin(0)
    world.features = {1: {"frequency": 1}, 2: {"frequency": 1}, 3: {"frequency": 1}}
    while not any(line["is_valid_purchase"] for line in world.lines.values()):
        world.happen(1, DAY - timedelta(days=1))
    world.redemptions.clear()
    world.clicks.clear()
    rule = event("item").within_last_days(7).did() | feature("frequency").at_least(3)
    segments = [Segment("s", "S", rule)]
    kept = Evaluations(spark, world)

    assert kept.refresh(segments, DAY) == 3
    assert kept.refresh(segments, DAY + timedelta(days=1)) == 0
    world.features[2] = {"frequency": 2}
    assert kept.refresh(segments, DAY + timedelta(days=2)) == 0  # no condition can tell
    world.features[2] = {"frequency": 3}
    assert kept.refresh(segments, DAY + timedelta(days=3)) == 1
    assert kept.refresh(segments, DAY + timedelta(days=7)) == 1  # the purchase leaves the window
    assert kept.members() == {1: [], 2: ["s"], 3: []}
    edited = [Segment("s", "S", rule), Segment("t", "T", feature("frequency").at_least(1), priority=1)]
    assert kept.refresh(edited, DAY + timedelta(days=7)) == 3


@pytest.mark.parametrize("seed", range(2))
def test_a_changed_definition_is_evaluated_alone_and_equals_everyone_evaluated_by_all(
    spark: SparkSession, seed: int
) -> None:
    world = KeyedWorld(random.Random(seed))
    world.begin(20)
    segments, more = world.define(12), world.define(16)[12:]
    kept, whole = Evaluations(spark, world), Evaluations(spark, world)
    kept.refresh(segments, DAY)
    as_of = DAY
    for edit in range(2):
        world.pass_a_day(as_of)
        as_of += timedelta(days=1)
        # One is another rule, one is gone, one is new, and one asks for a segment whose rule is another.
        told = {s.segment_id: s for s in segments}
        first, second, *_ = sorted(told)
        told[first] = replace(told[first], rule=feature("frequency").at_least(edit) | event("item").did())
        told[second] = replace(told[second], rule=in_segment(first) | told[second].rule)
        del told[sorted(told)[5 + edit]]
        new = more.pop()
        told[new.segment_id] = new
        while missing := [s for s in told.values() if not segments_in(s.rule) <= set(told)]:
            for s in missing:
                del told[s.segment_id]
        segments = list(told.values())
        kept.refresh(segments, as_of)
        whole.content = {}
        whole.refresh(segments, as_of, is_full=True)
        assert kept.members() == world.members(segments, as_of)
        for key, row in whole.content.items():
            mine = kept.content[key]
            for column in ("segment_ids", "answers", "signature", "definitions"):
                assert mine[column] == row[column], column


@pytest.mark.parametrize("what", ["deleted", "inactive"])
def test_an_earlier_definition_may_ask_for_a_segment_that_is_no_more(spark: SparkSession, what: str) -> None:
    """A limit kept the rule of the one while the other went: nobody's answers are known to be by these."""
    world = KeyedWorld(random.Random(0))
    world.features = {n: {"frequency": n} for n in range(1, 4)}
    often, also = Segment("often", "O", feature("frequency").at_least(3)), Segment("also", "A", in_segment("often"))
    kept = Evaluations(spark, world)
    kept.refresh([often, also], DAY)
    kept.defined = [also] if what == "deleted" else [replace(often, is_active=False), also]

    assert kept.refresh([replace(also, rule=feature("frequency").at_least(2))], DAY) == 3
    assert kept.members() == {1: [], 2: ["also"], 3: ["also"]}


def test_on_a_day_another_definition_changes_conditions_still_say_why(spark: SparkSession) -> None:
    world = KeyedWorld(random.Random(0))
    world.features = {1: {"frequency": 1}, 2: {"frequency": 9}}
    often, other = (Segment(i, i, feature("frequency").at_least(n)) for i, n in (("often", 5), ("other", 20)))
    kept = Evaluations(spark, world)
    kept.refresh([often, other], DAY)
    world.features = {1: {"frequency": 9}, 2: {"frequency": 1}}
    new = Segment("new", "New", feature("frequency").at_least(7))

    kept.refresh([new, often, replace(other, rule=feature("frequency").at_least(30))], DAY + timedelta(days=1))

    assert {int(r["customer_id"]): r["reasons"] for r in kept.content.values()} == {
        1: {"new": "", "often": "frequency at_least 5 became true"},
        2: {"often": "frequency at_least 5 became false"},
    }


def test_a_limit_that_is_taken_away_has_the_same_answers_looked_at_again(spark: SparkSession) -> None:
    world = KeyedWorld(random.Random(0))
    world.features = {n: {"frequency": n} for n in range(1, 4)}
    often = Segment("often", "O", feature("frequency").at_least(3))
    kept = Evaluations(spark, world)
    kept.refresh([replace(often, max_change_share=0.1)], DAY)
    was = {key: row["answers"] for key, row in kept.content.items()}

    assert kept.refresh([often], DAY) == 3
    assert kept.members() == {1: [], 2: [], 3: ["often"]}
    assert {key: row["answers"] for key, row in kept.content.items()} == was
    assert kept.refresh([often], DAY) == 0


def test_events_that_only_other_segments_ask_for_are_not_read_for_a_changed_definition(spark: SparkSession) -> None:
    world = KeyedWorld(random.Random(0))
    world.begin(0)
    world.features = {n: {"frequency": n} for n in range(1, 4)}
    world.redemptions.clear()
    world.clicks.clear()
    bought = Segment("s", "S", event("item").within_last_days(700).did())
    often = Segment("t", "T", feature("frequency").at_least(3))
    kept = Evaluations(spark, world)
    kept.refresh([bought, often], DAY)
    bought_before = {k for k, ids in kept.members().items() if "s" in ids}

    # Their lines are gone from the table but no change said so: who reads them finds nobody.
    world.lines.clear()
    kept.seen = kept.tables()
    assert kept.refresh([bought, replace(often, rule=feature("frequency").at_least(2))], DAY) == 3
    assert {k for k, ids in kept.members().items() if "s" in ids} == bought_before
    assert {k for k, ids in kept.members().items() if "t" in ids} == {2, 3}


def test_a_thousand_segments_are_evaluated_in_one_go(spark: SparkSession) -> None:
    world = KeyedWorld(random.Random(0))
    world.features = {1: {"frequency": 500}}
    kept = Evaluations(spark, world)
    segments = [Segment(f"s{n:04}", f"S{n}", feature("frequency").at_least(n)) for n in range(950)]
    segments += [Segment(f"e{n:04}", f"E{n}", event("purchase").within_last_days(n + 1).at_least(1)) for n in range(50)]

    assert kept.refresh(segments, DAY) == 1
    assert len(kept.members()[1]) == 501
