from __future__ import annotations

from collections import Counter

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from segments.split import split_by_strata

pytestmark = pytest.mark.spark

SHARES = {"treated": 0.8, "holdout": 0.2}
KEYS = ("website_id", "customer_key")


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
    held = Counter(bands[k] for k, arm in early.items() if arm == "holdout")
    assert all(abs(held[b] - sizes[b] * 0.2) <= 1 for b in sizes)
