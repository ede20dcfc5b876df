"""Columns of a declared table: each is a `str` (its own name), so it works in every PySpark call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum


class Pii(Enum):
    """What a column says about a person; drives tags, masks, erasure and what may be logged."""

    IDENTIFIER = "identifier"  # names one person inside the shop: customer number
    CONTACT = "contact"  # reaches one person: e-mail, phone, postal address
    QUASI = "quasi"  # describes a person: age band, income band, postcode area


def strictest(found: Iterable[Pii | None]) -> Pii | None:
    """The most personal of some classes, None when nothing is personal."""
    there = set(found)
    return next((pii for pii in (Pii.CONTACT, Pii.IDENTIFIER, Pii.QUASI) if pii in there), None)


@dataclass(frozen=True)
class Feature:
    """What a column of a feature table says of a customer, beyond its type; the feature catalogue is made of these.

    Attributes:
        family: The file of `features/` that computes it.
        meaning: One sentence a marketer understands.
        unit: What one of it is: days, baskets, share 0 to 1, merchant currency.
        window: The events it looks at; always only those before `as_of`.
        source: Tables it is made from.
    """

    family: str
    meaning: str
    unit: str
    window: str
    source: str


@dataclass(frozen=True)
class Spec:
    """Everything a declaration says of one column besides its name.

    Attributes:
        type: Spark DDL type, lower case.
        comment: Meaning and unit; required, it becomes the column comment and the dictionary entry.
        optional: Whether null (unknown) is allowed.
        pii: What it says about a person, or None.
        check: SQL predicate over the table's columns that must not be false.
        values: The closed set of allowed values, or empty.
        references: `schema.table.column` this column points at, or None.
        feature: What it says of a customer when it is a feature, or None.
    """

    type: str
    comment: str
    optional: bool = False
    pii: Pii | None = None
    check: str | None = None
    values: tuple[str, ...] = ()
    references: str | None = None
    feature: Feature | None = None


class Column(str):
    """A column name that carries its `Spec`."""

    spec: Spec

    def __new__(cls, name: str, spec: Spec) -> Column:
        """Name a spec; before the declaration names it, the name is empty."""
        self = super().__new__(cls, name)
        self.spec = spec
        return self

    def with_(self, **changes: object) -> Column:
        """Return the same column with parts of its spec changed, e.g. `optional=True`."""
        return Column(str(self), replace(self.spec, **changes))  # type: ignore[arg-type]


def column(
    ddl_type: str,
    comment: str,
    *,
    optional: bool = False,
    pii: Pii | None = None,
    check: str | None = None,
    values: tuple[str, ...] = (),
    references: str | None = None,
) -> Column:
    """Declare a column of any Spark DDL type; the shorter functions below cover the usual ones."""
    return Column("", Spec(ddl_type.lower(), comment, optional, pii, check, tuple(values), references))


def text(comment: str, **spec: object) -> Column:
    """A string column."""
    return column("string", comment, **spec)  # type: ignore[arg-type]


def integer(comment: str, **spec: object) -> Column:
    """A 32-bit integer column."""
    return column("int", comment, **spec)  # type: ignore[arg-type]


def bigint(comment: str, **spec: object) -> Column:
    """A 64-bit integer column."""
    return column("bigint", comment, **spec)  # type: ignore[arg-type]


def double(comment: str, **spec: object) -> Column:
    """A floating point column: scores, ratios, statistics; never money."""
    return column("double", comment, **spec)  # type: ignore[arg-type]


def money(comment: str, **spec: object) -> Column:
    """A `decimal(18,2)` amount; its currency is another column or stated in the comment."""
    return column("decimal(18,2)", comment, **spec)  # type: ignore[arg-type]


def quantity(comment: str, **spec: object) -> Column:
    """A `decimal(18,3)` quantity: pieces or weight."""
    return column("decimal(18,3)", comment, **spec)  # type: ignore[arg-type]


def flag(comment: str, **spec: object) -> Column:
    """A boolean column; named `is_*` or `has_*`."""
    return column("boolean", comment, **spec)  # type: ignore[arg-type]


def day(comment: str, **spec: object) -> Column:
    """A date column: a business day of the shop's zone unless the comment says otherwise."""
    return column("date", comment, **spec)  # type: ignore[arg-type]


def instant(comment: str, **spec: object) -> Column:
    """A UTC timestamp column."""
    return column("timestamp", comment, **spec)  # type: ignore[arg-type]


def feature(
    data_type: str,
    meaning: str,
    *,
    family: str,
    unit: str,
    window: str = "all history",
    source: str = "gold.fact_transactions",
    **spec: object,
) -> Column:
    """A column that is a feature; meaning, unit, window and source together become its comment.

    A feature may be unknown, so it is optional unless `optional=False` says that every customer has it.
    """
    what = Feature(family, meaning, unit, window, source)
    comment = f"{meaning} Unit: {unit}. Window: {window}. Source: {source}."
    made = column(data_type, comment, **{"optional": True, **spec})  # type: ignore[arg-type]
    return made.with_(feature=what)
