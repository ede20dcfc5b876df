"""Whether groups of customers are steady and useful; without Spark."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from models.clustering import match_to, moved_share, place_of
from models.groupings import GROUPINGS, fitting, log_kmeans
from models.histories import Histories
from models.segmentation_test import judge_groupings, values_at
from models.selection import CLOSE, Past, select_clusters
from models.stability import spend_explained, steadiness
from tests.unit.test_lifecycle_model import shop


def kinds(n: int = 600, seed: int = 1) -> np.ndarray:
    """Customers of three kinds far apart: recency, frequency, value."""
    random = np.random.default_rng(seed)
    centres = np.array([[3, 60, 5000], [40, 12, 400], [300, 1, 20]])[np.arange(n) % 3]
    return np.round(centres * random.lognormal(0, 0.2, (n, 3)))


@pytest.mark.parametrize("way", GROUPINGS)
def test_what_is_there_is_found_again(way: str) -> None:
    found = steadiness(kinds(), fitting(GROUPINGS[way], 3), 3)

    assert found.ari > 0.95
    assert found.jaccard_min > 0.95
    assert found.min_share == pytest.approx(1 / 3, abs=0.02)


def test_one_cloud_cut_in_eight_is_not_steady() -> None:
    cloud = np.random.default_rng(0).lognormal(2, 0.5, (600, 3))

    found = steadiness(cloud, fitting(log_kmeans, 8), 8)

    assert found.ari < 0.8
    assert found.jaccard_min < 0.75


def test_spend_explained_by_hand_and_by_chance() -> None:
    labels = np.arange(300) % 3
    random = np.random.default_rng(0)

    assert spend_explained(labels, np.array([0.0, 10.0, 100.0])[labels]) == pytest.approx(1)
    assert spend_explained(random.permutation(labels), np.array([0.0, 10.0, 100.0])[labels]) < 0.02
    assert spend_explained(labels, np.array([-5.0, 10.0, 100.0])[labels]) == pytest.approx(1)
    assert np.isnan(spend_explained(labels, np.ones(300)))


def test_the_fewest_clusters_that_say_as_much_are_taken() -> None:
    values = kinds()
    later = values[:, 2] * np.random.default_rng(3).lognormal(0, 0.5, len(values))

    chosen = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), past=Past(values, later))

    assert chosen.model is not None
    assert chosen.model.k == 3
    assert f"the fewest within {CLOSE}" in chosen.reason
    (three,) = (c for c in chosen.candidates if c.k == 3)
    assert three.spend_r2 is not None
    assert three.spend_r2 > 0.8


def test_the_share_of_customers_who_moved_follows_matched_numbers() -> None:
    values = kinds()
    one = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), candidates=(3,)).model
    other = select_clusters(kinds(seed=2), merchant_id="shop", as_of=date(2018, 2, 1), candidates=(3,)).model
    assert one is not None
    assert other is not None

    assert moved_share(values, match_to(other, one), one) < 0.02
    assert moved_share(np.full((4, 3), np.nan), one, one) == 0
    assert set(place_of(values, one)) == {0, 1, 2}


def test_groupings_of_a_past_day_are_judged_by_what_followed() -> None:
    histories = Histories.of(shop())
    judged = judge_groupings(histories, 400, sizes=(3, 4))

    assert len(judged) == 2 * len(GROUPINGS) + 1
    assert judged[judged["is_chosen"]].groupby("way").size().le(1).all()
    plain = judged[judged["way"] == "R + F + M sum"].iloc[0]
    assert 0 < plain["spend_r2"] < 1
    later = pd.concat([shop(), pd.DataFrame([(1, 900, 1.0, 9e9)], columns=shop(2).columns)])
    pd.testing.assert_frame_equal(judge_groupings(Histories.of(later), 400, sizes=(3, 4)), judged)
    assert values_at(histories.before(400), 400).shape[1] == 3
