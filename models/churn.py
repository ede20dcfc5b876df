"""Churn predictions, as customer success asks for them, from what customers are expected to do."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.model import CustomerOutlook as O
from lakehouse.tables.success import ChurnPredictions as P


def build_churn_predictions(outlooks: DataFrame, *, as_of: date) -> DataFrame:
    """One row per customer scored on a day, with the level they had when they were scored before.

    Args:
        outlooks: `feature.customer_outlook`, any number of days; later ones are not looked at.
        as_of: The day.

    Returns:
        `success.churn_predictions` rows.
    """
    now = outlooks.where(F.col(O.as_of) == F.lit(as_of))
    keys: list[str] = [O.merchant_id, O.customer_key]
    earlier = outlooks.where(F.col(O.as_of) < F.lit(as_of)).groupBy(*keys)
    before = earlier.agg(F.max_by(O.churn_risk_level, O.as_of).alias(P.previous_risk_level))
    # Both sides have one row per customer.
    return now.join(before, on=keys, how="left").select(
        P.merchant_id,
        P.customer_key,
        P.customer_id,
        P.as_of,
        P.horizon_days,
        F.date_add(O.as_of, O.horizon_days).alias(P.decided_on),
        P.churn_probability,
        P.churn_risk_level,
        F.col(O.churn_factors).alias(P.top_factors),
        P.previous_risk_level,
        P.model_version,
    )
