"""How a cluster model measures one feature: by standardised logarithm or by rank; in numpy and as a Spark expression.

Both give the same number, so a model is fitted on the driver and scores every customer without Python in the executors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import Column
from pyspark.sql import functions as F
from scipy.stats import norm

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LogScale:
    """Logarithm (log1p), standardised; values below zero count as zero, where log1p has no meaning.

    Attributes:
        mean: Of the logarithms.
        deviation: Standard deviation of them; 1 for a constant feature.
    """

    mean: float
    deviation: float

    def of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the values on this scale."""
        found: NDArray[np.float64] = (np.log1p(np.maximum(values, 0.0)) - self.mean) / self.deviation
        return found

    def column(self, value: Column) -> Column:
        """Returns a column of doubles on this scale."""
        return (F.log1p(F.greatest(value, F.lit(0.0))) - F.lit(self.mean)) / F.lit(self.deviation)

    def deviations(self, position: float) -> float:
        """Returns how many standard deviations a position on this scale is from the average customer."""
        return position


@dataclass(frozen=True)
class RankScale:
    """Rank among the customers of the training, 0 to 1, straight lines between quantiles.

    A value that many share has the middle of their ranks; so has scikit-learn's `QuantileTransformer`.

    Attributes:
        knots: Distinct quantiles, ascending.
        low: Rank that is reached from below at each.
        at: Rank of the value itself.
        high: Rank from which it goes on above.
    """

    knots: tuple[float, ...]
    low: tuple[float, ...]
    at: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def between(cls, quantiles: Sequence[float], ranks: Sequence[float]) -> RankScale:
        """Returns the scale of quantiles, equal ones next to one another, and the rank of each."""
        knots, first, counts = np.unique(np.asarray(quantiles), return_index=True, return_counts=True)
        low, high = np.asarray(ranks)[first], np.asarray(ranks)[first + counts - 1]
        at = (low + high) / 2
        at[-1], at[0] = 1.0, 0.0  # the lowest and the highest are the ends, however many share them; one alone is low
        return cls(*(tuple(float(v) for v in values) for values in (knots, low, at, high)))

    def of(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the values on this scale."""
        knots, low, high = np.array(self.knots), np.array(self.low), np.array(self.high)
        below = np.searchsorted(knots, values, side="right") - 1
        here = np.clip(below, 0, len(knots) - 1)
        after = np.minimum(here + 1, len(knots) - 1)
        width = np.where(after > here, knots[after] - knots[here], 1.0)
        between = high[here] + (low[after] - high[here]) * (values - knots[here]) / width
        inside = np.where(values == knots[here], np.array(self.at)[here], between)
        found: NDArray[np.float64] = np.where(below < 0, 0.0, np.where(values > knots[-1], 1.0, inside))
        return found

    def column(self, value: Column) -> Column:
        """Returns a column of doubles on this scale."""
        knots, low, at, high = (
            F.array(*[F.lit(v) for v in values]) for values in (self.knots, self.low, self.at, self.high)
        )
        below = F.size(F.filter(knots, lambda knot: knot <= value)) - 1
        here, after = F.get(knots, below), F.get(knots, below + 1)
        share = (value - here) / (after - here)
        between = F.get(high, below) + (F.get(low, below + 1) - F.get(high, below)) * share
        return (
            F.when(below < 0, F.lit(0.0))
            .when(value > F.lit(self.knots[-1]), F.lit(1.0))
            .when(value == here, F.get(at, below))
            .otherwise(between)
        )

    def deviations(self, position: float) -> float:
        """Returns how many standard deviations a normal measure of the same rank is from its mean."""
        return float(norm.ppf(np.clip(position, 0.01, 0.99)))


Scale = LogScale | RankScale
