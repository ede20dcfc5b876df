"""Keep each delivered record once, list what it stands for, and set refused rows aside: the same for every subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

ORIGIN = (
    "struct<source:string,feed:string,delivery_seq:bigint,delivery_id:bigint,row_number:bigint,row_hash:bigint,"
    "loaded_at:timestamp>"
)
SUPERSEDED = "array<struct<delivery_seq:bigint,delivery_id:bigint,row_number:bigint,row_hash:bigint>>"

_ENTRY = SUPERSEDED.removeprefix("array<").removesuffix(">")
_REJECTED = ("source", "feed", "delivery", "file_id", "row_number", "row_hash", "reasons", "batch_id")

BUCKETS = 1 << 23
"""Candidate hashes are broadcast by bucket, which bounds the broadcast however many records come again: 200,000
candidates fill 2.4 % of the buckets, and as many of the other records take the exact way needlessly."""


def origin() -> Column:
    """Where a landed row came from, as the `origin` of a silver row."""
    delivery_id = F.xxhash64("file_id", "delivery").alias("delivery_id")
    parts = F.struct("source", "feed", "delivery_seq", delivery_id, "row_number", "row_hash", "loaded_at")
    return parts.cast(ORIGIN).alias("origin")


def bucket(hashed: Column) -> Column:
    """Bucket of a 64-bit hash."""
    return hashed.bitwiseAND(F.lit(BUCKETS - 1))


def is_refused(refusals: Mapping[str, Column]) -> Column:
    """True where some condition holds; conditions that are null do not."""
    found = F.lit(False)
    for condition in refusals.values():
        found = found | F.coalesce(condition, F.lit(False))
    return found


def accepted(raw: DataFrame, refusals: Mapping[str, Column]) -> DataFrame:
    """Rows that no condition refuses."""
    return raw.where(~is_refused(refusals))


def rejects(raw: DataFrame, refusals: Mapping[str, Column]) -> DataFrame:
    """Refused rows of a landing table with one reason code per broken rule."""
    codes = [F.when(F.coalesce(condition, F.lit(False)), reason) for reason, condition in refusals.items()]
    refused = raw.where(is_refused(refusals)).withColumn("reasons", F.array_compact(F.array(*codes)))
    return refused.select(*_REJECTED)


def keep_latest(
    rows: DataFrame,
    previous: DataFrame | None,
    key: Sequence[str],
    *,
    order: Sequence[str] = (),
    merged: Mapping[str, Column] | None = None,
) -> DataFrame:
    """One row per key, the winner, with every other delivered row of the key listed in `superseded`.

    The largest `order` wins (null counts as smallest), then the latest delivery, then the last row in it. The result
    does not depend on how deliveries are split into batches, and giving a batch again changes nothing.

    Args:
        rows: Accepted rows with the key, the values and `origin`.
        previous: What we hold, with the same columns and `superseded`; None for nothing. Rows that were derived and
            not delivered (null `origin`) take no part.
        key: Columns that identify a record.
        order: Columns that decide before the delivery does.
        merged: Values to take over all rows of the winner's delivery, as window-less aggregates by column name.

    Returns:
        The columns of `rows` and `superseded`, only for keys that are new or changed.
    """
    values = rows.columns
    none = F.array().cast(SUPERSEDED)
    both = rows.select(*values, none.alias("_listed"), F.lit(True).alias("_new"))
    if previous is not None:
        named = rows.select(*key).distinct()
        held = previous.where("origin IS NOT NULL").join(named, on=list(key), how="left_semi")
        inherited = F.coalesce("superseded", none).alias("_listed")
        both = both.unionByName(held.select(*values, inherited, F.lit(False).alias("_new")))
    in_key = Window.partitionBy(*key)
    delivered = [F.col(f"origin.{c}") for c in ("delivery_seq", "row_number", "delivery_id")]
    best_first = in_key.orderBy(*(F.desc_nulls_last(c) for c in order), *(c.desc() for c in delivered), F.desc("_new"))
    entry = F.array(F.struct(*(F.col(f"origin.{c}") for c in _names(_ENTRY))).cast(_ENTRY))
    same_row = Window.partitionBy(*key, "origin.delivery_id", "origin.row_number")
    if merged:
        in_delivery = Window.partitionBy(*key, "origin.delivery_id")
        both = both.withColumns({name: made.over(in_delivery) for name, made in merged.items()})
    ranked = both.withColumns(
        {"_rank": F.row_number().over(best_first), "_again": ~F.col("_new") & F.max("_new").over(same_row)}
    )
    lost = F.when((F.col("_rank") > 1) & ~F.col("_again"), entry).otherwise(none)
    listed = ranked.withColumn("_all", F.flatten(F.collect_list(F.concat(lost, "_listed")).over(in_key)))
    final = F.array_sort(F.array_distinct("_all"))
    kept = listed.where("_rank = 1").withColumn("superseded", F.when(F.size(final) > 0, final))
    before = F.when(F.size("_listed") > 0, F.col("_listed"))
    changed = F.col("_new") | ~F.col("superseded").eqNullSafe(before)
    return kept.where(changed).select(*values, "superseded")


def keep_latest_of_many(
    rows: DataFrame,
    previous: DataFrame | None,
    key: Sequence[str],
    *,
    merged: Mapping[str, Column] | None = None,
) -> DataFrame:
    """Like `keep_latest` for large feeds that seldom repeat: only records that may repeat are shuffled whole.

    A narrow pass over hashes of the key finds the records that come more than once; all others pass straight through.
    """
    hashed = F.xxhash64(*key)
    times = rows.select(hashed.alias("_hash")).groupBy("_hash").agg(F.count(F.lit(1)).alias("_times"))
    again = times.where("_times > 1").select(bucket(F.col("_hash")).alias("_bucket"))
    known = None
    if previous is not None:
        named = rows.select(bucket(hashed).alias("_bucket")).distinct()
        known = previous.join(F.broadcast(named), bucket(hashed) == F.col("_bucket"), "left_semi")
        again = again.unionByName(known.select(bucket(hashed).alias("_bucket")))
    marked = rows.join(F.broadcast(again.distinct()), bucket(hashed) == F.col("_bucket"), "left")
    once = marked.where("_bucket IS NULL").select(*rows.columns, F.lit(None).cast(SUPERSEDED).alias("superseded"))
    maybe = marked.where("_bucket IS NOT NULL").select(*rows.columns)
    return once.unionByName(keep_latest(maybe, known, key, merged=merged))


def _names(struct: str) -> list[str]:
    return [part.split(":")[0] for part in struct.removeprefix("struct<").removesuffix(">").split(",")]
