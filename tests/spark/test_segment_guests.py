from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.settings import Settings
from segments.events import VISITS
from segments.guests import (
    GUEST_HISTORY,
    GUESTS,
    PROMOTIONS,
    build_guest_visits,
    build_visitors,
    place_guests,
    preview_guests,
)
from segments.language import Segment, event, feature
from segments.reference import Happening, Observed, is_in
from tests.spark.test_segment_evaluate import customers
from tests.support.hold import holding
from tests.support.rows import rows
from tests.support.segment_tables import MEMBERSHIP, Tables
from tests.support.segment_worlds import SHOP, World

pytestmark = pytest.mark.spark

FACT = "gold.fact_transactions"
GUEST_TABLES = (GUESTS, GUEST_HISTORY, PROMOTIONS)


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
    # A browser whose number is that of the receipt is another guest.
    assert visits.first()["visitor_id"] != hashlib.sha256(b"shop\x1fa").hexdigest()  # type: ignore[index]


def test_a_guest_sale_that_is_claimed_or_gone_leaves(spark: SparkSession) -> None:
    known = [{"merchant_id": "shop", "visitor_id": f"v{b}", "basket_id": b} for b in "abc"]
    claimed = line("a", 1, "1.00", customer_key=7, customer_id="7")
    gone, kept = line("b", 2, "1.00"), line("c", 3, "1.00")
    changed = rows(spark, FACT, [claimed | {"_deleted": False}, gone | {"_deleted": True}])

    visits = build_guest_visits(changed, rows(spark, FACT, [claimed, kept]), rows(spark, "gold.guest_visit", known))

    assert sorted((r.visitor_id, r._deleted) for r in visits.collect()) == [("va", True), ("vb", True)]


class Guests:
    """The tables of guests as dictionaries by key, written the way the lakehouse writes them."""

    def __init__(self, spark: SparkSession):
        self.tables = Tables(spark)
        self.settings = Settings()

    def place(
        self, segments: list[Segment], as_of: date, *, only: Collection[str] = GUEST_TABLES, **content: list[Any]
    ) -> dict[str, int]:
        """Refresh a day; `only` is what reached its table before a kill. Returns rows written per table."""
        t = self.tables
        sales = rows(t.spark, "gold.guest_visit", content.get("sales", []))
        events = rows(t.spark, VISITS, content.get("events", []))
        with holding() as hold:
            placed = place_guests(
                sales,
                build_visitors(events, as_of=as_of),
                events,
                *[t.read(name) for name in GUEST_TABLES],
                segments=segments,
                as_of=as_of,
                run_id="run",
                started_at=datetime(2018, 1, 1),
                settings=self.settings,
                hold=hold,
            )
            return {name: t.write(name, placed[name]) for name in GUEST_TABLES if name in only}

    def of(self, name: str, *columns: str) -> set[tuple[Any, ...]]:
        """Some columns of all rows of a table."""
        return {tuple(r[c] for c in columns) for r in self.tables.content.get(name, {}).values()}

    def members(self) -> set[tuple[str, str]]:
        return self.of(GUESTS, "visitor_id", "segment_id")

    def stays(self) -> set[tuple[Any, ...]]:
        return self.of(GUEST_HISTORY, "visitor_id", "entered_on", "exited_on", "exit_reason", "customer_id")


@pytest.fixture
def guests(spark: SparkSession) -> Guests:
    return Guests(spark)


def test_guests_come_in_once_and_go_when_the_rule_or_the_keep_says(guests: Guests) -> None:
    sales = [
        {"merchant_id": "shop", "visitor_id": v, "bought_on": on, "net_amount": Decimal(net)}
        for v, on, net in (
            ("big", date(2011, 12, 1), "250"),
            ("small", date(2011, 12, 1), "20"),
            ("old", date(2011, 5, 1), "900"),
            ("later", date(2011, 12, 9), "900"),
        )
    ]
    big = Segment("big_guests", "Big guests", feature("net_amount").at_least(200), entity="guest")
    ignored = Segment("customers", "Customers", feature("frequency").at_least(1))
    day = date(2011, 12, 9)

    assert guests.place([big, ignored], day, sales=sales) == {GUESTS: 1, GUEST_HISTORY: 1, PROMOTIONS: 0}
    assert guests.of(GUESTS, "visitor_id", "segment_id", "website_id", "version", "page_views") == {
        ("big", "big_guests", "shop", big.version, None)
    }
    assert set(guests.place([big], day, sales=sales).values()) == {0}

    dearer = Segment("big_guests", "Big guests", feature("net_amount").at_least(300), entity="guest")
    guests.place([dearer], day + timedelta(days=1), sales=[s for s in sales if s["visitor_id"] != "later"])
    assert guests.members() == set()
    assert guests.stays() == {("big", day, day + timedelta(days=1), "definition_changed", None)}


DAY = date(2018, 1, 10)
CART = Segment(
    "cart", "Cart", event("cart_add").within_last_days(30).did_unless_since(event("checkout")), entity="guest"
)


def did(kind: str, day: date, visitor: str = "v", hour: int = 9, **more: Any) -> dict[str, Any]:
    made = {
        "merchant_id": "shop",
        "visitor_id": visitor,
        "event_id": f"{day}{hour:02}{kind}",
        "event_type": kind,
        "happened_at": datetime(day.year, day.month, day.day, hour),
        "happened_on": day,
    }
    return made | more


def test_visits_are_counted_as_far_as_they_had_happened(spark: SparkSession) -> None:
    before, on = DAY - timedelta(days=1), DAY
    events = [
        did("visit", before - timedelta(days=3)),
        did("page_view", before, email="first@example.com"),
        did("page_view", before, hour=10, email="last@example.com"),
        did("page_view", before, hour=11),
        did("login", on, customer_id="7", known_on=on),
        did("login", before, "known", customer_id="8", known_on=before, is_sample=True),
    ]
    made = {r.visitor_id: r for r in build_visitors(rows(spark, VISITS, events), as_of=DAY).collect()}
    one, known = made["v"], made["known"]
    assert (one.visits, one.page_views, one.email, one.has_email) == (1, 3, "last@example.com", True)
    assert (one.first_visit_on, one.last_visit_at) == (before - timedelta(days=3), datetime(2018, 1, 9, 11))
    assert (one.customer_id, one.customer_key, one.is_sample) == (None, None, False)
    assert (known.customer_id, known.visits, known.is_sample) == ("8", 0, True)
    assert known.customer_key is not None


def test_adding_buying_and_adding_again_is_abandonment_again(guests: Guests) -> None:
    events = [did("cart_add", DAY - timedelta(days=5)), did("page_view", DAY - timedelta(days=5), email="a@b.example")]
    assert guests.place([CART], DAY, events=events)[GUESTS] == 1
    assert guests.of(GUESTS, "email", "page_views") == {("a@b.example", 1)}
    events.append(did("checkout", DAY))
    guests.place([CART], DAY + timedelta(days=1), events=events)
    assert guests.members() == set()
    events.append(did("cart_add", DAY + timedelta(days=1)))
    guests.place([CART], DAY + timedelta(days=2), events=events)
    assert guests.members() == {("v", "cart")}
    assert guests.stays() == {
        ("v", DAY, DAY + timedelta(days=1), "rule_not_true", None),
        ("v", DAY + timedelta(days=2), None, None, None),
    }


@pytest.mark.parametrize("reached", [GUEST_TABLES, (), (GUESTS,), (GUESTS, GUEST_HISTORY)])
def test_a_visitor_who_logs_in_goes_on_as_the_customer_once(spark: SparkSession, reached: tuple[str, ...]) -> None:
    """`reached` is what a killed run had written: the next one ends in the same state."""
    guests = Guests(spark)
    browsing = [did("cart_add", DAY - timedelta(days=1))]
    guests.place([CART], DAY, events=browsing)
    later = DAY + timedelta(days=2)
    known = {"customer_id": "7", "known_on": DAY + timedelta(days=1)}
    events = [browsing[0] | known, did("login", DAY + timedelta(days=1), **known)]

    guests.place([CART], later, events=events, only=reached)
    guests.place([CART], later, events=events)

    assert guests.members() == set()
    assert guests.stays() == {("v", DAY, later, "logged_in", "7")}
    assert guests.of(PROMOTIONS, "segment_id", "customer_id", "visitor_id", "visitor_since") == {
        ("cart", "7", "v", DAY)
    }
    assert set(guests.place([CART], later, events=events).values()) == {0}

    guests.place([CART], later + timedelta(days=40), events=events)
    assert guests.of(PROMOTIONS, "visitor_id") == set()
    assert guests.stays() == {("v", DAY, later, "logged_in", "7")}


@pytest.mark.parametrize(("days", "kept"), [(90, {"new"}), (180, {"new", "old"}), (365, {"new", "old", "older"})])
def test_guests_are_kept_as_long_as_the_settings_say(spark: SparkSession, days: int, kept: set[str]) -> None:
    guests = Guests(spark)
    guests.settings = Settings(retention_days={GUESTS: days})
    seen = Segment("seen", "Seen", feature("visits").at_least(1), entity="guest")
    events = [did("visit", DAY - timedelta(days=n), v) for v, n in (("new", 1), ("old", 100), ("older", 200))]

    guests.place([seen], DAY, events=events)

    assert guests.members() == {(visitor, "seen") for visitor in kept}


def test_one_browser_of_two_customers_is_theirs_in_turn(guests: Guests) -> None:
    def known(customer: str, day: int) -> dict[str, Any]:
        return did("login", DAY + timedelta(days=day), customer_id=customer, known_on=DAY + timedelta(days=day))

    seen = Segment("seen", "Seen", feature("visits").at_least(1), entity="guest")
    browsing, a, b = did("visit", DAY - timedelta(days=1)), known("a", 0), known("b", 2)

    def after(day: int, *events: dict[str, Any]) -> tuple[set[tuple[Any, ...]], set[tuple[Any, ...]]]:
        guests.place([seen], DAY + timedelta(days=day), events=list(events))
        return guests.stays(), guests.of(PROMOTIONS, "customer_id", "visitor_since")

    stay = ("v", DAY, DAY + timedelta(days=1), "logged_in")
    guests.place([seen], DAY, events=[browsing])
    assert after(1, browsing, a) == ({(*stay, "a")}, {("a", DAY)})
    # The visitor was in as a guest before the first login, and that is not the second one's past.
    assert after(3, browsing, a, b) == ({(*stay, "a")}, {("b", None)})
    assert after(4, browsing, a) == ({(*stay, "a")}, {("a", DAY)})
    assert after(5, browsing, b) == ({(*stay, "b")}, {("b", DAY)})
    # A login that comes late takes back what was the second one's.
    assert after(6, browsing, a, b) == ({(*stay, "a")}, {("b", None)})
    stays, promotions = after(7, browsing)
    assert (guests.members(), promotions) == ({("v", "seen")}, set())
    assert ("v", DAY + timedelta(days=7), None, None, None) in stays


def test_a_preview_counts_guests_and_those_who_have_logged_in(spark: SparkSession, guests: Guests) -> None:
    known = {"customer_id": "7", "known_on": DAY - timedelta(days=1)}
    events = [
        did("cart_add", DAY - timedelta(days=1), "a"),
        did("visit", DAY - timedelta(days=1), "b"),
        did("cart_add", DAY - timedelta(days=1), "c", **known),
        did("login", DAY - timedelta(days=1), "c", hour=10, **known),
        did("cart_add", DAY - timedelta(days=9), "d"),
        did("cart_add", DAY, "later"),
    ]
    recent = Segment("recent", "R", CART.rule & feature("last_visit_on").within_last_days(2), entity="guest")
    guests.place([replace(recent, rule=feature("visits").at_least(1))], DAY, events=events)
    frame = rows(spark, VISITS, events)

    def preview(segment: Segment) -> dict[str, Any]:
        visitors = build_visitors(frame, as_of=DAY)
        placed = guests.tables.read(GUESTS)
        made = preview_guests(
            rows(spark, "gold.guest_visit"), visitors, frame, placed, segment, as_of=DAY, settings=guests.settings
        )
        (row,) = made.collect()
        return row.asDict()

    assert preview(recent) == {
        "website_id": "shop",
        "guests": 3,
        "members": 1,
        "logged_in": 1,
        "published": 1,
        "entering": 1,
        "leaving": 1,
        "alone_0": 2,
        "left_0": 2,
        "alone_1": 2,
        "left_1": 1,
    }
    elsewhere = preview(replace(recent, website_ids=("elsewhere",)))
    assert {elsewhere[c] for c in ("members", "alone_0", "left_0", "left_1", "left_2")} == {0}


def test_what_was_the_visitors_is_the_customers_until_the_rule_ends(spark: SparkSession) -> None:
    guests, tables = Guests(spark), Tables(spark)
    tables.content = guests.tables.content
    hashed = spark.range(1).select(F.xxhash64(F.lit("shop"), F.lit("7")).alias("k")).collect()[0].k
    customer = customers(spark, {"customer_key": hashed, "customer_id": "7", "recency_days": 5})
    recent = Segment("recent", "Recent", feature("recency_days").at_most(30))

    def refresh(day: date, events: list[Any]) -> list[int]:
        guests.place([CART], day, events=events)
        return tables.refresh(customer, [recent, CART], day)

    browsing = [did("cart_add", DAY - timedelta(days=1))]
    refresh(DAY, browsing)
    assert tables.members() == {("recent", hashed)}

    login = {"customer_id": "7", "known_on": DAY}
    events = [browsing[0] | login, did("login", DAY, **login)]
    second = DAY + timedelta(days=1)
    refresh(second, events)
    assert tables.members() == {("recent", hashed), ("cart", hashed)}
    assert tables.content[MEMBERSHIP]["shop", hashed]["primary_segment_id"] == "recent"
    (stay,) = [s for s in tables.content["gold.customer_segment_history"].values() if s["segment_id"] == "cart"]
    assert (stay["entry_reason"], stay["entry_detail"], stay["entry_version"]) == (
        "promoted",
        f"promoted: as a visitor in since {DAY}",
        CART.version,
    )
    assert refresh(second, events) == [0, 0, 0, 0]

    third = DAY + timedelta(days=3)
    refresh(third, [*events, did("checkout", DAY + timedelta(days=2), **login)])
    assert tables.members() == {("recent", hashed)}
    assert ("cart", hashed, second, third, "rule_not_true") in tables.stays()
    told = {
        (e["customer_key"], e["visitor_id"], e["event_type"], e["occurred_on"])
        for e in tables.content["gold.customer_segment_event"].values()
        if e["segment_id"] == "cart"
    }
    assert told == {
        (None, "v", "segment_entered", DAY),
        (None, "v", "segment_exited", second),
        (hashed, None, "segment_entered", second),
        (hashed, None, "segment_exited", third),
    }


def test_who_logged_in_and_never_bought_is_in_by_way_of_the_visitor_alone(spark: SparkSession) -> None:
    guests, tables = Guests(spark), Tables(spark)
    tables.content = guests.tables.content
    hashed = spark.range(1).select(F.xxhash64(F.lit("shop"), F.lit("7")).alias("k")).collect()[0].k
    buyer, other = {"customer_key": hashed, "customer_id": "7", "recency_days": 5}, {"customer_key": 1}
    recent = Segment("recent", "Recent", feature("recency_days").at_most(30))
    login = {"customer_id": "7", "known_on": DAY - timedelta(days=1)}
    events = [did("cart_add", DAY - timedelta(days=1), **login), did("login", DAY - timedelta(days=1), **login)]

    def refresh(day: int, *known: dict[str, Any]) -> set[tuple[str, int]]:
        guests.place([CART], DAY + timedelta(days=day), events=events)
        tables.refresh(customers(spark, *known), [recent, CART], DAY + timedelta(days=day))
        return tables.members()

    assert refresh(0, other) == {("cart", hashed)}
    row = tables.content[MEMBERSHIP]["shop", hashed]
    assert (row["customer_id"], row["is_present"], row["primary_segment_id"]) == ("7", False, None)
    assert refresh(1, other, buyer) == {("cart", hashed), ("recent", hashed)}
    assert refresh(2, other) == {("cart", hashed)}
    assert refresh(40, other) == set()
    days = [DAY + timedelta(days=n) for n in (0, 1, 2, 40)]
    assert tables.stays() == {
        ("cart", hashed, days[0], days[3], "rule_not_true"),
        ("recent", hashed, days[1], days[2], "customer_absent"),
    }


def test_guests_carried_over_equal_guests_placed_from_nothing(spark: SparkSession) -> None:
    """Random visits, logins that come late, and passing days, against the rule answered in plain Python."""
    world = World(random.Random(5))
    world.features = {k: {} for k in range(12)}
    for key in range(12):
        world.number += 1
        world.click(key, datetime(2018, 1, 1 + key % 8, 9))
    kept = Guests(spark)
    for as_of in (DAY, DAY + timedelta(days=1), DAY + timedelta(days=25)):
        for _ in range(30):
            world.number += 1
            day = as_of - timedelta(days=world.pick.choice([-1, 1, 2, 6, 20]))
            world.click(world.pick.randrange(12), datetime(day.year, day.month, day.day, 10))
        events = list(world.visits().values())
        kept.place([CART], as_of, events=events)
        wanted = set()
        for visitor in {e["visitor_id"] for e in events}:
            own = [e for e in events if e["visitor_id"] == visitor and e["happened_on"] < as_of]
            seen = [Happening(e["event_type"], e["happened_at"].replace(tzinfo=UTC), e["happened_on"], e) for e in own]
            if is_in(CART, Observed(as_of, {}, {}, seen, SHOP)):
                logins = sorted(
                    (e["happened_at"], e["event_id"], e["customer_id"]) for e in own if e["event_type"] == "login"
                )
                wanted.add((visitor, logins[-1][2] if logins else None))
        found = {(v, None) for v, _ in kept.members()} | kept.of(PROMOTIONS, "visitor_id", "customer_id")
        assert found == wanted
        assert {v for v, _, left, *_ in kept.stays() if left is None} == {v for v, _ in kept.members()}
    assert any(customer for _, customer in wanted)
    assert any(customer is None for _, customer in wanted)
