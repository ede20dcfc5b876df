from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from lakehouse.lake import Lake
from lakehouse.settings import Settings
from models.clustering import FEATURES, ClusterModel, match_to, name_clusters, place_of, score_clusters
from models.groupings import GROUPINGS
from models.profiles import profile_clusters
from models.scales import LogScale
from models.selection import select_clusters
from models.store import CLUSTERS, ModelStore, roll_back, versions_of
from models.training import champion_clusters, cluster_models
from tests.support.rows import rows

pytestmark = pytest.mark.spark

AS_OF = date(2018, 1, 1)
MODEL = ClusterModel(
    merchant_id="shop",
    version="v1",
    as_of=AS_OF,
    way="k-means, log",
    scales=(LogScale(2.0, 1.0), LogScale(2.0, 0.5), LogScale(4.0, 2.0)),
    centres=((-1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (0.0, 0.0, 0.0)),
    shapes=(),
    names=("best", "worst", "middle"),
)


def three_kinds(n: int, seed: int = 1) -> np.ndarray:
    """Customers of three kinds far apart: recency, frequency, value."""
    random = np.random.default_rng(seed)
    kinds = np.array([[3, 60, 5000], [40, 12, 400], [300, 1, 20]])[np.arange(n) % 3]
    return np.round(kinds * random.lognormal(0, 0.2, (n, 3)))


def named(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=list(FEATURES))


def features_of(spark: SparkSession, values: np.ndarray, merchant_id: str = "shop", as_of: date = AS_OF):
    return rows(
        spark,
        "feature.customer",
        [
            {
                "merchant_id": merchant_id,
                "customer_key": i,
                "customer_id": str(i),
                "as_of": as_of,
                "r_score": 1,
                "f_score": 1,
                "m_score": 1,
                "recency_days": int(r),
                "frequency": int(f),
                "monetary_net": Decimal(str(round(float(m), 2))),
            }
            for i, (r, f, m) in enumerate(values)
        ],
    )


@pytest.mark.parametrize("way", GROUPINGS)
def test_spark_scores_as_scikit_learn_does(spark: SparkSession, way: str) -> None:
    # Ties at both ends and in the middle, values beyond the training's and below zero.
    values = np.vstack([three_kinds(300), [[0, 0, -50], [1, 1, 0]] * 9])
    chosen = select_clusters(values, merchant_id="shop", as_of=AS_OF, ways=(way,), candidates=(3,))
    assert chosen.pipeline is not None
    assert chosen.model is not None
    beyond = np.vstack([values, [[9999, 9999, 1e9], [0, 0, -1e9], [17, 17, 17]]])

    scored = score_clusters(features_of(spark, beyond), as_of=AS_OF, clusters={"shop": chosen.model})
    found = {r.customer_key: (r.cluster_id, r.cluster_distance) for r in scored.collect()}

    theirs = chosen.pipeline.predict(named(beyond))
    mine = [found[i][0] for i in range(len(beyond))]
    assert mine == place_of(beyond, chosen.model).tolist()
    assert len(set(zip(mine, theirs, strict=True))) == 3  # the same clusters under other numbers
    if hasattr(chosen.pipeline, "transform"):
        expected = chosen.pipeline.transform(named(beyond)).min(axis=1)
        np.testing.assert_allclose([found[i][1] for i in range(len(beyond))], expected)


def test_each_merchant_has_its_own_model_and_strangers_are_left_out(spark: SparkSession) -> None:
    one = np.array([[np.expm1(2.0), np.expm1(2.0), np.expm1(4.0)]])
    frame = features_of(spark, one)
    frame = frame.union(features_of(spark, one, "other")).union(features_of(spark, one, "stranger"))
    turned = {"centres": MODEL.centres[::-1], "names": MODEL.names[::-1], "kept": (3, 4, 7)}
    other = replace(MODEL, merchant_id="other", version="v7", **turned)

    scored = (
        score_clusters(frame, as_of=AS_OF, clusters={"other": other, "shop": MODEL}).orderBy("merchant_id").collect()
    )

    assert [(r.merchant_id, r.cluster_id, r.cluster_name, r.model_version) for r in scored] == [
        ("other", 3, "middle", "v7"),
        ("shop", 2, "middle", "v1"),
    ]
    assert score_clusters(frame, as_of=AS_OF, clusters={}).collect() == []


def test_ties_go_to_the_lower_number(spark: SparkSession) -> None:
    twins = replace(MODEL, centres=(MODEL.centres[0], MODEL.centres[0]), names=("a", "b"))

    (row,) = score_clusters(features_of(spark, np.ones((1, 3))), as_of=AS_OF, clusters={"shop": twins}).collect()

    assert row.cluster_id == 0


def test_profiles_say_who_the_members_are(spark: SparkSession) -> None:
    features = features_of(spark, np.array([[10, 2, 30], [20, 4, 50], [100, 1, 20]]))
    placed = rows(
        spark,
        "feature.customer_cluster",
        [
            {"merchant_id": "shop", "customer_key": key, "as_of": AS_OF, "cluster_id": cluster, "cluster_distance": 1.0}
            for key, cluster in ((0, 0), (1, 0), (2, 1))
        ],
    )

    big, small = profile_clusters(placed, features, as_of=AS_OF).orderBy("cluster_id").collect()

    assert (big.customers, big.recency_days_mean, big.frequency_mean, big.monetary_net_mean) == (2, 15.0, 3.0, 40.0)
    assert (big.net_amount, big.value_share, small.share) == (Decimal("80.00"), 0.8, 1 / 3)


@pytest.mark.slow
def test_clusters_are_trained_once_gated_served_and_taken_back(spark: SparkSession, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "lake", parallel_steps=1)
    lake = Lake(spark, settings)
    later, other_day = date(2018, 2, 1), date(2018, 3, 10)
    # Half of the regulars have gone silent.
    changed = three_kinds(180)
    changed[::3, 0] += 200
    # The same a month on, and with a hundred people the number of kinds hangs on a few of them.
    lake.write(
        "feature.customer",
        features_of(spark, three_kinds(90))
        .union(features_of(spark, three_kinds(90), as_of=later))
        .union(features_of(spark, changed, as_of=other_day))
        .union(features_of(spark, np.ones((60, 3)), "all_alike")),
    )

    first = cluster_models(lake, settings, as_of=AS_OF)
    assert list(first) == ["shop"]
    assert first["shop"].version == "local.feature.customer_clusters_shop/1"
    assert cluster_models(lake, settings, as_of=AS_OF) == first
    (tmp_path / "lake" / "mlflow" / "versions.json").unlink()  # without the copy MLflow itself answers
    assert cluster_models(lake, settings, as_of=AS_OF)["shop"] == first["shop"]

    # A month on there is nothing to compare on that the champion has not seen: it stays, and what was asked for waits.
    second = cluster_models(lake, settings, as_of=later, retrain=True)
    assert second == first
    store = ModelStore.of(settings)
    one, two = versions_of(store, CLUSTERS, "shop")
    assert (one.status, two.status) == ("accepted", "refused")
    assert "no past day to compare" in two.reason
    assert champion_clusters(store, "shop", AS_OF - timedelta(days=1)) is None

    # Customers who are not at all like those of the champion's day: its sizes have drifted, and another takes over.
    third = cluster_models(lake, settings, as_of=other_day, retrain=True)
    assert third["shop"].version.endswith("_shop/3")
    assert champion_clusters(store, "shop", later) == first["shop"]
    withdrawn, back = roll_back(store, CLUSTERS, "shop")
    assert (withdrawn.number, back.number) == (3, 1)
    assert cluster_models(lake, settings, as_of=other_day)["shop"] == first["shop"]

    import mlflow

    mlflow.set_tracking_uri(store.tracking_uri)
    mlflow.set_registry_uri(store.registry_uri)
    client = mlflow.MlflowClient()
    name = "local.feature.customer_clusters_shop"
    assert client.get_model_version_by_alias(name, "champion").run_id == one.run_id
    assert client.get_model_version_by_alias(name, "challenger").run_id == two.run_id
    loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    values = three_kinds(30, seed=3)
    scored = score_clusters(features_of(spark, values), as_of=AS_OF, clusters=first).orderBy("customer_key").collect()
    assert [r.cluster_id for r in scored] == loaded.predict(named(values)).tolist()
    assert {r.model_version for r in scored} == {f"{name}/1"}
    runs = client.search_runs([client.get_experiment_by_name("customer-clusters").experiment_id])
    assert sum(r.data.tags.get("outcome") == "no model" for r in runs) == 1
    shown = {f.path for f in client.list_artifacts(one.run_id)}
    assert {"model_card.md", "stability.png", "profiles.png"} <= shown
    assert not Path("mlruns").exists()


def test_nothing_of_the_day_or_later_reaches_clusters(spark: SparkSession, tmp_path: Path) -> None:
    from models.training import _past
    from tests.spark.test_outlook_models import AS_OF as DAY
    from tests.spark.test_outlook_models import facts_of
    from tests.unit.test_lifecycle_model import shop

    sales = shop(330)
    known = sales[sales["day"] < (DAY - date(1970, 1, 1)).days]
    late = pd.DataFrame(
        {"customer_key": [1, 2, 999], "day": (DAY - date(1970, 1, 1)).days, "baskets": 1.0, "spend": 9e5}
    )
    lakes = []
    for folder, rows_of in (("plain", known), ("more", pd.concat([known, late]))):
        lake = Lake(spark, Settings(data_dir=tmp_path / folder, parallel_steps=1))
        lake.write("gold.fact_transactions", facts_of(spark, rows_of))
        lakes.append(lake)

    plain, more = (_past(lake, "shop", DAY) for lake in lakes)

    assert plain is not None
    assert more is not None
    np.testing.assert_array_equal(plain.values, more.values)
    np.testing.assert_array_equal(plain.later_spend, more.later_spend)

    values = three_kinds(30)
    features = features_of(spark, values)
    later = features_of(spark, values * 9, as_of=AS_OF + timedelta(days=1))
    alone, among = (
        score_clusters(frame, as_of=AS_OF, clusters={"shop": MODEL}).orderBy("customer_key").collect()
        for frame in (features, features.union(later))
    )
    assert alone == among


def test_matching_keeps_the_numbers_of_what_stayed() -> None:
    # Ten customers at each centre, and five where there is none yet.
    at = [*MODEL.centres * 10, *[(5.0, 5.0, 5.0)] * 5]
    values = np.expm1([[2 + r, 2 + f / 2, 4 + 2 * m] for r, f, m in at])
    shuffled = MODEL.renumbered((1, 2, 0))
    assert match_to(shuffled, MODEL, values) == MODEL
    assert match_to(shuffled, None, values) == shuffled

    grown = replace(MODEL, centres=((5.0, 5.0, 5.0), *MODEL.centres), names=("new", *MODEL.names))
    assert match_to(grown, MODEL, values).names == ("best", "worst", "middle", "new")
    shrunk = replace(MODEL, centres=MODEL.centres[2:] + MODEL.centres[1:2], names=("middle", "worst"))
    assert match_to(shrunk, MODEL, values).names == ("middle", "worst")


def test_names_are_words_a_rule_can_ask_for() -> None:
    names = name_clusters([(-1.0, 0.5, 2.0), (0.0, 0.0, 0.0), (1.5, -1.5, -0.5), (0.1, 0.1, 0.2)])

    assert names == (
        "recent, frequent, very high value",
        "cooling, regular, medium value (2)",
        "very silent, very rare, low value",
        "cooling, regular, medium value (1)",
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.empty((0, 3)), "0 usable customers"),
        (three_kinds(10), "10 usable customers; clusters need 50"),
        (np.full((100, 3), np.nan), "0 usable customers"),
        (np.ones((500, 3)), "Only 1 different customers"),
        (np.vstack([np.ones((60, 3)), [[np.inf, 1, 1], [1, np.nan, 1]]]), "Only 1 different customers"),
        (np.abs(np.random.default_rng(0).normal(size=(400, 3))), "No number of clusters is stable"),
    ],
)
def test_data_without_clusters_give_no_model_and_the_reason(values: np.ndarray, said: str) -> None:
    selection = select_clusters(values, merchant_id="shop", as_of=AS_OF)

    assert selection.model is None
    assert said in selection.reason


def test_one_constant_feature_and_negative_value_are_no_obstacle() -> None:
    values = three_kinds(300)
    values[:, 1] = 1
    values[::3, 2] = -10

    selection = select_clusters(values, merchant_id="shop", as_of=AS_OF)

    assert selection.model is not None
    assert np.isfinite(np.array(selection.model.centres)).all()
    assert set(place_of(values, selection.model)) == set(range(selection.model.k))
    assert selection.model == select_clusters(values, merchant_id="shop", as_of=AS_OF).model
    assert len(selection.model.scales) == len(FEATURES)
