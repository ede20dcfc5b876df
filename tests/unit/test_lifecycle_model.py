"""Histories cut at past days, and the life-cycle model made of them; all without Spark."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from lakehouse.errors import ModelError
from models.histories import Histories, day_number
from models.lifecycle import RISK_LEVELS, LifecycleModel, choose_horizon, fit_lifecycle
from models.rhythm import rhythm_features
from tests.unit.test_clv import PAPER

DAY = 400


def shop(n: int = 700, seed: int = 3, days: int = 520) -> pd.DataFrame:
    """Purchase days of customers who buy at a steady rate of their own and, half of them, stop for good one day."""
    random = np.random.default_rng(seed)
    found = []
    for key in range(n):
        gap, mean = random.gamma(2.0, 12.0) + 2, random.gamma(4.0, 10.0)
        stops = random.uniform(60, 900)
        now = random.uniform(0, 150)
        while now < min(days, stops):
            found.append((key, int(now), 1.0, round(mean * random.gamma(5.0, 0.2), 2)))
            now += random.exponential(gap) + 1
    return pd.DataFrame(found, columns=["customer_key", "day", "baskets", "spend"])


@pytest.fixture(scope="module")
def sales() -> pd.DataFrame:
    return shop()


@pytest.fixture(scope="module")
def model(sales: pd.DataFrame) -> LifecycleModel:
    return fit_lifecycle(Histories.of(sales), DAY)


def few(*rows: tuple[int, int, float, float]) -> Histories:
    return Histories.of(pd.DataFrame(rows, columns=["customer_key", "day", "baskets", "spend"]))


def test_days_count_from_1970() -> None:
    assert day_number(date(1970, 1, 2)) == 1


def test_what_is_known_of_a_day_ends_before_it_and_customers_are_those_who_bought() -> None:
    known = few((7, 20, 1, 5.0), (7, 10, 2, 8.0), (9, 15, 0, -3.0), (8, 30, 1, 1.0)).before(20)

    assert known.keys.tolist() == [7]
    assert (known.days.tolist(), known.baskets.tolist(), known.spend.tolist()) == ([10], [2.0], [8.0])
    assert len(known.before(5)) == 0


def test_outcomes_are_of_the_horizon_and_of_the_customers_asked_for() -> None:
    histories = few((7, 10, 1, 1.0), (7, 20, 1, 2.0), (7, 29, 1, 4.0), (7, 30, 1, 8.0), (9, 20, 0, -3.0))

    bought, spend = histories.outcome(np.array([5, 7, 9, 11]), 20, 10)

    assert bought.tolist() == [0, 2, 0, 0]
    assert spend.tolist() == [0, 6, -3, 0]


def test_triples_count_purchase_days_and_not_returns() -> None:
    x, t_x, age = few((7, 10, 1, 1.0), (7, 13, 2, 2.0), (7, 50, 0, -4.0), (9, 40, 1, 1.0)).triples(60)

    assert (x.tolist(), t_x.tolist(), age.tolist()) == ([1, 0], [3, 0], [50, 20])


def test_look_back_features_by_hand() -> None:
    histories = few((7, 100, 1, 10.0), (7, 110, 2, 20.0), (7, 140, 1, 30.0), (7, 145, 0, -5.0), (9, 149, 1, 7.0))

    regular, newcomer = rhythm_features(histories, 150, 30, PAPER).to_dict("records")

    assert {n: regular[n] for n in ("recency_days", "tenure_days", "repeat_purchases")} == {
        "recency_days": 10, "tenure_days": 50, "repeat_purchases": 2,
    }  # fmt: skip
    assert (regular["purchase_days_7d"], regular["purchase_days_14d"], regular["purchase_days_60d"]) == (0, 1, 3)
    assert (regular["spend_7d"], regular["spend_14d"], regular["baskets_365d"]) == (0, 25, 4)
    assert (regular["gap_mean"], regular["gap_longest"], regular["gap_last"]) == (20, 30, 30)
    assert regular["gap_sd"] == pytest.approx(np.std([10, 30], ddof=1))
    assert (regular["basket_value_mean"], regular["return_days_365d"]) == (55 / 4, 1)
    assert np.isnan([newcomer["gap_mean"], newcomer["gap_sd"], newcomer["gap_last"]]).all()


def test_scores_are_ordered_bounded_and_better_than_recency(sales: pd.DataFrame, model: LifecycleModel) -> None:
    from sklearn.metrics import roc_auc_score

    histories = Histories.of(sales)
    scores = model.score(histories, DAY)
    bought, _ = histories.outcome(scores["customer_key"].to_numpy(), DAY, model.horizon)
    recency = rhythm_features(histories.before(DAY), DAY, model.horizon, model.buying)["recency_days"]

    assert scores["probability_active"].between(0, 1).all()
    np.testing.assert_allclose(scores["churn_probability"] + scores["probability_active"], 1)
    worst = scores.groupby("churn_risk_level")["churn_probability"].max()
    assert [level for level in RISK_LEVELS if level in worst.index] == list(worst.sort_values().index)
    assert (scores[["expected_purchases", "expected_spend", "customer_lifetime_value"]] >= 0).all().all()
    auc = roc_auc_score(bought > 0, scores["probability_active"])
    assert auc > roc_auc_score(bought > 0, -recency) + 0.01
    assert scores["probability_active"].mean() == pytest.approx((bought > 0).mean(), abs=0.05)
    named = scores.set_index("churn_risk_level")["churn_factors"]
    assert all(not f for f in named.get("low", []))
    assert any("long silence" in f for f in named["critical"])


def test_nothing_of_the_day_or_later_changes_a_score(sales: pd.DataFrame, model: LifecycleModel) -> None:
    known = sales[sales["day"] < DAY]
    later = pd.DataFrame({"customer_key": [1, 2, 99_999], "day": [DAY, DAY + 5, DAY], "baskets": 9.0, "spend": 1e6})
    added = Histories.of(pd.concat([known, later]))

    again = fit_lifecycle(added, DAY)

    pd.testing.assert_frame_equal(again.score(added, DAY), model.score(Histories.of(known), DAY), check_exact=True)


def test_a_model_refuses_days_it_has_seen(sales: pd.DataFrame, model: LifecycleModel) -> None:
    with pytest.raises(ModelError, match="seen later days"):
        model.score(Histories.of(sales), DAY - 1)
    with pytest.raises(ModelError, match="would leak"):
        fit_lifecycle(Histories.of(sales), DAY, horizon=90, cut_offs=[DAY - 60])


def test_scoring_nobody_and_somebody_with_returns_only(model: LifecycleModel) -> None:
    assert model.score(few((1, DAY, 1, 5.0)), DAY).empty
    assert model.score(few((1, 10, 0, -5.0), (2, 10, 1, 0.0)), DAY)["customer_key"].tolist() == [2]


def test_the_horizon_follows_how_often_customers_come_back() -> None:
    weekly = pd.DataFrame([(k, d, 1.0, 5.0) for k in range(60) for d in range(k % 7, 400, 7)])
    yearly = pd.DataFrame([(k, d, 1.0, 5.0) for k in range(60) for d in range(k, 800, 200)])
    columns = ["customer_key", "day", "baskets", "spend"]

    assert choose_horizon(Histories.of(weekly.set_axis(columns, axis=1)), 400) == 30
    assert choose_horizon(Histories.of(yearly.set_axis(columns, axis=1)), 800) > 90


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (shop(50), "48 customers have bought"),
        (shop(1500).query("day > 380"), "too few to learn"),
        (pd.DataFrame([(k, d, 1.0, 5.0) for k in range(400) for d in range(0, 400, 3)]), "need"),
    ],
)
def test_data_that_teach_nothing_are_refused_with_the_reason(frame: pd.DataFrame, said: str) -> None:
    histories = Histories.of(frame.set_axis(["customer_key", "day", "baskets", "spend"], axis=1))

    with pytest.raises(ModelError, match=said):
        fit_lifecycle(histories, DAY)


def test_unknown_spend_is_nothing_paid_and_infinite_spend_is_refused(sales: pd.DataFrame) -> None:
    unknown = sales.assign(spend=sales["spend"].where(sales["day"] % 7 != 0))
    nothing = Histories.of(unknown.fillna({"spend": 0.0}))

    scores = fit_lifecycle(Histories.of(unknown), DAY).score(Histories.of(unknown), DAY)

    pd.testing.assert_frame_equal(scores, fit_lifecycle(nothing, DAY).score(nothing, DAY))
    with pytest.raises(ModelError, match=f"spend is infinite on {len(sales)} of {len(sales)}"):
        Histories.of(sales.assign(spend=np.inf))


def test_customers_with_returns_only_teach_nothing() -> None:
    returned = pd.DataFrame([(k, d, 0.0, -5.0) for k in range(400) for d in range(0, 390, 30)], columns=shop(1).columns)

    with pytest.raises(ModelError, match="0 customers have bought"):
        fit_lifecycle(Histories.of(returned), DAY)


def test_a_constant_feature_is_no_obstacle(sales: pd.DataFrame) -> None:
    # Nobody ever gave anything back, and everyone's every purchase cost the same.
    flat = Histories.of(sales.assign(spend=7.0))
    features = rhythm_features(flat.before(DAY), DAY, 30, PAPER)

    scores = fit_lifecycle(flat, DAY).score(flat, DAY)

    assert features["return_days_365d"].nunique() == features["basket_value_mean"].nunique() == 1
    assert np.isfinite(scores["probability_active"]).all()


def test_equal_spend_leaves_value_unknown_and_the_rest_known(sales: pd.DataFrame) -> None:
    flat = Histories.of(sales.assign(spend=5.0))

    scores = fit_lifecycle(flat, DAY).score(flat, DAY)

    assert scores["customer_lifetime_value"].isna().all()
    assert scores["expected_spend"].notna().all()


def test_a_shop_nobody_has_bought_at_three_times_has_a_model() -> None:
    histories = Histories.of(rare(1_000, again=0.5))
    features = rhythm_features(histories.before(DAY), DAY, 90, PAPER)

    scores = fit_lifecycle(histories, DAY, horizon=90).score(histories, DAY)

    assert features["gap_sd"].isna().all()
    assert scores[["probability_active", "expected_spend"]].notna().all().all()


def test_a_shop_next_to_nobody_comes_back_to_has_a_model() -> None:
    loyal = shop(5).assign(customer_key=lambda f: f["customer_key"] + 8_000)
    histories = Histories.of(pd.concat([rare(8_000, again=0.04), loyal]))

    model = fit_lifecycle(histories, DAY, horizon=30)
    scores = model.score(histories, DAY)

    assert 0 < scores["probability_active"].mean() < 0.005
    assert scores["expected_spend"].sum() > 0


def test_purchases_nobody_paid_for_teach_nothing(sales: pd.DataFrame) -> None:
    with pytest.raises(ModelError, match="spend teaches nothing"):
        fit_lifecycle(Histories.of(sales.assign(spend=0.0)), DAY)


def rare(n: int, again: float) -> pd.DataFrame:
    """Customers who buy once and, a part of them, once more within a year."""
    random = np.random.default_rng(5)
    first = random.integers(0, 200, n)
    second = first + random.integers(1, 365, n)
    comes = (random.random(n) < again) & (second < DAY)
    days = pd.DataFrame(
        {"customer_key": np.concatenate([np.arange(n), np.flatnonzero(comes)]), "day": [*first, *second[comes]]}
    )
    return days.assign(baskets=1.0, spend=np.round(random.gamma(4.0, 10.0, len(days)), 2))
