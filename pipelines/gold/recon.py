"""Proof that nothing vanished between bronze and silver."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold_finance import RECONCILED
from lakehouse.tables.gold_finance import AuditRecon as A
from pipelines.silver.rules import rule_book
from pipelines.silver.subjects import union_all

# Subject to the silver table that accounts for it and the columns that say how many rows a row stands for.
_ACCOUNTED = {
    "products": ("silver.product", "delivered_count", "delivered_hash"),
    "customers": ("silver.customer", "master_count", "master_hash"),
    "contact_points": ("silver.customer", "contact_count", "contact_hash"),
    "consents": ("silver.consent", "delivered_count", "delivered_hash"),
    "campaigns": ("silver.campaign", "delivered_count", "delivered_hash"),
    "campaign_contacts": ("silver.campaign_contact", "delivered_count", "delivered_hash"),
    "coupons": ("silver.coupon", "delivered_count", "delivered_hash"),
    "coupon_redemptions": ("silver.coupon_redemption", "delivered_count", "delivered_hash"),
    "promotions": ("silver.promotion", "delivered_count", "delivered_hash"),
    "visitor_events": ("silver.visitor_event", "delivered_count", "delivered_hash"),
    "settlements": ("silver.stage_settlements", "delivered_count", "delivered_hash"),
    "exchange_rates": ("gold.ref_exchange_rates", "delivered_count", "delivered_hash"),
}
_OF_ALL = "all"
"""Stands for the merchant where rows are about none."""


def reconcile_deliveries(*frames: DataFrame, sources: Any) -> DataFrame:
    """Hold what was delivered against what silver accounts for, by subject and merchant.

    Args:
        frames: The tables of `RECONCILED`, in its order.
        sources: Rules per source.

    Returns:
        `gold.audit_recon` rows, for subjects of which something was delivered or refused.
    """
    tables = dict(zip(RECONCILED, frames, strict=True))
    parts = [_transactions(tables, sources)]
    for subject, (name, count, hashes) in _ACCOUNTED.items():
        parts += [
            _delivered(tables[f"bronze.raw_{subject}"], subject, sources),
            _part(
                _with_merchant(tables[name].where(F.col(count) > 0), subject, sources)
                .groupBy("merchant_id")
                .agg(
                    F.count(F.lit(1)).alias("accepted"),
                    (F.sum(count) - F.count(F.lit(1))).alias("duplicate"),
                    F.bit_xor(hashes).alias("accounted_xor"),
                ),
                subject,
            ),
        ]
        rejects = tables["silver.subject_reject"].where(F.col("subject") == F.lit(subject))
        parts.append(_rejected(rejects, subject, sources))
    # A file that was rejected whole and read anew counts as it was read last.
    unparsed = _manifest(tables).where(F.col("rows_rejected") > 0)
    for subject in ("transactions", *_ACCOUNTED):
        book = rule_book(sources, subject)
        of_it = unparsed.where((F.col("subject") == F.lit(subject)) & book.known())
        counted = (
            _with_merchant(of_it, subject, sources).groupBy("merchant_id").agg(F.sum("rows_rejected").alias("unparsed"))
        )
        parts.append(_part(counted, subject))
    summed = (
        union_all(parts)
        .groupBy("subject", "merchant_id")
        .agg(
            *[F.coalesce(F.sum(c), F.lit(0)).cast("bigint").alias(c) for c in _COUNTS],
            *[F.coalesce(F.bit_xor(c), F.lit(0)).alias(c) for c in _HASHES],
        )
    )
    difference = F.col("delivered") - F.col("accepted") - F.col("duplicate") - F.col("rejected")
    return summed.select(
        A.subject,
        A.merchant_id,
        F.col("delivered").alias(A.delivered_rows),
        F.col("accepted").alias(A.accepted_rows),
        F.col("duplicate").alias(A.duplicate_rows),
        F.col("rejected").alias(A.rejected_rows),
        difference.alias(A.difference_rows),
        F.col("delivered_xor").alias(A.delivered_checksum),
        F.col("accounted_xor").alias(A.accounted_checksum),
        ((difference == 0) & (F.col("delivered_xor") == F.col("accounted_xor"))).alias(A.is_balanced),
        F.col("unparsed").alias(A.unparsed_rows),
    )


_COUNTS = ("delivered", "accepted", "duplicate", "rejected", "unparsed")
_HASHES = ("delivered_xor", "accounted_xor")


def _transactions(tables: dict[str, DataFrame], sources: Any) -> DataFrame:
    lost = F.coalesce(F.size("superseded"), F.lit(0))
    lines = tables["silver.transaction_line"].select(
        "merchant_id",
        F.when(lost > 0, lost).otherwise(0).alias("_lost"),
        F.aggregate(
            F.transform("superseded", lambda e: e["row_hash"]),
            F.col("row_hash"),
            lambda a, h: a.bitwiseXOR(h),
        ).alias("_with_lost"),
        "row_hash",
    )
    accounted = lines.groupBy("merchant_id").agg(
        F.count(F.lit(1)).alias("accepted"),
        F.sum("_lost").alias("duplicate"),
        F.bit_xor(F.coalesce("_with_lost", "row_hash")).alias("accounted_xor"),
    )
    return union_all(
        [
            *_landed(tables, sources),
            _part(accounted, "transactions"),
            _rejected(tables["silver.transaction_reject"], "transactions", sources),
        ]
    )


def _manifest(tables: dict[str, DataFrame]) -> DataFrame:
    return tables["ingest.raw_records"].withColumnRenamed("source_system_id", "source")


def _landed(tables: dict[str, DataFrame], sources: Any) -> list[DataFrame]:
    """Delivered lines, which may have left: as counted when they landed, and hashed when they were first read."""
    of_it = (F.col("subject") == F.lit("transactions")) & (F.col("rows_accepted") > 0)
    counted = _manifest(tables).where(of_it)
    each = ["source", "feed"]
    parts = [
        counted.groupBy(*each).agg(F.sum("rows_accepted").alias("delivered")),
        tables["gold.audit_txn_ingest"].groupBy(*each).agg(F.bit_xor("delivered_hash").alias("delivered_xor")),
    ]
    return [_part(_with_merchant(p, "transactions", sources), "transactions") for p in parts]


def _delivered(raw: DataFrame, subject: str, sources: Any) -> DataFrame:
    counted = raw.groupBy("source", "feed").agg(
        F.count(F.lit(1)).alias("delivered"), F.bit_xor("row_hash").alias("delivered_xor")
    )
    return _part(_with_merchant(counted, subject, sources), subject)


def _rejected(rejects: DataFrame, subject: str, sources: Any) -> DataFrame:
    counted = rejects.groupBy("source", "feed").agg(
        F.count(F.lit(1)).alias("rejected"), F.bit_xor("row_hash").alias("accounted_xor")
    )
    return _part(_with_merchant(counted, subject, sources), subject)


def _with_merchant(counted: DataFrame, subject: str, sources: Any) -> DataFrame:
    """Rows with the merchant they are about; of feeds that are declared no more, with their source."""
    if subject == "exchange_rates":
        return counted.withColumn("merchant_id", F.lit(_OF_ALL))
    if "merchant_id" in counted.columns:
        return counted
    merchant = rule_book(sources, subject).value(lambda r: r.merchant_id)
    return counted.withColumn("merchant_id", F.coalesce(merchant, F.col("source")))


def _part(counted: DataFrame, subject: str) -> DataFrame:
    given = set(counted.columns)
    return counted.select(
        F.lit(subject).alias("subject"),
        "merchant_id",
        *[(F.col(c) if c in given else F.lit(0)).cast("bigint").alias(c) for c in (*_COUNTS, *_HASHES)],
    )
