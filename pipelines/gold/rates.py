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

    A rate delivered again for the same day replaces the earlier delivery, within one the last row. Rates that are
    no positive number are refused, see `silver.subject_reject`.
    """
    rates = accept(raw_rates, "exchange_rates", rule_book(sources, "exchange_rates"))
    pair = [str(R.from_currency), str(R.to_currency)]
    latest = keep_latest(rates, *pair, "valid_on")
    following = F.lead("valid_on").over(Window.partitionBy(*pair).orderBy("valid_on"))
    return latest.select(
        *pair,
        F.col("valid_on").alias(R.valid_from),
        following.alias(R.valid_to),
        F.col("rate").cast("decimal(18,8)").alias(R.rate),
        R.delivered_count,
        R.delivered_hash,
    )
