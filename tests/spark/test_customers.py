"""Customers, their accounts and history, and products: what is delivered late, and what a correction takes away."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from lakehouse.declare import table_of
from lakehouse.scd import rebuild_timeline
from pipelines.gold.customers import build_dim_customer
from pipelines.gold.products import build_dim_product
from pipelines.silver.customers import conform_customers
from pipelines.silver.products import conform_products
from pipelines.silver.rules import FeedRules
from tests.support.rows import rows

pytestmark = pytest.mark.spark

CRM = FeedRules("crm", "people", "shop")
CUSTOMER, LINE, PRODUCT, HISTORY = "silver.customer", "silver.transaction_line", "silver.product", "gold.dim_customer"


def said(n: int, age: str, since: datetime | None, **more: Any) -> dict[str, Any]:
    """The nth delivered row about one customer."""
    usual = {"source": "crm", "feed": "people", "customer_id": "anna", "age_band": age, "changed_at": since}
    order = {"delivery_seq": n, "batch_id": n, "row_number": 1, "row_hash": n, "loaded_at": datetime(2025, 1, n)}
    return usual | order | more


def line(customer: str, product: str = "p", **more: Any) -> dict[str, Any]:
    return {
        "merchant_id": "shop",
        "customer_id": customer,
        "product_id": product,
        "sold_at": datetime(2024, 8, 1),
        **more,
    }


def conform(
    spark: SparkSession,
    master: list[dict[str, Any]],
    lines: list[dict[str, Any]],
    changed_lines: list[dict[str, Any]],
    held: DataFrame | None,
) -> list[dict[str, Any]]:
    new = [r | {"_deleted": False} for r in master]
    made = conform_customers(
        rows(spark, "bronze.raw_customers", master),
        rows(spark, "bronze.raw_customers", new),
        rows(spark, "bronze.raw_contact_points"),
        rows(spark, "bronze.raw_contact_points", []).selectExpr("*", "false AS _deleted"),
        rows(spark, LINE, lines),
        rows(spark, LINE, changed_lines),
        sources=[CRM],
        previous=held,
    )
    return [r.asDict() for r in made.collect()]


def as_held(spark: SparkSession, which: str, made: list[dict[str, Any]]) -> DataFrame:
    return rows(spark, which, [{c: v for c, v in r.items() if c != "_deleted"} for r in made if not r["_deleted"]])


JANUARY, MARCH = datetime(2024, 1, 5), datetime(2024, 3, 1)


def test_what_became_true_last_holds_though_it_was_delivered_first(spark: SparkSession) -> None:
    late = [said(1, "35-44", MARCH), said(2, "25-34", JANUARY)]
    (whole,) = conform(spark, late, [], [], None)
    assert (whole["age_band"], whole["changed_at"], whole["master_count"]) == ("35-44", MARCH, 2)
    held = as_held(spark, CUSTOMER, conform(spark, late[:1], [], [], None))
    assert conform(spark, late, [], [], held) == [whole]


def test_where_a_row_does_not_say_since_when_the_later_delivery_holds(spark: SparkSession) -> None:
    (made,) = conform(spark, [said(1, "35-44", MARCH), said(2, "25-34", None)], [], [], None)
    assert made["age_band"] == "25-34"


def test_a_changed_profile_does_not_make_a_customer_newer(spark: SparkSession) -> None:
    bought = [line("anna")]
    (made,) = conform(spark, [said(1, "25-34", JANUARY), said(2, "35-44", MARCH)], bought, [], None)
    assert (made["first_seen_at"], made["changed_at"]) == (JANUARY, MARCH)


def test_a_customer_whose_only_line_was_another_s_is_gone_with_the_history(spark: SparkSession) -> None:
    held = as_held(spark, CUSTOMER, conform(spark, [], [line("bob"), line("anna")], [], None))
    corrected = [line("bob", _deleted=True), line("anna", _deleted=False)]
    made = conform(spark, [], [line("anna")], corrected, held)
    assert {r["customer_id"]: r["_deleted"] for r in made} == {"anna": False, "bob": True}

    dim = table_of(HISTORY)
    before = [r.asDict() | {"_deleted": False} for r in held.collect()]
    first = rebuild_timeline(rows(spark, HISTORY), build_dim_customer(rows(spark, CUSTOMER, before)), dim)
    stored = as_held(spark, HISTORY, [r.asDict() for r in first.collect()])
    again = rebuild_timeline(stored, build_dim_customer(rows(spark, CUSTOMER, made)), dim).collect()
    assert {r["customer_id"]: r["_deleted"] for r in again} == {"anna": False, "bob": True}


def test_a_profile_that_comes_after_the_first_sale_but_was_true_before_is_the_current_one(spark: SparkSession) -> None:
    dim, none = table_of(HISTORY), rows(spark, HISTORY)
    bought = [line("anna")]
    sold = conform(spark, [], bought, bought, None)
    first = rebuild_timeline(none, build_dim_customer(rows(spark, CUSTOMER, sold)), dim).collect()
    stored = as_held(spark, HISTORY, [r.asDict() for r in first])
    known = conform(spark, [said(1, "25-34", JANUARY)], bought, [], as_held(spark, CUSTOMER, sold))
    late = rebuild_timeline(stored, build_dim_customer(rows(spark, CUSTOMER, known)), dim).collect()
    whole = rebuild_timeline(none, build_dim_customer(rows(spark, CUSTOMER, known)), dim).collect()
    assert [r for r in late if not r["_deleted"]] == whole
    assert [(r["age_band"], r["valid_from"], r["is_current"]) for r in whole] == [("25-34", JANUARY, True)]


def test_a_later_profile_is_another_version(spark: SparkSession) -> None:
    dim, profile = table_of(HISTORY), [said(1, "25-34", JANUARY), said(2, "35-44", MARCH)]
    one, two = (conform(spark, profile[:n], [], [], None) for n in (1, 2))
    first = rebuild_timeline(rows(spark, HISTORY), build_dim_customer(rows(spark, CUSTOMER, one)), dim).collect()
    stored = as_held(spark, HISTORY, [r.asDict() for r in first])
    made = rebuild_timeline(stored, build_dim_customer(rows(spark, CUSTOMER, two)), dim).collect()
    assert {(r["age_band"], r["valid_from"], r["valid_to"]) for r in made if not r["_deleted"]} == {
        ("25-34", JANUARY, MARCH),
        ("35-44", MARCH, None),
    }


def test_a_product_that_a_correction_took_is_gone_unless_it_is_described(spark: SparkSession) -> None:
    def products(delivered: list[dict[str, Any]], lines: list[dict[str, Any]], changed: Any, held: Any) -> Any:
        feed = FeedRules("crm", "goods", "shop")
        raw = [r | {"source": "crm", "feed": "goods"} for r in delivered]
        made = conform_products(
            rows(spark, "bronze.raw_products", raw),
            rows(spark, "bronze.raw_products", [r | {"_deleted": False} for r in raw if held is None]),
            rows(spark, LINE, lines),
            rows(spark, LINE, changed),
            sources=[feed],
            previous=held,
        )
        return [r.asDict() for r in made.collect()]

    described = [{"product_id": "D", "product_name": "Described"}]
    held = as_held(spark, PRODUCT, products(described, [line("a", "D"), line("a", "WRONG")], [], None))
    changed = [line("a", "D", _deleted=True), line("a", "WRONG", _deleted=True), line("a", "RIGHT", _deleted=False)]
    made = products(described, [line("a", "RIGHT")], changed, held)
    assert {r["product_id"]: r["_deleted"] for r in made} == {"RIGHT": False, "WRONG": True}

    stored = build_dim_product(held).drop("_deleted")
    left = [r for r in held.collect() if r["product_id"] != "WRONG"]
    now = build_dim_product(rows(spark, PRODUCT, [r.asDict() for r in left]), previous=stored).collect()
    assert {r["product_id"]: r["_deleted"] for r in now} == {"D": False, "WRONG": True}
