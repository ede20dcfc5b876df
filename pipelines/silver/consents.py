"""Consent: the latest choice per customer and channel."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.silver import Consent as C
from pipelines.silver.rules import RuleBook, rule_book
from pipelines.silver.subjects import SUBJECTS, accept, choice, newest_first, touched, with_key

_KEY = (str(C.merchant_id), str(C.customer_id), str(C.channel))
_CHANNELS = C.channel.spec.values


def conform_consents(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """The latest choice of everybody who chose again; of all on a first run.

    The choice made last wins, whenever it arrived; of choices made at the same instant a denial wins. A refused row of
    a known customer and channel that does not say `granted` ends a grant that is older: what cannot be understood is
    not permission. It counts from when it arrived where its own time cannot be used, and among rejects only.
    """
    book = rule_book(sources, "consents")
    rows = touched(_choices(raw, book), _choices(raw_changes, book), previous, *_KEY)
    of_key = Window.partitionBy(*_KEY)
    last = of_key.orderBy(F.col("changed_at").desc(), F.col(C.is_granted).asc(), *newest_first())
    ranked = rows.select(
        "*",
        book.where(lambda r: r.is_sample).alias(C.is_sample),
        F.count_if("_is_accepted").over(of_key).alias(C.delivered_count),
        F.bit_xor(F.when(F.col("_is_accepted"), F.col("row_hash"))).over(of_key).alias(C.delivered_hash),
        F.row_number().over(last).alias("_rank"),
    )
    # Of whom nothing was accepted nothing is known, which is no consent either.
    known = F.col(C.delivered_count) > 0
    return ranked.where(known & (F.col("_rank") == 1)).select(*C.__table__.column_names)  # type: ignore[attr-defined]


def _choices(raw: DataFrame, book: RuleBook) -> DataFrame:
    """Acceptable rows, and those refused that may have meant to take a consent back."""
    granted = F.coalesce(choice() == "granted", F.lit(False))
    accepted = accept(raw, "consents", book).select("*", granted.alias(C.is_granted), F.lit(True).alias("_is_accepted"))
    refused = with_key(raw.where(SUBJECTS["consents"].is_refused(book) & book.known() & ~granted), "consents", book)
    named = F.col(C.customer_id).isNotNull() & F.col(C.channel).isin(*_CHANNELS)
    doubtful = refused.where(named).select(
        *[c for c in refused.columns if c != "changed_at"],
        F.least("changed_at", "loaded_at").alias("changed_at"),
        F.lit(False).alias(C.is_granted),
        F.lit(False).alias("_is_accepted"),
    )
    return accepted.unionByName(doubtful)
