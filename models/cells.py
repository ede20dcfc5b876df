"""Customers collapsed in Spark to cells of those who buy alike, with their counts: what `models.population` fits on."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import FactTransactions as T
from models.population import EXACT, MAX_UNITS, MONEY_STEPS, STEPS, UNIT_DAYS


def collapse_customers(days: DataFrame, at: Sequence[int]) -> DataFrame:
    """One row per day asked for, kind and cell, in one pass over the purchase days.

    Args:
        days: From `models.purchase_days.purchase_days`, of one merchant.
        at: Days since 1970-01-01; each counts what lies before it only.

    Returns:
        day, kind (`buying` or `spending`), count of customers and the means of what they share: x, t_x, age (days) and
        spend (merchant currency per purchase day). For `buying` x are repeat purchases, for `spending` purchases.
        Customers without a purchase are absent, from `spending` also those who got back all they paid.
    """
    measures = [m for d in at for m in _measures_before(d)]
    customers = days.groupBy(T.customer_key).agg(*measures)
    of_day = [
        F.struct(
            F.lit(d).alias("day"), *[F.col(f"{name}_{d}").alias(name) for name in ("bought", "first", "last", "cents")]
        )
        for d in at
    ]
    known = customers.select(F.inline(F.array(*of_day))).where(F.col("bought") > 0)
    measured = known.select(
        "day",
        "bought",
        (F.col("last") - F.col("first")).alias("t_x"),
        (F.col("day") - F.col("first")).alias("age"),
        (F.col("day") - F.col("last")).alias("silence"),
        # Whole cents, so that the mean of a cell does not depend on the order of its customers.
        F.round(F.col("cents") / F.col("bought")).cast("bigint").alias("paid"),
    )
    buying = F.struct(
        F.lit("buying").alias("kind"),
        (F.col("bought") - 1).alias("x"),
        _steps(F.col("bought") - 1).alias("a"),
        _units(F.col("silence")).alias("b"),
        _units(F.col("age")).alias("c"),
    )
    spending = F.struct(
        F.lit("spending").alias("kind"),
        F.col("bought").alias("x"),
        _steps(F.col("bought")).alias("a"),
        F.floor(F.ln(F.greatest(F.col("paid"), F.lit(1))) * MONEY_STEPS).cast("int").alias("b"),
        F.lit(0).alias("c"),
    )
    each = measured.select("day", "t_x", "age", "paid", F.inline(F.array(buying, spending)))
    placed = each.where((F.col("kind") == "buying") | (F.col("paid") > 0))
    cells = placed.groupBy("day", "kind", "a", "b", "c").agg(
        F.count(F.lit(1)).alias("count"),
        F.avg("x").alias("x"),
        F.avg("t_x").alias("t_x"),
        F.avg("age").alias("age"),
        (F.avg("paid") / 100).alias("spend"),
    )
    return cells.select("day", "kind", "count", "x", "t_x", "age", "spend")


def _measures_before(day: int) -> tuple[Column, ...]:
    is_before = F.col("day") < F.lit(day)
    bought = F.when(is_before & (F.col("baskets") > 0), F.col("day"))
    cents = F.when(is_before, F.round(F.col("spend") * 100).cast("bigint"))
    return (
        F.count(bought).alias(f"bought_{day}"),
        F.min(bought).alias(f"first_{day}"),
        F.max(bought).alias(f"last_{day}"),
        F.sum(cents).alias(f"cents_{day}"),
    )


def _units(days: Column) -> Column:
    return F.least(F.floor(days / UNIT_DAYS), F.lit(MAX_UNITS)).cast("int")


def _steps(purchases: Column) -> Column:
    beyond = F.floor(F.log2(F.greatest(purchases, F.lit(EXACT)) / EXACT) * STEPS)
    return F.when(purchases <= EXACT, purchases).otherwise(EXACT + 1 + beyond).cast("int")
