"""Lines that take back or correct, and the audit of what transaction feeds delivered."""

from __future__ import annotations

from decimal import Decimal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.joins import rows_named
from lakehouse.lake import exact_sum
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.gold_finance import AuditTxnIngest as I
from lakehouse.tables.gold_finance import StageAdjustments as A

_TAKES_BACK = ("return", "cancellation")
_KINDS = (*_TAKES_BACK, "adjustment")
_BOUGHT: list[str] = [T.account_id, T.product_id]
"""What a return and the sale it takes back have in common. An account is a known customer; guests share one."""


def stage_adjustments(facts: DataFrame, fact_changes: DataFrame, *, previous: DataFrame | None) -> DataFrame:
    """Returns, cancellations and adjustments, with the sale they take back where it is known or can be inferred.

    A sale is inferred for a known customer only, and can be that of several returns.

    Args:
        facts: `gold.fact_transactions`.
        fact_changes: Its changed rows.
        previous: Present content of `silver.stage_adjustments`, None on a first run.

    Returns:
        `silver.stage_adjustments` rows plus `_deleted`: changed ones, also lines that were adjustments and no longer
        are, and those whose sale may be another since a line of the same customer and product changed.
    """
    lines = rows_named(
        facts.where(F.col(T.customer_key).isNotNull()), _to_match(facts, fact_changes, previous), _BOUGHT
    )
    # Changed ones again, of which the changes already tell; and in the same state.
    is_kind, is_named = F.col(T.txn_type).isin(*_KINDS), F.col(T.original_basket_id).isNotNull()
    again = lines.where(is_kind).withColumn("_deleted", F.lit(False))
    told = fact_changes.where(is_kind).unionByName(again).dropDuplicates([T.transaction_id])
    # One sale at most for each of them.
    matched = told.join(_inferred(lines), on=str(T.transaction_id), how="left")
    # What is none may have been one. It is nearly everything on a first run, and passes without a shuffle.
    none = fact_changes.where(~is_kind).withColumn("_inferred", F.lit(None).cast("string"))
    sale = F.coalesce(T.original_basket_id, "_inferred")
    return matched.unionByName(none).select(
        A.transaction_id,
        A.merchant_id,
        A.account_id,
        A.basket_id,
        A.product_id,
        F.when(is_kind, F.col(T.txn_type)).otherwise("adjustment").alias(A.adjustment_type),
        A.business_date,
        A.quantity,
        A.amount,
        A.currency,
        sale.alias(A.original_basket_id),
        sale.isNotNull().alias(A.is_matched),
        F.when(is_named, F.lit("source")).when(sale.isNotNull(), F.lit("inferred")).alias(A.matched_by),
        (F.col("_deleted") | ~is_kind).alias("_deleted"),
    )


def _to_match(facts: DataFrame, fact_changes: DataFrame, previous: DataFrame | None) -> DataFrame:
    """Accounts and products with something to match, or to match again: all on a first run."""
    if previous is None:
        return facts.where(_asks_for_a_sale()).select(*_BOUGHT)
    new = fact_changes.where(_asks_for_a_sale() & ~F.col("_deleted")).select(*_BOUGHT)
    # A sale can be new or gone, or booked on another customer: then what names its basket is matched again.
    unnamed = previous.where(~F.col(A.matched_by).eqNullSafe("source") & F.col(A.adjustment_type).isin(*_TAKES_BACK))
    baskets = fact_changes.select(T.merchant_id, F.col(T.basket_id).alias(A.original_basket_id))
    by_product = rows_named(unnamed, fact_changes.select(*_BOUGHT), _BOUGHT)
    by_basket = rows_named(unnamed, baskets, [A.merchant_id, A.original_basket_id])
    return new.unionByName(by_product.select(*_BOUGHT)).unionByName(by_basket.select(*_BOUGHT))


def _asks_for_a_sale() -> Column:
    is_known = F.col(T.customer_key).isNotNull() & F.col(T.original_basket_id).isNull()
    return is_known & F.col(T.txn_type).isin(*_TAKES_BACK) & (F.col(T.quantity) < 0)


def _inferred(lines: DataFrame) -> DataFrame:
    """transaction_id of returns whose sale is among the lines, and its basket as `_inferred`."""
    on = [*_BOUGHT, str(T.merchant_id), str(T.currency)]
    returned = lines.where(_asks_for_a_sale()).select(
        T.transaction_id,
        *on,
        F.col(T.posted_ts).alias("_back_at"),
        (-F.col(T.quantity)).alias("_pieces"),
        (-F.col(T.amount)).alias("_back"),
    )
    sold = lines.where((F.col(T.txn_type) == "sale") & (F.col(T.quantity) > 0)).select(
        *on, T.basket_id, T.quantity, T.amount, F.struct(T.posted_ts, T.transaction_id).alias("_sold")
    )
    # Of the many sales a return may meet one is kept: a customer buys one product so often at most.
    met = returned.join(sold, on=on, how="inner").where(
        (F.col(f"_sold.{T.posted_ts}") <= F.col("_back_at"))
        & (F.col(T.quantity) >= F.col("_pieces"))
        & _is_of_a_price(F.col("_back"), F.col("_pieces"), F.col(T.amount), F.col(T.quantity))
    )
    return met.groupBy(T.transaction_id).agg(F.max_by(T.basket_id, "_sold").alias("_inferred"))


def _is_of_a_price(back: Column, pieces: Column, amount: Column, quantity: Column) -> Column:
    """Whether what went back is its part of the amount to less than a cent, or at the price of one piece in cents.

    Tills round either.
    """
    cent = F.lit(Decimal("0.01"))
    is_part = F.abs(back * quantity - amount * pieces) < cent * quantity
    return is_part | (F.round(F.try_divide(back, pieces), 2) == F.round(F.try_divide(amount, quantity), 2))


def audit_transaction_ingest(raw_changes: DataFrame) -> DataFrame:
    """Rows, checksum and period of each delivered piece that is new. A piece lands in one batch, so it comes whole."""
    # A text in what is aggregated makes Spark sort the rows; as a part of the key it is hashed with them.
    return raw_changes.groupBy(I.file_id, I.delivery, I.source, I.feed).agg(
        F.min(I.delivery_seq).alias(I.delivery_seq),
        F.min(I.batch_id).alias(I.batch_id),
        F.count(F.lit(1)).alias(I.row_count),
        exact_sum(F.col("row_hash")).alias(I.checksum),
        F.bit_xor("row_hash").alias(I.delivered_hash),
        F.min("sold_at").alias(I.first_sold_at),
        F.max("sold_at").alias(I.last_sold_at),
        F.min(I.loaded_at).alias(I.loaded_at),
    )
