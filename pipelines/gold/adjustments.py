"""Lines that take back or correct, and the audit of what transaction feeds delivered."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.lake import exact_sum
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.gold_finance import AuditTxnIngest as I
from lakehouse.tables.gold_finance import StageAdjustments as A


def stage_adjustments(fact_changes: DataFrame) -> DataFrame:
    """Returns, cancellations and adjustments among the changed lines.

    Returns:
        `silver.stage_adjustments` rows plus `_deleted`: also for lines that were adjustments and no longer are.
    """
    kinds = ("return", "cancellation", "adjustment")
    no_more = F.col("_deleted") | ~F.col(T.txn_type).isin(*kinds)
    return fact_changes.select(
        A.transaction_id,
        A.merchant_id,
        A.account_id,
        A.basket_id,
        A.product_id,
        F.when(F.col(T.txn_type).isin(*kinds), F.col(T.txn_type)).otherwise("adjustment").alias(A.adjustment_type),
        A.business_date,
        A.quantity,
        A.amount,
        A.currency,
        A.original_basket_id,
        F.col(T.original_basket_id).isNotNull().alias(A.is_matched),
        no_more.alias("_deleted"),
    )


def audit_transaction_ingest(raw_changes: DataFrame) -> DataFrame:
    """Rows, checksum and period of each delivered piece that is new. A piece lands in one batch, so it comes whole."""
    # A text in what is aggregated makes Spark sort the rows; as a part of the key it is hashed with them.
    pieces = raw_changes.groupBy(I.file_id, I.delivery, I.source, I.feed).agg(
        F.min(I.delivery_seq).alias(I.delivery_seq),
        F.min(I.batch_id).alias(I.batch_id),
        F.count(F.lit(1)).alias(I.row_count),
        exact_sum(F.col("row_hash")).alias(I.checksum),
        F.min("sold_at").alias(I.first_sold_at),
        F.max("sold_at").alias(I.last_sold_at),
        F.min(I.loaded_at).alias(I.loaded_at),
    )
    return pieces.groupBy(I.file_id, I.delivery).agg(
        *[F.min(c).alias(c) for c in (I.source, I.feed, I.delivery_seq, I.batch_id)],
        *[F.sum(c).cast(t).alias(c) for c, t in ((I.row_count, "bigint"), (I.checksum, "decimal(38,0)"))],
        *[F.min(c).alias(c) for c in (I.first_sold_at, I.loaded_at)],
        F.max(I.last_sold_at).alias(I.last_sold_at),
    )
