"""Joins of much with little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_BUCKETS: Final = 1 << 20
"""Hashes of keys are cut to so many, which bounds what is sent to every task to some 20 MB."""


def rows_named(rows: DataFrame, keys: DataFrame, on: Sequence[str]) -> DataFrame:
    """Rows whose key `keys` names, as a left semi join, of which only few rows are shuffled.

    Spark cannot know beforehand that few keys changed, and would shuffle a whole table to find their rows. Hashes of
    the keys are broadcast first; rows that share one are then joined exactly.

    Args:
        rows: The many.
        keys: The few; a key may be named more than once. The key columns have the types they have in `rows`.
        on: The key columns.
    """
    bucket = F.xxhash64(*on).bitwiseAND(F.lit(_BUCKETS - 1))
    buckets = keys.select(bucket.alias("_bucket")).distinct()
    near = rows.join(F.broadcast(buckets), bucket == F.col("_bucket"), how="left_semi")
    # A key is named once, so the join keeps each row once.
    return near.join(keys.select(*on).distinct(), on=list(on), how="left_semi")


def with_gone(made: DataFrame, held: DataFrame | None, on: Sequence[str]) -> DataFrame:
    """Rows that were made, plus those held whose key is not among them, told apart by `_deleted`.

    Args:
        made: Rows as they are now, of every key that `held` names and is still there.
        held: Rows of the same columns as they were; None on a first run.
        on: The key columns; a key is named once on either side.
    """
    made = made.withColumn("_deleted", F.lit(False))
    if held is None:
        return made
    gone = held.join(made.select(*on), on=list(on), how="left_anti")
    return made.unionByName(gone.withColumn("_deleted", F.lit(True)))
