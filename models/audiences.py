"""Lookalike audiences as features, so that a segment rule may ask for them."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.model import CustomerAudience as A
from lakehouse.tables.model import LookalikeMember as M


def build_customer_audiences(members: DataFrame, *, as_of: date) -> DataFrame:
    """One row per customer with the audiences made on or before a day that they are in.

    Args:
        members: `gold.lookalike_member`.
        as_of: The day; an audience made for a later one knows more than this day may.
    """
    known = members.where(F.col(M.as_of) <= F.lit(as_of))
    grouped = known.groupBy(M.merchant_id, M.customer_key, M.customer_id).agg(
        F.sort_array(F.collect_set(M.audience_id)).alias(A.lookalike_audiences),
        F.max(M.score).alias(A.lookalike_score),
    )
    return grouped.select(
        A.merchant_id,
        A.customer_key,
        A.customer_id,
        F.lit(as_of).alias(A.as_of),
        A.lookalike_audiences,
        A.lookalike_score,
    )
