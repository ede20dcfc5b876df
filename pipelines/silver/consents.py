"""Consent: the latest choice per customer and channel."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.silver import Consent as C
from pipelines.silver.rules import rule_book
from pipelines.silver.subjects import accept, newest_first, touched

_KEY = (str(C.merchant_id), str(C.customer_id), str(C.channel))


def conform_consents(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """The latest choice of everybody who chose again; of all on a first run.

    The choice made last wins, whenever it arrived; of choices made at the same instant a denial wins.
    """
    book = rule_book(sources, "consents")
    rows = touched(accept(raw, "consents", book), accept(raw_changes, "consents", book), previous, *_KEY)
    granted = F.lower(F.trim("status")) == "granted"
    of_key = Window.partitionBy(*_KEY)
    last = of_key.orderBy(F.col("changed_at").desc(), granted.asc(), *newest_first())
    ranked = rows.select(
        "*",
        granted.alias(C.is_granted),
        book.where(lambda r: r.is_sample).alias(C.is_sample),
        F.count(F.lit(1)).over(of_key).alias(C.delivered_count),
        F.bit_xor("row_hash").over(of_key).alias(C.delivered_hash),
        F.row_number().over(last).alias("_rank"),
    )
    return ranked.where("_rank = 1").select(*C.__table__.column_names)  # type: ignore[attr-defined]
