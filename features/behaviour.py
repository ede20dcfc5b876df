"""How a customer buys: how often and how much, when, where, at what price, and whether it goes back."""

from __future__ import annotations

from datetime import date
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from features.measures import Measure, count, day_of, earliest, latest, money_of, ratio, total
from features.rules import FeatureRules
from lakehouse.tables.feature import WEEKDAYS, FeatureCustomer

_C = FeatureCustomer
_EPOCH = date(1970, 1, 1)
WINDOWS = (7, 30, 90, 365)
"""Trailing windows in days; `[as_of - days, as_of)`."""

DAY_PARTS = {"morning": (6, 12), "afternoon": (12, 17), "evening": (17, 22)}
"""Hours from and to, exclusive; what is left is night."""


def measures(as_of: date, rules: FeatureRules) -> list[Measure]:
    """What is added up for behaviour.

    Besides the features themselves: `moves_on`, the first `as_of` at which an event leaves one of the windows.

    Args:
        as_of: Edge of the trailing windows.
        rules: How many days a return after a silence is remembered.
    """
    bought, day, hour, gap = F.col("is_bought"), F.col("day"), F.col("hour"), F.col("gap")
    today = (as_of - _EPOCH).days
    weekday = F.pmod(day + 3, F.lit(7))  # 1970-01-01 was a Thursday; Monday is 0
    quarter = F.quarter(day_of(day))
    found = [
        count("bought_baskets", bought),
        count("bought_days", F.col("is_day_start")),
        total("gap_squares", F.coalesce(gap * gap, F.lit(0).cast("bigint"))),
        # Length above, end below: one number whose maximum is the longest gap, the latest of equals.
        latest("longest_gap", F.call_function("shiftleft", gap, F.lit(32)) + day),
        *[total(name, F.col(name)) for name in ("items", "shelf", "discount", "coupon", "back", "private", "branded")],
        *[count(part, bought & (hour >= start) & (hour < end)) for part, (start, end) in DAY_PARTS.items()],
        *[count(name, bought & (weekday == i)) for i, name in enumerate(WEEKDAYS)],
        *[total(f"quarter_{q}", F.col("paid"), when=quarter == q) for q in range(1, 5)],
    ]
    for days in WINDOWS:
        inside = day >= today - days
        found += [total(f"spend_{days}", F.col("net"), when=inside), count(f"visits_{days}", bought & inside)]
    is_end = gap.isNotNull()
    remembered = rules.all_values("won_back_days")
    found += [latest(f"returned_{days}", gap, when=day >= today - days) for days in remembered]
    before = (day >= today - 180) & (day < today - 90)
    edges = [F.when(day >= today - days, day + days + 1) for days in (*WINDOWS, 180)]
    edges += [F.when(is_end & (day >= today - days), day + days + 1) for days in remembered]
    return [
        *found,
        total("spend_previous_90", F.col("net"), when=before),
        earliest("moves_on", F.least(*edges)),
    ]


def columns(rules: FeatureRules) -> dict[str, Column]:
    """Columns made of the measures."""
    returned = rules.by_merchant("won_back_days", lambda days: F.col(f"returned_{days}"))
    baskets, gaps = F.col("bought_baskets"), F.col("bought_days") - 1
    days_between = F.col("last_day") - F.col("first_day")
    # Sample variance by whole numbers: n * sum of squares - square of sum, divided once.
    spread = ratio(gaps * F.col("gap_squares") - days_between * days_between, gaps * (gaps - 1))
    shelf, paid = F.col("shelf"), F.col("paid")
    quarters = [F.col(f"quarter_{q}") for q in range(1, 5)]
    busiest = F.greatest(*quarters)
    longest = F.col("longest_gap")
    parts = reduce(lambda a, b: a + b, [F.col(p) for p in DAY_PARTS])
    weekend = F.col("saturday") + F.col("sunday")
    recent, previous = F.col("spend_90"), F.col("spend_previous_90")
    spent_both = F.abs(recent) + F.abs(previous)
    return {
        _C.windows_move_on: day_of(F.col("moves_on")),
        _C.baskets: baskets,
        _C.purchase_days: F.col("bought_days"),
        _C.items: F.col("items") / 1000.0,
        _C.basket_value_mean: ratio(paid, baskets * 100),
        _C.basket_size_mean: ratio(F.col("items"), baskets * 1000),
        _C.inter_purchase_days_mean: ratio(days_between, gaps),
        _C.inter_purchase_days_sd: F.sqrt(spread),
        _C.longest_gap_days: F.shiftright(longest, 32).cast("int"),
        _C.longest_gap_ended_on: day_of(longest.bitwiseAND((1 << 32) - 1)),
        _C.returned_after_days: returned.cast("int"),
        _C.returned_within_days: rules.by_merchant("won_back_days", F.lit),
        _C.night_share: ratio(baskets - parts, baskets),
        **{f"{part}_share": ratio(F.col(part), baskets) for part in DAY_PARTS},
        _C.weekday_share: ratio(baskets - weekend, baskets),
        _C.weekend_share: ratio(weekend, baskets),
        _C.favourite_weekday: _first_greatest({name: F.col(name) for name in WEEKDAYS}),
        _C.discount_share: ratio(F.col("discount"), shelf),
        _C.coupon_share: ratio(F.col("coupon"), shelf),
        _C.private_label_share: ratio(F.col("private"), F.col("branded")),
        _C.return_rate: ratio(F.col("back"), paid),
        **{f"spend_{days}d": money_of(F.col(f"spend_{days}")) for days in WINDOWS},
        _C.spend_previous_90d: money_of(previous),
        **{f"visits_{days}d": F.col(f"visits_{days}") for days in WINDOWS},
        _C.spend_trend: ratio(recent - previous, spent_both),
        _C.fourth_quarter_share: ratio(quarters[3], paid),
        _C.busiest_quarter: F.when(busiest > 0, _first_greatest(dict(enumerate(quarters, start=1)))),
        _C.busiest_quarter_share: ratio(F.when(busiest > 0, busiest), paid),
    }


def visit_measures() -> list[Measure]:
    """What one store adds to the customer, over rows of one customer and store; see `visit_columns`.

    The favourite is a number made of baskets, last day and store code, so that its maximum is the favourite: 20 bits
    of baskets, 20 of days since 1970, 22 of codes counted down.
    """
    baskets = F.least(F.col("bought_baskets"), F.lit((1 << 20) - 1))
    key = F.call_function("shiftleft", baskets, F.lit(42)) + F.call_function("shiftleft", F.col("last_day"), F.lit(22))
    seen = (F.col("bought_baskets") > 0) & (F.col("store_code") > 0)
    return [
        count("stores", seen),
        latest("favourite_store", key + (F.lit((1 << 22) - 1) - F.col("store_code")), when=seen),
    ]


def visit_columns() -> dict[str, Column]:
    """Columns made of `visit_measures`; `favourite_store_code` is looked up later."""
    key = F.col("favourite_store")
    return {
        _C.distinct_stores: F.col("stores"),
        _C.distinct_channels: F.bit_count("channel_bits").cast("bigint"),
        "favourite_store_code": F.lit((1 << 22) - 1) - key.bitwiseAND((1 << 22) - 1),
        _C.favourite_store_share: ratio(F.shiftright(key, 42), F.col("bought_baskets")),
    }


def _first_greatest(named: dict[str, Column] | dict[int, Column]) -> Column:
    most = F.greatest(*named.values())
    chosen = F.lit(None)
    for name, value in reversed(list(named.items())):
        chosen = F.when(value == most, F.lit(name)).otherwise(chosen)
    return chosen
