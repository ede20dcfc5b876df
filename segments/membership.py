"""Who is in which segment now: one row per customer, and only customers whose segments changed are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.hold import Once, as_is
from lakehouse.joins import rows_named
from lakehouse.tables.segment import CustomerEvaluation as E
from lakehouse.tables.segment import CustomerMembership as M
from lakehouse.tables.segment import CustomerSegmentPin as P
from lakehouse.tables.segment import CustomerSegmentPromotion as L
from lakehouse.tables.segment import CustomerSegmentRefresh as R
from segments.evaluate import by_priority
from segments.language import Segment, ask_for
from segments.rows import literal_rows
from segments.tell import percent

MEMBERSHIP = "gold.customer_membership"
REFRESH = "gold.customer_segment_refresh"

_KEYS = ("website_id", "customer_key")


def plan_membership(
    evaluated: DataFrame,
    evaluated_changes: DataFrame,
    pins: DataFrame,
    pin_changes: DataFrame,
    promotions: DataFrame,
    promotion_changes: DataFrame,
    features: DataFrame,
    previous: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    run_id: str,
    started_at: datetime,
    asked: Collection[str] = (),
    is_full: bool,
    hold: Once = as_is,
) -> Mapping[str, DataFrame]:
    """Plan what the answers of the rules change in the published membership.

    A pin puts a customer in, or keeps them out, whatever the rule says. Guest segments of a visitor who logged in are
    the customer's, also of one without features, and are never the primary one. Manual segments keep their members
    unless asked for. A segment that would change by more than its limit, pins left out, keeps its last good members of
    that website, also those without features, and its refresh is an error. A website without any features that day is
    stale, and a customer changed by a later `as_of` is left alone.

    Args:
        evaluated: `gold.customer_evaluation`.
        evaluated_changes: Its rows that changed since the last refresh, also those gone.
        pins: `gold.customer_segment_pin`.
        pin_changes: Its rows that changed since then, also those gone.
        promotions: `gold.customer_segment_promotion`: guest segments of customers who logged in as visitors.
        promotion_changes: Its rows that changed since then, also those gone.
        features: `feature.customer`; says which websites have features that day.
        previous: `gold.customer_membership` as published.
        segments: All definitions.
        as_of: The day evaluated for, exclusive edge.
        run_id: Run that evaluates.
        started_at: When it started, UTC.
        asked: Manual segments this refresh is asked for.
        is_full: Whether the changes are whole tables, which do not name who has gone.
        hold: Returns a frame that is made once, however often it is read.

    Returns:
        `gold.customer_membership`: changed and new customers only; the same inputs again give no row.
        `gold.customer_segment_refresh`: one row per evaluated segment and website of the day.
    """
    segments = ask_for(segments, asked)
    active = [s for s in segments if s.is_active and s.entity == "customer"]
    refreshed = [s for s in active if s.refresh_mode == "auto"]
    limited = [s for s in refreshed if s.max_change_share is not None]
    by_people = pin_changes.select(*_KEYS).unionByName(promotion_changes.select(*_KEYS))
    again = by_people.unionByName(_kept_without_features(previous)).distinct()
    looked_at, before = _to_compare(
        evaluated, evaluated_changes, again, previous, is_full=is_full, is_everyone=is_full or bool(limited)
    )
    websites = (
        features.where(F.col("as_of") == F.lit(as_of)).select(F.col("merchant_id").alias(M.website_id)).distinct()
    )
    carried = _carried(promotions, [s for s in segments if s.is_active and s.entity == "guest"])
    both = _compare(looked_at, before, pins, carried, active, as_of)
    # One row per customer with a pin that was taken away: few, and so no shuffle of everyone.
    both = hold(both.join(F.broadcast(_unpinned(pin_changes)), on=list(_KEYS), how="left"))
    held = _find_held(both, previous, limited) if limited else None
    membership = _changed_rows(both, held, active, as_of=as_of, run_id=run_id, started_at=started_at)
    return {MEMBERSHIP: membership, REFRESH: _refresh_rows(websites, previous, both, held, refreshed, as_of)}


def _kept_without_features(previous: DataFrame) -> DataFrame:
    """Keys of those a limit kept though they have no features: no change of an answer names them any more."""
    # A guest segment, which a customer without features may be in as well, is never the primary one.
    return previous.where(~F.col(M.is_present) & F.col(M.primary_segment_id).isNotNull()).select(*_KEYS)


def _unpinned(pin_changes: DataFrame) -> DataFrame:
    """One row per customer with the segments of which a person no longer decides."""
    gone = pin_changes.where(F.col("_deleted"))
    return gone.groupBy(*_KEYS).agg(F.collect_set(P.segment_id).alias("_unpinned"))


def _carried(promotions: DataFrame, of_guests: Sequence[Segment]) -> DataFrame:
    """One row per customer with a map of guest segments, by way of their visitors, to why they are in."""
    ids = [s.segment_id for s in of_guests]
    since = F.concat(F.lit(f"{PROMOTED}: as a visitor in since "), F.min(L.visitor_since).cast("string"))
    each = (
        promotions.where(F.col(L.segment_id).isin(ids))
        .groupBy(*_KEYS, L.customer_id, L.segment_id)
        .agg(F.coalesce(since, F.lit(PROMOTED)).alias("_why"))
    )
    # A key is made of website and number.
    return each.groupBy(*_KEYS, F.col(L.customer_id).alias("_carried_customer_id")).agg(
        F.map_from_entries(F.collect_list(F.struct(L.segment_id, "_why"))).alias("_carried")
    )


def _to_compare(
    evaluated: DataFrame,
    evaluated_changes: DataFrame,
    again: DataFrame,
    previous: DataFrame,
    *,
    is_full: bool,
    is_everyone: bool,
) -> tuple[DataFrame, DataFrame]:
    """One row per customer looked at: what the rules say of them, null where nothing any more; and what is published.

    Those whose answers changed come with their answers, so nobody else's are read, unless a limit held something back
    last time: that has not changed since, and is to be looked at again. A full pass looks at everyone, for it is not
    told who has gone.
    """
    keys = list(_KEYS)
    answers = [E.customer_id, E.segment_ids, E.reasons]
    is_there = ~F.col("_deleted")
    changed = evaluated_changes.select(*keys, *[F.when(is_there, F.col(c)).alias(c) for c in answers])
    if is_everyone:
        named = evaluated_changes.where(~is_there).select(*keys)
        gone = previous.select(*keys).join(evaluated.select(*keys), on=keys, how="left_anti") if is_full else named
        changed = evaluated.select(*keys, *answers).unionByName(
            gone.select(*keys, *[F.lit(None).alias(c) for c in answers])
        )
    others = again.join(changed.select(*keys), on=keys, how="left_anti")
    # One row per customer on either side.
    asked_again = others.join(rows_named(evaluated, others, keys).select(*keys, *answers), on=keys, how="left")
    looked_at = changed.unionByName(asked_again)
    return looked_at, previous if is_everyone else rows_named(previous, looked_at.select(*keys), keys)


def _compare(
    looked_at: DataFrame,
    previous: DataFrame,
    pins: DataFrame,
    carried: DataFrame,
    active: Sequence[Segment],
    as_of: date,
) -> DataFrame:
    """One row per customer looked at: segments as they were and as they would be now, pins and manual ones settled."""
    keys = list(_KEYS)
    none = F.array().cast("array<string>")
    now = looked_at.select(
        *_KEYS,
        F.col(E.customer_id).alias("_now_customer_id"),
        F.col(E.segment_ids).alias("_evaluated"),
        F.col(E.reasons).alias("_reasons"),
    )
    before = previous.select(
        *_KEYS,
        F.col(M.customer_id).alias("_was_customer_id"),
        F.col(M.segment_ids).alias("_was"),
        F.col(M.primary_segment_id).alias("_was_primary"),
        F.col(M.is_present).alias("_was_present"),
        F.col(M.changed_on).alias("_was_changed_on"),
    )
    ids = [s.segment_id for s in active]
    pinned = (
        pins.where(F.col(P.segment_id).isin(ids))
        .groupBy(*_KEYS)
        .agg(
            F.collect_set(F.when(F.col(P.is_in), F.col(P.segment_id))).alias("_pinned"),
            F.collect_set(F.when(~F.col(P.is_in), F.col(P.segment_id))).alias("_barred"),
        )
    )
    # One row per customer in each of them, so none multiplies.
    both = (
        now.join(before, on=keys, how="left")
        .join(F.broadcast(pinned), on=keys, how="left")
        .join(carried, on=keys, how="left")
    )
    manual = F.array(*[F.lit(s.segment_id) for s in active if s.refresh_mode == "manual"]).cast("array<string>")
    was, is_found = F.coalesce("_was", none), F.col("_evaluated").isNotNull()
    pinned_in, barred = F.coalesce("_pinned", none), F.coalesce("_barred", none)
    by_rule = F.col("_evaluated")
    if [s for s in active if s.refresh_mode == "manual"]:
        by_rule = F.sort_array(F.array_union(F.array_except("_evaluated", manual), F.array_intersect(was, manual)))
    promoted, is_carried = F.coalesce(F.map_keys("_carried"), none), F.col("_carried").isNotNull()
    settled = F.sort_array(F.array_except(F.array_union(F.array_union(by_rule, promoted), pinned_in), barred))
    # Most customers are where the rules say, and sets are not compiled code.
    is_decided = F.col("_pinned").isNotNull()
    is_plain = ~is_decided & ~is_carried
    is_later = F.coalesce(F.col("_was_changed_on") > F.lit(as_of), F.lit(False))
    # Keys of evaluations and pins that are gone and were never published have nothing to compare.
    return both.where(~is_later & (is_found | is_carried | F.col("_was").isNotNull())).select(
        *_KEYS,
        F.coalesce("_now_customer_id", "_was_customer_id", "_carried_customer_id").alias(M.customer_id),
        "_was",
        "_was_primary",
        "_was_present",
        is_found.alias("_is_found"),
        F.when(~is_found, F.sort_array(promoted)).when(is_plain, by_rule).otherwise(settled).alias("_now"),
        "_reasons",
        "_carried",
        pinned_in.alias("_pinned"),
        barred.alias("_barred"),
        F.when(is_decided, F.array_intersect(pinned_in, F.array_except(settled, by_rule)))
        .otherwise(none)
        .alias("_put_in"),
    )


def _find_held(both: DataFrame, previous: DataFrame, limited: Sequence[Segment]) -> DataFrame:
    """One row per website with a map of the segments that would change too much to the reason."""
    ids = [s.segment_id for s in limited]
    limits = F.create_map(*[F.lit(x) for s in limited for x in (s.segment_id, float(s.max_change_share or 0))])
    said = F.create_map(*[F.lit(x) for s in limited for x in (s.segment_id, percent(s.max_change_share or 0))])
    sizes = (
        previous.select(M.website_id, F.explode(M.segment_ids).alias("segment_id"))
        .where(F.col("segment_id").isin(ids))
        .groupBy(M.website_id, "segment_id")
        .agg(F.count(F.lit(1)).alias("members"))
    )
    moved = _moves(_but_for_pins(both)).groupBy(M.website_id, "segment_id").agg(F.count(F.lit(1)).alias("moved"))
    # Both sides have one row per website and segment.
    over = sizes.join(moved, on=[str(M.website_id), "segment_id"], how="inner").where(
        # A quotient is rounded as the limit was when it was read, so one of exactly the limit is no more than it.
        F.col("moved") / F.col("members") > F.element_at(limits, F.col("segment_id"))
    )
    message = F.format_string(
        "%d of %d members would change, above the limit of %s; the last good membership was kept",
        F.col("moved"),
        F.col("members"),
        F.element_at(said, F.col("segment_id")),
    )
    return over.groupBy(M.website_id).agg(
        F.map_from_entries(F.collect_list(F.struct("segment_id", message.alias("message")))).alias("_held")
    )


def _but_for_pins(both: DataFrame) -> DataFrame:
    """The same without the segments of which a person has decided: no limit keeps them from being in or out."""
    decided = F.array_union("_pinned", "_barred")
    return both.withColumns({c: F.array_except(c, decided) for c in ("_was", "_now")})


def _moves(both: DataFrame) -> DataFrame:
    """One row per customer and segment that would be entered or left."""
    was = F.coalesce("_was", F.array().cast("array<string>"))
    entered = F.transform(F.array_except("_now", was), lambda s: F.struct(s.alias("id"), F.lit(True).alias("is_in")))
    left = F.transform(
        F.array_except(was, F.col("_now")), lambda s: F.struct(s.alias("id"), F.lit(False).alias("is_in"))
    )
    return both.select(M.website_id, F.explode(F.concat(entered, left)).alias("_move")).select(
        M.website_id, F.col("_move.id").alias("segment_id"), F.col("_move.is_in").alias("is_in")
    )


def _changed_rows(
    both: DataFrame,
    held: DataFrame | None,
    active: Sequence[Segment],
    *,
    as_of: date,
    run_id: str,
    started_at: datetime,
) -> DataFrame:
    none = F.array().cast("array<string>")
    segment_ids = F.col("_now")
    if held is not None:
        both = both.join(F.broadcast(held), on=M.website_id, how="left")
        kept = F.coalesce(F.map_keys("_held"), none)
        stayed = F.array_except(F.array_intersect(F.coalesce("_was", none), kept), F.col("_barred"))
        stayed = F.array_union(stayed, F.array_intersect("_now", "_pinned"))
        segment_ids = F.sort_array(F.array_union(F.array_except("_now", kept), stayed))
    ranked = F.array(*[F.lit(s.segment_id) for s in by_priority(active)]).cast("array<string>")
    decided = both.withColumn(M.segment_ids, segment_ids)
    primary = F.get(F.array_intersect(ranked, F.col(M.segment_ids)), F.lit(0))
    is_same = (
        F.col(M.segment_ids).eqNullSafe(F.col("_was"))
        & F.col(M.primary_segment_id).eqNullSafe(F.col("_was_primary"))
        & F.col("_is_found").eqNullSafe(F.col("_was_present"))
    )
    return (
        decided.withColumn(M.primary_segment_id, primary)
        .where(~is_same)
        .select(
            *_KEYS,
            M.customer_id,
            M.segment_ids,
            M.primary_segment_id,
            F.col("_is_found").alias(M.is_present),
            F.lit(as_of).alias(M.changed_on),
            _reasons().alias(M.reasons),
            F.lit(run_id).alias(M.run_id),
            F.lit(started_at).alias(M.updated_at),
        )
    )


def _reasons() -> Column:
    """Reasons of the segments that changed: a pin where there is one or was one until now, else the conditions."""
    none = F.array().cast("array<string>")
    was = F.coalesce("_was", none)
    moved = F.array_union(F.array_except(M.segment_ids, was), F.array_except(was, F.col(M.segment_ids)))

    def why(segment_id: Column) -> Column:
        return (
            F.when(F.array_contains("_put_in", segment_id), F.lit(PINNED))
            .when(F.array_contains("_barred", segment_id), F.lit(BARRED))
            .when(F.array_contains(F.coalesce("_unpinned", none), segment_id), F.lit(UNPINNED))
            .otherwise(
                F.coalesce(
                    F.try_element_at("_carried", segment_id), F.try_element_at("_reasons", segment_id), F.lit("")
                )
            )
        )

    told = F.map_from_arrays(moved, F.transform(moved, why))
    return F.when(F.size(moved) > 0, F.map_filter(told, lambda _, v: v != F.lit("")))


PINNED = "pinned"
BARRED = "barred"
"""What a reason says when a person decided."""
UNPINNED = "the pin was taken away"
"""What it says when a person left it to the rule again, which need not have changed its answer since."""
PROMOTED = "promoted"
"""What a reason begins with when a visitor logged in."""


def _refresh_rows(
    websites: DataFrame,
    previous: DataFrame,
    both: DataFrame,
    held: DataFrame | None,
    refreshed: Sequence[Segment],
    as_of: date,
) -> DataFrame:
    zero = F.lit(0).cast("bigint")
    here = websites.withColumn("_is_here", F.lit(True))
    known = previous.where(M.is_present).select(M.website_id).distinct()
    sites = here.join(known, on=M.website_id, how="full_outer")
    looked = both.groupBy(M.website_id).agg(F.count(F.lit(1)).alias(R.evaluated_count))
    moves = (
        _moves(both)
        .groupBy(M.website_id, R.segment_id)
        .agg(
            F.count_if("is_in").alias(R.entered_count),
            F.count_if(~F.col("is_in")).alias(R.exited_count),
        )
    )
    types = {str(R.segment_id): "string", str(R.version): "string"}
    rows = [(s.segment_id, s.version) for s in refreshed]
    graded = literal_rows(sites.join(F.broadcast(looked), on=M.website_id, how="left"), types, rows)
    # No join multiplies: moves are one per segment and website, held segments one row per website.
    graded = graded.join(F.broadcast(moves), on=[str(R.segment_id), str(M.website_id)], how="left")
    error = F.lit(None).cast("string")
    if held is not None:
        graded = graded.join(F.broadcast(held), on=M.website_id, how="left")
        error = F.try_element_at("_held", F.col(R.segment_id))
    is_stale = F.col("_is_here").isNull()
    stale = F.lit(f"there are no features of {as_of.isoformat()}; the last good membership was kept")
    return graded.select(
        R.segment_id,
        R.website_id,
        F.lit(as_of).alias(R.as_of),
        R.version,
        F.coalesce(R.evaluated_count, zero).alias(R.evaluated_count),
        F.coalesce(R.entered_count, zero).alias(R.entered_count),
        F.coalesce(R.exited_count, zero).alias(R.exited_count),
        F.when(is_stale, F.lit("stale"))
        .when(error.isNotNull(), F.lit("error"))
        .otherwise(F.lit("completed"))
        .alias(R.refresh_status),
        F.when(is_stale, stale).otherwise(error).alias(R.message),
    )
