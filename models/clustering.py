"""Customer clusters: k-means on log1p and standardised recency, frequency and net value.

Raw values give the better silhouette and useless clusters (a few giant spenders against everyone); on logarithms the
clusters are stable and say something about later spend. The fit is scikit-learn on a sample; the score is a Spark
expression over the model's numbers, so it costs one scan whatever the number of customers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.feature import FeatureCustomer as X
from lakehouse.tables.model import CustomerCluster as C

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

FEATURES: Final = (str(X.recency_days), str(X.frequency), str(X.monetary_net))
"""The model's inputs in order. Net value below zero counts as zero: log1p has no meaning there."""


@dataclass(frozen=True)
class ClusterModel:
    """The numbers of a trained model; enough to score without scikit-learn.

    Attributes:
        merchant_id: Retailer it was trained on and scores.
        version: Registered version, `unregistered` before it has one.
        as_of: Day of the features it was trained on.
        means: Per feature, mean of log1p.
        scales: Per feature, standard deviation of log1p; 1 for a constant feature.
        centres: Per cluster its centre in standardised log features; the position is the cluster's number.
        names: Per cluster its name in words.
    """

    merchant_id: str
    version: str
    as_of: date
    means: tuple[float, ...]
    scales: tuple[float, ...]
    centres: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centres)

    @property
    def fingerprint(self) -> str:
        """Content hash: equal models place every customer the same."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def score_clusters(features: DataFrame, *, as_of: date, clusters: Mapping[str, ClusterModel]) -> DataFrame:
    """Place every customer of a day in the nearest cluster of their merchant's model, in one scan.

    Args:
        features: `feature.customer`, any number of days.
        as_of: The day to score.
        clusters: Models by merchant id; customers of other merchants are left out.

    Returns:
        `feature.customer_cluster` rows. A customer with an unknown input is left out. Between equally near clusters
        the lower number wins, as in scikit-learn.
    """
    models = [clusters[m] for m in sorted(clusters)]
    known = features.where(
        (F.col(X.as_of) == F.lit(as_of)) & F.col(X.merchant_id).isin([m.merchant_id for m in models])
    )
    for name in FEATURES:
        known = known.where(F.col(name).isNotNull() & ~F.isnan(F.col(name).cast("double")))
    picked = F.lit(None).cast("array<double>")
    names = F.lit(None).cast("array<string>")
    version = F.lit(None).cast("string")
    for model in models:
        is_its = F.col(X.merchant_id) == F.lit(model.merchant_id)
        picked = F.when(is_its, squared_distances(model)).otherwise(picked)
        names = F.when(is_its, F.array(*[F.lit(n) for n in model.names])).otherwise(names)
        version = F.when(is_its, F.lit(model.version)).otherwise(version)
    measured = known.select(
        X.merchant_id,
        X.customer_key,
        X.customer_id,
        X.as_of,
        picked.alias("_d"),
        names.alias("_n"),
        version.alias(C.model_version),
    )
    nearest = F.array_min("_d")
    placed = measured.select("*", nearest.alias("_min"), (F.array_position("_d", nearest) - 1).cast("int").alias("_id"))
    return placed.select(
        C.merchant_id,
        C.customer_key,
        C.customer_id,
        C.as_of,
        F.col("_id").alias(C.cluster_id),
        F.get("_n", F.col("_id")).alias(C.cluster_name),
        F.sqrt("_min").alias(C.cluster_distance),
        C.model_version,
    )


def squared_distances(model: ClusterModel) -> Column:
    """Returns the squared distance to every centre as an array column, in standardised log features."""
    parts = []
    for name, mean, scale in zip(FEATURES, model.means, model.scales, strict=True):
        parts.append((F.log1p(F.greatest(F.col(name).cast("double"), F.lit(0.0))) - F.lit(mean)) / F.lit(scale))
    return F.array(*[_sum_of_squares(parts, centre) for centre in model.centres])


def usable_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the rows without an unknown or infinite value."""
    return values[np.isfinite(values).all(axis=1)]


def numbers_of(pipeline: Pipeline, merchant_id: str, as_of: date) -> ClusterModel:
    """Returns the numbers of a fitted pipeline, its clusters ordered by value, highest first, and named."""
    scaler, kmeans = pipeline["scale"], pipeline["kmeans"]
    order = np.lexsort((kmeans.cluster_centers_[:, 0], -kmeans.cluster_centers_[:, 2]))
    model = ClusterModel(
        merchant_id=merchant_id,
        version="unregistered",
        as_of=as_of,
        means=_floats(scaler.mean_),
        scales=_floats(scaler.scale_),
        centres=tuple(_floats(c) for c in kmeans.cluster_centers_[order]),
        names=(),
    )
    return replace(model, names=name_clusters(model.centres))


def moved_share(values: NDArray[np.float64], model: ClusterModel, previous: ClusterModel) -> float:
    """Returns the part of the customers whom the model, matched to the previous one, gives another number.

    Args:
        values: Their features, in the order of `FEATURES`.
        model: From `match_to`.
        previous: The version before.
    """
    known = usable_rows(values)
    return float((place_of(known, model) != place_of(known, previous)).mean()) if len(known) else 0.0


def place_of(values: NDArray[np.float64], model: ClusterModel) -> NDArray[np.int64]:
    """Returns the number of each customer's nearest cluster, as `score_clusters` finds it in Spark."""
    scaled = (np.log1p(np.clip(values, 0, None)) - np.array(model.means)) / np.array(model.scales)
    distances = ((scaled[:, None, :] - np.array(model.centres)[None, :, :]) ** 2).sum(axis=2)
    return np.argmin(distances, axis=1)


def match_to(model: ClusterModel, previous: ClusterModel | None) -> ClusterModel:
    """Returns the model with its clusters renumbered after those of the previous version they lie nearest to.

    The assignment is the cheapest one overall (Hungarian method), over centres brought back to log features so that
    two scalings compare. A cluster without a partner takes a free number; numbers stay 0 to k - 1.
    """
    if previous is None:
        return model
    from scipy.optimize import linear_sum_assignment

    new, old = _log_centres(model), _log_centres(previous)
    scale = np.array(model.scales)
    cost = (((new[:, None, :] - old[None, :, :]) / scale) ** 2).sum(axis=2)
    mine, theirs = linear_sum_assignment(cost)
    wanted = {int(m): int(t) for m, t in zip(mine, theirs, strict=True) if t < model.k}
    free = iter(sorted(set(range(model.k)) - set(wanted.values())))
    number = {m: wanted[m] if m in wanted else next(free) for m in range(model.k)}
    order = sorted(range(model.k), key=lambda m: number[m])
    return replace(model, centres=tuple(model.centres[m] for m in order), names=tuple(model.names[m] for m in order))


def apply_numbers(pipeline: Pipeline, model: ClusterModel) -> Pipeline:
    """Returns the fitted pipeline with its clusters in the model's order, so that both give the same numbers."""
    pipeline["kmeans"].cluster_centers_ = np.array(model.centres, dtype=np.float64)
    # The labels of the training rows belong to the order before, and nothing reads them again.
    pipeline["kmeans"].labels_ = np.empty(0, dtype=np.int32)
    return pipeline


def name_clusters(centres: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """Returns a name per cluster from where its centre lies against the merchant's average customer.

    The words are fixed, so a rule may ask for `high value` whatever the merchant: recency is recent, cooling or
    silent; frequency is frequent, regular or rare; value is high, medium or low value; `very` beyond 1.25
    standard deviations. Equal names are numbered, the more valuable first.
    """
    words = [
        ", ".join(
            (
                _word(r, ("silent", "cooling", "recent")),
                _word(f, ("frequent", "regular", "rare")),
                _word(m, ("high value", "medium value", "low value")),
            )
        )
        for r, f, m in centres
    ]
    named = list(words)
    for word in set(words):
        same = sorted((i for i, w in enumerate(words) if w == word), key=lambda i: -centres[i][2])
        for n, i in enumerate(same if len(same) > 1 else (), 1):
            named[i] = f"{word} ({n})"
    return tuple(named)


def _word(z: float, high_middle_low: tuple[str, str, str]) -> str:
    high, middle, low = high_middle_low
    if abs(z) < 0.35:
        return middle
    return ("very " if abs(z) > 1.25 else "") + (high if z > 0 else low)


def _sum_of_squares(parts: Sequence[Column], centre: Sequence[float]) -> Column:
    total = F.lit(0.0)
    for part, value in zip(parts, centre, strict=True):
        total = total + (part - F.lit(value)) * (part - F.lit(value))
    return total


def _log_centres(model: ClusterModel) -> NDArray[np.float64]:
    centres: NDArray[np.float64] = np.array(model.centres) * np.array(model.scales) + np.array(model.means)
    return centres


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
