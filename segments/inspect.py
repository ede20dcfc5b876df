"""What a person asks about segments before and after they are published: sizes, overlap, who would move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.segment import CustomerMembership as M
from lakehouse.tables.segment import CustomerSegmentHistory as H
from lakehouse.tables.segment import CustomerSegmentPin as P
from lakehouse.tables.segment import CustomerSegmentSize as Z
from lakehouse.tables.silver import Consent
from segments.catalogue import Feature
from segments.compile import Compiler, is_true
from segments.evaluate import add_branches, add_cuts, add_events, add_referenced, join_features
from segments.events import Tables
from segments.language import Segment
from segments.references import with_referenced
from segments.tell import steps_of
from segments.timelines import Asked


def answer_customers(
    features: DataFrame,
    more: Mapping[str, DataFrame],
    tables: Tables,
    segments: Mapping[str, Segment],
    *,
    others: Sequence[Segment],
    as_of: date,
    catalogue: Mapping[str, Feature],
) -> DataFrame:
    """One row per customer with the answers of some definitions, in one scan.

    Args:
        features: `feature.customer`.
        more: The other feature tables by name.
        tables: The tables of `segments.events.SOURCES` by name.
        segments: Definitions by the name their columns get.
        others: Definitions that rules may ask for.
        as_of: The day.
        catalogue: The features by name.

    Returns:
        website_id, customer_key, customer_id and, per definition: `<name>` (whether in) and `<name>_<n>` for each of
        its `segments.tell.steps_of` (null where unknown).
    """
    needed = with_referenced(list(segments.values()), others)
    rules = [s.rule for s in needed]
    prepared, names = add_cuts(join_features(features, more, needed, as_of=as_of, catalogue=catalogue), rules)
    if Asked.by(rules):
        prepared, names = add_events(prepared, names, rules, tables, as_of=as_of)
    prepared, names = add_branches(prepared, names, rules, as_of=as_of, catalogue=catalogue)
    prepared, names = add_referenced(prepared, names, needed, as_of=as_of, catalogue=catalogue)
    answers, compiler = [], Compiler(catalogue, as_of, names)
    for name, segment in segments.items():
        answers.append(is_true(compiler.segment(segment)).alias(name))
        answers += [step.alias(f"{name}_{n}") for n, step in enumerate(compiler.steps(segment))]
    return prepared.select(F.col("merchant_id").alias(M.website_id), M.customer_key, F.col("customer_id"), *answers)


def preview_segment(
    answered: DataFrame,
    membership: DataFrame,
    pins: DataFrame,
    consents: DataFrame,
    segment: Segment,
    channels: Sequence[str],
) -> DataFrame:
    """One row per website with features: what publishing a definition would give.

    Args:
        answered: From `answer_customers` with the definition under the name `is_in`.
        membership: `gold.customer_membership` as published.
        pins: `gold.customer_segment_pin`.
        consents: `silver.consent`.
        segment: The definition.
        channels: Channels of consent.

    Returns:
        website_id; customers; members (by the rule); published (members now); entering and leaving, after pins, with
        members who have no features any more, and everyone of an inactive segment; pinned_in and pinned_out (customers
        a pin puts in or keeps out against the rule); moving (who enters or leaves without a pin, which
        `max_change_share` is about); for each step of the waterfall
        `alone_<n>` (customers for whom it is true) and `left_<n>` (for whom it and all before it are); and
        `reachable_<channel>` (members whose consent is on record and granted).
    """
    keys = [str(M.website_id), str(M.customer_key)]
    known = membership.select(*keys, F.array_contains(M.segment_ids, F.lit(segment.segment_id)).alias("_was_in"))
    granted = (
        consents.where(F.col(Consent.is_granted))
        .groupBy(F.col(Consent.merchant_id).alias(M.website_id), F.col(Consent.customer_id))
        .agg(F.collect_set(Consent.channel).alias("_channels"))
    )
    decided = pins.where(F.col(P.segment_id) == F.lit(segment.segment_id)).select(*keys, F.col(P.is_in).alias("_pin"))
    # One row per customer on either right side.
    both = (
        answered.withColumn("_is_here", F.lit(True))
        .join(known, on=keys, how="full_outer")
        .join(decided, on=keys, how="left")
        .join(granted, on=[str(M.website_id), "customer_id"], how="left")
    )
    is_here, was_in = is_true(F.col("_is_here")), is_true(F.col("_was_in"))
    by_rule = is_true(F.col("is_in"))
    will_be_in = is_here & F.lit(segment.is_active) & F.coalesce(F.col("_pin"), by_rule)
    is_pinned = F.col("_pin").isNotNull()
    count = len(steps_of(segment))
    so_far = [F.lit(True)]
    for n in range(count):
        so_far.append(so_far[-1] & F.coalesce(f"is_in_{n}", F.lit(False)))
    return (
        both.groupBy(M.website_id)
        .agg(
            F.count_if(is_here).alias("customers"),
            F.count_if("is_in").alias("members"),
            F.count_if(was_in).alias("published"),
            F.count_if(will_be_in & ~was_in).alias("entering"),
            F.count_if(~will_be_in & was_in).alias("leaving"),
            F.count_if(will_be_in & ~by_rule).alias("pinned_in"),
            F.count_if(is_here & by_rule & ~F.col("_pin")).alias("pinned_out"),
            F.count_if((will_be_in != was_in) & ~is_pinned).alias("moving"),
            *[F.count_if(f"is_in_{n}").alias(f"alone_{n}") for n in range(count)],
            *[F.count_if(so_far[n + 1]).alias(f"left_{n}") for n in range(count)],
            *[
                F.count_if(F.col("is_in") & F.coalesce(F.array_contains("_channels", F.lit(c)), F.lit(False))).alias(
                    f"reachable_{c}"
                )
                for c in channels
            ],
        )
        .where(F.col("customers") > 0)
        .orderBy(M.website_id)
    )


def sizes_beside_previous(sizes: DataFrame) -> DataFrame:
    """Sizes with those of the day measured before on the same website.

    Args:
        sizes: `gold.customer_segment_size`, any days.

    Returns:
        `sizes` with previous_as_of (the website's day before; null on its first) and members_before (the size on
        exactly that day; null for a segment that was not measured then, because it is new or was inactive).
    """
    day = F.unix_date(Z.as_of)
    earlier = Window.partitionBy(Z.website_id).orderBy(day).rangeBetween(Window.unboundedPreceding, -1)
    own = Window.partitionBy(Z.website_id, Z.segment_id).orderBy(Z.as_of)
    is_next = F.lag(Z.as_of).over(own) == F.col("previous_as_of")
    return sizes.withColumn("previous_as_of", F.max(Z.as_of).over(earlier)).withColumn(
        "members_before", F.when(is_next, F.lag(Z.members).over(own))
    )


def overlap_segments(membership: DataFrame) -> DataFrame:
    """One row per website and pair of segments somebody is in: how many are in both, and how alike they are.

    Args:
        membership: `gold.customer_membership`.

    Returns:
        website_id, segment_a, segment_b (a before b in the alphabet), members_a, members_b, both, jaccard (both over
        either).
    """
    one = membership.select(M.website_id, F.explode(M.segment_ids).alias("segment"))
    sizes = one.groupBy(M.website_id, "segment").agg(F.count(F.lit(1)).alias("members"))
    pairs = (
        membership.select(M.website_id, M.segment_ids, F.explode(M.segment_ids).alias("segment_a"))
        .select(M.website_id, "segment_a", F.explode(M.segment_ids).alias("segment_b"))
        .where(F.col("segment_a") < F.col("segment_b"))
        .groupBy(M.website_id, "segment_a", "segment_b")
        .agg(F.count(F.lit(1)).alias("both"))
    )
    for side in ("a", "b"):
        # One size per website and segment.
        named = sizes.select(
            M.website_id, F.col("segment").alias(f"segment_{side}"), F.col("members").alias(f"members_{side}")
        )
        pairs = pairs.join(F.broadcast(named), on=[str(M.website_id), f"segment_{side}"], how="inner")
    either = F.col("members_a") + F.col("members_b") - F.col("both")
    return pairs.select(
        M.website_id,
        "segment_a",
        "segment_b",
        "members_a",
        "members_b",
        "both",
        (F.col("both") / either).alias("jaccard"),
    )


def beaten_segments(membership: DataFrame) -> DataFrame:
    """One row per website, segment and the segment that came before it: members it lost by priority.

    Args:
        membership: `gold.customer_membership`.

    Returns:
        website_id, segment_id, primary_segment_id (equal where the segment itself is the primary one), members.
    """
    return (
        membership.select(M.website_id, M.primary_segment_id, F.explode(M.segment_ids).alias("segment_id"))
        .groupBy(M.website_id, "segment_id", M.primary_segment_id)
        .agg(F.count(F.lit(1)).alias("members"))
    )


def flows_between(stays: DataFrame) -> DataFrame:
    """One row per website, day and pair of segments: customers who left the one and entered the other that day.

    Args:
        stays: `gold.customer_segment_history`.

    Returns:
        website_id, day, left, entered, customers. Who left several and entered several counts for every pair.
    """
    keys: list[str] = [H.website_id, H.customer_key, "day"]
    left = stays.where(F.col(H.exited_on).isNotNull()).select(
        H.website_id, H.customer_key, F.col(H.exited_on).alias("day"), F.col(H.segment_id).alias("left")
    )
    entered = stays.select(
        H.website_id, H.customer_key, F.col(H.entered_on).alias("day"), F.col(H.segment_id).alias("entered")
    )
    return (
        left.join(entered, on=keys, how="inner")
        .where(F.col("left") != F.col("entered"))
        .groupBy(H.website_id, "day", "left", "entered")
        .agg(F.count(F.lit(1)).alias("customers"))
    )
