"""Customers with their history."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import DimCustomer as D

_MANAGED = (str(D.customer_sk), str(D.valid_to), str(D.is_current))


def build_dim_customer(customer_changes: DataFrame) -> DataFrame:
    """Changed customers as of when their values became true; versions are laid out by the lakehouse.

    Returns:
        Columns of `gold.dim_customer` without the surrogate, `valid_to` and `is_current`, and `_deleted` for customers
        whose only lines a correction booked on another.
    """
    current = customer_changes.select(
        "*",
        F.xxhash64(D.merchant_id, D.customer_id).alias(D.customer_key),
        F.col("changed_at").alias(D.valid_from),
    )
    wanted = [c for c in D.__table__.column_names if c not in _MANAGED]  # type: ignore[attr-defined]
    return current.select(*wanted, "_deleted")
