"""What visitors of a web shop did, and whom a login shows them to be."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.tables.silver import VisitorEvent as V
from pipelines.silver.customers import normal_email
from pipelines.silver.rules import blank_is_null, code, rule_book
from pipelines.silver.subjects import accept, touched

_VISITOR = ("merchant_id", "visitor_id")


def conform_visitor_events(
    raw: DataFrame, raw_changes: DataFrame, *, sources: Any, previous: DataFrame | None = None
) -> DataFrame:
    """Every event of a visitor of whom something new was delivered; of all visitors on a first run.

    What happened does not change: of rows with the same number the one delivered first stands. An event belongs to
    the customer of the visitor's last login up to it, else of the first one after it, so a late login moves those
    around it. `known_on` is the day that could first be known, and keeps questions about earlier days honest.
    """
    book = rule_book(sources, "visitor_events")
    accepted, changed = accept(raw, "visitor_events", book), accept(raw_changes, "visitor_events", book)
    rows = touched(accepted, changed, previous, *_VISITOR)
    of_event = Window.partitionBy(*_VISITOR, "event_id")
    first = of_event.orderBy("batch_id", "delivery_seq", "row_number", "row_hash")
    local = book.choose(
        lambda r: F.from_utc_timestamp("happened_at", r.timezone), "timestamp", same=lambda r: r.timezone
    )
    stands = rows.select(
        "*",
        F.lower(F.trim("event_type")).alias("_event_type"),
        F.to_date(local).alias(V.happened_on),
        book.where(lambda r: r.is_sample).alias(V.is_sample),
        F.count(F.lit(1)).over(of_event).alias(V.delivered_count),
        F.bit_xor("row_hash").over(of_event).alias(V.delivered_hash),
        F.row_number().over(first).alias("_rank"),
    ).where("_rank = 1")
    login = F.when(
        F.col("_event_type") == "login",
        F.struct(blank_is_null("customer_id").alias("customer_id"), F.col(V.happened_on).alias("on")),
    )
    in_order = Window.partitionBy(*_VISITOR).orderBy("happened_at", "event_id")
    before = F.last(login, ignorenulls=True).over(in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow))
    after = F.first(login, ignorenulls=True).over(in_order.rowsBetween(Window.currentRow, Window.unboundedFollowing))
    told = stands.withColumn("_login", F.coalesce(before, after))
    # A browser's number is as good as a name to whoever set it, so only its hash goes further.
    made = {
        str(V.visitor_id): F.sha2(F.concat_ws("\u001f", *_VISITOR), 256),
        str(V.event_type): F.col("_event_type"),
        str(V.customer_id): F.col("_login")["customer_id"],
        str(V.known_on): F.when(F.col("_login").isNotNull(), F.greatest(V.happened_on, F.col("_login")["on"])),
        str(V.email): normal_email("email"),
        str(V.page): F.lower(blank_is_null("page")),
        str(V.product_id): code("product_id"),
    }
    columns = V.__table__.column_names  # type: ignore[attr-defined]
    return told.select(*[made.get(c, F.col(c)).alias(c) for c in columns])
