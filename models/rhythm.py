"""What a customer's purchase days say on a given day: look-back features of fixed length, one row per customer.

Every window has a fixed length, so a customer of two years and one of two months are measured alike and a model
trained on an early day may score a late one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from models.bgnbd import BgNbd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.histories import Histories

WINDOWS: Final = (7, 14, 30, 60, 90, 180, 365)
"""Days looked back."""
YEAR: Final = 365

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "long silence": (
        "recency_days",
        "silence_in_gaps",
        "probability_alive",
        "probability_active",
        "expected_purchases",
    ),
    "few purchases": (*(f"purchase_days_{w}d" for w in WINDOWS), "baskets_365d", "repeat_purchases"),
    "irregular rhythm": ("gap_mean", "gap_sd", "gap_longest", "gap_last"),
    "low spend": (*(f"spend_{w}d" for w in WINDOWS), "basket_value_mean"),
    "short tenure": ("tenure_days",),
    "season": ("purchase_days_same_season",),
    "returns": ("return_days_365d",),
}
"""Features by what they tell; the name is how one of them that raises the risk is called."""
NAMES: Final = tuple(name for names in GROUPS.values() for name in names)


def rhythm_features(histories: Histories, day: int, horizon: int, buying: BgNbd) -> pd.DataFrame:
    """One row per customer, in the order of the histories, with the columns of `NAMES`.

    Args:
        histories: From `Histories.before(day)`: nothing of the day itself or later.
        day: Days since 1970-01-01.
        horizon: Days ahead that will be predicted; the same days a year ago are one of the features.
        buying: BG/NBD fitted on days, on what was known then.

    Returns:
        Counts in days, spend in merchant currency and never below zero. Gaps are unknown before the second (mean,
        longest, last) and third purchase day (standard deviation).
    """
    age = (day - histories.days).astype(np.float64)
    bought = histories.baskets > 0
    on_day = bought.astype(np.float64)
    x, t_x, known_for = histories.triples(day)
    recency = known_for - t_x
    made: dict[str, NDArray[np.float64]] = {"recency_days": recency, "tenure_days": np.minimum(known_for, YEAR)}
    for w in WINDOWS:
        made[f"purchase_days_{w}d"] = histories.total(on_day, age <= w)
        made[f"spend_{w}d"] = np.maximum(histories.total(histories.spend, age <= w), 0.0)
    made["baskets_365d"] = histories.total(histories.baskets, age <= YEAR)
    made["repeat_purchases"] = x
    made["purchase_days_same_season"] = histories.total(on_day, (age <= YEAR) & (age > YEAR - horizon))
    made["return_days_365d"] = histories.total((histories.spend < 0).astype(np.float64), age <= YEAR)
    made["basket_value_mean"] = np.maximum(histories.total(histories.spend), 0.0) / histories.total(histories.baskets)
    made |= _gaps(histories, bought, x, t_x)
    made["silence_in_gaps"] = recency / np.maximum(made["gap_mean"], 1.0)
    made["probability_alive"] = buying.probability_alive(x, t_x, known_for)
    made["probability_active"] = buying.probability_active(horizon, x, t_x, known_for)
    made["expected_purchases"] = buying.expected_purchases(horizon, x, t_x, known_for)
    return pd.DataFrame({name: made[name] for name in NAMES})


def log_features(features: pd.DataFrame) -> NDArray[np.float64]:
    """The same for a linear model: on a logarithmic scale, unknown gaps taken to be as long as a year."""
    known = features.fillna(
        {"gap_mean": YEAR, "gap_longest": YEAR, "gap_last": YEAR, "silence_in_gaps": 0.0, "gap_sd": 0.0}
    )
    return np.log1p(known.to_numpy(np.float64))


def _gaps(
    histories: Histories, bought: NDArray[np.bool_], x: NDArray[np.float64], t_x: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    n = len(histories)
    owner, days = histories.owner[bought], histories.days[bought]
    is_next = owner[1:] == owner[:-1]
    whose, gap = owner[1:][is_next], np.diff(days)[is_next].astype(np.float64)
    mean = np.where(x > 0, t_x / np.maximum(x, 1), np.nan)
    squares = np.bincount(whose, weights=(gap - mean[whose]) ** 2, minlength=n)
    longest = np.full(n, -np.inf)
    np.maximum.at(longest, whose, gap)
    last = np.full(n, np.nan)
    last[whose] = gap  # days are in order, so the last one assigned is the latest
    return {
        "gap_mean": mean,
        "gap_sd": np.where(x > 1, np.sqrt(squares / np.maximum(x - 1, 1)), np.nan),
        "gap_longest": np.where(x > 0, longest, np.nan),
        "gap_last": last,
    }
