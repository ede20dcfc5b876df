"""What lets a life-cycle model score, and what keeps it a challenger; without Spark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lakehouse.errors import ModelError
from models.gate import try_lifecycle
from models.histories import Histories
from models.lifecycle import LifecycleModel, fit_lifecycle
from models.population import population_of
from tests.unit.test_lifecycle_model import DAY, shop


@pytest.fixture(scope="module")
def histories() -> Histories:
    return Histories.of(shop())


@pytest.fixture(scope="module")
def model(histories: Histories) -> LifecycleModel:
    return fit_lifecycle(histories, DAY)


def test_the_first_model_is_accepted_for_beating_the_plain_sum(histories: Histories, model: LifecycleModel) -> None:
    verdict = try_lifecycle(histories, model)

    assert verdict.is_accepted
    assert verdict.trial.auc > verdict.baseline.auc
    assert verdict.over_champion is None
    assert 0.5 < verdict.purchases_ratio < 2
    assert verdict.reason.startswith("Accepted: AUC 0.")
    did, probability = verdict.observed
    assert len(did) == len(probability) == verdict.trial.customers  # type: ignore[arg-type]


def test_a_champion_as_good_stays_a_worse_one_goes(histories: Histories, model: LifecycleModel) -> None:
    start = DAY - model.horizon
    alike = fit_lifecycle(histories, start, horizon=model.horizon)
    # One that takes silence for loyalty: everything it says is turned round.
    linear = alike.linear
    upside_down = _Upside(linear)
    worse = replace(alike, linear=upside_down, boosted=_Upside(alike.boosted))  # type: ignore[arg-type]

    as_good = try_lifecycle(histories, model, alike)
    better = try_lifecycle(histories, model, worse)

    assert not as_good.is_accepted
    assert "not better than the champion beyond noise" in as_good.reason
    assert better.is_accepted
    assert better.over_champion is not None
    assert better.over_champion[0] > 0.05


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        # Neither changes who is ranked before whom.
        (lambda p: p**0.1, "the champion is not calibrated: "),
        (lambda p: (p + p.mean()) / 2, "below the champion's"),
    ],
)
def test_a_champion_that_ranks_as_well_and_says_wrong_probabilities_goes(
    histories: Histories, model: LifecycleModel, said: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    class Wrong(LifecycleModel):
        def probability_active(self, features: pd.DataFrame) -> np.ndarray:
            return said(super().probability_active(features))

    alike = fit_lifecycle(histories, DAY - model.horizon, horizon=model.horizon)

    verdict = try_lifecycle(histories, model, Wrong(**vars(alike)))

    assert verdict.is_accepted
    assert verdict.over_champion == (0, 0)
    assert reason in verdict.reason


def test_a_champion_that_ranks_better_stays_whatever_its_probabilities(
    histories: Histories, model: LifecycleModel
) -> None:
    class Oracle(LifecycleModel):
        def score(self, histories: Histories, day: int) -> pd.DataFrame:
            scores = super().score(histories, day)
            bought, _ = histories.outcome(scores["customer_key"].to_numpy(), day, self.horizon)
            return scores.assign(probability_active=np.where(bought > 0, 0.02, 0.01))

    alike = fit_lifecycle(histories, DAY - model.horizon, horizon=model.horizon)

    verdict = try_lifecycle(histories, model, Oracle(**vars(alike)))

    assert not verdict.is_accepted
    assert "not better than the champion beyond noise" in verdict.reason


def test_a_champion_that_has_seen_the_trial_cannot_be_compared(histories: Histories, model: LifecycleModel) -> None:
    verdict = try_lifecycle(histories, model, model)

    assert not verdict.is_accepted
    assert "cannot be compared" in verdict.reason


def test_a_model_that_predicts_twice_the_buyers_is_not_calibrated(
    histories: Histories, model: LifecycleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = LifecycleModel.probability_active
    monkeypatch.setattr(LifecycleModel, "probability_active", lambda self, f: np.sqrt(plain(self, f)) ** 0.25)

    verdict = try_lifecycle(histories, model)

    assert not verdict.is_accepted
    assert "base rate" in verdict.reason or "not calibrated" in verdict.reason


def test_a_run_away_fit_of_all_customers_is_refused(histories: Histories, model: LifecycleModel) -> None:
    start = DAY - model.horizon
    sane = population_of(histories, start)
    # Everyone buys ten times a day for ever: what an unbounded search ends with.
    astray = replace(sane, buying=replace(sane.buying, r=1e4, alpha=1e3, a=1e-3, b=1e4))

    verdict = try_lifecycle(histories, model, populations={start: astray})

    assert not verdict.is_accepted
    assert "BG/NBD has gone astray" in verdict.reason
    assert verdict.purchases_ratio > 2


def test_too_short_a_history_gives_no_trial(model: LifecycleModel) -> None:
    short = Histories.of(shop().query(f"day >= {DAY - 100}"))

    with pytest.raises(ModelError):
        try_lifecycle(short, model)


class _Upside:
    def __init__(self, member: object) -> None:
        self.member = member

    def predict_proba(self, features: object) -> np.ndarray:
        return self.member.predict_proba(features)[:, ::-1]  # type: ignore[attr-defined,no-any-return]

    def __getitem__(self, at: object) -> object:
        return self.member[at]  # type: ignore[index]
