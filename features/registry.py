"""Every feature there is, read from the table declarations: what it means, its unit, window, source and type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lakehouse.declare import table_of

Kind = Literal["number", "money", "text", "day", "yes_no"]

TABLE = "feature.customer"
"""One row per customer and day; the table segments are evaluated on."""


@dataclass(frozen=True)
class RegisteredFeature:
    """One feature.

    Attributes:
        name: Column name.
        table: Declared table that holds it.
        type: Spark DDL type.
        kind: What sort of value it is, for type checks and formatting.
        family: File of `features/` that computes it.
        meaning: One sentence.
        unit: What one of it is.
        window: Events it looks at.
        source: Tables it is made from.
        values: The closed set of its values, or empty.
        is_optional: Whether it can be unknown.
    """

    name: str
    table: str
    type: str
    kind: Kind
    family: str
    meaning: str
    unit: str
    window: str
    source: str
    values: tuple[str, ...]
    is_optional: bool


def features(table: str = TABLE) -> Mapping[str, RegisteredFeature]:
    """Every feature of a declared table by name, in declared order; identity columns are none."""
    found: dict[str, RegisteredFeature] = {}
    for column in table_of(table).columns:
        said = column.spec.feature
        if said is not None:
            found[str(column)] = RegisteredFeature(
                name=str(column),
                table=table,
                type=column.spec.type,
                kind=_kind(column.spec.type),
                family=said.family,
                meaning=said.meaning,
                unit=said.unit,
                window=said.window,
                source=said.source,
                values=column.spec.values,
                is_optional=column.spec.optional,
            )
    return found


def _kind(spark_type: str) -> Kind:
    base = spark_type.split("(")[0]
    kinds: dict[str, Kind] = {"string": "text", "date": "day", "boolean": "yes_no", "decimal": "money"}
    return kinds.get(base, "number")
