"""What a new life-cycle model must show before it scores anyone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lakehouse.errors import ModelError
from models.histories import Histories
from models.judging import Judgement, judge, paired_brier_gain, paired_gain, rfm_sum, stability_index
from models.lifecycle import LifecycleModel, fit_lifecycle
from models.population import Population

CALIBRATED: Final = (0.67, 1.5)
"""Range of predicted by actual buyers. Wide, because a season the model has not seen moves it by a quarter: 0.76 before
one Christmas."""
SANE: Final = (0.5, 2.0)
"""Range of expected by actual purchase days of BG/NBD; a fit that ran away is off by powers of ten."""
ALARM: Final = 0.25
"""Stability index from which on two days' scores are not of the same customers any more."""
CLEAR: Final = 1.96
"""Standard errors a gain must exceed to be no chance."""


@dataclass(frozen=True)
class Verdict:
    """What a trial over the last horizon showed.

    Attributes:
        is_accepted: Whether the model may score.
        reason: Why, or why not; one sentence.
        trial: How the same recipe did over the last horizon, trained on what lay before it.
        baseline: How the plain R + F + M sum did.
        gain: Gain in AUC over that sum, and its standard error.
        over_champion: The same over the champion; None when there was none to compare.
        truer_than_champion: How far its Brier score is below the champion's, and the standard error of that.
        score_drift: Stability index of the scores, from the start of the trial to now.
        purchases_ratio: Expected by actual purchase days of the trial, by BG/NBD.
        observed: Whether each customer of the trial bought, and the probability that was said: for plots.
    """

    is_accepted: bool
    reason: str
    trial: Judgement
    baseline: Judgement
    gain: tuple[float, float]
    over_champion: tuple[float, float] | None
    truer_than_champion: tuple[float, float] | None
    score_drift: float
    purchases_ratio: float
    observed: tuple[object, object]


def try_lifecycle(
    histories: Histories,
    model: LifecycleModel,
    champion: LifecycleModel | None = None,
    populations: Mapping[int, Population] | None = None,
) -> Verdict:
    """Train the same recipe one horizon earlier, score, and look at what followed.

    Args:
        histories: Purchase days the model was trained on.
        model: The new model.
        champion: The model in charge. It is compared on the same customers and days, which it must not have seen.
        populations: As `fit_lifecycle` takes them.

    Returns:
        Accepted when it beats the R + F + M sum, is calibrated, BG/NBD expects half to twice the purchases there were,
        scores have not drifted, and it is better than the champion beyond noise: it ranks better, or it ranks no worse
        and says truer probabilities, which no ranking shows. A champion that has seen the days of the trial cannot be
        compared and stays.

    Raises:
        ModelError: when there is too little history for a trial.
    """
    start = model.day - model.horizon
    earlier = fit_lifecycle(histories, start, horizon=model.horizon, populations=populations)
    said = earlier.score(histories, start)
    keys = said["customer_key"].to_numpy()
    bought, spent = histories.before(model.day).outcome(keys, start, model.horizon)
    did, probability = bought > 0, said["probability_active"].to_numpy()
    if not 0 < did.sum() < len(did):
        raise ModelError("Life cycle: everyone or no one bought in the last horizon, so nothing can be judged.")
    plain = rfm_sum(histories.before(start), start)
    trial = judge(did, spent, probability, said["expected_spend"].to_numpy())
    baseline = judge(did, spent, plain, is_probability=False)
    gain = paired_gain(did, probability, plain)
    drift = stability_index(probability, model.score(histories, model.day)["probability_active"].to_numpy())
    against = truer = over = None
    if champion is not None and champion.day <= start:
        theirs = champion.score(histories, start)["probability_active"].to_numpy()
        against, truer = paired_gain(did, probability, theirs), paired_brier_gain(did, probability, theirs)
        over = _what_is_better(against, truer, float(theirs.sum() / did.sum()))
    ratio = trial.predicted_to_actual or 0.0
    purchases = float(said["expected_purchases"].sum() / bought.sum())
    why = None
    if not SANE[0] <= purchases <= SANE[1]:
        why = f"BG/NBD has gone astray: {purchases:.3g} purchases expected for each there was"
    elif gain[0] <= 0:
        why = f"it ranks no better than the plain R + F + M sum (AUC {trial.auc:.3f} against {baseline.auc:.3f})"
    elif (trial.brier or 1.0) >= trial.brier_of_base:
        why = "its probabilities are no better than the base rate"
    elif not CALIBRATED[0] <= ratio <= CALIBRATED[1]:
        why = f"it is not calibrated: {ratio:.2f} buyers predicted for each there was"
    elif drift > ALARM:
        why = f"its scores drifted within one horizon (stability index {drift:.2f})"
    elif champion is not None and against is None:
        why = "the champion has seen the days of the trial, so the two cannot be compared; it stays"
    elif against is not None and over is None:
        why = f"it is not better than the champion beyond noise ({against[0]:+.4f}, standard error {against[1]:.4f})"
    reason = (
        f"Kept as challenger: {why}."
        if why
        else (
            f"Accepted: AUC {trial.auc:.3f} over the last {model.horizon} days, {gain[0]:+.3f} (standard error "
            f"{gain[1]:.3f}) over the plain R + F + M sum" + (f", {over}." if over else ".")
        )
    )
    return Verdict(why is None, reason, trial, baseline, gain, against, truer, drift, purchases, (did, probability))


def _what_is_better(auc: tuple[float, float], brier: tuple[float, float], ratio: float) -> str | None:
    """What a calibrated model has over the champion; None when that is nothing, or it ranks worse.

    Args:
        auc: Its gain in AUC, and the standard error.
        brier: How far its Brier score is below, and the standard error.
        ratio: Buyers the champion predicted for each there was.
    """
    if auc[0] > CLEAR * auc[1]:
        return f"{auc[0]:+.4f} ({auc[1]:.4f}) over the champion"
    if auc[0] < -CLEAR * auc[1]:
        return None
    if not CALIBRATED[0] <= ratio <= CALIBRATED[1]:
        return f"and the champion is not calibrated: {ratio:.2f} buyers predicted for each there was"
    if brier[0] > CLEAR * brier[1]:
        return f"and a Brier score {brier[0]:.4f} ({brier[1]:.4f}) below the champion's"
    return None
