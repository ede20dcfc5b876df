"""Rules to Spark columns: three-valued, literals only, shallow whatever the number of conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from segments.catalogue import Feature
from segments.language import Segment
from segments.measures import Measure, truth_of_event
from segments.operators import OPERATORS, balanced
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
    parts_of,
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


@dataclass(frozen=True)
class Compiler:
    """Makes columns of rules. Each rule and each feature is made once, in however many others it stands.

    Attributes:
        features: The features by name, or the fields of an event.
        as_of: The day evaluated for, exclusive edge of relative dates.
        names: Where cut points, measures of events and other segments are; see `segments.evaluate`.
    """

    features: Mapping[str, Feature]
    as_of: date
    names: Names = field(default_factory=Names)
    _made: dict[Rule, Column] = field(default_factory=dict, init=False, repr=False, compare=False)
    _named: dict[str, Column] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rule(self, rule: Rule) -> Column:
        """Returns a checked rule as a boolean column that is null where the answer is unknown."""
        if rule not in self._made:
            self._made[rule] = self._make(rule)
        return self._made[rule]

    def segment(self, segment: Segment) -> Column:
        """Returns whether a customer is in a segment: true only where the rule is true; null where it is unknown."""
        return balanced([*self._restrictions(segment), self.rule(segment.rule)], lambda a, b: a & b)

    def steps(self, segment: Segment) -> list[Column]:
        """Returns what must all be true of a member, in the order of `segments.tell.steps_of`."""
        return [*self._restrictions(segment), *(self.rule(part) for part in parts_of(segment.rule))]

    def _feature(self, name: str) -> Column:
        if name not in self._named:
            self._named[name] = F.col(f"`{name}`")
        return self._named[name]

    def _restrictions(self, segment: Segment) -> list[Column]:
        found = []
        if segment.website_ids:
            found.append(F.col("merchant_id").isin([F.lit(w) for w in segment.website_ids]))
        if segment.group_condition is not None:
            found.append(self.rule(segment.group_condition))
        return found

    def _make(self, rule: Rule) -> Column:
        names = self.names
        if rule in names.answers:
            return F.col(names.answers[rule])
        match rule:
            case All(rules):
                return balanced([self.rule(r) for r in rules], lambda a, b: a & b)
            case AnyOf(rules):
                return balanced([self.rule(r) for r in rules], lambda a, b: a | b)
            case Not(inner):
                return ~self.rule(inner)
            case Condition(name, op, value):
                known = self.features[name]
                operator = OPERATORS[op]
                said = F.col(names.cuts[rule]) if operator.shape == "percent" else fit_value(value, known)
                return operator.build(self._feature(name), said, known.family, self.as_of)
            case EventCondition():
                return truth_of_event(rule, self.as_of, lambda measure: F.col(names.measures[measure]))
            case SequenceCondition():
                return F.col(names.sequences[rule])
            case InSegment(segment_id):
                return F.col(names.segments[segment_id])
            case InList():
                if not rule.customer_ids:
                    return F.lit(False)
                return is_true(F.col("customer_id").isin(sorted(rule.customer_ids)))


def is_true(answer: Column) -> Column:
    """Returns an answer with unknown as false."""
    return F.coalesce(answer, F.lit(False))


def fit_value(value: Any, known: Feature) -> Any:
    """Returns a value as the type its feature is compared in."""
    if isinstance(value, tuple):
        return tuple(fit_value(v, known) for v in value)
    if known.type.startswith("decimal") and isinstance(value, float):
        return Decimal(str(value))  # 0.1 against a decimal must mean 0.1, not the nearest double
    return value
