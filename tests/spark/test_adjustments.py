"""Returns and the sales they take back."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from pipelines.gold.adjustments import stage_adjustments
from tests.support.rows import rows

pytestmark = pytest.mark.spark

FACTS, STAGE = "gold.fact_transactions", "silver.stage_adjustments"
BEGIN = datetime(2024, 1, 1, 12)


def line(n: int, basket: str, day: int, pieces: int, price: str = "2.50", **more: Any) -> dict[str, Any]:
    customer = more.pop("customer", "C1")
    return {
        "transaction_id": n,
        "merchant_id": "shop",
        "account_id": f"shop:{customer or 'guest'}",
        "customer_key": None if customer is None else hash(customer),
        "basket_id": basket,
        "product_id": "p",
        "txn_type": "sale" if pieces > 0 else "return",
        "posted_ts": BEGIN + timedelta(days=day),
        "quantity": Decimal(pieces),
        "amount": Decimal(price) * pieces,
        "currency": "EUR",
        **more,
    }


def matched(made: DataFrame) -> dict[int, tuple[str | None, str | None]]:
    told = made.where("NOT _deleted").collect()
    assert len({r["transaction_id"] for r in told}) == len(told)
    assert all(r["is_matched"] == (r["original_basket_id"] is not None) for r in told)
    return {r["transaction_id"]: (r["original_basket_id"], r["matched_by"]) for r in told}


def from_nothing(spark: SparkSession, *lines: dict[str, Any]) -> DataFrame:
    facts = rows(spark, FACTS, lines)
    return stage_adjustments(facts, rows(spark, FACTS, [x | {"_deleted": False} for x in lines]), previous=None)


def test_a_return_takes_back_the_latest_sale_before_it_that_fits(spark: SparkSession) -> None:
    made = from_nothing(
        spark,
        line(1, "long ago", 0, 5),
        line(2, "too few", 4, 1),
        line(3, "dearer", 5, 5, "2.60"),
        line(4, "another's", 6, 5, customer="C2"),
        line(5, "another product", 6, 5, product_id="q"),
        line(6, "later", 9, 5),
        line(10, "back", 8, -2),
        line(11, "again", 8, -1),
        line(12, "nothing fits", 8, -9),
        line(13, "guest", 8, -1, customer=None),
        line(14, "guest's sale", 7, 1, customer=None),
        line(15, "named", 8, -1, original_basket_id="as delivered"),
        line(16, "fee", 8, -1, txn_type="adjustment"),
        line(17, "cancelled", 8, -5, txn_type="cancellation"),
        line(18, "none", 8, 0, txn_type="return"),
    )
    assert matched(made) == {
        10: ("long ago", "inferred"),
        11: ("too few", "inferred"),
        12: (None, None),
        13: (None, None),
        15: ("as delivered", "source"),
        16: (None, None),
        17: ("long ago", "inferred"),
        18: (None, None),
    }


def test_a_part_goes_back_at_its_share_or_at_the_rounded_price_of_a_piece(spark: SparkSession) -> None:
    def sale_and_back(name: str, sold: tuple[str, str], back: tuple[str, str]) -> list[dict[str, Any]]:
        n = 2 * len(found)
        found[n + 1] = name
        return [
            line(n + i, name, i, 1 - 2 * i, product_id=name, quantity=Decimal(pieces), amount=Decimal(paid))
            for i, (pieces, paid) in enumerate((sold, back))
        ]

    found: dict[int, str] = {}
    made = from_nothing(
        spark,
        *sale_and_back("share", ("3", "10.00"), ("-2", "-6.67")),
        *sale_and_back("kilograms", ("1.236", "3.70"), ("-0.5", "-1.50")),
        *sale_and_back("by the piece", ("12", "40.00"), ("-10", "-33.30")),
        *sale_and_back("given away", ("2", "0.00"), ("-1", "0.00")),
        *sale_and_back("dearer by a cent", ("1", "2.50"), ("-1", "-2.51")),
        *sale_and_back("paid back in part", ("3", "10.00"), ("-2", "-6.00")),
    )
    fits = {"share", "kilograms", "by the piece", "given away"}
    assert {found[n]: sale for n, (sale, _) in matched(made).items()} == {
        name: name if name in fits else None for name in found.values()
    }


@pytest.mark.parametrize("seed", range(3))
def test_what_follows_changed_lines_equals_everything_matched_from_nothing(spark: SparkSession, seed: int) -> None:
    pick = random.Random(seed)

    def some(n: int) -> dict[str, Any]:
        customer, pieces = pick.choice(["C1", "C1", "C2", None]), pick.choice([1, 2, 3, -1, -1, -2])
        more = {"original_basket_id": "named"} if pieces < 0 and pick.random() < 0.2 else {}
        product, off = pick.choice(["p", "q"]), Decimal(pick.choice(["0", "0", "0.01", "0.02"]))
        more["amount"] = Decimal("3.33") * pieces - off
        return line(n, f"b{n % 9}", pick.randint(0, 9), pieces, customer=customer, product_id=product, **more)

    world = {n: some(n) for n in range(30)}
    kept = {
        r["transaction_id"]: r.asDict() for r in from_nothing(spark, *world.values()).collect() if not r["_deleted"]
    }
    for _ in range(2):
        before = dict(world)
        for n in pick.sample(sorted(world), 4):
            world[n] = some(n)  # corrected: perhaps another customer, product, day or kind
        del world[pick.choice(sorted(world))]
        world |= {n: some(n) for n in range(max(world) + 1, max(world) + 3)}
        changed = [x | {"_deleted": False} for n, x in world.items() if before.get(n) != x]
        changed += [x | {"_deleted": True} for n, x in before.items() if n not in world]
        previous = rows(spark, STAGE, [{k: v for k, v in r.items() if k != "_deleted"} for r in kept.values()])
        facts = rows(spark, FACTS, world.values())
        made = stage_adjustments(facts, rows(spark, FACTS, changed), previous=previous).collect()
        assert len({r["transaction_id"] for r in made}) == len(made)
        for r in made:
            if r["_deleted"]:
                kept.pop(r["transaction_id"], None)
            else:
                kept[r["transaction_id"]] = r.asDict()
        whole = from_nothing(spark, *world.values()).where("NOT _deleted").collect()
        assert kept == {r["transaction_id"]: r.asDict() for r in whole}
