"""All segments in one scan: every rule becomes an entry of one array per customer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from segments.catalogue import Feature
from segments.compile import compile_segment
from segments.language import Segment, conditions_of

_CHUNK: Final = 50
"""Rules per array expression: one array of 1,000 rules makes a Java method too large to be compiled."""


def evaluate_segments(
    features: DataFrame, segments: Sequence[Segment], *, as_of: date, catalogue: Mapping[str, Feature]
) -> DataFrame:
    """One row per customer with the segments whose rule is true, found in one scan.

    Args:
        features: merchant_id, customer_key, customer_id and every feature the rules name; one row per customer.
        segments: The segments to evaluate, active or not.
        as_of: The day evaluated for.
        catalogue: The features by name.

    Returns:
        merchant_id, customer_key, customer_id, segment_ids (alphabetical, empty when none match) and
        primary_segment_id (highest priority, null when none match). A customer whose rule is unknown is not in.
    """
    ranked = by_priority(segments)
    matches = [F.when(compile_segment(segment, catalogue, as_of), F.lit(segment.segment_id)) for segment in ranked]
    matched = features.select("merchant_id", "customer_key", "customer_id", _compacted(matches).alias("_matched"))
    return matched.select(
        "merchant_id",
        "customer_key",
        "customer_id",
        F.array_sort("_matched").alias("segment_ids"),
        F.get("_matched", F.lit(0)).alias("primary_segment_id"),
    )


def join_features(
    features: DataFrame,
    more: Mapping[str, DataFrame],
    segments: Sequence[Segment],
    *,
    as_of: date,
    catalogue: Mapping[str, Feature],
) -> DataFrame:
    """One row per customer of a day with the features the segments name and no other.

    Args:
        features: `feature.customer`, any number of days.
        more: The other feature tables by name, any number of days each.
        segments: The segments whose features are needed.
        as_of: The day.
        catalogue: The features by name, with the table each comes from.
    """
    keys = ["merchant_id", "customer_key"]
    named = {c.feature for s in segments for c in conditions_of(s.rule)}
    elsewhere = {table: sorted(n for n in named if catalogue[n].table == table) for table in more}
    from_features = sorted(named.difference(*elsewhere.values()))
    joined = features.where(F.col("as_of") == F.lit(as_of)).select(*keys, "customer_id", *from_features)
    for table, names in elsewhere.items():
        if names:
            theirs = more[table].where(F.col("as_of") == F.lit(as_of)).select(*keys, *names)
            # Does not multiply: every feature table has one row per customer and day.
            joined = joined.join(theirs, on=keys, how="left")
    return joined


def by_priority(segments: Sequence[Segment]) -> list[Segment]:
    """Returns segments with the one that wins first."""
    return sorted(segments, key=lambda s: (s.priority, s.segment_id))


def _compacted(matches: Sequence[Column]) -> Column:
    if not matches:
        return F.array().cast("array<string>")
    chunks = [F.array_compact(F.array(*matches[i : i + _CHUNK])) for i in range(0, len(matches), _CHUNK)]
    return F.concat(*chunks) if len(chunks) > 1 else chunks[0]
