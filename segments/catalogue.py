"""The features a rule may name: the columns of the declared feature tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from lakehouse.declare import table_of
from lakehouse.tables.gold import DimCustomer
from segments.operators import Family

_RANGE: Final = re.compile(r"(?:.*, )?(-?\d+) to (-?\d+)")
_NEVER_BELOW_ZERO: Final = ("days", "pieces")

FEATURE_TABLES = (
    "feature.customer",
    "feature.customer_cluster",
    "feature.customer_outlook",
    "feature.customer_audience",
)
"""Tables with one row per customer and `as_of`, whose columns declared as features a rule may name."""

GUEST_TABLES = ("gold.visitor", "gold.guest_visit")
"""The same for guests: visitors of a web shop, and sales without a customer; the one has no features of the other."""


CUSTOMERS = "gold.dim_customer"
GROUP = "customer_group_id"
GROUP_COLUMN = DimCustomer.household_composition
"""What stands for a customer's group: the retailers of the demo have none of their own, and their data tell
households apart by composition. Point it at another column of `gold.dim_customer` where a shop has groups."""


@dataclass(frozen=True)
class Feature:
    """What a rule needs to know of a feature.

    Attributes:
        name: Column name.
        type: Spark DDL type.
        table: Table it comes from.
        comment: Meaning and unit.
        values: The closed set of its values, or empty.
        bounds: The smallest and the largest number it can be.
    """

    name: str
    type: str
    table: str = ""
    comment: str = ""
    values: tuple[str, ...] = ()
    bounds: tuple[float, float] = (-inf, inf)

    @property
    def family(self) -> Family:
        """The kind of value it holds."""
        return Family.of(self.type)


def declared_features(tables: tuple[str, ...] = FEATURE_TABLES) -> Mapping[str, Feature]:
    """Returns every feature by name, in declared order; a name in two tables belongs to the first.

    Maps and structs are left out, for no operator takes them.
    """
    found: dict[str, Feature] = {}
    for name in tables:
        for c in table_of(name).columns:
            is_plain = not c.spec.type.startswith("map") and "struct" not in c.spec.type
            if c.spec.feature is not None and is_plain:
                bounds = _bounds(c.spec.type, c.spec.feature.unit)
                found.setdefault(str(c), Feature(str(c), c.spec.type, name, c.spec.comment, c.spec.values, bounds))
    if "feature.customer" in tables:
        found[GROUP] = Feature(GROUP, "string", CUSTOMERS, f"Customer group: {GROUP_COLUMN} as of the day.")
    return found


def _bounds(spark_type: str, unit: str) -> tuple[float, float]:
    """The ends a unit states (`share, 0 to 1`); numbers of things and days have one; money may go back."""
    if stated := _RANGE.fullmatch(unit):
        return float(stated[1]), float(stated[2])
    return (0 if spark_type == "bigint" or unit in _NEVER_BELOW_ZERO else -inf), inf
