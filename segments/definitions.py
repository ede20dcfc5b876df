"""The published list of segments with their state, and how large and valuable they are each day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.segment import CustomerMembership as M
from lakehouse.tables.segment import CustomerSegment as S
from lakehouse.tables.segment import CustomerSegmentHistory as H
from lakehouse.tables.segment import CustomerSegmentRefresh as R
from lakehouse.tables.segment import CustomerSegmentSize as Z
from segments.language import Segment
from segments.rows import literal_rows
from segments.states import move

VALUE_FEATURE = "monetary_net"
"""What a segment's value is measured by: net spend before `as_of`."""


def build_customer_segment(
    members: DataFrame,
    guests: DataFrame,
    refreshes: DataFrame,
    previous: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    started_at: datetime,
) -> DataFrame:
    """One row per segment ever defined, with its state after the refresh of a day.

    Args:
        members: `gold.customer_segment_customer`.
        guests: `gold.customer_segment_guest`.
        refreshes: `gold.customer_segment_refresh`.
        previous: `gold.customer_segment` as published.
        segments: All definitions.
        as_of: Day of the refresh.
        started_at: When the run started, UTC.

    Returns:
        Every defined segment, and those no longer defined as inactive. One website in error makes the segment an
        error, or stale, and leaves `last_refresh_at` alone; a website it does not apply to is asked only about members
        that a limit kept there. A segment that was published on no website it applies to, or is manual and was not
        asked for, keeps the definition its members are by. States follow one another as `segments.states` says, by way
        of `processing`: what a refresh begins with may have been finished by a run that failed later.
    """
    defined = literal_rows(
        members.agg(F.count(F.lit(1)).alias("_total")).select(),
        _DEFINITION_TYPES,
        [
            (
                s.segment_id,
                s.name,
                s.description or None,
                s.entity,
                s.is_active,
                s.conditions_json,
                list(s.website_ids),
                list(s.customer_group_ids) or None,
                s.priority,
                s.refresh_mode,
                s.max_change_share,
                s.version,
            )
            for s in segments
        ],
    )
    content = [c for c in _DEFINITION_TYPES if c != S.segment_id]
    before = previous.select(
        S.segment_id,
        *[F.col(c).alias(f"_was_{c}") for c in (*content, *_STATE)],
    )
    everyone = members.select(S.segment_id).unionAll(guests.select(S.segment_id))
    counts = everyone.groupBy(S.segment_id).agg(F.count(F.lit(1)).alias("_members"))
    applies = (F.size(S.website_ids) == 0) | F.array_contains(S.website_ids, F.col(R.website_id))
    is_error, is_done = (F.col(R.refresh_status) == F.lit(s) for s in ("error", "completed"))
    # A website that a segment does not apply to has a row all the same, with nobody in it.
    grade = F.struct(
        F.when(applies | is_error, F.col(R.refresh_status)).otherwise(F.lit("completed")).alias(R.refresh_status),
        F.concat_ws(": ", R.website_id, R.message).alias("why"),
    )
    grades = (
        refreshes.where(F.col(R.as_of) == F.lit(as_of))
        .join(F.broadcast(defined.select(S.segment_id, S.website_ids)), on=R.segment_id, how="inner")
        .groupBy(R.segment_id)
        .agg(F.max(grade).alias("_grade"), (F.count_if(applies & is_done) == 0).alias("_is_held"))
    )
    # "stale" sorts after "error" and "completed", so the maximum is the worst website. Every join is one to one on the
    # segment.
    all_known = (
        defined.withColumn("_is_defined", F.lit(True))
        .join(before, on=S.segment_id, how="full_outer")
        .join(F.broadcast(counts), on=S.segment_id, how="left")
        .join(F.broadcast(grades), on=S.segment_id, how="left")
    )
    is_defined = F.coalesce("_is_defined", F.lit(False))
    is_guest = F.col(S.entity) == F.lit("guest")  # placed with every run, without a grade of their own
    is_graded = is_defined & F.col(S.is_active) & (F.col("_grade").isNotNull() | is_guest)
    status = F.when(is_guest, F.lit("completed")).otherwise(F.col("_grade")[str(R.refresh_status)])
    is_completed = is_graded & (status == F.lit("completed"))
    is_new = F.col(f"_was_{S.name}").isNull()
    now = {c: F.when(is_defined, F.col(c)).otherwise(F.col(f"_was_{c}")) for c in content}
    # The members of a website that was published are by the new definition, so it is kept only where there is none.
    is_held = is_graded & ~is_guest & ~is_completed & F.col("_is_held")
    is_unasked = ~is_graded & (F.col(S.refresh_mode) == "manual") & F.col(f"_was_{S.last_refresh_at}").isNotNull()
    is_kept = is_defined & ~is_new & (is_held | is_unasked)
    now |= {c: F.when(is_kept, F.col(f"_was_{c}")).otherwise(now[c]) for c in _DECIDING}
    now[str(S.is_active)] = is_defined & F.coalesce(S.is_active, F.lit(False))
    is_edited = is_new
    for c, value in now.items():
        is_edited = is_edited | ~value.eqNullSafe(F.col(f"_was_{c}"))
    was_status = F.col(f"_was_{S.refresh_status}")
    # What went wrong with a segment that is refreshed no more is nobody's to mend; nor is a refresh asked for once, and
    # killed, taken up.
    is_dropped = ~now[str(S.is_active)] & was_status.isin("processing", "stale", "error")
    is_cut_off = was_status == "processing"
    state = {
        S.refresh_status: F.when(is_graded, move(move(was_status, F.lit("processing")), status))
        .when(is_dropped, move(was_status, F.lit("pending")))
        .when(is_cut_off, move(was_status, F.lit("stale")))
        .otherwise(F.coalesce(was_status, F.lit("pending"))),
        S.refresh_message: F.when(is_graded, F.when(status != F.lit("completed"), F.col("_grade")["why"]))
        .when(is_dropped, F.lit(None))
        .when(is_cut_off, F.lit("its last refresh was not finished"))
        .otherwise(F.col(f"_was_{S.refresh_message}")),
        S.matched_customers_count: F.coalesce("_members", F.lit(0)).cast("bigint"),
        S.last_refresh_at: F.when(is_completed, F.lit(started_at)).otherwise(F.col(f"_was_{S.last_refresh_at}")),
        S.created_at: F.coalesce(f"_was_{S.created_at}", F.lit(started_at)),
        S.updated_at: F.when(is_edited, F.lit(started_at)).otherwise(F.col(f"_was_{S.updated_at}")),
    }
    made = {str(S.segment_id): F.col(S.segment_id)} | now | {str(c): value for c, value in state.items()}
    return all_known.select(*[made[c].alias(c) for c in S.__table__.column_names])  # type: ignore[attr-defined]


def measure_segments(
    membership: DataFrame,
    features: DataFrame,
    stays: DataFrame,
    refreshes: DataFrame,
    previous: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
) -> DataFrame:
    """One row per active segment and website: size, share, value and movement of a day.

    Args:
        membership: `gold.customer_membership`.
        features: `feature.customer`; the value is its net spend before `as_of`.
        stays: `gold.customer_segment_history`.
        refreshes: `gold.customer_segment_refresh`.
        previous: `gold.customer_segment_size` as published.
        segments: All definitions.
        as_of: The day.

    Returns:
        `gold.customer_segment_size` rows; a segment nobody is in has zeros. Members that were kept, because a refresh
        was held back or a manual segment was not asked for, keep the version they were measured with before.
    """
    keys: list[str] = [Z.website_id, M.customer_key]
    value = F.coalesce((F.col(VALUE_FEATURE) * 100).cast("bigint"), F.lit(0))
    customers = features.where(F.col("as_of") == F.lit(as_of)).select(
        F.col("merchant_id").alias(Z.website_id), M.customer_key, value.alias("_cents")
    )
    totals = customers.groupBy(Z.website_id).agg(
        F.count(F.lit(1)).alias(Z.customers), F.sum("_cents").alias("_all_cents")
    )
    placed = customers.join(
        membership.where(M.is_present).select(*keys, M.segment_ids, M.primary_segment_id), on=keys, how="inner"
    )
    sized = (
        placed.select(Z.website_id, "_cents", M.primary_segment_id, F.explode(M.segment_ids).alias(Z.segment_id))
        .groupBy(Z.segment_id, Z.website_id)
        .agg(
            F.count(F.lit(1)).alias(Z.members),
            F.sum((F.col(M.primary_segment_id) == F.col(Z.segment_id)).cast("bigint")).alias(Z.primary_members),
            F.sum("_cents").alias("_cents"),
        )
    )
    entered, exited = F.col(H.entered_on) == F.lit(as_of), F.col(H.exited_on) == F.lit(as_of)
    moved = (
        stays.where(entered | exited)
        .groupBy(Z.segment_id, Z.website_id)
        .agg(
            F.sum(F.coalesce(entered, F.lit(False)).cast("bigint")).alias(Z.entered),
            F.sum(F.coalesce(exited, F.lit(False)).cast("bigint")).alias(Z.exited),
        )
    )
    active = [(s.segment_id, s.version) for s in segments if s.is_active and s.entity == "customer"]
    grid = literal_rows(totals, {str(Z.segment_id): "string", str(Z.version): "string"}, active)
    by: list[str] = [Z.segment_id, Z.website_id]
    # Each side has one row per segment and website, so neither join multiplies.
    joined = grid.join(F.broadcast(sized), on=by, how="left").join(F.broadcast(moved), on=by, how="left")
    published = refreshes.where(
        (F.col(R.as_of) == F.lit(as_of)) & (F.col(R.refresh_status) == F.lit("completed"))
    ).select(*by, F.lit(True).alias("_is_published"))
    before = (
        previous.where(F.col(Z.as_of) <= F.lit(as_of))
        .groupBy(*by)
        .agg(F.max_by(Z.version, Z.as_of).alias("_was_version"))
    )
    joined = joined.join(F.broadcast(published), on=by, how="left").join(F.broadcast(before), on=by, how="left")
    zero = F.lit(0).cast("bigint")
    members, cents = F.coalesce(Z.members, zero), F.coalesce("_cents", zero)
    return joined.select(
        *by,
        F.lit(as_of).alias(Z.as_of),
        F.when(F.col("_is_published"), F.col(Z.version))
        .otherwise(F.coalesce("_was_version", Z.version))
        .alias(Z.version),
        Z.customers,
        members.alias(Z.members),
        (members / F.col(Z.customers)).alias(Z.share),
        F.coalesce(Z.primary_members, zero).alias(Z.primary_members),
        (cents.cast("decimal(20,0)") / 100).cast("decimal(18,2)").alias(Z.net_amount),
        F.when(F.col("_all_cents") > 0, cents / F.col("_all_cents")).alias(Z.value_share),
        F.coalesce(Z.entered, zero).alias(Z.entered),
        F.coalesce(Z.exited, zero).alias(Z.exited),
    )


_DEFINITION_TYPES = {
    str(S.segment_id): "string",
    str(S.name): "string",
    str(S.description): "string",
    str(S.entity): "string",
    str(S.is_active): "boolean",
    str(S.conditions): "string",
    str(S.website_ids): "array<string>",
    str(S.customer_group_ids): "array<string>",
    str(S.priority): "int",
    str(S.refresh_mode): "string",
    str(S.max_change_share): "double",
    str(S.version): "string",
}
_DECIDING = tuple(map(str, (S.conditions, S.website_ids, S.customer_group_ids, S.version)))
"""What decides who is in."""
_STATE = (S.refresh_status, S.refresh_message, S.last_refresh_at, S.created_at, S.updated_at)
