"""Recency, frequency and monetary value: the numbers, their scores, and the named grid.

Source: Hughes, A. M. (1994), Strategic Database Marketing. Scores are cut at fifths of the merchant's customers, or at
points a merchant chose; equal values share a score, so fifths of unequal size are right where many customers tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from features.measures import Measure, count, day_of, earliest, latest, money_of, total
from features.rules import RFM_MEASURES, FeatureRules, RfmMeasure
from lakehouse.tables.feature import FeatureCustomer, RfmBoundary

_C = FeatureCustomer
_FIFTHS = (0.2, 0.4, 0.6, 0.8)

GRID: tuple[tuple[str, ...], ...] = (
    # value score 1 .. 5, recency score 1 first
    ("lost", "lost", "at_risk", "cannot_lose", "cannot_lose"),
    ("hibernating", "hibernating", "at_risk", "at_risk", "cannot_lose"),
    ("about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal"),
    ("promising", "potential_loyalists", "potential_loyalists", "loyal", "champions"),
    ("new_customers", "potential_loyalists", "potential_loyalists", "loyal", "champions"),
)
"""Named group by recency score and value score, the mean of frequency and monetary score rounded up."""


def measures() -> list[Measure]:
    """What is added up for RFM."""
    is_bought = F.col("is_bought")
    return [
        earliest("first_day", F.col("day"), when=is_bought),
        latest("last_day", F.col("day"), when=is_bought),
        count("kept_baskets", F.col("is_kept")),
        total("net", F.col("net")),
        total("paid", F.col("paid")),
    ]


def columns() -> dict[str, Column]:
    """Columns made of the measures that no passing of time changes."""
    return {
        _C.first_purchase_on: day_of(F.col("first_day")),
        _C.last_purchase_on: day_of(F.col("last_day")),
        _C.frequency: F.col("kept_baskets"),
        _C.monetary_net: money_of(F.col("net")),
        _C.monetary_gross: money_of(F.col("paid")),
    }


def recency_days(as_of: date) -> Column:
    """Days from the last purchase to `as_of`; 1 when it was the day before."""
    return F.datediff(F.lit(as_of), _C.last_purchase_on)


def cut_points(customers: DataFrame, as_of: date, rules: FeatureRules, reading: Sequence[str] = ()) -> DataFrame:
    """One row per merchant with the four values that part each measure's scores.

    Args:
        customers: merchant_id, last_purchase_on, frequency, monetary_net; one row per customer.
        as_of: Day the scores are for.
        rules: Cut points a merchant chose replace the fifths.
        reading: Columns to read without use, so that another reader of the same ones can share the work.

    Returns:
        merchant_id, customers, and per measure `<measure>_cuts`, an array of four doubles. Fifths are exact quantiles,
        interpolated between neighbours, so they depend on nothing but the values.
    """
    values = {
        "recency_days": recency_days(as_of),
        "frequency": F.col(_C.frequency),
        "monetary_net": F.col(_C.monetary_net).cast("double"),
    }
    fifths = F.array(*[F.lit(f) for f in _FIFTHS])
    read = F.max(F.xxhash64(*reading)) if reading else F.lit(1)
    found = customers.groupBy(_C.merchant_id).agg(
        F.count(F.lit(1)).alias("customers"),
        read.alias("read"),
        *[F.percentile(value.cast("double"), fifths).alias(_cuts(m)) for m, value in values.items()],
    )
    return found.where(F.col("read").isNotNull()).select(
        _C.merchant_id, "customers", *[_chosen(m, rules, F.col(_cuts(m))).alias(_cuts(m)) for m in RFM_MEASURES]
    )


def scores(as_of: date) -> dict[str, Column]:
    """Score and group columns, for rows joined with `cut_points`.

    A score counts the cut points below the value; a recency counts down, for fewer days are better.
    """
    r = F.lit(5) - _points_below("recency_days", recency_days(as_of).cast("double"))
    f = F.lit(1) + _points_below("frequency", F.col(_C.frequency).cast("double"))
    m = F.lit(1) + _points_below("monetary_net", F.col(_C.monetary_net).cast("double"))
    return {
        _C.recency_days: recency_days(as_of),
        _C.r_score: r,
        _C.f_score: f,
        _C.m_score: m,
        _C.rfm_score: r * 100 + f * 10 + m,
        _C.rfm_group: group(r, f, m),
    }


def group(r: Column, f: Column, m: Column) -> Column:
    """The named cell of the grid; every one of the 125 score triples has exactly one."""
    value = F.floor((f + m + 1) / 2).cast("int")
    names = F.array(*[F.lit(name) for row in GRID for name in row])
    return F.element_at(names, (r - 1) * 5 + value)


def build_rfm_boundaries(customers: DataFrame, *, as_of: date, feature_rules: FeatureRules) -> DataFrame:
    """The cut points of a slice of `feature.customer`, one row per merchant, measure and score.

    Args:
        customers: `feature.customer`, any slices.
        as_of: The slice.
        feature_rules: As given to the build of that slice.
    """
    slice_ = customers.where(F.col(_C.as_of) == F.lit(as_of))
    cuts = cut_points(slice_, as_of, feature_rules)
    scored = {"recency_days": _C.r_score, "frequency": _C.f_score, "monetary_net": _C.m_score}
    held = slice_.groupBy(_C.merchant_id).agg(
        *[
            F.count(F.when(F.col(column) == score, 1)).alias(f"{m}_{score}")
            for m, column in scored.items()
            for score in range(1, 6)
        ]
    )
    rows = []
    for m in RFM_MEASURES:
        for score in range(1, 6):
            step = 6 - score if m == "recency_days" else score
            lower = F.lit(None).cast("double") if step == 1 else F.element_at(_cuts(m), step - 1)
            upper = F.lit(None).cast("double") if step == 5 else F.element_at(_cuts(m), step)
            rows.append(
                F.struct(
                    F.lit(m).alias("measure"),
                    F.lit(score).alias("score"),
                    lower.alias("lower"),
                    upper.alias("upper"),
                    F.col(f"{m}_{score}").alias("customers"),
                )
            )
    each = cuts.drop("customers").join(held, on=_C.merchant_id, how="inner")
    return each.select(_C.merchant_id, F.inline(F.array(*rows))).select(
        F.lit(as_of).alias(RfmBoundary.as_of), *[c for c in RfmBoundary.__table__.column_names if c != "as_of"]
    )


def _cuts(measure: str) -> str:
    return f"{measure}_cuts"


def _points_below(measure: RfmMeasure, value: Column) -> Column:
    passed = [(value > F.element_at(_cuts(measure), i)).cast("int") for i in range(1, 5)]
    return reduce(lambda a, b: a + b, passed)


def _chosen(measure: RfmMeasure, rules: FeatureRules, fifths: Column) -> Column:
    chosen: Mapping[str, tuple[float, ...]] = {
        merchant: own.rfm_cut_points[measure]
        for merchant, own in rules.merchants.items()
        if measure in own.rfm_cut_points
    }
    points = fifths
    for merchant, own in chosen.items():
        points = F.when(F.col(_C.merchant_id) == merchant, F.array(*[F.lit(float(p)) for p in own])).otherwise(points)
    return points
