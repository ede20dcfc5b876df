"""Products."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.gold import DimProduct as D


def build_dim_product(products: DataFrame) -> DataFrame:
    """Every product with its key."""
    keyed = products.withColumn(D.product_key, F.xxhash64(D.merchant_id, D.product_id))
    return keyed.select(*D.__table__.column_names)  # type: ignore[attr-defined]
