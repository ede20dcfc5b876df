"""Tables to the values of the report: a dozen small aggregations, side by side, and nothing about one customer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any, Final

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

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
    ReportData,
    RfmCell,
    RfmGroup,
    SampleNote,
    SegmentMove,
    SegmentSize,
    StepTiming,
    TableChecks,
)
from lakehouse.declare import table_of
from lakehouse.lake import Lake
from lakehouse.runner import Step
from lakehouse.tables.feature import ABSENT
from segments.inspect import flows_between, overlap_segments

TRAITS: Final = (
    "recency_days",
    "frequency",
    "monetary_net",
    "basket_value_mean",
    "inter_purchase_days_mean",
    "distinct_categories",
    "discount_share",
    "private_label_share",
    "weekend_share",
)
"""Features a cluster is described by."""

LARGEST: Final = 14
"""Segments of a retailer whose overlap is shown."""

_MOVES: Final = 8
_DAYS: Final = 24
_AT_ONCE: Final = 4
_PARTIAL_DAYS: Final = 3
"""A month counts as covered when sales begin and end within this many days of its edges: shops close on holidays."""

Rows = list[Row]
Record = Row | Mapping[str, Any]


def collect(lake: Lake, run_id: str, as_of: date) -> ReportData:
    """Read everything the report of one run shows.

    Args:
        lake: Where the tables are. Those that do not exist yet read as empty.
        run_id: Run whose steps are shown; when it executed none, those of the newest run that did.
        as_of: Slice of the feature tables, exclusive edge of sales.

    Returns:
        One entry per merchant that has sales or features, the retailer with most revenue first.
    """
    moves = lake.read("feature.lifecycle_flow").where(F.col("to_as_of") == F.lit(as_of)).collect()
    before = max((r["from_as_of"] for r in moves), default=None)
    questions: dict[str, Callable[[], Rows]] = {
        "sales": lambda: _sales(lake, as_of, before).collect(),
        "rfm": lambda: _rfm(lake, as_of, before).collect(),
        "segments": lambda: _segments(lake, as_of).collect(),
        "overlaps": lambda: _overlaps(lake, as_of).collect(),
        "segment_moves": lambda: _segment_moves(lake, as_of).collect(),
        "cohorts": lambda: _slice(lake, "feature.cohort_retention", as_of).collect(),
        "profiles": lambda: _slice(lake, "feature.cluster_profile", as_of).collect(),
        "traits": lambda: _traits(lake, as_of).collect(),
        "sources": lambda: lake.read("ingest.dim_source_system").collect(),
        "merchants": lambda: lake.read("gold.dim_merchant").collect(),
        "recon": lambda: lake.read("gold.audit_recon").collect(),
        "checks": lambda: _checks(lake).collect(),
        "rejects": lambda: _rejects(lake).collect(),
        "parsing": lambda: _parsing(lake).collect(),
        "steps": lambda: _steps(lake, run_id).collect(),
    }
    # Each is a small job that leaves cores idle; a few at once take half the time of one after the other.
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        asked = {name: pool.submit(question) for name, question in questions.items()}
        found = {name: future.result() for name, future in asked.items()}
    found["moves"] = moves
    merchants = {r["merchant_id"] for name in ("sales", "rfm") for r in found[name]}
    empty = _why_empty(lake, as_of)
    shops = [_merchant(m, found, as_of, before, empty) for m in sorted(merchants)]
    steps, steps_of = _timings(found["steps"], run_id)
    titles = source_titles(found["sources"], {r["merchant_id"]: r["merchant_name"] for r in found["merchants"]})
    samples, terms = source_notes(found["sources"], titles)
    return ReportData(
        run_id=run_id,
        as_of=as_of,
        generated_at=datetime.now(UTC).replace(microsecond=0),
        merchants=tuple(sorted(shops, key=_revenue, reverse=True)),
        previous_as_of=before,
        quality=_quality(found, empty, titles),
        steps=steps,
        steps_of=steps_of,
        samples=samples,
        terms=terms,
    )


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


# Questions to the tables: each an aggregation to at most a few hundred rows ----------------------------------------


def _slice(lake: Lake, name: str, as_of: date) -> DataFrame:
    return lake.read(name).where(F.col("as_of") == F.lit(as_of))


def _sales(lake: Lake, as_of: date, before: date | None) -> DataFrame:
    """Net sales by merchant, currency and month, and the part of them before the earlier day.

    Baskets are made first, so that orders and customers are counted without exploding the lines.
    """
    lines = lake.read("gold.fact_transactions").where(
        (F.col("business_date") < F.lit(as_of)) & (F.col("txn_type") != "adjustment")
    )
    baskets = lines.groupBy("merchant_id", "currency", "business_date", "basket_id").agg(
        F.sum((F.col("amount") * 100).cast("bigint")).alias("cents"),
        F.max(F.when(F.col("txn_type") == "sale", 1).otherwise(0)).alias("is_order"),
        F.max("customer_key").alias("customer_key"),
    )
    is_old = F.col("business_date") < F.lit(before) if before else F.lit(False)
    return baskets.groupBy("merchant_id", "currency", F.trunc("business_date", "month").alias("month")).agg(
        F.sum("cents").alias("cents"),
        F.sum(F.when(is_old, F.col("cents"))).alias("cents_before"),
        F.sum(F.when(is_old, F.col("is_order"))).alias("orders_before"),
        F.sum(F.when(F.col("customer_key").isNotNull(), F.col("cents"))).alias("known_cents"),
        F.sum("is_order").alias("orders"),
        F.count_distinct(F.when(F.col("is_order") == 1, F.col("customer_key"))).alias("customers"),
        F.min("business_date").alias("first_day"),
        F.max("business_date").alias("last_day"),
    )


def _rfm(lake: Lake, as_of: date, before: date | None) -> DataFrame:
    days = [d for d in (as_of, before) if d is not None]
    slices = lake.read("feature.customer").where(F.col("as_of").isin(days))
    return slices.groupBy("merchant_id", "as_of", "r_score", "f_score", "rfm_group").agg(
        F.count(F.lit(1)).alias("customers"), F.sum((F.col("monetary_net") * 100).cast("bigint")).alias("cents")
    )


def _segments(lake: Lake, as_of: date) -> DataFrame:
    sizes = lake.read("gold.customer_segment_size").where(F.col("as_of") <= F.lit(as_of))
    in_time = Window.partitionBy("segment_id", "website_id").orderBy("as_of")
    with_before = sizes.withColumn("members_before", F.lag("members").over(in_time)).where(
        F.col("as_of") == F.lit(as_of)
    )
    definitions = (
        lake.read("gold.customer_segment")
        .where("is_active")
        .select("segment_id", "name", "description", "priority", "refresh_status")
    )
    said = F.array_sort(F.collect_list(F.struct("as_of", "members")))
    over_time = sizes.groupBy("segment_id", "website_id").agg(said.alias("history"))
    # One definition per segment, one history per segment and website.
    return with_before.join(definitions, "segment_id", how="inner").join(
        over_time, ["segment_id", "website_id"], how="inner"
    )


def _overlaps(lake: Lake, as_of: date) -> DataFrame:
    """Pairs of the largest segments; of all, customers in a hundred segments would make five thousand pairs each."""
    sizes = _slice(lake, "gold.customer_segment_size", as_of)
    by_size = Window.partitionBy("website_id").orderBy(F.desc("members"), "segment_id")
    largest = (
        sizes.where("members > 0")
        .withColumn("_rank", F.row_number().over(by_size))
        .where(F.col("_rank") <= LARGEST)
        .groupBy("website_id")
        .agg(F.collect_list("segment_id").alias("_largest"))
    )
    # One row per website on the right.
    members = lake.read("gold.customer_membership").join(F.broadcast(largest), "website_id", how="inner")
    shown = members.withColumn("segment_ids", F.array_intersect("segment_ids", "_largest")).drop("_largest")
    return overlap_segments(shown)


def _segment_moves(lake: Lake, as_of: date) -> DataFrame:
    stays = lake.read("gold.customer_segment_history")
    of_day = stays.where((F.col("exited_on") == F.lit(as_of)) | (F.col("entered_on") == F.lit(as_of)))
    return flows_between(of_day).where(F.col("day") == F.lit(as_of))


def _traits(lake: Lake, as_of: date) -> DataFrame:
    """Sums, squares and counts of each trait by cluster; counts and money are compared on a log scale."""
    features = _slice(lake, "feature.customer", as_of)
    clusters = _slice(lake, "feature.customer_cluster", as_of).select("merchant_id", "customer_key", "cluster_id")
    # Both hold a customer once per day, so the join multiplies nothing.
    placed = features.join(clusters, ["merchant_id", "customer_key"], how="inner")
    measures = []
    for name in TRAITS:
        value = F.col(name).cast("double")
        scaled = value if name.endswith("_share") else F.log1p(F.greatest(value, F.lit(0.0)))
        measures += [
            F.count(value).alias(f"{name}__n"),
            F.avg(value).alias(f"{name}__mean"),
            F.sum(scaled).alias(f"{name}__sum"),
            F.sum(scaled * scaled).alias(f"{name}__squares"),
        ]
    return placed.groupBy("merchant_id", "cluster_id").agg(*measures)


def _rejects(lake: Lake) -> DataFrame:
    each = lake.read("silver.transaction_reject").select("source", F.explode("reasons").alias("reason"))
    return each.groupBy("source", "reason").agg(F.count(F.lit(1)).alias("rows"))


def _parsing(lake: Lake) -> DataFrame:
    return (
        lake.read("ingest.ref_parsing_errors")
        .groupBy("source", "column_name", "reason")
        .agg(F.count(F.lit(1)).alias("rows"))
    )


def _steps(lake: Lake, run_id: str) -> DataFrame:
    """Audit rows of the run and of the newest run before it, so that a run without work shows the last work."""
    audits = lake.read("ingest.audit_transforms")
    newest = audits.agg(F.max_by("run_id", "started_at").alias("run_id"))
    return audits.join(
        F.broadcast(newest.unionByName(newest.select(F.lit(run_id).alias("run_id"))).distinct()),
        "run_id",
        how="left_semi",
    )


def _checks(lake: Lake) -> DataFrame:
    """The newest outcome of every check, whichever run made it."""
    said = F.struct("check_status", "severity", "column_name", "element_count", "unexpected_count", "message")
    return (
        lake.read("gov.fact_data_quality")
        .groupBy("dataset_id", "check_name")
        .agg(F.max_by(said, "checked_ts").alias("newest"))
        .select("dataset_id", "check_name", "newest.*")
    )


# Answers to values -----------------------------------------------------------------------------------------------


def _merchant(
    merchant_id: str, found: Mapping[str, Rows], as_of: date, before: date | None, empty: Mapping[str, str]
) -> MerchantReport:
    def mine(name: str, by: str = "merchant_id") -> Rows:
        return [r for r in found[name] if r[by] == merchant_id]

    sales, rfm = mine("sales"), mine("rfm")
    now = [r for r in rfm if r["as_of"] == as_of]
    then = [r for r in rfm if r["as_of"] == before]
    moves = mine("moves")
    known = mine("merchants")
    return MerchantReport(
        merchant_id=merchant_id,
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
        cohorts=tuple(
            CohortCell(r["cohort_month"], r["month_number"], r["customers"], r["active"]) for r in mine("cohorts")
        ),
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
    return Headline(
        customers=Measure(sum(r["customers"] for r in now), sum(r["customers"] for r in then) if then else None),
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
    for month, parts in sorted(months.items()):
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


def _timings(rows: Rows, run_id: str) -> tuple[tuple[StepTiming, ...], str | None]:
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


def _quality(found: Mapping[str, Rows], empty: Mapping[str, str], titles: Mapping[str, str]) -> Quality:
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


_BEHIND: Final = {
    "headline": ("gold.fact_transactions",),
    "segments": ("gold.customer_segment_size", "gold.customer_segment"),
    "rfm": ("feature.customer",),
    "flows": ("feature.lifecycle_flow",),
    "cohorts": ("feature.cohort_retention",),
    "clusters": ("feature.cluster_profile",),
    "recon": ("gold.audit_recon",),
    "checks": ("gov.fact_data_quality",),
    "steps": ("ingest.audit_transforms",),
}
"""Tables each section is made from."""


def _why_empty(lake: Lake, as_of: date) -> dict[str, str]:
    said = {}
    for section, names in _BEHIND.items():
        absent = [name for name in names if not lake.exists(name)]
        if absent:
            said[section] = f"{words.listed(absent)} {'has' if len(absent) == 1 else 'have'} not been built yet."
        elif section == "flows":
            said[section] = "The next run with a later day shows who moved since this one."
        elif any(c == "as_of" for c in table_of(names[0]).columns):
            said[section] = f"{names[0]} has no rows for this retailer as of {words.day(as_of)}."
        else:
            said[section] = f"{names[0]} has no rows yet."
    return said


def _layer(producer: str) -> str:
    layer = Step(producer, (), ()).layer
    return {"connectors": "export", "apps": "report"}.get(layer, layer)


def _sum(rows: Rows, name: str) -> int | None:
    known = [r[name] for r in rows if r[name] is not None]
    return sum(known) if known else None


def _ratio(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None


def _revenue(shop: MerchantReport) -> float:
    return (shop.headline.revenue.value or 0.0) if shop.headline else 0.0
