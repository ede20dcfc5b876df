"""Which clusters: as few as explain what members spend later, of those that come out the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from models.clustering import FEATURES, ClusterModel, numbers_of, usable_rows
from models.groupings import GROUPINGS, fitting
from models.stability import BOOTSTRAPS, SEED, spend_explained, steadiness

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

__all__ = ["BOOTSTRAPS", "SEED", "Candidate", "Past", "Selection", "select_clusters"]

CANDIDATES: Final = tuple(range(3, 9))
PLAIN: Final = next(iter(GROUPINGS))
"""The way that is tried first and alone where no later spend can tell ways apart."""
MIN_ARI: Final = 0.80
MIN_JACCARD: Final = 0.75
CLOSE: Final = 0.015
"""Part of later spend's variance that is not worth another cluster."""
MIN_SHARE: Final = 0.03
GOOD_ARI: Final = 0.85
"""From here on finer is worth more than steadier. Set after seeing two data sets at two days each, where it keeps 5 or
6 clusters; 3 or 4 are steadier there and coarser than a marketer can use."""
MIN_CUSTOMERS: Final = 50


@dataclass(frozen=True)
class Past:
    """An earlier day, whose groups can be judged by what followed.

    Attributes:
        values: Features of that day, in the order of `FEATURES`.
        later_spend: What each of the customers spent after it.
        as_of: The day; a model that knows of it or later cannot be judged by it.
    """

    values: NDArray[np.float64]
    later_spend: NDArray[np.float64]
    as_of: date

    def usable(self) -> Past:
        """Returns the customers without an unknown or infinite value."""
        known = np.isfinite(self.values).all(axis=1)
        return Past(self.values[known], self.later_spend[known], self.as_of)


@dataclass(frozen=True)
class Candidate:
    """How one way and number of clusters did.

    Attributes:
        way: A key of `models.groupings.GROUPINGS`.
        k: Number of clusters.
        ari: Mean adjusted Rand index (Hubert and Arabie, 1985) between the fit and fits on bootstrap samples; this and
            what follows unknown (NaN) when too little of later spend is explained for the candidate to be taken.
        ari_min: Worst of them.
        jaccard_min: Of the cluster found again worst, its mean Jaccard index over the refits.
        min_share: Share of the smallest cluster.
        spend_r2: Out-of-sample R2 of later spend by the clusters of an earlier day; None without one.
        is_stable: Whether all gates are passed.
    """

    way: str
    k: int
    ari: float
    ari_min: float
    jaccard_min: float
    min_share: float
    spend_r2: float | None
    is_stable: bool


@dataclass(frozen=True)
class Selection:
    """The outcome of training.

    Attributes:
        model: The chosen model's numbers; None when none was made.
        pipeline: The fitted scikit-learn pipeline of it.
        candidates: How every candidate did.
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
    past: Past | None = None,
    candidates: Sequence[int] = CANDIDATES,
    ways: Sequence[str] = tuple(GROUPINGS),
    seed: int = SEED,
) -> Selection:
    """Fit every way with every number of clusters and choose among those that are stable.

    A candidate is stable when refits on bootstrap samples agree with it (mean ARI at least 0.80, every cluster's
    Jaccard index at least 0.75) and no cluster is smaller than 3 % of the customers. Of those, the fewest clusters
    that explain later spend within 0.015 of the best, and of as many the steadiest; without a past day to judge by,
    the finest of the plain way with an ARI of 0.85 or more, and when there is none, the most stable.

    Args:
        values: Recency, frequency and net value per customer; rows with an unknown or infinite value are dropped.
        merchant_id: Retailer they belong to.
        as_of: Day of the features.
        past: An earlier day and what followed, to judge usefulness by.
        candidates: Numbers of clusters to try.
        ways: Ways of grouping to try, of `models.groupings.GROUPINGS`; only the first is, where there is no past day.
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
    judged_by = _judge_of(past, max(candidates))
    tried: list[Candidate] = []
    for way in ways if judged_by is not None else ways[:1]:
        # Steadiness costs ten fits, so another way is asked for it only where it could be taken.
        enough = max((c.spend_r2 or 0.0 for c in tried if c.is_stable), default=-np.inf) - CLOSE
        tried += [_try(rows, way, k, seed, judged_by, enough) for k in candidates]
    stable = [c for c in tried if c.is_stable]
    if not stable:
        best = max(tried, key=lambda c: np.nan_to_num(c.ari, nan=-1.0))
        why = (
            f"No number of clusters is stable: the best, {best.k}, has ARI {best.ari:.2f} (needs {MIN_ARI:.2f}), a "
            f"lowest Jaccard index of {best.jaccard_min:.2f} (needs {MIN_JACCARD:.2f}) and a smallest share of "
            f"{best.min_share:.1%} (needs {MIN_SHARE:.0%})."
        )
        return Selection(None, None, tuple(tried), len(rows), why)
    chosen, kind = _choose(stable)
    with threadpool_limits(limits=1):
        pipeline = GROUPINGS[chosen.way](chosen.k, seed).fit(pd.DataFrame(rows, columns=list(FEATURES)))
    why = f"{chosen.k} clusters ({chosen.way}): {kind} (ARI {chosen.ari:.2f}, smallest share {chosen.min_share:.1%})."
    return Selection(numbers_of(pipeline, chosen.way, rows, merchant_id, as_of), pipeline, tuple(tried), len(rows), why)


def _choose(stable: Sequence[Candidate]) -> tuple[Candidate, str]:
    useful = [c for c in stable if c.spend_r2 is not None and np.isfinite(c.spend_r2)]
    if useful:
        best = max(c.spend_r2 or 0.0 for c in useful)
        close = [c for c in useful if (c.spend_r2 or 0.0) >= best - CLOSE]
        chosen = min(close, key=lambda c: (c.k, -c.ari))
        return chosen, f"the fewest within {CLOSE} of the best R2 of later spend, {chosen.spend_r2:.2f}"
    good = [c for c in stable if c.ari >= GOOD_ARI]
    if good:
        return max(good, key=lambda c: c.k), f"the finest with ARI {GOOD_ARI:.2f} or more"
    return max(stable, key=lambda c: c.ari), "the most stable"


def _judge_of(past: Past | None, most: int) -> Past | None:
    usable = past.usable() if past is not None else None
    if usable is None or len(usable.values) < MIN_CUSTOMERS or len(np.unique(usable.values, axis=0)) <= most:
        return None
    return usable


def _try(rows: NDArray[np.float64], way: str, k: int, seed: int, past: Past | None, enough: float) -> Candidate:
    make = GROUPINGS[way]
    explained = None
    if past is not None:
        with threadpool_limits(limits=1):
            labels = make(k, seed).fit(past.values).predict(past.values)
        explained = spend_explained(labels, past.later_spend, seed)
        if explained < enough:
            unknown = float("nan")
            return Candidate(way, k, unknown, unknown, unknown, unknown, explained, False)
    found = steadiness(rows, fitting(make, k), k, seed)
    is_stable = found.ari >= MIN_ARI and found.jaccard_min >= MIN_JACCARD and found.min_share >= MIN_SHARE
    return Candidate(way, k, found.ari, found.ari_min, found.jaccard_min, found.min_share, explained, is_stable)
