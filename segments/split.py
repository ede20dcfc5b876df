"""Who is treated and who is held out of a test: decided by a salted hash, so that whoever is in an arm stays there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.errors import SettingsError
from lakehouse.sampling import salted_position


def split_by_strata(
    customers: DataFrame,
    assigned: DataFrame,
    *,
    keys: Sequence[str],
    strata: Sequence[str],
    salt: str,
    shares: Mapping[str, float],
) -> DataFrame:
    """Arms that each stratum fills in proportion, to within one customer per arm; nobody already assigned moves.

    Args:
        customers: One row per customer, with `keys` and `strata`.
        assigned: Earlier answers of this function for the same salt, `keys` and `arm`; empty the first time.
        keys: Columns that identify a customer.
        strata: Columns whose groups are to be balanced, such as primary segment and value band; null is a group.
        salt: Name of the test.
        shares: Share per arm, adding up to 1.

    Returns:
        keys and arm of every customer of `customers`. Newcomers are balanced among themselves.

    Raises:
        SettingsError: The shares are not positive or do not add up to 1.
    """
    edges = _edges(shares)
    known = customers.join(assigned.select(*keys, "arm"), on=list(keys), how="left")  # one earlier answer per customer
    position = salted_position(keys, salt)
    is_new = F.col("arm").isNull()
    group = Window.partitionBy(*strata, is_new)
    ranked = known.select(
        *keys,
        "arm",
        F.row_number().over(group.orderBy(position, *keys)).alias("_rank"),
        F.count(F.lit(1)).over(group).alias("_size"),
        # Without a turn of its own every small stratum would give its odd customer to the same arm.
        salted_position(strata, f"{salt}/turn").alias("_turn"),
    )
    place = F.pmod((F.col("_rank") - F.lit(0.5)) / F.col("_size") + F.col("_turn"), F.lit(1.0))
    arm = F.lit(None).cast("string")
    for name, edge in reversed(edges):
        arm = F.when(place < F.lit(edge), F.lit(name)).otherwise(arm)
    return ranked.select(*keys, F.coalesce("arm", arm).alias("arm"))


def _edges(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    if not shares or any(not 0 < s <= 1 for s in shares.values()) or not math.isclose(sum(shares.values()), 1):
        raise SettingsError(f"shares of arms must be positive and add up to 1, not {dict(shares)}")
    edges = list(accumulate(shares.values()))
    return list(zip(shares, [*edges[:-1], 1.0], strict=True))
