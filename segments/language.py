"""Segments, and the words rules are written with in Python.

They nest as they do in YAML::

lapsed = feature("recency_days").greater_than(90)
big = feature("monetary_net").at_least(500)
wine = event("item").where(feature("category").contains("WINE")).within_last_days(365).at_least(3)
win_back = lapsed & (big | wine) & ~in_segment("employees")
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

from lakehouse.errors import SettingsError
from segments.catalogue import GROUP
from segments.lists import MAX_MEMBERS
from segments.rules import (
    EVER,
    Aggregate,
    All,
    AnyOf,
    Condition,
    EventCondition,
    EventStep,
    InList,
    InSegment,
    Leaf,
    Not,
    Place,
    Rule,
    Scalar,
    SequenceCondition,
    Value,
    Window,
    canonical,
    conditions_of,
    leaves_of,
    require_rule,
)

__all__ = [
    "All",
    "AnyOf",
    "Condition",
    "Entity",
    "EventCondition",
    "EventStep",
    "InList",
    "InSegment",
    "Leaf",
    "Not",
    "Place",
    "RefreshMode",
    "Rule",
    "Scalar",
    "Segment",
    "SequenceCondition",
    "Value",
    "Window",
    "all_of",
    "any_of",
    "conditions_of",
    "event",
    "feature",
    "in_list",
    "in_segment",
    "leaves_of",
    "sequence",
]

RefreshMode = Literal["auto", "manual"]
Entity = Literal["customer", "guest"]


@dataclass(frozen=True)
class Segment:
    """A segment definition.

    Attributes:
        segment_id: Lower-case identifier; names files and rows, so it never changes.
        name: What people read.
        rule: Who is in it.
        description: What it is for.
        entity: Whom it is made of; customers and guests have features of their own.
        is_active: Whether it is evaluated; the members of an inactive segment leave it.
        website_ids: Retailers it applies to; empty means all.
        customer_group_ids: Customer groups it applies to; empty means all, also customers of no group.
        priority: Lower wins when one primary segment must be chosen; ties go to the smaller `segment_id`.
        refresh_mode: `auto` with every run, `manual` only when asked.
        max_change_share: Largest part of the members that may enter and leave in one refresh of a website before the
            last good membership is kept instead; None for no limit.
    """

    segment_id: str
    name: str
    rule: Rule
    description: str = ""
    entity: Entity = "customer"
    is_active: bool = True
    website_ids: tuple[str, ...] = ()
    customer_group_ids: tuple[str, ...] = ()
    priority: int = 100
    refresh_mode: RefreshMode = "auto"
    max_change_share: float | None = None

    def __post_init__(self) -> None:
        require_rule(self.rule)
        for name in ("website_ids", "customer_group_ids"):
            object.__setattr__(self, name, _listed(getattr(self, name), name))

    @property
    def version(self) -> str:
        """Content hash of what decides membership: rule, lists, websites, groups. A new name keeps the version."""
        content: dict[str, Any] = {"rule": self.rule.to_dict(), "website_ids": sorted(self.website_ids)}
        if self.customer_group_ids:
            content["customer_group_ids"] = sorted(self.customer_group_ids)
        lists = {leaf.name: leaf.digest for leaf in leaves_of(self.rule) if isinstance(leaf, InList)}
        if lists:
            content["lists"] = lists
        return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]

    @property
    def fingerprint(self) -> str:
        """All that what a refresh writes depends on, for who asks whether anything is new."""
        return f"{self.version} {canonical(self.to_dict())}"

    @property
    def group_condition(self) -> Condition | None:
        """The restriction to customer groups as a condition; None when there is none."""
        return Condition(GROUP, "in", self.customer_group_ids) if self.customer_group_ids else None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition on features, that on the customer group included."""
        group = self.group_condition
        return (*conditions_of(self.rule), *((group,) if group is not None else ()))

    @property
    def conditions_json(self) -> str:
        """The rule as JSON; `segments.load.parse_rule` gives the rule back."""
        return canonical(self.rule.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON; `segments.load.parse_segments` gives the segment back."""
        return {
            "segment_id": self.segment_id,
            "name": self.name,
            "description": self.description,
            "entity": self.entity,
            "is_active": self.is_active,
            "website_ids": list(self.website_ids),
            "customer_group_ids": list(self.customer_group_ids),
            "priority": self.priority,
            "refresh_mode": self.refresh_mode,
            "max_change_share": self.max_change_share,
            "rule": self.rule.to_dict(),
        }


def ask_for(segments: Sequence[Segment], asked: Collection[str]) -> tuple[Segment, ...]:
    """Returns the definitions with the manual segments named in `asked` made to refresh in this run."""
    return tuple(
        replace(s, refresh_mode="auto") if s.segment_id in asked and s.refresh_mode == "manual" else s for s in segments
    )


def all_of(*rules: Rule) -> All:
    """Returns the rule that is true when every one of `rules` is."""
    return All(rules)


def any_of(*rules: Rule) -> AnyOf:
    """Returns the rule that is true when one of `rules` is."""
    return AnyOf(rules)


def in_segment(segment_id: str) -> InSegment:
    """True for whom the rule of another segment is true."""
    return InSegment(segment_id)


def in_list(name: str, customer_ids: Collection[str]) -> InList:
    """True for the customers on a static list.

    Raises:
        SettingsError: It is longer than a list in a file may be, or holds something else than text.
    """
    found = frozenset(_listed(customer_ids, "in_list"))
    others = {type(i).__name__ for i in found if not isinstance(i, str)}
    if others:
        raise SettingsError(f"list '{name}': customer numbers are text, not {', '.join(sorted(others))}")
    if len(found) > MAX_MEMBERS:
        raise SettingsError(f"list '{name}' has {len(found):,} customers; a list may have {MAX_MEMBERS:,}")
    return InList(name, found)


def _listed(values: Collection[Any], what: str) -> tuple[Any, ...]:
    """Returns the values of a list; of a text, Python would take every letter for one."""
    if isinstance(values, str):
        raise SettingsError(f"'{what}' needs a list of values")
    return tuple(values)


def sequence(
    *steps: event,
    max_gap_days: int | None = None,
    within_last_days: int | None = None,
    start: date | None = None,
    end: date | None = None,
) -> SequenceCondition:
    """True for whom these events followed one another: `sequence(event("campaign_contact"), event("purchase"))`.

    All of them lie in [as_of - within_last_days, as_of), or in [start, end).
    """
    window = Window(last_days=within_last_days, start=start, end=end)
    return SequenceCondition(tuple(_only_step(s, "sequence") for s in steps), max_gap_days, window)


def _only_step(said: event, within: str) -> EventStep:
    """Returns the events meant where neither a window nor a measure of theirs can be.

    Raises:
        SettingsError: They have one, or are no events.
    """
    if not isinstance(said, event):
        raise SettingsError(f"{within}(...) takes events, such as event('purchase'), not {type(said).__name__}")
    if said.window != EVER or said.measure != "count":
        extra = said.window.to_dict() or {said.measure: said.field}
        raise SettingsError(
            f"event('{said.name}') within {within}(...) cannot have {canonical(extra)}; only a filter, by where(...)"
        )
    return said.step


@dataclass(frozen=True)
class feature:  # noqa: N801 - reads as a word in a rule
    """Starts a condition in Python: `feature("recency_days").at_most(30)`."""

    name: str

    def equals(self, value: Scalar) -> Condition:
        """Is exactly the value."""
        return Condition(self.name, "equals", value)

    def not_equals(self, value: Scalar) -> Condition:
        """Is known and not the value."""
        return Condition(self.name, "not_equals", value)

    def is_in(self, values: Sequence[Scalar]) -> Condition:
        """Is one of the values."""
        return Condition(self.name, "in", _listed(values, "in"))

    def not_in(self, values: Sequence[Scalar]) -> Condition:
        """Is known and none of the values."""
        return Condition(self.name, "not_in", _listed(values, "not_in"))

    def greater_than(self, value: Scalar) -> Condition:
        """Is greater than the value."""
        return Condition(self.name, "greater_than", value)

    def at_least(self, value: Scalar) -> Condition:
        """Is the value or greater."""
        return Condition(self.name, "at_least", value)

    def less_than(self, value: Scalar) -> Condition:
        """Is less than the value."""
        return Condition(self.name, "less_than", value)

    def at_most(self, value: Scalar) -> Condition:
        """Is the value or less."""
        return Condition(self.name, "at_most", value)

    def between(self, low: Scalar, high: Scalar) -> Condition:
        """Lies in [low, high], both included."""
        return Condition(self.name, "between", (low, high))

    def contains(self, value: Scalar) -> Condition:
        """Text has the value in it; a list has it as a member."""
        return Condition(self.name, "contains", value)

    def starts_with(self, value: str) -> Condition:
        """Text begins with the value."""
        return Condition(self.name, "starts_with", value)

    def is_empty(self) -> Condition:
        """Is unknown, empty text or an empty list."""
        return Condition(self.name, "is_empty")

    def is_not_empty(self) -> Condition:
        """Is known and not empty."""
        return Condition(self.name, "is_not_empty")

    def before(self, day: Scalar) -> Condition:
        """Lies before the day or time."""
        return Condition(self.name, "before", day)

    def after(self, day: Scalar) -> Condition:
        """Lies after the day or time."""
        return Condition(self.name, "after", day)

    def within_last_days(self, days: int) -> Condition:
        """Lies in the `days` days before `as_of`."""
        return Condition(self.name, "within_last_days", days)

    def not_within_last_days(self, days: int) -> Condition:
        """Is known and lies outside the `days` days before `as_of`."""
        return Condition(self.name, "not_within_last_days", days)

    def anniversary_within_days(self, days: int) -> Condition:
        """Its day of the year returns in the `days` days from `as_of` on, `as_of` included."""
        return Condition(self.name, "anniversary_within_days", days)

    def top_percent(self, percent: float) -> Condition:
        """Is among the largest `percent` of the website's customers; ties are in."""
        return Condition(self.name, "top_percent", percent)

    def bottom_percent(self, percent: float) -> Condition:
        """Is among the smallest `percent` of the website's customers; ties are in."""
        return Condition(self.name, "bottom_percent", percent)


@dataclass(frozen=True)
class event:  # noqa: N801 - reads as a word in a rule
    """Starts a condition on events: `event("purchase").within_last_days(90).at_least(3)`."""

    name: str
    filter: Rule | None = None
    window: Window = EVER
    measure: Aggregate = "count"
    field: str | None = None

    @property
    def step(self) -> EventStep:
        """The events meant, without window and measure."""
        return EventStep(self.name, self.filter)

    def where(self, rule: Rule) -> event:
        """Counts only events whose fields fit: `feature("amount").at_least(20)`; said again, both must fit."""
        return replace(self, filter=rule if self.filter is None else self.filter & rule)

    def within_last_days(self, days: int) -> event:
        """Looks at [as_of - days, as_of)."""
        return self._looking_at(Window(last_days=days))

    def from_to(self, start: date | None, end: date | None) -> event:
        """Looks at [start, end)."""
        return self._looking_at(Window(start=start, end=end))

    def sum(self, field: str) -> event:
        """Adds a field up; nothing bought is 0."""
        return self._measuring("sum", field)

    def avg(self, field: str) -> event:
        """Takes the mean of a field; of no event it is unknown."""
        return self._measuring("avg", field)

    def min(self, field: str) -> event:
        """Takes the smallest of a field; of no event it is unknown."""
        return self._measuring("min", field)

    def max(self, field: str) -> event:
        """Takes the largest of a field; of no event it is unknown."""
        return self._measuring("max", field)

    def distinct(self, field: str) -> event:
        """Counts different values of a field."""
        return self._measuring("distinct", field)

    def _looking_at(self, window: Window) -> event:
        if self.window != EVER:
            raise SettingsError(f"event('{self.name}') has a window already: {canonical(self.window.to_dict())}")
        return replace(self, window=window)

    def _measuring(self, measure: Aggregate, field: str) -> event:
        if self.measure != "count":
            raise SettingsError(f"event('{self.name}'): '{measure}' does not fit beside '{self.measure}'")
        return replace(self, measure=measure, field=field)

    def _compared(self, op: str, value: Any = None, **more: Any) -> EventCondition:
        return EventCondition(self.step, op, value, self.window, self.measure, self.field, **more)

    def did(self) -> EventCondition:
        """Happened at least once."""
        return self._compared("did")

    def did_not(self) -> EventCondition:
        """Never happened."""
        return self._compared("did_not")

    def did_unless_since(self, other: event) -> EventCondition:
        """Happened, and no `other` at or after the last of them: abandonment."""
        return self._compared("did", unless=_only_step(other, "did_unless_since"))

    def at_least(self, value: float) -> EventCondition:
        """Measures the value or more."""
        return self._compared("at_least", value)

    def at_most(self, value: float) -> EventCondition:
        """Measures the value or less."""
        return self._compared("at_most", value)

    def exactly(self, value: float) -> EventCondition:
        """Measures just the value."""
        return self._compared("exactly", value)

    def greater_than(self, value: float) -> EventCondition:
        """Measures more than the value."""
        return self._compared("greater_than", value)

    def less_than(self, value: float) -> EventCondition:
        """Measures less than the value."""
        return self._compared("less_than", value)

    def between(self, low: float, high: float) -> EventCondition:
        """Measures a value in [low, high], both included."""
        return self._compared("between", (low, high))

    def first_time(self) -> EventCondition:
        """The first one ever lies in the window."""
        return self._compared("first_time")

    def regular(self, every_days: int) -> EventCondition:
        """At least one in each period of `every_days` days that the rolling window is made of."""
        return self._compared("regular", days=every_days)

    def stopped(self) -> EventCondition:
        """Some before the rolling window, none within."""
        return self._compared("stopped")

    def resumed(self, after_days: int) -> EventCondition:
        """Some within the rolling window, none in the `after_days` days before it, some earlier still."""
        return self._compared("resumed", days=after_days)
