"""The bench's work in this product: files land in bronze, then the declared producers run, through Lake and runner.

`--keep` goes on in the lakehouse of the run before, for what was delivered since: the incremental run. `--again`
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from bench.measure import tree_cpu
from bench.rules import CONF
from lakehouse.declare import table_of
from lakehouse.lake import Lake
from lakehouse.runner import Run, StepResult, run_steps
from lakehouse.session import SparkSettings, build_session
from lakehouse.settings import Settings, find_conf, load_settings
from lakehouse.steps import Step, dependencies, plan_steps

LAST = ("gold.fact_transactions", "feature.customer", "gold.customer_membership")
"""What the other engines also end with; everything these tables need is run, nothing else."""

NOT_NEEDED = ("feature.customer_cluster", "feature.customer_outlook", "feature.customer_audience")
"""Read by membership but named by no rule of the bench."""


class Recorder:
    """CPU and wall seconds per step; steps run one at a time, so that seconds can be told apart."""

    def __init__(self) -> None:
        self.done: dict[str, dict[str, float]] = {}
        self._cpu, self._wall = tree_cpu(), time.monotonic()

    def lap(self, name: str, rows: int = 0) -> None:
        cpu, wall = tree_cpu(), time.monotonic()
        self.done[name] = {"cpu": round(cpu - self._cpu, 2), "wall": round(wall - self._wall, 2), "rows": rows}
        self._cpu, self._wall = cpu, wall

    def step(self, step: Step, result: StepResult | None) -> None:
        if result is not None and result.status != "up to date":
            self.lap(step.key, result.rows)


def needed_steps(last: Iterable[str] = LAST) -> list[Step]:
    """Steps that make the given tables, and all before them."""
    steps = plan_steps()
    made_by = {o.name: s.producer for s in steps for o in s.outputs}
    by_producer = {s.producer: s for s in steps}
    unneeded = {made_by[t] for t in NOT_NEEDED if t in made_by}
    wanted: set[str] = set()
    todo = [made_by[table_of(t).name] for t in last]
    while todo:
        producer = todo.pop()
        if producer not in wanted and producer not in unneeded:
            wanted.add(producer)
            todo += dependencies(by_producer[producer], made_by)
    return [s for s in steps if s.producer in wanted]


def prepare_conf(to: Path) -> Path:
    """The product's configuration with only the bench's source and segments."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(find_conf(), to)
    for part in ("sources", "segments"):
        shutil.rmtree(to / part, ignore_errors=True)
        shutil.copytree(CONF / part, to / part)
    return to


def open_lake(data_dir: Path, conf: Path, lines: Path, memory: str, threads: int) -> Lake:
    spark = SparkSettings(master=f"local[{threads}]", driver_memory=memory, conf=_more_conf())
    settings = bench_settings(data_dir, conf, lines, spark)
    return Lake(build_session(settings.spark, data_dir, "bench"), settings)


def bench_settings(data_dir: Path, conf: Path, lines: Path, spark: SparkSettings) -> Settings:
    return load_settings(
        "local",
        conf_dir=conf,
        data_dir=data_dir,
        base_currency="EUR",
        sources=("bench",),
        variables={"bench_lines": str(lines)},
        parallel_steps=1,
        spark=spark,
    )


def _more_conf() -> dict[str, str]:
    """Further Spark settings from the environment, as JSON, to try things out."""
    return json.loads(os.environ.get("BENCH_SPARK_CONF", "{}"))  # type: ignore[no-any-return]


def flow(lake: Lake, as_of: date, record: Recorder, only: Iterable[str] | None = None) -> None:
    """Land what is new and bring every needed table up to date."""
    from pipelines.bronze.ingest import land_source
    from pipelines.bronze.load_sources import load_sources

    sources = load_sources(lake.settings.conf_dir, lake.settings.variables)
    run = Run.begin(as_of=as_of, sources=sources, **configuration(lake.settings.conf_dir))
    landed = land_source(lake, sources.source("bench"), run=run)
    refused = [r for f in landed for r in f.refused_files]
    if refused:
        raise RuntimeError(f"files were refused: {refused}")
    record.lap("bronze", sum(f.rows_accepted for f in landed))
    steps = [s for s in needed_steps() if only is None or s.layer in set(only)]
    run_steps(lake, steps, run, progress=record.step)
    record.lap("records of the run")


def configuration(conf: Path) -> dict[str, Any]:
    """Objects that producers ask for by name, of those parts of the product that are there."""
    from features.rules import load_feature_rules
    from segments.earlier import NOT_KNOWN
    from segments.load import load_segments

    found: dict[str, Any] = {
        "feature_rules": load_feature_rules(conf),
        "segments": load_segments(conf / "segments"),
        "clusters": None,
        "earlier": NOT_KNOWN,
        "asked": (),
    }
    try:
        from pipelines.gold.finance_conf import load_finance
    except ImportError:
        return found
    return found | {"finance": load_finance(conf)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--as-of", type=date.fromisoformat, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-gb", type=float, default=3.0)
    parser.add_argument("--keep", action="store_true", help="go on in the lakehouse that is there")
    parser.add_argument("--again", action="store_true", help="do it all once more in the warm session")
    parser.add_argument("--layers", help="comma-separated layers to stop after, for development")
    args = parser.parse_args()
    if not args.keep:
        shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True, exist_ok=True)
    record = Recorder()
    conf = prepare_conf(args.out / "conf")
    memory = f"{round(args.memory_gb * 1024)}m"
    lake = open_lake(args.out / "lake", conf, args.data, memory, args.threads)
    record.lap("session")
    only = args.layers.split(",") if args.layers else None
    try:
        flow(lake, args.as_of, record, only)
    finally:
        (args.out / "steps.json").write_text(json.dumps(record.done, indent=1), encoding="utf-8")
    if args.again:
        record = Recorder()
        again = open_lake(args.out / "lake_again", conf, args.data, memory, args.threads)
        flow(again, args.as_of, record, only)
        (args.out / "steps_warm.json").write_text(json.dumps(record.done, indent=1), encoding="utf-8")
    lake.spark.stop()


if __name__ == "__main__":
    main()
