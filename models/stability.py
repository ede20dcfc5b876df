"""How steady and how useful a way of grouping customers is; silhouette is neither and is not asked.

Steady: refits on bootstrap samples agree (adjusted Rand index; Jaccard of each cluster, Hennig 2007). Useful: the
groups of one day explain what their members spend afterwards, out of sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score  # at the top: a limit on threads reaches only what is loaded
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOOTSTRAPS: Final = 8
FOLDS: Final = 10
SEED: Final = 20_240_229
SAMPLE: Final = 10_000
"""Rows stability is measured on; more cost time and change the second digit."""


class Grouping(Protocol):
    """A fitted way of grouping, as scikit-learn has it."""

    def predict(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns the group of each row."""


Fit = Callable[["NDArray[np.float64]", int], Grouping]
"""Fits a grouping on values with a seed."""


@dataclass(frozen=True)
class Steadiness:
    """How a grouping fares when it is fitted again.

    Attributes:
        ari: Mean adjusted Rand index (Hubert and Arabie, 1985) between the fit and fits on bootstrap samples.
        ari_min: Worst of them.
        jaccard_min: Of the cluster found again worst, its mean Jaccard index over the refits.
        min_share: Share of the smallest cluster.
    """

    ari: float
    ari_min: float
    jaccard_min: float
    min_share: float


def steadiness(values: NDArray[np.float64], fit: Fit, k: int, seed: int = SEED) -> Steadiness:
    """Fit, refit on bootstrap samples, and compare on the same customers.

    Args:
        values: Customers by features; beyond 10,000 a sample of them is used.
        fit: The way of grouping.
        k: Its number of groups.
        seed: Makes samples and fits repeatable.
    """
    random = np.random.default_rng([seed, k])
    held = values[random.choice(len(values), SAMPLE, replace=False)] if len(values) > SAMPLE else values
    agreed, found_again = [], []
    # A few thousand rows of a few numbers: threads cost more than they bring, tenfold on a busy machine.
    with threadpool_limits(limits=1):
        labels = fit(held, seed).predict(held)
        for n in range(BOOTSTRAPS):
            again = fit(held[random.integers(0, len(held), len(held))], seed + n).predict(held)
            agreed.append(adjusted_rand_score(labels, again))
            found_again.append(_jaccard(labels, again, k))
    share = float(np.bincount(labels, minlength=k).min() / len(held))
    worst = float(np.mean(found_again, axis=0).min())
    return Steadiness(float(np.mean(agreed)), float(np.min(agreed)), worst, share)


def spend_explained(labels: NDArray[np.int64], later_spend: NDArray[np.float64], seed: int = SEED) -> float:
    """Returns the out-of-sample R2 of log(1 + later spend) by the mean of the group, over ten folds.

    Net spend below zero counts as zero. Unknown when everyone spends the same.
    """
    errors, spread = spend_errors(labels, later_spend, seed)
    return 1 - float(errors.mean()) / spread if spread > 0 else float("nan")


def spend_errors(
    labels: NDArray[np.int64], later_spend: NDArray[np.float64], seed: int = SEED
) -> tuple[NDArray[np.float64], float]:
    """Returns per customer the squared error of `spend_explained`, and the variance of what is explained."""
    target = np.log1p(np.maximum(later_spend, 0.0))
    fold = np.random.default_rng(seed).permutation(len(target)) % FOLDS
    said = np.empty(len(target))
    for f in range(FOLDS):
        learns = fold != f
        means = pd.Series(target[learns]).groupby(labels[learns]).mean()
        said[~learns] = pd.Series(labels[~learns]).map(means).fillna(target[learns].mean())
    errors: NDArray[np.float64] = (target - said) ** 2
    return errors, float(target.var())


def _jaccard(labels: NDArray[np.int64], again: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Per cluster the best Jaccard index with any cluster of the refit; 0 for one nobody is in."""
    size = max(k, int(labels.max()) + 1, int(again.max()) + 1)
    both = np.zeros((size, size))
    np.add.at(both, (labels, again), 1)
    union = both.sum(axis=1)[:, None] + both.sum(axis=0)[None, :] - both
    found: NDArray[np.float64] = (both / np.maximum(union, 1)).max(axis=1)[:k]
    return found
