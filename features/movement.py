"""How customers move between two slices: from group to group, score to score, and stage to stage."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.feature import ABSENT, FeatureCustomer, LifecycleFlow, RfmMigration

_C = FeatureCustomer
_RFM = (_C.rfm_group, _C.r_score, _C.f_score, _C.m_score)


def build_rfm_migration(customers: DataFrame, *, as_of: date) -> DataFrame:
    """Moves between RFM groups and scores, from the newest earlier slice to the one of `as_of`.

    Args:
        customers: `feature.customer`, any slices; without an earlier one there are no moves.
        as_of: Slice moved to.
    """
    moves = [F.struct(F.lit(c).alias("measure"), *_from_to(c)) for c in _RFM]
    each = _pairs(customers, as_of, _RFM).select("merchant_id", "from_as_of", "spend", F.inline(F.array(*moves)))
    return _counted(each, as_of, ["measure", "from_group", "to_group"]).select(*RfmMigration.__table__.column_names)


def build_lifecycle_flow(customers: DataFrame, *, as_of: date) -> DataFrame:
    """Moves between life-cycle stages, from the newest earlier slice to the one of `as_of`.

    Args:
        customers: `feature.customer`, any slices; without an earlier one there are no moves.
        as_of: Slice moved to.
    """
    before, after = _from_to(_C.lifecycle_stage)
    each = _pairs(customers, as_of, (_C.lifecycle_stage,)).select(
        "merchant_id", "from_as_of", "spend", before.alias("from_stage"), after.alias("to_stage")
    )
    return _counted(each, as_of, ["from_stage", "to_stage"]).select(*LifecycleFlow.__table__.column_names)


def _pairs(customers: DataFrame, as_of: date, compared: tuple[str, ...]) -> DataFrame:
    """One row per customer in either slice: the compared columns as `from_*` and `to_*`, and net value in between."""
    day = F.col(_C.as_of)
    earlier = customers.where(day < F.lit(as_of)).agg(F.max(day))
    # The newest earlier day is looked up once and filters the scan, so other slices are not read.
    both = customers.where((day == F.lit(as_of)) | (day == earlier.scalar()))
    is_after = day == F.lit(as_of)
    per_customer = both.groupBy(_C.merchant_id, _C.customer_key).agg(
        *[F.max(F.when(~is_after, F.col(c).cast("string"))).alias(f"from_{c}") for c in compared],
        *[F.max(F.when(is_after, F.col(c).cast("string"))).alias(f"to_{c}") for c in compared],
        F.sum(F.when(is_after, F.col(_C.monetary_net)).otherwise(-F.col(_C.monetary_net))).alias("spend"),
    )
    slices = customers.where(day < F.lit(as_of)).agg(F.max(day).alias("from_as_of"))
    return per_customer.crossJoin(F.broadcast(slices)).where(F.col("from_as_of").isNotNull())


def _from_to(column: str) -> tuple[Column, Column]:
    absent = F.lit(ABSENT)
    return (
        F.coalesce(f"from_{column}", absent).alias("from_group"),
        F.coalesce(f"to_{column}", absent).alias("to_group"),
    )


def _counted(each: DataFrame, as_of: date, by: list[str]) -> DataFrame:
    return (
        each.groupBy("merchant_id", "from_as_of", *by)
        .agg(F.count(F.lit(1)).alias("customers"), F.sum("spend").cast("decimal(18,2)").alias("spend"))
        .withColumn("to_as_of", F.lit(as_of))
    )
