"""Customer success: who is likely to leave, and why."""

from __future__ import annotations

from lakehouse.columns import Pii, bigint, column, day, double, integer, text
from lakehouse.declare import ReplaceSlice, table
from lakehouse.tables.model import RISK_LEVELS


@table(
    "success.churn_predictions",
    comment="One row per customer whom a model has judged on a day, and `as_of`: how likely they are to be lost.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "customer_key", "as_of"),
    producer="models.churn:build_churn_predictions",
    reads=("feature.customer_outlook",),
    cluster_by=("as_of", "churn_risk_level"),
    owner="data-science",
)
class ChurnPredictions:
    merchant_id = text("Retailer.")
    customer_key = bigint("xxhash64(merchant_id, customer_id).")
    customer_id = text("Customer number.", pii=Pii.IDENTIFIER)
    as_of = day("Day of the prediction; only events before it were looked at.")
    horizon_days = integer("Days the prediction is of.")
    decided_on = day("Day on which it will be known whether it was right: `as_of` and the horizon.")
    churn_probability = double(
        "Probability not to buy within the horizon, 0 to 1.", check="churn_probability BETWEEN 0 AND 1"
    )
    churn_risk_level = text("low below 0.25, medium below 0.5, high below 0.75, else critical.", values=RISK_LEVELS)
    top_factors = column(
        "array<string>", "Up to three things that raise the risk most, strongest first; empty at low risk."
    )
    previous_risk_level = text(
        "Level of the prediction before, of whichever day; null for the first.", optional=True, values=RISK_LEVELS
    )
    model_version = text("Registered model version that made it.")
