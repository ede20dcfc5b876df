"""One seed's model, ready to score anyone: the rank average of the regression per seed and the pooled model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from lakehouse.errors import ModelError
from models.adoption import fit_pooled_before
from models.judging import auc_of, lift_at
from models.lookalike import FEATURES, Pooled, SeedModel, fit_seed, fold_of, standardised, standards
from models.shoppers import ACTIVITY, Placed, Shoppers, Space, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES: Final = 1001
PARTS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Sizes of an audience, as parts of the candidates, that lift is measured at."""


@dataclass(frozen=True)
class AudienceModel:
    """A seed's model.

    Attributes:
        day: It has seen nothing of this day (days since 1970-01-01) or later.
        space: What purchases are placed in.
        seed: What sets the seed apart.
        pooled: The model over all categories of the period before.
        mean: Per feature, among the customers it was fitted on.
        scale: The same.
        resemblance_ranks: Quantiles of the regression per seed among them, ascending.
        pooled_ranks: The same of the pooled model.
        calibration: Slope and intercept of the log odds to be of the seed, by score.
    """

    day: int
    space: Space
    seed: SeedModel
    pooled: Pooled
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    resemblance_ranks: NDArray[np.float64]
    pooled_ranks: NDArray[np.float64]
    calibration: tuple[float, float]

    def score(self, lines: pd.DataFrame) -> pd.DataFrame:
        """Score the customers of some purchases.

        Args:
            lines: Rows customer_key, item, category, day; those of the model's day and later are not looked at.

        Returns:
            customer_key, score (mean rank, 0 to 1) and probability to be of the seed; customers who have not bought
            within 180 days, or nothing of the vocabulary, are left out.
        """
        shoppers = Shoppers.at(lines, self.day, self.space.vocabulary)
        active = shoppers.take(shoppers.is_active)
        score = self.ranks(self.seed.features(Placed.of(active, self.space))) if len(active) else np.empty(0)
        slope, intercept = self.calibration
        probability = 1 / (1 + np.exp(-(slope * score + intercept)))
        return pd.DataFrame({"customer_key": active.keys, "score": score, "probability": probability})

    def ranks(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the mean of the ranks by the two models, each against the customers it was fitted on."""
        pooled = self.pooled.probability((features - self.mean) / self.scale)
        by_seed = np.interp(features[:, 0], self.resemblance_ranks, np.linspace(0, 1, QUANTILES))
        by_all = np.interp(pooled, self.pooled_ranks, np.linspace(0, 1, QUANTILES))
        return (by_seed + by_all) / 2  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Expectation:
    """How the same recipe did on a fifth of the customers it had not seen.

    Attributes:
        auc: Of the audience's score, and of each baseline, by name.
        lift: How many times more often than everyone the part ranked highest is of the seed, by part.
        is_seed: Whether each of the fifth is of the seed.
        probability: What was said of them.
    """

    auc: dict[str, float]
    lift: dict[float, float]
    is_seed: NDArray[np.bool_]
    probability: NDArray[np.float64]

    def lift_of(self, part: float) -> float:
        """Returns the lift at a part of the customers, between those measured on a straight line."""
        parts = sorted(self.lift)
        return float(np.interp(part, parts, [self.lift[p] for p in parts]))


def fit_audience(
    lines: pd.DataFrame, day: int, seed_keys: NDArray[np.int64], without: Sequence[str] = ()
) -> tuple[AudienceModel, Expectation]:
    """Fit a seed's model and say what to expect of it.

    Args:
        lines: Rows customer_key, item, category, day; those of the day and later are not looked at.
        day: Days since 1970-01-01.
        seed_keys: Customer keys of the seed.
        without: Categories that define the seed, by name.

    Raises:
        ModelError: for an empty seed or one of everyone, unknown categories, or too little history.
    """
    past = lines[lines["day"] < day]
    if past.empty:
        raise ModelError("Lookalike: no purchases with a known category before that day; there is nothing to compare.")
    vocabulary = Vocabulary.of(past)
    unknown = sorted(set(without) - set(vocabulary.categories))
    if unknown:
        raise ModelError(f"Lookalike: nobody bought of the categories {', '.join(unknown)}; check their spelling.")
    left_out = [vocabulary.categories.index(c) for c in without]
    everyone = Shoppers.at(past, day, vocabulary)
    shoppers = everyone.take(everyone.is_active)
    is_seed = np.isin(shoppers.keys, seed_keys)
    space = Space.fit(shoppers, vocabulary)
    # First, because a seed too small or too large is told at once, and the pooled model takes a minute.
    seed = fit_seed(Placed.of(shoppers, space), is_seed, without=left_out)
    pooled = fit_pooled_before(past, day)
    held = fold_of(shoppers.keys) == 0
    expected = _expect(shoppers, space, pooled, is_seed, held, left_out)
    placed = Placed.of(shoppers, space)
    model = _assemble(day, space, seed, pooled, seed.features(placed), expected[1])
    return model, expected[0]


def _expect(
    shoppers: Shoppers,
    space: Space,
    pooled: Pooled,
    is_seed: NDArray[np.bool_],
    held: NDArray[np.bool_],
    left_out: Sequence[int],
) -> tuple[Expectation, tuple[float, float]]:
    """Everything that knows who is of the seed learns from four fifths; the last is scored, and calibrates."""
    learning, unseen = shoppers.take(~held), shoppers.take(held)
    truth = is_seed[held]
    if not 0 < truth.sum() < len(truth):
        raise ModelError("Lookalike: the seed is too small or too large to be judged on a fifth of the customers.")
    seed = fit_seed(Placed.of(learning, space), is_seed[~held], without=left_out)
    learnt = seed.features(Placed.of(learning, space))
    trial = _assemble(0, space, seed, pooled, learnt, (1.0, 0.0))
    features = seed.features(Placed.of(unseen, space))
    score = trial.ranks(features)
    column = dict(zip(FEATURES, standardised(features).T, strict=True))
    fitted = LogisticRegression(C=1e6).fit(score[:, None], truth)
    calibration = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    auc = {
        "rank average": auc_of(truth, score),
        "regression per seed": auc_of(truth, column["resemblance"]),
        "item affinity": auc_of(truth, column["affinity_share"]),
        "cosine": auc_of(truth, column["cosine"]),
        "activity": auc_of(truth, unseen.activity[:, ACTIVITY.index("days_90")]),
    }
    probability = fitted.predict_proba(score[:, None])[:, 1]
    return Expectation(auc, {p: lift_at(truth, score, p) for p in PARTS}, truth, probability), calibration


def _assemble(
    day: int,
    space: Space,
    seed: SeedModel,
    pooled: Pooled,
    features: NDArray[np.float64],
    calibration: tuple[float, float],
) -> AudienceModel:
    mean, scale = standards(features)
    said = pooled.probability((features - mean) / scale)
    steps = np.linspace(0, 1, QUANTILES)
    return AudienceModel(
        day, space, seed, pooled, mean, scale, np.quantile(features[:, 0], steps), np.quantile(said, steps), calibration
    )
