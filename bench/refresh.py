"""What a whole refresh of segments costs: everyone, then 1 % of customers with new features and new lines.

    python -m bench.refresh --customers 1000000 --lines 20000000 --segments 20

Unlike `bench.segments`, which measures evaluating rules alone, this runs the product's own steps on Delta tables:
evaluation, membership, history, member list, events and sizes. Half of the segments ask about features, half about
events. The second refresh runs in the session of the first, so that only the data differ; what it leaves must be what
a refresh of everyone from the same data leaves.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bench.engines.ours import Recorder
from bench.segments import AS_OF, generate, is_moved, moved, sized_parser, with_events
from lakehouse.declare import table_of
from lakehouse.lake import Lake
from lakehouse.runner import Run, run_steps
from lakehouse.session import SparkSettings, build_session
from lakehouse.settings import load_settings
from lakehouse.steps import plan_steps
from segments.earlier import NOT_KNOWN
from segments.language import Segment

FEATURES, FACTS, MEMBERS = "feature.customer", "gold.fact_transactions", "gold.customer_membership"
_DEFAULTS = {"string": "x", "boolean": True, "timestamp": datetime(2024, 6, 1, tzinfo=UTC), "date": AS_OF}


def filled(frame: DataFrame, table: str) -> DataFrame:
    """The columns of a declared table; what the frame lacks is null where allowed, else the same for every row."""
    have, made = set(frame.columns), []
    for c in table_of(table).columns:
        spec = c.spec
        given = F.lit(None if spec.optional else spec.values[0] if spec.values else _DEFAULTS.get(spec.type, 1))
        value = F.coalesce(F.col(str(c)), given.cast(spec.type)) if str(c) in have else given
        made.append(value.cast(spec.type).alias(str(c)))
    return frame.select(*made)


def refresh(lake: Lake, chosen: tuple[Segment, ...]) -> dict[str, dict[str, float]]:
    """Run every step of segments; CPU and wall seconds and rows by step."""
    record = Recorder()
    run = Run.begin(as_of=AS_OF, segments=chosen, earlier=NOT_KNOWN, asked=(), clusters=None)
    # The list of definitions follows announcements that only a job makes; it is as long as there are segments.
    steps = [s for s in plan_steps(["segments"]) if s.key != "segments_build_customer_segment"]
    run_steps(lake, steps, run, progress=record.step)
    return record.done


def open_lake(spark: SparkSession, folder: Path) -> Lake:
    return Lake(spark, load_settings("local", data_dir=folder, parallel_steps=1))


def main() -> None:
    """Run the comparison and print a row per step."""
    parser = sized_parser(__doc__, ".lakehouse/bench-refresh")
    parser.add_argument("--segments", type=int, default=20)
    options = parser.parse_args()
    folder: Path = options.work
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spark = build_session(SparkSettings(master="local[2]"), folder, "bench-refresh")
    try:
        generate(spark, folder, options.customers, options.lines)
        features, facts = (
            filled(spark.read.parquet(str(folder / n)), t) for n, t in (("features", FEATURES), ("facts", FACTS))
        )
        lake, chosen = open_lake(spark, folder / "lake"), tuple(with_events(options.segments))
        lake.write(FEATURES, features)
        lake.write(FACTS, facts)
        full = refresh(lake, chosen)
        more = facts.where(is_moved()).withColumn("transaction_id", -F.col("transaction_id") - 1)
        lake.write(FEATURES, moved(features))
        lake.write(FACTS, more)
        part = refresh(lake, chosen)
        again = open_lake(spark, folder / "again")
        again.write(FEATURES, moved(features))
        again.write(FACTS, facts.unionByName(more))
        refresh(again, chosen)
        _require_equal(lake, again)
        _print(full, part, options)
    finally:
        spark.stop()


def _require_equal(lake: Lake, again: Lake) -> None:
    one, other = (x.read(MEMBERS).select("customer_key", "segment_ids", "primary_segment_id") for x in (lake, again))
    differing = one.exceptAll(other).count() + other.exceptAll(one).count()
    if differing:
        print(f"{differing:,} members differ from those of a refresh of everyone", file=sys.stderr)
        raise SystemExit(1)


def _print(full: dict[str, dict[str, float]], part: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    print(
        f"{options.customers:,} customers, {options.lines:,} lines, {options.segments} segments; CPU and wall seconds\n"
    )
    print(f"{'step':40} {'everyone':>17} {'1 % changed':>17}")
    none = {"cpu": 0.0, "wall": 0.0}
    for step in full:
        one, other = full[step], part.get(step, none)
        print(f"{step:40} {one['cpu']:8.1f} {one['wall']:8.1f} {other['cpu']:8.1f} {other['wall']:8.1f}")
    sums = [sum(s[what] for s in done.values()) for done in (full, part) for what in ("cpu", "wall")]
    print(f"{'all':40} {sums[0]:8.1f} {sums[1]:8.1f} {sums[2]:8.1f} {sums[3]:8.1f}")
    print(f"\n1 % changed: {sums[2] / sums[0]:.0%} of the CPU and {sums[3] / sums[1]:.0%} of the wall time of everyone")


if __name__ == "__main__":
    main()
