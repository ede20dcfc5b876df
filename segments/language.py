"""The rule language: conditions on features, joined by all, any and not.

Rules compose in Python as they nest in YAML::

    lapsed = feature("recency_days").greater_than(90)
    big = feature("monetary_net").at_least(500)
    win_back = lapsed & big & ~feature("lifecycle_stage").equals("new")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

RefreshMode = Literal["auto", "manual"]
Entity = Literal["customer", "guest"]
Scalar = str | int | float | bool | date | datetime
Value = Scalar | tuple[Scalar, ...] | None


@dataclass(frozen=True)
class Place:
    """Where a piece of a definition stands; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, column {self.column}"


class _Combinable:
    """Gives every rule `&`, `|` and `~`."""

    def __and__(self, other: Rule) -> All:
        return All((self, other))  # type: ignore[arg-type]

    def __or__(self, other: Rule) -> AnyOf:
        return AnyOf((self, other))  # type: ignore[arg-type]

    def __invert__(self) -> Not:
        return Not(self)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Condition(_Combinable):
    """One comparison: a feature, an operator of `segments.operators`, and its value.

    Attributes:
        feature: Name of a declared feature column.
        op: Name of the operator.
        value: One value; a tuple for `in`, `not_in` and `between`; None for `is_empty` and `is_not_empty`.
        at: Where it was written; no part of its identity.
    """

    feature: str
    op: str
    value: Value = None
    at: Place | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        plain: dict[str, Any] = {"feature": self.feature, "op": self.op}
        if self.value is not None:
            plain["value"] = list(self.value) if isinstance(self.value, tuple) else self.value
        return plain


@dataclass(frozen=True)
class All(_Combinable):
    """True when every rule is true."""

    rules: tuple[Rule, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"all": [rule.to_dict() for rule in self.rules]}


@dataclass(frozen=True)
class AnyOf(_Combinable):
    """True when at least one rule is true."""

    rules: tuple[Rule, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"any": [rule.to_dict() for rule in self.rules]}


@dataclass(frozen=True)
class Not(_Combinable):
    """True when the rule is false; unknown stays unknown."""

    rule: Rule

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"not": self.rule.to_dict()}


Rule = All | AnyOf | Not | Condition


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
    priority: int = 100
    refresh_mode: RefreshMode = "auto"
    max_change_share: float | None = None

    @property
    def version(self) -> str:
        """Content hash of what decides membership: rule and websites. Renaming a segment keeps its version."""
        content = {"rule": self.rule.to_dict(), "website_ids": sorted(self.website_ids)}
        return hashlib.sha256(_canonical(content).encode()).hexdigest()[:12]

    @property
    def conditions_json(self) -> str:
        """The rule as JSON; `segments.load.parse_rule` gives the rule back."""
        return _canonical(self.rule.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON; `segments.load.parse_segments` gives the segment back."""
        return {
            "segment_id": self.segment_id,
            "name": self.name,
            "description": self.description,
            "entity": self.entity,
            "is_active": self.is_active,
            "website_ids": list(self.website_ids),
            "priority": self.priority,
            "refresh_mode": self.refresh_mode,
            "max_change_share": self.max_change_share,
            "rule": self.rule.to_dict(),
        }


def conditions_of(rule: Rule) -> Iterator[Condition]:
    """Yields every condition of a rule, in reading order."""
    match rule:
        case Condition():
            yield rule
        case Not(inner):
            yield from conditions_of(inner)
        case All(rules) | AnyOf(rules):
            for inner in rules:
                yield from conditions_of(inner)


def all_of(*rules: Rule) -> All:
    """Returns the rule that is true when every one of `rules` is."""
    return All(rules)


def any_of(*rules: Rule) -> AnyOf:
    """Returns the rule that is true when one of `rules` is."""
    return AnyOf(rules)


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
        return Condition(self.name, "in", tuple(values))

    def not_in(self, values: Sequence[Scalar]) -> Condition:
        """Is known and none of the values."""
        return Condition(self.name, "not_in", tuple(values))

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

    def within_last_days(self, days: int) -> Condition:
        """Lies in the `days` days before `as_of`."""
        return Condition(self.name, "within_last_days", days)

    def not_within_last_days(self, days: int) -> Condition:
        """Is known and lies outside the `days` days before `as_of`."""
        return Condition(self.name, "not_within_last_days", days)


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_iso)


def _iso(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
