from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from segments.catalogue import CUSTOMERS, GROUP, declared_features
from segments.compile import Compiler
from segments.evaluate import add_cuts, evaluate_segments, join_features
from segments.evaluation import Plan
from segments.language import Condition, Rule, Segment, all_of, any_of, conditions_of, feature, in_segment
from segments.operators import OPERATORS
from segments.reference import Observed, explain, is_in
from tests.support.rows import rows
from tests.support.segment_features import FEATURES

pytestmark = pytest.mark.spark

AS_OF = date(2018, 1, 1)
ARROW = {
    "merchant_id": pa.string(),
    "customer_key": pa.int64(),
    "customer_id": pa.string(),
    "recency_days": pa.int32(),
    "frequency": pa.int64(),
    "monetary_net": pa.decimal128(18, 2),
    "weekend_share": pa.float64(),
    "lifecycle_stage": pa.string(),
    "favourite_store_id": pa.string(),
    "is_private": pa.bool_(),
    "first_purchase_on": pa.date32(),
    "last_seen_at": pa.timestamp("us", tz="UTC"),
    "categories": pa.list_(pa.string()),
    "cluster_name": pa.string(),
}


def customers(spark: SparkSession, *cases: dict[str, Any]) -> DataFrame:
    """Feature rows; what a case leaves out is null, keys count from 1."""
    filled = [
        dict.fromkeys(ARROW) | {"merchant_id": "shop", "customer_key": i, "customer_id": str(i)} | case
        for i, case in enumerate(cases, 1)
    ]
    return spark.createDataFrame(pa.Table.from_pylist(filled, schema=pa.schema(list(ARROW.items()))))


KNOWN = {
    "recency_days": 30,
    "frequency": 3,
    "monetary_net": Decimal("0.10"),
    "weekend_share": 0.5,
    "lifecycle_stage": "new",
    "favourite_store_id": "a%b_c",
    "is_private": True,
    "first_purchase_on": date(2017, 12, 25),
    "last_seen_at": datetime(2017, 12, 31, 23, 59, tzinfo=UTC),
    "categories": ["WINE", "BREAD"],
}

# Each rule with its answer for the known customer; for the customer of whom nothing is known the answer is null,
# except of is_empty and is_not_empty.
TRUTHS: list[tuple[Rule, bool]] = [
    (feature("recency_days").equals(30), True),
    (feature("recency_days").equals(30.5), False),
    (feature("recency_days").not_equals(30), False),
    (feature("recency_days").not_equals(31), True),
    (feature("recency_days").is_in([1, 30]), True),
    (feature("recency_days").not_in([1, 30]), False),
    (feature("recency_days").not_in([1, 2]), True),
    (feature("recency_days").greater_than(30), False),
    (feature("recency_days").greater_than(29.5), True),
    (feature("recency_days").at_least(30), True),
    (feature("recency_days").less_than(30), False),
    (feature("recency_days").at_most(30), True),
    (feature("recency_days").at_most(10**15), True),
    (feature("recency_days").between(30, 31), True),
    (feature("recency_days").between(20, 29), False),
    (feature("monetary_net").equals(0.1), True),
    (feature("monetary_net").between(0, 0.09), False),
    (feature("weekend_share").at_least(0.5), True),
    (feature("lifecycle_stage").equals("new"), True),
    (feature("lifecycle_stage").is_in(["lost", "new"]), True),
    (feature("favourite_store_id").equals("A%B_C"), False),
    (feature("favourite_store_id").contains("%b_"), True),
    (feature("favourite_store_id").contains("_b%"), False),
    (feature("favourite_store_id").contains("a_b"), False),
    (feature("favourite_store_id").starts_with("a%"), True),
    (feature("favourite_store_id").starts_with("%"), False),
    (feature("favourite_store_id").equals("' OR '1'='1"), False),
    (feature("is_private").equals(True), True),
    (feature("is_private").not_equals(True), False),
    (feature("first_purchase_on").at_least(date(2017, 12, 25)), True),
    (feature("first_purchase_on").less_than(date(2017, 12, 25)), False),
    (feature("first_purchase_on").within_last_days(7), True),
    (feature("first_purchase_on").within_last_days(6), False),
    (feature("first_purchase_on").not_within_last_days(6), True),
    (feature("first_purchase_on").before(date(2017, 12, 26)), True),
    (feature("first_purchase_on").before(date(2017, 12, 25)), False),
    (feature("last_seen_at").after(datetime(2017, 12, 31, tzinfo=UTC)), True),
    (feature("first_purchase_on").anniversary_within_days(359), True),
    (feature("first_purchase_on").anniversary_within_days(358), False),
    (feature("last_seen_at").within_last_days(1), True),
    (feature("last_seen_at").within_last_days(0), False),
    (feature("last_seen_at").greater_than(datetime(2017, 12, 31, 23, 58, tzinfo=UTC)), True),
    (feature("categories").contains("WINE"), True),
    (feature("categories").contains("WIN"), False),
    (~feature("recency_days").equals(30), False),
    (feature("recency_days").equals(30) & feature("frequency").equals(4), False),
    (feature("recency_days").equals(30) | feature("frequency").equals(4), True),
]
EMPTINESS: list[tuple[Rule, bool, bool]] = [
    (feature(name).is_empty(), False, True) for name in ("recency_days", "favourite_store_id", "categories")
] + [(feature(name).is_not_empty(), True, False) for name in ("recency_days", "is_private", "categories")]


def test_every_operator_answers_and_null_is_unknown(spark: SparkSession) -> None:
    rules = [rule for rule, _ in TRUTHS] + [rule for rule, _, _ in EMPTINESS]
    answers = [Compiler(FEATURES, AS_OF).rule(rule).alias(f"r{i}") for i, rule in enumerate(rules)]

    known, unknown = customers(spark, KNOWN, {}).select("customer_key", *answers).orderBy("customer_key").collect()

    said = {str(rule): (known[f"r{i}"], unknown[f"r{i}"]) for i, rule in enumerate(rules)}
    assert said == {str(rule): (truth, None) for rule, truth in TRUTHS} | {str(r): (k, u) for r, k, u in EMPTINESS}


def test_python_answers_what_spark_answers() -> None:
    customer = dict(KNOWN)
    for rule, truth in TRUTHS:
        assert explain(rule, Observed(AS_OF, FEATURES, customer)).truth is truth, rule
        assert explain(rule, Observed(AS_OF, FEATURES)).truth is None, rule
    for rule, known, unknown in EMPTINESS:
        assert explain(rule, Observed(AS_OF, FEATURES, customer)).truth is known
        assert explain(rule, Observed(AS_OF, FEATURES)).truth is unknown
    tested = {c.op for rule, *_ in [*TRUTHS, *EMPTINESS] for c in conditions_of(rule)}
    assert tested == {o.name for o in OPERATORS.values() if o.shape != "percent"}


def test_a_percentile_is_of_the_website_and_ties_are_in(spark: SparkSession) -> None:
    frame = customers(
        spark,
        *[{"frequency": n} for n in (1, 2, 2, 3, 5, 8, 8, 9, 10, 10, None)],
        *[{"frequency": n, "merchant_id": "other"} for n in (100, 200)],
    )
    segments = [
        Segment("top", "Top", feature("frequency").top_percent(10)),
        Segment("low", "Low", feature("frequency").bottom_percent(20)),
        Segment("rest", "Rest", ~feature("frequency").top_percent(10)),
    ]
    rows = evaluate_segments(frame, segments, as_of=AS_OF, catalogue=FEATURES).orderBy("customer_key").collect()
    found = {s: [r.customer_key for r in rows if s in r.segment_ids] for s in ("top", "low", "rest")}
    # 10 values: the ninetieth percentile is 10, the twentieth 2; of the two others it is 190 and 120.
    assert found == {"top": [9, 10, 13], "low": [1, 2, 3, 12], "rest": [1, 2, 3, 4, 5, 6, 7, 8, 12]}


def test_ties_at_a_cut_that_binary_shares_miss_are_in(spark: SparkSession) -> None:
    """0.55 of 100 places is a hair above the 55th, 0.29 a hair below the 29th."""
    top = {f: feature(f).top_percent(45) for f in ("frequency", "weekend_share")}
    low = {f: feature(f).bottom_percent(29) for f in ("recency_days", "monetary_net")}

    def tied(first: int, last: int, at: int, n: int) -> int:
        """The n-th of 101 values in order, with those from the first to the last the same."""
        return at if first <= n <= last else at + n - (first if n < first else last)

    places = [{"top": tied(46, 55, 0, n), "low": tied(29, 38, 0, n)} for n in range(101)]
    frame = customers(
        spark,
        *[
            {
                "frequency": p["top"],
                "weekend_share": (p["top"] + 200) / 3,
                "recency_days": p["low"],
                "monetary_net": Decimal(10**9) + Decimal(p["low"]) / 100,
            }
            for p in places
        ],
    )
    rules = {**top, **low}
    segments = [Segment(name, name, rule) for name, rule in rules.items()]
    placed = evaluate_segments(frame, segments, as_of=AS_OF, catalogue=FEATURES).collect()
    found = {name: sum(name in r.segment_ids for r in placed) for name in rules}
    assert found == {"frequency": 55, "weekend_share": 55, "recency_days": 39, "monetary_net": 39}

    prepared, names = add_cuts(frame, list(rules.values()))
    told = [r.asDict() for r in prepared.collect()]
    seen = [Observed(AS_OF, FEATURES, r, cuts={c: r[name] for c, name in names.cuts.items()}) for r in told]
    assert {name: sum(explain(rule, o).truth is True for o in seen) for name, rule in rules.items()} == found


def test_a_segment_may_ask_for_others_in_any_order(spark: SparkSession) -> None:
    segments = [
        Segment("a", "A", in_segment("b") & feature("recency_days").at_most(5)),
        Segment("b", "B", ~in_segment("c"), website_ids=("shop",)),
        Segment("c", "C", feature("frequency").at_least(3)),
    ]
    frame = customers(spark, {"recency_days": 1, "frequency": 1}, {"recency_days": 1, "frequency": 3}, {})
    rows = evaluate_segments(frame, segments, as_of=AS_OF, catalogue=FEATURES).orderBy("customer_key").collect()
    assert [r.segment_ids for r in rows] == [["a", "b"], ["c"], ["b"]]


def test_unknown_spreads_through_all_any_and_not(spark: SparkSession) -> None:
    unknown, yes, no = (
        feature("frequency").equals(1),
        feature("recency_days").equals(1),
        feature("recency_days").equals(2),
    )
    cases: list[tuple[Rule, bool | None]] = [
        (unknown & yes, None),
        (unknown & no, False),
        (unknown | yes, True),
        (unknown | no, None),
        (~unknown, None),
        (~(unknown & no), True),
        (all_of(yes, any_of(no, ~no)), True),
    ]

    answers = [Compiler(FEATURES, AS_OF).rule(rule) for rule, _ in cases]
    row = customers(spark, {"recency_days": 1}).select(*answers).collect()[0]

    assert list(row) == [truth for _, truth in cases]


def test_a_list_with_a_null_does_not_have_another_value(spark: SparkSession) -> None:
    lists: list[list[str | None] | None] = [["WINE", None], ["BREAD", None], [None], [], None]
    rule = feature("categories").contains("WINE")
    frame = customers(spark, *[{"categories": held} for held in lists]).orderBy("customer_key")

    assert [r[0] for r in frame.select(Compiler(FEATURES, AS_OF).rule(rule)).collect()] == [True, *[False] * 3, None]
    told = [explain(rule, Observed(AS_OF, FEATURES, {"categories": held})).truth for held in lists]
    assert told == [True, *[False] * 3, None]


def test_empty_text_and_empty_lists_are_empty(spark: SparkSession) -> None:
    frame = customers(
        spark, {"favourite_store_id": "", "categories": []}, {"favourite_store_id": " ", "categories": [None]}
    )
    rule = feature("favourite_store_id").is_empty() & feature("categories").is_empty()

    assert [r[0] for r in frame.select(Compiler(FEATURES, AS_OF).rule(rule)).collect()] == [True, False]


def test_only_true_is_in_and_priority_picks_the_primary(spark: SparkSession) -> None:
    recent, often = feature("recency_days").at_most(30), feature("frequency").at_least(3)
    segments = [
        Segment("recent", "Recent", recent, priority=20),
        Segment("not_recent", "Not recent", ~recent, priority=30),
        Segment("often", "Often", often, priority=10),
        Segment("abroad", "Abroad", often, priority=1, website_ids=("other",)),
        Segment("also_often", "Also often", often, priority=20),
    ]
    frame = customers(spark, {"recency_days": 1, "frequency": 3}, {"recency_days": 1}, {"recency_days": 99}, {})

    rows = evaluate_segments(frame, segments, as_of=AS_OF, catalogue=FEATURES).orderBy("customer_key").collect()

    assert [(r.segment_ids, r.primary_segment_id) for r in rows] == [
        (["also_often", "often", "recent"], "often"),
        (["recent"], "recent"),
        (["not_recent"], "not_recent"),
        ([], None),
    ]


def test_no_segment_at_all_leaves_everyone_in_none(spark: SparkSession) -> None:
    rows = evaluate_segments(customers(spark, {}), [], as_of=AS_OF, catalogue=FEATURES).collect()

    assert [(r.segment_ids, r.primary_segment_id) for r in rows] == [([], None)]


def test_two_hundred_segments_take_one_scan(spark: SparkSession) -> None:
    segments = [
        Segment(f"s{i:03}", f"S{i}", feature("recency_days").at_most(i) & ~feature("frequency").equals(i))
        for i in range(200)
    ]
    frame = customers(spark, {"recency_days": 150, "frequency": 160}, {"recency_days": 0, "frequency": -1})

    found = evaluate_segments(frame, segments, as_of=AS_OF, catalogue=FEATURES)

    rows = found.orderBy("customer_key").collect()
    assert [len(r.segment_ids) for r in rows] == [200 - 150 - 1, 200]
    assert rows[0].segment_ids == [f"s{i:03}" for i in range(150, 200) if i != 160]
    plan = found._jdf.queryExecution().optimizedPlan().toString()
    assert plan.count("LogicalRDD") + plan.count("LocalRelation") == 1
    assert "Join" not in plan


def test_fifty_levels_and_three_hundred_conditions_evaluate(spark: SparkSession) -> None:
    deep: Rule = feature("frequency").equals(1)
    for _ in range(50):
        deep = ~(deep & feature("recency_days").at_most(9))
    wide = all_of(*[feature("frequency").not_equals(n) for n in range(2, 302)])
    segments = [Segment("deep", "Deep", deep), Segment("wide", "Wide", wide)]

    rows = (
        evaluate_segments(
            customers(spark, {"frequency": 1, "recency_days": 1}, {"frequency": 301, "recency_days": 1}),
            segments,
            as_of=AS_OF,
            catalogue=FEATURES,
        )
        .orderBy("customer_key")
        .collect()
    )

    assert [r.segment_ids for r in rows] == [["deep", "wide"], []]


def test_features_of_the_day_meet_clusters_of_the_day(spark: SparkSession) -> None:
    day = F.lit(AS_OF).alias("as_of")
    other = F.lit(date(2017, 12, 1)).alias("as_of")
    frame = customers(spark, {"frequency": 1, "cluster_name": "a"}, {"frequency": 2, "cluster_name": "b"})
    plain = frame.drop("cluster_name")
    features = plain.select("*", day).union(plain.select("*", other))
    clusters = frame.where("customer_key = 1").select("merchant_id", "customer_key", "cluster_name", day)
    segments = [Segment("a", "A", feature("cluster_name").equals("a") & feature("frequency").at_least(1))]

    joined = join_features(features, {"feature.customer_cluster": clusters}, segments, as_of=AS_OF, catalogue=FEATURES)

    assert joined.columns == ["merchant_id", "customer_key", "customer_id", "frequency", "cluster_name"]
    assert sorted((r.customer_key, r.cluster_name) for r in joined.collect()) == [(1, "a"), (2, None)]


def test_a_customer_group_is_the_one_of_the_day_and_no_group_is_in_none(spark: SparkSession) -> None:
    def version(key: int, group: str | None, start: datetime, end: datetime | None = None) -> dict[str, Any]:
        of = {"merchant_id": "shop", "customer_key": key, "household_composition": group}
        return of | {"valid_from": start, "valid_to": end, "is_current": end is None}

    then, moved, after = datetime(2017, 1, 1), datetime(2017, 6, 1), datetime(AS_OF.year, AS_OF.month, AS_OF.day)
    versions = [
        version(1, "Single", then, moved),
        version(1, "Family", moved),
        version(2, "Family", then, moved),
        version(2, "Single", moved),
        version(3, "Single", then, after + timedelta(days=1)),
        version(3, "Family", after + timedelta(days=1)),
        version(4, None, then),
    ]
    families = Segment("families", "Families", feature("frequency").at_least(1), customer_group_ids=("Family",))
    others = Segment("others", "Others", feature("frequency").at_least(1))
    catalogue = FEATURES | {GROUP: declared_features()[GROUP]}
    features = customers(spark, *[{"frequency": 2}] * 5).withColumn("as_of", F.lit(AS_OF))
    more = {CUSTOMERS: rows(spark, CUSTOMERS, versions)}

    joined = join_features(features, more, [families, others], as_of=AS_OF, catalogue=catalogue)
    found = evaluate_segments(joined, [families, others], as_of=AS_OF, catalogue=catalogue).collect()
    assert {int(r.customer_id): r.segment_ids for r in found} == {
        1: ["families", "others"],
        **{n: ["others"] for n in (2, 3, 4, 5)},
    }
    seen = {r.customer_id: Observed(AS_OF, catalogue, r.asDict(), (), "shop") for r in joined.collect()}
    assert {int(n) for n, observed in seen.items() if is_in(families, observed)} == {1}
    plan = Plan.of([families, others])
    assert Condition(GROUP, "in", ("Family",)) in plan.on_features
