from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from segments.guests import build_guest_visits, place_guests
from segments.language import Segment, feature
from tests.support.rows import rows

pytestmark = pytest.mark.spark

FACT = "gold.fact_transactions"


def line(basket: str, key: int, amount: str, **more: Any) -> dict[str, Any]:
    made = {"merchant_id": "shop", "basket_id": basket, "transaction_id": key, "amount": Decimal(amount)}
    return (
        made | {"business_date": date(2011, 12, 1), "posted_ts": datetime(2011, 12, 1, 9), "customer_key": None} | more
    )


def test_a_sale_without_a_customer_is_a_guest_and_measured_whole(spark: SparkSession) -> None:
    lines = [
        line("a", 1, "10.10"),
        line("a", 2, "5.00"),
        line("a", 3, "-1.10", txn_type="return"),
        line("b", 4, "7.00", customer_key=7, customer_id="7"),
        line("c", 5, "-3.00", txn_type="return"),
    ]
    sales = rows(spark, FACT, lines)
    changed = rows(spark, FACT, [line_ | {"_deleted": False} for line_ in (lines[1], lines[3], lines[4])])

    visits = build_guest_visits(changed, sales, rows(spark, "gold.guest_visit"))

    assert [(r.basket_id, r.lines, r.net_amount, r._deleted) for r in visits.collect()] == [
        ("a", 2, Decimal("14.00"), False)
    ]
    assert set(visits.columns) == {*rows(spark, "gold.guest_visit").columns, "_deleted"}


def test_a_guest_sale_that_is_claimed_or_gone_leaves(spark: SparkSession) -> None:
    known = [{"merchant_id": "shop", "visitor_id": f"v{b}", "basket_id": b} for b in "abc"]
    claimed = line("a", 1, "1.00", customer_key=7, customer_id="7")
    gone, kept = line("b", 2, "1.00"), line("c", 3, "1.00")
    changed = rows(spark, FACT, [claimed | {"_deleted": False}, gone | {"_deleted": True}])

    visits = build_guest_visits(changed, rows(spark, FACT, [claimed, kept]), rows(spark, "gold.guest_visit", known))

    assert sorted((r.visitor_id, r._deleted) for r in visits.collect()) == [("va", True), ("vb", True)]


def test_guests_come_in_once_and_go_when_the_rule_or_the_keep_says(spark: SparkSession) -> None:
    visits = rows(
        spark,
        "gold.guest_visit",
        [
            {"merchant_id": "shop", "visitor_id": v, "bought_on": on, "net_amount": Decimal(net)}
            for v, on, net in (
                ("big", date(2011, 12, 1), "250"),
                ("small", date(2011, 12, 1), "20"),
                ("old", date(2011, 5, 1), "900"),
                ("later", date(2011, 12, 9), "900"),
            )
        ],
    )
    big = Segment("big_guests", "Big guests", feature("net_amount").at_least(200), entity="guest")
    ignored = Segment("customers", "Customers", feature("frequency").at_least(1))
    day = date(2011, 12, 9)

    placed = place_guests(visits, rows(spark, "gold.customer_segment_guest"), segments=[big, ignored], as_of=day)
    (entered,) = placed.collect()
    assert (entered.visitor_id, entered.segment_id, entered.website_id, entered.version) == (
        "big",
        "big_guests",
        "shop",
        big.version,
    )

    now = placed.drop("_deleted")
    assert place_guests(visits, now, segments=[big], as_of=day).collect() == []
    dearer = Segment("big_guests", "Big guests", feature("net_amount").at_least(300), entity="guest")
    assert [(r.visitor_id, r._deleted) for r in place_guests(visits, now, segments=[dearer], as_of=day).collect()] == [
        ("big", True)
    ]
    assert [r._deleted for r in place_guests(visits, now, segments=[], as_of=day).collect()] == [True]
