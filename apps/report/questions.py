"""Questions to the tables: each an aggregation to at most a few hundred rows, none about one customer."""

from __future__ import annotations

from datetime import date
from functools import reduce
from typing import Final

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.lake import Lake
from segments.inspect import flows_between, overlap_segments, sizes_beside_previous

TRAITS: Final = (
    "recency_days",
    "frequency",
    "monetary_net",
    "basket_value_mean",
    "inter_purchase_days_mean",
    "distinct_categories",
    "discount_share",
    "private_label_share",
    "weekend_share",
)
"""Features a cluster is described by."""

LARGEST: Final = 14
"""Segments of a retailer whose overlap is shown."""


def slice_of(lake: Lake, name: str, as_of: date) -> DataFrame:
    """The rows of a table as of one day."""
    return lake.read(name).where(F.col("as_of") == F.lit(as_of))


def sales(lake: Lake, as_of: date, before: date | None) -> DataFrame:
    """Net sales by merchant, currency and month, and the part of them before the earlier day.

    Baskets are made first, so that orders and customers are counted without exploding the lines.
    """
    lines = lake.read("gold.fact_transactions").where(
        (F.col("business_date") < F.lit(as_of)) & (F.col("txn_type") != "adjustment")
    )
    # Of known customers as their features count it: a basket of nothing but free lines is no order.
    is_bought = (F.col("txn_type") == "sale") & (F.col("customer_key").isNull() | F.col("is_valid_purchase"))
    baskets = lines.groupBy("merchant_id", "currency", "business_date", "basket_id").agg(
        F.sum((F.col("amount") * 100).cast("bigint")).alias("cents"),
        F.max(is_bought.cast("int")).alias("is_order"),
        F.max("customer_key").alias("customer_key"),
    )
    is_old = F.col("business_date") < F.lit(before) if before else F.lit(False)
    return baskets.groupBy("merchant_id", "currency", F.trunc("business_date", "month").alias("month")).agg(
        F.sum("cents").alias("cents"),
        F.sum(F.when(is_old, F.col("cents"))).alias("cents_before"),
        F.sum(F.when(is_old, F.col("is_order"))).alias("orders_before"),
        F.sum(F.when(F.col("customer_key").isNotNull(), F.col("cents"))).alias("known_cents"),
        F.sum("is_order").alias("orders"),
        F.count_distinct(F.when(F.col("is_order") == 1, F.col("customer_key"))).alias("customers"),
        F.min("business_date").alias("first_day"),
        F.max("business_date").alias("last_day"),
    )


def rfm(lake: Lake, as_of: date, before: date | None) -> DataFrame:
    """Customers and their net sales by RFM group and scores, on the day and on the earlier one."""
    days = [d for d in (as_of, before) if d is not None]
    slices = lake.read("feature.customer").where(F.col("as_of").isin(days))
    return slices.groupBy("merchant_id", "as_of", "r_score", "f_score", "rfm_group").agg(
        F.count(F.lit(1)).alias("customers"), F.sum((F.col("monetary_net") * 100).cast("bigint")).alias("cents")
    )


def segments(lake: Lake, as_of: date) -> DataFrame:
    """Segments that are in use, with their size on the day, on the day measured before, and all sizes up to it."""
    sizes = lake.read("gold.customer_segment_size").where(F.col("as_of") <= F.lit(as_of))
    with_before = sizes_beside_previous(sizes).where(F.col("as_of") == F.lit(as_of))
    definitions = (
        lake.read("gold.customer_segment")
        .where("is_active")
        .select("segment_id", "name", "description", "priority", "refresh_status")
    )
    said = F.array_sort(F.collect_list(F.struct("as_of", "members")))
    over_time = sizes.groupBy("segment_id", "website_id").agg(said.alias("history"))
    # One definition per segment, one history per segment and website.
    return with_before.join(definitions, "segment_id", how="inner").join(
        over_time, ["segment_id", "website_id"], how="inner"
    )


def overlaps(lake: Lake, as_of: date) -> DataFrame:
    """Pairs of the largest segments; of all, customers in a hundred segments would make five thousand pairs each."""
    sizes = slice_of(lake, "gold.customer_segment_size", as_of)
    by_size = Window.partitionBy("website_id").orderBy(F.desc("members"), "segment_id")
    largest = (
        sizes.where("members > 0")
        .withColumn("_rank", F.row_number().over(by_size))
        .where(F.col("_rank") <= LARGEST)
        .groupBy("website_id")
        .agg(F.collect_list("segment_id").alias("_largest"))
    )
    # One row per website on the right.
    members = lake.read("gold.customer_membership").join(F.broadcast(largest), "website_id", how="inner")
    shown = members.withColumn("segment_ids", F.array_intersect("segment_ids", "_largest")).drop("_largest")
    return overlap_segments(shown)


def segment_moves(lake: Lake, as_of: date) -> DataFrame:
    """How many customers left one segment for another on the day."""
    stays = lake.read("gold.customer_segment_history")
    of_day = stays.where((F.col("exited_on") == F.lit(as_of)) | (F.col("entered_on") == F.lit(as_of)))
    return flows_between(of_day).where(F.col("day") == F.lit(as_of))


def traits(lake: Lake, as_of: date) -> DataFrame:
    """Sums, squares and counts of each trait by cluster; counts and money are compared on a log scale."""
    features = slice_of(lake, "feature.customer", as_of)
    clusters = slice_of(lake, "feature.customer_cluster", as_of).select("merchant_id", "customer_key", "cluster_id")
    # Both hold a customer once per day, so the join multiplies nothing.
    placed = features.join(clusters, ["merchant_id", "customer_key"], how="inner")
    measures = []
    for name in TRAITS:
        value = F.col(name).cast("double")
        scaled = value if name.endswith("_share") else F.log1p(F.greatest(value, F.lit(0.0)))
        measures += [
            F.count(value).alias(f"{name}__n"),
            F.avg(value).alias(f"{name}__mean"),
            F.sum(scaled).alias(f"{name}__sum"),
            F.sum(scaled * scaled).alias(f"{name}__squares"),
        ]
    return placed.groupBy("merchant_id", "cluster_id").agg(*measures)


def rejects(lake: Lake) -> DataFrame:
    """Refused rows by source and reason."""
    tables = ("silver.transaction_reject", "silver.subject_reject")
    parts = [lake.read(t).select("source", F.explode("reasons").alias("reason")) for t in tables]
    each = reduce(DataFrame.unionByName, parts)
    return each.groupBy("source", "reason").agg(F.count(F.lit(1)).alias("rows"))


def parsing(lake: Lake) -> DataFrame:
    """Rows that could not be read, by source, column and reason, of each file when it was read last."""
    last = lake.read("ingest.raw_records").select(
        F.col("source_system_id").alias("source"), "feed", F.col("payload_hash").alias("file_id"), "batch_id"
    )
    errors = lake.read("ingest.ref_parsing_errors").join(
        last, ["source", "feed", "file_id", "batch_id"], how="left_semi"
    )
    return errors.groupBy("source", "column_name", "reason").agg(F.count(F.lit(1)).alias("rows"))


def steps(lake: Lake, run_id: str) -> DataFrame:
    """Audit rows of the run and of the newest one: the command that makes the report may be a run without any."""
    audits = lake.read("ingest.audit_transforms").where("status <> 'started'")
    newest = audits.agg(F.max_by("run_id", "started_at").alias("run_id"))
    return audits.join(
        F.broadcast(newest.unionByName(newest.select(F.lit(run_id).alias("run_id"))).distinct()),
        "run_id",
        how="left_semi",
    )


def checks(lake: Lake) -> DataFrame:
    """The newest outcome of every check, whichever run made it."""
    said = F.struct("check_status", "severity", "column_name", "element_count", "unexpected_count", "message")
    return (
        lake.read("gov.fact_data_quality")
        .groupBy("dataset_id", "check_name")
        .agg(F.max_by(said, "checked_ts").alias("newest"))
        .select("dataset_id", "check_name", "newest.*")
    )
