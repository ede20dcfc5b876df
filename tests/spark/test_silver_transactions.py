from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from lakehouse.declare import table_of
from pipelines.gold.finance_conf import load_finance
from pipelines.silver.rules import FeedRules
from pipelines.silver.transactions import conform_transactions
from tests.support.rows import rows

pytestmark = pytest.mark.spark

LINE_KEY = ("basket_id", "product_id", "line_id")
POS = FeedRules("pos", "lines", "grocer", timezone="America/New_York", has_reductions=True, key=LINE_KEY)
REPEATS = FeedRules("kiosk", "lines", "kiosk", repeats_are_lines=True)
WHOLESALE = FeedRules(
    "wholesale",
    "invoices",
    "gifts",
    timezone="Europe/London",
    currency="GBP",
    later_delivery="basket",
    repeats_are_lines=True,
    cancellation_prefixes=("C",),
    adjustment_prefixes=("A",),
    adjustment_codes=("POST", "ADJUST*"),
    is_priced=True,
    default_channel="online",
)
FIRST_STANDS = FeedRules("log", "lines", "log", later_delivery="none", key=LINE_KEY)
TILL = FeedRules("till", "lines", "shop")
FIXES = FeedRules("fixes", "lines", "shop", later_delivery="basket")
RULES = (POS, REPEATS, WHOLESALE, FIRST_STANDS, TILL, FIXES)
LINE, REJECT = "silver.transaction_line", "silver.transaction_reject"


def raw(rules=POS, **values):
    """A delivered row; `n` is its position and, unless told, its hash."""
    n = values.pop("n", 1)
    delivery = values.pop("d", 1)
    usual = {
        "source": rules.source,
        "feed": rules.feed,
        "basket_id": "b1",
        "product_id": "P1",
        "customer_id": "c1",
        "sold_at": datetime(2024, 7, 1, 12),
        "quantity": Decimal(2),
        "unit_price": Decimal("1.50"),
        "delivery": f"day-{delivery}",
        "delivery_seq": delivery,
        "batch_id": delivery,
        "file_id": f"{rules.source}-{delivery}",
        "row_number": n,
        "row_hash": 1000 * delivery + n,
        "loaded_at": datetime(2024, 7, 3),
    }
    return usual | values


def conform(spark, deliveries, previous=None, rules=RULES):
    made = conform_transactions(rows(spark, "bronze.raw_transactions", deliveries), sources=rules, previous=previous)
    assert set(made) == {LINE, REJECT}
    return {name: [r.asDict() for r in frame.collect()] for name, frame in made.items()}


def merge(lines, upserts):
    key = table_of(LINE).key
    held = {tuple(r[k] for k in key): r for r in lines}
    for r in upserts:
        k = tuple(r[c] for c in key)
        if r["_deleted"]:
            assert k in held, "a line was deleted that is not there"
            del held[k]
        else:
            held[k] = {c: v for c, v in r.items() if c != "_deleted"}
    return list(held.values())


def in_batches(spark, *batches, rules=RULES):
    """Content of both tables after each batch was conformed and merged in turn."""
    lines, rejects = [], {}
    for batch in batches:
        previous = rows(spark, LINE, lines) if lines else None
        made = conform(spark, batch, previous, rules)
        assert len({tuple(r[k] for k in table_of(LINE).key) for r in made[LINE]}) == len(made[LINE])
        lines = merge(lines, made[LINE])
        rejects |= {(r["file_id"], r["delivery"], r["row_number"]): r for r in made[REJECT]}
    return lines, list(rejects.values())


def accounted(lines, rejects):
    """(delivery_seq, row_number, row_hash) of every delivered row the tables know of, with repetitions."""
    won = [(r["delivery_seq"], r["row_number"], r["row_hash"]) for r in lines]
    lost = [(e["delivery_seq"], e["row_number"], e["row_hash"]) for r in lines for e in r["superseded"] or ()]
    refused = [(None, r["row_number"], r["row_hash"]) for r in rejects]
    return Counter(h for _, _, h in won + lost + refused)


def test_types_times_and_amounts(spark):
    made = conform(
        spark,
        [
            raw(n=1, product_id=" p1 ", amount=Decimal("2.40"), discount_amount=Decimal("0.50"),
                coupon_amount=Decimal("1.00"), coupon_match_amount=Decimal("0.10"),
                sold_at=datetime(2024, 7, 1, 3, 59)),
            raw(WHOLESALE, n=2, customer_id=" ", quantity=Decimal(3), unit_price=Decimal("0.335"),
                amount=Decimal("9.99"), sold_at=datetime(2024, 7, 1, 23, 30), channel=" Web "),
        ],
    )[LINE]  # fmt: skip
    grocer, gifts = sorted(made, key=lambda r: r["row_number"])
    assert grocer["product_id"] == "P1"
    assert (grocer["sold_on"], grocer["sold_hour"]) == (date(2024, 6, 30), 23), "the shop is four hours behind UTC"
    assert grocer["sold_at"] == datetime(2024, 7, 1, 3, 59)
    assert grocer["amount"] == Decimal("2.40")
    assert grocer["gross_amount"] == Decimal("3.00"), "a manufacturer's coupon is no reduction of what the shop gets"
    assert grocer["coupon_amount"] == Decimal("1.10")
    assert (grocer["currency"], grocer["channel_id"], grocer["is_valid_purchase"]) == ("USD", "store", True)
    assert gifts["customer_id"] is None
    assert not gifts["is_valid_purchase"], "a guest's purchase counts for no customer"
    assert gifts["amount"] == Decimal("1.01"), "3 x 0.335 = 1.005, rounded half up; the feed says amounts are priced"
    assert (gifts["sold_on"], gifts["sold_hour"]) == (date(2024, 7, 2), 0)
    assert (gifts["currency"], gifts["channel_id"]) == ("GBP", "web")


def test_tells_lines_apart(spark):
    cases = {
        "sale": dict(basket_id="1"),
        "cancellation": dict(basket_id="C2", quantity=Decimal(-1)),
        "cancelled fee": dict(basket_id="C3", product_id="POST", quantity=Decimal(-1)),
        "bad debt": dict(basket_id="A4", product_id="B", unit_price=Decimal("-11062.06"), quantity=Decimal(1)),
        "postage charged": dict(basket_id="5", product_id="post"),
        "fee corrected": dict(basket_id="6", product_id="ADJUST2", quantity=Decimal(-1)),
        "written off": dict(basket_id="7", quantity=Decimal(-9), unit_price=Decimal(0), customer_id=None),
        "found": dict(basket_id="8", quantity=Decimal(9), unit_price=Decimal(0), customer_id=None),
        "return": dict(basket_id="9", quantity=Decimal(-1)),
        "nothing moved": dict(basket_id="10", quantity=Decimal(0)),
    }
    made = conform(spark, [raw(WHOLESALE, n=i, **c) for i, c in enumerate(cases.values())])
    assert made[REJECT] == []
    found = {name: r for name, i in zip(cases, range(20), strict=False) for r in made[LINE] if r["row_number"] == i}
    assert {n: r["txn_type"] for n, r in found.items()} == {
        "sale": "sale", "cancellation": "cancellation", "cancelled fee": "cancellation", "bad debt": "adjustment",
        "postage charged": "sale", "fee corrected": "adjustment", "written off": "adjustment", "found": "sale",
        "return": "return", "nothing moved": "sale",
    }  # fmt: skip
    assert {n for n, r in found.items() if r["is_valid_purchase"]} == {"sale", "postage charged"}


def test_refuses_with_every_reason_and_loses_nothing(spark):
    cases = {
        "missing_basket": dict(basket_id=" "),
        "missing_product": dict(product_id=None),
        "missing_time": dict(sold_at=None),
        "missing_quantity": dict(quantity=None),
        "missing_amount": dict(unit_price=None),
        "invalid_line_id": dict(line_id="7b"),
        "time_too_early": dict(sold_at=datetime(1989, 12, 31)),
        "time_in_future": dict(sold_at=datetime(3000, 1, 1)),
        "negative_price": dict(unit_price=Decimal(-1)),
        "absurd_quantity": dict(quantity=Decimal(10_000_000)),
        "absurd_amount": dict(unit_price=Decimal("99999999999999")),
        "overlong_code": dict(product_id="x" * 1_000_000),
        "unknown_source": dict(source="pos2"),
        "negative_price of an amount": dict(unit_price=None, amount=Decimal(-1)),
        "missing_amount of a feed of prices": dict(rules=WHOLESALE, unit_price=None, amount=Decimal(3)),
    }
    deliveries = [raw(n=i, **c) for i, c in enumerate(cases.values())]
    deliveries.append(raw(n=90, basket_id=None, product_id="", quantity=None))
    deliveries.append(raw(n=91, sold_at=datetime(2024, 7, 4, 23, 59)))
    made = conform(spark, deliveries)
    reasons = {r["row_number"]: r["reasons"] for r in made[REJECT]}
    assert reasons == {i: [name.split(" ")[0]] for i, name in enumerate(cases)} | {
        90: ["missing_basket", "missing_product", "missing_quantity"]
    }
    assert [r["row_number"] for r in made[LINE]] == [91], "two days ahead of loading is a clock, not an error"
    assert accounted(made[LINE], made[REJECT]) == Counter(r["row_hash"] for r in deliveries)


def test_a_line_may_not_reach_the_limits_of_the_finance_file(spark):
    finance = load_finance(Path(__file__).parents[2] / "conf")
    limits = {"line_amount": Decimal("100"), "line_quantity": Decimal("50")}
    told = [x.model_copy(update={"maximum": limits.get(x.id, x.maximum)}) for x in finance.limits]
    finance = finance.model_copy(update={"limits": tuple(told)})
    deliveries = [
        raw(n=1, basket_id="b9", quantity=Decimal(49), unit_price=Decimal(2)),
        raw(n=2, quantity=Decimal(50), unit_price=Decimal("0.01")),
        raw(n=3, quantity=Decimal(1), amount=Decimal(-100)),
        raw(WHOLESALE, n=4, quantity=Decimal("-2"), unit_price=Decimal(50)),
        raw(n=5, quantity=Decimal(9_999_999), unit_price=Decimal(999_999)),
    ]
    frame = rows(spark, "bronze.raw_transactions", deliveries)
    made = conform_transactions(frame, sources=RULES, finance=finance)
    assert [r["row_number"] for r in made[LINE].collect()] == [1]
    reasons = {r["row_number"]: r["reasons"] for r in made[REJECT].collect()}
    assert reasons == {
        2: ["absurd_quantity"],
        3: ["negative_price", "absurd_amount"],
        4: ["absurd_amount"],
        5: ["absurd_quantity", "absurd_amount"],
    }


def test_empty_delivery(spark):
    assert conform(spark, []) == {LINE: [], REJECT: []}
    held = merge([], conform(spark, [raw()])[LINE])
    assert conform(spark, [], rows(spark, LINE, held)) == {LINE: [], REJECT: []}


def test_repeats_within_a_delivery(spark):
    """Where repeats are lines they are numbered in file order; elsewhere the last row of a line wins."""
    delivered = [
        raw(REPEATS, n=3, quantity=Decimal(30)),
        raw(REPEATS, n=1, quantity=Decimal(10)),
        raw(POS, n=4, line_id="1", quantity=Decimal(1)),
        raw(POS, n=5, line_id="1", quantity=Decimal(5)),
        raw(POS, n=6, line_id="2", quantity=Decimal(6)),
    ]
    made = conform(spark, delivered)[LINE]
    kept = {(r["source"], r["line_number"]): (r["row_number"], r["quantity"]) for r in made}
    assert kept == {
        ("kiosk", 1): (1, 10), ("kiosk", 2): (3, 30), ("pos", 1): (5, 5), ("pos", 2): (6, 6)
    }  # fmt: skip
    assert [[e["row_number"] for e in r["superseded"]] for r in made if r["superseded"]] == [[4]]
    assert len({r["transaction_id"] for r in made}) == 4


def test_a_later_delivery_corrects_a_line_and_a_late_one_does_not(spark):
    first = [raw(d=2, n=1), raw(d=2, n=2, product_id="P2"), raw(FIRST_STANDS, d=2, n=3)]
    correction = [raw(d=3, n=1, quantity=Decimal(7)), raw(FIRST_STANDS, d=3, n=3, quantity=Decimal(7))]
    late = [raw(d=1, n=1, quantity=Decimal(9)), raw(d=1, n=8, product_id="P8")]
    lines, rejects = in_batches(spark, first, correction, late)
    kept = {(r["source"], r["product_id"]): (r["delivery_seq"], r["quantity"]) for r in lines}
    assert kept == {("pos", "P1"): (3, 7), ("pos", "P2"): (2, 2), ("pos", "P8"): (1, 2), ("log", "P1"): (2, 2)}
    lost = {(r["source"], r["product_id"]): [e["delivery_seq"] for e in r["superseded"] or ()] for r in lines}
    assert lost == {("pos", "P1"): [1, 2], ("pos", "P2"): [], ("pos", "P8"): [], ("log", "P1"): [3]}
    assert accounted(lines, rejects) == Counter(r["row_hash"] for r in first + correction + late)


def test_a_basket_delivered_again_replaces_the_whole_basket(spark):
    first = [raw(WHOLESALE, d=1, n=i, product_id=p) for i, p in enumerate("BCC")] + [
        raw(WHOLESALE, d=1, n=9, basket_id="b2")
    ]
    again = [raw(WHOLESALE, d=2, n=i, product_id=p) for i, p in enumerate("CD")]
    held = merge([], conform(spark, first)[LINE])
    assert len(held) == 4
    made = conform(spark, again, rows(spark, LINE, held))[LINE]
    assert {(r["product_id"], r["line_number"]) for r in made if r["_deleted"]} == {("B", 1), ("C", 2)}
    lines = merge(held, made)
    kept = {(r["basket_id"], r["product_id"], r["line_number"]): r for r in lines}
    assert set(kept) == {("b1", "C", 1), ("b1", "D", 1), ("b2", "P1", 1)}
    assert [e["row_number"] for e in kept["b1", "C", 1]["superseded"]] == [0, 1, 2], "all on the basket's first line"
    assert accounted(lines, []) == Counter(r["row_hash"] for r in first + again)
    assert conform(spark, again, rows(spark, LINE, lines))[LINE] != [], "a replay may write again"
    assert same(merge(lines, conform(spark, again, rows(spark, LINE, lines))[LINE]), lines), "but changes nothing"


def test_one_batch_equals_many(spark):
    """Whatever the deliveries hold and however they are split into batches, replays included."""
    chance = random.Random(7)
    deliveries = {d: _random_delivery(chance, d) for d in range(1, 6)}
    every = [r for d in deliveries.values() for r in d]
    whole, refused = in_batches(spark, every)
    assert accounted(whole, refused) == Counter(r["row_hash"] for r in every)
    assert any(r["superseded"] for r in whole)
    for order in ([[1], [2], [3, 4], [5]], [[5, 1], [2, 3], [3], [4, 1]]):
        batches = [[r for d in batch for r in deliveries[d]] for batch in order]
        lines, rejects = in_batches(spark, *batches)
        assert same(lines, whole), order
        assert same(rejects, refused), order


def _random_delivery(chance, d):
    made = []
    for n in range(1, 91):
        rules = chance.choice(RULES)
        values = dict(
            basket_id=f"b{chance.randint(1, 7)}",
            product_id=f"P{chance.randint(1, 4)}",
            quantity=Decimal(chance.randint(-2, 5)),
            unit_price=Decimal(chance.choice(["1.00", "0.50", "-1.00"] if chance.random() < 0.1 else ["1.00"])),
            line_id=str(chance.randint(1, 4)) if rules is POS else None,
        )
        made.append(raw(rules, d=d, n=n, **values))
    return made


def same(a, b):
    def plain(found):
        return sorted(repr(sorted((k, v) for k, v in r.items())) for r in found)

    return plain(a) == plain(b)


@pytest.mark.parametrize("splits", [[2], [1, 1]])
@pytest.mark.parametrize("repeats_are_lines", [True, False])
def test_the_same_file_in_two_feeds_counts_once(spark, splits, repeats_are_lines):
    feeds = [replace(TILL, feed=feed, repeats_are_lines=repeats_are_lines) for feed in ("a", "b")]
    batches = [
        [
            raw(feed, n=n, d=d, file_id="bytes", delivery="s.csv", basket_id=basket, row_hash=int(basket[1:]))
            for n, basket in enumerate(("b1", "b1", "b2"), start=1)
        ]
        for d, feed in enumerate(feeds, start=1)
    ]
    if splits == [2]:
        batches = [[*batches[0], *batches[1]]]
    lines, rejects = in_batches(spark, *batches, rules=tuple(feeds))
    assert sorted(r["basket_id"] for r in lines) == (["b1", "b1", "b2"] if repeats_are_lines else ["b1", "b2"])
    assert accounted(lines, rejects) == Counter(r["row_hash"] for b in batches for r in b)


def test_a_basket_is_replaced_whichever_feed_of_the_retailer_delivered_it(spark):
    first = [raw(TILL, n=1, product_id="P1"), raw(TILL, n=2, product_id="P2")]
    fixed, late = [raw(FIXES, n=1, d=2, product_id="P3")], [raw(TILL, n=1, d=3, product_id="P4")]
    for batches in ([first, fixed, late], [first + fixed + late], [fixed, first + late], [late, fixed, first]):
        lines, rejects = in_batches(spark, *batches, rules=(TILL, FIXES))
        assert sorted(r["product_id"] for r in lines) == ["P3", "P4"]
        assert accounted(lines, rejects) == Counter(r["row_hash"] for r in first + fixed + late)


def test_a_line_number_alone_identifies_a_line_where_the_feed_says_so(spark):
    orders = FeedRules("shop", "orders", "shop", key=("basket_id", "line_id"))
    first = [raw(orders, n=1, line_id="1", product_id="A"), raw(orders, n=2, line_id="2", product_id="C")]
    corrected = [raw(orders, d=2, line_id="1", product_id="B", quantity=Decimal(9))]
    for batches in ([first, corrected], [first + corrected]):
        lines, rejects = in_batches(spark, *batches, rules=(orders,))
        assert sorted((r["product_id"], r["line_number"]) for r in lines) == [("B", 1), ("C", 2)]
        assert len({r["transaction_id"] for r in lines}) == 2
        assert set(accounted(lines, rejects).values()) == {1}
    blank = [raw(orders, n=1, line_id="1"), raw(orders, n=2, product_id="A"), raw(orders, n=3, product_id="B")]
    lines, rejects = in_batches(spark, blank, rules=(orders,))
    assert [r["line_number"] for r in lines] == [1]
    assert [r["reasons"] for r in rejects] == [["missing_line"]] * 2


def test_without_a_key_only_rows_equal_in_every_cell_are_copies(spark):
    loose = FeedRules("market", "lines", "market")
    sold = [
        raw(loose, n=1, amount=Decimal(10), row_hash=7),
        raw(loose, n=2, amount=Decimal(18), row_hash=8),
        raw(loose, n=3, amount=Decimal(10), row_hash=7),
        raw(loose, n=4, product_id="P2", amount=Decimal(1), row_hash=9),
    ]
    again = [r | {"delivery": "day-2", "delivery_seq": 2, "batch_id": 2, "file_id": "market-2"} for r in sold]
    for batches in ([sold], [sold, again], [sold + again]):
        lines, rejects = in_batches(spark, *batches, rules=(loose,))
        assert sorted(r["amount"] for r in lines) == [1, 10, 18]
        assert sum(accounted(lines, rejects).values()) == sum(map(len, batches))


def test_two_systems_that_count_from_one_are_told_apart_by_a_prefix(spark):
    tills = FeedRules("shop", "tills", "shop", later_delivery="basket")
    web = FeedRules("shop", "web", "shop", later_delivery="basket", basket_prefix="W-", cancellation_prefixes=("W-X",))
    made = [
        raw(tills, n=1, basket_id="7"),
        raw(web, n=2, d=2, basket_id=" 7 ", customer_id="c9"),
        raw(web, n=3, d=2, basket_id="X8", quantity=Decimal(-1), original_basket_id="7"),
        raw(web, n=4, d=2, basket_id=" "),
    ]
    lines, rejects = in_batches(spark, made, rules=(tills, web))
    told = sorted((r["basket_id"], r["txn_type"], r["original_basket_id"]) for r in lines)
    assert told == [("7", "sale", None), ("W-7", "sale", None), ("W-X8", "cancellation", "W-7")]
    assert [r["reasons"] for r in rejects] == [["missing_basket"]]


def test_what_goes_back_is_negative_however_the_feed_writes_it(spark):
    shop = FeedRules(
        "shop", "lines", "shop", key=LINE_KEY, has_reductions=True, cancellation_prefixes=("X",),
        cancellation_types=("STORNO",), return_types=("R", "RETURN"), adjustment_codes=("M",),
    )  # fmt: skip
    money = {"amount": Decimal(20), "discount_amount": Decimal(2), "unit_price": None}
    cases = {
        "sold": dict(money, line_type="S"),
        "back by quantity": dict(money, quantity=Decimal(-2)),
        "back by kind": dict(money, line_type=" return "),
        "back by kind, in minus": dict(line_type="r", amount=Decimal(-20), discount_amount=Decimal(-2)),
        "cancelled by number": dict(money, basket_id="X3"),
        "cancelled by kind": dict(money, line_type="storno"),
        "by hand": dict(money, basket_id="X4", product_id="M"),
    }
    made = conform(spark, [raw(shop, n=i, **{"basket_id": f"b{i}", **c}) for i, c in enumerate(cases.values())],
                   rules=(shop,))  # fmt: skip
    assert made[REJECT] == []
    found = {
        name: (r["txn_type"], r["quantity"], r["amount"], r["gross_amount"], r["discount_amount"])
        for name, r in zip(cases, sorted(made[LINE], key=lambda r: r["row_number"]), strict=True)
    }
    assert found == {
        "sold": ("sale", 2, 20, 22, 2),
        "back by quantity": ("return", -2, -20, -22, -2),
        "back by kind": ("return", -2, -20, -22, -2),
        "back by kind, in minus": ("return", -2, -20, -22, -2),
        "cancelled by number": ("cancellation", -2, -20, -22, -2),
        "cancelled by kind": ("cancellation", -2, -20, -22, -2),
        "by hand": ("cancellation", 2, 20, 22, 2),
    }


def test_a_feed_without_returns_or_guests_refuses_them(spark):
    strict = FeedRules("till", "lines", "till", key=LINE_KEY, has_returns=False, has_guests=False)
    given = [
        raw(strict, n=1),
        raw(strict, n=2, basket_id="b2", quantity=Decimal(-1)),
        raw(strict, n=3, basket_id="b3", customer_id=" "),
        raw(POS, n=4, basket_id="b4", quantity=Decimal(-1), customer_id=None),
    ]
    made = conform(spark, given, rules=(strict, POS))
    assert sorted(r["row_number"] for r in made[LINE]) == [1, 4]
    assert sorted(r["reasons"] for r in made[REJECT]) == [["missing_customer"], ["negative_quantity"]]


def test_a_reduction_has_the_sign_of_what_was_paid_however_the_feed_writes_it(spark):
    shop = FeedRules("shop", "lines", "shop", key=LINE_KEY, has_reductions=True, return_types=("R",))
    cases = {
        "sold": (2, 8, 2, 1),
        "sold, reductions in minus": (2, 8, -2, -1),
        "sold, one of them in minus": (2, 8, -2, 1),
        "given away": (2, 0, -2, -1),
        "back": (-2, -8, -2, -1),
        "back, reductions in plus": (-2, -8, 2, 1),
        "back, half price": (-2, -3, 2, 1),
        "back, had been given away": (-2, 0, 2, 1),
        "back, all in plus but the pieces": (-2, 8, 2, 1),
    }
    names = ("quantity", "amount", "discount_amount", "coupon_match_amount")
    delivered = [
        raw(shop, n=i, basket_id=f"b{i}", unit_price=None, **dict(zip(names, map(Decimal, c), strict=True)))
        for i, c in enumerate(cases.values())
    ]
    made = sorted(conform(spark, delivered, rules=(shop,))[LINE], key=lambda r: r["row_number"])
    money = ("txn_type", "gross_amount", "amount", "discount_amount", "coupon_amount")
    assert {name: tuple(r[c] for c in money) for name, r in zip(cases, made, strict=True)} == {
        "sold": ("sale", 11, 8, 2, 1),
        "sold, reductions in minus": ("sale", 11, 8, 2, 1),
        "sold, one of them in minus": ("sale", 11, 8, 2, 1),
        "given away": ("sale", 3, 0, 2, 1),
        "back": ("return", -11, -8, -2, -1),
        "back, reductions in plus": ("return", -11, -8, -2, -1),
        "back, half price": ("return", -6, -3, -2, -1),
        "back, had been given away": ("return", -3, 0, -2, -1),
        "back, all in plus but the pieces": ("return", -11, -8, -2, -1),
    }


def test_a_sale_takes_no_basket_back_whatever_its_receipt_names(spark):
    shop = FeedRules("shop", "lines", "shop", key=LINE_KEY, adjustment_codes=("M",))
    exchange = [
        raw(shop, n=1, product_id="P1", quantity=Decimal(-1), original_basket_id="old"),
        raw(shop, n=2, product_id="P2", quantity=Decimal(1), original_basket_id="old"),
        raw(shop, n=3, product_id="M", quantity=Decimal(1), unit_price=Decimal(-1), original_basket_id="old"),
    ]
    made = sorted(conform(spark, exchange, rules=(shop,))[LINE], key=lambda r: r["row_number"])
    told = [(r["txn_type"], r["original_basket_id"]) for r in made]
    assert told == [("return", "old"), ("sale", None), ("adjustment", "old")]
