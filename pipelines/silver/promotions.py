"""Promotions: which product was on display or in the mailer of which store in which week."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.silver import Promotion as P
from pipelines.silver.rules import RuleBook, rule_book
from pipelines.silver.subjects import accept, keep_latest, touched

_KEY = (str(P.merchant_id), str(P.product_id), str(P.store_id), str(P.week_starts_on))


def conform_promotions(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """One row per product, store and week of the weeks that changed; of all on a first run.

    A placement code of `0` means none. Of several rows about one product, store and week the last of the latest
    delivery wins. A week is known by its first day, because each feed may number its weeks from one.
    """
    book = rule_book(sources, "promotions")
    week = (str(P.merchant_id), str(P.week_starts_on))
    rows = touched(_dated(raw, book), _dated(raw_changes, book), previous, *week)
    latest = keep_latest(rows, *_KEY, day=str(P.week_starts_on))
    return latest.select(
        *_KEY,
        P.week,
        _placed("display_code").alias(P.is_displayed),
        _placed("mailer_code").alias(P.is_in_mailer),
        P.delivered_count,
        P.delivered_hash,
    )


def _dated(raw: DataFrame, book: RuleBook) -> DataFrame:
    first_day = book.value(lambda r: r.week_one_starts_on, "date")
    starts_on = F.date_add(first_day, ((F.col(P.week) - 1) * 7).cast("int"))
    return accept(raw, "promotions", book).withColumn(P.week_starts_on, starts_on)


def _placed(name: str) -> Column:
    return F.coalesce(F.trim(name) != "0", F.lit(False))
