"""Features worked by hand, and two properties over random histories: only the past counts, and carrying forward."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from features.affinity import build_customer_categories
from features.build import build_customer_features
from features.cohort import build_cohort_retention
from features.movement import build_lifecycle_flow, build_rfm_migration
from features.rfm import build_rfm_boundaries
from features.rules import FeatureRules, LifecycleRules, MerchantRules
from lakehouse.declare import table_of
from tests.support.hold import held
from tests.support.rows import rows

pytestmark = pytest.mark.spark

AS_OF = date(2024, 7, 1)
Row = dict[str, Any]


def days_before(n: int, as_of: date = AS_OF) -> date:
    return as_of - timedelta(days=n)


_numbers = iter(range(1, 10_000_000))


def line(customer: str | None, day: date, amount: float = 10, *, merchant: str = "m", **more: Any) -> Row:
    """A sale of one piece, unless told otherwise; negative amounts are returns."""
    number = next(_numbers)
    is_sale = amount >= 0 and more.get("txn_type", "sale") == "sale"
    money = Decimal(str(amount))
    return {
        "transaction_id": number,
        "merchant_id": merchant,
        "customer_id": customer,
        "basket_id": f"b{number}",
        "product_id": "p",
        "store_id": "s1",
        "channel_id": "store",
        "txn_type": "sale" if is_sale else "return",
        "business_date": day,
        "hour_of_day": 10,
        "quantity": Decimal(1 if is_sale else -1),
        "gross_amount": money,
        "amount": money,
        "is_valid_purchase": is_sale and customer is not None,
    } | more


class World:
    """Inputs of a build as plain rows, and the frames made of them."""

    def __init__(self, spark: SparkSession, facts: Iterable[Row] = (), **others: list[Row]):
        self.spark = spark
        self.facts = list(facts)
        self.others = others

    def frame(self, table: str, cases: Iterable[Mapping[str, Any]]) -> DataFrame:
        return rows(self.spark, table, cases)

    def fact_frame(self, cases: list[Row]) -> DataFrame:
        key = F.when(F.col("customer_id").isNotNull(), F.xxhash64("merchant_id", "customer_id"))
        return self.frame("gold.fact_transactions", cases).withColumn("customer_key", key)

    def customers(self) -> DataFrame:
        known = sorted({(r["merchant_id"], r["customer_id"]) for r in self.facts if r["customer_id"]})
        cases = [{"merchant_id": m, "customer_id": c, "is_current": True} for m, c in known]
        return self.frame("gold.dim_customer", cases).withColumn(
            "customer_key", F.xxhash64("merchant_id", "customer_id")
        )

    def build(
        self,
        as_of: date = AS_OF,
        *,
        previous: DataFrame | None = None,
        changed: list[Row] | None = None,
        changed_products: list[Row] | None = None,
        changed_promotions: list[Row] | None = None,
        hour: int = 3,
        rules: FeatureRules | None = None,
    ) -> DataFrame:
        given = self.others

        def of(table: str, short: str) -> DataFrame:
            return self.frame(table, given.get(short, []))

        return build_customer_features(
            self.fact_frame(self.facts),
            self.fact_frame(changed or []),
            of("gold.dim_product", "products"),
            self.frame("gold.dim_product", changed_products or []),
            self.customers(),
            of("silver.campaign", "campaigns"),
            of("silver.campaign_contact", "contacts"),
            of("silver.coupon_redemption", "redemptions"),
            of("silver.promotion", "promotions"),
            self.frame("silver.promotion", changed_promotions or []),
            as_of=as_of,
            started_at=datetime.fromisoformat(f"2024-07-01 {hour:02}:00"),
            previous=previous,
            feature_rules=rules or FeatureRules(),
            hold=held,
        )


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_held(spark: SparkSession) -> Iterator[None]:
    """The session compares every later plan with each frame it keeps."""
    yield
    spark.catalog.clearCache()


def by_customer(frame: DataFrame) -> dict[str, Row]:
    return {r["customer_id"]: r.asDict() for r in frame.collect()}


@pytest.fixture(scope="module")
def worked(spark: SparkSession) -> dict[str, Row]:
    """Every hand-worked case in one build."""
    facts = [
        # yesterday, today, and the day after: only yesterday has happened
        line("edge", days_before(1), 10),
        line("edge", AS_OF, 100),
        line("edge", days_before(-1), 1000),
        # a guest, and an adjustment of a known customer
        line(None, days_before(3), 50),
        line("edge", days_before(2), -5, txn_type="adjustment"),
        # a basket of two lines, half of it returned and matched; a basket cancelled whole; an unmatched return
        line("back", days_before(20), 30, basket_id="kept"),
        line("back", days_before(20), 10, basket_id="kept", hour_of_day=22),
        line("back", days_before(5), -10, basket_id="r1", original_basket_id="kept"),
        line("back", days_before(10), 25, basket_id="gone"),
        line("back", days_before(9), -25, basket_id="r2", original_basket_id="gone"),
        line("back", days_before(2), -3, basket_id="r3"),
        line("only-returns", days_before(4), -8),
        # gaps of 10, 20 and 30 days; two baskets on one of the days
        line("gaps", days_before(61), 1),
        line("gaps", days_before(51), 2),
        line("gaps", days_before(31), 4),
        line("gaps", days_before(31), 8),
        line("gaps", days_before(1), 16),
        # both edges of the windows: 7 days back is inside, 8 is not; 91 to 180 is the period before
        line("windows", days_before(7), 1),
        line("windows", days_before(8), 2),
        line("windows", days_before(90), 4),
        line("windows", days_before(91), 8),
        line("windows", days_before(180), 16),
        line("windows", days_before(181), 32),
        line("windows", days_before(366), 64),
        # where and what: a tie of stores goes to the one visited last, a tie of categories to the alphabet
        line("taste", days_before(9), 6, store_id="s1", product_id="tea", hour_of_day=6),
        line("taste", days_before(8), 6, store_id="s2", product_id="jam", hour_of_day=17, channel_id="online"),
        line("taste", days_before(7), 3, store_id=None, product_id="post", hour_of_day=21, channel_id="online"),
        # what it cost
        line("price", days_before(3), 6, gross_amount=Decimal(10), discount_amount=Decimal(3),
             coupon_amount=Decimal(1), quantity=Decimal("2.5")),
        # life cycle
        line("weekly", days_before(85), 1),
        *[line("weekly", days_before(d), 1) for d in (78, 71, 64, 57, 50, 43, 36, 29)],
        *[line("gone", days_before(d), 1) for d in (300, 290, 280)],
        *[line("returned", days_before(d), 1) for d in (400, 390, 380, 10)],
        line("once", days_before(45), 1),
        line("newcomer", days_before(30), 1),
    ]  # fmt: skip
    products = [
        {"merchant_id": "m", "product_id": "tea", "category": "tea", "department": "drinks", "brand_type": "Private",
         "manufacturer_id": "1", "is_merchandise": True},
        {"merchant_id": "m", "product_id": "jam", "category": "jam", "department": "food", "brand_type": "National",
         "manufacturer_id": "2", "is_merchandise": True},
        {"merchant_id": "m", "product_id": "post", "is_merchandise": False},
    ]  # fmt: skip
    campaigns = [
        {"merchant_id": "m", "campaign_id": "c1", "starts_on": days_before(50), "ends_on": AS_OF},
        {"merchant_id": "m", "campaign_id": "c2", "starts_on": days_before(1), "ends_on": AS_OF},
        {"merchant_id": "m", "campaign_id": "c3", "starts_on": AS_OF, "ends_on": AS_OF},
    ]
    contacts = [{"merchant_id": "m", "campaign_id": c, "customer_id": "taste"} for c in ("c1", "c2", "c3")]
    redemptions = [
        {"merchant_id": "m", "customer_id": "taste", "campaign_id": "c1", "coupon_id": c, "redeemed_on": days_before(d)}
        for c, d in (("k1", 3), ("k2", 2), ("k3", 0))
    ]
    placed = {"merchant_id": "m", "week_starts_on": date(2024, 6, 17)}
    promotions = [
        {**placed, "product_id": "tea", "store_id": "s1", "is_displayed": True},  # tea was bought on June 22
        {**placed, "product_id": "jam", "store_id": "s1", "is_in_mailer": True},  # jam was bought in another store
    ]
    world = World(spark, facts, products=products, campaigns=campaigns, contacts=contacts, redemptions=redemptions,
                  promotions=promotions)  # fmt: skip
    frame = world.build()
    assert frame.columns == list(table_of("feature.customer").column_names)
    return by_customer(frame)


def has(row: Row, **expected: Any) -> None:
    assert {k: row[k] for k in expected} == expected


def test_only_days_before_as_of_count(worked):
    has(worked["edge"], baskets=1, recency_days=1, tenure_days=1, monetary_net=Decimal(10),
        last_purchase_on=days_before(1))  # fmt: skip


def test_guests_and_mere_returners_are_no_customers(worked):
    assert None not in worked
    assert "only-returns" not in worked


def test_frequency_counts_baskets_that_were_not_wholly_given_back(worked):
    has(worked["back"], baskets=2, frequency=1, monetary_gross=Decimal(65), monetary_net=Decimal(27))
    assert worked["back"]["return_rate"] == 38 / 65
    # A matched return counts on the day of its purchase, an unmatched one on its own.
    has(worked["back"], spend_7d=Decimal(-3), spend_30d=Decimal(27), visits_30d=2)


def test_gaps_are_between_days_not_baskets(worked):
    has(worked["gaps"], baskets=5, purchase_days=4, inter_purchase_days_mean=20.0, inter_purchase_days_sd=10.0,
        longest_gap_days=30, longest_gap_ended_on=days_before(1), cadence_days=15.0)  # fmt: skip
    has(worked["once"], inter_purchase_days_mean=None, inter_purchase_days_sd=None, longest_gap_days=None)


def test_windows_are_half_open(worked):
    has(worked["windows"], spend_7d=Decimal(1), spend_30d=Decimal(3), spend_90d=Decimal(7), spend_365d=Decimal(63),
        spend_previous_90d=Decimal(24), visits_7d=1, visits_30d=2, visits_90d=3, visits_365d=6)  # fmt: skip
    assert worked["windows"]["spend_trend"] == (7 - 24) / 31
    # The purchase 7 days back leaves the 7-day window tomorrow.
    assert worked["windows"]["windows_move_on"] == days_before(-1)


def test_favourites_and_breadth(worked):
    has(worked["taste"], favourite_store_id="s2", favourite_store_share=1 / 3, favourite_category="jam",
        favourite_category_share=0.5, distinct_categories=2, distinct_departments=2, distinct_brand_types=2,
        distinct_manufacturers=2, distinct_stores=2, distinct_channels=2, items=2.0,
        private_label_share=0.5)  # fmt: skip
    # June 22 to 24, 2024 are a Saturday, a Sunday and a Monday.
    has(worked["taste"], morning_share=1 / 3, evening_share=2 / 3, afternoon_share=0.0, night_share=0.0,
        weekend_share=2 / 3, weekday_share=1 / 3, favourite_weekday="monday")  # fmt: skip


def test_price_shares_are_of_shelf_value(worked):
    has(worked["price"], discount_share=0.3, coupon_share=0.1, items=2.5, basket_size_mean=2.5, basket_value_mean=6.0)


def test_unknown_is_null_and_none_is_zero(worked):
    has(worked["once"], favourite_category=None, favourite_category_share=None, distinct_categories=0,
        private_label_share=None, redemption_rate=None, campaigns_contacted=0, coupons_redeemed=0,
        last_contacted_on=None, return_rate=0.0)  # fmt: skip


def test_season_shares(worked):
    # Three quarters of gaps' value: days 61, 51, 31 and 1 before July 1 all lie in the second.
    has(worked["gaps"], busiest_quarter=2, busiest_quarter_share=1.0, fourth_quarter_share=0.0)


def test_campaigns_and_coupons(worked):
    has(worked["taste"], campaigns_contacted=2, last_contacted_on=days_before(1), coupons_redeemed=2,
        last_redeemed_on=days_before(2), redemption_rate=0.5)  # fmt: skip


def test_promotions_meet_lines_by_product_store_and_week(worked):
    assert worked["taste"]["display_line_share"] == 1 / 3
    has(worked["taste"], mailer_line_share=0.0, promoted_spend_share=0.4)
    has(worked["once"], display_line_share=0.0)


def test_life_cycle_is_measured_in_own_cadences(worked):
    stages = {c: (r["lifecycle_stage"], r["purchase_pattern"]) for c, r in worked.items()}
    assert stages["newcomer"] == ("new", "first")
    assert stages["once"] == ("active", "first")
    assert stages["weekly"] == ("lost", "stopped")  # 29 days of silence at a cadence of 7
    assert stages["gone"] == ("lost", "stopped")
    assert stages["returned"] == ("won_back", "resumed")
    assert stages["gaps"] == ("active", "regular")


def test_scores_share_ties_and_name_a_group(worked):
    for r in worked.values():
        assert r["rfm_score"] == 100 * r["r_score"] + 10 * r["f_score"] + r["m_score"]
    by_frequency: dict[int, set[int]] = {}
    for r in worked.values():
        by_frequency.setdefault(r["frequency"], set()).add(r["f_score"])
    assert all(len(scores) == 1 for scores in by_frequency.values())
    has(worked["edge"], r_score=5)
    has(worked["gone"], r_score=1)


def test_scores_boundaries_and_custom_cut_points(spark):
    """Five customers per merchant; one merchant cuts frequency itself."""
    facts = [line(f"{m}{n}", days_before(10 * n), 100 * n, merchant=m) for m in ("fifths", "own") for n in range(1, 6)]
    rules = FeatureRules.model_validate(
        {"merchants": {"own": {"rfm_cut_points": {"frequency": [0.5, 2, 3, 4], "monetary_net": [100, 200, 450, 900]}}}}
    )
    built = World(spark, facts).build(rules=rules).localCheckpoint()
    got = {c: (r["r_score"], r["f_score"], r["m_score"]) for c, r in by_customer(built).items()}
    assert [got[f"fifths{n}"] for n in range(1, 6)] == [(5, 1, 1), (4, 1, 2), (3, 1, 3), (2, 1, 4), (1, 1, 5)]
    assert [got[f"own{n}"] for n in range(1, 6)] == [(5, 2, 1), (4, 2, 2), (3, 2, 3), (2, 2, 3), (1, 2, 4)]
    stored = build_rfm_boundaries(built, as_of=AS_OF, feature_rules=rules)
    assert stored.columns == list(table_of("feature.rfm_boundary").column_names)
    edges = {(r.merchant_id, r.measure, r.score): (r.lower, r.upper, r.customers) for r in stored.collect()}
    assert len(edges) == 30
    assert edges["own", "monetary_net", 3] == (200.0, 450.0, 2)
    assert edges["own", "monetary_net", 5] == (900.0, None, 0)
    assert edges["fifths", "recency_days", 5] == (None, pytest.approx(18.0), 1)
    assert edges["fifths", "recency_days", 1] == (pytest.approx(42.0), None, 1)


def test_many_manufacturers_and_stores_are_counted_exactly(spark):
    """More values than bits: 300 manufacturers, 70 departments, 70 stores."""
    products = [
        {"merchant_id": "m", "product_id": f"p{i}", "category": f"c{i}", "department": f"d{i % 70}",
         "manufacturer_id": f"{i}", "is_merchandise": True}
        for i in range(300)
    ]  # fmt: skip
    facts = [line("all", days_before(9), product_id=f"p{i}", store_id=f"s{i % 70}") for i in range(300)]
    facts += [line("few", days_before(9), product_id=f"p{i}") for i in (0, 69, 299)]
    got = by_customer(World(spark, facts, products=products).build())
    names = ("distinct_categories", "distinct_departments", "distinct_manufacturers", "distinct_stores")
    assert [got["all"][n] for n in names] == [300, 70, 300, 70]
    assert [got["few"][n] for n in names] == [3, 3, 3, 1]


def test_affinity_compares_shares(spark):
    """Tea is half of a's value but a quarter of everyone's: index 2."""
    products = [
        {"merchant_id": "m", "product_id": p, "category": p, "is_merchandise": True} for p in ("tea", "jam", "oil")
    ]
    facts = [
        line("a", days_before(3), 10, product_id="tea", basket_id="1"),
        line("a", days_before(2), 4, product_id="jam", basket_id="2"),
        line("a", days_before(1), 6, product_id="jam", basket_id="2"),
        line("b", days_before(1), 20, product_id="jam"),
        line("b", AS_OF, 99, product_id="tea"),
    ]
    w = World(spark, facts)
    built = build_customer_categories(
        w.fact_frame(facts), w.frame("gold.dim_product", products), as_of=AS_OF, feature_rules=FeatureRules()
    )
    assert built.columns == list(table_of("feature.customer_category").column_names)
    got = {(r.spend, r.category): r for r in built.collect()}
    tea, jam = got[Decimal(10), "tea"], got[Decimal(10), "jam"]
    assert (tea["rank"], tea.baskets, tea.spend_share, tea.affinity_index) == (2, 1, 0.5, 2.0)
    assert (jam["rank"], jam.baskets, jam.last_bought_on) == (1, 1, days_before(2)), "the day its receipt began"
    assert got[Decimal(20), "jam"].affinity_index == pytest.approx(4 / 3)


def test_cohorts(spark):
    """Two start in January, one of them returns in March; one starts in December before."""
    facts = [
        line("a", date(2024, 1, 5), 1),
        line("a", date(2024, 3, 5), 2),
        line("a", date(2024, 3, 9), 3),
        line("b", date(2024, 1, 31), 4),
        line("c", date(2023, 12, 31), 5),
        line("c", date(2024, 7, 1), 9),
    ]
    # A receipt of two days, over the end of a month, is one of its first.
    facts += [line("a", date(2024, 3, 31), 1, basket_id="late"), line("a", date(2024, 4, 1), 2, basket_id="late")]
    built = build_cohort_retention(World(spark).fact_frame(facts), as_of=AS_OF)
    assert sorted(built.columns) == sorted(table_of("feature.cohort_retention").column_names)
    got = {(r.cohort_month, r.month_number): (r.customers, r.active, r.spend) for r in built.collect()}
    assert got == {
        (date(2023, 12, 1), 0): (1, 1, Decimal(5)),
        (date(2024, 1, 1), 0): (2, 2, Decimal(5)),
        (date(2024, 1, 1), 2): (2, 1, Decimal(8)),
    }


def test_movement_between_slices(spark):
    """x stays, y moves, z appears; a slice in between is not looked at when it is not the newest earlier one.

    w bought before the earlier slice was made and was delivered after it: that is no move.
    """
    newest = date(2024, 6, 20)
    began = {"z": newest, "w": date(2024, 6, 19)}

    def slice_(as_of: date, **stages: str) -> list[Row]:
        return [
            {"merchant_id": "m", "customer_key": ord(c), "as_of": as_of, "lifecycle_stage": s, "rfm_group": "loyal",
             "r_score": 3, "monetary_net": Decimal(as_of.day), "first_purchase_on": began.get(c, date(2024, 1, 1))}
            for c, s in stages.items()
        ]  # fmt: skip

    cases = [
        *slice_(date(2024, 6, 1), x="lost", y="lost"),
        *slice_(date(2024, 6, 20), x="active", y="active"),
        *slice_(date(2024, 6, 30), x="active", y="lapsing", z="new", w="lost"),
    ]
    slices = rows(spark, "feature.customer", cases)
    flow = build_lifecycle_flow(slices, as_of=date(2024, 6, 30))
    assert flow.columns == list(table_of("feature.lifecycle_flow").column_names)
    got = {(r.from_as_of, r.from_stage, r.to_stage): (r.customers, r.spend) for r in flow.collect()}
    assert got == {
        (newest, "active", "active"): (1, Decimal(10)),
        (newest, "active", "lapsing"): (1, Decimal(10)),
        (newest, "absent", "new"): (1, Decimal(30)),
    }
    moves = build_rfm_migration(slices, as_of=date(2024, 6, 30))
    assert moves.columns == list(table_of("feature.rfm_migration").column_names)
    found = {(r.measure, r.from_group, r.to_group): r.customers for r in moves.collect()}
    assert found["rfm_group", "loyal", "loyal"] == 2
    assert found["r_score", "absent", "3"] == 1
    afterwards = build_lifecycle_flow(slices, as_of=date(2024, 6, 1))
    assert {(r.from_as_of, r.to_as_of, r.from_stage, r.to_stage, r.customers) for r in afterwards.collect()} == {
        (date(2024, 6, 1), newest, "lost", "active", 2)
    }, "what was told of the next slice is told anew when one comes before it"
    between = build_lifecycle_flow(slices, as_of=newest)
    assert {(r.from_as_of, r.to_as_of) for r in between.collect()} == {
        (date(2024, 6, 1), newest),
        (newest, date(2024, 6, 30)),
    }
    assert build_lifecycle_flow(slices.where(F.col("as_of") == newest), as_of=newest).collect() == []


def test_a_line_that_is_neither_bought_nor_given_back_is_worth_nothing(spark):
    facts = [
        line("c", days_before(5), 8.9),
        line("c", days_before(3), 5, quantity=Decimal(0), is_valid_purchase=False),
    ]
    (row,) = World(spark, facts).build().collect()
    assert (row.monetary_gross, row.monetary_net, row.spend_7d) == (Decimal("8.90"), Decimal("8.90"), Decimal("8.90"))


def test_a_return_after_a_silence_counts_also_where_an_older_silence_was_longer(spark):
    """Weekly, 200 days of nothing a year ago, weekly again, 150 days of nothing, and back 10 days ago."""

    def weekly(first: int, last: int) -> list[Row]:
        return [line("c", days_before(n)) for n in range(first, last - 1, -7)]

    world = World(spark, [*weekly(696, 640), *weekly(440, 160), *[line("c", days_before(n)) for n in (10, 3)]])
    (row,) = world.build().collect()
    assert (row.longest_gap_days, row.returned_after_days) == (200, 150)
    assert (row.lifecycle_stage, row.purchase_pattern) == ("won_back", "resumed")

    short = FeatureRules(merchants={"m": MerchantRules(lifecycle=LifecycleRules(won_back_days=9))})
    (other,) = world.build(rules=short).collect()
    assert (other.returned_after_days, other.lifecycle_stage) == (7, "active")
    # As rows: the plan of one build within that of another is kept by the session, and slows what comes after.
    before = spark.createDataFrame(world.build().toArrow())
    carried = world.build(previous=before, rules=short, hour=4)
    assert_df_equality(carried, world.build(rules=short), ignore_columns=["built_at"], ignore_nullable=True)
    later = AS_OF + timedelta(days=51)
    carried = world.build(later, previous=before, hour=4)
    assert_df_equality(carried, world.build(later), ignore_columns=["built_at"], ignore_nullable=True)
    assert carried.collect()[0].returned_after_days == 7


class Histories:
    """Random histories of many merchants at once; every merchant is a case."""

    def __init__(self, seed: int, merchants: int = 60):
        self.random = random.Random(seed)
        self.merchants = [f"m{i:02}" for i in range(merchants)]
        self.facts: list[Row] = []
        for m in self.merchants:
            self.facts += [self.line(m) for _ in range(self.random.randint(1, 14))]
        self.products = [
            {"merchant_id": m, "product_id": f"p{i}", "category": f"c{i % 3}", "department": f"d{i % 2}",
             "brand_type": self.random.choice(["Private", "National", None]), "manufacturer_id": f"{i}",
             "is_merchandise": i != 4}
            for m in self.merchants
            for i in range(5)
        ]  # fmt: skip
        self.promotions: list[Row] = []
        self.change_promotions()
        each = [(m, n) for m in self.merchants for n in range(self.random.randint(0, 3))]
        self.campaigns = [
            {"merchant_id": m, "campaign_id": f"n{n}", "starts_on": AS_OF + timedelta(days=self.random.randint(-9, 3))}
            for m, n in each
        ]
        self.contacts = [
            {"merchant_id": m, "campaign_id": f"n{n}", "customer_id": c}
            for m, n in each
            for c in "abc"
            if self.random.random() < 0.5
        ]
        self.redemptions = [
            {"merchant_id": m, "campaign_id": f"n{n}", "customer_id": c, "coupon_id": f"k{day}",
             "redeemed_on": AS_OF + timedelta(days=day)}
            for m, n in each
            for c, day in self.random.sample([(c, day) for c in "abc" for day in (-2, -1, 0, 1)], 3)
        ]  # fmt: skip

    def line(self, merchant: str) -> Row:
        r = self.random
        # Some days lie on the edges of windows and beyond any `as_of` used.
        day = AS_OF + timedelta(days=r.choice([-400, -366, -365, -181, -91, -90, -31, -30, -8, -7, -1, 0, 1, 39, 40])
                                if r.random() < 0.5 else r.randint(-500, 60))  # fmt: skip
        customer = r.choice(["a", "b", "c", None])
        amount = r.choice([1, 2.5, 7.25, 10, -1, -7.25])
        basket = f"b{r.randint(1, 6)}-{day}-{customer}"
        mine = [f["basket_id"] for f in self.facts if f["merchant_id"] == merchant and f["customer_id"] == customer]
        back = r.choice(mine) if amount < 0 and mine and r.random() < 0.7 else None
        return line(customer, day, amount, merchant=merchant, basket_id=basket, original_basket_id=back,
                    product_id=f"p{r.randint(0, 5)}", store_id=r.choice(["s1", "s2", None]),
                    channel_id=r.choice(["store", "online"]), hour_of_day=r.randint(0, 23))  # fmt: skip

    def change_facts(self) -> list[Row]:
        """Late, new, corrected, moved and deleted lines; some customers are not touched.

        Those there were come as they were before, too, as `changes(also_before=True)` tells them.
        """
        changed: list[Row] = []
        for m in self.merchants:
            if self.random.random() < 0.4:
                added = self.line(m)
                self.facts.append(added)
                changed.append(added | {"_deleted": False})
            mine = [f for f in self.facts if f["merchant_id"] == m]
            if mine and self.random.random() < 0.3:
                gone = self.random.choice(mine)
                self.facts.remove(gone)
                changed.append(gone | {"_deleted": True})
            if mine and self.random.random() < 0.4:
                wrong = self.random.choice(mine)
                if wrong in self.facts:
                    change = self.random.choice([self.correction, self.another_customer, self.another_day])
                    right = wrong | change(wrong)
                    self.facts[self.facts.index(wrong)] = right
                    changed += [wrong | {"_deleted": True}, right | {"_deleted": False}]
        return changed

    def correction(self, wrong: Row) -> Row:
        return {"amount": wrong["amount"] + 1, "hour_of_day": 23}

    def another_customer(self, wrong: Row) -> Row:
        customer = self.random.choice([c for c in ("a", "b", "c", None) if c != wrong["customer_id"]])
        is_valid = wrong["txn_type"] == "sale" and customer is not None
        return {"customer_id": customer, "is_valid_purchase": is_valid}

    def another_day(self, wrong: Row) -> Row:
        return {"business_date": wrong["business_date"] - timedelta(days=self.random.choice([-91, -7, 1, 31]))}

    def change_products(self) -> list[Row]:
        changed = [p for p in self.products if self.random.random() < 0.05]
        for p in changed:
            p |= {"category": "moved", "brand_type": "Private"}
        return changed

    def change_promotions(self) -> list[Row]:
        """Placements withdrawn, as they were before, and new ones; a merchant who has both moved one."""
        changed: list[Row] = []
        for m in self.merchants:
            mine = [p for p in self.promotions if p["merchant_id"] == m]
            if mine and self.random.random() < 0.4:
                gone = self.random.choice(mine)
                self.promotions.remove(gone)
                changed.append(gone | {"_deleted": True})
            weeks = self.random.randint(-1, 30)
            added = {"merchant_id": m, "product_id": f"p{self.random.randint(0, 4)}", "store_id": "s1",
                     "week_starts_on": date(2024, 6, 24) - timedelta(days=7 * weeks),
                     "is_displayed": True, "is_in_mailer": self.random.random() < 0.5}  # fmt: skip
            if self.random.random() < 0.4 and _place(added) not in [_place(p) for p in self.promotions]:
                self.promotions.append(added)
                changed.append(added | {"_deleted": False})
        return changed

    def world(self, spark: SparkSession, until: date = date.max) -> World:
        """Everything, or what happened before a day."""
        begun = [c for c in self.campaigns if c["starts_on"] < until]
        names = {(c["merchant_id"], c["campaign_id"]) for c in begun}
        return World(
            spark,
            [f for f in self.facts if f["business_date"] < until],
            products=self.products,
            campaigns=begun,
            contacts=[c for c in self.contacts if (c["merchant_id"], c["campaign_id"]) in names],
            redemptions=[r for r in self.redemptions if r["redeemed_on"] < until],
            promotions=[p for p in self.promotions if p["week_starts_on"] < until],
        )


def _place(p: Row) -> Row:
    return {k: p[k] for k in ("merchant_id", "product_id", "store_id", "week_starts_on")}


def contents(frame: DataFrame) -> dict[tuple[str, str, str], Row]:
    """Rows of a tagged frame by tag, merchant and customer, without when they were built."""
    found: dict[tuple[str, str, str], Row] = {}
    for r in frame.drop("built_at").collect():
        key = (r["tag"], r["merchant_id"], r["customer_id"])
        assert key not in found
        found[key] = {k: v for k, v in r.asDict().items() if k != "tag"}
    return found


def assert_same(tagged: DataFrame, one: str, other: str) -> int:
    found = contents(tagged)
    left = {k[1:]: v for k, v in found.items() if k[0] == one}
    right = {k[1:]: v for k, v in found.items() if k[0] == other}
    assert left.keys() == right.keys()
    for key, row in left.items():
        assert row == right[key], (key, {c: (row[c], right[key][c]) for c in row if row[c] != right[key][c]})
    return len(left)


def tagged(**frames: DataFrame) -> DataFrame:
    each = [f.withColumn("tag", F.lit(name)) for name, f in frames.items()]
    return each[0].unionByName(each[1])


@pytest.mark.slow
def test_the_future_changes_nothing(spark):
    histories = Histories(seed=7)
    everything, past = histories.world(spark), histories.world(spark, until=AS_OF)
    left_out = {n: len(rows) - len(past.others[n]) for n, rows in everything.others.items() if n != "products"}
    assert min(len(everything.facts) - len(past.facts), *left_out.values()) > 0
    assert assert_same(tagged(all=everything.build(), past=past.build()), "all", "past") > 60


@pytest.mark.slow
def test_carrying_forward_equals_building_from_nothing(spark):
    """60 merchants through four builds: forward by days and by weeks, the same day again, and back in time."""
    histories = Histories(seed=11)
    days = [AS_OF, AS_OF + timedelta(days=1), AS_OF + timedelta(days=40), AS_OF - timedelta(days=20),
            AS_OF - timedelta(days=20)]  # fmt: skip
    slices = spark.createDataFrame(histories.world(spark).build(days[0]).toArrow())
    for hour, as_of in enumerate(days[1:], start=4):
        changed = histories.change_facts()
        # The last two steps see only what the facts' own changes and time do.
        products = histories.change_products() if hour < 6 else []
        promotions = histories.change_promotions() if hour < 6 else []
        world = histories.world(spark)
        carried = world.build(
            as_of, previous=slices, changed=changed, changed_products=products, changed_promotions=promotions,
            hour=hour,
        )  # fmt: skip
        both = spark.createDataFrame(tagged(carried=carried, whole=world.build(as_of, hour=hour)).toArrow())
        assert assert_same(both, "carried", "whole") > 40
        now = both.where("tag = 'carried'").drop("tag")
        slices = slices.where(F.col("as_of") != F.lit(as_of)).unionByName(now)
