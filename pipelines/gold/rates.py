"""Exchange rates."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.gold_finance import RefExchangeRates as R


def build_exchange_rates(raw_rates: DataFrame) -> DataFrame:
    """One row per pair and first day of validity; each rate holds until the next of its pair.

    A rate delivered again for the same day replaces the earlier delivery, within one the last row. Rates that are
    no positive number are left out.
    """
    typed = raw_rates.select(
        F.upper(F.trim("from_currency")).alias(R.from_currency),
        F.upper(F.trim("to_currency")).alias(R.to_currency),
        F.col("valid_on").alias(R.valid_from),
        F.col("rate").try_cast("decimal(18,8)").alias(R.rate),
        "loaded_at",
        "delivery_seq",
        "row_number",
    ).where((F.col(R.rate) > 0) & F.col(R.valid_from).isNotNull())
    pair = [R.from_currency, R.to_currency]
    newest = Window.partitionBy(*pair, R.valid_from).orderBy(
        F.col("loaded_at").desc(), F.col("delivery_seq").desc(), F.col("row_number").desc()
    )
    latest = typed.withColumn("_rank", F.row_number().over(newest)).where("_rank = 1")
    following = F.lead(R.valid_from).over(Window.partitionBy(*pair).orderBy(R.valid_from))
    return latest.select(*pair, R.valid_from, following.alias(R.valid_to), R.rate)
