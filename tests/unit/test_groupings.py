"""Whether groups of customers are steady and useful; without Spark."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from models.cluster_gate import try_clusters
from models.clustering import FEATURES, ClusterModel, match_to, moved_share, place_of, shares_in
from models.groupings import GROUPINGS, fitting, log_kmeans
from models.histories import Histories
from models.scales import RankScale
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
    past = Past(values, values[:, 2] * np.random.default_rng(3).lognormal(0, 0.5, len(values)), date(2017, 10, 3))

    chosen = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), past=past, candidates=(3, 4))

    assert chosen.model is not None
    assert chosen.model.k == 3
    assert f"the fewest within {CLOSE}" in chosen.reason
    three = next(c for c in chosen.candidates if c.k == 3)
    assert {c.way for c in chosen.candidates} == set(GROUPINGS)
    assert three.spend_r2 is not None
    assert three.spend_r2 > 0.8


def test_another_way_wins_when_it_says_more() -> None:
    # Regulars who are nearly alike amid others of every sort: no line between centres tells them apart.
    random = np.random.default_rng(1)
    is_regular = np.arange(600) % 2 == 0
    values = np.expm1(np.maximum(4 + random.normal(0, 1, (600, 3)) * np.where(is_regular, 0.04, 1.0)[:, None], 0))
    past = Past(values, np.where(is_regular, 1e4, 1.0), date(2017, 10, 3))

    chosen = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), past=past, candidates=(2,))

    assert chosen.model is not None
    assert chosen.pipeline is not None
    assert chosen.model.way == "Gaussian mixture, log"
    placed = place_of(values, chosen.model)
    assert (
        len(set(zip(placed, chosen.pipeline.predict(pd.DataFrame(values, columns=list(FEATURES))), strict=True))) == 2
    )
    assert (placed == placed[0])[is_regular].mean() > 0.95


def test_no_cluster_is_made_of_one_giant() -> None:
    values = np.vstack([kinds(), [[1.0, 2000.0, 1e9]]])

    chosen = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), candidates=(3, 4))

    assert chosen.model is not None
    assert min(chosen.model.shares) > 0.03
    assert np.isfinite(spend_explained(np.arange(60), np.arange(60.0)))  # groups of one: unknown ones get the mean


def test_the_share_of_customers_who_moved_follows_matched_numbers() -> None:
    values = kinds()
    one = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), candidates=(3,)).model
    other = select_clusters(kinds(seed=2), merchant_id="shop", as_of=date(2018, 2, 1), candidates=(3,)).model
    assert one is not None
    assert other is not None

    assert moved_share(values, match_to(other, one, values), one) < 0.02
    assert moved_share(np.full((4, 3), np.nan), one, one) == 0
    assert set(place_of(values, one)) == {0, 1, 2}


def test_a_number_never_passes_to_other_customers() -> None:
    values = kinds()
    three = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), candidates=(3,)).model
    assert three is not None

    def without(position: int) -> ClusterModel:
        kept = [i for i in range(3) if i != position]
        return replace(three, **{n: tuple(getattr(three, n)[i] for i in kept) for n in ("centres", "names", "shares")})

    # The most valuable, now few, are no group of their own any more: the other two keep their numbers.
    values = values[np.arange(len(values)) % 6 != 0]
    two = match_to(without(0), three, values)
    assert two.numbers == (1, 2)
    assert two.names == three.names[1:]
    stayed = place_of(values, three) > 0
    assert (place_of(values, two) == place_of(values, three))[stayed].all()
    # And when there are three again, the third is not the one that was given up: not even of the last number.
    assert match_to(three, two, values).numbers == (1, 2, 3)
    assert match_to(three, match_to(without(2), three, values), values, given=3).numbers == (0, 1, 3)
    assert match_to(three, None, values, given=4).numbers == (4, 5, 6)


@pytest.mark.parametrize("way", ["k-means, ranks", "Gaussian mixture, log"])
def test_whatever_way_wins_places_customers_as_it_was_fitted(way: str) -> None:
    values = np.vstack([kinds(), np.repeat([[1.0, 1.0, 0.0]], 40, axis=0)])

    chosen = select_clusters(values, merchant_id="shop", as_of=date(2018, 1, 1), ways=(way,), candidates=(3,))

    assert chosen.model is not None
    assert chosen.pipeline is not None
    assert chosen.model.way == way
    theirs = chosen.pipeline.predict(pd.DataFrame(values, columns=list(FEATURES)))
    assert len(set(zip(theirs, place_of(values, chosen.model), strict=True))) == 3
    assert sum(chosen.model.shares) == pytest.approx(1)
    assert any("high value" in name for name in chosen.model.names)


def test_ranks_are_those_of_scikit_learn() -> None:
    from sklearn.preprocessing import QuantileTransformer

    tied = np.concatenate([np.zeros(50), np.arange(30), np.full(40, 7.0), np.full(60, 99.0)])
    fitted = QuantileTransformer(n_quantiles=100).fit(tied[:, None])
    asked = np.array([-5, 0, 0.5, 6.9, 7, 7.1, 28.5, 99, 1e9])

    found = RankScale.between(fitted.quantiles_[:, 0], fitted.references_).of(asked)

    np.testing.assert_allclose(found, fitted.transform(asked[:, None])[:, 0], atol=1e-12)

    alike = QuantileTransformer(n_quantiles=100).fit(np.full((100, 1), 7.0))
    asked = np.array([6.0, 7.0, 8.0])
    found = RankScale.between(alike.quantiles_[:, 0], alike.references_).of(asked)
    np.testing.assert_allclose(found, alike.transform(asked[:, None])[:, 0], atol=1e-12)


def test_clusters_replace_a_champion_only_for_a_reason() -> None:
    values = kinds()
    spend = values[:, 2] * np.random.default_rng(3).lognormal(0, 0.5, len(values))
    made = [
        select_clusters(values, merchant_id="shop", as_of=day, candidates=(3,)).model
        for day in (date(2017, 6, 1), date(2018, 1, 1))
    ]
    champion, model = made
    assert champion is not None
    assert model is not None
    past = Past(values, spend, date(2017, 10, 3))
    # Two of its three kinds thrown together.
    blind = replace(champion, centres=(champion.centres[0], champion.centres[1], (99.0, 99.0, 99.0)))
    blind = replace(blind, shares=tuple(shares_in(values, blind)))

    as_good = try_clusters(values, model, champion, past)
    better = try_clusters(values, model, blind, past)
    unseen = try_clusters(values, model, replace(champion, as_of=date(2017, 11, 1)), past)
    drifted = try_clusters(values, model, replace(champion, shares=(0.9, 0.05, 0.05)), None)
    lopsided = Past(values[::3], spend[::3], past.as_of)
    fleeting, first = (try_clusters(values, model, c, lopsided) for c in (champion, None))

    assert try_clusters(values, model, None, past).is_accepted
    assert not as_good.is_accepted
    assert "beyond noise" in as_good.reason
    assert better.is_accepted
    assert better.over_champion is not None
    assert better.over_champion[0] > 0.05
    assert "has seen the days of the trial" in unseen.reason
    assert drifted.is_accepted
    assert drifted.champion_drift is not None
    assert drifted.champion_drift > 0.25
    assert not fleeting.is_accepted
    assert "would have drifted" in fleeting.reason
    assert first.is_accepted
    assert "have moved within 90 days" in first.reason


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
