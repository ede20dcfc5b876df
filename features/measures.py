"""Measures: what is added up per customer while the facts are read once, and the columns made of them.

Facts are reduced in three steps that share one shuffle: lines to baskets, baskets to a customer's visits of a store,
stores to the customer. A family states a measure once, over a basket; being a sum, a minimum or a maximum, it can be
reduced in any number of steps. Measures are whole numbers (cents, days, counts), so the order of rows cannot change a
result, and no aggregation buffer holds a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

How = Literal["sum", "min", "max", "bit_or"]


@dataclass(frozen=True)
class Measure:
    """One number per customer.

    Attributes:
        name: What later steps and the columns call it.
        how: How values of baskets become one; also how parts become a whole.
        value: Its value for one basket; null does not count.
    """

    name: str
    how: How
    value: Column

    def reduce(self) -> Column:
        """Aggregate over baskets."""
        return _reduce(self.how, self.value).alias(self.name)

    def combine(self) -> Column:
        """Aggregate over parts made by `reduce` or `combine`."""
        return _reduce(self.how, F.col(self.name)).alias(self.name)


def total(name: str, value: Column, *, when: Column | None = None) -> Measure:
    """A sum over baskets, of those where `when` holds; 0 when there are none."""
    return Measure(name, "sum", value if when is None else F.when(when, value).otherwise(F.lit(0)))


def count(name: str, when: Column) -> Measure:
    """How many baskets `when` holds for."""
    return total(name, F.lit(1).cast("bigint"), when=when)


def earliest(name: str, value: Column, *, when: Column | None = None) -> Measure:
    """The least value, of baskets where `when` holds."""
    return Measure(name, "min", value if when is None else F.when(when, value))


def latest(name: str, value: Column, *, when: Column | None = None) -> Measure:
    """The greatest value, of baskets where `when` holds."""
    return Measure(name, "max", value if when is None else F.when(when, value))


def ratio(above: Column, below: Column) -> Column:
    """A double, null when there is nothing to divide by."""
    return above.cast("double") / F.when(below != 0, below.cast("double"))


def money_of(cents: Column) -> Column:
    """Whole cents as `decimal(18,2)`."""
    return (cents.cast("decimal(16,0)") * F.lit(0.01).cast("decimal(2,2)")).cast("decimal(18,2)")


def day_of(number: Column) -> Column:
    """Days since 1970-01-01 as a date."""
    return F.date_from_unix_date(number.cast("int"))


def reduce_all(measures: Sequence[Measure]) -> list[Column]:
    """Aggregates over baskets for `agg`."""
    return [m.reduce() for m in measures]


def combine_all(measures: Sequence[Measure]) -> list[Column]:
    """Aggregates over parts for `agg`."""
    return [m.combine() for m in measures]


def _reduce(how: How, value: Column) -> Column:
    match how:
        case "sum":
            return F.sum(value)
        case "min":
            return F.min(value)
        case "max":
            return F.max(value)
        case "bit_or":
            return F.bit_or(value)
