"""Ways of grouping customers by recency, frequency and value, as scikit-learn pipelines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, StandardScaler

from models.stability import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESTARTS: Final = 10


def log_kmeans(k: int, seed: int, restarts: int = RESTARTS) -> Pipeline:
    """Floor at zero, logarithm, standardise, k-means: what is registered and scores."""
    means = KMeans(n_clusters=k, n_init=restarts, random_state=seed)
    return Pipeline([*_floor_and_log(), ("scale", StandardScaler()), ("kmeans", means)])


def rank_kmeans(k: int, seed: int, restarts: int = RESTARTS) -> Pipeline:
    """Ranks from 0 to 1, k-means: no single spender matters, and neither does by how much they spend more."""
    ranks = QuantileTransformer(n_quantiles=200, random_state=seed)
    return Pipeline([("ranks", ranks), ("kmeans", KMeans(n_clusters=k, n_init=restarts, random_state=seed))])


def log_mixture(k: int, seed: int, restarts: int = 2) -> Pipeline:
    """Floor at zero, logarithm, standardise, Gaussian mixture with full covariances."""
    mixture = GaussianMixture(n_components=k, n_init=restarts, random_state=seed, reg_covar=1e-4)
    return Pipeline([*_floor_and_log(), ("scale", StandardScaler()), ("mixture", mixture)])


GROUPINGS: Final[dict[str, Callable[[int, int], Pipeline]]] = {
    "k-means, log": log_kmeans,
    "k-means, ranks": rank_kmeans,
    "Gaussian mixture, log": log_mixture,
}


def fitting(make: Callable[[int, int], Pipeline], k: int) -> Fit:
    """Returns the function that fits a way of grouping with k groups."""
    return partial(_fit, make, k)


def _fit(make: Callable[[int, int], Pipeline], k: int, values: NDArray[np.float64], seed: int) -> Any:
    return make(k, seed).fit(values)


def _floor_and_log() -> list[tuple[str, FunctionTransformer]]:
    return [
        ("floor", FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": None})),
        ("log1p", FunctionTransformer(np.log1p)),
    ]
