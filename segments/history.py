"""Stays of customers in segments, and what follows from them: the member list and the events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.segment import CustomerMembership as M
from lakehouse.tables.segment import CustomerSegmentCustomer as C
from lakehouse.tables.segment import CustomerSegmentEvent as E
from lakehouse.tables.segment import CustomerSegmentHistory as H
from segments.earlier import NOT_KNOWN, Earlier, is_redefined
from segments.language import Segment
from segments.membership import BARRED, PINNED, PROMOTED

if TYPE_CHECKING:
    from lakehouse.settings import Settings


def record_history(
    changed: DataFrame,
    stays: DataFrame,
    *,
    segments: Sequence[Segment],
    run_id: str,
    started_at: datetime,
    earlier: Earlier = NOT_KNOWN,
) -> DataFrame:
    """Open a stay for every segment a customer has come into, close it for every one left.

    Days come from the membership row, so an evaluation whose run died before this step is recorded by a later run
    under its own day. A customer in and out under the same day leaves an empty stay [day, day), and in again another.

    Args:
        changed: Changed rows of `gold.customer_membership`.
        stays: `gold.customer_segment_history` as published.
        segments: All definitions.
        run_id: Run that records.
        started_at: When it started, UTC.
        earlier: The definitions of the last refresh, to tell exits by a changed one.

    Returns:
        Opened and closed stays only; the same inputs again give no row.
    """
    keys: list[str] = [H.website_id, H.customer_key]
    # A row that is gone from the membership table was erased, and an erased person gets no history.
    customers = changed.where(~F.col("_deleted")).select(
        M.website_id, M.customer_key, M.customer_id, M.segment_ids, M.is_present, M.changed_on, M.reasons
    )
    wanted = customers.select(
        *keys,
        F.col(M.customer_id).alias("_customer_id"),
        F.col(M.changed_on).alias("_entered_on"),
        F.col(M.reasons).alias("_entry_reasons"),
        F.explode(M.segment_ids).alias(H.segment_id),
    )
    seen = customers.select(
        *keys,
        F.col(M.changed_on).alias("_left_on"),
        F.col(M.is_present).alias("_is_present"),
        F.col(M.reasons).alias("_exit_reasons"),
    )
    # One membership row per customer, so an open stay meets at most one.
    open_stays = stays.where(F.col(H.exited_on).isNull()).join(seen, on=keys, how="inner")
    both = wanted.join(open_stays, on=[*keys, H.segment_id], how="full_outer")

    active = {s.segment_id: s.version for s in segments if s.is_active}
    versions = F.create_map(*[F.lit(x) for pair in active.items() for x in pair]).cast("map<string,string>")
    version = F.try_element_at(versions, F.col(H.segment_id))
    is_entry, is_exit = F.col(H.entered_on).isNull(), F.col("_entered_on").isNull()
    entry_detail = F.try_element_at("_entry_reasons", F.col(H.segment_id))
    exit_detail = F.try_element_at("_exit_reasons", F.col(H.segment_id))
    by_visitor = F.col(H.entry_reason) == F.lit("promoted")  # such a stay needs no features
    reason = (
        F.when(exit_detail == F.lit(BARRED), F.lit("barred"))
        .when(~F.col("_is_present") & ~by_visitor, F.lit("customer_absent"))
        .when(version.isNull(), F.lit("segment_inactive"))
        .when(is_redefined(F.col(H.segment_id), version, F.col(H.entry_version), earlier), F.lit("definition_changed"))
        .otherwise(F.lit("rule_not_true"))
    )
    return both.where(is_entry | is_exit).select(
        H.segment_id,
        *keys,
        F.coalesce(H.customer_id, "_customer_id").alias(H.customer_id),
        F.coalesce(H.entered_on, "_entered_on").alias(H.entered_on),
        F.when(is_exit, F.col("_left_on")).alias(H.exited_on),
        F.coalesce(H.entered_at, F.lit(started_at)).alias(H.entered_at),
        F.when(is_exit, F.lit(started_at)).alias(H.exited_at),
        F.coalesce(H.entry_version, version).alias(H.entry_version),
        F.when(is_exit, version).alias(H.exit_version),
        F.coalesce(
            H.entry_reason,
            F.when(entry_detail == F.lit(PINNED), F.lit("pinned"))
            .when(F.startswith(entry_detail, F.lit(PROMOTED)), F.lit("promoted"))
            .otherwise(F.lit("rule_true")),
        ).alias(H.entry_reason),
        F.when(is_exit, reason).alias(H.exit_reason),
        F.when(is_entry, entry_detail).otherwise(F.col(H.entry_detail)).alias(H.entry_detail),
        F.when(is_exit, exit_detail).alias(H.exit_detail),
        F.coalesce(H.entry_run_id, F.lit(run_id)).alias(H.entry_run_id),
        F.when(is_exit, F.lit(run_id)).alias(H.exit_run_id),
    )


def publish_members(changed: DataFrame, *, started_at: datetime) -> DataFrame:
    """Add the member of every open stay, remove that of every closed one.

    Args:
        changed: Changed rows of `gold.customer_segment_history`.
        started_at: When the run started, UTC.

    Returns:
        Rows of `gold.customer_segment_customer`, with `_deleted` for those to remove.
    """
    keys: list[str] = [C.segment_id, C.website_id, C.customer_key]
    has_ended = F.col(H.exited_on).isNotNull()
    is_open = ~has_ended & ~F.col("_deleted")
    # A stay that ended long ago and is past its retention says nothing of who is in now.
    is_closed = has_ended != F.col("_deleted")
    entered = changed.where(is_open).select(
        *keys,
        C.customer_id,
        F.col(H.entered_on).alias(C.added_on),
        F.col(H.entry_version).alias(C.version),
        F.col(H.entered_at).alias(C.added_at),
        F.lit(started_at).alias(C.updated_at),
        F.lit(False).alias("_deleted"),
    )
    # Out and in again between two runs: the open stay is the newer one.
    left = changed.where(is_closed).select(*keys).distinct().join(entered, on=keys, how="left_anti")
    removed = left.select(*keys, F.lit(True).alias("_deleted"))
    return entered.unionByName(removed, allowMissingColumns=True)


def emit_events(
    changed: DataFrame, guests_changed: DataFrame, events: DataFrame, *, started_at: datetime, settings: Settings
) -> DataFrame:
    """One event per entry and exit not yet recorded; an event already there is left as it is, processed or not.

    Args:
        changed: Changed rows of `gold.customer_segment_history`.
        guests_changed: Changed rows of `gold.customer_segment_guest_history`.
        events: `gold.customer_segment_event` as published.
        started_at: When the run started, UTC; what was recorded before `maintain` keeps events for is not brought back.
        settings: How long that is, where not as declared.
    """
    # By the clock and by when it was recorded, as `maintain` counts: days of delivered data can lag behind, or stand.
    kept = E.__table__.retention_days  # type: ignore[attr-defined]
    kept_days = min(kept, settings.days_kept(E.__table__))  # type: ignore[attr-defined]
    edge = F.lit(started_at - timedelta(days=kept_days))
    who: list[str] = [E.customer_key, E.customer_id, E.visitor_id]
    of_customers = changed.select(*_STAY, E.customer_key, E.customer_id, F.lit(None).cast("string").alias(E.visitor_id))
    of_guests = guests_changed.withColumn(H.entry_reason, F.lit("rule_true")).select(
        *_STAY,
        F.lit(None).cast("bigint").alias(E.customer_key),
        F.lit(None).cast("string").alias(E.customer_id),
        E.visitor_id,
    )
    stays = of_customers.unionByName(of_guests).where(~F.col("_deleted"))

    def of(kind: str, day: str, at: str, version: str, reason: str, run: str) -> DataFrame:
        details = F.struct(F.col(version).alias("version"), F.col(reason).alias("reason"), F.col(run).alias("run_id"))
        # The hash passes over null, so a customer and a visitor stand in the same place.
        moment = [F.col(c) for c in (H.segment_id, H.website_id, H.customer_key, E.visitor_id)] + [F.lit(kind)]
        return stays.where(F.col(at) >= edge).select(
            F.xxhash64(*moment, day, at).alias(E.event_id),
            H.segment_id,
            H.website_id,
            *who,
            F.lit(kind).alias(E.event_type),
            F.to_json(details).alias(E.event_data),
            F.col(day).alias(E.occurred_on),
            F.col(at).alias(E.created_at),
            F.lit(False).alias(E.is_processed),
        )

    entries = of("segment_entered", H.entered_on, H.entered_at, H.entry_version, H.entry_reason, H.entry_run_id)
    exits = of("segment_exited", H.exited_on, H.exited_at, H.exit_version, H.exit_reason, H.exit_run_id)
    return entries.unionByName(exits).join(events.select(E.event_id), on=E.event_id, how="left_anti")


_STAY = (
    H.segment_id,
    H.website_id,
    H.entered_on,
    H.exited_on,
    H.entered_at,
    H.exited_at,
    H.entry_version,
    H.exit_version,
    H.entry_reason,
    H.exit_reason,
    H.entry_run_id,
    H.exit_run_id,
    "_deleted",
)
"""What an event tells of a stay, of a customer's and a guest's alike."""
