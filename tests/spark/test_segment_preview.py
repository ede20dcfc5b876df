from __future__ import annotations

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from segments.inspect import answer_customers, preview_segment
from segments.language import Segment, feature
from tests.spark.test_segment_evaluate import AS_OF, customers
from tests.support.rows import rows
from tests.support.segment_features import FEATURES

pytestmark = pytest.mark.spark


def test_a_preview_counts_members_steps_reach_and_change(spark: SparkSession) -> None:
    segment = Segment("s", "S", feature("recency_days").at_most(30) & feature("frequency").at_least(3))
    frame = customers(
        spark,
        {"recency_days": 1, "frequency": 3},
        {"recency_days": 1, "frequency": 3},
        {"recency_days": 1, "frequency": 1},
        {"recency_days": 99, "frequency": 3},
        {"frequency": 3},
    ).withColumn("as_of", F.lit(AS_OF))
    member = {"website_id": "shop", "segment_ids": ["s"]}
    membership = rows(
        spark,
        "gold.customer_membership",
        [
            member | {"customer_key": 1},
            member | {"customer_key": 3},
            member | {"customer_key": 4, "segment_ids": ["t"]},
        ],
    )
    said = {"merchant_id": "shop", "channel": "email", "is_granted": True}
    consents = rows(
        spark,
        "silver.consent",
        [said | {"customer_id": "1"}, said | {"customer_id": "2", "is_granted": False}, said | {"customer_id": "3"}],
    )
    answered = answer_customers(frame, {}, {}, {"is_in": segment}, others=[], as_of=AS_OF, catalogue=FEATURES)

    (found,) = preview_segment(answered, membership, consents, segment, ["email", "sms"]).collect()

    assert found.asDict() == {
        "website_id": "shop",
        "customers": 5,
        "members": 2,
        "published": 2,
        "entering": 1,
        "leaving": 1,
        "alone_0": 3,
        "alone_1": 4,
        "left_0": 3,
        "left_1": 2,
        "reachable_email": 1,
        "reachable_sms": 0,
    }
