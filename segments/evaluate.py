"""All segments in one scan: every rule becomes an entry of one array per customer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import reduce
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import DimCustomer as D
from segments.catalogue import CUSTOMERS, GROUP, GROUP_COLUMN, Feature
from segments.compile import Compiler, Names, is_true
from segments.events import Tables
from segments.language import Segment
from segments.operators import OPERATORS
from segments.references import in_order, with_referenced
from segments.rules import All, AnyOf, Condition, InSegment, Not, Rule, conditions_of, leaves_of
from segments.timelines import RECHECK, Asked, fill_absent, measure_events

_TOGETHER: Final = 5
"""Rules looked up at once: their answers are a number, and each of the 32 numbers has its list of segments."""

_DEPTH: Final = 12
"""Rules nested in one expression."""

_KEYS = ("merchant_id", "customer_key", "customer_id")


def evaluate_segments(
    features: DataFrame,
    segments: Sequence[Segment],
    *,
    as_of: date,
    catalogue: Mapping[str, Feature],
    events: Tables | None = None,
    referenced: Sequence[Segment] = (),
) -> DataFrame:
    """One row per customer with the segments whose rule is true, found in one scan.

    Args:
        features: merchant_id, customer_key, customer_id and every feature the rules name; one row per customer. Cut
            points of percentiles are taken of these customers.
        segments: The segments to evaluate, active or not.
        as_of: The day evaluated for.
        catalogue: The features by name.
        events: Tables of `segments.events.SOURCES`; needed when a rule asks about events.
        referenced: Where segments that rules ask for are found beside `segments`.

    Returns:
        merchant_id, customer_key, customer_id, segment_ids (alphabetical, empty when none match) and
        primary_segment_id (highest priority, null when none match). A customer whose rule is unknown is not in.
    """
    needed = with_referenced(segments, referenced)
    rules = [s.rule for s in needed]
    prepared, names = add_cuts(features, rules)
    if Asked.by(rules):
        prepared, names = add_events(prepared, names, rules, events or {}, as_of=as_of)
    prepared, names = add_branches(prepared, names, rules, as_of=as_of, catalogue=catalogue)
    prepared, names = add_referenced(prepared, names, needed, as_of=as_of, catalogue=catalogue)
    by_id = _by_id(segments)
    places = _places(by_id, names, as_of=as_of, catalogue=catalogue)
    named = [F.col(f"_p{i}") for i in range(len(places))]
    first = [s.segment_id for s in by_priority(segments)]
    return prepared.select(*_KEYS, *[p.alias(f"_p{i}") for i, p in enumerate(places)]).select(
        *_KEYS, _ids_at(by_id, named).alias("segment_ids"), _first_at(by_id, named, first).alias("primary_segment_id")
    )


def add_cuts(features: DataFrame, rules: Sequence[Rule]) -> tuple[DataFrame, Names]:
    """Features with a column per percentile that rules ask for, see `cuts_of`."""
    cuts, names = cuts_of(features, rules)
    return with_cuts(features, cuts), names


def cuts_of(features: DataFrame, rules: Sequence[Rule]) -> tuple[DataFrame | None, Names]:
    """A row per website with a column per percentile that rules ask for, its cut point of that day; None without any.

    Source: linear interpolation between order statistics, as numpy's default; exact, so that it does not depend on
    how rows are spread, and then lowered (top) or raised (bottom) by 1e-12 of itself, so that ties are in.
    """
    asked = dict.fromkeys(c for rule in rules for c in conditions_of(rule) if OPERATORS[c.op].shape == "percent")
    if not asked:
        return None, Names()
    names = {c: f"_cut{i}" for i, c in enumerate(asked)}
    cuts = features.groupBy("merchant_id").agg(*[_cut_point(c).alias(name) for c, name in names.items()])
    return cuts, Names(cuts=names)


def with_cuts(features: DataFrame, cuts: DataFrame | None) -> DataFrame:
    """Features with the columns of `cuts_of`."""
    if cuts is None:
        return features
    # One row per website on the right, so a customer stays one row.
    return features.join(F.broadcast(cuts), on="merchant_id", how="left")


def _cut_point(condition: Condition) -> Column:
    percent = float(condition.value)  # type: ignore[arg-type]
    is_top = condition.op == "top_percent"
    share = (100 - percent if is_top else percent) / 100
    # 0.55 of 100 places is a hair above the 55th, so a cut there would leave those tied at it out. A hair to the other
    # side lets them in: on the share for a cut at zero, on the cut for one whose neighbour is too near to move it.
    outward = -1 if is_top else 1
    cut = F.percentile(F.col(f"`{condition.feature}`"), min(share * (1 + outward * 1e-15), 1.0))
    return cut + F.abs(cut) * F.lit(outward * 1e-12)


def add_events(
    features: DataFrame,
    names: Names,
    rules: Sequence[Rule],
    tables: Tables,
    *,
    as_of: date,
    customers: DataFrame | None = None,
) -> tuple[DataFrame, Names]:
    """Features with a column per aggregate of events that rules ask for, and RECHECK."""
    asked = Asked.by(rules)
    measured = measure_events(tables, asked, as_of=as_of, customers=customers)
    columns = features.columns
    # One row per customer on the right, so a customer stays one row.
    joined = features.join(measured, on="customer_key", how="left").select(*columns, *fill_absent(asked), RECHECK)
    return joined, replace(names, measures=asked.measures, sequences=asked.sequences)


def add_branches(
    features: DataFrame,
    names: Names,
    rules: Sequence[Rule],
    *,
    as_of: date,
    catalogue: Mapping[str, Feature],
) -> tuple[DataFrame, Names]:
    """Features with a column per branch that lies deep, so that no expression is nested deeper than `_DEPTH` rules.

    A client of Spark Connect cannot send an expression nested a hundred levels deep, and a rule of 50 is one.
    """
    for level in _branches(rules):
        made: dict[Rule, str] = {rule: f"_d{len(names.answers) + n}" for n, rule in enumerate(level)}
        compiler = Compiler(catalogue, as_of, names)
        answers = [compiler.rule(rule).alias(column) for rule, column in made.items()]
        features = features.select("*", *answers)
        names = replace(names, answers={**names.answers, **made})
    return features, names


def _branches(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Branches to answer by themselves, those that others are made of first."""
    levels: dict[int, dict[Rule, None]] = {}

    def height(rule: Rule) -> int:
        inner = (rule.rule,) if isinstance(rule, Not) else rule.rules if isinstance(rule, All | AnyOf) else ()
        found = 1 + max(map(height, inner), default=0)
        if found % _DEPTH == 0 and not any(isinstance(leaf, InSegment) for leaf in leaves_of(rule)):
            levels.setdefault(found, {})[rule] = None
        return found

    for rule in rules:
        height(rule)
    return [list(levels[h]) for h in sorted(levels)]


def add_referenced(
    features: DataFrame,
    names: Names,
    needed: Sequence[Segment],
    *,
    as_of: date,
    catalogue: Mapping[str, Feature],
) -> tuple[DataFrame, Names]:
    """Features with a column per segment that another asks for, each made after those it asks for itself."""
    for level in in_order(needed):
        made = {s.segment_id: f"_in_{s.segment_id}" for s in level}
        compiler = Compiler(catalogue, as_of, names)
        answers = [is_true(compiler.segment(s)).alias(made[s.segment_id]) for s in level]
        features = features.select("*", *answers)
        names = replace(names, segments={**names.segments, **made})
    return features, names


def matches(segments: Sequence[Segment], names: Names, *, as_of: date, catalogue: Mapping[str, Feature]) -> Column:
    """Ids of the segments whose rule is true as an array, in alphabetical order."""
    by_id = _by_id(segments)
    return _ids_at(by_id, _places(by_id, names, as_of=as_of, catalogue=catalogue))


def _by_id(segments: Sequence[Segment]) -> list[Segment]:
    return sorted(segments, key=lambda s: s.segment_id)


def _places(by_id: Sequence[Segment], names: Names, *, as_of: date, catalogue: Mapping[str, Feature]) -> list[Column]:
    """For every `_TOGETHER` segments one number, with a bit for each whose rule is true.

    Numbers and look-ups only: an array of answers that a function of Spark's goes through costs ten times as much,
    because such functions are not compiled, nor is what they are given.
    """
    compiler = Compiler(catalogue, as_of, names)
    nothing, bits = F.lit(0), [F.lit(1 << at) for at in range(_TOGETHER)]

    def bit(at: int, segment: Segment) -> Column:
        known = names.segments.get(segment.segment_id)
        return F.when(F.col(known) if known else compiler.segment(segment), bits[at]).otherwise(nothing)

    return [reduce(Column.bitwiseOR, [bit(at, s) for at, s in enumerate(some)]) for some in _by_few(by_id)]


def _ids_at(by_id: Sequence[Segment], places: Sequence[Column]) -> Column:
    tables = [[[s.segment_id for s in inside] for inside in _subsets(some)] for some in _by_few(by_id)]
    found = [F.get(literal(t, "array<array<string>>"), place) for t, place in zip(tables, places, strict=True)]
    return F.concat(*found) if found else F.array().cast("array<string>")


def _first_at(by_id: Sequence[Segment], places: Sequence[Column], first: Sequence[str]) -> Column:
    """The id that stands first in `first` among those whose rule is true."""
    rank = {segment_id: i for i, segment_id in enumerate(first)}
    tables = [
        [min((rank[s.segment_id] for s in inside), default=None) for inside in _subsets(some)]
        for some in _by_few(by_id)
    ]
    ranks = [F.get(literal(t, "array<int>"), place) for t, place in zip(tables, places, strict=True)]
    best = F.least(*ranks) if len(ranks) > 1 else (ranks[0] if ranks else F.lit(None).cast("int"))
    return F.get(literal(first, "array<string>"), best)


def _by_few(by_id: Sequence[Segment]) -> list[Sequence[Segment]]:
    return [by_id[i : i + _TOGETHER] for i in range(0, len(by_id), _TOGETHER)]


def _subsets(some: Sequence[Segment]) -> list[list[Segment]]:
    """Who is meant by each number whose bits stand for these."""
    return [[s for at, s in enumerate(some) if number >> at & 1] for number in range(1 << len(some))]


def literal(values: Sequence[object] | Mapping[str, object], type_name: str) -> Column:
    """Nested values as one literal: a thousand of their own take time to send and to plan."""
    return F.from_json(F.lit(json.dumps(values)), type_name)


def join_features(
    features: DataFrame,
    more: Mapping[str, DataFrame],
    segments: Sequence[Segment],
    *,
    as_of: date,
    catalogue: Mapping[str, Feature],
    only: DataFrame | None = None,
) -> DataFrame:
    """One row per customer of a day with the features the segments name and no other.

    Args:
        features: `feature.customer`, any number of days.
        more: The other feature tables by name, any number of days each, and `gold.dim_customer`.
        segments: The segments whose features are needed.
        as_of: The day.
        catalogue: The features by name, with the table each comes from.
        only: customer_key of the few who are wanted; everyone when None.
    """
    keys = ["merchant_id", "customer_key"]

    def wanted(table: DataFrame) -> DataFrame:
        return table if only is None else table.join(F.broadcast(only), on="customer_key", how="left_semi")

    named = {c.feature for s in segments for c in s.conditions}
    elsewhere = {table: sorted(n for n in named if catalogue[n].table == table) for table in more}
    from_features = sorted(named.difference(*elsewhere.values()))
    joined = wanted(features.where(F.col("as_of") == F.lit(as_of)).select(*keys, "customer_id", *from_features))
    for table, names in elsewhere.items():
        if names:
            theirs = _groups(more[table], as_of) if table == CUSTOMERS else _slice(more[table], as_of, names)
            # Does not multiply: every feature table has one row per customer and day.
            joined = joined.join(wanted(theirs), on=keys, how="left")
    return joined


def _slice(features: DataFrame, as_of: date, names: Sequence[str]) -> DataFrame:
    return features.where(F.col("as_of") == F.lit(as_of)).select("merchant_id", "customer_key", *names)


def _groups(customers: DataFrame, as_of: date) -> DataFrame:
    """One row per customer with the group at the start of a day, from the version valid then."""
    start = F.lit(as_of).cast("timestamp")
    is_valid = (F.col(D.valid_from) < start) & (F.col(D.valid_to).isNull() | (F.col(D.valid_to) >= start))
    return customers.where(is_valid).select(D.merchant_id, D.customer_key, F.col(GROUP_COLUMN).alias(GROUP))


def by_priority(segments: Sequence[Segment]) -> list[Segment]:
    """Returns segments with the one that wins first."""
    return sorted(segments, key=lambda s: (s.priority, s.segment_id))
