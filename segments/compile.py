"""Rules to Spark columns: three-valued, literals only, shallow whatever the number of conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from segments.catalogue import Feature
from segments.language import All, AnyOf, Condition, Not, Rule, Segment
from segments.operators import OPERATORS


def compile_rule(rule: Rule, features: Mapping[str, Feature], as_of: date) -> Column:
    """Returns a rule as a boolean column that is null where the answer is unknown.

    Args:
        rule: A checked rule: every feature is known and every value fits.
        features: The features by name.
        as_of: The day evaluated for, exclusive edge of relative dates.
    """
    match rule:
        case All(rules):
            return _balanced([compile_rule(r, features, as_of) for r in rules], lambda a, b: a & b)
        case AnyOf(rules):
            return _balanced([compile_rule(r, features, as_of) for r in rules], lambda a, b: a | b)
        case Not(inner):
            return ~compile_rule(inner, features, as_of)
        case Condition(name, op, value):
            known = features[name]
            return OPERATORS[op].build(F.col(f"`{name}`"), _fit(value, known), known.family, as_of)


def compile_segment(
    segment: Segment, features: Mapping[str, Feature], as_of: date, website_id: str = "merchant_id"
) -> Column:
    """Returns whether a customer is in a segment: true only where the rule is true; never null.

    Args:
        segment: The definition.
        features: The features by name.
        as_of: The day evaluated for.
        website_id: Name of the column that holds the retailer.
    """
    inside = compile_rule(segment.rule, features, as_of)
    if segment.website_ids:
        inside = F.col(website_id).isin([F.lit(w) for w in segment.website_ids]) & inside
    return F.coalesce(inside, F.lit(False))


def _balanced(columns: Sequence[Column], join: Callable[[Column, Column], Column]) -> Column:
    # Joined one after the other, 300 conditions make a tree 300 deep, which overflows the stack of the optimizer.
    if len(columns) == 1:
        return columns[0]
    half = len(columns) // 2
    return join(_balanced(columns[:half], join), _balanced(columns[half:], join))


def _fit(value: Any, known: Feature) -> Any:
    if isinstance(value, tuple):
        return tuple(_fit(v, known) for v in value)
    if known.type.startswith("decimal") and isinstance(value, float):
        return Decimal(str(value))  # 0.1 against a decimal must mean 0.1, not the nearest double
    return value
