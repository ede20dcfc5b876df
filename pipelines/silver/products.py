"""Products: from the feed where there is one, else from what was sold."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.joins import rows_named, with_gone
from lakehouse.tables.silver import Product as P
from pipelines.silver.rules import RuleBook, blank_is_null, matches_any, rule_book
from pipelines.silver.subjects import accept, keep_latest, touched

_KEY = (str(P.merchant_id), str(P.product_id))
_COLUMNS = P.__table__.column_names  # type: ignore[attr-defined]


def conform_products(
    raw: DataFrame,
    raw_changes: DataFrame,
    lines: DataFrame,
    line_changes: DataFrame,
    *,
    sources: Any,
    previous: DataFrame | None = None,
) -> DataFrame:
    """One row per product that changed; of all products on a first run.

    A product the feed describes has the feed's values. One that was only sold has the description most of its lines
    carry, of equally frequent ones the first in alphabetical order.

    Args:
        raw: `bronze.raw_products`.
        raw_changes: Its new rows.
        lines: `silver.transaction_line`.
        line_changes: Its changed rows.
        sources: Rules per source.
        previous: Present content of `silver.product`, None on a first run.

    Returns:
        `silver.product` rows plus `_deleted` for products nobody describes whose last line a correction took.
    """
    book = rule_book(sources, "products")
    delivered = accept(raw_changes, "products", book)
    accepted = accept(raw, "products", book)
    asked = line_changes.select(*_KEY)
    if previous is not None:
        asked = _again(accepted, line_changes, previous).unionByName(delivered.select(*_KEY))
    described = _described(accepted, asked, previous)
    sold = _sold(lines, asked, previous)
    # Both sides name a product at most once.
    both = described.join(sold, on=list(_KEY), how="full_outer")
    book_of_lines = rule_book(sources, "transactions")
    made = both.select(
        *_KEY,
        F.coalesce("_name", "_sold_name").alias(P.product_name),
        P.department,
        P.category,
        P.subcategory,
        P.brand_type,
        P.manufacturer_id,
        P.package_size,
        _is_merchandise(book_of_lines).alias(P.is_merchandise),
        F.coalesce(P.delivered_count, F.lit(0)).alias(P.delivered_count),
        F.coalesce(P.delivered_hash, F.lit(0)).alias(P.delivered_hash),
    )
    return with_gone(made, None if previous is None else rows_named(previous, asked, _KEY), _KEY)


def _again(accepted: DataFrame, line_changes: DataFrame, previous: DataFrame) -> DataFrame:
    """Products of changed lines that may be described otherwise now; may hold repeats.

    One that a feed describes and that was sold again needs nothing, unless it has its name from its lines.
    """
    is_named = F.col("product_name").isNotNull()
    held = previous.where(F.col(P.delivered_count) > 0).select(*_KEY, is_named.alias("_has_name"))
    nameless = accepted.where(blank_is_null("product_name").isNull()).select(*_KEY, F.lit(True).alias("_is_nameless"))
    # Both name a product once.
    beside = held.join(nameless.distinct(), on=list(_KEY), how="left")
    marked = line_changes.select(*_KEY, is_named.alias("_tells")).join(beside, on=list(_KEY), how="left")
    is_told = F.col("_is_nameless") & (F.col("_tells") | F.col("_has_name"))
    return marked.where(F.col("_has_name").isNull() | is_told).select(*_KEY)


def _described(raw: DataFrame, changed: DataFrame, previous: DataFrame | None) -> DataFrame:
    latest = keep_latest(touched(raw, changed, previous, *_KEY), *_KEY)
    texts = ("department", "category", "subcategory", "brand_type", "manufacturer_id", "package_size")
    return latest.select(
        *_KEY,
        blank_is_null("product_name").alias("_name"),
        *[blank_is_null(c).alias(c) for c in texts],
        P.delivered_count,
        P.delivered_hash,
    )


def _sold(lines: DataFrame, changed: DataFrame, previous: DataFrame | None) -> DataFrame:
    counted = touched(lines, changed, previous, *_KEY).groupBy(*_KEY, "product_name").agg(F.count(F.lit(1)).alias("_n"))
    most = Window.partitionBy(*_KEY).orderBy(F.col("product_name").isNull(), F.desc("_n"), "product_name")
    first = counted.withColumn("_rank", F.row_number().over(most)).where("_rank = 1")
    return first.select(*_KEY, F.col("product_name").alias("_sold_name"))


def _is_merchandise(book: RuleBook) -> Column:
    """False for codes that some transactions feed of the merchant books as postage, fee or correction."""
    booked = F.lit(False)
    for rules in book.rules:
        if rules.adjustment_codes:
            of_it = F.col(P.merchant_id) == F.lit(rules.merchant_id)
            booked = booked | (of_it & matches_any(F.col(P.product_id), rules.adjustment_codes))
    return ~booked
