"""The test of clusters on what customers really did: groups of a past day against the spend of the 90 days after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from models.groupings import GROUPINGS, fitting
from models.histories import Histories
from models.judging import rfm_sum
from models.selection import CLOSE, MIN_ARI, MIN_JACCARD, MIN_SHARE
from models.stability import SEED, spend_explained, steadiness

if TYPE_CHECKING:
    from numpy.typing import NDArray

HORIZON: Final = 90
SIZES: Final = tuple(range(3, 9))


def values_at(known: Histories, day: int) -> NDArray[np.float64]:
    """Returns recency in days, baskets and net spend per customer, as `models.clustering.FEATURES` orders them."""
    _, t_x, age = known.triples(day)
    return np.column_stack([age - t_x, known.total(known.baskets), known.total(known.spend)])


def judge_groupings(histories: Histories, day: int, sizes: tuple[int, ...] = SIZES) -> pd.DataFrame:
    """One row per way of grouping and number of groups, and one for the plain R + F + M sum.

    Returns:
        way, k, ari, jaccard_min, min_share, spend_r2, and is_chosen: the k the protocol takes of each way, none when
        no k of it is stable.
    """
    known = histories.before(day)
    values, later = values_at(known, day), histories.outcome(known.keys, day, HORIZON)[1]
    rows = []
    for way, make in GROUPINGS.items():
        for k in sizes:
            steady = steadiness(values, fitting(make, k), k)
            with threadpool_limits(limits=1):
                labels = make(k, SEED).fit(values).predict(values)
            rows.append((way, k, steady.ari, steady.jaccard_min, steady.min_share, spend_explained(labels, later)))
    sums = rfm_sum(known, day).astype(np.int64)
    rows.append(("R + F + M sum", len(np.unique(sums)), np.nan, np.nan, np.nan, spend_explained(sums, later)))
    judged = pd.DataFrame(rows, columns=["way", "k", "ari", "jaccard_min", "min_share", "spend_r2"])
    is_stable = (judged["ari"] >= MIN_ARI) & (judged["jaccard_min"] >= MIN_JACCARD) & (judged["min_share"] >= MIN_SHARE)
    best = judged["spend_r2"].where(is_stable).groupby(judged["way"]).transform("max")
    close = is_stable & (judged["spend_r2"] >= best - CLOSE)
    fewest = judged["k"].where(close).groupby(judged["way"]).transform("min")
    return judged.assign(is_chosen=close & (judged["k"] == fewest))
