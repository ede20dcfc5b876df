from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from segments.catalogue import CUSTOMERS, GROUP, GROUP_COLUMN, declared_features
from segments.inspect import answer_customers, preview_segment
from segments.language import Segment, feature
from segments.tell import lines_of_preview, steps_of
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

    nobody = rows(spark, "gold.customer_segment_pin")
    (found,) = preview_segment(answered, membership, nobody, consents, segment, ["email", "sms"]).collect()

    assert found.asDict() == {
        "website_id": "shop",
        "customers": 5,
        "members": 2,
        "published": 2,
        "entering": 1,
        "leaving": 1,
        "pinned_in": 0,
        "pinned_out": 0,
        "moving": 2,
        "alone_0": 3,
        "alone_1": 4,
        "left_0": 3,
        "left_1": 2,
        "reachable_email": 1,
        "reachable_sms": 0,
    }


def test_websites_and_customer_groups_are_steps_of_their_own(spark: SparkSession) -> None:
    segment = Segment(
        "s", "S", feature("frequency").at_least(3), website_ids=("shop",), customer_group_ids=("staff", "press")
    )
    frame = customers(
        spark,
        {"frequency": 3},
        {"frequency": 3},
        {"frequency": 1},
        {"frequency": 3, "merchant_id": "elsewhere"},
    ).withColumn("as_of", F.lit(AS_OF))
    known = {"valid_from": datetime(2017, 1, 1), "merchant_id": "shop"}
    people = rows(
        spark,
        CUSTOMERS,
        [
            known | {"customer_key": key, GROUP_COLUMN: group}
            for key, group in ((1, "staff"), (2, "none"), (3, "press"))
        ],
    )
    answered = answer_customers(
        frame,
        {CUSTOMERS: people},
        {},
        {"is_in": segment},
        others=[],
        as_of=AS_OF,
        catalogue=FEATURES | {GROUP: declared_features()[GROUP]},
    )
    nobody = [rows(spark, f) for f in ("gold.customer_membership", "gold.customer_segment_pin", "silver.consent")]

    elsewhere, here = (r.asDict() for r in preview_segment(answered, *nobody, segment, []).collect())

    assert steps_of(segment) == [
        'website_id in ["shop"]',
        'customer_group_id in ["staff","press"]',
        "frequency at_least 3",
    ]
    assert [(here[f"alone_{n}"], here[f"left_{n}"]) for n in range(3)] == [(3, 3), (2, 2), (2, 1)]
    assert [(elsewhere[f"alone_{n}"], elsewhere[f"left_{n}"]) for n in range(3)] == [(0, 0), (0, 0), (1, 0)]
    assert (here["members"], elsewhere["members"]) == (1, 0)


def test_pins_absence_and_an_inactive_segment_decide_who_would_move(spark: SparkSession) -> None:
    segment = Segment("s", "S", feature("frequency").at_least(3), max_change_share=0.5)
    frame = customers(spark, *[{"frequency": n} for n in (1, 1, 3, 3)]).withColumn("as_of", F.lit(AS_OF))
    answered = answer_customers(frame, {}, {}, {"is_in": segment}, others=[], as_of=AS_OF, catalogue=FEATURES)
    pin, member = {"segment_id": "s", "website_id": "shop"}, {"website_id": "shop", "segment_ids": ["s"]}
    # 1 is in by a pin, 3 is kept out by one, 2 leaves, 9 has no features any more, 4 enters.
    pins = [pin | {"customer_key": 1, "is_in": True}, pin | {"customer_key": 3, "is_in": False}]
    known = rows(spark, "gold.customer_membership", [member | {"customer_key": n} for n in (1, 2, 9)])
    told = known, rows(spark, "gold.customer_segment_pin", pins), rows(spark, "silver.consent")

    def moves(of: Segment) -> tuple[list[int], list[str]]:
        (row,) = preview_segment(answered, *told, of, []).collect()
        counts = [row[c] for c in ("customers", "published", "entering", "leaving", "moving")]
        return counts, list(lines_of_preview(of, row.asDict()))

    assert moves(segment) == (
        [4, 3, 1, 2, 3],
        [
            "pins put 1 in and keep 1 out, whatever the rule says",
            "3 of 3 members would change, above the limit of 50 %, so the refresh would be held back",
        ],
    )
    off = ["inactive: a refresh leaves no one in it, whatever the rule says"]
    assert moves(replace(segment, is_active=False)) == ([4, 3, 0, 3, 2], off)
