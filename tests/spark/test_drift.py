from __future__ import annotations

from datetime import date
from decimal import Decimal
from math import log

import numpy as np
import pytest
from pyspark.sql import SparkSession

from models.drift import FEATURES, SCORES, measure_drift
from models.judging import stability_index
from tests.support.rows import rows

pytestmark = pytest.mark.spark

FIRST, DAY = date(2020, 1, 1), date(2020, 2, 1)


def test_drift_is_counted_against_the_first_day_of_the_version_in_charge(spark: SparkSession) -> None:
    random = np.random.default_rng(0)
    before, now = np.sort(random.random(200)).round(4), np.sort(random.random(100) ** 2).round(4)

    def scored(day: date, values: np.ndarray, version: str) -> list[dict[str, object]]:
        return [
            {"merchant_id": "shop", "customer_key": i, "as_of": day, "probability_active": float(v),
             "churn_probability": 1 - float(v), "model_version": version}
            for i, v in enumerate(values)
        ]  # fmt: skip

    older = scored(date(2019, 12, 1), np.zeros(50), "v1")
    outlooks = rows(spark, "feature.customer_outlook", older + scored(FIRST, before, "v2") + scored(DAY, now, "v2"))
    recent = {"merchant_id": "shop", "r_score": 1, "f_score": 1, "m_score": 1, "monetary_net": Decimal(5)}
    features = rows(
        spark, "feature.customer",
        [recent | {"customer_key": i, "as_of": d, "recency_days": i % 10 + (90 if d == DAY else 0)}
         for d in (FIRST, DAY) for i in range(60)],
    )  # fmt: skip
    size = {"segment_id": "vip", "website_id": "shop", "customers": 100}
    sizes = rows(
        spark, "gold.customer_segment_size",
        [size | {"as_of": FIRST, "members": 10}, size | {"as_of": DAY, "members": 40},
         size | {"as_of": DAY, "members": 1, "segment_id": "new"}],
    )  # fmt: skip

    found = {(r.kind, r.measure): r for r in measure_drift(features, outlooks, sizes, as_of=DAY).collect()}

    assert len(found) == len(FEATURES) + len(SCORES) + 1
    score = found["score", "probability_active"]
    assert (score.reference_as_of, score.model_version, score.customers, score.reference_customers) == (
        FIRST, "v2", 100, 200,
    )  # fmt: skip
    edges = np.quantile(before, [n / 10 for n in range(1, 10)], method="inverted_cdf")
    expected = stability_index_at(before, now, edges)
    # Engines differ by an element in where a tenth ends.
    assert score.stability_index == pytest.approx(expected, rel=0.1)
    assert score.stability_index == pytest.approx(stability_index(before, now), rel=0.15)
    assert (found["feature", "recency_days"].level, found["feature", "monetary_net"].level) == ("alarm", "calm")
    assert found["score", "customer_lifetime_value"].stability_index == 0  # unknown for everyone on both days
    vip = found["segment", "vip"]
    assert vip.stability_index == pytest.approx(0.3 * log(4) - 0.3 * log(0.6 / 0.9))
    assert (vip.level, vip.model_version) == ("alarm", None)


def stability_index_at(before: np.ndarray, now: np.ndarray, edges: np.ndarray) -> float:
    def shares(values: np.ndarray) -> np.ndarray:
        return np.maximum(np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1), 0.5) / len(values)

    was, is_ = shares(before), shares(now)
    return float(((is_ - was) * np.log(is_ / was)).sum())


def test_without_a_model_or_an_earlier_day_there_is_nothing_to_compare(spark: SparkSession) -> None:
    one = {"merchant_id": "shop", "customer_key": 1, "as_of": DAY, "r_score": 1, "f_score": 1, "m_score": 1}

    found = measure_drift(
        rows(spark, "feature.customer", [one]),
        rows(spark, "feature.customer_outlook"),
        rows(spark, "gold.customer_segment_size", [{"segment_id": "a", "website_id": "shop", "as_of": DAY}]),
        as_of=DAY,
    )

    assert found.collect() == []
