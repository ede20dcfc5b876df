"""The test of lookalikes on what customers really did: who first buys a category in the next 90 days.

The seed of a category are those who have bought it. Candidates are active and have not; positive is who then does.
The pooled model learns from all categories of the period before, so nothing of the days judged is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from lakehouse.errors import ModelError
from models.judging import auc_of, lift_at
from models.lookalike import FEATURES, Pooled, fit_pooled, fit_seed, rank_average, standardised
from models.shoppers import Placed, Shoppers, Space, Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

HORIZON: Final = 90
MIN_SEED: Final = 60
MIN_CANDIDATES: Final = 300
MIN_POSITIVES: Final = 20
CATEGORIES: Final = 1_000
"""All of them, as a rule: with two dozen drawn, the mean moves by 0.015 from one draw to the next."""
SEED: Final = 20_240_229


@dataclass(frozen=True)
class Moment:
    """Everything known at the start of a day, and what followed."""

    day: int
    vocabulary: Vocabulary
    shoppers: Shoppers
    placed: Placed
    has: NDArray[np.bool_]
    later: NDArray[np.bool_]
    entered: NDArray[np.float64]

    @classmethod
    def at(cls, lines: pd.DataFrame, day: int) -> Moment:
        """Returns the moment; the vocabulary and the space are of what was bought before it."""
        past = lines[lines["day"] < day]
        vocabulary = Vocabulary.of(past)
        shoppers = Shoppers.at(past, day, vocabulary)
        earlier = Shoppers.at(past, day - HORIZON, vocabulary)
        has = shoppers.categories > 0
        had = np.zeros_like(has)
        had[np.searchsorted(shoppers.keys, earlier.keys)] = earlier.categories > 0
        after = lines[(lines["day"] >= day) & (lines["day"] < day + HORIZON)]
        later = np.zeros_like(has)
        item = vocabulary.numbers(after["item"])
        who = pd.Index(shoppers.keys).get_indexer(after["customer_key"])
        known = (item >= 0) & (who >= 0)
        later[who[known], vocabulary.category_of[item[known]]] = True
        entered = (has & ~had).sum(axis=0) / np.maximum((~had).sum(axis=0), 1)
        return cls(day, vocabulary, shoppers, Placed.of(shoppers, Space.fit(shoppers, vocabulary)), has, later, entered)

    def eligible(self) -> list[int]:
        """Categories with enough buyers and enough others; looks at nothing of what follows."""
        active = self.shoppers.is_active
        seeds = self.has[active].sum(axis=0)
        return [c for c, n in enumerate(seeds) if n >= MIN_SEED and active.sum() - n >= MIN_CANDIDATES]

    def candidates(self, category: int) -> NDArray[np.bool_]:
        """Active customers who have not bought the category."""
        return self.shoppers.is_active & ~self.has[:, category]

    def compared(self, category: int) -> NDArray[np.float64]:
        """Standardised features of a category's candidates."""
        seed = fit_seed(
            self.placed,
            self.has[:, category],
            without=(category,),
            entry_rate=float(self.entered[category]),
        )
        return standardised(seed.features(self.placed)[self.candidates(category)])


def fit_pooled_before(lines: pd.DataFrame, day: int) -> Pooled:
    """Fit the pooled model on what customers came to in the 90 days before a day."""
    earlier = Moment.at(lines[lines["day"] < day], day - HORIZON)
    categories = earlier.eligible()
    return fit_pooled(
        [earlier.compared(c) for c in categories], [earlier.later[earlier.candidates(c), c] for c in categories]
    )


def judge_adoption(lines: pd.DataFrame, day: int, categories: int = CATEGORIES, seed: int = SEED) -> pd.DataFrame:
    """One row per category and way of ranking: how well it found who came to the category in the next 90 days.

    Args:
        lines: Rows customer_key, item, category, day, from before and after the day.
        day: Days since 1970-01-01.
        categories: How many to draw at random among those with 20 or more who came.
        seed: Of the draw.

    Returns:
        category, way (pooled, rank_average, seed_regression, affinity, cosine, activity), auc, lift_5, lift_10,
        base_rate, candidates and, of the pooled model, predicted_to_actual.

    Raises:
        ModelError: when no category is large enough.
    """
    pooled = fit_pooled_before(lines, day)
    now = Moment.at(lines, day)
    usable = [c for c in now.eligible() if now.later[now.candidates(c), c].sum() >= MIN_POSITIVES]
    if not usable:
        raise ModelError(f"Lookalike: no category has {MIN_SEED} buyers and {MIN_POSITIVES} who came to it.")
    drawn = np.random.default_rng(seed).permutation(usable)[:categories]
    rows = []
    for c in drawn:
        did = now.later[now.candidates(c), c]
        compared = now.compared(c)
        probability = pooled.probability(compared)
        column = dict(zip(FEATURES, compared.T, strict=True))
        ways = {
            "pooled": probability,
            "rank_average": rank_average(probability, column["resemblance"]),
            "seed_regression": column["resemblance"],
            "affinity": column["affinity_share"],
            "cosine": column["cosine"],
            "activity": column["days_90"],
        }
        rows += [
            {
                "category": now.vocabulary.categories[c],
                "way": way,
                "auc": auc_of(did, score),
                "lift_5": lift_at(did, score, 0.05),
                "lift_10": lift_at(did, score, 0.10),
                "base_rate": did.mean(),
                "candidates": len(did),
                "predicted_to_actual": probability.sum() / did.sum() if way == "pooled" else np.nan,
            }
            for way, score in ways.items()
        ]
    return pd.DataFrame(rows)
