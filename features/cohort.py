"""Retention by cohort: of the customers who first bought in one month, how many bought again in each later one."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from features.measures import money_of
from features.purchases import cents, history
from lakehouse.tables.feature import CohortRetention
from lakehouse.tables.gold import FactTransactions

_Fact = FactTransactions


def build_cohort_retention(facts: DataFrame, *, as_of: date) -> DataFrame:
    """One row per merchant, cohort month and month since in which anyone of the cohort bought.

    Args:
        facts: `gold.fact_transactions`; valid purchases before `as_of` count, a receipt of several days on its first.
        as_of: Exclusive edge.
    """
    customer = (str(_Fact.merchant_id), str(_Fact.customer_key))
    baskets = (
        history(facts, as_of)
        .where(_Fact.is_valid_purchase)
        .groupBy(*customer, F.xxhash64(_Fact.basket_id).alias("basket"))
        .agg(F.min(_Fact.business_date).alias("day"), F.sum(cents(_Fact.amount)).alias("paid"))
    )
    months = (F.year("day") * 12 + F.month("day") - 1).alias("month")
    bought = baskets.repartition(*customer).groupBy(*customer, months).agg(F.sum("paid").alias("paid"))
    of_customer = Window.partitionBy(*customer)
    aged = bought.withColumn("first_month", F.min("month").over(of_customer))
    counted = aged.groupBy(
        _Fact.merchant_id, "first_month", (F.col("month") - F.col("first_month")).alias("month_number")
    ).agg(F.count(F.lit(1)).alias("active"), F.sum("paid").alias("paid"))
    # Month 0 holds the whole cohort, for everyone bought in the month of the first purchase.
    of_cohort = Window.partitionBy(_Fact.merchant_id, "first_month")
    year, month = F.floor(F.col("first_month") / 12), F.pmod("first_month", F.lit(12)) + 1
    return counted.select(
        F.lit(as_of).alias(CohortRetention.as_of),
        _Fact.merchant_id,
        F.make_date(year.cast("int"), month.cast("int"), F.lit(1)).alias(CohortRetention.cohort_month),
        "month_number",
        F.max("active").over(of_cohort).alias(CohortRetention.customers),
        "active",
        money_of(F.col("paid")).alias(CohortRetention.spend),
    )
