"""Customer clusters by recency, frequency and net value: the numbers of a fitted model, and its score in Spark.

Raw values give the better silhouette and useless clusters (a few giant spenders against everyone); on logarithms or
ranks the clusters are stable and say something about later spend. The fit is scikit-learn on a sample
(`models.groupings`); the score is a Spark expression over the model's numbers, so it costs one scan whatever the
number of customers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.feature import FeatureCustomer as X
from lakehouse.tables.model import CustomerCluster as C
from models.scales import LogScale, RankScale, Scale

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

FEATURES: Final = (str(X.recency_days), str(X.frequency), str(X.monetary_net))
"""The model's inputs in order."""


@dataclass(frozen=True)
class Shape:
    """How a component of a mixture spreads around its centre; a cluster of k-means has none.

    Attributes:
        factor: Cholesky factor of the inverse covariance; what it makes of a difference has standard deviation 1.
        handicap: What is added to the squared distance for the component being wide or rare.
    """

    factor: tuple[tuple[float, ...], ...]
    handicap: float


@dataclass(frozen=True)
class ClusterModel:
    """The numbers of a trained model; enough to score without scikit-learn.

    Attributes:
        merchant_id: Retailer it was trained on and scores.
        version: Registered version, `unregistered` before it has one.
        as_of: Day of the features it was trained on.
        way: What it is, a key of `models.groupings.GROUPINGS`.
        scales: Per feature, how it is measured.
        centres: Per cluster its centre on these scales.
        shapes: Per cluster its shape; empty for k-means.
        names: Per cluster its name in words.
        shares: Per cluster the part of the training customers in it.
        kept: Per cluster its number where that is not its position, ascending; see `numbers`.
    """

    merchant_id: str
    version: str
    as_of: date
    way: str
    scales: tuple[Scale, ...]
    centres: tuple[tuple[float, ...], ...]
    shapes: tuple[Shape, ...]
    names: tuple[str, ...]
    shares: tuple[float, ...] = ()
    kept: tuple[int, ...] = ()

    @property
    def k(self) -> int:
        """How many clusters there are."""
        return len(self.centres)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Per cluster its number, ascending; with gaps where clusters of earlier versions are no more."""
        return self.kept or tuple(range(self.k))

    @property
    def fingerprint(self) -> str:
        """Content hash: equal models place every customer the same."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def renumbered(self, order: Sequence[int]) -> ClusterModel:
        """Returns the model with cluster `order[i]` as its number i."""
        return replace(
            self,
            kept=(),
            centres=tuple(self.centres[i] for i in order),
            shapes=tuple(self.shapes[i] for i in order) if self.shapes else (),
            names=tuple(self.names[i] for i in order) if self.names else (),
            shares=tuple(self.shares[i] for i in order) if self.shares else (),
        )


def score_clusters(features: DataFrame, *, as_of: date, clusters: Mapping[str, ClusterModel]) -> DataFrame:
    """Place every customer of a day in their cluster of their merchant's model, in one scan.

    Args:
        features: `feature.customer`, any number of days.
        as_of: The day to score.
        clusters: Models by merchant id; customers of other merchants are left out.

    Returns:
        `feature.customer_cluster` rows. A customer with an unknown or infinite input is left out. Between equally near
        clusters the lower number wins, as in scikit-learn.
    """
    models = [clusters[m] for m in sorted(clusters)]
    known = features.where(
        (F.col(X.as_of) == F.lit(as_of)) & F.col(X.merchant_id).isin([m.merchant_id for m in models])
    )
    for name in FEATURES:
        value = F.col(name).cast("double")
        known = known.where(value.isNotNull() & ~F.isnan(value) & (F.abs(value) < F.lit(float("inf"))))
    scaled, distances, costs = (F.lit(None).cast("array<double>") for _ in range(3))
    numbers, names = F.lit(None).cast("array<int>"), F.lit(None).cast("array<string>")
    version = F.lit(None).cast("string")
    for model in models:
        is_its = F.col(X.merchant_id) == F.lit(model.merchant_id)
        handicaps = [s.handicap for s in model.shapes] or [0.0] * model.k
        cost = F.array(*[F.get("_d", F.lit(c)) + F.lit(h) for c, h in enumerate(handicaps)])
        scaled = F.when(is_its, F.array(*_scaled(model))).otherwise(scaled)
        distances = F.when(is_its, F.array(*_squared_distances(model))).otherwise(distances)
        costs = F.when(is_its, cost).otherwise(costs)
        numbers = F.when(is_its, F.array(*[F.lit(n) for n in model.numbers])).otherwise(numbers)
        names = F.when(is_its, F.array(*[F.lit(n) for n in model.names])).otherwise(names)
        version = F.when(is_its, F.lit(model.version)).otherwise(version)
    keys: list[str] = [X.merchant_id, X.customer_key, X.customer_id, X.as_of]
    # Step by step, so that a scale is worked out once a customer and not once for every centre.
    of_model = (numbers.alias("_k"), names.alias("_n"), version.alias(C.model_version))
    measured = known.select(*keys, scaled.alias("_x"), *of_model)
    measured = measured.select("*", distances.alias("_d")).select("*", costs.alias("_c"))
    nearest = (F.array_position("_c", F.array_min("_c")) - 1).cast("int")
    placed = measured.select("*", nearest.alias("_at"))
    return placed.select(
        C.merchant_id,
        C.customer_key,
        C.customer_id,
        C.as_of,
        F.get("_k", F.col("_at")).alias(C.cluster_id),
        F.get("_n", F.col("_at")).alias(C.cluster_name),
        F.sqrt(F.get("_d", F.col("_at"))).alias(C.cluster_distance),
        C.model_version,
    )


def usable_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the rows without an unknown or infinite value."""
    return values[np.isfinite(values).all(axis=1)]


def place_of(values: NDArray[np.float64], model: ClusterModel) -> NDArray[np.int64]:
    """Returns the number of each customer's cluster, as `score_clusters` finds it in Spark."""
    return np.array(model.numbers, dtype=np.int64)[_position_of(values, model)]


def _position_of(values: NDArray[np.float64], model: ClusterModel) -> NDArray[np.int64]:
    scaled = np.column_stack([s.of(values[:, i]) for i, s in enumerate(model.scales)])
    costs = np.empty((len(values), model.k))
    for c, centre in enumerate(model.centres):
        away = scaled - np.array(centre)
        if model.shapes:
            away = away @ np.array(model.shapes[c].factor)
        costs[:, c] = (away**2).sum(axis=1) + (model.shapes[c].handicap if model.shapes else 0.0)
    return np.argmin(costs, axis=1)


def shares_in(values: NDArray[np.float64], model: ClusterModel) -> NDArray[np.float64]:
    """Returns the part of the customers in each cluster; of nobody, nothing."""
    known = usable_rows(values)
    found: NDArray[np.float64] = np.bincount(_position_of(known, model), minlength=model.k) / max(1, len(known))
    return found


def numbers_of(
    pipeline: Pipeline, way: str, values: NDArray[np.float64], merchant_id: str, as_of: date
) -> ClusterModel:
    """Returns the numbers of a fitted pipeline, its clusters ordered by value, highest first, and named.

    Args:
        pipeline: From `models.groupings`.
        way: Its name there.
        values: What it was fitted on, in the order of `FEATURES`.
        merchant_id: Retailer.
        as_of: Day of the values.
    """
    last = pipeline[-1]
    centres = last.cluster_centers_ if hasattr(last, "cluster_centers_") else last.means_
    model = ClusterModel(
        merchant_id=merchant_id,
        version="unregistered",
        as_of=as_of,
        way=way,
        scales=_scales_of(pipeline),
        centres=tuple(_floats(c) for c in centres),
        shapes=_shapes_of(last),
        names=(),
    )
    ordered = model.renumbered(np.lexsort((centres[:, 0], -centres[:, 2])).tolist())
    return replace(ordered, names=name_clusters(_deviations(ordered)), shares=_floats(shares_in(values, ordered)))


def moved_share(values: NDArray[np.float64], model: ClusterModel, previous: ClusterModel) -> float:
    """Returns the part of the customers whom the model, matched to the previous one, gives another number.

    Args:
        values: Their features, in the order of `FEATURES`.
        model: From `match_to`.
        previous: The version before.
    """
    known = usable_rows(values)
    return float((place_of(known, model) != place_of(known, previous)).mean()) if len(known) else 0.0


def match_to(
    model: ClusterModel, previous: ClusterModel | None, values: NDArray[np.float64], given: int = 0
) -> ClusterModel:
    """Returns the model with its clusters numbered as those of the previous version they share members with.

    The assignment keeps as many customers as possible in the number they had (Hungarian method), whatever either model
    measures by. A cluster without a partner takes a number none has had, so that a number never passes to others.

    Args:
        model: The new version.
        previous: The version before, if any.
        values: Customers to match on, in the order of `FEATURES`.
        given: From here on numbers are new, whatever versions there were besides the previous one.
    """
    number: dict[int, int] = {}
    if previous is not None:
        from scipy.optimize import linear_sum_assignment

        known = usable_rows(values)
        shared = np.zeros((model.k, previous.k))
        np.add.at(shared, (_position_of(known, model), _position_of(known, previous)), 1)
        mine, theirs = linear_sum_assignment(shared, maximize=True)
        number = {m: previous.numbers[t] for m, t in zip(mine.tolist(), theirs.tolist(), strict=True) if shared[m, t]}
        given = max(given, 1 + max(previous.numbers))
    fresh = count(given)
    number |= {m: next(fresh) for m in range(model.k) if m not in number}
    order = sorted(number, key=lambda m: number[m])
    numbers = tuple(number[m] for m in order)
    matched = model.renumbered(order)
    return replace(matched, kept=() if numbers == matched.numbers else numbers)


def name_clusters(centres: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """Returns a name per cluster from where its centre lies, in standard deviations from the average customer.

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


def _scaled(model: ClusterModel) -> list[Column]:
    return [s.column(F.col(name).cast("double")) for name, s in zip(FEATURES, model.scales, strict=True)]


def _squared_distances(model: ClusterModel) -> list[Column]:
    """Squared distance of `_x` to every centre; for a mixture in its component's own deviations."""
    found = []
    for c, centre in enumerate(model.centres):
        away = [F.get("_x", F.lit(i)) - F.lit(value) for i, value in enumerate(centre)]
        if model.shapes:
            factor = model.shapes[c].factor
            away = [_sum([a * F.lit(factor[i][j]) for i, a in enumerate(away)]) for j in range(len(away))]
        found.append(_sum([a * a for a in away]))
    return found


def _sum(columns: Sequence[Column]) -> Column:
    total = columns[0]
    for column in columns[1:]:
        total = total + column
    return total


def _scales_of(pipeline: Pipeline) -> tuple[Scale, ...]:
    if "ranks" in pipeline.named_steps:
        ranks = pipeline["ranks"]
        return tuple(RankScale.between(of, ranks.references_) for of in ranks.quantiles_.T)
    scaler = pipeline["scale"]
    return tuple(LogScale(float(m), float(s)) for m, s in zip(scaler.mean_, scaler.scale_, strict=True))


def _shapes_of(fitted: Any) -> tuple[Shape, ...]:
    if not hasattr(fitted, "precisions_cholesky_"):
        return ()
    return tuple(
        Shape(tuple(_floats(row) for row in factor), float(-2 * np.log(np.diag(factor)).sum() - 2 * np.log(weight)))
        for factor, weight in zip(fitted.precisions_cholesky_, fitted.weights_, strict=True)
    )


def _deviations(model: ClusterModel) -> list[list[float]]:
    return [[s.deviations(v) for s, v in zip(model.scales, centre, strict=True)] for centre in model.centres]


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
