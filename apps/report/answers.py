"""Answers of the tables to the values of the report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any, Final

from pyspark.sql import Row

from apps.report import words
from apps.report.data import (
    Cluster,
    ClusterTrait,
    CohortCell,
    FailedCheck,
    Flow,
    Headline,
    Measure,
    MerchantReport,
    Movement,
    Overlap,
    Period,
    Quality,
    Reconciliation,
    Rejection,
    RfmCell,
    RfmGroup,
    SampleNote,
    SegmentMove,
    SegmentSize,
    StepTiming,
    TableChecks,
)
from apps.report.questions import TRAITS
from lakehouse.steps import Step
from lakehouse.tables.feature import ABSENT

_MOVES: Final = 8
_DAYS: Final = 24
_PARTIAL_DAYS: Final = 3
"""A month counts as covered when sales begin and end within this many days of its edges: shops close on holidays."""

Rows = list[Row]
Record = Row | Mapping[str, Any]


def merchant(
    merchant_id: str, found: Mapping[str, Rows], as_of: date, before: date | None, empty: Mapping[str, str]
) -> MerchantReport:
    """What the report shows of one retailer."""

    def mine(name: str, by: str = "merchant_id") -> Rows:
        return [r for r in found[name] if r[by] == merchant_id]

    sales, rfm = mine("sales"), mine("rfm")
    now = [r for r in rfm if r["as_of"] == as_of]
    then = [r for r in rfm if r["as_of"] == before]
    moves = mine("moves")
    known = mine("merchants")
    return MerchantReport(
        name=known[0]["merchant_name"] if known else words.name_of(merchant_id),
        currency=known[0]["currency"] if known else _currency(sales),
        headline=_headline(sales, now, then),
        periods=_periods(sales),
        segments=_segment_sizes(mine("segments", "website_id")),
        overlaps=tuple(
            Overlap(r["segment_a"], r["segment_b"], r["both"], r["jaccard"]) for r in mine("overlaps", "website_id")
        ),
        segment_moves=_moves_between(
            mine("segment_moves", "website_id"), {r["segment_id"]: r["name"] for r in found["segments"]}
        ),
        rfm_cells=_cells(now),
        rfm_groups=_groups(now, then),
        movement=_movement(moves) if moves else None,
        cohorts=_cohorts(mine("cohorts"), sales, as_of),
        clusters=_clusters(mine("profiles"), mine("traits")),
        missing=empty,
    )


def _currency(sales: Rows) -> str:
    sums: dict[str, int] = defaultdict(int)
    for r in sales:
        sums[r["currency"]] += abs(r["cents"])
    return max(sums, key=lambda c: sums[c], default="USD")


def _headline(sales: Rows, now: Rows, then: Rows) -> Headline | None:
    if not sales:
        return None
    cents, orders = sum(r["cents"] for r in sales), sum(r["orders"] for r in sales)
    old_cents, old_orders = _sum(sales, "cents_before"), _sum(sales, "orders_before")
    known = sum(r["known_cents"] or 0 for r in sales)
    # A slice leaves no customer out who bought: an empty one of a shop where some did was not made.
    is_counted = bool(now) or not any(r["customers"] for r in sales)
    return Headline(
        customers=Measure(
            sum(r["customers"] for r in now) if is_counted else None,
            sum(r["customers"] for r in then) if then else None,
        ),
        revenue=Measure(cents / 100, None if old_cents is None else old_cents / 100),
        orders=Measure(orders, old_orders),
        basket=Measure(_ratio(cents / 100, orders), _ratio((old_cents or 0) / 100, old_orders)),
        known_share=known / cents if cents > 0 else None,
        first_day=min(r["first_day"] for r in sales),
        last_day=max(r["last_day"] for r in sales),
    )


def _periods(sales: Rows) -> tuple[Period, ...]:
    if not sales:
        return ()
    first, last = min(r["first_day"] for r in sales), max(r["last_day"] for r in sales)
    months: dict[date, Rows] = defaultdict(list)
    for r in sales:
        months[r["month"]].append(r)
    made = []
    month, newest = min(months), max(months)
    while month <= newest:
        parts = months.get(month, [])  # none in a month without a sale, which has its place all the same
        following = date(month.year + month.month // 12, month.month % 12 + 1, 1)
        starts_late, ends_early = (first - month).days, (following - last).days - 1
        made.append(
            Period(
                month=month,
                revenue=sum(r["cents"] for r in parts) / 100,
                orders=sum(r["orders"] for r in parts),
                customers=sum(r["customers"] for r in parts),
                is_partial=max(starts_late, ends_early) > _PARTIAL_DAYS,
            )
        )
        month = following
    return tuple(made)


def _segment_sizes(rows: Rows) -> tuple[SegmentSize, ...]:
    return tuple(
        SegmentSize(
            segment_id=r["segment_id"],
            name=r["name"],
            description=r["description"] or "",
            members=Measure(r["members"], r["members_before"]),
            share=r["share"],
            net_amount=None if r["net_amount"] is None else float(r["net_amount"]),
            value_share=r["value_share"],
            entered=r["entered"],
            exited=r["exited"],
            status=r["refresh_status"],
            history=tuple((h["as_of"], h["members"]) for h in r["history"][-_DAYS:]),
            since=r["previous_as_of"],
        )
        for r in sorted(rows, key=lambda r: (r["priority"], r["segment_id"]))
    )


def _moves_between(rows: Rows, names: Mapping[str, str]) -> tuple[SegmentMove, ...]:
    known = [r for r in rows if r["left"] in names and r["entered"] in names]
    largest = sorted(known, key=lambda r: (-r["customers"], r["left"], r["entered"]))[:_MOVES]
    return tuple(SegmentMove(names[r["left"]], names[r["entered"]], r["customers"]) for r in largest)


def _cells(now: Rows) -> tuple[RfmCell, ...]:
    counts: dict[tuple[int, int], int] = defaultdict(int)
    cents: dict[tuple[int, int], int] = defaultdict(int)
    for r in now:
        counts[r["r_score"], r["f_score"]] += r["customers"]
        cents[r["r_score"], r["f_score"]] += r["cents"] or 0
    return tuple(RfmCell(r, f, n, cents[r, f] / 100 / n if n else None) for (r, f), n in sorted(counts.items()))


def _groups(now: Rows, then: Rows) -> tuple[RfmGroup, ...]:
    counts: dict[str, int] = defaultdict(int)
    cents: dict[str, int] = defaultdict(int)
    earlier: dict[str, int] = defaultdict(int)
    for r in now:
        counts[r["rfm_group"]] += r["customers"]
        cents[r["rfm_group"]] += r["cents"] or 0
    for r in then:
        earlier[r["rfm_group"]] += r["customers"]
    made = [RfmGroup(g, Measure(n, earlier[g] if then else None), cents[g] / 100) for g, n in counts.items()]
    return tuple(sorted(made, key=lambda g: (-(g.value or 0), g.name)))


def _movement(moves: Rows) -> Movement:
    def one(stage: str) -> str | None:
        return None if stage == ABSENT else stage

    flows = tuple(Flow(one(r["from_stage"]), one(r["to_stage"]), r["customers"]) for r in moves)
    return Movement(max(r["from_as_of"] for r in moves), flows)


def _cohorts(rows: Rows, sales: Rows, as_of: date) -> tuple[CohortCell, ...]:
    """A cell for every month since that is over, 0 where nobody of the cohort bought, and for the one still running.

    Months after the retailer's last sale are not known: the day follows the newest sale of any retailer.
    """
    last = max((r["last_day"] for r in sales), default=as_of)
    edge = min(as_of, last + timedelta(days=_PARTIAL_DAYS + 1))
    active = {(r["cohort_month"], r["month_number"]): r["active"] for r in rows}
    cells = []
    for cohort, size in sorted({r["cohort_month"]: r["customers"] for r in rows}.items()):
        over = _months(cohort, edge)
        ages = {*range(over), *(age for month, age in active if month == cohort)}
        cells += [CohortCell(cohort, age, size, active.get((cohort, age), 0), age >= over) for age in sorted(ages)]
    return tuple(cells)


def _months(first: date, last: date) -> int:
    """Months from that of one day to that of another."""
    return (last.year - first.year) * 12 + last.month - first.month


def _clusters(profiles: Rows, traits: Rows) -> tuple[Cluster, ...]:
    sums = {r["cluster_id"]: r.asDict() for r in traits}
    centre = {name: _centre(name, list(sums.values())) for name in TRAITS}
    shown = [name for name in TRAITS if centre[name] is not None]
    made = []
    for p in profiles:
        own = sums.get(p["cluster_id"], {})
        made.append(
            Cluster(
                cluster_id=p["cluster_id"],
                name=p["cluster_name"],
                description="",
                customers=p["customers"],
                share=p["share"],
                value_share=p["value_share"],
                traits=tuple(_trait(name, own, centre[name]) for name in shown) if own else (),
            )
        )
    return tuple(sorted(made, key=lambda c: (-(c.value_share or 0.0), c.cluster_id)))


def _centre(name: str, clusters: list[dict[str, Any]]) -> tuple[float, float] | None:
    n = sum(c[f"{name}__n"] for c in clusters)
    if n < 2:
        return None
    mean = sum(c[f"{name}__sum"] or 0.0 for c in clusters) / n
    spread = sum(c[f"{name}__squares"] or 0.0 for c in clusters) / n - mean * mean
    return (mean, math.sqrt(spread)) if spread > 1e-12 else None


def _trait(name: str, own: Mapping[str, Any], centre: tuple[float, float] | None) -> ClusterTrait:
    n = own[f"{name}__n"]
    if centre is None or not n:
        return ClusterTrait(name, None, None)
    mean, sd = centre
    return ClusterTrait(name, own[f"{name}__mean"], (own[f"{name}__sum"] / n - mean) / sd)


def timings(rows: Rows, run_id: str) -> tuple[tuple[StepTiming, ...], str | None]:
    """The steps of the run; where it recorded none, those of the newest run that did, and the id of that one."""
    mine = [r for r in rows if r["run_id"] == run_id]
    shown, steps_of = (mine, None) if mine else (rows, rows[0]["run_id"] if rows else None)
    if not shown:
        return (), None
    start = min(r["started_at"] for r in shown)
    by_step: dict[str, Rows] = defaultdict(list)
    for r in shown:
        by_step[r["step"]].append(r)
    made = [
        StepTiming(
            step=words.title(producer.split(":")[-1]),
            layer=_layer(producer),
            begin=min((r["started_at"] - start).total_seconds() for r in parts),
            seconds=max(r["seconds"] for r in parts),
            rows_read=max((r["rows_read"] for r in parts if r["rows_read"] is not None), default=None),
            rows_written=_sum(parts, "rows_written"),
            rows_rejected=_sum(parts, "rows_rejected"),
            status="failed" if any(r["status"] == "failed" for r in parts) else "succeeded",
        )
        for producer, parts in by_step.items()
    ]
    return tuple(sorted(made, key=lambda s: (s.begin, s.step))), steps_of


def _layer(producer: str) -> str:
    layer = Step(producer, (), ()).layer
    return {"connectors": "export", "apps": "report"}.get(layer, layer)


def quality(found: Mapping[str, Rows], empty: Mapping[str, str], titles: Mapping[str, str]) -> Quality:
    """Checks, reconciliations and refused rows of all retailers."""

    def source(name: str) -> str:
        return titles.get(name) or words.name_of(name)

    checks: dict[str, list[str]] = defaultdict(list)
    for r in found["checks"]:
        checks[r["dataset_id"]].append("passed" if r["check_status"] == "passed" else r["severity"])
    failed = [
        FailedCheck(r["dataset_id"], r["check_name"], r["severity"], r["column_name"], _observed(r))
        for r in found["checks"]
        if r["check_status"] != "passed"
    ]
    refused = [Rejection(source(r["source"]), "rule", r["reason"], r["rows"]) for r in found["rejects"]]
    unread = [
        Rejection(
            source(r["source"]),
            "parsing",
            f"{r['column_name']}: {r['reason']}" if r["column_name"] else r["reason"],
            r["rows"],
        )
        for r in found["parsing"]
    ]
    return Quality(
        tables=tuple(_table_checks(table, outcomes) for table, outcomes in sorted(checks.items())),
        failed=tuple(sorted(failed, key=lambda f: (f.severity, f.table, f.check))),
        reconciliations=_reconciliations(
            found["recon"], {r["merchant_id"]: r["merchant_name"] for r in found["merchants"]}
        ),
        rejections=tuple(sorted([*refused, *unread], key=lambda r: (-r.rows, r.source, r.reason))),
        missing=empty,
    )


def _table_checks(table: str, outcomes: list[str]) -> TableChecks:
    passed, warnings = outcomes.count("passed"), outcomes.count("warning")
    return TableChecks(table, passed, len(outcomes) - passed - warnings, warnings)


def _reconciliations(rows: Rows, names: Mapping[str, str]) -> tuple[Reconciliation, ...]:
    return tuple(
        Reconciliation(
            subject=r["subject"],
            merchant=names.get(r["merchant_id"]) or words.name_of(r["merchant_id"]),
            # Rows that could not be read never reached bronze, but the shop did deliver them.
            delivered=r["delivered_rows"] + r["unparsed_rows"],
            accepted=r["accepted_rows"],
            rejected=r["rejected_rows"] + r["unparsed_rows"],
            duplicates=r["duplicate_rows"],
            is_balanced=r["is_balanced"],
        )
        for r in sorted(rows, key=lambda r: (-r["delivered_rows"], r["subject"], r["merchant_id"]))
    )


def _observed(check: Row) -> str | None:
    if check["unexpected_count"] is None:
        return check["message"]
    of = f" of {words.whole(check['element_count'])}" if check["element_count"] else ""
    return f"{words.whole(check['unexpected_count'])}{of} rows"


def source_titles(sources: Iterable[Record], merchants: Mapping[str, str]) -> dict[str, str]:
    """What sources are called: those with a retailer's id in theirs by its name, others by their id in words.

    Args:
        sources: Rows of `ingest.dim_source_system`.
        merchants: Names of retailers by id.
    """
    titles = {}
    for r in sources:
        source, merchant = r["source_system_id"], r["merchant_id"]
        if merchant in merchants and f"{source}_".startswith(f"{merchant}_"):
            titles[source] = merchants[merchant] + source.removeprefix(merchant).replace("_", " ")
        else:
            titles[source] = words.name_of(source)
    return titles


def source_notes(
    sources: Iterable[Record], titles: Mapping[str, str]
) -> tuple[tuple[SampleNote, ...], tuple[tuple[str, str], ...]]:
    """What readers must know of the sources that have delivered files: which are made up, and terms of use."""
    told = sorted((r for r in sources if r["file_count"]), key=lambda r: r["source_system_id"])
    samples = tuple(
        SampleNote(titles[r["source_system_id"]], r["description"], r["label"] or "Sample data.")
        for r in told
        if r["is_sample"]
    )
    return samples, tuple((titles[r["source_system_id"]], r["terms"]) for r in told if r["terms"])


def _sum(rows: Rows, name: str) -> int | None:
    known = [r[name] for r in rows if r[name] is not None]
    return sum(known) if known else None


def _ratio(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None
