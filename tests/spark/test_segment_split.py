from __future__ import annotations

from collections import Counter

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from segments.split import HOLDOUT, TREATED, arm_of, assign_arm, is_held_out, split_by_strata

pytestmark = pytest.mark.spark

SHARES = {TREATED: 0.8, HOLDOUT: 0.2}
KEYS = ("website_id", "customer_key")


def test_spark_and_python_agree_on_every_customer(spark: SparkSession) -> None:
    frame = spark.range(-50, 450).select(F.lit("shop").alias("website_id"), F.col("id").alias("customer_key"))
    found = frame.select(
        "customer_key", assign_arm(KEYS, "spring", SHARES).alias("arm"), is_held_out(KEYS, "spring", 0.8).alias("low")
    ).collect()
    assert {r.customer_key: r.arm for r in found} == {n: arm_of(["shop", n], "spring", SHARES) for n in range(-50, 450)}
    assert all(r.low == (r.arm == TREATED) for r in found)


def test_they_agree_on_flags_days_and_nothing(spark: SparkSession) -> None:
    frame = spark.range(60).select(
        F.when(F.col("id") % 3 > 0, F.col("id") % 2 == 0).alias("flag"),
        F.date_add(F.lit("2018-01-01"), F.col("id").cast("int")).alias("day"),
    )
    keys = ("flag", "day")
    found = frame.select(*keys, assign_arm(keys, "spring", SHARES).alias("arm")).collect()
    assert [r.arm for r in found] == [arm_of([r.flag, r.day], "spring", SHARES) for r in found]


def test_strata_are_filled_in_proportion_and_nobody_moves_when_others_come(spark: SparkSession) -> None:
    frame = spark.range(500).select(
        F.lit("shop").alias("website_id"),
        F.col("id").alias("customer_key"),
        F.when(F.col("id") % 5 == 0, F.lit(None)).otherwise((F.col("id") % 2).cast("string")).alias("band"),
    )
    nobody = frame.select(*KEYS, F.lit("").alias("arm")).where("false")
    say = dict(keys=KEYS, strata=["band"], salt="spring", shares=SHARES)
    first = split_by_strata(frame.where("customer_key < 300"), nobody, **say)  # type: ignore[arg-type]
    early = {r.customer_key: r.arm for r in first.collect()}
    again = {r.customer_key: r.arm for r in split_by_strata(frame, first, **say).collect()}  # type: ignore[arg-type]

    assert {k: again[k] for k in early} == early
    assert len(again) == 500
    bands = {r.customer_key: r.band for r in frame.collect()}
    sizes = Counter(bands[k] for k in early)
    held = Counter(bands[k] for k, arm in early.items() if arm == HOLDOUT)
    assert all(abs(held[b] - sizes[b] * 0.2) <= 1 for b in sizes)
