"""Customers: master data, contact points, and everybody who has bought with a number."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.joins import rows_named, with_gone
from lakehouse.tables.silver import Customer as C
from pipelines.silver.rules import blank_is_null, rule_book
from pipelines.silver.subjects import accept, keep_latest, touched

_KEY = (str(C.merchant_id), str(C.customer_id))
MASTER = (
    "age_band",
    "income_band",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_composition",
    "kids_count",
)


def conform_customers(
    raw: DataFrame,
    raw_changes: DataFrame,
    contacts: DataFrame,
    contact_changes: DataFrame,
    lines: DataFrame,
    line_changes: DataFrame,
    *,
    sources: Any,
    previous: DataFrame | None = None,
) -> DataFrame:
    """One row per customer that changed; of all known customers on a first run.

    Where every delivered row about a customer says when it became true, the one of the latest such time holds, whenever
    it was delivered; else the latest delivery.

    Args:
        raw: `bronze.raw_customers`.
        raw_changes: Its new rows.
        contacts: `bronze.raw_contact_points`.
        contact_changes: Its new rows.
        lines: `silver.transaction_line`.
        line_changes: Its changed rows.
        sources: Rules per source.
        previous: Present content of `silver.customer`, None on a first run.

    Returns:
        `silver.customer` rows plus `_deleted` for customers of whom nothing is left, since a correction booked their
        only lines on another. `changed_at` is what the feed says, else the first sight of the customer for the first
        delivery about them, else when the delivery was read.
    """
    of_master, of_contact = rule_book(sources, "customers"), rule_book(sources, "contact_points")
    master_rows, contact_rows = accept(raw, "customers", of_master), accept(contacts, "contact_points", of_contact)
    known = lines.where(F.col(C.customer_id).isNotNull())
    named = None
    if previous is not None:
        changed = [
            accept(raw_changes, "customers", of_master).select(*_KEY),
            accept(contact_changes, "contact_points", of_contact).select(*_KEY),
            line_changes.where(F.col(C.customer_id).isNotNull()).select(*_KEY),
        ]
        named = changed[0].unionByName(changed[1]).unionByName(changed[2])
    about = named if named is not None else known
    master = _master(touched(master_rows, about, previous, *_KEY))
    reached = _contacts(touched(contact_rows, about, previous, *_KEY), of_contact.where(lambda r: r.is_sample))
    # A text in what is aggregated makes Spark sort the lines; as a part of the key it is hashed with them.
    bought = (
        touched(known, about, previous, *_KEY)
        .groupBy(*_KEY, "country")
        .agg(F.min("sold_at").alias("_first_sale"))
        .groupBy(*_KEY)
        .agg(F.min("_first_sale").alias("_first_sale"), F.max("country").alias(C.line_country))
    )
    # Each of the three names a customer at most once.
    everybody = bought.join(master, on=list(_KEY), how="full_outer").join(reached, on=list(_KEY), how="full_outer")
    seen = F.coalesce(F.least("_first_sale", "_registered_at"), "_contact_at")
    made = everybody.select(
        *_KEY,
        *MASTER,
        F.coalesce("_country", "_contact_country", C.line_country).alias(C.country),
        C.email,
        C.phone,
        C.first_name,
        C.last_name,
        C.postal_code,
        C.city,
        F.coalesce(C.is_sample_contact, F.lit(False)).alias(C.is_sample_contact),
        C.line_country,
        seen.alias(C.first_seen_at),
        F.greatest(
            seen,
            F.coalesce("_changed_at", F.when(F.col(C.master_count) > 1, F.col("_loaded_at"))),
            F.when(F.col(C.contact_count) > 1, F.col("_contact_loaded_at")),
        ).alias(C.changed_at),
        *[F.coalesce(c, F.lit(0)).alias(c) for c in (C.master_count, C.master_hash, C.contact_count, C.contact_hash)],
    )
    return with_gone(made, None if previous is None else rows_named(previous, about, _KEY), _KEY)


def master_values() -> list[Column]:
    """What a row of master data says, and of the country as `_country`."""
    return [*[blank_is_null(c).alias(c) for c in MASTER], blank_is_null("country").alias("_country")]


def contact_values(is_sample: Column) -> list[Column]:
    """What a row of contact points says, and of the country as `_contact_country`."""
    texts = (C.first_name, C.last_name, C.postal_code, C.city)
    return [
        normal_email("email").alias(C.email),
        normal_phone("phone").alias(C.phone),
        *[blank_is_null(c).alias(c) for c in texts],
        blank_is_null("country").alias("_contact_country"),
        is_sample.alias(C.is_sample_contact),
    ]


def normal_email(name: str) -> Column:
    """Trimmed and lower case; null without a local part, an @ and a domain."""
    lowered = F.lower(F.trim(name))
    return F.when(lowered.rlike(r"^[^@\s]+@[^@\s]+\.[^@\s]+$"), lowered)


def normal_phone(name: str) -> Column:
    """`+` and digits (E.164); null for a number without country code or of a length that cannot be one."""
    kept = F.regexp_replace(F.trim(name), r"[\s().\-/]", "")
    plus = F.regexp_replace(kept, "^00", "+")
    return F.when(plus.rlike(r"^\+[1-9]\d{6,14}$"), plus)


def _master(rows: DataFrame) -> DataFrame:
    latest = keep_latest(rows, *_KEY, said_at="changed_at", count=C.master_count, hashes=C.master_hash)
    return _since_first(rows, latest, F.coalesce("changed_at", "loaded_at")).select(
        *_KEY,
        *master_values(),
        F.col("changed_at").alias("_changed_at"),
        F.col("_since").alias("_registered_at"),
        F.col("loaded_at").alias("_loaded_at"),
        C.master_count,
        C.master_hash,
    )


def _contacts(rows: DataFrame, is_sample: Column) -> DataFrame:
    latest = keep_latest(rows, *_KEY, count=C.contact_count, hashes=C.contact_hash)
    return _since_first(rows, latest, F.col("loaded_at")).select(
        *_KEY,
        *contact_values(is_sample),
        F.col("_since").alias("_contact_at"),
        F.col("loaded_at").alias("_contact_loaded_at"),
        C.contact_count,
        C.contact_hash,
    )


def _since_first(rows: DataFrame, latest: DataFrame, at: Column) -> DataFrame:
    """The winning rows with the earliest time any row about the customer is of, as `_since`."""
    first = rows.groupBy(*_KEY).agg(F.min(at).alias("_since"))
    # Both name a customer once.
    return latest.join(first, on=list(_KEY), how="inner")
