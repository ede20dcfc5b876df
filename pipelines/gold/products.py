"""Products."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.joins import with_gone
from lakehouse.tables.gold import DimProduct as D


def build_dim_product(products: DataFrame, *, previous: DataFrame | None = None) -> DataFrame:
    """Every product with its key, plus `_deleted` for those that are there no more."""
    keyed = products.withColumn(D.product_key, F.xxhash64(D.merchant_id, D.product_id))
    named = keyed.select(*D.__table__.column_names)  # type: ignore[attr-defined]
    return with_gone(named, previous, [D.merchant_id, D.product_id])
