"""How predictions of what customers do are judged, and what they are judged against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.histories import Histories

RESAMPLES: Final = 200
SEED: Final = 20_240_229


@dataclass(frozen=True)
class Judgement:
    """How well one day's predictions did against what followed.

    Attributes:
        customers: Customers predicted for.
        base_rate: Part of them who did it.
        auc: Probability that one who did is ranked above one who did not.
        brier: Mean squared error of the probability; None for a score that is none.
        brier_of_base: That of always saying the base rate.
        predicted_to_actual: Sum of probabilities by the number who did; None for a score that is none.
        top_decile_share: Part of the later spend that the tenth ranked highest by expected spend made.
        top_decile_perfect: The same for a perfect ranking.
        spend_correlation: Spearman's of expected and later spend.
    """

    customers: int
    base_rate: float
    auc: float
    brier: float | None
    brier_of_base: float
    predicted_to_actual: float | None
    top_decile_share: float
    top_decile_perfect: float
    spend_correlation: float


def judge(
    did: NDArray[np.bool_],
    spent: NDArray[np.float64],
    score: NDArray[np.float64],
    expected_spend: NDArray[np.float64] | None = None,
    *,
    is_probability: bool = True,
) -> Judgement:
    """Judge scores of customers by what followed.

    Args:
        did: Whether each bought within the horizon.
        spent: What they spent in it.
        score: Higher for who is more likely to.
        expected_spend: What they were expected to spend; the score unless given.
        is_probability: Whether the score is one.
    """
    ranked_by = score if expected_spend is None else expected_spend
    base = float(did.mean())
    return Judgement(
        customers=len(did),
        base_rate=base,
        auc=float(auc_of(did, score)),
        brier=float(np.mean((score - did) ** 2)) if is_probability else None,
        brier_of_base=base * (1 - base),
        predicted_to_actual=float(score.sum() / did.sum()) if is_probability else None,
        top_decile_share=top_share(spent, ranked_by),
        top_decile_perfect=top_share(spent, spent),
        spend_correlation=float(spearmanr(ranked_by, spent).statistic),
    )


def auc_of(did: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Returns the probability that one who did is ranked above one who did not, equal scores counting half.

    Unknown when everybody or nobody did. Scikit-learn's checks of its input take ten times as long.
    """
    positives, negatives = int(did.sum()), int((~did).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = float(rankdata(score)[did].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def top_share(spent: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    """Returns the part of all spend made by the tenth ranked highest; unknown when nothing was spent."""
    total = float(spent.sum())
    return float(spent[_highest(score, 0.1)].sum()) / total if total > 0 else float("nan")


def lift_at(did: NDArray[np.bool_], score: NDArray[np.float64], part: float) -> float:
    """Returns how many times more often the `part` ranked highest did it than everyone."""
    return float(did[_highest(score, part)].mean() / did.mean()) if did.any() else float("nan")


def _highest(score: NDArray[np.float64], part: float) -> NDArray[np.intp]:
    """Places of the `part` ranked highest, of one at least; of equal scores the first."""
    return np.argsort(-score, kind="stable")[: max(1, round(len(score) * part))]


def rfm_sum(histories: Histories, day: int) -> NDArray[np.float64]:
    """The plain baseline: sum of the fifths of recency, purchase days and spend; equal values share a fifth."""
    x, t_x, age = histories.triples(day)
    measures = (t_x - age, x, histories.total(histories.spend))
    return np.sum([np.ceil(5 * rankdata(m, method="average") / len(m)) for m in measures], axis=0)  # type: ignore[no-any-return]


def paired_gain(
    did: NDArray[np.bool_], better: NDArray[np.float64], than: NDArray[np.float64], seed: int = SEED
) -> tuple[float, float]:
    """Returns the difference in AUC of two scores of the same customers and its standard error, by bootstrap."""
    random = np.random.default_rng(seed)
    differences = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(did), len(did))
        if 0 < did[drawn].sum() < len(did):
            theirs = did[drawn]
            differences.append(auc_of(theirs, better[drawn]) - auc_of(theirs, than[drawn]))
    gain = auc_of(did, better) - auc_of(did, than)
    return float(gain), float(np.std(differences, ddof=1)) if len(differences) > 1 else float("nan")


def paired_brier_gain(
    did: NDArray[np.bool_], better: NDArray[np.float64], than: NDArray[np.float64]
) -> tuple[float, float]:
    """Returns how far the Brier score of one probability is below another's of the same customers, and its error."""
    less = (than - did) ** 2 - (better - did) ** 2
    return float(less.mean()), float(less.std(ddof=1) / np.sqrt(len(less)))


def reliability(did: NDArray[np.bool_], probability: NDArray[np.float64], bins: int = 10) -> pd.DataFrame:
    """One row per tenth of the customers by probability: predicted, observed, customers."""
    place = np.ceil(bins * rankdata(probability, method="ordinal") / len(probability))
    frame = pd.DataFrame({"bin": place.astype(int), "predicted": probability, "observed": did.astype(float)})
    grouped = frame.groupby("bin", as_index=False)
    return grouped.agg(predicted=("predicted", "mean"), observed=("observed", "mean"), customers=("bin", "size"))


def stability_index(before: NDArray[np.float64], now: NDArray[np.float64], bins: int = 10) -> float:
    """Population stability index of one measure between two days; below 0.1 is calm, above 0.25 an alarm.

    Edges are the quantiles of the earlier day, so equal values share a bin. An empty bin counts half a customer.
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))

    def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        return np.maximum(counts, 0.5) / len(values)  # type: ignore[no-any-return]

    return index_of_shares(shares(before), shares(now))


def index_of_shares(was: NDArray[np.float64], is_: NDArray[np.float64]) -> float:
    """Returns the population stability index of parts that add up to 1, none of them 0."""
    return float(np.sum((is_ - was) * np.log(is_ / was)))
