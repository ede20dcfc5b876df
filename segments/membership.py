"""Who is in which segment now: one row per customer, and only customers whose segments changed are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.segment import CustomerMembership as M
from lakehouse.tables.segment import CustomerSegmentRefresh as R
from segments.catalogue import Feature, declared_features
from segments.evaluate import by_priority, evaluate_segments, join_features
from segments.language import Segment
from segments.rows import literal_rows


def plan_membership(
    features: DataFrame,
    clusters: DataFrame,
    outlooks: DataFrame,
    audiences: DataFrame,
    previous: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    run_id: str,
    started_at: datetime,
) -> Mapping[str, DataFrame]:
    """Evaluate every active segment and plan what changes.

    Manual segments keep their members (see `ask_for`). A segment that would change by more than its limit keeps its
    last good members of that website, and its refresh is an error. A website without any features that day, and a
    customer changed by a later `as_of`, are left alone.

    Args:
        features: `feature.customer`.
        clusters: `feature.customer_cluster`.
        outlooks: `feature.customer_outlook`.
        audiences: `feature.customer_audience`.
        previous: `gold.customer_membership` as published.
        segments: All definitions.
        as_of: The day evaluated for, exclusive edge.
        run_id: Run that evaluates.
        started_at: When it started, UTC.

    Returns:
        `gold.customer_membership`: changed and new customers only; the same inputs again give no row.
        `gold.customer_segment_refresh`: one row per evaluated segment and website of the day.
    """
    return plan_membership_of(
        features,
        {
            "feature.customer_cluster": clusters,
            "feature.customer_outlook": outlooks,
            "feature.customer_audience": audiences,
        },
        previous,
        segments=segments,
        as_of=as_of,
        run_id=run_id,
        started_at=started_at,
        catalogue=declared_features(),
    )


def plan_membership_of(
    features: DataFrame,
    more: Mapping[str, DataFrame],
    previous: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    run_id: str,
    started_at: datetime,
    catalogue: Mapping[str, Feature],
) -> Mapping[str, DataFrame]:
    """As `plan_membership`, over features given instead of the declared ones."""
    active = [s for s in segments if s.is_active and s.entity == "customer"]
    evaluated = [s for s in active if s.refresh_mode == "auto"]
    manual = sorted(s.segment_id for s in active if s.refresh_mode == "manual")
    joined = join_features(features, more, evaluated, as_of=as_of, catalogue=catalogue)
    found = evaluate_segments(joined, evaluated, as_of=as_of, catalogue=catalogue)
    both = _compare(found, previous, joined)
    limited = [s for s in evaluated if s.max_change_share is not None]
    held = _find_held(both, limited) if limited else None
    membership = _changed_rows(both, held, active, manual, as_of=as_of, run_id=run_id, started_at=started_at)
    refreshes = _refresh_rows(_websites(joined), found, held, evaluated, as_of)
    return {"gold.customer_membership": membership, "gold.customer_segment_refresh": refreshes}


def ask_for(segments: Sequence[Segment], asked: Collection[str]) -> tuple[Segment, ...]:
    """Returns the definitions with the manual segments named in `asked` made to refresh in this run."""
    return tuple(
        replace(s, refresh_mode="auto") if s.segment_id in asked and s.refresh_mode == "manual" else s for s in segments
    )


def _websites(joined: DataFrame) -> DataFrame:
    return joined.select(F.col("merchant_id").alias(M.website_id)).distinct()


def _compare(found: DataFrame, previous: DataFrame, joined: DataFrame) -> DataFrame:
    now = found.select(
        F.col("merchant_id").alias(M.website_id),
        M.customer_key,
        F.col("customer_id").alias("_now_customer_id"),
        F.col("segment_ids").alias("_now"),
        F.col("primary_segment_id").alias("_now_primary"),
    )
    before = previous.select(
        M.website_id,
        M.customer_key,
        F.col(M.customer_id).alias("_was_customer_id"),
        F.col(M.segment_ids).alias("_was"),
        F.col(M.primary_segment_id).alias("_was_primary"),
        F.col(M.is_present).alias("_was_present"),
        F.col(M.changed_on).alias("_was_changed_on"),
    )
    # A website whose features are missing that day has not lost all its customers.
    before = before.join(F.broadcast(_websites(joined)), on=M.website_id, how="left_semi")
    return now.join(before, on=[str(M.website_id), str(M.customer_key)], how="full_outer")


def _find_held(both: DataFrame, limited: Sequence[Segment]) -> DataFrame:
    """One row per website with a map of the segments that would change too much to the reason."""
    empty = F.array().cast("array<string>")
    now, was = F.coalesce("_now", empty), F.coalesce("_was", empty)
    limits = F.create_map(*[F.lit(x) for s in limited for x in (s.segment_id, float(s.max_change_share or 0))])
    touched = both.select(
        M.website_id,
        F.explode(F.array_union(now, was)).alias("segment_id"),
        now.alias("_n"),
        was.alias("_w"),
    ).where(F.col("segment_id").isin([s.segment_id for s in limited]))
    is_in, was_in = F.array_contains("_n", F.col("segment_id")), F.array_contains("_w", F.col("segment_id"))
    counted = touched.groupBy(M.website_id, "segment_id").agg(
        F.sum(was_in.cast("bigint")).alias("members"),
        F.sum((is_in != was_in).cast("bigint")).alias("moved"),
    )
    limit = F.element_at(limits, F.col("segment_id"))
    over = counted.where((F.col("members") > 0) & (F.col("moved") > limit * F.col("members")))
    message = F.format_string(
        "%d of %d members would change, above the limit of %.0f %%; the last good membership was kept",
        F.col("moved"),
        F.col("members"),
        limit * 100,
    )
    return over.groupBy(M.website_id).agg(
        F.map_from_entries(F.collect_list(F.struct("segment_id", message.alias("message")))).alias("_held")
    )


def _changed_rows(
    both: DataFrame,
    held: DataFrame | None,
    active: Sequence[Segment],
    manual: Sequence[str],
    *,
    as_of: date,
    run_id: str,
    started_at: datetime,
) -> DataFrame:
    empty = F.array().cast("array<string>")
    is_found = F.col("_now").isNotNull()
    segment_ids, primary = F.coalesce("_now", empty), F.col("_now_primary")
    if manual or held is not None:
        kept = F.array(*[F.lit(m) for m in manual]).cast("array<string>")
        if held is not None:
            both = both.join(F.broadcast(held), on=M.website_id, how="left")
            kept = F.array_union(kept, F.coalesce(F.map_keys("_held"), empty))
        fresh = F.array_except(F.coalesce("_now", empty), kept)
        stayed = F.array_intersect(F.coalesce("_was", empty), kept)
        segment_ids = F.when(is_found, F.array_sort(F.array_union(fresh, stayed))).otherwise(empty)
        primary = _primary_of(F.col(M.segment_ids), active)
    both = both.withColumn(M.segment_ids, segment_ids).withColumn("_is_found", is_found)
    both = both.withColumn(M.primary_segment_id, primary)
    is_same = (
        F.col(M.segment_ids).eqNullSafe(F.col("_was"))
        & F.col(M.primary_segment_id).eqNullSafe(F.col("_was_primary"))
        & F.col("_is_found").eqNullSafe(F.col("_was_present"))
    )
    is_later = F.coalesce(F.col("_was_changed_on") > F.lit(as_of), F.lit(False))
    return both.where(~is_same & ~is_later).select(
        M.website_id,
        M.customer_key,
        F.coalesce("_now_customer_id", "_was_customer_id").alias(M.customer_id),
        M.segment_ids,
        M.primary_segment_id,
        F.col("_is_found").alias(M.is_present),
        F.lit(as_of).alias(M.changed_on),
        F.lit(run_id).alias(M.run_id),
        F.lit(started_at).alias(M.updated_at),
    )


def _primary_of(segment_ids: Column, active: Sequence[Segment]) -> Column:
    ranked = F.array(*[F.lit(s.segment_id) for s in by_priority(active)]).cast("array<string>")
    return F.get(F.array_intersect(ranked, segment_ids), F.lit(0))


def _refresh_rows(
    websites: DataFrame, found: DataFrame, held: DataFrame | None, evaluated: Sequence[Segment], as_of: date
) -> DataFrame:
    counts = (
        found.select(F.col("merchant_id").alias(M.website_id), F.explode("segment_ids").alias(R.segment_id))
        .groupBy(R.segment_id, M.website_id)
        .agg(F.count(F.lit(1)).alias(R.evaluated_count))
    )
    types = {str(R.segment_id): "string", str(R.version): "string"}
    graded = literal_rows(websites, types, [(s.segment_id, s.version) for s in evaluated])
    # Neither join multiplies: counts are one per segment and website, held segments one row per website.
    graded = graded.join(F.broadcast(counts), on=[str(R.segment_id), str(M.website_id)], how="left")
    message = F.lit(None).cast("string")
    if held is not None:
        graded = graded.join(F.broadcast(held), on=M.website_id, how="left")
        message = F.try_element_at("_held", F.col(R.segment_id))
    return graded.select(
        R.segment_id,
        R.website_id,
        F.lit(as_of).alias(R.as_of),
        R.version,
        F.coalesce(R.evaluated_count, F.lit(0)).cast("bigint").alias(R.evaluated_count),
        F.when(message.isNull(), F.lit("completed")).otherwise(F.lit("error")).alias(R.refresh_status),
        message.alias(R.message),
    )
