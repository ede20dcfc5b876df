"""Customers, their accounts and history, and products: what is delivered late, and what a correction takes away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import product
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from lakehouse.declare import table_of
from lakehouse.keys import key_of_customer
from lakehouse.scd import rebuild_timeline
from pipelines.gold.customers import build_dim_customer
from pipelines.gold.products import build_dim_product
from pipelines.silver.customers import conform_customers
from pipelines.silver.products import conform_products
from pipelines.silver.rules import FeedRules
from tests.support.rows import rows

pytestmark = pytest.mark.spark

CRM = FeedRules("crm", "people", "shop")
MAIL = FeedRules("crm", "mail", "shop")
MASTER, CONTACT = "bronze.raw_customers", "bronze.raw_contact_points"
CUSTOMER, LINE, PRODUCT, HISTORY = "silver.customer", "silver.transaction_line", "silver.product", "gold.dim_customer"


def said(n: int, age: str, since: datetime | None, **more: Any) -> dict[str, Any]:
    """The nth delivered row about one customer."""
    usual = {"source": "crm", "feed": "people", "customer_id": "anna", "age_band": age, "changed_at": since}
    return usual | delivered(n) | more


def mail(n: int, email: str, **more: Any) -> dict[str, Any]:
    """The nth delivered row about how to reach one customer."""
    return {"source": "crm", "feed": "mail", "email": email} | delivered(n) | more


def delivered(n: int) -> dict[str, Any]:
    return {"delivery_seq": n, "batch_id": n, "row_number": 1, "row_hash": n, "loaded_at": datetime(2025, 1, n)}


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
    contacts: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    made = conform_customers(
        rows(spark, MASTER, master),
        rows(spark, MASTER, master).selectExpr("*", "false AS _deleted"),
        rows(spark, CONTACT, contacts),
        rows(spark, CONTACT, contacts).selectExpr("*", "false AS _deleted"),
        rows(spark, LINE, lines),
        rows(spark, LINE, changed_lines),
        sources=[CRM, MAIL],
        previous=held,
    )
    return [r.asDict() for r in made.collect()]


def lay_out(
    spark: SparkSession,
    stored: DataFrame | None,
    customers: list[dict[str, Any]],
    master: Sequence[dict[str, Any]] = (),
    contacts: Sequence[dict[str, Any]] = (),
) -> list[Row]:
    """Versions of changed customers, on top of those stored."""
    changed = rows(spark, CUSTOMER, [{"_deleted": False} | c for c in customers])
    made = build_dim_customer(rows(spark, MASTER, master), rows(spark, CONTACT, contacts), changed, sources=[CRM, MAIL])
    return rebuild_timeline(stored if stored else rows(spark, HISTORY), made, table_of(HISTORY)).collect()


def as_held(spark: SparkSession, which: str, made: list[dict[str, Any]]) -> DataFrame:
    return rows(spark, which, [{c: v for c, v in r.items() if c != "_deleted"} for r in made if not r["_deleted"]])


JANUARY, MARCH = datetime(2024, 1, 5), datetime(2024, 3, 1)


def test_the_key_of_a_customer_stays_what_it_is(spark: SparkSession) -> None:
    made = spark.range(1).select(key_of_customer(F.lit("shop"), F.lit("C001"))).collect()
    # By another implementation of xxHash64: of the retailer from seed 42, then of the number from what that gave.
    assert made == [(-8591427220888109653,)]


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

    first = lay_out(spark, None, [r.asDict() for r in held.collect()])
    again = lay_out(spark, as_held(spark, HISTORY, [r.asDict() for r in first]), made)
    assert {r["customer_id"]: r["_deleted"] for r in again} == {"anna": False, "bob": True}


def test_a_profile_that_comes_after_the_first_sale_but_was_true_before_is_the_current_one(spark: SparkSession) -> None:
    bought, profile = [line("anna")], [said(1, "25-34", JANUARY)]
    sold = conform(spark, [], bought, bought, None)
    stored = as_held(spark, HISTORY, [r.asDict() for r in lay_out(spark, None, sold)])
    known = conform(spark, profile, bought, [], as_held(spark, CUSTOMER, sold))
    late, whole = (lay_out(spark, held, known, profile) for held in (stored, None))
    assert [r for r in late if not r["_deleted"]] == whole
    assert [(r["age_band"], r["valid_from"], r["is_current"]) for r in whole] == [("25-34", JANUARY, True)]


def test_every_row_about_a_customer_is_in_the_history_from_when_it_held(spark: SparkSession) -> None:
    sold_at, read_at = datetime(2024, 8, 1), datetime(2025, 1, 2)
    master = [
        # Both say since when, whichever was delivered first; neither does; and one that began after the first sale.
        *(said(n, age, since, customer_id="told") for n, age, since in ((1, "35-44", MARCH), (2, "25-34", JANUARY))),
        *(said(n, age, None, customer_id="untold") for n, age in ((1, "25-34"), (2, "35-44"))),
        said(1, "25-34", datetime(2024, 9, 1), customer_id="late"),
    ]
    bought = [line(n, country="DE") for n in ("told", "untold", "late")]
    found = lay_out(spark, None, conform(spark, master, bought, [], None), master)
    versions = sorted((r.customer_id, r.valid_from, r.valid_to, r.age_band, r.country) for r in found)
    assert versions == [
        ("late", sold_at, datetime(2024, 9, 1), None, "DE"),
        ("late", datetime(2024, 9, 1), None, "25-34", "DE"),
        ("told", JANUARY, MARCH, "25-34", "DE"),
        ("told", MARCH, None, "35-44", "DE"),
        ("untold", sold_at, read_at, "25-34", "DE"),
        ("untold", read_at, None, "35-44", "DE"),
    ]


def test_the_history_is_the_same_however_deliveries_fall_into_runs(spark: SparkSession) -> None:
    master, contacts, lines, of_first_run = [], [], [], set()
    # What two rows of master data say of their time, and which of five rows comes in the first of two runs.
    since = ((JANUARY, MARCH), (MARCH, JANUARY), (None, None), (MARCH, None), (None, JANUARY), (MARCH, MARCH))
    for (one, two), early in product(since, product((False, True), repeat=5)):
        name = f"{len(lines):03}"
        told = [
            said(2, "25-34", one, customer_id=name, country="FR"),
            said(4, "35-44", two, customer_id=name),
            mail(3, "a@x.example", customer_id=name),
            mail(5, "b@x.example", customer_id=name, country="IT"),
            line(name, country="DE"),
        ]
        for kind, row, is_early in zip((master, master, contacts, contacts, lines), told, early, strict=True):
            kind.append(row)
            of_first_run |= {id(row)} if is_early else set()

    def first(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [r for r in listed if id(r) in of_first_run]

    whole = conform(spark, master, lines, lines, None, contacts)
    at_once = lay_out(spark, None, whole, master, contacts)
    begun = conform(spark, first(master), first(lines), first(lines), None, first(contacts))
    stored = as_held(spark, HISTORY, [r.asDict() for r in lay_out(spark, None, begun, first(master), first(contacts))])
    later = conform(spark, master, lines, lines, as_held(spark, CUSTOMER, begun), contacts)
    stepwise = lay_out(spark, stored, later, master, contacts)
    assert {r for r in stepwise if not r["_deleted"]} == set(at_once)

    # And the last version is what holds.
    last = {r.customer_id: (r.age_band, r.country, r.email) for r in at_once if r.is_current}
    assert last == {c["customer_id"]: (c["age_band"], c["country"], c["email"]) for c in whole}
    assert len(last) == len(lines)


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
