"""Where a customer stands in time, against their own cadence rather than one threshold for all."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.rules import FeatureRules, LifecycleRules
from lakehouse.tables.feature import FeatureCustomer

_C = FeatureCustomer


def columns(as_of: date, rules: FeatureRules) -> dict[str, Column]:
    """Life-cycle columns from stored days: they age with `as_of` and need no facts.

    Args:
        as_of: Day the stage is for.
        rules: Thresholds, per merchant where one differs.
    """
    threshold = {
        name: rules.by_merchant(name, lambda value: F.lit(value).cast("double")) for name in LifecycleRules.model_fields
    }
    silence = F.datediff(F.lit(as_of), _C.last_purchase_on)
    tenure = F.datediff(F.lit(as_of), _C.first_purchase_on)
    cadence = _cadence(threshold)
    lapsing_after = threshold["lapsing_after"] * cadence
    lost_after = threshold["lost_after"] * cadence
    returned_after = F.coalesce(_C.returned_after_days, F.lit(0))
    stage = (
        F.when(tenure <= threshold["new_days"], "new")
        .when(silence > lost_after, "lost")
        .when(silence > lapsing_after, "lapsing")
        .when(returned_after > lost_after, "won_back")
        .otherwise("active")
    )
    pattern = (
        F.when(silence > lapsing_after, "stopped")
        .when(F.col(_C.purchase_days) == 1, "first")
        .when(returned_after > lapsing_after, "resumed")
        .otherwise("regular")
    )
    return {
        _C.tenure_days: tenure,
        _C.cadence_days: cadence,
        _C.lifecycle_stage: stage,
        _C.purchase_pattern: pattern,
    }


def _cadence(threshold: dict[str, Column]) -> Column:
    # Without its longest gap: else one long silence would make the next one look usual, and no one is ever won back.
    gaps = F.col(_C.purchase_days) - 1
    between = F.datediff(_C.last_purchase_on, _C.first_purchase_on)
    usual = F.when(gaps >= 2, (between - F.col(_C.longest_gap_days)).cast("double") / F.nullif(gaps - 1, F.lit(0)))
    bounded = F.least(F.greatest(usual, threshold["min_cadence_days"]), threshold["max_cadence_days"])
    return F.coalesce(F.when(usual.isNotNull(), bounded), threshold["default_cadence_days"])
