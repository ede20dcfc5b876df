from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean, variance

import pytest

from lakehouse.errors import SettingsError
from segments.lift import check_sample_ratio, lift_of_means, lift_of_rates

ARMS = {"Mens E-Mail": "mens", "Womens E-Mail": "womens", "No E-Mail": "none"}


@pytest.fixture(scope="module")
def hillstrom(shared_data: Path) -> dict[str, list[dict[str, float]]]:
    """The three arms of a real e-mail test."""
    arms = defaultdict(list)
    with (shared_data / "hillstrom" / "hillstrom.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            arms[ARMS[row["segment"]]].append({c: float(row[c]) for c in ("visit", "conversion", "spend")})
    return arms


@pytest.mark.shared_data
def test_rates_of_a_real_test_have_their_published_values(hillstrom: dict[str, list[dict[str, float]]]) -> None:
    def rate(arm: str, of: str) -> tuple[int, int]:
        return int(sum(r[of] for r in hillstrom[arm])), len(hillstrom[arm])

    visit = lift_of_rates(rate("mens", "visit"), rate("none", "visit"))
    assert visit.difference == pytest.approx(0.0765896, abs=1e-7)
    assert visit.statistic == pytest.approx(22.48604, abs=1e-5)
    assert visit.p_value == pytest.approx(5.685e-112, rel=1e-3)

    bought = lift_of_rates(rate("mens", "conversion"), rate("none", "conversion"))
    assert (bought.difference, bought.low, bought.high) == pytest.approx((0.00680501, 0.00500017, 0.00860984), abs=1e-8)
    assert bought.p_value == pytest.approx(1.5232e-13, rel=1e-3)
    womens = lift_of_rates(rate("womens", "conversion"), rate("none", "conversion"))
    assert (womens.statistic, womens.p_value) == pytest.approx((3.779561, 1.57105e-4), rel=1e-5)


@pytest.mark.shared_data
def test_means_of_a_real_test_have_their_published_values(hillstrom: dict[str, list[dict[str, float]]]) -> None:
    def mean(arm: str) -> tuple[int, float, float]:
        spent = [r["spend"] for r in hillstrom[arm]]
        return len(spent), fmean(spent), variance(spent)

    mens = lift_of_means(mean("mens"), mean("none"))
    assert (mens.difference, mens.low, mens.high) == pytest.approx((0.769827, 0.485140, 1.054515), abs=1e-6)
    assert (mens.statistic, mens.p_value) == pytest.approx((5.300140, 1.163815e-7), rel=1e-6)
    womens = lift_of_means(mean("womens"), mean("none"))
    assert (womens.statistic, womens.p_value) == pytest.approx((3.256372, 1.129397e-3), rel=1e-6)


@pytest.mark.shared_data
def test_the_sizes_of_a_real_test_are_what_they_should_be(hillstrom: dict[str, list[dict[str, float]]]) -> None:
    check = check_sample_ratio({arm: len(rows) for arm, rows in hillstrom.items()})
    assert check.p_value == pytest.approx(0.903693, abs=1e-6)
    assert not check.is_suspect


def test_a_lost_part_of_an_arm_is_noticed() -> None:
    assert check_sample_ratio({"treated": 9_000, "holdout": 1_000}, {"treated": 0.9, "holdout": 0.1}).p_value == 1
    assert check_sample_ratio({"treated": 8_000, "holdout": 1_000}, {"treated": 0.9, "holdout": 0.1}).is_suspect


def test_more_than_a_loss_is_no_part_of_it() -> None:
    # Returns outweigh sales in the control: -2 a customer against +1.
    assert lift_of_means((5, 1.0, 1.0), (5, -2.0, 1.0)).relative is None
    assert lift_of_means((5, 3.0, 1.0), (5, 2.0, 1.0)).relative == 0.5


def test_no_variance_is_no_evidence_and_no_error() -> None:
    nobody = lift_of_rates((0, 10), (0, 20))
    assert (nobody.difference, nobody.relative, nobody.p_value) == (0, None, 1)
    assert lift_of_means((5, 2.0, 0.0), (5, 2.0, 0.0)).p_value == 1
    assert lift_of_means((2, 1.0, 0.0), (2, 2.0, 0.0)).statistic == -math.inf
    assert lift_of_means((2, 2.0, 0.0), (2, 1.0, 0.0)).statistic == math.inf


@pytest.mark.parametrize("bad", [lambda: lift_of_rates((3, 2), (0, 1)), lambda: lift_of_rates((0, 0), (0, 1)),
                                 lambda: lift_of_means((1, 2.0, 0.0), (5, 2.0, 0.0)),
                                 lambda: check_sample_ratio({"a": 1}, {"b": 1}),
                                 lambda: lift_of_rates((1, 2), (0, 1), confidence=95),
                                 lambda: lift_of_means((5, 2.0, 1.0), (5, 2.0, 1.0), confidence=math.nan)])  # fmt: skip
def test_what_is_no_group_is_refused(bad: object) -> None:
    with pytest.raises(SettingsError):
        bad()  # type: ignore[operator]
