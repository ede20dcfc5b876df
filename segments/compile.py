"""Rules to Spark columns: three-valued, literals only, shallow whatever the number of conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from segments.catalogue import Feature
from segments.language import Segment
from segments.measures import Measure, truth_of_event
from segments.operators import OPERATORS
from segments.rules import (
    All,
    AnyOf,
    Condition,
    EventCondition,
    InList,
    InSegment,
    Not,
    Rule,
    SequenceCondition,
)


@dataclass(frozen=True)
class Names:
    """Columns that hold what a rule needs beside the features of the row.

    Attributes:
        cuts: Column with the cut point of a percentile, by condition.
        measures: Column of an aggregate over the customer's events.
        sequences: Boolean column of a sequence.
        segments: Boolean column of a segment other rules ask for, never null.
        answers: Column of a condition, or of a branch, that was answered before.
    """

    cuts: Mapping[Condition, str] = field(default_factory=dict)
    measures: Mapping[Measure, str] = field(default_factory=dict)
    sequences: Mapping[SequenceCondition, str] = field(default_factory=dict)
    segments: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[Rule, str] = field(default_factory=dict)


_NO_NAMES = Names()


def compile_rule(rule: Rule, features: Mapping[str, Feature], as_of: date, names: Names = _NO_NAMES) -> Column:
    """Returns a rule as a boolean column that is null where the answer is unknown.

    Args:
        rule: A checked rule: every feature is known and every value fits.
        features: The features by name.
        as_of: The day evaluated for, exclusive edge of relative dates.
        names: Where cut points, measures of events and other segments are; see `segments.evaluate`.
    """
    if names.answers and rule in names.answers:
        return F.col(names.answers[rule])
    match rule:
        case All(rules):
            return _balanced([compile_rule(r, features, as_of, names) for r in rules], lambda a, b: a & b)
        case AnyOf(rules):
            return _balanced([compile_rule(r, features, as_of, names) for r in rules], lambda a, b: a | b)
        case Not(inner):
            return ~compile_rule(inner, features, as_of, names)
        case Condition(name, op, value):
            known = features[name]
            operator = OPERATORS[op]
            said = F.col(names.cuts[rule]) if operator.shape == "percent" else fit_value(value, known)
            return operator.build(F.col(f"`{name}`"), said, known.family, as_of)
        case EventCondition():
            return truth_of_event(rule, as_of, lambda measure: F.col(names.measures[measure]))
        case SequenceCondition():
            return F.col(names.sequences[rule])
        case InSegment(segment_id):
            return F.col(names.segments[segment_id])
        case InList():
            if not rule.customer_ids:
                return F.lit(False)
            return F.coalesce(F.col("customer_id").isin(sorted(rule.customer_ids)), F.lit(False))


def compile_segment(
    segment: Segment,
    features: Mapping[str, Feature],
    as_of: date,
    website_id: str = "merchant_id",
    names: Names = _NO_NAMES,
) -> Column:
    """Returns whether a customer is in a segment: true only where the rule is true; never null.

    Args:
        segment: The definition.
        features: The features by name.
        as_of: The day evaluated for.
        website_id: Name of the column that holds the retailer.
        names: As in `compile_rule`.
    """
    inside = compile_rule(segment.rule, features, as_of, names)
    if segment.group_condition is not None:
        inside = compile_rule(segment.group_condition, features, as_of, names) & inside
    if segment.website_ids:
        inside = F.col(website_id).isin([F.lit(w) for w in segment.website_ids]) & inside
    return F.coalesce(inside, F.lit(False))


def _balanced(columns: Sequence[Column], join: Callable[[Column, Column], Column]) -> Column:
    # Joined one after the other, 300 conditions make a tree 300 deep, which overflows the stack of the optimizer.
    if len(columns) == 1:
        return columns[0]
    half = len(columns) // 2
    return join(_balanced(columns[:half], join), _balanced(columns[half:], join))


def fit_value(value: Any, known: Feature) -> Any:
    """Returns a value as the type its feature is compared in."""
    if isinstance(value, tuple):
        return tuple(fit_value(v, known) for v in value)
    if known.type.startswith("decimal") and isinstance(value, float):
        return Decimal(str(value))  # 0.1 against a decimal must mean 0.1, not the nearest double
    return value
