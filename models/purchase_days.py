"""Purchase days of customers out of the facts, in Spark: the one input of life-cycle models."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import DimProduct as P
from lakehouse.tables.gold import FactTransactions as T
from models.histories import EPOCH


def purchase_days(facts: DataFrame, as_of: date) -> DataFrame:
    """One row per customer and day with a sale or return before a day.

    Args:
        facts: `gold.fact_transactions`; guests and adjustments are left out.
        as_of: Exclusive edge of what counts.

    Returns:
        merchant_id, customer_key, customer_id, day (days since 1970-01-01), baskets (with a valid purchase), spend
        (net of what came back that day, merchant currency, double).
    """
    is_known = F.col(T.customer_key).isNotNull() & (F.col(T.txn_type) != "adjustment")
    lines = facts.where(is_known & (F.col(T.business_date) < F.lit(as_of)))
    # Cents, so that the sum does not depend on the order of the lines.
    cents = F.sum((F.col(T.amount) * 100).cast("bigint"))
    bought = F.count_distinct(F.when(F.col(T.is_valid_purchase), F.col(T.basket_id)))
    return (
        lines.groupBy(T.merchant_id, T.customer_key, T.customer_id, T.business_date)
        .agg(
            F.datediff(T.business_date, F.lit(date.fromordinal(EPOCH))).alias("day"),
            bought.cast("double").alias("baskets"),
            (cents / 100).alias("spend"),
        )
        .select(T.merchant_id, T.customer_key, T.customer_id, "day", "baskets", "spend")
    )


def histories_of(days: DataFrame) -> DataFrame:
    """One row per customer with all their purchase days.

    Args:
        days: From `purchase_days`.

    Returns:
        merchant_id, customer_key, customer_id and `history`, an array of (day, baskets, spend), oldest first.
    """
    each = F.struct(F.col("day").cast("bigint").alias("day"), "baskets", "spend")
    return days.groupBy(T.merchant_id, T.customer_key, T.customer_id).agg(
        F.sort_array(F.collect_list(each)).alias("history")
    )


def purchase_lines(facts: DataFrame, products: DataFrame, as_of: date) -> DataFrame:
    """One row per customer, product type and day bought before a day: what lookalike models learn from.

    Args:
        facts: `gold.fact_transactions`; valid purchases of merchandise with a known category count.
        products: `gold.dim_product`.
        as_of: Exclusive edge of what counts.

    Returns:
        merchant_id, customer_key, customer_id, item (category and product type; the product where the type is
        unknown), category, day (days since 1970-01-01).
    """
    bought = facts.where(F.col(T.is_valid_purchase) & (F.col(T.business_date) < F.lit(as_of)))
    named = products.where(F.col(P.category).isNotNull() & F.col(P.is_merchandise)).select(
        P.merchant_id,
        P.product_id,
        P.category,
        F.concat_ws(" / ", P.category, F.coalesce(P.subcategory, P.product_id)).alias("item"),
    )
    # One row per product, so the join does not multiply.
    known = bought.join(named, on=[str(T.merchant_id), str(T.product_id)], how="inner")
    day = F.datediff(T.business_date, F.lit(date.fromordinal(EPOCH))).alias("day")
    return known.select(T.merchant_id, T.customer_key, T.customer_id, "item", P.category, day).distinct()
