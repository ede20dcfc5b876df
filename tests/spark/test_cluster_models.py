from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from lakehouse.lake import Lake
from lakehouse.settings import Settings
from models.clustering import FEATURES, ClusterModel, match_to, name_clusters, numbers_of, score_clusters
from models.profiles import profile_clusters
from models.registry import ModelStore, find_clusters
from models.selection import select_clusters
from models.training import cluster_models
from tests.support.rows import rows

pytestmark = pytest.mark.spark

AS_OF = date(2018, 1, 1)
MODEL = ClusterModel(
    merchant_id="shop",
    version="v1",
    as_of=AS_OF,
    means=(2.0, 2.0, 4.0),
    scales=(1.0, 0.5, 2.0),
    centres=((-1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (0.0, 0.0, 0.0)),
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


def test_spark_scores_as_scikit_learn_does(spark: SparkSession) -> None:
    values = np.vstack([three_kinds(300), [[0, 0, -50], [1, 1, 0]]])
    chosen = select_clusters(values, merchant_id="shop", as_of=AS_OF)
    assert chosen.pipeline is not None
    model = numbers_of(chosen.pipeline, "shop", AS_OF)

    scored = score_clusters(features_of(spark, values), as_of=AS_OF, clusters={"shop": model})
    found = {r.customer_key: (r.cluster_id, r.cluster_distance) for r in scored.collect()}

    kmeans = chosen.pipeline["kmeans"]
    renumber = [int(np.argmin(((np.array(model.centres) - c) ** 2).sum(axis=1))) for c in kmeans.cluster_centers_]
    assert [found[i][0] for i in range(len(values))] == [renumber[n] for n in chosen.pipeline.predict(named(values))]
    np.testing.assert_allclose(
        [found[i][1] for i in range(len(values))], chosen.pipeline.transform(named(values)).min(axis=1)
    )


def test_each_merchant_has_its_own_model_and_strangers_are_left_out(spark: SparkSession) -> None:
    one = np.array([[np.expm1(2.0), np.expm1(2.0), np.expm1(4.0)]])
    frame = features_of(spark, one)
    frame = frame.union(features_of(spark, one, "other")).union(features_of(spark, one, "stranger"))
    other = replace(MODEL, merchant_id="other", version="v7", centres=MODEL.centres[::-1], names=MODEL.names[::-1])

    scored = (
        score_clusters(frame, as_of=AS_OF, clusters={"other": other, "shop": MODEL}).orderBy("merchant_id").collect()
    )

    assert [(r.merchant_id, r.cluster_id, r.cluster_name, r.model_version) for r in scored] == [
        ("other", 0, "middle", "v7"),
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
def test_training_waits_for_the_month_and_keeps_numbers_and_point_in_time(spark: SparkSession, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "lake", parallel_steps=1)
    lake = Lake(spark, settings)
    later = date(2018, 2, 1)
    # The same a month on, and with a hundred people the number of kinds hangs on a few of them.
    lake.write(
        "feature.customer",
        features_of(spark, three_kinds(90))
        .union(features_of(spark, three_kinds(90), as_of=later))
        .union(features_of(spark, np.ones((60, 3)), "all_alike")),
    )

    first = cluster_models(lake, settings, as_of=AS_OF)
    assert list(first) == ["shop"]
    assert first["shop"].version == "local.feature.customer_clusters_shop/1"
    assert cluster_models(lake, settings, as_of=AS_OF) == first
    (tmp_path / "lake" / "mlflow" / "clusters.json").unlink()  # without the copy MLflow itself answers
    assert cluster_models(lake, settings, as_of=AS_OF)["shop"] == first["shop"]

    second = cluster_models(lake, settings, as_of=later)
    assert second["shop"].version == "local.feature.customer_clusters_shop/2"
    drift = np.abs(np.array(second["shop"].centres) - np.array(first["shop"].centres)).max()
    assert second["shop"].k == first["shop"].k
    assert drift < 0.3
    store = ModelStore.of(settings)
    assert find_clusters(store, "shop", date(2018, 1, 20)) == first["shop"]

    import mlflow

    mlflow.set_tracking_uri(store.tracking_uri)
    mlflow.set_registry_uri(store.registry_uri)
    client = mlflow.MlflowClient()
    newest = client.get_model_version("local.feature.customer_clusters_shop", "2")
    assert client.get_model_version_by_alias("local.feature.customer_clusters_shop", "champion").run_id == newest.run_id
    loaded = mlflow.sklearn.load_model("models:/local.feature.customer_clusters_shop@champion")
    values = three_kinds(30, seed=3)
    scored = score_clusters(features_of(spark, values), as_of=AS_OF, clusters=second)
    assert [r.cluster_id for r in scored.orderBy("customer_key").collect()] == loaded.predict(named(values)).tolist()
    runs = client.search_runs([client.get_experiment_by_name("customer-clusters").experiment_id])
    assert sorted(r.data.tags["outcome"] for r in runs) == ["model", "model", "no model"]
    assert not Path("mlruns").exists()


def test_matching_keeps_the_numbers_of_what_stayed() -> None:
    shuffled = replace(MODEL, centres=MODEL.centres[1:] + MODEL.centres[:1], names=MODEL.names[1:] + MODEL.names[:1])
    assert match_to(shuffled, MODEL) == MODEL
    assert match_to(shuffled, None) == shuffled

    grown = replace(MODEL, centres=((5.0, 5.0, 5.0), *MODEL.centres), names=("new", *MODEL.names))
    assert match_to(grown, MODEL).names == ("best", "worst", "middle", "new")
    shrunk = replace(MODEL, centres=MODEL.centres[2:] + MODEL.centres[1:2], names=("middle", "worst"))
    assert match_to(shrunk, MODEL).names == ("middle", "worst")


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
    assert selection.model == select_clusters(values, merchant_id="shop", as_of=AS_OF).model
    assert len(selection.model.means) == len(FEATURES)
