"""What segments cost: many in one scan, a refresh after few changes, one ad-hoc count; DuckDB beside each.

    python -m bench.segments --customers 1000000 --lines 20000000

Data are generated. Both engines read the same Parquet files and must find the same members, or the run stops. Times are
wall seconds of the best of `--repeat`, in a warm session, with two threads each; only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.declare import table_of
from lakehouse.lake import Lake
from lakehouse.session import SparkSettings, build_session
from lakehouse.settings import Settings
from segments.catalogue import Feature
from segments.evaluate import evaluate_segments
from segments.evaluation import evaluate_changed
from segments.events import FACTS, SOURCES
from segments.language import Segment, event, feature

AS_OF = date(2025, 1, 1)
EVALUATION = "gold.customer_evaluation"
CATALOGUE = {
    f.name: f
    for f in (
        Feature("recency_days", "int"),
        Feature("frequency", "bigint"),
        Feature("monetary_net", "decimal(18,2)"),
        Feature("weekend_share", "double"),
        Feature("lifecycle_stage", "string"),
    )
}
STAGES = ("new", "active", "lapsing", "lost", "won_back")


def definitions(count: int) -> tuple[list[Segment], list[str]]:
    """Segments and the same as SQL conditions for DuckDB."""
    made, told = [], []
    for n in range(count):
        days, spend, stage = 1 + n % 60, 50 + n, STAGES[n % 5]
        rule = feature("recency_days").at_most(days) & (
            feature("monetary_net").at_least(spend) | ~feature("lifecycle_stage").equals(stage)
        )
        made.append(Segment(f"s{n:04}", f"S{n}", rule))
        told.append(f"recency_days <= {days} AND (monetary_net >= {spend} OR NOT lifecycle_stage = '{stage}')")
    return made, told


def with_events(count: int = 20) -> list[Segment]:
    """Half of the segments on features and half on events, for a refresh that has to read events."""
    found = definitions(count - count // 2)[0]
    for n in range(count // 2):
        asked = event("item").where(feature("amount").at_least(5 * (n % 10))).within_last_days(7 * (n % 10 + 1))
        found.append(Segment(f"e{n:04}", f"E{n}", asked.at_least(1 + n % 3)))
    return found


def generate(spark: SparkSession, folder: Path, customers: int, lines: int) -> None:
    """Write features and fact lines; every value is a hash of its key, so that the files are the same every time."""
    key = F.col("id")

    def roll(salt: int, sides: int) -> Any:
        return F.pmod(F.xxhash64(key, F.lit(salt)), F.lit(sides))

    stages = F.array(*[F.lit(s) for s in STAGES])
    spark.range(customers).select(
        F.lit("shop").alias("merchant_id"),
        key.alias("customer_key"),
        key.cast("string").alias("customer_id"),
        F.lit(AS_OF).alias("as_of"),
        roll(1, 365).cast("int").alias("recency_days"),
        roll(2, 60).alias("frequency"),
        (roll(3, 200_000) / 100).cast("decimal(18,2)").alias("monetary_net"),
        (roll(4, 1000) / 1000).alias("weekend_share"),
        F.get(stages, roll(5, 5).cast("int")).alias("lifecycle_stage"),
    ).write.mode("overwrite").parquet(str(folder / "features"))
    day = F.date_sub(F.lit(AS_OF), (roll(6, 365) + 1).cast("int"))
    own = {
        "transaction_id": key,
        "merchant_id": F.lit("shop"),
        "customer_key": roll(7, customers),
        "basket_id": (roll(8, lines // 7 + 1)).cast("string"),
        "product_id": roll(9, 5000).cast("string"),
        "txn_type": F.lit("sale"),
        "posted_ts": day.cast("timestamp"),
        "business_date": day,
        "quantity": F.lit(1).cast("decimal(18,3)"),
        "amount": (roll(10, 10_000) / 100).cast("decimal(18,2)"),
        "is_valid_purchase": F.lit(True),
    }
    columns = [own.get(str(c), F.lit(None)).cast(c.spec.type).alias(str(c)) for c in table_of(FACTS).columns]
    # In the order of days, as deliveries come and as the product's own table lies.
    facts = spark.range(lines).select(*columns).repartitionByRange(12, "business_date")
    facts.sortWithinPartitions("business_date").write.mode("overwrite").parquet(str(folder / "facts"))


def is_moved() -> Column:
    """Whether a customer is the one in a hundred who has new features and new lines."""
    return F.pmod(F.xxhash64("customer_key", F.lit(99)), F.lit(100)) == 0


def moved(features: DataFrame) -> DataFrame:
    """Features after these customers bought."""
    return features.withColumn("recency_days", F.when(is_moved(), F.lit(1)).otherwise(F.col("recency_days")))


def sized_parser(about: str | None, work: str) -> argparse.ArgumentParser:
    """A command line of how much is generated, and where."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--lines", type=int, default=20_000_000)
    parser.add_argument("--work", type=Path, default=Path(work))
    return parser


def best(work: Callable[[], Any], repeat: int) -> float:
    """Smallest wall time."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Run the comparison and print a table per question."""
    parser = sized_parser(__doc__, ".lakehouse/bench-segments")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--repeat", type=int, default=4)
    options = parser.parse_args()
    folder: Path = options.work
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spark = build_session(SparkSettings(master="local[2]", shuffle_partitions=4), folder, "bench-segments")
    duck = duckdb.connect(config={"threads": 2})
    try:
        generate(spark, folder, options.customers, options.lines)
        print(f"{options.customers:,} customers, {options.lines:,} lines; wall seconds, best of {options.repeat}\n")
        _many(spark, duck, folder, options)
        _incremental(spark, duck, folder, options)
        _ad_hoc(spark, duck, folder, options)
    finally:
        spark.stop()


def _many(spark: SparkSession, duck: Any, folder: Path, options: argparse.Namespace) -> None:
    print("segments  one scan  per segment  a query each  DuckDB one scan")
    features = spark.read.parquet(str(folder / "features"))
    parquet = f"read_parquet('{folder / 'features'}/*.parquet')"
    single = 0.0
    for count in options.counts:
        segments, told = definitions(count)
        out = str(folder / f"members_{count}")

        def write(chosen: list[Segment] = segments, out: str = out) -> None:
            found = evaluate_segments(features, chosen, as_of=AS_OF, catalogue=CATALOGUE)
            found.select("customer_key", "segment_ids").write.mode("overwrite").parquet(out)

        def write_duck(told: list[str] = told, out: str = out) -> None:
            cases = ", ".join(f"CASE WHEN {c} THEN 's{n:04}' END" for n, c in enumerate(told))
            picked = f"list_filter([{cases}], lambda x: x IS NOT NULL)"
            duck.execute(f"COPY (SELECT customer_key, {picked} AS segment_ids FROM {parquet}) TO '{out}.duck.parquet'")

        def each(told: list[Segment] = segments, out: str = out) -> None:
            for one in told:
                found = evaluate_segments(features, [one], as_of=AS_OF, catalogue=CATALOGUE)
                found.select("customer_key", "segment_ids").write.mode("overwrite").parquet(f"{out}_each")

        seconds, other = best(write, options.repeat), best(write_duck, options.repeat)
        single = single or seconds
        separately = best(each, 1) if count <= 10 else None
        ours = spark.read.parquet(out).agg(F.sum(F.size("segment_ids"))).collect()[0][0]
        theirs = duck.execute(f"SELECT sum(len(segment_ids)) FROM '{out}.duck.parquet'").fetchone()[0]
        _require(ours == theirs, f"{count} segments: {ours} members here, {theirs} in DuckDB")
        apart = f"{separately:12.2f}" if separately is not None else f"{single * count:11.1f}*"
        print(f"{count:8}  {seconds:8.2f}  {seconds / count:11.4f}  {apart}  {other:15.2f}")
    print("* one segment times as many\n")


def _incremental(spark: SparkSession, duck: Any, folder: Path, options: argparse.Namespace) -> None:
    segments = with_events()
    features = spark.read.parquet(str(folder / "features"))
    lake = Lake(spark, Settings(data_dir=folder))
    tables = {name: lake.empty(name) for name in SOURCES}
    none = {name: frame.withColumn("_deleted", F.lit(False)) for name, frame in tables.items()}
    facts = spark.read.parquet(str(folder / "facts"))
    kept = str(folder / "evaluation")

    def refresh(own: DataFrame, evaluated: DataFrame, changed: DataFrame | None, as_of: date, out: str) -> None:
        moved = none if changed is None else {**none, FACTS: changed.withColumn("_deleted", F.lit(False))}
        with lake.holding() as hold:
            made = evaluate_changed(
                own.withColumn("as_of", F.lit(as_of)),
                {},
                {**tables, FACTS: facts},
                moved,
                evaluated,
                segments=segments,
                as_of=as_of,
                catalogue=CATALOGUE,
                hold=hold,
                is_full=changed is None,
            )
            made.write.mode("overwrite").parquet(out)

    empty = lake.empty(EVALUATION)
    full = best(lambda: refresh(features, empty, None, AS_OF, kept), options.repeat)
    evaluated = spark.read.parquet(kept).drop("_deleted")
    # What arrived is files of its own, as the change feed of a table is.
    moved(features).write.mode("overwrite").parquet(str(folder / "features_changed"))
    facts.where(is_moved()).write.mode("overwrite").parquet(str(folder / "facts_changed"))
    changed_features = spark.read.parquet(str(folder / "features_changed"))
    lines = spark.read.parquet(str(folder / "facts_changed"))
    some = str(folder / "evaluation_changed")
    part = best(lambda: refresh(changed_features, evaluated, lines, AS_OF, some), options.repeat)
    count = spark.read.parquet(some).count()
    nothing = str(folder / "evaluation_next_day")
    tomorrow = AS_OF + timedelta(days=1)
    day = best(lambda: refresh(features, evaluated, lines.limit(0), tomorrow, nothing), options.repeat)
    again = spark.read.parquet(nothing).count()
    conditions = ", ".join(
        f"count_if(amount >= {5 * n} AND business_date >= DATE '{AS_OF - timedelta(days=7 * (n + 1))}') AS e{n}"
        for n in range(10)
    )
    facts_files = f"read_parquet('{folder / 'facts'}/*.parquet')"

    def full_duck() -> None:
        duck.execute(
            f"COPY (SELECT customer_key, {conditions} FROM {facts_files} WHERE is_valid_purchase GROUP BY 1) "
            f"TO '{folder / 'events.duck.parquet'}'"
        )

    other = best(full_duck, options.repeat)
    ours = spark.read.parquet(kept).where(F.array_contains("segment_ids", "e0009")).count()
    theirs = duck.execute(f"SELECT count(*) FROM '{folder / 'events.duck.parquet'}' WHERE e9 >= 1").fetchone()[0]
    _require(ours == theirs, f"e0009: {ours} members here, {theirs} in DuckDB")
    print("refresh of 20 segments, 10 of them on events    s      of full  customers evaluated")
    print(f"everyone                                    {full:8.2f}     100 %  {options.customers:,}")
    print(f"1 % of customers changed                    {part:8.2f}  {part / full:7.0%}  {count:,}")
    print(f"a day passed and nothing else               {day:8.2f}  {day / full:7.0%}  {again:,}")
    print(f"DuckDB, the events of everyone              {other:8.2f}\n")


def _ad_hoc(spark: SparkSession, duck: Any, folder: Path, options: argparse.Namespace) -> None:
    segments, told = definitions(1)
    files = spark.read.parquet(str(folder / "features"))
    cached = files.persist()
    cached.count()

    def count(frame: DataFrame) -> int:
        found = evaluate_segments(frame, segments, as_of=AS_OF, catalogue=CATALOGUE)
        return found.where(F.size("segment_ids") > 0).count()

    parquet = f"read_parquet('{folder / 'features'}/*.parquet')"
    from_cache = best(lambda: count(cached), 3)
    ours = count(cached)
    cached.unpersist()
    from_files = best(lambda: count(files), 3)
    theirs = duck.execute(f"SELECT count(*) FROM {parquet} WHERE {told[0]}").fetchone()[0]
    _require(ours == theirs, f"ad hoc: {ours} here, {theirs} in DuckDB")
    other = best(lambda: duck.execute(f"SELECT count(*) FROM {parquet} WHERE {told[0]}").fetchone(), 3)
    print(f"ad-hoc count: {from_cache:.2f} s from the cache, {from_files:.2f} s from files; DuckDB {other:.2f} s")


def _require(is_right: bool, said: str) -> None:
    if not is_right:
        print(f"answers differ: {said}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
