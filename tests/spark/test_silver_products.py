"""Products: what the feed says, what only the lines say, and that work follows what changed."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.silver.products import conform_products
from pipelines.silver.rules import FeedRules
from tests.support.rows import rows

pytestmark = pytest.mark.spark

SHOP = "m"
RULES = (FeedRules("src", "products", SHOP),)
RAW, LINE, PRODUCT = "bronze.raw_products", "silver.transaction_line", "silver.product"


def described(code: str, delivery: int, **more: Any) -> dict[str, Any]:
    told = {"source": "src", "feed": "products", "batch_id": delivery, "delivery_seq": delivery}
    return told | {"product_id": code, "row_number": 1, "row_hash": delivery, **more}


def sold(number: int, code: str, name: str | None) -> dict[str, Any]:
    return {"transaction_id": number, "merchant_id": SHOP, "product_id": code, "product_name": name}


def conform(
    spark: SparkSession,
    raw: list[dict[str, Any]],
    new: list[dict[str, Any]],
    lines: list[dict[str, Any]],
    new_lines: list[dict[str, Any]],
    previous: DataFrame | None,
) -> dict[str, dict[str, Any]]:
    def changed(which: str, cases: list[dict[str, Any]]) -> DataFrame:
        return rows(spark, which, cases).withColumn("_deleted", F.lit(False))

    made = conform_products(
        rows(spark, RAW, raw), changed(RAW, new), rows(spark, LINE, lines), changed(LINE, new_lines),
        sources=RULES, previous=previous,
    )  # fmt: skip
    return {r["product_id"]: r.asDict() for r in made.collect()}


def test_an_increment_writes_what_changed_and_equals_a_full_build(spark: SparkSession) -> None:
    raw = [described("A", 1, department="d1"), described("B", 1, product_name="Bee")]
    lines = [sold(1, "A", "Apple"), sold(2, "B", "Beet"), sold(3, "C", "Corn"), sold(4, "D", "Dill")]
    first = conform(spark, raw, raw, lines, lines, None)
    assert {k: v["product_name"] for k, v in first.items()} == {"A": "Apple", "B": "Bee", "C": "Corn", "D": "Dill"}

    # A is described again without a name and not sold; B and C are sold again; E is new.
    again = [described("A", 2, department="d2")]
    more = [sold(5, "B", "Beans"), sold(6, "C", "Carrot"), sold(7, "C", "Carrot"), sold(8, "E", None)]
    held = rows(spark, PRODUCT, first.values())
    second = conform(spark, raw + again, again, lines + more, more, held)
    assert set(second) == {"A", "C", "E"}
    whole = conform(spark, raw + again, raw + again, lines + more, lines + more, None)
    assert first | second == whole
    assert whole["A"]["product_name"] == "Apple"
    assert whole["A"]["department"] == "d2"
    assert whole["C"]["product_name"] == "Carrot"

    # What was described without a name before it was sold takes the name of its first line.
    early = conform(spark, [described("F", 1, department="d1")], [described("F", 1, department="d1")], [], [], None)
    assert early["F"]["product_name"] is None
    line = [sold(9, "F", "Fig")]
    late = conform(spark, [described("F", 1, department="d1")], [], line, line, rows(spark, PRODUCT, early.values()))
    assert late == {"F": early["F"] | {"product_name": "Fig"}}
