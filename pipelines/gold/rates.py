"""Exchange rates."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.gold_finance import RefExchangeRates as R
from pipelines.silver.rules import rule_book
from pipelines.silver.subjects import accept, keep_latest


def build_exchange_rates(raw_rates: DataFrame, *, sources: Any) -> DataFrame:
    """One row per pair and first day of validity; each rate holds until the next of its pair.

    A rate delivered again for the same day replaces the earlier delivery, within one the last row. A sample replaces
    no real rate: from the first real one of its pair on it holds on no day. Rates that are no positive number are
    refused, see `silver.subject_reject`.
    """
    book = rule_book(sources, "exchange_rates")
    is_real = ~book.where(lambda r: r.is_sample)
    pair = [str(R.from_currency), str(R.to_currency)]
    # Of those of one day the real one wins, whenever the other was delivered.
    rates = keep_latest(
        accept(raw_rates, "exchange_rates", book).withColumn("_is_real", is_real), *pair, "valid_on", said_at="_is_real"
    )
    real_from = F.min(F.when(F.col("_is_real"), F.col("valid_on"))).over(Window.partitionBy(*pair))
    is_idle = F.coalesce(~F.col("_is_real") & (F.col("valid_on") > real_from), F.lit(False))
    following = F.lead("valid_on").over(Window.partitionBy(*pair, "_is_idle").orderBy("valid_on"))
    return rates.withColumn("_is_idle", is_idle).select(
        *pair,
        F.col("valid_on").alias(R.valid_from),
        F.when(F.col("_is_idle"), F.col("valid_on")).otherwise(following).alias(R.valid_to),
        F.col("rate").cast("decimal(18,8)").alias(R.rate),
        (~F.col("_is_real")).alias(R.is_sample),
        R.delivered_count,
        R.delivered_hash,
    )
