"""Rules answered for one customer in plain Python, with the value observed at every node.

It is written from the meaning of each operator and not from its Spark column, so that `explain` is a second opinion on
what a refresh published; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from segments.catalogue import Feature
from segments.events import EVENTS
from segments.language import Segment
from segments.operators import Family, scale_of
from segments.rules import (
    All,
    AnyOf,
    Condition,
    EventCondition,
    EventStep,
    InList,
    InSegment,
    Not,
    Rule,
    SequenceCondition,
    Window,
)

Truth = bool | None


@dataclass(frozen=True)
class Happening:
    """One event of a customer.

    Attributes:
        event: Its kind.
        at: Instant, UTC.
        day: Business day.
        fields: Its fields by name.
        known_on: Day from which it is known whose it is, when that is later than `day`.
    """

    event: str
    at: datetime
    day: date
    fields: Mapping[str, Any] = field(default_factory=dict)
    known_on: date | None = None


@dataclass(frozen=True)
class Observed:
    """All that is known of a customer on a day.

    Attributes:
        as_of: The day.
        catalogue: Features by name.
        features: Value per feature.
        events: Events of any day; only those before `as_of` count.
        website_id: The customer's retailer.
        customer_id: The customer's number.
        cuts: Cut point per percentile condition.
        segments: Definitions other rules ask for, by id.
    """

    as_of: date
    catalogue: Mapping[str, Feature]
    features: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Happening] = ()
    website_id: str = ""
    customer_id: str = ""
    cuts: Mapping[Condition, Any] = field(default_factory=dict)
    segments: Mapping[str, Segment] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """The answer at one node of a rule.

    Attributes:
        rule: The node.
        truth: True, false, or None for unknown.
        observed: What decided: a feature's value, a measure, the days `_observe` tells of, the end of a sequence or the
            number of its steps that came; None for all, any and not.
        parts: Answers of the nodes below.
    """

    rule: Rule
    truth: Truth
    observed: Any = None
    parts: tuple[Finding, ...] = ()


def explain(rule: Rule, customer: Observed) -> Finding:
    """Returns the answer of a rule with those of every node below it."""
    match rule:
        case All(rules):
            parts = tuple(explain(r, customer) for r in rules)
            return Finding(rule, _all([p.truth for p in parts]), parts=parts)
        case AnyOf(rules):
            parts = tuple(explain(r, customer) for r in rules)
            return Finding(rule, _not(_all([_not(p.truth) for p in parts])), parts=parts)
        case Not(inner):
            part = explain(inner, customer)
            return Finding(rule, _not(part.truth), parts=(part,))
        case Condition():
            value = customer.features.get(rule.feature)
            return Finding(rule, answer_condition(rule, value, customer), value)
        case EventCondition():
            observed = _observe(rule, customer)
            return Finding(rule, _truth_of_event(rule, customer, observed), observed)
        case SequenceCondition():
            reached, end = _followed(rule, customer)
            is_whole = reached == len(rule.steps)
            return Finding(rule, is_whole, end if is_whole else reached)
        case InSegment(segment_id):
            asked = customer.segments[segment_id]
            website = (_on_website(asked, customer),) if asked.website_ids else ()
            group = (explain(asked.group_condition, customer),) if asked.group_condition is not None else ()
            parts = (*website, *group, explain(asked.rule, customer))
            return Finding(rule, all(p.truth is True for p in parts), parts=parts)
        case InList():
            return Finding(rule, customer.customer_id in rule.customer_ids)


def _on_website(segment: Segment, customer: Observed) -> Finding:
    """Whether a segment applies to the customer's website, told like a condition."""
    here = customer.website_id
    return Finding(Condition("website_id", "in", segment.website_ids), here in segment.website_ids, here)


def is_in(segment: Segment, customer: Observed) -> bool:
    """Whether a customer is in a segment: only when the rule is true, on a website it applies to."""
    if segment.website_ids and customer.website_id not in segment.website_ids:
        return False
    group = segment.group_condition
    if group is not None and explain(group, customer).truth is not True:
        return False
    return explain(segment.rule, customer).truth is True


def answer_condition(condition: Condition, value: Any, customer: Observed) -> Truth:
    """Returns the answer of a condition for a value of its feature."""
    known = customer.catalogue[condition.feature]
    if condition.op == "is_empty":
        return value is None or value in ("", [])
    if condition.op == "is_not_empty":
        return value is not None and value not in ("", [])
    if value is None:
        return None
    if condition.op in ("top_percent", "bottom_percent"):
        cut = customer.cuts.get(condition)
        if cut is None:
            return None
        return bool(float(value) >= cut if condition.op == "top_percent" else float(value) <= cut)
    wanted = comparable(condition.value, known)
    return bool(_ANSWERS[condition.op](comparable(value, known), wanted, customer.as_of))


def comparable(value: Any, known: Feature) -> Any:
    """Returns a value as the type its feature is compared in."""
    if isinstance(value, tuple):
        return tuple(comparable(v, known) for v in value)
    if known.type.startswith("decimal") and isinstance(value, float):
        return Decimal(str(value))
    if known.family is Family.INSTANT and isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _within(value: Any, days: int, as_of: date) -> bool:
    day = value.astimezone(UTC).date() if isinstance(value, datetime) else value
    return bool(as_of - timedelta(days=days) <= day < as_of)


def _anniversary(value: Any, days: int, as_of: date) -> bool:
    day = value.astimezone(UTC).date() if isinstance(value, datetime) else value
    for year in (as_of.year, as_of.year + 1):
        is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        falls = date(year, day.month, 28 if (day.month, day.day) == (2, 29) and not is_leap else day.day)
        if falls >= as_of:
            return (falls - as_of).days < days
    return False


def _contains(value: Any, wanted: Any, _: date) -> Truth:
    return wanted in value


_ANSWERS: Final[Mapping[str, Callable[[Any, Any, date], Any]]] = {
    "equals": lambda v, w, _: v == w,
    "not_equals": lambda v, w, _: v != w,
    "in": lambda v, w, _: v in w,
    "not_in": lambda v, w, _: v not in w,
    "greater_than": lambda v, w, _: v > w,
    "after": lambda v, w, _: v > w,
    "at_least": lambda v, w, _: v >= w,
    "less_than": lambda v, w, _: v < w,
    "before": lambda v, w, _: v < w,
    "at_most": lambda v, w, _: v <= w,
    "between": lambda v, w, _: w[0] <= v <= w[1],
    "contains": _contains,
    "starts_with": lambda v, w, _: v.startswith(w),
    "within_last_days": _within,
    "not_within_last_days": lambda v, w, as_of: not _within(v, w, as_of),
    "anniversary_within_days": _anniversary,
}


def _events(step: EventStep, customer: Observed) -> list[Happening]:
    """Events before `as_of` that pass the filter, in order."""
    fields = EVENTS[step.event].fields
    found = [e for e in customer.events if e.event == step.event and max(e.day, e.known_on or e.day) < customer.as_of]
    if step.where is not None:
        where = step.where
        found = [e for e in found if explain(where, Observed(customer.as_of, fields, e.fields)).truth is True]
    return sorted(found, key=lambda e: e.at)


def _inside(window: Window, day: date, as_of: date) -> bool:
    if window.last_days is not None and day < as_of - timedelta(days=window.last_days):
        return False
    return not (window.start is not None and day < window.start) and not (window.end is not None and day >= window.end)


def _observe(rule: EventCondition, customer: Observed) -> Any:
    """What decides an event condition.

    A number, of `first_time` a day; of `stopped` the last day; of `resumed` the last day before the rolling window and
    the first one within; of `regular` the periods without any, each by its first and last day; of `unless_since` the
    last instants of the one and of the other. A day or instant that never was is None.
    """
    every = _events(rule.step, customer)
    within = [e for e in every if _inside(rule.window, e.day, customer.as_of)]
    days = [e.day for e in every]
    match rule.op:
        case "did" if rule.unless is not None:
            others = _events(rule.unless, customer)
            return tuple(max((e.at for e in of), default=None) for of in (within, others))
        case "first_time":
            return min(days, default=None)
        case "stopped":
            return max(days, default=None)
        case "resumed":
            recent = [e.day for e in within]
            return max((d for d in days if d not in recent), default=None), min(recent, default=None)
        case "regular":
            return [(a, b) for a, b in _periods(rule, customer.as_of) if not any(a <= day <= b for day in days)]
        case _ if rule.measure == "count":
            return len(within)
    values = [v for e in within if (v := e.fields.get(str(rule.measured))) is not None]
    match rule.measure:
        case "sum":
            return sum(values)
        case "distinct":
            return len(set(values))
        case _ if not values:
            return None
        case "avg":
            mean = sum(values) / len(values)
            # Spark gives the mean of a decimal four more places than the decimal has.
            kind = EVENTS[rule.step.event].fields[str(rule.measured)].type
            places = Decimal(1).scaleb(-(scale_of(kind) + 4))
            return mean.quantize(places, ROUND_HALF_UP) if isinstance(mean, Decimal) else mean
        case "min":
            return min(values)
        case _:
            return max(values)


def _periods(rule: EventCondition, as_of: date) -> list[tuple[date, date]]:
    """The periods of `regular` by their first and last day, oldest first."""
    length = rule.days or 1
    starts = range(rule.window.last_days or 0, 0, -length)
    return [(as_of - timedelta(days=n), as_of - timedelta(days=n - length + 1)) for n in starts]


def _truth_of_event(rule: EventCondition, customer: Observed, observed: Any) -> Truth:
    every = _events(rule.step, customer)
    ages = [(customer.as_of - e.day).days for e in every]  # 1 is the day before
    days = rule.window.last_days or 0
    match rule.op:
        case "did" if rule.unless is not None:
            within = [e.at for e in every if _inside(rule.window, e.day, customer.as_of)]
            return bool(within) and all(e.at < max(within) for e in _events(rule.unless, customer))
        case "did":
            return bool(observed > 0)
        case "did_not":
            return bool(observed == 0)
        case "first_time":
            return observed is not None and _inside(rule.window, observed, customer.as_of)
        case "regular":
            every_days = rule.days or days
            return all(any(n < a <= n + every_days for a in ages) for n in range(0, days, every_days))
        case "stopped":
            return bool(ages) and min(ages) > days
        case "resumed":
            silent = days + (rule.days or 0)
            return (
                any(a <= days for a in ages)
                and not any(days < a <= silent for a in ages)
                and any(a > silent for a in ages)
            )
        case op:
            return None if observed is None else _compare(op, observed, rule.value)


def _compare(op: str, observed: Any, value: Any) -> bool:
    def exact(number: Any) -> Any:
        return Decimal(str(number)) if isinstance(number, float) and isinstance(observed, Decimal) else number

    if op == "between":
        return bool(exact(value[0]) <= observed <= exact(value[1]))
    return bool(
        {
            "at_least": observed >= exact(value),
            "at_most": observed <= exact(value),
            "exactly": observed == exact(value),
            "greater_than": observed > exact(value),
            "less_than": observed < exact(value),
        }[op]
    )


def _followed(rule: SequenceCondition, customer: Observed) -> tuple[int, datetime | None]:
    """How many of the steps have followed one another, and the latest instant at which they had."""
    gap = timedelta(days=rule.max_gap_days) if rule.max_gap_days is not None else None
    ends: set[datetime] = set()
    for reached, step in enumerate(rule.steps):
        moments = {e.at for e in _events(step, customer) if _inside(rule.window, e.day, customer.as_of)}
        if reached:
            moments = {m for m in moments if any(b < m and (gap is None or m - b <= gap) for b in ends)}
        if not moments:
            return reached, max(ends, default=None)
        ends = moments
    return len(rule.steps), max(ends)


def _all(truths: Sequence[Truth]) -> Truth:
    if any(t is False for t in truths):
        return False
    return None if any(t is None for t in truths) else True


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth
