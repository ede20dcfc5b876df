"""Random customers, histories and definitions: one world is a shop whose days pass."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from segments.catalogue import CUSTOMERS, GROUP, Feature
from segments.events import EVENTS
from segments.language import Segment, event, feature, in_list, in_segment, sequence
from segments.reference import Happening, Observed, is_in
from segments.rules import All, AnyOf, Condition, EventCondition, Not, Rule
from tests.support.segment_features import FEATURES

SHOP = "shop"
DAY = date(2018, 1, 1)
CATALOGUE = FEATURES | {GROUP: Feature(GROUP, "string", CUSTOMERS)}


@dataclass
class World:
    """A shop: what its customers are like and did, keyed as in the tables, and the rules asked of them."""

    pick: random.Random
    features: dict[int, dict[str, Any]] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    redemptions: dict[int, dict[str, Any]] = field(default_factory=dict)
    clicks: dict[int, dict[str, Any]] = field(default_factory=dict)
    contacts: set[tuple[int, str]] = field(default_factory=set)
    campaigns: dict[str, date] = field(default_factory=lambda: {"k": DAY - timedelta(days=5)})
    categories: dict[str, str] = field(default_factory=lambda: {"p1": "WINE", "p2": "BREAD"})
    number: int = 0

    def shop_of(self, key: int) -> str:
        """The retailer of a customer."""
        return SHOP

    def begin(self, customers: int) -> None:
        """Lets customers appear with a past."""
        for key in range(1, customers + 1):
            self.features[key] = {}
            self.look_different(key)
            if self.pick.random() < 0.4:
                self.contacts.add((key, "k"))
            for _ in range(self.pick.choice([0, 0, 1, 2, 4])):
                self.happen(key, DAY - timedelta(days=self.pick.randint(1, 40)))

    def look_different(self, key: int) -> None:
        """Gives a customer other features."""
        some = self.pick
        self.features[key] = {
            "frequency": some.choice([None, 0, 1, 3, 5]),
            "monetary_net": some.choice([None, Decimal("0.10"), Decimal("9.99"), Decimal("500.00")]),
            "lifecycle_stage": some.choice([None, "new", "lost", "active"]),
            "first_purchase_on": some.choice([None, DAY - timedelta(days=some.randint(1, 800))]),
            GROUP: some.choice([None, "family", "single"]),
        }

    def happen(self, key: int, day: date) -> None:
        """Lets something happen to a customer."""
        self.number += 1
        at = datetime(day.year, day.month, day.day, self.pick.choice([8, 9, 10]))
        if self.pick.random() < 0.35:
            self.click(key, at)
            return
        if self.pick.random() < 0.25:
            self.redemptions[self.number] = {
                "merchant_id": self.shop_of(key),
                "customer_id": str(key),
                "coupon_id": self.pick.choice(["c1", "c2"]),
                "campaign_id": "k",
                "redeemed_at": at,
                "redeemed_on": day,
                "occurrence": self.number,
            }
            return
        amount = self.pick.choice([Decimal("5.00"), Decimal("20.50"), Decimal("99.90")])
        is_sale = self.pick.random() < 0.85
        self.lines[self.number] = {
            "transaction_id": self.number,
            "merchant_id": self.shop_of(key),
            "customer_key": key,
            "customer_id": str(key),
            "basket_id": f"b{self.number}",
            "product_id": self.pick.choice(["p1", "p2"]),
            "store_id": self.pick.choice([None, "s1", "s2"]),
            "channel_id": self.pick.choice(["web", "shop"]),
            "txn_type": "sale" if is_sale else "return",
            "posted_ts": at,
            "business_date": day,
            "hour_of_day": at.hour,
            "quantity": Decimal(1) if is_sale else Decimal(-1),
            "amount": amount if is_sale else -amount,
            "is_valid_purchase": is_sale,
        }

    def book_on(self, number: int, key: int, day: date) -> None:
        """Corrects whose a line is, and when it was bought."""
        line = self.lines[number]
        at = datetime.combine(day, line["posted_ts"].time())
        self.lines[number] = line | {
            "merchant_id": self.shop_of(key),
            "customer_key": key,
            "customer_id": str(key),
            "posted_ts": at,
            "business_date": day,
        }

    def click(self, key: int, at: datetime) -> None:
        """Lets a customer do something in the web shop."""
        # Some browsers are shared, so a login takes events from one customer and gives them to another.
        kind = self.pick.choice(["visit", "page_view", "cart_add", "cart_add", "checkout", "login", "login"])
        self.clicks[self.number] = {
            "merchant_id": self.shop_of(key),
            "visitor_id": self.pick.choice([f"of {key}", f"of {key % 3}"]),
            "event_id": f"{self.number:04}",
            "event_type": kind,
            "happened_at": at,
            "happened_on": at.date(),
            "page": self.pick.choice([None, "home", "product"]),
            "product_id": self.pick.choice([None, "p1"]),
            "quantity": None,
            "amount": self.pick.choice([None, Decimal("5.00"), Decimal("20.50")]),
            "customer_id": str(key) if kind == "login" else None,
        }

    def visits(self) -> dict[int, dict[str, Any]]:
        """What visitors did with the customer their logins show, as in `silver.visitor_event`."""
        found = {}
        for n, click in self.clicks.items():
            browser = ("merchant_id", "visitor_id")
            of_visitor = [c for c in self.clicks.values() if all(c[k] == click[k] for k in browser)]
            logins = sorted((c["happened_at"], c["event_id"], c["customer_id"]) for c in of_visitor if c["customer_id"])
            place = (click["happened_at"], click["event_id"])
            before, after = [x for x in logins if x[:2] <= place], [x for x in logins if x[:2] > place]
            shown = before[-1] if before else (after[0] if after else None)
            found[n] = click | {
                "customer_id": shown[2] if shown else None,
                "known_on": max(click["happened_on"], shown[0].date()) if shown else None,
            }
        return found

    def pass_a_day(self, as_of: date) -> None:
        """New and late events, deletions, other features, customers who come and go."""
        keys = list(self.features)
        for key in self.pick.sample(keys, 3):
            # Late ones lie weeks back; some are dated ahead and count only when their day has come.
            self.happen(key, as_of + timedelta(days=self.pick.choice([-30, -8, -1, -1, 1, 3])))
        for gone in self.pick.sample(sorted(self.lines), 1):
            del self.lines[gone]
        for number in self.pick.sample(sorted(self.lines), 1):
            # Corrected: it was another customer, on another day.
            self.book_on(number, self.pick.choice(keys), as_of - timedelta(days=self.pick.choice([1, 8, 30])))
        self.number += 1
        self.click(self.pick.choice(keys), datetime.combine(as_of - timedelta(days=2), time(9)))
        for key in self.pick.sample(keys, 2):
            self.look_different(key)
        if self.pick.random() < 0.5:
            self.campaigns["k"] = as_of + timedelta(days=self.pick.choice([-30, -8, -1, 1, 3]))
        if self.pick.random() < 0.5:
            self.contacts ^= {(self.pick.choice(keys), self.pick.choice(sorted(self.campaigns)))}
        if self.pick.random() < 0.5:
            self.categories["p1"] = self.pick.choice(["WINE", "BREAD"])
        if self.pick.random() < 0.5:
            del self.features[self.pick.choice(keys)]
        if self.pick.random() < 0.5:
            self.look_different(max(keys) + 1)

    def observe(self, key: int, as_of: date, segments: list[Segment]) -> Observed:
        """All that is known of a customer."""
        happened = [
            Happening("coupon_redemption", _utc(r["redeemed_at"]), r["redeemed_on"], r)
            for r in self.redemptions.values()
            if r["customer_id"] == str(key)
        ]
        happened += [
            Happening(c["event_type"], _utc(c["happened_at"]), c["happened_on"], c, c["known_on"])
            for c in self.visits().values()
            if c["customer_id"] == str(key)
        ]
        happened += [
            Happening("campaign_contact", datetime.combine(day, time(), UTC), day, {"campaign_id": campaign})
            for campaign, day in self.campaigns.items()
            if (key, campaign) in self.contacts
        ]
        for line in self.lines_of(key):
            at, day = _utc(line["posted_ts"]), line["business_date"]
            if line["txn_type"] == "return":
                fields = line | {"amount": -line["amount"], "quantity": -line["quantity"]}
                happened.append(Happening("return", at, day, fields))
                continue
            described = line | {"category": self.categories[line["product_id"]]}
            happened.append(Happening("item", at, day, described))
            happened.append(Happening("purchase", at, day, line | {"lines": 1, "weekday": day.weekday()}))
        return Observed(
            as_of,
            CATALOGUE,
            self.features[key],
            happened,
            self.shop_of(key),
            str(key),
            cuts=self.cuts(self.shop_of(key), segments),
            segments={s.segment_id: s for s in segments},
        )

    def lines_of(self, key: int) -> list[dict[str, Any]]:
        """What a customer bought and gave back."""
        return [line for line in self.lines.values() if line["customer_key"] == key]

    def cuts(self, shop: str, segments: list[Segment]) -> dict[Condition, float]:
        """The cut point of each percentile among a shop's customers, by numpy."""
        found = {}
        of_shop = [f for key, f in self.features.items() if self.shop_of(key) == shop]
        for c in dict.fromkeys(c for s in segments for c in s.conditions if c.op.endswith("_percent")):
            values = [float(f[c.feature]) for f in of_shop if f.get(c.feature) is not None]
            if values:
                is_top, percent = c.op == "top_percent", float(c.value)  # type: ignore[arg-type]
                cut = float(np.percentile(values, 100 - percent if is_top else percent))
                found[c] = cut + abs(cut) * (-1e-12 if is_top else 1e-12)
        return found

    def members(self, segments: list[Segment], as_of: date) -> dict[int, list[str]]:
        """Segments of each customer, every rule answered from nothing in plain Python."""
        found = {}
        for key in self.features:
            seen = self.observe(key, as_of, segments)
            found[key] = sorted(s.segment_id for s in segments if is_in(s, seen))
        return found

    def define(self, count: int) -> list[Segment]:
        """Random definitions; later ones may ask for earlier ones."""
        made: list[Segment] = []
        for n in range(count):
            rule = self._rule(2, [s.segment_id for s in made])
            websites = ("other",) if self.pick.random() < 0.1 else ()
            groups = ("family",) if self.pick.random() < 0.1 else ()
            made.append(Segment(f"s{n:03}", f"S{n}", rule, website_ids=websites, customer_group_ids=groups))
        return made

    def _rule(self, depth: int, known: list[str]) -> Rule:
        kind = self.pick.random()
        if depth and kind < 0.45:
            parts = tuple(self._rule(depth - 1, known) for _ in range(self.pick.randint(2, 3)))
            return All(parts) if self.pick.random() < 0.5 else AnyOf(parts)
        if depth and kind < 0.6:
            return Not(self._rule(depth - 1, known))
        if known and kind < 0.66:
            return in_segment(self.pick.choice(known))
        return self.ask_of_events() if kind < 0.9 else self._on_features()

    def _on_features(self) -> Rule:
        some = self.pick
        return some.choice(
            [
                feature("frequency").at_least(some.choice([0, 1, 3])),
                feature("monetary_net").less_than(some.choice([0.1, 100])),
                feature("lifecycle_stage").is_in(["new", "lost"]),
                feature("first_purchase_on").within_last_days(some.choice([30, 200])),
                feature("first_purchase_on").anniversary_within_days(some.choice([7, 30])),
                feature("frequency").is_empty(),
                feature("frequency").top_percent(some.choice([10, 40])),
                feature("monetary_net").bottom_percent(some.choice([20, 50])),
                in_list("vip", ["1", "4", "8"]),
            ]
        )

    def ask_of_events(self) -> EventCondition | Rule:
        """Returns a random condition on events."""
        some = self.pick
        name = some.choice(
            ["purchase", "item", "return", "coupon_redemption", "cart_add", "page_view", "login", "campaign_contact"]
        )
        asked = event(name)
        filters: dict[str, list[Rule]] = {
            "purchase": [feature("channel_id").equals("web"), feature("amount").at_least(20.5)],
            "item": [feature("category").equals("WINE"), ~feature("store_id").equals("s1")],
            "return": [feature("amount").greater_than(10)],
            "coupon_redemption": [feature("coupon_id").is_in(["c1"])],
            "cart_add": [feature("amount").at_least(20.5)],
            "page_view": [feature("page").equals("product")],
            "login": [feature("page").is_empty()],
            "campaign_contact": [feature("campaign_id").equals("k")],
        }
        name = some.choice(list(filters))
        asked = event(name)
        if some.random() < 0.5:
            asked = asked.where(some.choice(filters[name]))
        days = some.choice([1, 3, 7, 30])
        window = some.random()
        if window < 0.6:
            asked = asked.within_last_days(days)
        elif window < 0.75:
            asked = asked.from_to(DAY - timedelta(days=20), DAY + timedelta(days=2))
        rolling = event(name, asked.filter).within_last_days(days)
        choices: list[Rule] = [
            asked.did(),
            asked.did_not(),
            asked.at_least(some.choice([1, 2])),
            asked.exactly(some.choice([0, 1])),
            asked.at_most(1),
            rolling.stopped(),
            rolling.resumed(after_days=some.choice([2, 10])),
            rolling.first_time(),
            event(name, asked.filter).from_to(DAY - timedelta(days=3), DAY + timedelta(days=2)).first_time(),
            asked.did_unless_since(event(some.choice(["return", "coupon_redemption", "checkout"]))),
            event(name).within_last_days(days * 3).regular(every_days=days),
            sequence(event(name, asked.filter), event("coupon_redemption"), max_gap_days=some.choice([None, 1, 10])),
            sequence(event("purchase"), event("item"), event("purchase"), max_gap_days=20, within_last_days=30),
        ]
        if "amount" in EVENTS[name].fields:
            choices += [
                asked.sum("amount").greater_than(some.choice([0, 20])),
                asked.avg("amount").between(5, some.choice([20.5, 60])),
                asked.max("amount").at_least(20.5),
            ]
        if "store_id" in EVENTS[name].fields:
            choices.append(asked.distinct("store_id").at_least(1))
        return some.choice(choices)


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)
