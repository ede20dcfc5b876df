"""Training of cluster models when it is due: read, choose, try, log, register."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from pyspark.sql import functions as F

from lakehouse.lake import Lake
from lakehouse.settings import Settings
from lakehouse.tables.feature import FeatureCustomer as X
from models.card import describe_clusters
from models.cluster_gate import ClusterVerdict, try_clusters
from models.clustering import FEATURES, ClusterModel, match_to, moved_share, place_of
from models.store import (
    CLUSTERS,
    REFUSED,
    ModelStore,
    Training,
    Version,
    champion_for,
    is_due,
    load_if_readable,
    load_model,
    log_attempt,
    register_version,
    versions_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.selection import Past, Selection

TRAINING_ROWS: Final = 50_000
"""Customers a model is fitted on; three numbers each, so about a megabyte on the driver."""
MIN_PAST_CUSTOMERS: Final = 300
"""Fewer say too little of what later spend their clusters explain."""


def cluster_models(lake: Lake, settings: Settings, *, as_of: date, retrain: bool = False) -> dict[str, ClusterModel]:
    """Returns the champion of every merchant with features on a day, training where one is due.

    It is due when asked for, when none was tried, and when the last attempt is 30 days old and the champion 90: only
    then are there days it has not seen to compare on.

    Args:
        lake: Holds `feature.customer`.
        settings: Say where models are kept.
        as_of: The day to score; models that have seen a later one are not used.
        retrain: Train every merchant's model now.
    """
    from models.segmentation_test import HORIZON

    store = ModelStore.of(settings)
    day = lake.read("feature.customer").where(F.col(X.as_of) == F.lit(as_of))
    found: dict[str, ClusterModel] = {}
    for row in day.select(X.merchant_id).distinct().orderBy(X.merchant_id).collect():
        merchant_id = row[0]
        if retrain or is_due(store, CLUSTERS, merchant_id, as_of, lambda _: HORIZON):
            train_clusters(lake, settings, as_of=as_of, merchant_id=merchant_id)
        model = champion_clusters(store, merchant_id, as_of)
        if model is not None:
            found[merchant_id] = model
    return found


def champion_clusters(store: ModelStore, merchant_id: str, as_of: date) -> ClusterModel | None:
    """Returns the cluster model that is in charge of a merchant's customers on a day, with its version."""
    version = champion_for(store, CLUSTERS, merchant_id, as_of)
    return replace(load_model(store, version), version=version.label) if version else None


def train_clusters(lake: Lake, settings: Settings, *, as_of: date, merchant_id: str) -> Version | None:
    """Train, try and register a merchant's cluster model; the gate decides whether it becomes champion.

    Args:
        lake: Holds `feature.customer`.
        settings: Say where models are kept.
        as_of: Day of the features to learn from.
        merchant_id: Retailer.

    Returns:
        The registered version, its clusters numbered after the champion's; None when no number of clusters is stable
        or the customers are too few or too alike. Either outcome is logged with its reason.
    """
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
    versions = {"feature.customer": lake.version("feature.customer")}
    if selection.model is None:
        training = _training(selection, None, merchant_id, as_of, versions, values)
        log_attempt(store, CLUSTERS, merchant_id=merchant_id, as_of=as_of, reason=selection.reason, training=training)
        return None
    champion = load_if_readable(store, champion_for(store, CLUSTERS, merchant_id, as_of))
    given = _numbers_given(store, merchant_id)
    model = match_to(selection.model, champion, values, given)
    verdict = try_clusters(values, model, champion, past)
    return register_version(
        store,
        CLUSTERS,
        model,
        _training(replace(selection, model=model), verdict, merchant_id, as_of, versions, values, champion),
        merchant_id=merchant_id,
        as_of=as_of,
        is_accepted=verdict.is_accepted,
        reason=verdict.reason,
        predict=lambda frame: place_of(frame[list(FEATURES)].to_numpy(np.float64), model),
        # Made up, because an example stays with the model for ever: no customer's own numbers.
        example=pd.DataFrame([[7.0, 20.0, 500.0], [90.0, 2.0, 30.0]], columns=list(FEATURES)),
        numbers_given=max(given, 1 + max(model.numbers)),
    )


def _numbers_given(store: ModelStore, merchant_id: str) -> int:
    """From where on numbers are new: after those of any version that has placed customers, also if taken back."""
    placed = [v for v in versions_of(store, CLUSTERS, merchant_id) if v.status != REFUSED]
    kept = [v.numbers_given for v in placed if v.numbers_given is not None]
    # Each that keeps it counts those before it in; only where none does yet are models read.
    return max(kept) if kept else max((_numbers_of(store, v) for v in placed), default=0)


def _numbers_of(store: ModelStore, version: Version) -> int:
    model = load_if_readable(store, version)
    return 1 + max(model.numbers) if model is not None else 0


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
    later = histories.outcome(known.keys, start, HORIZON)[1]
    return Past(values_at(known, start), later, as_of - timedelta(days=HORIZON))


def _training(
    selection: Selection,
    verdict: ClusterVerdict | None,
    merchant_id: str,
    as_of: date,
    data_versions: Mapping[str, int | None],
    values: np.ndarray,
    champion: ClusterModel | None = None,
) -> Training:
    from models.plots import profile_plot, stability_plot
    from models.selection import BOOTSTRAPS, SEED

    model = selection.model
    chosen = next((c for c in selection.candidates if model and (c.way, c.k) == (model.way, model.k)), None)
    numbers = ("ari", "ari_min", "jaccard_min", "min_share", "spend_r2")
    metrics = {n: v for n in numbers if chosen is not None and (v := getattr(chosen, n)) is not None}
    if verdict is not None:
        metrics |= verdict.metrics()
    if champion is not None and model is not None:
        metrics["moved_share"] = moved_share(values, model, champion)
    curves: dict[str, dict[int, float]] = {}
    for c in selection.candidates:
        for n in numbers:
            if (value := getattr(c, n)) is not None and np.isfinite(value):
                curves.setdefault(f"{n}_by_k_{c.way.replace(', ', '_').replace(' ', '_')}", {})[c.k] = value
    return Training(
        params={
            "features": ", ".join(FEATURES),
            "seed": SEED,
            "bootstraps": BOOTSTRAPS,
            "rows": selection.rows,
            "way": model.way if model else None,
            "k": model.k if model else None,
        },
        metrics=metrics,
        card=describe_clusters(selection, verdict, merchant_id, as_of),
        figures={
            **({"stability.png": stability_plot(selection.candidates)} if selection.candidates else {}),
            **({"profiles.png": profile_plot(model)} if model else {}),
        },
        data_versions=data_versions,
        curves=curves,
    )
