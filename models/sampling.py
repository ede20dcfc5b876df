"""Bounded samples of customers with their whole past, for training and evaluation on the driver."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.keys import key_of_customer
from lakehouse.lake import Lake
from lakehouse.tables.gold import FactTransactions as T
from models.histories import EPOCH
from models.purchase_days import purchase_days, purchase_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 20_240_229
TRAINING_CUSTOMERS: Final = 50_000
"""Customers a model learns from; a few million purchase days, some hundred megabytes on the driver."""


def read_purchase_days(lake: Lake, merchant_id: str, as_of: date, customers: int = TRAINING_CUSTOMERS) -> pd.DataFrame:
    """Purchase days before a day of up to so many customers of a merchant, drawn by a hash of their key."""
    facts = lake.read("gold.fact_transactions").where(F.col(T.merchant_id) == F.lit(merchant_id))
    days = purchase_days(facts, as_of)
    kept = days.join(_drawn(days, customers), on=T.customer_key, how="left_semi")
    return kept.select(T.customer_key, "day", "baskets", "spend").toPandas()


def read_purchase_lines(lake: Lake, merchant_id: str, as_of: date, customers: int = TRAINING_CUSTOMERS) -> pd.DataFrame:
    """What the same customers bought before a day: rows customer_key, item, category, day."""
    facts = lake.read("gold.fact_transactions").where(F.col(T.merchant_id) == F.lit(merchant_id))
    lines = purchase_lines(facts, lake.read("gold.dim_product"), as_of)
    kept = lines.join(_drawn(lines, customers), on=T.customer_key, how="left_semi")
    found = kept.select(T.customer_key, "item", "category", "day").toPandas()
    return found.astype({"item": "category", "category": "category"})


@dataclass(frozen=True)
class Campaigns:
    """A merchant's campaigns, as `models.redemption` takes them; days count from 1970-01-01.

    Attributes:
        campaigns: campaign_id, starts, ends (last day).
        contacts: campaign_id, customer_key.
        redemptions: campaign_id, customer_key, day.
    """

    campaigns: pd.DataFrame
    contacts: pd.DataFrame
    redemptions: pd.DataFrame


def read_campaigns(lake: Lake, merchant_id: str, as_of: date, among: NDArray[np.int64]) -> Campaigns:
    """Campaigns of a merchant that began before a day, whom they addressed and who redeemed before the day.

    Args:
        lake: Holds `silver.campaign`, `silver.campaign_contact` and `silver.coupon_redemption`.
        merchant_id: Retailer.
        as_of: Exclusive edge of what counts.
        among: Keys of the customers to look at, such as those of `read_purchase_lines`; contacts and redemptions of
            others stay where they are.
    """
    known = F.broadcast(keys_frame(lake, among))

    def mine(name: str) -> DataFrame:
        return lake.read(name).where(F.col("merchant_id") == F.lit(merchant_id))

    def theirs(rows: DataFrame) -> pd.DataFrame:
        return rows.join(known, on="customer_key", how="left_semi").distinct().toPandas()

    def number(column: str) -> Column:
        return F.datediff(column, F.lit(date.fromordinal(EPOCH)))

    key = key_of_customer().alias("customer_key")
    begun = mine("silver.campaign").where(F.col("starts_on") < F.lit(as_of))
    redeemed = mine("silver.coupon_redemption").where(F.col("redeemed_on") < F.lit(as_of))
    return Campaigns(
        begun.select("campaign_id", number("starts_on").alias("starts"), number("ends_on").alias("ends")).toPandas(),
        theirs(mine("silver.campaign_contact").select("campaign_id", key)),
        theirs(redeemed.select("campaign_id", key, number("redeemed_on").alias("day"))),
    )


def keys_frame(lake: Lake, keys: NDArray[np.int64]) -> DataFrame:
    """One row per customer: customer_key; also of no customers, of whom pandas would say no type."""
    return lake.spark.createDataFrame(pd.DataFrame({str(T.customer_key): np.unique(keys)}), f"{T.customer_key} bigint")


def _drawn(rows: DataFrame, customers: int) -> DataFrame:
    return (
        rows.select(T.customer_key)
        .distinct()
        .orderBy(F.xxhash64(T.customer_key, F.lit(SEED)), T.customer_key)
        .limit(customers)
    )
