"""Customers with their history."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.joins import rows_named
from lakehouse.keys import key_of_customer
from lakehouse.tables.gold import DimCustomer as D
from lakehouse.tables.silver import Customer as C
from pipelines.silver.customers import MASTER, contact_values, master_values
from pipelines.silver.rules import rule_book
from pipelines.silver.subjects import accept, newest_first

_KEY = (str(D.merchant_id), str(D.customer_id))
_CONTACT = (C.email, C.phone, C.first_name, C.last_name, C.postal_code, C.city)
_SO_FAR = (Window.unboundedPreceding, Window.currentRow)
_MANAGED = (str(D.customer_sk), str(D.valid_to), str(D.is_current))


def build_dim_customer(raw: DataFrame, contacts: DataFrame, customer_changes: DataFrame, *, sources: Any) -> DataFrame:
    """All versions of changed customers, from every accepted row about them, whenever it was delivered.

    A row holds from when it says on; one that does not say from when it was read, the first one about a customer from
    the first sight of them. The rows win over each other as in `silver.customer`, so the last version is what is there.

    Args:
        raw: `bronze.raw_customers`.
        contacts: `bronze.raw_contact_points`.
        customer_changes: Changed rows of `silver.customer`.
        sources: Rules per source.

    Returns:
        Columns of `gold.dim_customer` without the surrogate, `valid_to` and `is_current`, and `_deleted` for customers
        whose only lines a correction booked on another.
    """
    told = customer_changes.withColumn(D.customer_key, key_of_customer(D.merchant_id, D.customer_id))
    # Nearly all customers, of whom nothing but one row of each kind has come, and nothing that began later.
    is_one = (
        (F.col(C.master_count) <= 1) & (F.col(C.contact_count) <= 1) & (F.col(C.changed_at) == F.col("first_seen_at"))
    )
    is_one = F.col("_deleted") | is_one
    wanted = [c for c in D.__table__.column_names if c not in _MANAGED]  # type: ignore[attr-defined]
    once = told.where(is_one).withColumn(D.valid_from, F.col(C.first_seen_at))
    several = _versions(told.where(~is_one), raw, contacts, sources).withColumn("_deleted", F.lit(False))
    return once.select(*wanted, "_deleted").unionByName(several.select(*wanted, "_deleted"))


def _versions(customers: DataFrame, raw: DataFrame, contacts: DataFrame, sources: Any) -> DataFrame:
    """One row per customer and instant at which something about them began to hold."""
    known = (*_KEY, D.customer_key, D.first_seen_at, C.line_country)
    about = customers.select(*known)
    of_master, of_contact = rule_book(sources, "customers"), rule_book(sources, "contact_points")
    is_sample = of_contact.where(lambda r: r.is_sample)
    master = _statements(
        rows_named(accept(raw, "customers", of_master), about, _KEY), about, F.col("changed_at"), master_values()
    )
    reached = _statements(
        rows_named(accept(contacts, "contact_points", of_contact), about, _KEY),
        about,
        F.lit(None).cast("timestamp"),
        contact_values(is_sample),
    )
    begins = about.withColumn(D.valid_from, F.col(D.first_seen_at))
    # A null without a type has no fields, where the engine does not give it one.
    no_master, no_contact = (F.lit(None).cast(f.schema["_said"].dataType) for f in (master, reached))
    of_all = [*known, D.valid_from]
    # Of rows that hold from the same instant on, the one that wins.
    at_once = (
        master.select(*of_all, F.col("_said").alias("_master"), no_contact.alias("_contact"))
        .unionByName(reached.select(*of_all, no_master.alias("_master"), F.col("_said").alias("_contact")))
        .unionByName(begins.select(*of_all, no_master.alias("_master"), no_contact.alias("_contact")))
        .groupBy(*known, D.valid_from)
        .agg(F.max("_master").alias("_master"), F.max("_contact").alias("_contact"))
    )
    until_then = Window.partitionBy(*_KEY).orderBy(D.valid_from).rowsBetween(*_SO_FAR)
    held = at_once.select(
        *known, D.valid_from, *[F.last(c, ignorenulls=True).over(until_then).alias(c) for c in ("_master", "_contact")]
    )
    of_row, of_contact_row = F.col("_master"), F.col("_contact")
    return held.select(
        *known,
        D.valid_from,
        *[of_row[c].alias(c) for c in MASTER],
        *[of_contact_row[str(c)].alias(c) for c in _CONTACT],
        F.coalesce(of_row["_country"], of_contact_row["_contact_country"], C.line_country).alias(D.country),
        F.coalesce(of_contact_row[str(C.is_sample_contact)], F.lit(False)).alias(D.is_sample_contact),
    )


def _statements(rows: DataFrame, about: DataFrame, said_at: Column, values: list[Column]) -> DataFrame:
    """What rows say, as `_said` that compares as they win, and since when it holds: never before what it follows."""
    of_key = Window.partitionBy(*_KEY)
    counted = rows.select(
        "*",
        said_at.alias("_said_at"),
        F.count(F.lit(1)).over(of_key).alias("_n"),
        F.count(said_at).over(of_key).alias("_n_told"),
    )
    since = F.when(F.col("_n_told") == F.col("_n"), F.col("_said_at"))
    ranked = counted.withColumn("_rank", F.row_number().over(of_key.orderBy(since.desc(), *newest_first())))
    read_at = F.when(F.col("_rank") < F.col("_n"), F.col("loaded_at"))
    begins = F.greatest(D.first_seen_at, F.coalesce("_said_at", read_at))
    so_far = of_key.orderBy(F.desc("_rank")).rowsBetween(*_SO_FAR)
    # Customers are named once.
    return ranked.join(about, on=list(_KEY), how="inner").select(
        *about.columns,
        F.max(begins).over(so_far).alias(D.valid_from),
        F.struct((-F.col("_rank")).alias("_order"), *values).alias("_said"),
    )
