"""What the smaller subjects have in common: which of several rows about one thing wins."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.silver.subjects import keep_latest

pytestmark = pytest.mark.spark


def test_a_number_told_by_bits_finds_the_same_winners(spark: SparkSession) -> None:
    drawn = random.Random(7)
    content = [
        (drawn.choice("ab"), drawn.choice("xyz"), drawn.randrange(1, 140), 1, 1, n, drawn.getrandbits(62))
        for n in range(400)
    ]
    schema = "product string, store string, week int, delivery_seq long, batch_id long, row_number long, row_hash long"
    given = spark.createDataFrame(content, schema)
    key = ("product", "store", "week")
    by_bits = keep_latest(given, *key, number="week").orderBy(*key).collect()
    plain = keep_latest(given, *key).orderBy(*key).collect()
    assert by_bits == plain
    assert len(plain) < len(content)
    assert sum(r.delivered_count for r in plain) == len(content)
    assert given.agg(F.bit_xor("row_hash").alias("h")).collect()[0].h == _folded(plain)


def _folded(winners: list[Any]) -> int:
    found = 0
    for r in winners:
        found ^= r.delivered_hash
    return found
