"""Training when it is due: the one place of the package that reads the lakehouse and writes models."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np
from pyspark.sql import functions as F

from lakehouse.lake import Lake
from lakehouse.settings import Settings
from lakehouse.tables.feature import FeatureCustomer as X
from models.clustering import FEATURES, ClusterModel, match_to, moved_share
from models.registry import ModelStore, find_clusters, register_clusters, was_tried

if TYPE_CHECKING:
    from models.selection import Past

TRAINING_ROWS: Final = 50_000
"""Customers a model is fitted on; three numbers each, so about a megabyte on the driver."""
MIN_PAST_CUSTOMERS: Final = 300
"""Fewer say too little of what later spend their clusters explain."""


def cluster_models(lake: Lake, settings: Settings, *, as_of: date, retrain: bool = False) -> dict[str, ClusterModel]:
    """Returns the model of every merchant with features on a day, training where one is due.

    It is due when asked for, and when the newest model is from an earlier month than `as_of`. Training that gives no
    stable model leaves the one before in charge and is not tried again that month.

    Args:
        lake: Holds `feature.customer`.
        settings: Say where models are kept.
        as_of: The day to score; models that have seen a later one are not used.
        retrain: Train every merchant's model now.
    """
    store = ModelStore.of(settings)
    day = lake.read("feature.customer").where(F.col(X.as_of) == F.lit(as_of))
    found: dict[str, ClusterModel] = {}
    for row in day.select(X.merchant_id).distinct().orderBy(X.merchant_id).collect():
        merchant_id = row[0]
        model = find_clusters(store, merchant_id, as_of)
        is_fresh = model is not None and (model.as_of.year, model.as_of.month) == (as_of.year, as_of.month)
        if retrain or not (is_fresh or was_tried(store, merchant_id, as_of)):
            model = train_clusters(lake, settings, as_of=as_of, merchant_id=merchant_id) or model
        if model is not None:
            found[merchant_id] = model
    return found


def train_clusters(lake: Lake, settings: Settings, *, as_of: date, merchant_id: str) -> ClusterModel | None:
    """Train, log and register a merchant's cluster model.

    Args:
        lake: Holds `feature.customer`.
        settings: Say where models are kept.
        as_of: Day of the features to learn from.
        merchant_id: Retailer.

    Returns:
        The registered model, its clusters numbered after the version before; None when no number of clusters is
        stable or the customers are too few or too alike. Either outcome is logged with its reason.
    """
    from dataclasses import replace

    from models.selection import MIN_CUSTOMERS, SEED, select_clusters

    is_wanted = (F.col(X.as_of) == F.lit(as_of)) & (F.col(X.merchant_id) == F.lit(merchant_id))
    sample = (
        lake.read("feature.customer")
        .where(is_wanted)
        .orderBy(F.xxhash64(X.customer_key, F.lit(SEED)), X.customer_key)
        .limit(TRAINING_ROWS)
        .select(*[F.col(name).cast("double") for name in FEATURES])
    )
    values = sample.toPandas().to_numpy(dtype=np.float64)
    past = _past(lake, merchant_id, as_of) if len(values) >= MIN_CUSTOMERS else None
    selection = select_clusters(values, merchant_id=merchant_id, as_of=as_of, past=past)
    store = ModelStore.of(settings)
    moved = None
    if selection.model is not None:
        previous = find_clusters(store, merchant_id, as_of)
        selection = replace(selection, model=match_to(selection.model, previous))
        if previous is not None and selection.model is not None:
            moved = moved_share(values, selection.model, previous)
    versions = {"feature.customer": lake.version("feature.customer")}
    return register_clusters(
        store, selection, merchant_id=merchant_id, as_of=as_of, data_versions=versions, moved=moved
    )


def _past(lake: Lake, merchant_id: str, as_of: date) -> Past | None:
    """A day 90 days back, and what was spent after it; None when the facts do not reach that far."""
    from models.histories import Histories, day_number
    from models.sampling import read_purchase_days
    from models.segmentation_test import HORIZON, values_at
    from models.selection import Past

    if not lake.exists("gold.fact_transactions"):
        return None
    histories = Histories.of(read_purchase_days(lake, merchant_id, as_of))
    start = day_number(as_of) - HORIZON
    known = histories.before(start)
    if len(known) < MIN_PAST_CUSTOMERS:
        return None
    return Past(values_at(known, start), histories.outcome(known.keys, start, HORIZON)[1])
