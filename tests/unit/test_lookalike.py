"""Lookalikes on made-up shoppers of two tastes; and how scores are judged. All without Spark."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lakehouse.errors import ModelError
from models.adoption import Moment, judge_adoption
from models.copurchase import CoPurchase
from models.judging import lift_at, paired_gain, reliability, stability_index, top_share
from models.lookalike import FEATURES, fit_pooled, fit_seed, fold_of, rank_average, standardised
from models.shoppers import Placed, Shoppers, Space, Vocabulary

DAY = 300
CATEGORIES = 16


def tastes(n: int = 900, seed: int = 5, days: int = 400) -> pd.DataFrame:
    """Customers who mostly buy from the first or from the second half of the categories; `c0` is bought by few."""
    random = np.random.default_rng(seed)
    rows = []
    for key in range(n):
        half = key % 2
        liked = random.beta(4, 2)
        for day in np.flatnonzero(random.random(days) < random.uniform(0.01, 0.12)):
            for _ in range(3):
                side = half if random.random() < liked else 1 - half
                which = side * 8 + min(int(random.exponential(3)), 7)
                rows.append((key, f"i{which}_{random.integers(4)}", f"c{7 - which % 8 + 8 * side}", int(day)))
    return pd.DataFrame(rows, columns=["customer_key", "item", "category", "day"]).drop_duplicates()


@pytest.fixture(scope="module")
def lines() -> pd.DataFrame:
    return tastes()


@pytest.fixture(scope="module")
def placed(lines: pd.DataFrame) -> Placed:
    past = lines[lines["day"] < DAY]
    vocabulary = Vocabulary.of(past)
    shoppers = Shoppers.at(past, DAY, vocabulary)
    return Placed.of(shoppers, Space.fit(shoppers, vocabulary))


def test_a_vocabulary_gives_every_item_one_category() -> None:
    lines = pd.DataFrame({"item": ["b", "b", "b", "a"], "category": ["x", "y", "y", "x"]})

    found = Vocabulary.of(lines)

    assert (found.items, found.categories, found.category_of.tolist()) == (("a", "b"), ("x", "y"), [0, 1])
    assert found.numbers(pd.Series(["b", "new", None])).tolist() == [1, -1, -1]


def test_what_a_customer_had_bought_by_hand() -> None:
    lines = pd.DataFrame(
        [(1, "a", "x", 10), (1, "a", "x", 90), (1, "b", "y", 90), (1, "b", "y", 100), (2, "b", "y", 5)],
        columns=["customer_key", "item", "category", "day"],
    )

    found = Shoppers.at(lines, 100, Vocabulary.of(lines))

    np.testing.assert_allclose(np.expm1(found.items.toarray()), [[2, 1], [0, 1]])
    np.testing.assert_allclose(np.expm1(found.recent), [[1, 1], [0, 0]])
    days_30, _, days_180, lines_30, _, new_45, new_90, breadth = np.expm1(found.activity).round().T.tolist()
    assert (days_30, days_180, lines_30) == ([1, 0], [2, 1], [2, 0])
    assert (new_45, new_90, breadth) == ([1, 0], [2, 0], [2, 1])


def test_leaving_categories_out_equals_never_having_bought_them(lines: pd.DataFrame, placed: Placed) -> None:
    vocabulary = placed.space.vocabulary
    gone = vocabulary.categories.index("c9")
    without = Shoppers.at(lines[lines["category"] != "c9"], DAY, vocabulary)

    left = placed.by_items([gone])[np.isin(placed.shoppers.keys, without.keys)]

    np.testing.assert_allclose(left, Placed.of(without, placed.space).by_items(), atol=1e-9)


def test_a_seed_is_recognised_without_what_defines_it(placed: Placed) -> None:
    from sklearn.metrics import roc_auc_score

    is_seed = placed.shoppers.keys % 2 == 0
    model = fit_seed(placed, is_seed, without=(0, 1))
    features = dict(zip(FEATURES, model.features(placed).T, strict=True))

    assert roc_auc_score(is_seed, features["resemblance"]) > 0.8
    assert model.similarity[[0, 1]].tolist() == [0, 0]
    again = fit_seed(placed, is_seed, without=(0, 1))
    np.testing.assert_array_equal(again.features(placed), model.features(placed))


def test_resemblance_is_out_of_fold(placed: Placed) -> None:
    is_seed = placed.shoppers.keys % 2 == 0
    mine = fold_of(placed.shoppers.keys) == 0
    other = np.where(mine, ~is_seed, is_seed)  # only the labels of fold 0 differ

    before = fit_seed(placed, is_seed).features(placed)[:, 0]
    after = fit_seed(placed, other).features(placed)[:, 0]

    np.testing.assert_array_equal(before[mine], after[mine])
    assert np.abs(before[~mine] - after[~mine]).max() > 0.1


def test_a_regression_never_sees_what_is_left_out() -> None:
    random = np.random.default_rng(0)
    bought = (random.random((400, 8)) < 0.3).astype(float)
    member = (bought[:, 2] + random.random(400) > 0.9).astype(float)
    kept = [0, 1, 3, 4, 5, 7]

    found = CoPurchase.of(bought, 0.1).weights(member, np.array([2, 6]))

    smaller = bought[:, kept]
    alone = np.linalg.solve(smaller.T @ smaller + 0.1 * 400 * np.eye(6), smaller.T @ member)
    np.testing.assert_allclose(found[kept], alone)
    assert found[[2, 6]].tolist() == [0, 0]
    seen = CoPurchase.of(bought, 0.1).weights(member, np.array([], dtype=int))
    assert seen.argmax() == 2


def test_purchases_of_hardly_anyone_or_all_alike_give_a_regression() -> None:
    rare, alike = np.eye(50), np.ones((50, 3))
    member = (np.arange(50) < 20).astype(float)

    assert CoPurchase.of(rare, 0.1).weights(member, np.array([1])).tolist() == [0.0] * 50
    assert np.isfinite(CoPurchase.of(alike, 0.1).weights(member, np.array([0]))).all()


@pytest.mark.parametrize(
    ("seed", "said"), [(lambda n: n < 0, "0 active customers"), (lambda n: n >= 0, "nobody to tell it from")]
)
def test_an_empty_seed_and_a_seed_of_everyone_are_refused(placed: Placed, seed: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        fit_seed(placed, seed(placed.shoppers.keys))  # type: ignore[operator]


def test_too_few_customers_span_no_space() -> None:
    few = tastes(n=20)
    vocabulary = Vocabulary.of(few)

    with pytest.raises(ModelError, match="it needs 100 customers"):
        Space.fit(Shoppers.at(few, DAY, vocabulary), vocabulary)


def test_adoption_is_found_better_than_by_chance_and_nothing_later_is_seen(lines: pd.DataFrame) -> None:
    judged = judge_adoption(lines, DAY)
    auc = judged.groupby("way")["auc"].mean()
    assert auc["pooled"] > max(0.6, auc["activity"])
    assert judged.loc[judged["way"] == "pooled", "predicted_to_actual"].mean() == pytest.approx(1, abs=0.3)

    now = Moment.at(lines, DAY)
    later = pd.DataFrame({"customer_key": [2, 3], "item": "i0_0", "category": "c7", "day": [DAY, DAY + 40]})
    added = Moment.at(pd.concat([lines, later]), DAY)
    category = now.eligible()[0]
    np.testing.assert_array_equal(added.compared(category), now.compared(category))


def test_pooling_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="no seed"):
        fit_pooled([], [])
    with pytest.raises(ModelError, match="nobody or everybody"):
        fit_pooled([np.ones((5, len(FEATURES)))], [np.zeros(5, bool)])


def test_standardised_features_stay_finite_when_all_are_alike() -> None:
    assert np.isfinite(standardised(np.ones((5, len(FEATURES))))).all()
    assert rank_average(np.array([3.0, 1.0, 1.0]), np.array([9.0, 2.0, 2.0])).tolist() == [1.0, 0.5, 0.5]


def test_judgements_by_hand() -> None:
    did = np.array([True, False, True, False, False, False, False, False, False, False])
    score = np.linspace(1, 0.1, 10)

    assert lift_at(did, score, 0.1) == 5
    assert top_share(np.array([6.0, 2, 2] + [0.0] * 7), score) == 0.6
    assert np.isnan(top_share(np.zeros(10), score))
    # A tenth of 19 is nearer to two than to one, by either measure.
    falling = np.arange(19.0, 0, -1)
    assert lift_at(falling == 18, falling, 0.1) == 19 / 2
    assert top_share(np.where(falling == 18, 5.0, 0.0), falling) == 1
    assert paired_gain(did, score, score) == (0.0, 0.0)
    assert paired_gain(did, score, -score)[0] == pytest.approx(2 * 15 / 16 - 1)
    table = reliability(did, score, bins=2)
    assert table["predicted"].tolist() == pytest.approx([0.3, 0.8])
    assert (table["observed"].tolist(), table["customers"].tolist()) == ([0.0, 0.4], [5, 5])


def test_stability_index_is_calm_for_the_same_and_alarmed_for_a_shift() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=5000)

    assert stability_index(before, before) == 0
    assert stability_index(before, random.normal(size=5000)) < 0.02
    assert stability_index(before, before + 1) > 0.25
    assert stability_index(np.ones(50), np.ones(50)) == 0
    # Two bins, half and half, then a quarter and three: (.25 - .5) ln(.25/.5) + (.75 - .5) ln(.75/.5).
    assert stability_index(np.array([0, 1] * 50), np.array([0, 1, 1, 1] * 25), bins=2) == pytest.approx(
        0.2747, abs=1e-4
    )
