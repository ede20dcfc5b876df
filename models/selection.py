"""How many clusters: as many as come out the same again on resampled customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score  # at the top: a limit on threads reaches only what is loaded
from threadpoolctl import threadpool_limits

from models.clustering import FEATURES, ClusterModel, make_pipeline, numbers_of, usable_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

CANDIDATES: Final = tuple(range(3, 9))
SEED: Final = 20_240_229
BOOTSTRAPS: Final = 8
MIN_ARI: Final = 0.80
MIN_SHARE: Final = 0.03
GOOD_ARI: Final = 0.85
"""From here on finer is worth more than steadier. Set after seeing two data sets at two days each, where it keeps 5 or
6 clusters; 3 or 4 are steadier there and coarser than a marketer can use."""
MIN_CUSTOMERS: Final = 50
SAMPLE_FOR_SELECTION: Final = 10_000


@dataclass(frozen=True)
class Candidate:
    """How one number of clusters did.

    Attributes:
        k: Number of clusters.
        ari: Mean adjusted Rand index (Hubert and Arabie, 1985) between the fit and fits on bootstrap samples.
        ari_min: Worst of them.
        min_share: Share of the smallest cluster.
        inertia: Mean squared distance to the nearest centre, standardised log features.
        is_stable: Whether both gates are passed.
    """

    k: int
    ari: float
    ari_min: float
    min_share: float
    inertia: float
    is_stable: bool


@dataclass(frozen=True)
class Selection:
    """The outcome of training.

    Attributes:
        model: The chosen model's numbers; None when none was made.
        pipeline: The fitted scikit-learn pipeline of it.
        candidates: How every number of clusters did.
        rows: Customers it was trained on.
        reason: Why there is no model, or how it was chosen; one sentence.
    """

    model: ClusterModel | None
    pipeline: Pipeline | None
    candidates: tuple[Candidate, ...]
    rows: int
    reason: str


def select_clusters(
    values: NDArray[np.float64],
    *,
    merchant_id: str,
    as_of: date,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = SEED,
) -> Selection:
    """Fit k-means for every candidate and keep the finest that is stable.

    A candidate is stable when refits on bootstrap samples agree with it (mean ARI at least 0.80) and no cluster is
    smaller than 3 % of the customers. Of those with an ARI of 0.85 or more the largest k is kept; when there is none,
    the most stable.

    Args:
        values: Recency, frequency and net value per customer; rows with an unknown or infinite value are dropped.
        merchant_id: Retailer they belong to.
        as_of: Day of the features.
        candidates: Numbers of clusters to try.
        seed: Makes sampling and fits repeatable.

    Returns:
        A selection without a model, and the reason, for fewer than 50 customers, for customers who are (nearly) all
        alike, and when no candidate is stable. It never raises for what the data are.
    """
    rows = usable_rows(np.asarray(values, dtype=np.float64).reshape(-1, len(FEATURES)))
    if len(rows) < MIN_CUSTOMERS:
        return Selection(None, None, (), len(rows), f"{len(rows)} usable customers; clusters need {MIN_CUSTOMERS}.")
    distinct = len(np.unique(np.log1p(np.clip(rows, 0, None)), axis=0))
    if distinct <= max(candidates):
        return Selection(None, None, (), len(rows), f"Only {distinct} different customers; there is nothing to group.")
    # A few thousand rows of three numbers: threads cost more than they bring, tenfold on a busy machine.
    with threadpool_limits(limits=1):
        tried = tuple(_try(rows, k, seed) for k in candidates)
    stable = [c for c in tried if c.is_stable]
    if not stable:
        best = max(tried, key=lambda c: c.ari)
        why = (
            f"No number of clusters is stable: the best, {best.k}, has ARI {best.ari:.2f} (needs {MIN_ARI:.2f}) and a "
            f"smallest share of {best.min_share:.1%} (needs {MIN_SHARE:.0%})."
        )
        return Selection(None, None, tried, len(rows), why)
    good = [c for c in stable if c.ari >= GOOD_ARI]
    chosen = max(good, key=lambda c: c.k) if good else max(stable, key=lambda c: c.ari)
    with threadpool_limits(limits=1):
        pipeline = make_pipeline(chosen.k, seed, restarts=10).fit(pd.DataFrame(rows, columns=list(FEATURES)))
    kind = f"the finest with ARI {GOOD_ARI:.2f} or more" if good else "the most stable"
    why = f"{chosen.k} clusters: {kind} (ARI {chosen.ari:.2f}, smallest share {chosen.min_share:.1%})."
    return Selection(numbers_of(pipeline, merchant_id, as_of), pipeline, tried, len(rows), why)


def _try(rows: NDArray[np.float64], k: int, seed: int) -> Candidate:
    random = np.random.default_rng([seed, k])
    held = (
        rows[random.choice(len(rows), SAMPLE_FOR_SELECTION, replace=False)]
        if len(rows) > SAMPLE_FOR_SELECTION
        else rows
    )
    fitted = make_pipeline(k, seed, restarts=10).fit(held)
    labels = fitted.predict(held)
    again = []
    for n in range(BOOTSTRAPS):
        sample = held[random.integers(0, len(held), len(held))]
        again.append(adjusted_rand_score(labels, make_pipeline(k, seed + n, restarts=10).fit(sample).predict(held)))
    ari = float(np.mean(again))
    share = float(np.bincount(labels, minlength=k).min() / len(held))
    inertia = float(fitted["kmeans"].inertia_ / len(held))
    return Candidate(k, ari, float(np.min(again)), share, inertia, ari >= MIN_ARI and share >= MIN_SHARE)
