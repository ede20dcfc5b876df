"""The operators of a condition: what each takes and the Spark column it becomes.

Null is unknown: every operator answers null for a null feature, except `is_empty` and `is_not_empty`, which are there
to ask about exactly that. Values reach Spark as literals, never as SQL text. `segments.reference` says the same in
plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Final, Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

Shape = Literal["none", "one", "many", "range", "days", "percent"]
"""What stands in `value`: nothing, one value, a list, `[low, high]`, a number of days, or a percentage."""


class Family(Enum):
    """Kinds of features; an operator takes some of them."""

    NUMBER = "number"
    TEXT = "text"
    FLAG = "flag"
    DATE = "date"
    INSTANT = "instant"
    LIST = "list"

    @staticmethod
    def of(spark_type: str) -> Family:
        """Returns the family of a Spark DDL type; `map` and `struct` count as lists nothing but emptiness fits."""
        kind = spark_type.strip().lower()
        if kind in {"tinyint", "smallint", "int", "bigint", "float", "double"} or kind.startswith("decimal"):
            return Family.NUMBER
        named = {"string": Family.TEXT, "boolean": Family.FLAG, "date": Family.DATE, "timestamp": Family.INSTANT}
        return named.get(kind, Family.LIST)


def scale_of(spark_type: str) -> int:
    """Returns how many decimal places a Spark DDL type of numbers has: none unless it is a decimal."""
    return int(spark_type.rstrip(")").split(",")[1]) if spark_type.startswith("decimal") else 0


def balanced(columns: Sequence[Column], join: Callable[[Column, Column], Column]) -> Column:
    """Returns columns joined by twos."""
    # Joined one after the other, 300 conditions make a tree 300 deep, which overflows the stack of the optimizer.
    if len(columns) == 1:
        return columns[0]
    half = len(columns) // 2
    return join(balanced(columns[:half], join), balanced(columns[half:], join))


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        name: As written in a definition.
        takes: Families of features it applies to.
        shape: What its value looks like.
        build: Feature column, value and `as_of` to a three-valued boolean column; for a percentage the value is the
            column with the cut point of the website.
        help: When it is true, for `docs/segment-language.md`.
    """

    name: str
    takes: frozenset[Family]
    shape: Shape
    build: Callable[[Column, Any, Family, date], Column]
    help: str


def _said(value: Any) -> Column | bool | int | float | str | Decimal:
    """What to compare a column with: a plain value as it is, for a literal made here takes three calls of the JVM."""
    return value if type(value) in (bool, int, float, str, Decimal) else F.lit(value)


def _equals(feature: Column, value: Any, *_: Any) -> Column:
    return feature == _said(value)


def _not_equals(feature: Column, value: Any, *_: Any) -> Column:
    return feature != _said(value)


def _is_in(feature: Column, value: Any, *_: Any) -> Column:
    return feature.isin([F.lit(v) for v in value])


def _not_in(feature: Column, value: Any, *_: Any) -> Column:
    return ~feature.isin([F.lit(v) for v in value])


def _greater_than(feature: Column, value: Any, *_: Any) -> Column:
    return feature > _said(value)


def _at_least(feature: Column, value: Any, *_: Any) -> Column:
    return feature >= _said(value)


def _less_than(feature: Column, value: Any, *_: Any) -> Column:
    return feature < _said(value)


def _at_most(feature: Column, value: Any, *_: Any) -> Column:
    return feature <= _said(value)


def _between(feature: Column, value: Any, *_: Any) -> Column:
    low, high = value
    return (feature >= _said(low)) & (feature <= _said(high))


def _contains(feature: Column, value: Any, family: Family, _: date) -> Column:
    if family is not Family.LIST:
        return F.contains(feature, F.lit(value))
    # Spark does not know whether a null within the list is the value; the list is known, and does not have it.
    return F.when(feature.isNotNull(), F.coalesce(F.array_contains(feature, F.lit(value)), F.lit(False)))


def _starts_with(feature: Column, value: Any, *_: Any) -> Column:
    return F.startswith(feature, F.lit(value))


def _is_empty(feature: Column, _value: Any, family: Family, _: date) -> Column:
    match family:
        case Family.TEXT:
            return feature.isNull() | (F.coalesce(feature, F.lit("")) == F.lit(""))
        case Family.LIST:
            return feature.isNull() | (F.coalesce(F.size(feature), F.lit(0)) <= F.lit(0))
        case _:
            return feature.isNull()


def _is_not_empty(feature: Column, value: Any, family: Family, as_of: date) -> Column:
    return ~_is_empty(feature, value, family, as_of)


def _within_last_days(feature: Column, value: Any, family: Family, as_of: date, *, inside: bool) -> Column:
    kind = "timestamp" if family is Family.INSTANT else "date"
    start = F.lit(as_of - timedelta(days=value)).cast(kind)
    within = (feature >= start) & (feature < F.lit(as_of).cast(kind))
    return within if inside else ~within


def _anniversary_within_days(feature: Column, value: Any, _: Family, as_of: date) -> Column:
    day = feature.cast("date")
    years = F.lit(as_of.year) - F.year(day)
    this_year, next_year = (F.add_months(day, years * 12 + more) for more in (0, 12))  # 29 February falls on the 28th
    ahead = F.datediff(F.when(this_year >= F.lit(as_of), this_year).otherwise(next_year), F.lit(as_of))
    return F.when(feature.isNotNull(), ahead < F.lit(value))


_ORDERED: Final = frozenset({Family.NUMBER, Family.DATE, Family.INSTANT})
_SINGLE: Final = _ORDERED | {Family.TEXT}
_DATED: Final = frozenset({Family.DATE, Family.INSTANT})

OPERATORS: Final[Mapping[str, Operator]] = {
    operator.name: operator
    for operator in (
        Operator("equals", _SINGLE | {Family.FLAG}, "one", _equals, "is exactly the value; text is case-sensitive"),
        Operator("not_equals", _SINGLE | {Family.FLAG}, "one", _not_equals, "is known and not the value"),
        Operator("in", _SINGLE, "many", _is_in, "is one of the values"),
        Operator("not_in", _SINGLE, "many", _not_in, "is known and none of the values"),
        Operator("greater_than", _ORDERED, "one", _greater_than, "is greater than the value"),
        Operator("at_least", _ORDERED, "one", _at_least, "is the value or greater"),
        Operator("less_than", _ORDERED, "one", _less_than, "is less than the value"),
        Operator("at_most", _ORDERED, "one", _at_most, "is the value or less"),
        Operator("between", _ORDERED, "range", _between, "lies in `[low, high]`, both included"),
        Operator(
            "contains",
            frozenset({Family.TEXT, Family.LIST}),
            "one",
            _contains,
            "has the value in it: somewhere in the text, or as a member of the list",
        ),
        Operator("starts_with", frozenset({Family.TEXT}), "one", _starts_with, "begins with the value"),
        Operator("is_empty", frozenset(Family), "none", _is_empty, "is unknown (null), empty text or an empty list"),
        Operator("is_not_empty", frozenset(Family), "none", _is_not_empty, "is known and not empty"),
        Operator(
            "within_last_days",
            _DATED,
            "days",
            partial(_within_last_days, inside=True),
            "lies in the n days before `as_of`: `[as_of - n, as_of)`",
        ),
        Operator(
            "not_within_last_days",
            _DATED,
            "days",
            partial(_within_last_days, inside=False),
            "is known and lies outside the n days before `as_of`",
        ),
        Operator("before", _DATED, "one", _less_than, "lies before the day or time"),
        Operator("after", _DATED, "one", _greater_than, "lies after the day or time"),
        Operator(
            "anniversary_within_days",
            _DATED,
            "days",
            _anniversary_within_days,
            "has its day of the year in `[as_of, as_of + n)`; 29 February falls on the 28th in years without one",
        ),
        Operator(
            "top_percent",
            frozenset({Family.NUMBER}),
            "percent",
            _at_least,
            "is among the largest n % of the website's customers of whom it is known; ties are in",
        ),
        Operator(
            "bottom_percent",
            frozenset({Family.NUMBER}),
            "percent",
            _at_most,
            "is among the smallest n % of the website's customers of whom it is known; ties are in",
        ),
    )
}
