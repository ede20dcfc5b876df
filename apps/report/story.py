"""The sentences of the report: what the numbers say, for someone who has a minute."""

from __future__ import annotations

from collections import defaultdict
from datetime import date

from markupsafe import Markup

from apps.report import words
from apps.report.charts import STAGE_ORDER
from apps.report.data import Flow, MerchantReport, Movement, RfmCell, SegmentSize


def lead(shop: MerchantReport, as_of: date) -> Markup:
    """The page in two sentences."""
    h = shop.headline
    if h is None:
        return Markup("There are no sales before this day yet.")
    count = h.customers.value
    known = "known customers" if count is None else words.several(count, "known customer")
    said = Markup("Before {}, <b>{}</b> spent <b>{}</b> in {}.").format(
        words.day(as_of),
        known if h.known_share is None or h.known_share > 0.9995 else f"{known} and guests",
        words.money(h.revenue.value, shop.currency),
        words.several(h.orders.value or 0, "order"),
    )
    if count is None:
        said += " How many they are was not computed for this day: run segmentation features, then the report again."
    best = best_segment(shop.segments)
    if best is not None and best.value_share is not None:
        said += Markup(" <b>{}</b> make up {} of customers and bring <b>{}</b> of their spend.").format(
            best.name, words.percent(best.share), words.percent(best.value_share)
        )
    return said


def best_segment(segments: tuple[SegmentSize, ...]) -> SegmentSize | None:
    """The segment that brings most beyond its size."""
    rated = [s for s in segments if s.share and s.value_share is not None and s.value_share > s.share]
    return max(rated, key=lambda s: (s.value_share or 0) - (s.share or 0), default=None)


def about_segments(shop: MerchantReport) -> Markup:
    """How the segments relate to one another and what moved most."""
    said = Markup("A customer can be in several segments, so shares may add up to more than the whole.")
    moved = [s for s in shop.segments if s.members.change]
    if moved:
        most = max(moved, key=lambda s: abs(s.members.change or 0))
        change = most.members.change or 0
        said += Markup(" <b>{}</b> changed most: {} {} than {}.").format(
            most.name,
            words.several(abs(change), "customer"),
            "more" if change > 0 else "fewer",
            f"on {words.day(most.since)}" if most.since else "before",
        )
    return said


def about_rfm(cells: tuple[RfmCell, ...]) -> Markup:
    """How much the best corner of the grid stands out."""
    total = sum(c.customers for c in cells)
    spend = sum((c.mean_value or 0) * c.customers for c in cells)
    best = [c for c in cells if c.recency >= 4 and c.frequency >= 4]
    n, value = sum(c.customers for c in best), sum((c.mean_value or 0) * c.customers for c in best)
    said = Markup(
        "Recency is how lately a customer bought, frequency how often. Each is scored from 1 to 5, so the best "
        "customers stand top right."
    )
    if n and spend > 0:
        said += Markup(" The <b>four best cells</b> hold {} of customers and {} of their spend.").format(
            words.percent(n / total), words.percent(value / spend)
        )
    return said


def about_movement(movement: Movement) -> Markup:
    """How many came, came back, slipped and stayed."""
    rank = {name: i for i, name in enumerate(STAGE_ORDER)}
    sums: dict[str, int] = defaultdict(int)
    for f in movement.flows:
        if f.source is None:
            sums["arrived"] += f.customers
        elif f.source == f.target:
            sums["stayed"] += f.customers
        elif f.target in _AWAY and rank[f.target] > rank.get(f.source, 0):
            sums["slipped"] += f.customers
        elif f.source in _AWAY and f.target is not None:
            sums["returned"] += f.customers
    told = (("slipped", "slipped away"), ("returned", "came back"), ("arrived", "bought for the first time"))
    parts = [Markup("<b>{}</b> {}").format(words.whole(sums[kind]), what) for kind, what in told if sums[kind]]
    if not parts:
        return Markup("Since {} nobody changed state.").format(words.day(movement.since))
    return Markup("Since {}, {}; {} stayed as they were.").format(
        words.day(movement.since), _joined(parts), words.whole(sums["stayed"])
    )


def largest_moves(movement: Movement, most: int = 8) -> list[Flow]:
    """The moves most customers made, those who stayed left out."""
    moves = [f for f in movement.flows if f.source != f.target and f.customers]
    return sorted(moves, key=lambda f: -f.customers)[:most]


def about_retention(shop: MerchantReport) -> Markup:
    """The mean way back after one, three, six and twelve months that are over, weighted by cohort size."""
    sizes: dict[int, int] = defaultdict(int)
    back: dict[int, int] = defaultdict(int)
    for c in shop.cohorts:
        if c.is_partial:
            continue
        sizes[c.age] += c.size
        back[c.age] += c.customers
    known = [(a, back[a] / sizes[a]) for a in (1, 3, 6, 12) if sizes[a]]
    said = Markup("Customers are grouped by the month of their first purchase.")
    if known:
        parts = [Markup("<b>{}</b> in month {}").format(words.percent(share), age) for age, share in known]
        said += Markup(" Over all groups, {} bought again.").format(_joined(parts))
    return said


def about_clusters(shop: MerchantReport) -> Markup:
    """What the clusters are and how to read the bars."""
    return Markup(
        "A model sorted {} into {} by how they buy, without being told what to look for. Bars show how far a group "
        "lies from the average customer."
    ).format(
        words.several(sum(c.customers for c in shop.clusters), "customer"), words.several(len(shop.clusters), "group")
    )


_AWAY = ("lapsing", "lost")


def _joined(parts: list[Markup]) -> Markup:
    return parts[0] if len(parts) == 1 else Markup(", ").join(parts[:-1]) + Markup(" and ") + parts[-1]
