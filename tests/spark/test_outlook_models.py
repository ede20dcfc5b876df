from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.errors import ModelError
from lakehouse.lake import Lake
from lakehouse.settings import Settings
from models.cells import collapse_customers
from models.churn import build_churn_predictions
from models.histories import EPOCH, Histories, day_number
from models.lifecycle import LifecycleModel, fit_lifecycle
from models.outlook import Outlook, score_outlooks
from models.outlook_training import KIND, outlook_models
from models.population import fit_cells, population_of
from models.purchase_days import purchase_days
from models.store import ModelStore, champion_for, load_model, roll_back, versions_of
from tests.support.rows import rows
from tests.unit.test_lifecycle_model import DAY, shop

pytestmark = pytest.mark.spark

AS_OF = date.fromordinal(EPOCH + DAY)


def facts_of(spark: SparkSession, sales: pd.DataFrame, merchant_id: str = "shop") -> DataFrame:
    """Fact lines that give these purchase days: one line each."""
    return rows(
        spark,
        "gold.fact_transactions",
        [
            {
                "transaction_id": n,
                "merchant_id": merchant_id,
                "customer_key": int(r.customer_key),
                "customer_id": f"C{r.customer_key}",
                "basket_id": f"B{n}",
                "business_date": date.fromordinal(EPOCH + int(r.day)),
                "txn_type": "sale" if r.baskets else "return",
                "amount": Decimal(str(r.spend)),
                "is_valid_purchase": r.baskets > 0,
            }
            for n, r in enumerate(sales.itertuples())
        ],
    )


@pytest.fixture(scope="module")
def sales() -> pd.DataFrame:
    return shop()


@pytest.fixture(scope="module")
def model(sales: pd.DataFrame) -> LifecycleModel:
    return fit_lifecycle(Histories.of(sales), DAY)


def line(day: int, **values: object) -> dict[str, object]:
    return {
        "merchant_id": "shop",
        "customer_key": 1,
        "customer_id": "C1",
        "business_date": date.fromordinal(EPOCH + day),
        "is_valid_purchase": True,
        **values,
    }


def test_purchase_days_count_baskets_and_net_what_came_back(spark: SparkSession) -> None:
    back = {"is_valid_purchase": False, "txn_type": "return", "amount": Decimal("-2.50")}
    facts = rows(
        spark,
        "gold.fact_transactions",
        [
            line(5, basket_id="a", amount=Decimal("10.00")),
            line(5, basket_id="a", amount=Decimal("0.10")),
            line(5, basket_id="b", amount=Decimal("0.20")),
            line(5, basket_id="c", **back),
            line(7, basket_id="d", **back),
            line(8, basket_id="e", txn_type="adjustment", amount=Decimal(99)),
            line(9, basket_id="f", amount=Decimal(1)),
            line(6, basket_id="g", customer_key=None, customer_id=None),
        ],
    )

    found = purchase_days(facts, date.fromordinal(EPOCH + 9)).orderBy("day").collect()

    assert [(r.day, r.baskets, r.spend) for r in found] == [(5, 2.0, 7.8), (7, 0.0, -2.5)]


def test_customers_collapse_by_hand(spark: SparkSession) -> None:
    # Two who bought on days 3 and 10 and on 4 and 11 are alike at 20, a third is not, a fourth only gave back.
    days = [(1, 3, 1.0, 10.0), (1, 10, 2.0, 30.0), (1, 25, 1.0, 99.0), (2, 4, 1.0, 20.0), (2, 11, 1.0, 19.4)]
    days += [(3, 1, 1.0, 5.0), (4, 2, 0.0, -5.0), (1, 12, 0.0, -1.0)]
    frame = spark.createDataFrame(days, "customer_key bigint, day bigint, baskets double, spend double")

    found = collapse_customers(frame, [20, 1]).orderBy("kind", "x").collect()

    assert [tuple(r) for r in found if r.kind == "buying"] == [
        (20, "buying", 1, 0.0, 0.0, 19.0, 5.0),
        (20, "buying", 2, 1.0, 7.0, 16.5, 19.6),
    ]
    assert [(r.day, r["count"], r.x, r.spend) for r in found if r.kind == "spending"] == [
        (20, 1, 1.0, 5.0), (20, 2, 2.0, 19.6)
    ]  # fmt: skip


def test_cells_of_everyone_fit_as_the_customers_do(spark: SparkSession, sales: pd.DataFrame) -> None:
    frame = spark.createDataFrame(pa.Table.from_pandas(sales, preserve_index=False))

    cells = collapse_customers(frame, [DAY, DAY - 200, 5]).toPandas()

    known = Histories.of(sales)
    fitted = fit_cells(cells)
    assert set(fitted) == {DAY, DAY - 200}  # on day 5 nobody had bought twice
    assert cells[(cells["day"] == DAY) & (cells["kind"] == "buying")]["count"].sum() == len(known.before(DAY))
    for day, made in fitted.items():
        alone = population_of(known, day)
        assert made.spending is not None
        assert alone.spending is not None
        x, t_x, age = known.before(day).triples(day)
        np.testing.assert_allclose(
            made.buying.expected_purchases(30, x, t_x, age), alone.buying.expected_purchases(30, x, t_x, age), rtol=0.03
        )
        np.testing.assert_allclose(made.spending.expected_spend(3, 20), alone.spending.expected_spend(3, 20), rtol=0.01)


def test_spark_scores_as_the_model_does_and_sees_nothing_of_the_day(
    spark: SparkSession, sales: pd.DataFrame, model: LifecycleModel
) -> None:
    some = sales[sales["customer_key"] < 60]
    outlook = {"shop": Outlook("shop", "v1", model)}
    known = some[some["day"] < DAY]
    later = pd.DataFrame({"customer_key": [1, 2, 777], "day": [DAY, DAY + 9, DAY], "baskets": 1.0, "spend": 1e5})
    returned = pd.DataFrame({"customer_key": [888], "day": [9], "baskets": [0.0], "spend": [-4.0]})
    whole = facts_of(spark, pd.concat([known, later, returned])).union(facts_of(spark, known, "stranger"))

    scored = score_outlooks(whole, as_of=AS_OF, outlooks=outlook).orderBy("customer_key").toPandas()

    expected = model.score(Histories.of(known), DAY)
    assert scored["customer_key"].tolist() == expected["customer_key"].tolist()
    # To the last bits: how many customers come in a batch decides the order of a sum.
    assert scored["probability_active"].tolist() == pytest.approx(expected["probability_active"].tolist(), abs=1e-12)
    assert scored["churn_factors"].map(list).tolist() == expected["churn_factors"].tolist()
    assert scored["customer_lifetime_value"].astype(float).tolist() == pytest.approx(
        expected["customer_lifetime_value"].tolist(), abs=0.006
    )
    assert set(scored["model_version"]) == {"v1"}
    assert set(scored["customer_id"]) == {f"C{k}" for k in expected["customer_key"]}
    assert score_outlooks(whole, as_of=AS_OF, outlooks={}).count() == 0


def test_churn_predictions_say_how_likely_why_and_what_was_said_before(spark: SparkSession) -> None:
    case = {"merchant_id": "shop", "customer_id": "C", "horizon_days": 30, "churn_factors": []}
    risky = {"churn_probability": 0.8, "churn_risk_level": "critical", "churn_factors": ["long silence"]}
    outlooks = rows(
        spark,
        "feature.customer_outlook",
        [
            case | {"customer_key": 1, "as_of": AS_OF} | risky | {"model_version": "m/2"},
            case | {"customer_key": 2, "as_of": AS_OF, "churn_probability": 0.1, "churn_risk_level": "low"},
            case | {"customer_key": 1, "as_of": AS_OF - timedelta(days=9), "churn_risk_level": "medium"},
            case | {"customer_key": 1, "as_of": AS_OF - timedelta(days=2), "churn_risk_level": "high"},
            case | {"customer_key": 1, "as_of": AS_OF + timedelta(days=1), "churn_risk_level": "low"},
            case | {"customer_key": 3, "as_of": AS_OF - timedelta(days=2), "churn_risk_level": "low"},
        ],
    )

    one, two = build_churn_predictions(outlooks, as_of=AS_OF).orderBy("customer_key").collect()

    assert (one.churn_probability, one.churn_risk_level, one.top_factors) == (0.8, "critical", ["long silence"])
    assert (one.previous_risk_level, one.decided_on) == ("high", AS_OF + timedelta(days=30))
    assert (one.model_version, one.horizon_days) == ("m/2", 30)
    assert (two.customer_key, two.churn_risk_level, two.previous_risk_level) == (2, "low", None)


@pytest.mark.slow
def test_a_model_is_trained_once_gated_served_and_taken_back(
    spark: SparkSession, sales: pd.DataFrame, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path / "lake", parallel_steps=1)
    lake = Lake(spark, settings)
    few = sales[sales["customer_key"] < 40]
    lake.write("gold.fact_transactions", facts_of(spark, sales).union(facts_of(spark, few, "tiny")))
    store = ModelStore.of(settings)

    first = outlook_models(lake, settings, as_of=AS_OF)

    assert list(first) == ["shop"]
    assert first["shop"].version == f"local.feature.{KIND}_shop/1"
    assert outlook_models(lake, settings, as_of=AS_OF)["shop"].version == first["shop"].version
    (only,) = versions_of(store, KIND, "shop")
    assert (only.status, only.as_of) == ("accepted", AS_OF.isoformat())
    assert "over the plain R + F + M sum" in only.reason
    assert champion_for(store, KIND, "shop", AS_OF - timedelta(days=1)) is None
    with pytest.raises(ModelError, match="1 accepted version"):
        roll_back(store, KIND, "shop")

    # The champion has seen the days of a trial this soon, so what is asked for cannot replace it.
    soon = outlook_models(lake, settings, as_of=AS_OF + timedelta(days=5), retrain=True)
    assert soon["shop"].version == first["shop"].version
    assert "cannot be compared" in versions_of(store, KIND, "shop")[-1].reason

    import mlflow

    mlflow.set_tracking_uri(store.tracking_uri)
    mlflow.set_registry_uri(store.registry_uri)
    client = mlflow.MlflowClient()
    name = store.model_name(KIND, "shop")
    aliases = client.get_registered_model(name).aliases
    assert {a: int(v) for a, v in aliases.items()} == {"champion": 1, "challenger": 2}
    run = client.get_run(only.run_id)
    assert run.data.metrics["auc"] > run.data.metrics["auc_of_rfm_sum"]
    assert {f.path for f in client.list_artifacts(only.run_id)} >= {"model_card.md", "reliability.png", "gain.png"}
    served = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(sales[sales["day"] < DAY])
    expected = first["shop"].model.score(Histories.of(sales), day_number(AS_OF))
    assert served["probability_active"].tolist() == expected["probability_active"].tolist()
    assert load_model(store, only).rows == first["shop"].model.rows
    assert not Path("mlruns").exists()


def test_a_day_nobody_has_bought_before_has_no_outlook(spark: SparkSession, model: LifecycleModel) -> None:
    facts = rows(spark, "gold.fact_transactions", [line(DAY + 3)])

    assert (
        score_outlooks(facts, as_of=AS_OF, outlooks={"shop": Outlook("shop", "v1", model)}).where(F.lit(True)).collect()
        == []
    )
