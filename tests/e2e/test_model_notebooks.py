"""The notebooks on models, run on a third of the Complete Journey; made-up customers do not show their point."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from lakehouse.declare import table_of
from lakehouse.lake import Lake
from lakehouse.settings import Settings
from tests.support.notebooks import pictures, run_notebooks, text_of
from tests.support.rows import rows

pytestmark = pytest.mark.e2e

NAMES = ("clustering_choice", "lookalike_expansion", "customer_lifetime_value")


@pytest.fixture(scope="module")
def journey(spark: SparkSession, complete_journey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lakehouse with the facts and products of every third household, and nothing else."""
    lake = Lake(spark, Settings(data_dir=tmp_path_factory.mktemp("journey"), parallel_steps=1))
    columns = ["household_id", "basket_id", "product_id", "sales_value", "transaction_timestamp"]
    sales = pd.read_parquet(complete_journey / "transactions.parquet", columns=columns)
    sales = sales[sales["household_id"] % 3 == 0]
    facts = {
        "transaction_id": range(len(sales)),
        "merchant_id": "complete_journey",
        "customer_key": sales["household_id"],
        "customer_id": sales["household_id"].astype(str),
        "basket_id": sales["basket_id"].astype(str),
        "product_id": sales["product_id"].astype(str),
        "business_date": sales["transaction_timestamp"].dt.date,
        "amount": sales["sales_value"],
        "is_valid_purchase": sales["sales_value"] > 0,
    }
    products = pd.read_parquet(complete_journey / "products.parquet")
    named = {
        "merchant_id": "complete_journey",
        "product_id": products["product_id"].astype(str),
        "category": products["product_category"],
        "subcategory": products["product_type"],
        "is_merchandise": True,
    }
    lake.write("gold.fact_transactions", _filled(spark, "gold.fact_transactions", pd.DataFrame(facts)))
    lake.write("gold.dim_product", _filled(spark, "gold.dim_product", pd.DataFrame(named)))
    return lake.settings.data_dir


def test_model_notebooks_run_on_real_customers(journey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    books = run_notebooks(NAMES, journey, monkeypatch)
    for name, shown in books.items():
        assert pictures(shown) >= 3, name
    said = "".join(text_of(o) for shown in books.values() for o in shown)
    assert "customers of complete_journey" in said
    assert "R2 of later spend: " in said  # there are stable clusters


def _filled(spark: SparkSession, name: str, known: pd.DataFrame) -> DataFrame:
    """Rows of a table, with a plain default in every column that is not known."""
    frame = spark.createDataFrame(pa.Table.from_pandas(known, preserve_index=False))
    plain = rows(spark, name, [{}]).drop(*known.columns)
    typed = rows(spark, name).schema
    columns = table_of(name).column_names
    return frame.crossJoin(plain).select(
        *[(frame[c].cast(typed[c].dataType) if c in known else plain[c]) for c in columns]
    )
