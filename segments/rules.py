"""What a rule is made of: conditions on features, events, sequences, segments and lists, joined by all, any and not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from lakehouse.errors import SettingsError

Scalar = str | int | float | bool | date | datetime | Decimal
Value = Scalar | tuple[Scalar, ...] | None
Aggregate = Literal["count", "sum", "avg", "min", "max", "distinct"]

AGGREGATES: Final[tuple[Aggregate, ...]] = ("count", "sum", "avg", "min", "max", "distinct")


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

    def __bool__(self) -> bool:
        # `a and b` would be `b` alone, and nothing would tell.
        raise TypeError("a rule is neither true nor false by itself; join rules with &, | and ~, not with and, or, not")


@dataclass(frozen=True)
class Condition(_Combinable):
    """One comparison: a feature, an operator of `segments.operators`, and its value.

    Attributes:
        feature: Name of a declared feature column; within `where` of an event, of one of the event's fields.
        op: Name of the operator.
        value: One value; a tuple for `in`, `not_in` and `between`; None for `is_empty` and `is_not_empty`.
        at: Where it was written; no part of its identity.
    """

    feature: str
    op: str
    value: Value = None
    at: Place | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _as_read(self.value))

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"feature": self.feature} | _op(self.op, self.value)


@dataclass(frozen=True)
class Window:
    """The days an event condition looks at: the last n before `as_of`, or [start, end), or all before `as_of`.

    Attributes:
        last_days: Length of a rolling window [as_of - last_days, as_of); None when it is not rolling.
        start: First day of an absolute window; None for no beginning.
        end: Day after the last of an absolute window; None for no end but `as_of`.
    """

    last_days: int | None = None
    start: date | None = None
    end: date | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields written in a condition."""
        said = {"within_last_days": self.last_days, "from": self.start, "to": self.end}
        return {name: value for name, value in said.items() if value is not None}


EVER: Final = Window()


@dataclass(frozen=True)
class EventStep:
    """Events of a kind that pass a filter.

    Attributes:
        event: Name of an event of `segments.events`.
        where: Rule over the event's fields; None takes every event.
    """

    event: str
    where: Rule | None = None

    def __post_init__(self) -> None:
        if self.where is not None:
            require_rule(self.where)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        plain: dict[str, Any] = {"event": self.event}
        if self.where is not None:
            plain["where"] = _as_fields(self.where.to_dict())
        return plain


@dataclass(frozen=True)
class EventCondition(_Combinable):
    """What a customer did, how often or how much, within a window.

    Attributes:
        step: Which events count.
        op: `did`, `did_not`; `at_least`, `at_most`, `exactly`, `greater_than`, `less_than`, `between` on a measure;
            or `first_time`, `regular`, `stopped`, `resumed`.
        value: What the measure is compared with; a pair for `between`, None where nothing is measured.
        window: Days looked at.
        measure: How the events become a number.
        measured: Field that is summed, averaged, counted distinct, ...; None for `count`.
        days: `every_days` of `regular`, `after_days` of `resumed`.
        unless: With `did`: true only when none of these came at or after the last event counted.
        at: Where it was written; no part of its identity.
    """

    step: EventStep
    op: str
    value: int | float | tuple[float, float] | None = None
    window: Window = EVER
    measure: Aggregate = "count"
    measured: str | None = None
    days: int | None = None
    unless: EventStep | None = None
    at: Place | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _as_read(self.value))

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        plain = self.step.to_dict() | _op(self.op, self.value) | self.window.to_dict()
        if self.measure != "count":
            plain[self.measure] = self.measured
        if self.days is not None:
            plain[DAYS_OF[self.op]] = self.days
        if self.unless is not None:
            plain["unless_since"] = self.unless.to_dict()
        return plain


MAX_STEPS: Final = 10
"""Steps a sequence may have."""

DAYS_OF: Final[Mapping[str, str]] = {"regular": "every_days", "resumed": "after_days"}
"""What the number of days of an operator is called."""


@dataclass(frozen=True)
class SequenceCondition(_Combinable):
    """Events that followed one another, each later than the one before.

    Attributes:
        steps: At least two, in order.
        max_gap_days: Days of 24 hours that may pass from one to the next; None for any.
        window: Days all of them lie in.
        at: Where it was written; no part of its identity.
    """

    steps: tuple[EventStep, ...]
    max_gap_days: int | None = None
    window: Window = EVER
    at: Place | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        plain: dict[str, Any] = {"sequence": [s.to_dict() for s in self.steps]}
        if self.max_gap_days is not None:
            plain["max_gap_days"] = self.max_gap_days
        return plain | self.window.to_dict()


@dataclass(frozen=True)
class InSegment(_Combinable):
    """True when the rule of another segment is true for the customer, on the same day; never unknown."""

    segment_id: str
    at: Place | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"in_segment": self.segment_id}


@dataclass(frozen=True)
class InList(_Combinable):
    """True when the customer's number is on a static list; never unknown.

    Attributes:
        name: Name of the list, its file without `.csv`.
        customer_ids: Who is on it.
        at: Where it was written; no part of its identity.
    """

    name: str
    customer_ids: frozenset[str] = field(repr=False)
    at: Place | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON; who is on the list stays in its file."""
        return {"in_list": self.name}

    @property
    def digest(self) -> str:
        """Content hash of the list."""
        return hashlib.sha256("\n".join(sorted(self.customer_ids)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class All(_Combinable):
    """True when every rule is true."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        for rule in self.rules:
            require_rule(rule)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"all": [rule.to_dict() for rule in self.rules]}


@dataclass(frozen=True)
class AnyOf(_Combinable):
    """True when at least one rule is true."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        for rule in self.rules:
            require_rule(rule)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"any": [rule.to_dict() for rule in self.rules]}


@dataclass(frozen=True)
class Not(_Combinable):
    """True when the rule is false; unknown stays unknown."""

    rule: Rule

    def __post_init__(self) -> None:
        require_rule(self.rule)

    def to_dict(self) -> dict[str, Any]:
        """Returns the form written in YAML and JSON."""
        return {"not": self.rule.to_dict()}


Leaf = Condition | EventCondition | SequenceCondition | InSegment | InList
Rule = All | AnyOf | Not | Leaf


def require_rule(said: object) -> None:
    """Refuses what is no rule: most likely a condition that was not finished.

    Raises:
        SettingsError: It is none.
    """
    if not isinstance(said, Rule):
        raise SettingsError(
            f"a rule is needed here, not {type(said).__name__}: a condition begins with feature(...) or event(...) and "
            "ends with what is asked of it, such as .at_least(3) or .did()"
        )


def parts_of(rule: Rule) -> tuple[Rule, ...]:
    """Returns the steps of a waterfall: what must all be true at the top of a rule, or the rule itself."""
    return rule.rules if isinstance(rule, All) else (rule,)


def leaves_of(rule: Rule) -> Iterator[Leaf]:
    """Yields every condition of a rule, in reading order."""
    match rule:
        case Not(inner):
            yield from leaves_of(inner)
        case All(rules) | AnyOf(rules):
            for inner in rules:
                yield from leaves_of(inner)
        case _:
            yield rule


def conditions_of(rule: Rule) -> Iterator[Condition]:
    """Yields every condition on a feature, in reading order; filters of events are not among them."""
    return (leaf for leaf in leaves_of(rule) if isinstance(leaf, Condition))


def segments_in(rule: Rule) -> frozenset[str]:
    """Returns the segments a rule asks for directly."""
    return frozenset(leaf.segment_id for leaf in leaves_of(rule) if isinstance(leaf, InSegment))


def canonical(content: Any) -> str:
    """Returns content as JSON that is equal for equal content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_iso)


def joined(text: str) -> str:
    """Returns text with the surrogate pairs that JSON escapes make joined to the characters they stand for.

    Raises:
        UnicodeError: Half of a pair stands alone.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")


def in_utc(value: datetime) -> datetime:
    """Returns a time in UTC, which one without a zone is in already.

    Raises:
        SettingsError: In UTC it is before the first year of the calendar, or after the last.
    """
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise SettingsError(f"{value.isoformat()} is beyond the ends of the calendar in UTC") from None


def _as_read(value: Any) -> Any:
    """A value as it comes back from a file or row, so that it is equal and has one version however it was given."""
    match value:
        case tuple() | list():
            return tuple(_as_read(part) for part in value)
        case str():
            return joined(value)
        case Decimal():
            return float(value)
        case datetime():
            return in_utc(value)
        case _ if hasattr(value, "item"):  # a number of numpy or pandas, which neither YAML nor JSON can write
            return value.item()
        case _:
            return value


def _op(op: str, value: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"op": op}
    if value is not None:
        plain["value"] = list(value) if isinstance(value, tuple) else value
    return plain


def _as_fields(plain: Any) -> Any:
    """An event has fields where a customer has features."""
    if isinstance(plain, dict):
        return {("field" if k == "feature" else k): _as_fields(v) if k != "value" else v for k, v in plain.items()}
    return [_as_fields(part) for part in plain] if isinstance(plain, list) else plain


def _iso(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
