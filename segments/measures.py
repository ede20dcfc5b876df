"""Event conditions as arithmetic on a few aggregates per customer, shared by every rule that asks for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any, Final, Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

from segments.operators import balanced
from segments.rules import EventCondition, EventStep, Rule, SequenceCondition, Window, leaves_of

Kind = Literal["count", "sum", "avg", "min", "max", "distinct", "first_day", "last_at"]


@dataclass(frozen=True)
class Span:
    """Days [as_of - older, as_of - newer), or [start, end), as far as they lie before `as_of`.

    `older` and `start` may be None for no beginning, `end` for no end.
    """

    older: int | None = None
    newer: int = 0
    start: date | None = None
    end: date | None = None

    @classmethod
    def of(cls, window: Window) -> Span:
        """The days of a window as it was written."""
        return cls(older=window.last_days, start=window.start, end=window.end)

    def holds(self, day: Column, as_of: date) -> Column:
        """Whether a business day lies within."""
        parts = [day < F.lit(as_of - timedelta(days=self.newer))]
        if self.older is not None:
            parts.append(day >= F.lit(as_of - timedelta(days=self.older)))
        if self.start is not None:
            parts.append(day >= F.lit(self.start))
        if self.end is not None:
            parts.append(day < F.lit(self.end))
        return reduce(lambda a, b: a & b, parts)

    def first_day(self, as_of: date) -> date | None:
        """The earliest day that can lie within; None for no beginning."""
        begins = [] if self.start is None else [self.start]
        if self.older is not None:
            begins.append(as_of - timedelta(days=self.older))
        return max(begins, default=None)

    @property
    def edges(self) -> frozenset[int]:
        """Days of age at which an event comes into the span or goes out of it."""
        return frozenset({self.newer} | ({self.older} if self.older is not None else set()))


@dataclass(frozen=True)
class Measure:
    """One aggregate over the events of a customer.

    Attributes:
        step: Events that count.
        span: Days that count.
        kind: What is made of them.
        field: Field aggregated; None for counts, days and instants.
    """

    step: EventStep
    span: Span
    kind: Kind = "count"
    field: str | None = None


Lookup = Callable[[Measure], Column]


def measures_of(condition: EventCondition) -> Iterator[Measure]:
    """Yields every aggregate a condition needs."""
    yield from _measures(condition)


def measures_in(rules: Iterable[Rule]) -> tuple[Measure, ...]:
    """Returns the aggregates of many rules, each once, in a stable order."""
    events = (leaf for rule in rules for leaf in leaves_of(rule) if isinstance(leaf, EventCondition))
    return tuple(dict.fromkeys(m for leaf in events for m in measures_of(leaf)))


def windows_in(rules: Iterable[Rule]) -> tuple[tuple[str, Span], ...]:
    """Returns every kind of event with the windows it is looked at through, each once, in a stable order.

    Not all of them are windows of a measure: `first_time` measures over all days, and holds the day against its window.
    """
    found: dict[tuple[str, Span], None] = {}
    for leaf in (leaf for rule in rules for leaf in leaves_of(rule)):
        if isinstance(leaf, EventCondition | SequenceCondition):
            steps = leaf.steps if isinstance(leaf, SequenceCondition) else (leaf.step,)
            found |= dict.fromkeys((step.event, Span.of(leaf.window)) for step in steps)
    return tuple(found)


def sequences_in(rules: Iterable[Rule]) -> tuple[SequenceCondition, ...]:
    """Returns the sequences of many rules, each once, in a stable order."""
    found = (leaf for rule in rules for leaf in leaves_of(rule) if isinstance(leaf, SequenceCondition))
    return tuple(dict.fromkeys(found))


def truth_of_event(condition: EventCondition, as_of: date, measured: Lookup) -> Column:
    """Returns an event condition over its aggregates; unknown only where an avg, min or max is of no event.

    Args:
        condition: What is asked.
        as_of: Day evaluated for.
        measured: Gives the column of an aggregate of `measures_of`.
    """
    columns = [measured(m) for m in _measures(condition)]
    match condition.op:
        case "did" if condition.unless is not None:
            last, other = columns
            return last.isNotNull() & F.coalesce(other < last, F.lit(True))
        case "did":
            return columns[0] > F.lit(0)
        case "did_not":
            return columns[0] == F.lit(0)
        case "first_time":
            return F.coalesce(Span.of(condition.window).holds(columns[0], as_of), F.lit(False))
        case "regular":
            return balanced([c > F.lit(0) for c in columns], lambda a, b: a & b)
        case "stopped":
            within, before = columns
            return (within == F.lit(0)) & (before > F.lit(0))
        case "resumed":
            within, silent, before = columns
            return (within > F.lit(0)) & (silent == F.lit(0)) & (before > F.lit(0))
        case op:
            return _compare(op, columns[0], condition.value)


def _measures(condition: EventCondition) -> list[Measure]:
    step, span = condition.step, Span.of(condition.window)
    days = condition.window.last_days or 0
    match condition.op:
        case "did" if condition.unless is not None:
            return [Measure(step, span, "last_at"), Measure(condition.unless, Span(), "last_at")]
        case "did" | "did_not":
            return [Measure(step, span)]
        case "first_time":
            return [Measure(step, Span(), "first_day")]
        case "regular":
            every = condition.days or days
            return [Measure(step, Span(older=newer + every, newer=newer)) for newer in range(0, days, every)]
        case "stopped":
            return [Measure(step, span), Measure(step, Span(newer=days))]
        case "resumed":
            silent = days + (condition.days or 0)
            return [
                Measure(step, span),
                Measure(step, Span(older=silent, newer=days)),
                Measure(step, Span(newer=silent)),
            ]
        case _:
            return [Measure(step, span, condition.measure, condition.measured)]


def _exact(value: float) -> Column:
    return F.lit(Decimal(str(value)) if isinstance(value, float) else value)


def _compare(op: str, column: Column, value: Any) -> Column:
    if op == "between":
        return (column >= _exact(value[0])) & (column <= _exact(value[1]))
    return _COMPARISONS[op](column, _exact(value))


_COMPARISONS: Final[dict[str, Callable[[Column, Column], Column]]] = {
    "at_least": lambda a, b: a >= b,
    "at_most": lambda a, b: a <= b,
    "exactly": lambda a, b: a == b,
    "greater_than": lambda a, b: a > b,
    "less_than": lambda a, b: a < b,
}
