"""What new clusters must show before they place anyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.clustering import ClusterModel, place_of, shares_in
from models.gate import ALARM, CLEAR
from models.judging import index_of_shares
from models.stability import spend_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.selection import Past


@dataclass(frozen=True)
class ClusterVerdict:
    """What a trial on a past day showed; stability has been asked for before (`models.selection`).

    Attributes:
        is_accepted: Whether the model may place customers.
        reason: Why, or why not; one sentence.
        drift: Stability index of the sizes of its clusters, from the past day to now; None without one.
        champion_drift: The same of the champion's, from its training to now; None without a champion.
        over_champion: Gain in R2 of later spend over the champion, and its standard error; None when not compared.
    """

    is_accepted: bool
    reason: str
    drift: float | None = None
    champion_drift: float | None = None
    over_champion: tuple[float, float] | None = None

    def metrics(self) -> dict[str, float]:
        """Returns what is known of them by name."""
        found = {"size_drift": self.drift, "champion_size_drift": self.champion_drift}
        if self.over_champion is not None:
            found |= {"r2_over_champion": self.over_champion[0], "r2_over_champion_se": self.over_champion[1]}
        return {name: value for name, value in found.items() if value is not None}


def try_clusters(
    values: NDArray[np.float64], model: ClusterModel, champion: ClusterModel | None, past: Past | None
) -> ClusterVerdict:
    """Compare stable clusters with the champion's on a past day by what its customers spent afterwards.

    Args:
        values: Customers as they are now, in the order of `models.clustering.FEATURES`.
        model: The new model.
        champion: The model in charge.
        past: A day its customers are known of, and what followed.

    Returns:
        Accepted when there is no champion; when the champion's clusters have drifted from the sizes they were made
        with; and when the same way with as many clusters, fitted on the past day, says more of later spend than the
        champion beyond noise. Refused when its own clusters would have drifted since the past day, unless there is no
        champion: in a merchant's first months everyone's history grows. A champion that
        knows of the past day or later cannot be compared and stays, and so it does where there is no past day.
    """
    known = past.usable() if past is not None else None
    drift = None if known is None else _drift(shares_in(known.values, model), shares_in(values, model))
    if champion is None:
        note = "" if drift is None or drift <= ALARM else f"; customers have moved within 90 days (index {drift:.2f})"
        return ClusterVerdict(True, f"Accepted: stable, and the first of this merchant{note}.", drift)
    moved = _drift(np.array(champion.shares), shares_in(values, champion))
    if moved > ALARM:
        reason = f"Accepted: the sizes of the champion's clusters have drifted (stability index {moved:.2f})."
        return ClusterVerdict(True, reason, drift, moved)
    if drift is not None and drift > ALARM:
        why = f"its clusters' sizes would have drifted within the trial (stability index {drift:.2f})"
        return ClusterVerdict(False, f"Kept as challenger: {why}.", drift, moved)
    if known is None or champion.as_of > known.as_of:
        why = "the champion has seen the days of the trial, so the two cannot be compared; it stays"
        if known is None:
            why = "there is no past day to compare with the champion on; it stays"
        return ClusterVerdict(False, f"Kept as challenger: {why}.", drift, moved)
    gain = _gain(known, model, champion)
    if gain[0] > CLEAR * gain[1]:
        reason = f"Accepted: {gain[0]:+.4f} (standard error {gain[1]:.4f}) R2 of later spend over the champion."
        return ClusterVerdict(True, reason, drift, moved, gain)
    why = f"it says no more of later spend than the champion beyond noise (R2 {gain[0]:+.4f}, error {gain[1]:.4f})"
    return ClusterVerdict(False, f"Kept as challenger: {why}.", drift, moved, gain)


def _gain(past: Past, model: ClusterModel, champion: ClusterModel) -> tuple[float, float]:
    """Difference in R2 on the past day, of the new recipe fitted then and the champion as it is, and its error."""
    from threadpoolctl import threadpool_limits

    from models.groupings import GROUPINGS
    from models.selection import SEED

    with threadpool_limits(limits=1):
        labels = GROUPINGS[model.way](model.k, SEED).fit(past.values).predict(past.values)
    new, spread = spend_errors(labels, past.later_spend)
    old, _ = spend_errors(place_of(past.values, champion), past.later_spend)
    if spread <= 0:
        return 0.0, 0.0
    less = (old - new) / spread
    return float(less.mean()), float(less.std(ddof=1) / np.sqrt(len(less)))


def _drift(was: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    # An empty cluster counts a thousandth, so that the index is finite.
    floor = 0.001
    return index_of_shares(np.maximum(was, floor), np.maximum(now, floor))
