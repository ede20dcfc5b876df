"""Guests: sales without a customer, and the segments they fall into.

A guest is as much as one sale, since nothing in it says who bought. Visits, carts and log-ins, which would make a guest
a person over time, need a feed of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.segment import CustomerSegmentGuest as S
from lakehouse.tables.segment import GuestVisit as G
from segments.catalogue import GUEST_TABLES, declared_features
from segments.compile import compile_segment
from segments.language import Segment


def build_guest_visits(changed: DataFrame, sales: DataFrame, visits: DataFrame) -> DataFrame:
    """One row per sale without a customer that has a new or changed line.

    Args:
        changed: Changed rows of `gold.fact_transactions`.
        sales: All of them; a sale is measured whole, whichever of its lines changed.
        visits: `gold.guest_visit` as published.

    Returns:
        `gold.guest_visit` rows; `_deleted` for a sale that has no line left or turned out to be a customer's.
    """
    keys: list[str] = [T.merchant_id, T.basket_id]
    is_guest = F.col(T.customer_key).isNull()
    visitor = F.sha2(F.concat_ws("\u001f", T.merchant_id, T.basket_id), 256).alias(G.visitor_id)
    touched = changed.where(is_guest).select(*keys).distinct()
    lines = sales.where(is_guest).join(touched, on=keys, how="left_semi")
    cents = F.sum((F.col(T.amount) * 100).cast("bigint"))
    measured = lines.groupBy(*keys).agg(
        F.min(T.posted_ts).alias(G.bought_at),
        F.min(T.business_date).alias(G.bought_on),
        F.min(T.channel_id).alias(G.channel_id),
        F.min(T.store_id).alias(G.store_id),
        F.count_if(F.col(T.txn_type) == "sale").alias(G.lines),
        (cents.cast("decimal(20,0)") / 100).cast("decimal(18,2)").alias(G.net_amount),
    )
    kept = measured.where(F.col(G.lines) > 0)
    columns = G.__table__.column_names  # type: ignore[attr-defined]
    found = kept.select("*", visitor).select(*columns, F.lit(False).alias("_deleted"))
    # One visit per sale. What was a guest's and no longer is: every line gone, or since booked on a customer.
    again = changed.select(*keys).join(visits.select(*keys, G.visitor_id), on=keys, how="inner").distinct()
    gone = again.join(kept.select(*keys), on=keys, how="left_anti")
    same: list[str] = [G.merchant_id, G.visitor_id]
    return found.unionByName(gone.select(*same, F.lit(True).alias("_deleted")), allowMissingColumns=True)


def place_guests(guests: DataFrame, placed: DataFrame, *, segments: Sequence[Segment], as_of: date) -> DataFrame:
    """Place every guest before `as_of` in the guest segments whose rule is true.

    Args:
        guests: `gold.guest_visit`.
        placed: `gold.customer_segment_guest` as published.
        segments: All definitions; those of guests that are active are evaluated.
        as_of: The day evaluated for, exclusive edge.

    Returns:
        Guests who came in, or whose definition or visit changed, and with `_deleted` those who are out. Guests seen
        longer ago than the table keeps are left out.
    """
    active = [s for s in segments if s.is_active and s.entity == "guest"]
    catalogue = declared_features(GUEST_TABLES)
    kept_days = S.__table__.retention_days or 0  # type: ignore[attr-defined]
    known = guests.where(
        (F.col(G.bought_on) < F.lit(as_of)) & (F.col(G.bought_on) >= F.date_sub(F.lit(as_of), kept_days))
    )
    matches = [
        F.when(
            compile_segment(s, catalogue, as_of),
            F.struct(F.lit(s.segment_id).alias(S.segment_id), F.lit(s.version).alias(S.version)),
        )
        for s in active
    ]
    shape = "array<struct<segment_id:string,version:string>>"
    matched = known.select(
        "*", F.explode(F.array_compact(F.array(*matches)) if matches else F.array().cast(shape)).alias("_in")
    )
    now = matched.select(
        G.visitor_id,
        F.col("_in.segment_id").alias(S.segment_id),
        F.col(G.merchant_id).alias(S.website_id),
        F.lit(None).cast("string").alias(S.email),
        F.col(G.bought_at).alias(S.first_visit_at),
        F.col(G.bought_at).alias(S.last_visit_at),
        F.lit(None).cast("bigint").alias(S.page_views),
        F.col("_in.version").alias(S.version),
        F.lit(as_of).alias(S.added_on),
    )
    keys: list[str] = [S.visitor_id, S.segment_id]
    same = [str(S.visitor_id), str(S.segment_id), str(S.version), str(S.last_visit_at)]
    entered = now.join(placed.select(*same), on=same, how="left_anti").select("*", F.lit(False).alias("_deleted"))
    left = placed.select(*keys).join(now.select(*keys), on=keys, how="left_anti")
    return entered.unionByName(left.select(*keys, F.lit(True).alias("_deleted")), allowMissingColumns=True)
