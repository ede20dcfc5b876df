"""How customers move between two slices: from group to group, score to score, and stage to stage."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.feature import ABSENT, FeatureCustomer, LifecycleFlow, RfmMigration

_C = FeatureCustomer
_RFM = (_C.rfm_group, _C.r_score, _C.f_score, _C.m_score)


def build_rfm_migration(customers: DataFrame, *, as_of: date) -> DataFrame:
    """Moves between RFM groups and scores, from the newest earlier slice to that of `as_of`, and on to the next one.

    Args:
        customers: `feature.customer`, any slices; without an earlier one there are no moves.
        as_of: Slice that was made.
    """
    moves = [F.struct(F.lit(c).alias("measure"), *_from_to(c)) for c in _RFM]
    each = _pairs(customers, as_of, _RFM).select(*_PAIR, "spend", F.inline(F.array(*moves)))
    return _counted(each, ["measure", "from_group", "to_group"]).select(*RfmMigration.__table__.column_names)


def build_lifecycle_flow(customers: DataFrame, *, as_of: date) -> DataFrame:
    """Moves between life-cycle stages, from the newest earlier slice to that of `as_of`, and on to the next one.

    Args:
        customers: `feature.customer`, any slices; without an earlier one there are no moves.
        as_of: Slice that was made.
    """
    before, after = _from_to(_C.lifecycle_stage)
    each = _pairs(customers, as_of, (_C.lifecycle_stage,)).select(
        *_PAIR, "spend", before.alias("from_stage"), after.alias("to_stage")
    )
    return _counted(each, ["from_stage", "to_stage"]).select(*LifecycleFlow.__table__.column_names)


def _pairs(customers: DataFrame, as_of: date, compared: tuple[str, ...]) -> DataFrame:
    """One row per customer in either of two neighbouring slices, of which one is that of `as_of`.

    Usually it is the newest, and there is one pair; a day built afterwards comes between two that are there, and what
    was told of the later one is told anew. Who had bought before the earlier slice, but was delivered only after it was
    made, did not come in between and is left out.

    Returns:
        `_PAIR`; the compared columns as `from_*` and `to_*`, null on the side where the customer is absent; and the
        net value in between.
    """
    day, own = F.col(_C.as_of), F.lit(as_of)
    days = customers.agg(
        F.max(F.when(day < own, day)).alias("earlier"),
        F.min(F.when(day > own, day)).alias("later"),
        F.max(F.when(day == own, day)).alias("own"),
    )
    # Looked up once, and they filter the scan, so other slices are not read.
    earlier, later = days.select("earlier").scalar(), days.select("later").scalar()
    read = [_C.merchant_id, _C.customer_key, _C.as_of, _C.first_purchase_on, _C.monetary_net, *compared]
    near = customers.where((day == own) | (day == earlier) | (day == later)).select(*read)
    neighbours = F.inline(
        F.filter(
            F.array(
                F.struct(F.col("earlier").alias("from_as_of"), F.col("own").alias("to_as_of")),
                F.struct(F.col("own").alias("from_as_of"), F.col("later").alias("to_as_of")),
            ),
            lambda pair: pair["from_as_of"].isNotNull() & pair["to_as_of"].isNotNull(),
        )
    )
    # Two rows at most, and a slice is part of the pairs it is a side of: a row is there once per pair.
    both = near.join(
        F.broadcast(days.select(neighbours)), on=(day == F.col("from_as_of")) | (day == F.col("to_as_of")), how="inner"
    )
    is_after = day == F.col("to_as_of")
    each = both.groupBy(_C.merchant_id, _C.customer_key, "from_as_of", "to_as_of").agg(
        F.count_if(~is_after).alias("before"),
        F.min(_C.first_purchase_on).alias("began_on"),
        *[F.max(F.when(~is_after, F.col(c).cast("string"))).alias(f"from_{c}") for c in compared],
        *[F.max(F.when(is_after, F.col(c).cast("string"))).alias(f"to_{c}") for c in compared],
        F.sum(F.when(is_after, F.col(_C.monetary_net)).otherwise(-F.col(_C.monetary_net))).alias("spend"),
    )
    return each.where((F.col("before") > 0) | (F.col("began_on") >= F.col("from_as_of")))


_PAIR = ("merchant_id", "from_as_of", "to_as_of")


def _from_to(column: str) -> tuple[Column, Column]:
    absent = F.lit(ABSENT)
    return (
        F.coalesce(f"from_{column}", absent).alias("from_group"),
        F.coalesce(f"to_{column}", absent).alias("to_group"),
    )


def _counted(each: DataFrame, by: list[str]) -> DataFrame:
    return each.groupBy(*_PAIR, *by).agg(
        F.count(F.lit(1)).alias("customers"), F.sum("spend").cast("decimal(18,2)").alias("spend")
    )
