"""Campaigns, who they contacted, their coupons and what was redeemed."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.silver import Campaign, CampaignContact, Coupon, CouponRedemption
from pipelines.silver.rules import blank_is_null, rule_book
from pipelines.silver.subjects import SUBJECTS, accept, keep_latest, newest_first, touched


def conform_campaigns(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """One row per campaign that changed; the latest delivery wins."""
    latest = _latest("campaigns", raw, raw_changes, sources, previous)
    midnight = F.col(Campaign.starts_on).cast("timestamp")
    begins = rule_book(sources, "campaigns").choose(
        lambda r: F.to_utc_timestamp(midnight, r.timezone), "timestamp", same=lambda r: r.timezone
    )
    conformed = latest.withColumns(
        {str(Campaign.campaign_type): blank_is_null("campaign_type"), str(Campaign.starts_at): begins}
    )
    return conformed.select(*Campaign.__table__.column_names)  # type: ignore[attr-defined]


def conform_campaign_contacts(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """One row per customer and campaign that changed."""
    latest = _latest("campaign_contacts", raw, raw_changes, sources, previous)
    return latest.select(*CampaignContact.__table__.column_names)  # type: ignore[attr-defined]


def conform_coupons(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """One row per coupon, product and campaign that changed; feeds list some more than once."""
    latest = _latest("coupons", raw, raw_changes, sources, previous)
    return latest.select(*Coupon.__table__.column_names)  # type: ignore[attr-defined]


def conform_coupon_redemptions(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """One row per redemption; of equal ones in one delivery each, where the feed keeps repeats.

    They are numbered in file order, and the same occurrence in a later delivery is the same redemption again. Elsewhere
    they are copies; where the feed has no key, only those that are equal in every cell.
    """
    book = rule_book(sources, "coupon_redemptions")
    key = ("merchant_id", *SUBJECTS["coupon_redemptions"].key)
    rows = touched(
        accept(raw, "coupon_redemptions", book), accept(raw_changes, "coupon_redemptions", book), previous, *key
    )
    in_delivery = (*key, "file_id", "delivery")
    of_delivery = Window.partitionBy(*in_delivery)
    occurrence = (
        F.when(book.where(lambda r: r.repeats_are_lines), F.row_number().over(of_delivery.orderBy("row_number")))
        .when(book.where(lambda r: bool(r.key)), F.lit(1))
        .otherwise(F.dense_rank().over(of_delivery.orderBy("_first")))
    )
    first = F.min("row_number").over(Window.partitionBy(*in_delivery, "row_hash"))
    numbered = rows.withColumn("_first", first).withColumn(CouponRedemption.occurrence, occurrence)
    full = Window.partitionBy(*key, CouponRedemption.occurrence)
    local = book.choose(
        lambda r: F.from_utc_timestamp("redeemed_at", r.timezone), "timestamp", same=lambda r: r.timezone
    )
    ranked = numbered.select(
        "*",
        F.to_date(local).alias(CouponRedemption.redeemed_on),
        F.count(F.lit(1)).over(full).alias(CouponRedemption.delivered_count),
        F.bit_xor("row_hash").over(full).alias(CouponRedemption.delivered_hash),
        F.row_number().over(full.orderBy(*newest_first())).alias("_rank"),
    )
    return ranked.where("_rank = 1").select(*CouponRedemption.__table__.column_names)  # type: ignore[attr-defined]


def _latest(
    subject: str, raw: DataFrame, raw_changes: DataFrame, sources: Any, previous: DataFrame | None
) -> DataFrame:
    book = rule_book(sources, subject)
    key = ("merchant_id", *SUBJECTS[subject].key)
    return keep_latest(touched(accept(raw, subject, book), accept(raw_changes, subject, book), previous, *key), *key)
