"""Slowly changing dimensions, kind 2: the history of each touched business key is laid out anew."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.declare import Scd2, Table
from lakehouse.joins import rows_named


def rebuild_timeline(stored: DataFrame, incoming: DataFrame, table: Table) -> DataFrame:
    """Lay out every version of the business keys that `incoming` names.

    What is written of a thing is all of its history. Its rows are put in order of `valid_from`; neighbours with equal
    tracked values are one version; each version ends where the next begins.

    Args:
        stored: Present content of the table.
        incoming: Business key, attributes and `valid_from`; at most one row per key and instant. A row with `_deleted`
            says that there never was such a thing: none of its versions stays.
        table: The SCD2 declaration.

    Returns:
        Rows of `table` plus `_deleted`: every version of the touched keys, and, marked deleted, stored versions that
        are none of them.
    """
    kind = table.kind
    if not isinstance(kind, Scd2):
        raise TypeError(f"{table.name} is {type(kind).__name__}, not Scd2")
    surrogate = table.key[0]
    managed = {surrogate, "valid_to", "is_current"}
    attributes = [c for c in table.column_names if c not in managed]
    touched = rows_named(stored, incoming, kind.business_key)
    versions = incoming.where("NOT _deleted") if "_deleted" in incoming.columns else incoming
    in_order = Window.partitionBy(*kind.business_key).orderBy("valid_from")
    told = versions.select(*attributes, F.struct(*kind.tracked).alias("_said"))
    changed = told.withColumn("_before", F.lag("_said").over(in_order))
    kept = changed.where(~F.col("_before").eqNullSafe(F.col("_said")))
    ended = kept.withColumn("valid_to", F.lead("valid_from").over(in_order))
    laid_out = ended.select(
        F.xxhash64(*kind.business_key, "valid_from").alias(surrogate),
        *attributes,
        "valid_to",
        F.col("valid_to").isNull().alias("is_current"),
        F.lit(False).alias("_deleted"),
    ).select(*table.column_names, "_deleted")
    gone = touched.join(laid_out.select(surrogate), on=surrogate, how="left_anti").select(
        *table.column_names, F.lit(True).alias("_deleted")
    )
    return laid_out.unionByName(gone)
