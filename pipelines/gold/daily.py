"""Sales by day, and the calendar around them."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.gold_finance import DimTime as D
from lakehouse.tables.gold_finance import FactDailySales as S

_KEY = [S.merchant_id, S.channel_id, S.currency, S.txn_type, S.business_date]


def build_daily_sales(facts: DataFrame, fact_changes: DataFrame, *, previous: DataFrame | None) -> DataFrame:
    """Totals of the days on which something changed; of all days on a first run.

    Args:
        facts: `gold.fact_transactions`.
        fact_changes: Its changed rows.
        previous: Present content of `gold.fact_daily_sales`, None on a first run.

    Returns:
        `gold.fact_daily_sales` rows plus `_deleted` for totals whose last line is gone.
    """
    if previous is None:
        return _totals(facts).withColumn("_deleted", F.lit(False))
    days = fact_changes.select(T.merchant_id, T.business_date).distinct()
    on = [str(T.merchant_id), str(T.business_date)]
    # A day is named once in `days`, so neither join multiplies; days are few, so they are broadcast.
    totals = _totals(facts.join(F.broadcast(days), on=on, how="left_semi"))
    stored = previous.join(F.broadcast(days), on=on, how="left_semi")
    gone = stored.join(totals.select(*_KEY), on=[str(k) for k in _KEY], how="left_anti")
    return totals.withColumn("_deleted", F.lit(False)).unionByName(gone.withColumn("_deleted", F.lit(True)))


def build_calendar(daily_sales: DataFrame) -> DataFrame:
    """Every day of the years in which there were sales; empty without sales."""
    span = daily_sales.agg(F.min(S.business_date).alias("a"), F.max(S.business_date).alias("b")).where("a IS NOT NULL")
    first, last = F.trunc("a", "year"), F.date_sub(F.add_months(F.trunc("b", "year"), 12), 1)
    days = span.select(F.explode(F.sequence(first, last)).alias(D.calendar_date))
    d = F.col(D.calendar_date)
    weekday = F.weekday(d) + 1
    return days.select(
        F.date_format(d, "yyyyMMdd").cast("int").alias(D.date_id),
        d,
        F.year(d).alias(D.year),
        F.quarter(d).alias(D.quarter),
        F.month(d).alias(D.month),
        F.date_format(d, "MMMM").alias(D.month_name),
        # A week is of the year its Thursday lies in.
        F.year(F.date_add(d, 4 - weekday)).alias(D.iso_year),
        F.weekofyear(d).alias(D.iso_week),
        F.dayofmonth(d).alias(D.day_of_month),
        weekday.alias(D.day_of_week),
        F.date_format(d, "EEEE").alias(D.day_name),
        (weekday >= 6).alias(D.is_weekend),
        (F.last_day(d) == d).alias(D.is_month_end),
    )


def cents(amount: str) -> Column:
    """Sum of a money column through whole cents: decimal sums leave the compact form and cost several times more."""
    return F.sum((F.col(amount) * 100).cast("bigint"))


def from_cents(total: str) -> Column:
    """Money from a sum of cents."""
    return (F.col(total).cast("decimal(20,0)") / 100).cast("decimal(18,2)")


def _totals(facts: DataFrame) -> DataFrame:
    summed = facts.groupBy(*_KEY).agg(
        F.count(F.lit(1)).alias(S.line_count), cents(T.gross_amount).alias("_gross"), cents(T.amount).alias("_net")
    )
    return summed.select(
        *_KEY, S.line_count, from_cents("_gross").alias(S.gross_amount), from_cents("_net").alias(S.net_amount)
    )
