"""The notebooks on models, run on a third of the Complete Journey; made-up customers do not show their point."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from lakehouse.declare import table_of
from lakehouse.lake import Lake
from lakehouse.session import TEST_CONF
from lakehouse.settings import Settings
from tests.support.rows import rows

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
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
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra: uv sync --extra notebooks")
    monkeypatch.setenv("SEGMENTATION_DATA_DIR", str(journey))
    spark = {"master": "local[2]", "driver_memory": "1g", "shuffle_partitions": 2, "conf": dict(TEST_CONF)}
    monkeypatch.setenv("SEGMENTATION_SPARK", json.dumps(spark))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    books = {name: nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4) for name in NAMES}
    # One after the other in one kernel, so that the session starts once.
    whole = nbformat.v4.new_notebook(cells=[c for b in books.values() for c in b.cells])
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(whole, timeout=600, kernel_name="python3", resources=resources).execute()
    for name, book in books.items():
        shown = [o for c in book.cells if c.cell_type == "code" for o in c.outputs]
        assert sum("image/png" in o.get("data", {}) for o in shown) >= 3, name
    said = "".join(str(o.get("text", "")) for c in whole.cells if c.cell_type == "code" for o in c.outputs)
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
