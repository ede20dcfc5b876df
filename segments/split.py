"""Who is treated and who is held out: decided by a salted hash, so that the same customer is always in the same arm."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from itertools import accumulate
from typing import Final

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.errors import SettingsError
from lakehouse.sampling import DIGITS, UNIT, salted_position

HOLDOUT: Final = "holdout"
TREATED: Final = "treated"


def assign_arm(keys: Sequence[str], salt: str, shares: Mapping[str, float]) -> Column:
    """Arm of a customer as a column: independent of the other customers, of the day and of the run.

    Args:
        keys: Columns that identify the customer, such as website_id and customer_key.
        salt: Name of the test; another salt splits the same customers independently.
        shares: Share per arm, in an order that must not change; they add up to 1.

    Raises:
        SettingsError: The shares are not positive or do not add up to 1.
    """
    position = salted_position(keys, salt)
    arm = F.lit(None).cast("string")
    for name, edge in reversed(_edges(shares)):
        arm = F.when(position < F.lit(edge), F.lit(name)).otherwise(arm)
    return arm


def is_held_out(keys: Sequence[str], salt: str, share: float) -> Column:
    """Whether a customer belongs to the holdout of a `share`, 0 to 1: a growing share keeps everyone already in it."""
    if not 0 <= share <= 1:
        raise SettingsError(f"a holdout is a share from 0 to 1, not {share}")
    return salted_position(keys, salt) < F.lit(share)


def arm_of(values: Sequence[object], salt: str, shares: Mapping[str, float]) -> str:
    """The same for one customer, in Python; `values` are those of the columns `assign_arm` is given.

    Raises:
        SettingsError: As of `assign_arm`; or a value is of a type that Spark may write in another way.
    """
    said = "\u001f".join([salt, *map(_as_spark_writes, values)])
    position = int(hashlib.sha256(said.encode()).hexdigest()[:DIGITS], 16) / UNIT
    return next(name for name, edge in _edges(shares) if position < edge)


def _as_spark_writes(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str() | int():
            return str(value)
        case date() if not isinstance(value, datetime):
            return value.isoformat()
        case _:
            raise SettingsError(f"a customer is identified by text, whole numbers, days or flags, not {value!r}")


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
