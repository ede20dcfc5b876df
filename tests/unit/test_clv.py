"""BG/NBD and Gamma-Gamma against published estimates, data made from known parameters, and integration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import beta, gamma

from lakehouse.errors import ModelError
from models.bgnbd import BgNbd, fit_bgnbd
from models.gammagamma import GammaGamma, fit_gammagamma

PAPER = BgNbd(0.243, 4.414, 0.793, 2.426, -9582.4, 2357)


def buyers(n: int, seed: int, age: float = 60.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Customers made as the model says: r .8, alpha 5, a 1.2, b 3."""
    random = np.random.default_rng(seed)
    rate, leaves = random.gamma(0.8, 1 / 5, n), random.beta(1.2, 3, n)
    x, t_x = np.zeros(n), np.zeros(n)
    for i in range(n):
        now = random.exponential(1 / rate[i])
        while now < age:
            x[i], t_x[i] = x[i] + 1, now
            if random.random() < leaves[i]:
                break
            now += random.exponential(1 / rate[i])
    return x, t_x, np.full(n, age)


@pytest.mark.shared_data
def test_cdnow_gives_the_published_estimates(shared_data: Path) -> None:
    columns = ["master_id", "customer", "day", "units", "spend"]
    file = shared_data / "cdnow" / "CDNOW_sample.txt"
    sales = pd.read_csv(file, sep=r"\s+", header=None, names=columns)
    sales["day"] = pd.to_datetime(sales["day"], format="%Y%m%d")
    end = pd.Timestamp("1997-09-30")
    days = sales[sales["day"] <= end].groupby(["customer", "day"], as_index=False)["spend"].sum()
    by = days.groupby("customer")["day"].agg(["min", "max", "size"])
    weeks = {"t_x": (by["max"] - by["min"]).dt.days / 7, "age": (end - by["min"]).dt.days / 7}
    repeats = days[days["day"] > days.groupby("customer")["day"].transform("min")]
    spent = repeats.groupby("customer")["spend"].agg(["size", "mean"])

    fitted = fit_bgnbd(by["size"] - 1, **weeks)
    found = (fitted.r, fitted.alpha, fitted.a, fitted.b, fitted.log_likelihood)
    np.testing.assert_allclose(found, (0.243, 4.414, 0.793, 2.426, -9582.4), rtol=0.005)
    spending = fit_gammagamma(spent["size"], spent["mean"])
    np.testing.assert_allclose((spending.p, spending.q, spending.gamma), (6.25, 3.74, 15.44), rtol=0.005)
    assert (fitted.customers, spending.customers, fitted.warnings) == (2357, 946, ())


def test_known_parameters_come_back() -> None:
    fitted = fit_bgnbd(*buyers(8000, seed=1))
    random = np.random.default_rng(2)
    n = random.integers(1, 12, 40_000)
    means = random.gamma(6.0 * n, 1 / (n * random.gamma(4.0, 1 / 15.0, 40_000)))
    spending = fit_gammagamma(n, means)

    np.testing.assert_allclose((fitted.r, fitted.alpha, fitted.a, fitted.b), (0.8, 5, 1.2, 3), rtol=0.2)
    np.testing.assert_allclose((spending.p, spending.q, spending.gamma), (6, 4, 15), rtol=0.15)
    assert spending.expected_spend(0, 0) == pytest.approx(6 * 15 / 3, rel=0.05)


def test_collapsed_counts_fit_as_the_customers_do() -> None:
    x, t_x, age = buyers(1500, seed=3)
    t_x = np.floor(t_x)
    triples = pd.DataFrame({"x": x, "t_x": t_x, "age": age}).value_counts().reset_index()

    whole = fit_bgnbd(x, t_x, age)
    collapsed = fit_bgnbd(triples["x"], triples["t_x"], triples["age"], triples["count"])

    assert len(triples) < 1000
    np.testing.assert_allclose((collapsed.r, collapsed.alpha, collapsed.a), (whole.r, whole.alpha, whole.a), rtol=1e-3)
    assert collapsed.customers == 1500


def test_another_unit_of_time_gives_the_same_model() -> None:
    x, t_x, age = buyers(1500, seed=4)
    weeks, days = fit_bgnbd(x, t_x, age), fit_bgnbd(x, t_x * 7, age * 7)

    assert days.alpha == pytest.approx(7 * weeks.alpha, rel=1e-3)
    np.testing.assert_allclose(
        days.expected_purchases(70, 3, 140, 210), weeks.expected_purchases(10, 3, 20, 30), rtol=1e-3
    )


def test_expectations_agree_with_integration_over_rates_and_drop_out() -> None:
    x, t_x, age, horizon = 2.0, 30.43, 38.86, 39.0
    m = PAPER

    def weighed(of_rate: object, of_leaving: object, dropped: bool) -> float:
        power = x - 1 if dropped else x
        until = t_x if dropped else age

        def by_rate(rate: float) -> float:
            return gamma.pdf(rate, m.r, scale=1 / m.alpha) * rate**x * np.exp(-rate * until) * of_rate(rate)  # type: ignore[operator]

        def by_leaving(p: float) -> float:
            return beta.pdf(p, m.a, m.b) * (1 - p) ** power * (p if dropped else 1) * of_leaving(p)  # type: ignore[operator]

        return quad(by_rate, 0, 20)[0] * quad(by_leaving, 0, 1)[0]  # type: ignore[no-any-return]

    one = lambda _: 1.0  # noqa: E731
    alive = weighed(one, one, dropped=False)
    probability = alive / (alive + weighed(one, one, dropped=True))
    silent = weighed(lambda rate: np.exp(-rate * horizon), one, dropped=False) / alive

    assert m.probability_alive(x, t_x, age)[0] == pytest.approx(probability, rel=1e-4)
    assert m.probability_active(horizon, x, t_x, age)[0] == pytest.approx(probability * (1 - silent), rel=1e-4)
    # Fader, Hardie and Lee's note of 2019 on the paper gives 1.226 for this customer.
    assert m.expected_purchases(horizon, x, t_x, age)[0] == pytest.approx(1.226, abs=0.002)


def test_one_purchase_is_alive_by_construction_and_still_unlikely_to_buy() -> None:
    assert PAPER.probability_alive(0, 0, 200)[0] == 1.0
    assert PAPER.probability_active(10, 0, 0, 200)[0] < 0.02
    many = PAPER.expected_purchases(52, [0, 50, 5000], [0, 30, 38], [39, 39, 39])
    assert np.isfinite(many).all()
    assert (many >= 0).all()


def test_customers_who_never_leave_keep_the_fit_within_bounds() -> None:
    random = np.random.default_rng(5)
    x = random.poisson(6, 800).astype(float)
    t_x = np.where(x > 0, 60 - random.exponential(2, 800).clip(0, 30), 0.0)

    fitted = fit_bgnbd(x, t_x, np.full(800, 60.0))

    assert np.isfinite([fitted.r, fitted.alpha, fitted.a, fitted.b, fitted.log_likelihood]).all()
    assert any("drop out" in w or "bound" in w for w in fitted.warnings)
    assert np.isfinite(fitted.expected_purchases(30, x, t_x, np.full(800, 60.0))).all()


def test_expected_spend_moves_from_everyone_to_the_customer() -> None:
    model = GammaGamma(6.25, 3.74, 15.44, 0.11, 946)

    nobody, one, many = model.expected_spend([0, 1, 100], [np.nan, 100.0, 100.0])

    assert nobody == pytest.approx(6.25 * 15.44 / (3.74 - 1)) == pytest.approx(35.22, abs=0.01)
    assert nobody < one < many < 100
    assert many == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize(
    ("x", "t_x", "age", "said"),
    [
        ([], [], [], "0 customers"),
        ([1.0] * 60, [5.0] * 60, [4.0] * 60, "60 rows contradict themselves"),
        ([0.0] * 60, [0.0] * 60, [4.0] * 60, "nobody bought twice"),
        ([1.0] * 59 + [np.nan], [1.0] * 60, [4.0] * 60, "x has 1 unknown or infinite"),
        ([1.0] * 60, [1.0] * 60, [np.inf] * 60, "T has 60 unknown or infinite"),
        ([1.0] * 60, [1.0] * 59, [4.0] * 60, "differ in length"),
        ([0.5] * 60, [1.0] * 60, [4.0] * 60, "contradict themselves"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_the_reason(
    x: list[float], t_x: list[float], age: list[float], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        fit_bgnbd(x, t_x, age)


@pytest.mark.parametrize(
    ("n", "spend", "said"),
    [
        ([1.0] * 10, [5.0] * 10, "10 customers"),
        ([2.0] * 50, [5.0] * 50, "spends the same"),
        ([2.0] * 50, [-5.0] * 50, "0 customers with paid"),
        ([2.0] * 50, [np.nan] * 50, "0 customers with paid"),
        ([2.0] * 50, [np.inf] * 50, "infinite"),
    ],
)
def test_spend_that_cannot_be_fitted_is_refused_with_the_reason(n: list[float], spend: list[float], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        fit_gammagamma(n, spend)
