"""Whether customers still are those the models learnt from: stability of features, scores and segment sizes."""

from __future__ import annotations

from datetime import date
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.tables.feature import FeatureCustomer as X
from lakehouse.tables.gov import ModelDrift as D
from lakehouse.tables.model import CustomerOutlook as O
from lakehouse.tables.segment import CustomerSegmentSize as Z

FEATURES: Final = (
    X.recency_days, X.frequency, X.monetary_net, X.tenure_days, X.visits_90d, X.spend_90d, X.basket_value_mean,
)  # fmt: skip
SCORES: Final = (O.probability_active, O.expected_purchases, O.expected_spend, O.customer_lifetime_value)
WATCH: Final = 0.1
ALARM: Final = 0.25
_TENTHS: Final = [n / 10 for n in range(1, 10)]
_KEYS: Final = ["merchant_id", "kind", "measure"]


def measure_drift(features: DataFrame, outlooks: DataFrame, sizes: DataFrame, *, as_of: date) -> DataFrame:
    """One row per merchant and measure: the population stability index of a day.

    Features and scores are compared with the first day the model version in charge scored, over the tenths of that
    day; unknown is a bin of its own, an empty bin counts half a customer. A segment is compared with its size before,
    in or out.

    Args:
        features: `feature.customer`, any number of days.
        outlooks: `feature.customer_outlook`, any number of days.
        sizes: `gold.customer_segment_size`, any number of days.
        as_of: The day.

    Returns:
        `gov.model_drift` rows; merchants without a model, and segments of one day only, are absent.
    """
    scored = outlooks.where(F.col(O.as_of) <= F.lit(as_of)).select(O.merchant_id, O.as_of, O.model_version).distinct()
    now = scored.where(F.col(O.as_of) == F.lit(as_of)).select(O.merchant_id, O.model_version)
    keys: list[str] = [O.merchant_id, O.model_version]
    # A merchant has one champion a day, so a handful of rows, one per merchant.
    reference = scored.join(now, on=keys, how="inner").groupBy(*keys).agg(F.min(O.as_of).alias("_from"))
    known = _values(features, "feature", FEATURES).unionByName(_values(outlooks, "score", SCORES))
    compared = known.join(F.broadcast(reference), on="merchant_id", how="inner")
    is_before, is_now = F.col("as_of") == F.col("_from"), F.col("as_of") == F.lit(as_of)
    tenths = F.percentile_approx(F.when(is_before, F.col("value")), _TENTHS, 10_000)
    days = compared.where(is_before | is_now)
    edges = days.groupBy(*_KEYS).agg(F.array_distinct(tenths).alias("edges"))
    # One row per merchant and measure on the right.
    placed = days.join(F.broadcast(edges), on=_KEYS, how="inner").withColumn(
        "bin",
        F.when(F.col("value").isNull(), F.lit(-1)).otherwise(
            F.size(F.filter("edges", lambda edge: edge < F.col("value")))
        ),
    )
    group = [*_KEYS, "model_version", "_from"]
    counted = placed.groupBy(*group, "bin").agg(F.count_if(is_before).alias("was"), F.count_if(is_now).alias("is"))
    totals = counted.groupBy(*group).agg(
        F.sum("was").alias("_was"), F.sum("is").alias("_is"), F.collect_list(F.struct("was", "is")).alias("bins")
    )
    both = totals.where((F.col("_was") > 0) & (F.col("_is") > 0))
    index = F.aggregate(
        "bins",
        F.lit(0.0),
        lambda total, b: total + _term(_share(b["is"], F.col("_is")), _share(b["was"], F.col("_was"))),
    )
    moved = both.select(
        D.merchant_id,
        D.kind,
        D.measure,
        F.col("_from").alias(D.reference_as_of),
        D.model_version,
        F.col("_is").alias(D.customers),
        F.col("_was").alias(D.reference_customers),
        index.alias(D.stability_index),
    )
    return _leveled(moved.unionByName(_segments(sizes, as_of)), as_of)


def _values(frame: DataFrame, kind: str, columns: tuple[str, ...]) -> DataFrame:
    each = [F.struct(F.lit(str(c)).alias("measure"), F.col(c).cast("double").alias("value")) for c in columns]
    return frame.select("merchant_id", "as_of", F.lit(kind).alias("kind"), F.explode(F.array(*each)).alias("_")).select(
        "merchant_id", "as_of", "kind", "_.measure", "_.value"
    )


def _segments(sizes: DataFrame, as_of: date) -> DataFrame:
    keys: list[str] = [Z.segment_id, Z.website_id]
    counts = [F.col(Z.members), F.col(Z.customers)]
    now = sizes.where(F.col(Z.as_of) == F.lit(as_of)).select(*keys, counts[0].alias("is"), counts[1].alias("_is"))
    earlier = sizes.where(F.col(Z.as_of) < F.lit(as_of)).groupBy(*keys)
    before = earlier.agg(
        F.max_by(F.struct(*counts), Z.as_of).alias("_then"), F.max(Z.as_of).alias(D.reference_as_of)
    ).select(
        *keys,
        D.reference_as_of,
        F.col("_then")[str(Z.members)].alias("was"),
        F.col("_then")[str(Z.customers)].alias("_was"),
    )
    # Both sides have one row per segment and website.
    both = now.join(before, on=keys, how="inner").where((F.col("_was") > 0) & (F.col("_is") > 0))
    inside = _term(_share(F.col("is"), F.col("_is")), _share(F.col("was"), F.col("_was")))
    outside = _term(
        _share(F.col("_is") - F.col("is"), F.col("_is")), _share(F.col("_was") - F.col("was"), F.col("_was"))
    )
    return both.select(
        F.col(Z.website_id).alias(D.merchant_id),
        F.lit("segment").alias(D.kind),
        F.col(Z.segment_id).alias(D.measure),
        D.reference_as_of,
        F.lit(None).cast("string").alias(D.model_version),
        F.col("_is").alias(D.customers),
        F.col("_was").alias(D.reference_customers),
        (inside + outside).alias(D.stability_index),
    )


def _share(count: Column, total: Column) -> Column:
    return F.greatest(count.cast("double"), F.lit(0.5)) / total


def _term(now: Column, before: Column) -> Column:
    return (now - before) * F.ln(now / before)


def _leveled(moved: DataFrame, as_of: date) -> DataFrame:
    index = F.col(D.stability_index)
    level = F.when(index < WATCH, "calm").when(index <= ALARM, "watch").otherwise("alarm")
    made = {D.as_of: F.lit(as_of).alias(D.as_of), D.level: level.alias(D.level)}
    return moved.select(*[made.get(c, F.col(c)) for c in D.__table__.columns])  # type: ignore[attr-defined]
