# ruff: noqa: E501
"""Events, sequences, lists and references in definitions; what is refused, and what plain Python answers."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import SettingsError
from segments.catalogue import declared_features
from segments.language import Segment, all_of, any_of, event, feature, in_list, in_segment, sequence
from segments.load import DefinitionError, load_segments, parse_rule, parse_segments, segment_of_row
from segments.logic import Logic
from segments.reference import Happening, Observed, explain
from segments.rules import All, AnyOf, Not, Rule
from segments.tell import lines_of
from segments.timelines import Asked
from tests.support.segment_features import FEATURES
from tests.support.segment_worlds import DAY, World

AS_OF = date(2018, 1, 1)


def at(month: int, day: int, hour: int = 12, year: int = 2017) -> tuple[datetime, date]:
    return datetime(year, month, day, hour, tzinfo=UTC), date(year, month, day)


def bought(month: int, day: int, amount: str = "10", hour: int = 12, **fields: Any) -> Happening:
    return Happening("purchase", *at(month, day, hour), {"amount": Decimal(amount), **fields})


def sent(month: int, day: int, hour: int = 0) -> Happening:
    return Happening("campaign_contact", *at(month, day, hour))


def truth(rule: Rule, *events: Happening, **features: Any) -> bool | None:
    return explain(rule, Observed(AS_OF, FEATURES, features, events, "shop", "7")).truth


def test_the_words_of_python_drop_nothing_that_is_written() -> None:
    step = event("purchase").where(feature("channel_id").equals("web")).where(feature("amount").at_least(3)).did().step
    assert step.where == feature("channel_id").equals("web") & feature("amount").at_least(3)
    for inner in (event("purchase").within_last_days(5), event("purchase").sum("amount")):
        with pytest.raises(SettingsError, match=r"event\('purchase'\) within did_unless_since\(...\) cannot have"):
            event("cart_add").did_unless_since(inner)
        with pytest.raises(SettingsError, match=r"within sequence\(...\) cannot have"):
            sequence(event("campaign_contact"), inner)


EVERY_FORM: list[Rule] = [
    event("purchase").did(),
    event("purchase").where(feature("amount").at_least(20.5)).within_last_days(30).at_least(3),
    event("item")
    .where(feature("category").is_in(["WINE"]) & ~feature("store_id").is_empty())
    .sum("amount")
    .between(5, 9),
    event("purchase").from_to(date(2017, 1, 1), date(2017, 2, 1)).distinct("store_id").exactly(2),
    event("purchase").within_last_days(90).regular(every_days=30),
    event("purchase").within_last_days(30).resumed(after_days=90),
    event("purchase").within_last_days(30).stopped(),
    event("campaign_contact").within_last_days(14).did_unless_since(event("purchase")),
    sequence(event("campaign_contact"), event("purchase"), max_gap_days=7, within_last_days=60),
    ~in_segment("other"),
    in_list("vip", ["1", "2"]),
    feature("monetary_net").top_percent(10),
    feature("first_purchase_on").anniversary_within_days(7),
    feature("first_purchase_on").before(date(2017, 5, 1)),
]


@pytest.mark.parametrize("rule", EVERY_FORM, ids=lambda r: json.dumps(r.to_dict(), default=str)[:60])
def test_python_yaml_and_rows_say_the_same(rule: Rule) -> None:
    segment = Segment("s", "S", rule, description="d", website_ids=("shop",), max_change_share=0.2)
    other = Segment("other", "Other", feature("frequency").at_least(1))
    lists = {"vip": frozenset({"1", "2"})}

    assert parse_segments(yaml.safe_dump(segment.to_dict()), FEATURES, lists=lists, others=[other]) == (segment,)
    row = segment.to_dict() | {"conditions": segment.conditions_json}
    assert segment_of_row(row, FEATURES, lists=lists) == segment


@pytest.mark.parametrize(
    ("rule", "events", "answer"),
    [
        (event("purchase").did(), [], False),
        (event("purchase").did_not(), [], True),
        (event("purchase").did(), [bought(12, 31)], True),
        (event("purchase").did(), [Happening("purchase", *at(1, 1, year=2018))], False),  # that day is not over
        (event("purchase").within_last_days(1).did(), [bought(12, 31)], True),
        (event("purchase").within_last_days(1).did(), [bought(12, 30)], False),
        (event("purchase").from_to(date(2017, 5, 1), date(2017, 6, 1)).at_least(1), [bought(6, 1)], False),
        (event("purchase").from_to(date(2017, 5, 1), date(2017, 6, 1)).at_least(1), [bought(5, 1)], True),
        (event("purchase").sum("amount").at_least(20), [bought(1, 1), bought(1, 2)], True),
        (event("purchase").sum("amount").at_most(0), [], True),  # nothing bought adds up to nothing
        (event("purchase").avg("amount").at_most(100), [], None),  # the mean of nothing is unknown
        (event("purchase").avg("amount").between(0, 10.1), [bought(1, 1), bought(1, 2, "10.2")], True),
        (event("purchase").where(feature("amount").greater_than(10)).did(), [bought(1, 1)], False),
        (event("purchase").distinct("store_id").exactly(1), [bought(1, 1, store_id="a"), bought(1, 2)], True),
        (event("purchase").within_last_days(30).first_time(), [bought(12, 5)], True),
        (event("purchase").within_last_days(30).first_time(), [bought(11, 5), bought(12, 5)], False),
        (event("purchase").within_last_days(60).regular(every_days=30), [bought(12, 5), bought(11, 5)], True),
        (event("purchase").within_last_days(60).regular(every_days=30), [bought(12, 5), bought(12, 6)], False),
        (event("purchase").within_last_days(30).stopped(), [bought(11, 5)], True),
        (event("purchase").within_last_days(30).stopped(), [bought(11, 5), bought(12, 5)], False),
        (event("purchase").within_last_days(30).stopped(), [], False),
        (event("purchase").within_last_days(30).resumed(after_days=60), [bought(6, 1), bought(12, 5)], True),
        (event("purchase").within_last_days(30).resumed(after_days=60), [bought(6, 1), bought(11, 5), bought(12, 5)], False),
        (event("purchase").within_last_days(30).resumed(after_days=60), [bought(12, 5)], False),
    ],
)  # fmt: skip
def test_an_event_condition_says_what_its_words_say(rule: Rule, events: list[Happening], answer: bool | None) -> None:
    assert truth(rule, *events) is answer


def test_a_long_chain_of_segments_is_explained_in_one_pass() -> None:
    chain = {"s0": Segment("s0", "S0", feature("frequency").at_least(1))}
    chain |= {f"s{n}": Segment(f"s{n}", f"S{n}", in_segment(f"s{n - 1}")) for n in range(1, 60)}
    customer = Observed(AS_OF, FEATURES, {"frequency": 1}, segments=chain)
    assert explain(in_segment("s59"), customer).truth is True


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_changes_only_on_a_day_that_the_age_of_an_event_tells_of(seed: int) -> None:
    """Each definition by itself: beside others of the same kind of event it would be asked again on their days."""
    world = World(random.Random(seed))
    world.begin(4)
    for rule in [world.ask_of_events() for _ in range(15)]:
        asked = Asked.by([rule])
        for key in world.features:
            events = [e for e in world.observe(key, DAY, []).events if e.event in asked.events]
            told = {e.day + timedelta(days=age + 1) for e in events for age in asked.edges(e.event)}
            told |= {e.known_on + timedelta(days=1) for e in events if e.known_on is not None}
            days = [DAY + timedelta(days=n) for n in range(-5, 40)]
            truths = [explain(rule, Observed(day, FEATURES, events=events)).truth for day in days]
            changed = {day for day, now, before in zip(days[1:], truths[1:], truths, strict=False) if now != before}
            assert changed <= told, rule


def test_abandonment_is_about_the_last_one() -> None:
    left = event("campaign_contact").within_last_days(30).did_unless_since(event("purchase"))

    assert truth(left, sent(12, 5)) is True
    assert truth(left, sent(12, 5), bought(12, 6)) is False
    assert truth(left, sent(12, 5), bought(12, 6), sent(12, 7)) is True  # sends, buys, is sent another
    assert truth(left, bought(12, 5, hour=0), sent(12, 5)) is False  # at the same instant counts as since
    assert truth(left, sent(11, 5)) is False


def test_a_sequence_needs_order_and_gaps_between_neighbours() -> None:
    answered = sequence(event("campaign_contact"), event("purchase"), event("purchase"), max_gap_days=3)

    assert truth(answered, sent(12, 1), bought(12, 3), bought(12, 6)) is True
    assert truth(answered, sent(12, 1), bought(12, 3), bought(12, 7, hour=13)) is False
    assert truth(answered, bought(12, 1), bought(12, 2), sent(12, 3)) is False
    assert truth(answered, sent(12, 1), bought(12, 2), bought(12, 2)) is False  # one instant is one step
    # The first contact is too early; the second is not.
    assert truth(answered, sent(11, 1), sent(12, 1), bought(12, 2), bought(12, 3)) is True


def told(definition: str, features: Any = FEATURES) -> list[str]:
    with pytest.raises(DefinitionError) as raised:
        parse_segments(f"segment_id: s\nname: S\nrule: {definition}\n", features, "x.yml")
    assert all(p.at.line >= 1 and p.at.column >= 1 for p in raised.value.problems)
    return [p.message for p in raised.value.problems]


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("{event: purchas, op: did}", "Did you mean 'purchase'?"),
        ("{event: purchase}", "needs 'op'"),
        ("{event: purchase, op: equals, value: 1}", "is not an operator of events"),
        ("{event: purchase, op: at_least}", "needs a value"),
        ("{event: purchase, op: at_least, value: null}", "not nothing"),
        ("{event: purchase, op: at_least, value: 1.5}", "a whole number"),
        ("{event: purchase, op: at_least, value: -1}", "from 0"),
        ("{event: purchase, op: did, value: 1}", "takes no value"),
        ("{event: purchase, op: did, sum: amount}", "does not fit"),
        ("{event: purchase, op: at_least, value: 1, sum: amont}", "Did you mean 'amount'?"),
        ("{event: purchase, op: at_least, value: 1, sum: store_id}", "needs a number"),
        ("{event: purchase, op: at_least, value: 1, sum: amount, avg: amount}", "does not fit"),
        ("{event: purchase, op: did, within_last_days: 0}", "from 1"),
        ("{event: purchase, op: did, within_last_days: null}", "not nothing"),
        ("{event: purchase, op: did, within_last_days: 3, from: 2017-01-01}", "does not fit beside"),
        ("{event: purchase, op: did, from: 2017-02-01, to: 2017-02-01}", "must be later"),
        ("{event: purchase, op: did, from: soon}", "a date such as"),
        ("{event: purchase, op: first_time}", "this needs"),
        ("{event: purchase, op: stopped, from: 2017-01-01}", "needs 'within_last_days'"),
        ("{event: purchase, op: resumed, within_last_days: 3}", "needs 'after_days'"),
        ("{event: purchase, op: regular, within_last_days: 10, every_days: 3}", "periods of 3"),
        ("{event: purchase, op: did, every_days: 3}", "goes with 'regular' only"),
        ("{event: purchase, op: did_not, unless_since: {event: return}}", "with 'did' only"),
        ("{event: purchase, op: between, value: [3, 1]}", "above the high one"),
        ("{event: purchase, op: did, where: {field: amont, op: at_least, value: 1}}", "is not a field"),
        ("{event: purchase, op: did, where: {feature: amount, op: at_least, value: 1}}", "is not a field of a condition"),
        ("{event: purchase, op: did, where: {event: purchase, op: did}}", "is not a field of a condition"),
        ("{event: purchase, op: did, where: {field: amount, op: top_percent, value: 1}}", "compares customers"),
        ("{sequence: [{event: purchase}]}", "2 to 10 events"),
        ("{sequence: [{event: purchase}, {event: purchase, op: did}]}", "is not a field of an event"),
        ("{sequence: [{event: purchase}, {event: return}], max_gap_days: -1}", "from 1"),
        ("{sequence: [{event: purchase}, {event: return}], max_gap_days: 0}", "from 1"),
        ("{event: purchase, op: regular, within_last_days: 365, every_days: 1}", "more than 100 periods of 1"),
        ("{feature: monetary_net, op: greater_than, value: 1e-50}", "at most 12 decimal places"),
        ("{feature: monetary_net, op: between, value: [0, 1e-13]}", "at most 12 decimal places"),
        ("{event: purchase, op: greater_than, value: 1e-50, sum: amount}", "at most 12 decimal places"),
        ("{event: purchase, op: between, value: [1e-50, 1], avg: amount}", "at most 12 decimal places"),
        ("{in_segment: nobody}", "is not a segment"),
        ("{in_segment: s}", "asks for itself, by way of s -> s"),
        ("{in_segment: s, not_in_segment: s}", "one of"),
        ("{in_list: vip}", "there is no list 'vip'"),
        ("{feature: monetary_net, op: top_percent, value: 100}", "from 0.001 to 99.999"),
        ("{feature: lifecycle_stage, op: top_percent, value: 10}", "does not apply"),
        # What no one can fulfil, and what everyone does.
        ("{all: [{feature: frequency, op: greater_than, value: 5}, {feature: frequency, op: less_than, value: 6}]}", "impossible"),
        ("{all: [{feature: lifecycle_stage, op: equals, value: new}, {feature: lifecycle_stage, op: equals, value: lost}]}", "impossible"),
        ("{all: [{feature: is_private, op: equals, value: true}, {feature: is_private, op: equals, value: false}]}", "impossible"),
        ("{all: [{feature: frequency, op: is_empty}, {feature: frequency, op: equals, value: 1}]}", "impossible"),
        ("{all: [{event: purchase, op: did}, {not: {event: purchase, op: did}}]}", "impossible"),
        ("{any: [{feature: frequency, op: at_least, value: 5}, {feature: frequency, op: less_than, value: 6}]}", "always true"),
        ("{any: [{feature: frequency, op: equals, value: 5}, {not: {feature: frequency, op: equals, value: 5}}]}", "always true"),
        ("{feature: lifecycle_stage, op: in, value: [new, active, lapsing, lost, won_back]}", "always true"),
        ("{event: purchase, op: at_least, value: 0}", "always true"),
        ("{event: purchase, op: less_than, value: 0}", "impossible"),
        ("{feature: first_purchase_on, op: within_last_days, value: 0}", "impossible"),
        ("{feature: first_purchase_on, op: not_within_last_days, value: 0}", "always true"),
        ("{feature: first_purchase_on, op: anniversary_within_days, value: 0}", "impossible"),
        ("{feature: first_purchase_on, op: anniversary_within_days, value: 366}", "always true"),
        ("{feature: lifecycle_stage, op: starts_with, value: newer}", "impossible: no customer can fulfil this condition on 'lifecycle_stage'"),
        ("{all: [{event: purchase, op: did}, {event: purchase, op: did_not}]}", "impossible: no customer can fulfil these conditions on 'purchase'"),
        ("{any: [{event: purchase, op: did, within_last_days: 9}, {event: purchase, op: did_not, within_last_days: 9}]}", "always true"),
        ("{all: [{event: purchase, op: at_least, value: 5}, {event: purchase, op: at_most, value: 3}]}", "impossible"),
        ("{all: [{event: purchase, op: greater_than, value: 4}, {event: purchase, op: less_than, value: 5}]}", "impossible"),
        ("{all: [{event: purchase, op: did}, {event: purchase, op: exactly, value: 0}]}", "impossible"),
        ("{any: [{event: purchase, op: at_least, value: 5, sum: amount}, {event: purchase, op: at_most, value: 5, sum: amount}]}", "always true"),
        ("{all: [{event: purchase, op: at_least, value: 5.5, avg: amount}, {event: purchase, op: at_most, value: 5.4, avg: amount}]}", "impossible"),
        ("{event: purchase, op: greater_than, value: 23, max: hour}", "impossible"),
        ("{all: [{feature: first_purchase_on, op: within_last_days, value: 7}, {feature: first_purchase_on, op: not_within_last_days, value: 30}]}", "impossible"),
        ("{all: [{feature: last_seen_at, op: within_last_days, value: 7}, {feature: last_seen_at, op: is_empty}]}", "impossible"),
        ("{all: [{feature: first_purchase_on, op: anniversary_within_days, value: 7}, {not: {feature: first_purchase_on, op: anniversary_within_days, value: 30}}]}", "impossible"),
        ("{all: [{feature: frequency, op: greater_than, value: 10}, {all: [{feature: frequency, op: less_than, value: 5}, {feature: recency_days, op: at_least, value: 1}]}]}", "impossible"),
        ("{any: [{feature: frequency, op: greater_than, value: 3}, {any: [{feature: frequency, op: less_than, value: 5}, {feature: recency_days, op: at_least, value: 1}]}]}", "always true"),
        ("{all: [{feature: frequency, op: greater_than, value: 10}, {not: {any: [{feature: frequency, op: at_least, value: 5}, {feature: recency_days, op: at_least, value: 1}]}}]}", "impossible"),
        ("{any: [{feature: frequency, op: greater_than, value: 3}, {not: {all: [{feature: frequency, op: at_least, value: 5}, {feature: recency_days, op: at_least, value: 1}]}}]}", "always true"),
        ("{event: purchase, op: did, where: {field: weekday, op: equals, value: 9}}", "impossible"),
        ("{feature: monetary_net, op: equals, value: 0.001}", "impossible"),
        ("{feature: monetary_net, op: not_equals, value: 0.001}", "always true"),
        ("{all: [{feature: monetary_net, op: greater_than, value: 0.01}, {feature: monetary_net, op: less_than, value: 0.02}]}", "impossible"),
        ("{event: purchase, op: exactly, value: 0.001, sum: amount}", "impossible"),
        ("{feature: favourite_store_id, op: contains, value: ''}", "always true"),
        ("{feature: favourite_store_id, op: starts_with, value: ''}", "always true"),
        ("{event: item, op: did, where: {field: department, op: contains, value: ''}}", "always true"),
        ("{event: purchase, op: did, unless_since: {event: purchase}}", "impossible"),
        ("{event: purchase, op: did, within_last_days: 7, where: {field: hour, op: at_most, value: 9}, unless_since: {event: purchase}}", "impossible"),
        ("{event: purchase, op: did, where: {field: hour, op: at_most, value: 23}}", "always true"),
        ("{event: purchase, op: less_than, value: 1, min: lines}", "impossible"),
        ("{event: purchase, op: less_than, value: 0, sum: lines}", "impossible"),
        ("{all: [{feature: favourite_store_id, op: contains, value: a}, {feature: favourite_store_id, op: is_empty}]}", "impossible"),
        ("{all: [{feature: categories, op: contains, value: a}, {feature: categories, op: is_empty}]}", "impossible"),
        ("{all: [{feature: categories, op: is_not_empty}, {feature: categories, op: is_empty}]}", "impossible"),
        ("{all: [{feature: monetary_net, op: top_percent, value: 10}, {not: {feature: monetary_net, op: top_percent, value: 20}}]}", "impossible"),
        ("{any: [{feature: monetary_net, op: top_percent, value: 20}, {not: {feature: monetary_net, op: top_percent, value: 10}}]}", "always true"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_a_reason(definition: str, said: str) -> None:
    assert any(said in message for message in told(definition)), told(definition)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("weekend_share, op: at_least, value: 50", "impossible: no customer can fulfil this condition on 'weekend_share', which is from 0 to 1"),
        ("churn_probability, op: at_least, value: 60", "impossible"),
        ("r_score, op: at_least, value: 6", "impossible"),
        ("r_score, op: at_least, value: 1", "always true"),
        ("frequency, op: less_than, value: 0", "impossible: no customer can fulfil this condition on 'frequency', which is never below 0"),
        ("tenure_days, op: at_least, value: 0", "always true"),
        ("spend_trend, op: at_most, value: -1.5", "impossible"),
    ],
)  # fmt: skip
def test_a_unit_says_what_a_feature_can_be(condition: str, said: str) -> None:
    assert any(said in message for message in told(f"{{feature: {condition}}}", declared_features()))


@pytest.mark.parametrize("name", ["monetary_net", "spend_30d", "return_rate", "coupon_share", "cluster_distance"])
def test_what_may_go_back_has_no_ends(name: str) -> None:
    assert declared_features()[name].bounds == (-inf, inf)


def test_long_lists_leave_no_contradiction_unseen() -> None:
    listed = feature("favourite_store_id").is_in([str(n) for n in range(2_000)])
    unlike = all_of(listed, feature("favourite_store_id").equals("2000"))
    assert told(json.dumps(unlike.to_dict())) == [
        "is impossible: no customer can fulfil these conditions on 'favourite_store_id'"
    ]


def test_a_definition_too_long_to_be_looked_through_takes_nothing_from_the_next() -> None:
    by_day = [feature("first_purchase_on").equals(AS_OF + timedelta(days=7 * n)) for n in range(60)]
    busy = any_of(*by_day, *[feature("first_purchase_on").within_last_days(n) for n in range(1, 200)])
    logic = Logic()
    assert list(logic.contradictions(busy, FEATURES)) == []
    assert logic.trials < 0
    clash = all_of(feature("frequency").equals(1), feature("frequency").equals(2))
    both = [Segment("busy", "Busy", busy).to_dict(), Segment("clash", "Clash", clash).to_dict()]
    with pytest.raises(DefinitionError, match="is impossible"):
        parse_segments(json.dumps({"segments": both}, default=str), FEATURES)


def test_possible_branches_are_left_alone() -> None:
    for possible in (
        "{all: [{feature: monetary_net, op: top_percent, value: 20}, {not: {feature: monetary_net, op: top_percent, value: 10}}]}",
        "{all: [{feature: monetary_net, op: top_percent, value: 10}, {feature: monetary_net, op: bottom_percent, value: 10}]}",
        "{any: [{feature: favourite_store_id, op: contains, value: a}, {feature: favourite_store_id, op: is_empty}]}",
        "{all: [{feature: weekend_share, op: greater_than, value: 5}, {feature: weekend_share, op: less_than, value: 6}]}",
        "{any: [{feature: frequency, op: at_most, value: 5}, {feature: frequency, op: is_empty}]}",
        "{all: [{feature: categories, op: contains, value: A}, {feature: categories, op: contains, value: B}]}",
        "{feature: lifecycle_stage, op: starts_with, value: l}",
        "{feature: lifecycle_stage, op: contains, value: _}",
        "{feature: weekend_share, op: equals, value: 0.1}",
        "{feature: weekend_share, op: equals, value: 1e-50}",
        "{feature: monetary_net, op: equals, value: 0.01}",
        "{feature: monetary_net, op: greater_than, value: 0.005}",
        "{event: purchase, op: exactly, value: 0.0005, avg: amount}",
        "{feature: categories, op: contains, value: ''}",
        "{event: purchase, op: did, unless_since: {event: purchase, where: {field: hour, op: at_most, value: 9}}}",
        "{feature: first_purchase_on, op: anniversary_within_days, value: 365}",
        "{all: [{event: purchase, op: did, within_last_days: 9}, {event: purchase, op: did_not, within_last_days: 8}]}",
        "{all: [{event: purchase, op: did}, {event: purchase, op: did_not, where: {field: hour, op: at_most, value: 9}}]}",
        "{all: [{event: purchase, op: at_least, value: 5}, {event: purchase, op: at_most, value: 3, sum: amount}]}",
        "{any: [{event: purchase, op: at_least, value: 5, avg: amount}, {event: purchase, op: less_than, value: 4, avg: amount}]}",
        "{all: [{feature: first_purchase_on, op: within_last_days, value: 30}, {feature: first_purchase_on, op: not_within_last_days, value: 7}]}",
        "{all: [{feature: first_purchase_on, op: within_last_days, value: 7}, {feature: first_purchase_on, op: before, value: 2017-05-01}]}",
        "{all: [{feature: first_purchase_on, op: not_within_last_days, value: 7}, {feature: first_purchase_on, op: at_most, value: 1900-01-01}]}",
        "{all: [{feature: frequency, op: greater_than, value: 10}, {any: [{feature: frequency, op: less_than, value: 5}, {feature: recency_days, op: at_least, value: 1}]}]}",
    ):
        assert parse_segments(f"segment_id: s\nname: S\nrule: {possible}\n", FEATURES)


def _condition(pick: random.Random) -> Rule:
    few = pick.choice([0, 1, 2, 2.5, 3])
    day = AS_OF - timedelta(days=pick.choice([1, 2, 30]))
    bought = event("purchase").where(feature("hour").at_most(10)) if pick.random() < 0.2 else event("purchase")
    asked: Any = pick.choice(
        [
            feature("frequency"),
            feature("weekend_share"),
            feature("monetary_net"),
            bought,
            bought.within_last_days(2),
            bought.sum("amount"),
            bought.avg("amount"),
            bought.avg("hour"),
            bought.max("hour"),
            bought.distinct("store_id"),
        ]
    )
    compare = pick.choice(["greater_than", "at_least", "less_than", "at_most"])
    since = pick.choice(["within_last_days", "not_within_last_days", "anniversary_within_days"])
    found: Rule = pick.choice(
        [
            getattr(asked, compare)(few),
            asked.between(few, few + 1),
            asked.exactly(few) if isinstance(asked, event) else asked.is_in([few, 3]),
            bought.did(),
            bought.did_not(),
            getattr(feature("first_purchase_on"), since)(pick.choice([0, 1, 2, 364, 365, 366])),
            getattr(feature("last_seen_at"), since)(pick.choice([0, 1, 2, 365])),
            getattr(feature("first_purchase_on"), pick.choice(["before", "after", "equals"]))(day),
            feature("last_seen_at").before(datetime(2017, 12, 31, 12, tzinfo=UTC)),
            feature(pick.choice(["frequency", "last_seen_at", "lifecycle_stage"])).is_empty(),
            feature("lifecycle_stage").starts_with(pick.choice(["l", "new", "x"])),
            feature("lifecycle_stage").not_in(pick.sample(["new", "lost", "active", "lapsing", "won_back"], 4)),
        ]
    )
    return found


def _rule(pick: random.Random, depth: int) -> Rule:
    if not depth or pick.random() < 0.3:
        return _condition(pick)
    if pick.random() < 0.25:
        return Not(_rule(pick, depth - 1))
    return pick.choice([All, AnyOf])(tuple(_rule(pick, depth - 1) for _ in range(pick.choice([2, 3]))))


def _anyone(pick: random.Random) -> Observed:
    as_of = pick.choice([AS_OF, date(2016, 3, 1), date(2020, 2, 29), AS_OF + timedelta(days=pick.randint(-40, 40))])
    day = pick.choice([as_of, AS_OF]) - timedelta(days=pick.choice([-1, 0, 1, 2, 3, 29, 30, 31, 364, 365, 366]))
    seen = datetime(day.year, day.month, day.day, pick.choice([0, 12, 23]), tzinfo=UTC)
    few = [None, -1, 0, 1, 2, 3, 4]
    events = [
        Happening(
            "purchase",
            seen - timedelta(days=pick.randint(0, 4)),
            day,
            {
                "amount": Decimal(pick.choice(["0", "1.5", "2.5", "-3", "9"])),
                "hour": pick.choice([0, 9, 10, 23]),
                "store_id": str(n),
            },
        )
        for n in range(pick.choice([0, 0, 1, 2, 3, 5]))
    ]
    some = {
        "frequency": pick.choice(few),
        "weekend_share": pick.choice([*few, 2.5, 2.7, 0.3]),
        "monetary_net": pick.choice([None, Decimal("2.50"), Decimal("2.70"), Decimal(1), Decimal(3)]),
        "first_purchase_on": pick.choice([None, day]),
        "last_seen_at": pick.choice([None, seen]),
        "lifecycle_stage": pick.choice([None, *FEATURES["lifecycle_stage"].values]),
    }
    return Observed(as_of, FEATURES, some, events)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_nothing_is_refused_that_a_customer_can_fulfil(seed: int) -> None:
    pick = random.Random(seed)
    rule = _rule(pick, 2)
    told = " ".join(Logic().contradictions(rule, FEATURES))
    answers = {explain(rule, _anyone(pick)).truth for _ in range(150 if told else 0)}

    assert not ("is impossible" in told and True in answers), rule
    assert not ("is always true" in told and False in answers), rule


def test_an_anniversary_of_29_february_falls_on_the_28th_only_in_years_without_one() -> None:
    soon = feature("first_purchase_on").anniversary_within_days(1)

    def on(as_of: date) -> bool | None:
        return explain(soon, Observed(as_of, FEATURES, {"first_purchase_on": date(2016, 2, 29)})).truth

    assert [on(date(2020, 2, day)) for day in (28, 29)] == [False, True]
    assert on(date(2019, 2, 28)) is True


def test_a_circle_of_segments_is_told_once_with_its_way() -> None:
    text = "\n".join(
        ["segments:"]
        + [f"  - {{segment_id: {a}, name: {a}, rule: {{in_segment: {b}}}}}" for a, b in ("ab", "bc", "ca")]
    )
    with pytest.raises(DefinitionError) as raised:
        parse_segments(text, FEATURES)
    assert [p.message for p in raised.value.problems] == ["asks for itself, by way of a -> b -> c -> a"]


def test_a_circle_is_told_of_beside_other_mistakes() -> None:
    text = """\
segments:
  - {segment_id: c, name: C, rule: {in_segment: d}}
  - {segment_id: d, name: D, rule: {all: [{in_segment: c}, {feature: frequencie, op: at_least, value: 1}]}}
"""
    with pytest.raises(DefinitionError) as raised:
        parse_segments(text, FEATURES)
    assert [p.message for p in raised.value.problems] == [
        "'frequencie' is not a feature. Did you mean 'frequency'?",
        "asks for itself, by way of c -> d -> c",
    ]


def test_a_definition_read_again_no_longer_asks_for_what_it_did() -> None:
    old = [Segment("c", "C", in_segment("d")), Segment("d", "D", feature("frequency").at_least(1))]
    text = "segments: [{segment_id: c, name: C, rule: {feature: frequencie, op: at_least, value: 1}}, {segment_id: d, name: D, rule: {in_segment: c}}]"
    with pytest.raises(DefinitionError) as raised:
        parse_segments(text, FEATURES, others=old)
    assert [p.message for p in raised.value.problems] == ["'frequencie' is not a feature. Did you mean 'frequency'?"]


def test_lists_are_read_from_their_files_and_decide_the_version(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists" / "vip.csv"
    (tmp_path / "vip.yml").write_text("segment_id: vip\nname: V\nrule: {in_list: vip}\n")
    file.write_text("name,customer_id\nAda, 007 \nBob,8\n,\n")
    (one,) = load_segments(tmp_path, FEATURES)
    assert explain(one.rule, Observed(AS_OF, FEATURES, customer_id="007")).truth is True
    file.write_text("customer_id\n8\n")
    (two,) = load_segments(tmp_path, FEATURES)
    assert one.version != two.version

    file.write_text('name,customer_id\n"A\nB",1\nC,\nD,2\x003\n')
    with pytest.raises(DefinitionError) as raised:
        load_segments(tmp_path, FEATURES)
    assert [(str(p.at), p.message) for p in raised.value.problems] == [
        ("lists/vip.csv, line 4, column 1", "a row without a 'customer_id'"),
        ("lists/vip.csv, line 5, column 1", "a 'customer_id' with a control or invisible character, '2\\x003'"),
    ]
    file.write_text("customer_id,customer_id\n1,2\n")
    with pytest.raises(DefinitionError, match="has the column 'customer_id' more than once"):
        load_segments(tmp_path, FEATURES)

    file.write_text("customer\n8\n")
    with pytest.raises(DefinitionError, match=r"lists/vip\.csv, line 1, column 1: has no column 'customer_id'"):
        load_segments(tmp_path, FEATURES)


def test_the_same_node_is_answered_and_observed_all_the_way_down() -> None:
    rule = (feature("frequency").at_least(3) | event("purchase").at_least(2)) & ~feature("recency_days").at_most(5)
    found = explain(rule, Observed(AS_OF, FEATURES, {"frequency": 1}, [bought(1, 1), bought(2, 1)]))

    either, never = found.parts
    assert (found.truth, either.truth, never.truth) == (None, True, None)
    assert [(p.truth, p.observed) for p in either.parts] == [(False, 1), (True, 2)]
    assert never.parts[0].observed is None


MONTH = event("purchase").within_last_days(30)
SENT_AND_BOUGHT = sequence(event("campaign_contact"), event("purchase"), event("campaign_contact"))


@pytest.mark.parametrize(
    ("rule", "events", "said"),
    [
        (MONTH.stopped(), [bought(10, 1), bought(12, 9)], "last on 2017-12-09"),
        (MONTH.stopped(), [], "last on no day"),
        (MONTH.resumed(after_days=9), [bought(9, 1), bought(12, 9)], "last before on 2017-09-01, first within on 2017-12-09"),
        (MONTH.regular(every_days=10), [bought(12, 3), bought(12, 25)], "none from 2017-12-12 to 2017-12-21"),
        (MONTH.regular(every_days=15), [bought(12, 2), bought(12, 31)], "in every period"),
        (
            event("purchase").did_unless_since(event("campaign_contact")),
            [bought(12, 2), sent(12, 3)],
            "last purchase 2017-12-02T12:00:00+00:00, last campaign_contact 2017-12-03T00:00:00+00:00",
        ),
        (event("purchase").did_unless_since(event("return")), [bought(12, 2)], "last purchase 2017-12-02T12:00:00+00:00, last return never"),
        (SENT_AND_BOUGHT, [bought(12, 1), sent(12, 2), bought(12, 3)], "2 of 3 steps came"),
        (SENT_AND_BOUGHT, [sent(12, 2), bought(12, 3), sent(12, 4)], "last ended 2017-12-04T00:00:00+00:00"),
        (event("purchase").at_least(3), [bought(12, 2)], "count is 1"),
    ],
)  # fmt: skip
def test_an_explanation_tells_what_decided(rule: Rule, events: list[Happening], said: str) -> None:
    ((_, _, _, observed),) = lines_of(explain(rule, Observed(AS_OF, FEATURES, {}, events)))
    assert observed == said


def test_an_explanation_names_the_website_a_segment_is_not_for() -> None:
    abroad = Segment("abroad", "A", feature("frequency").at_least(1), website_ids=("other",))
    seen = Observed(AS_OF, FEATURES, {"frequency": 1}, (), "shop", segments={"abroad": abroad})
    lines = list(lines_of(explain(in_segment("abroad"), seen)))

    assert lines == [
        (0, "false", "in segment abroad", ""),
        (1, "false", 'website_id in ["other"]', "is shop"),
        (1, "true", "frequency at_least 1", "is 1"),
    ]


def test_a_rule_of_a_row_may_ask_for_segments() -> None:
    assert parse_rule('{"in_segment":"x"}', FEATURES) == in_segment("x")
