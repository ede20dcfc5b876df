"""Who resembles a seed: customers that did something, or any segment, against everyone else.

Per seed a logistic regression on the item space, always out of fold; and one pooled logistic regression over all
seeds of an earlier period, whose features say how a customer stands to a seed in the same words whatever the seed is.
What defines a seed is taken out of its features: without that, a lookalike of coffee buyers is who buys coffee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from lakehouse.errors import ModelError
from models.shoppers import ACTIVITY, Placed, has_bought, masked

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS: Final = 5
MIN_SEED: Final = 30
MIN_REST: Final = 100
NEAREST: Final = 20
"""Categories a seed is described by."""
SHRINK: Final = 0.02
"""Inverse strength of the penalty of the regression per seed; there are 32 directions and often few seeds."""
FEATURES: Final = (
    "resemblance", "cosine", "affinity", "affinity_share", "recent_affinity", "nearest_breadth", "nearest_depth",
    "nearest_recent", "category_cosine", "regressed_bought", "regressed_counts", "regressed_recent", "regressed_items",
    *ACTIVITY, "seed_share", "entry_rate",
)  # fmt: skip
"""Features of the pooled model: how a customer stands to a seed, how active they are, and how common the seed is."""


@dataclass(frozen=True)
class SeedModel:
    """What was learnt of one seed.

    Attributes:
        without: Categories that define the seed and are left out of all features.
        mean: Mean of each direction of the item space.
        scale: Its standard deviation.
        coefficients: One row per fold, of the regression that has not seen the fold.
        intercepts: The same.
        item_centre: Mean of the seed's customers in the item space, of unit length.
        category_centre: The same in the category space.
        similarity: Per category the cosine of buying it and being of the seed.
        nearest: The most similar categories.
        bought_weights: Per category, of the regression of membership on which were bought (`models.copurchase`).
        count_weights: Per category, of that on how often.
        item_weights: Per item, of that on which items were bought.
        share: Part of the customers who are of the seed.
        entry_rate: Part of the others who came to it in the 90 days before; the share where that is unknown.
    """

    without: tuple[int, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    item_centre: NDArray[np.float64]
    category_centre: NDArray[np.float64]
    similarity: NDArray[np.float64]
    nearest: NDArray[np.int64]
    bought_weights: NDArray[np.float64]
    count_weights: NDArray[np.float64]
    item_weights: NDArray[np.float64]
    share: float
    entry_rate: float

    def features(self, placed: Placed) -> NDArray[np.float64]:
        """Returns customers by `FEATURES`, not yet compared with one another (see `standardised`)."""
        shoppers, at = placed.shoppers, placed.by_items(self.without)
        log_odds = ((at - self.mean) / self.scale) @ self.coefficients.T + self.intercepts
        resemblance = log_odds[np.arange(len(shoppers)), fold_of(shoppers.keys)]
        bought = masked(shoppers.categories, self.without)
        recent = masked(shoppers.recent, self.without)
        affinity = bought @ self.similarity
        by_category = placed.by_categories(self.without)
        made = [
            resemblance,
            _cosine(at, self.item_centre),
            affinity,
            affinity / np.maximum(np.linalg.norm(bought, axis=1), 1e-12),
            recent @ self.similarity,
            (bought[:, self.nearest] > 0).mean(axis=1),
            bought[:, self.nearest].mean(axis=1),
            recent[:, self.nearest].mean(axis=1),
            _cosine(by_category, self.category_centre),
            (bought > 0) @ self.bought_weights,
            bought @ self.count_weights,
            recent @ self.count_weights,
            has_bought(shoppers.items) @ self.item_weights,
            *shoppers.activity.T,
            np.full(len(shoppers), np.log(max(self.share, 1e-4))),
            np.full(len(shoppers), np.log(self.entry_rate + 1e-3)),
        ]
        return np.column_stack(made)


def fit_seed(
    placed: Placed,
    is_seed: NDArray[np.bool_],
    *,
    without: Sequence[int] = (),
    entry_rate: float | None = None,
) -> SeedModel:
    """Learn what sets a seed apart from other active customers.

    Args:
        placed: Customers as of a day, in a space fitted on what was known that day.
        is_seed: Who is of the seed.
        without: Categories that define the seed.
        entry_rate: Part of the others who came to it lately, when known.

    Raises:
        ModelError: for an empty seed, one of (nearly) everyone, or too few of either side to learn from.
    """
    shoppers = placed.shoppers
    active = shoppers.is_active
    seeds, rest = int((is_seed & active).sum()), int((~is_seed & active).sum())
    if seeds < MIN_SEED:
        raise ModelError(f"Lookalike: the seed has {seeds} active customers; a model needs {MIN_SEED}.")
    if rest < MIN_REST:
        raise ModelError(
            f"Lookalike: {rest} active customers are outside the seed; there is nobody to tell it from or to find "
            f"(a model needs {MIN_REST})."
        )
    at = placed.by_items(without)
    scaler = StandardScaler().fit(at[active])
    scaled, fold = scaler.transform(at), fold_of(shoppers.keys)
    coefficients, intercepts = [], []
    with threadpool_limits(limits=1):
        for f in range(FOLDS):
            learns = active & (fold != f)
            if len(np.unique(is_seed[learns])) < 2:
                raise ModelError(
                    "Lookalike: without one fold of customers the seed is empty or everyone; it is too small."
                )
            fitted = LogisticRegression(C=SHRINK, max_iter=500).fit(scaled[learns], is_seed[learns])
            coefficients.append(fitted.coef_[0])
            intercepts.append(float(fitted.intercept_[0]))
    member = (is_seed & active).astype(np.float64)
    bought = masked(shoppers.categories, without)
    size = np.linalg.norm(bought, axis=0) * np.linalg.norm(member)
    similarity = np.where(size > 0, (member @ bought) / np.maximum(size, 1e-12), 0.0)
    both = member @ (bought > 0) / np.maximum(np.sqrt((bought > 0).sum(axis=0) * member.sum()), 1e-12)
    share = seeds / (seeds + rest)
    return SeedModel(
        without=tuple(without),
        mean=scaler.mean_,
        scale=scaler.scale_,
        coefficients=np.array(coefficients),
        intercepts=np.array(intercepts),
        item_centre=_centre(at[is_seed & active]),
        category_centre=_centre(placed.by_categories(without)[is_seed & active]),
        similarity=similarity,
        nearest=np.argsort(-both, kind="stable")[:NEAREST],
        bought_weights=placed.active_categories.weights(member[active], np.array(without, dtype=np.int64)),
        count_weights=placed.active_counts.weights(member[active], np.array(without, dtype=np.int64)),
        item_weights=placed.active_items.weights(member[active], placed.items_of(without)),
        share=share,
        entry_rate=share if entry_rate is None else entry_rate,
    )


@dataclass(frozen=True)
class Pooled:
    """One regression over all seeds of an earlier period.

    Attributes:
        mean: Per feature, after `standardised`.
        scale: The same.
        coefficients: The same.
        intercept: Of the log odds.
        pairs: Pairs of customer and seed it was fitted on.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float
    pairs: int

    def probability(self, compared: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the probability to come to the seed within the horizon the labels were made with."""
        log_odds = ((compared - self.mean) / self.scale) @ self.coefficients + self.intercept
        found: NDArray[np.float64] = 1 / (1 + np.exp(-log_odds))
        return found


def fit_pooled(compared: Sequence[NDArray[np.float64]], came: Sequence[NDArray[np.bool_]]) -> Pooled:
    """Fit on the candidates of every seed of an earlier period.

    Args:
        compared: Per seed the standardised features of its candidates.
        came: Per seed whether each came to it afterwards.

    Raises:
        ModelError: when there is no seed, or nobody, or everybody, came to any.
    """
    if not compared:
        raise ModelError("Lookalike: no seed of the earlier period is large enough to learn from.")
    rows, labels = np.vstack(compared), np.concatenate(came)
    if not 0 < labels.sum() < len(labels):
        raise ModelError("Lookalike: nobody or everybody came to the seeds of the earlier period.")
    scaler = StandardScaler().fit(rows)
    with threadpool_limits(limits=1):
        fitted = LogisticRegression(C=0.05, max_iter=1000).fit(scaler.transform(rows), labels)
    return Pooled(scaler.mean_, scaler.scale_, fitted.coef_[0], float(fitted.intercept_[0]), len(rows))


def standards(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns mean and standard deviation per feature among the candidates of one seed.

    0 and 1 for what is the same for all of them by its meaning.
    """
    own = len(FEATURES) - 2
    mean, scale = features[:, :own].mean(axis=0), features[:, :own].std(axis=0)
    return np.append(mean, [0.0, 0.0]), np.append(np.where(scale > 0, scale, 1.0), [1.0, 1.0])


def standardised(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns features compared among the candidates of one seed; what is the same for all of them stays."""
    mean, scale = standards(features)
    found: NDArray[np.float64] = (features - mean) / scale
    return found


def rank_average(*scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the mean of the ranks, from 0 to 1; equal scores share a rank."""
    ranks: NDArray[np.float64] = np.mean([rankdata(s) / len(s) for s in scores], axis=0)
    return ranks


def fold_of(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns each customer's fold, from a hash of the key, so that it is the same wherever they are scored."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(FOLDS)).astype(np.int64)


def _centre(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    mean = (rows / lengths).mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _cosine(rows: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows @ centre / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)
    return found
