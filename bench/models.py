"""How fast models score, and what fitting BG/NBD on a million customers takes: `python -m bench.models`.

One core and numpy arrays: what one Spark task does between receiving a batch and giving it back. With `--spark`, what
Spark does instead: purchase days collapsed to cells that BG/NBD is fitted on, customers placed in clusters.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from models.audience import fit_audience
from models.bgnbd import fit_bgnbd
from models.clustering import ClusterModel, place_of
from models.groupings import GROUPINGS
from models.histories import Histories
from models.lifecycle import fit_lifecycle
from models.population import fit_cells
from models.segmentation_test import values_at
from models.selection import select_clusters

DAY = 730
TRAINED_ON = 20_000


def customers(n: int, seed: int = 1) -> Histories:
    """Histories of n customers over two years: a rate and a spend of their own, half of them gone one day."""
    random = np.random.default_rng(seed)
    rate = random.gamma(0.8, 1 / 40, n) + 1 / 400
    begins = random.uniform(0, DAY - 60, n)
    ends = np.minimum(begins + random.exponential(500, n), DAY + 90)
    visits = random.poisson(rate * (ends - begins)) + 1
    owner = np.repeat(np.arange(n), visits)
    when = begins[owner] + random.random(len(owner)) * (ends - begins)[owner]
    when[np.concatenate(([0], np.cumsum(visits)[:-1]))] = begins
    days = pd.DataFrame({"customer_key": owner, "day": when.astype(np.int64)}).drop_duplicates()
    spend = random.gamma(4, 10, n)[days["customer_key"]] * random.gamma(5, 0.2, len(days))
    return Histories.of(days.assign(baskets=1.0, spend=spend.round(2)))


def purchases(n: int, seed: int) -> pd.DataFrame:
    """Twenty lines of 300 items in 60 categories for each of n customers, of two tastes, in the last 300 days."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), 20)
    item = (random.integers(0, 200, len(owner)) + 100 * (owner % 2)) % 300
    named = pd.Categorical.from_codes(item, [f"item {i:03}" for i in range(300)])
    group = pd.Categorical.from_codes(item % 60, [f"category {c:02}" for c in range(60)])
    day = DAY - 1 - random.integers(0, 300, len(owner))
    return pd.DataFrame({"customer_key": owner, "item": named, "category": group, "day": day})


def timed(name: str, rows: int, work: Callable[[], object]) -> object:
    """Runs the work and prints rows per second."""
    began = time.perf_counter()
    result = work()
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:<46} {rows:>10,} rows {took:>8.2f} s {rows / took:>12,.0f} rows/s   peak {peak:.1f} GB", flush=True)
    return result


def main() -> None:
    """Prints one line per piece of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--spark", action="store_true", help="measure what Spark does, in a local session")
    given = parser.parse_args()
    n = given.customers
    with threadpool_limits(limits=1):
        everyone = timed("make customers", n, lambda: customers(n))
        known = everyone.before(DAY)  # type: ignore[attr-defined]
        values = values_at(known, DAY)
        placed = [m for way in GROUPINGS if (m := _clusters(values[:TRAINED_ON], way)) is not None]
        if given.spark:
            with tempfile.TemporaryDirectory() as folder:
                _in_spark(everyone, values, placed, Path(folder))  # type: ignore[arg-type]
            return
        x, t_x, age = known.triples(DAY)
        buying = timed("BG/NBD, fit, every customer a row", len(known), lambda: fit_bgnbd(x, t_x, age))
        timed("BG/NBD, score", len(known), lambda: _outlook_of(buying, x, t_x, age))
        sample = customers(TRAINED_ON, seed=2)
        model = timed("life-cycle model, fit", len(sample), lambda: fit_lifecycle(sample, DAY))
        timed("life-cycle model, score", len(known), lambda: _in_batches(model, known))
        for clusters in placed:
            timed(f"clusters, {clusters.way}, score", len(values), lambda c=clusters: place_of(values, c))
        learning = purchases(TRAINED_ON, seed=3)
        seed_keys = np.arange(0, TRAINED_ON, 5)
        audience, _ = timed("audience, fit", TRAINED_ON, lambda: fit_audience(learning, DAY, seed_keys))  # type: ignore[misc]
        # The same ten thousand customers again and again: making a million baskets of twenty would take longest.
        batch = purchases(10_000, seed=4)
        rounds = max(1, n // 10_000)
        timed("audience, score", rounds * 10_000, lambda: [audience.score(batch) for _ in range(rounds)])


def _in_spark(everyone: Histories, values: np.ndarray, placed: list[ClusterModel], folder: Path) -> None:
    from pyspark.sql import functions as F

    from lakehouse.session import SparkSettings, build_session
    from models.cells import collapse_customers
    from models.clustering import FEATURES, score_clusters

    days = {"customer_key": everyone.keys[everyone.owner], "day": everyone.days, "baskets": everyone.baskets,
            "spend": everyone.spend}  # fmt: skip
    pd.DataFrame(days).to_parquet(folder / "days.parquet")
    pd.DataFrame(values, columns=list(FEATURES)).to_parquet(folder / "values.parquet")
    spark = build_session(SparkSettings(master="local[2]", driver_memory="3g", shuffle_partitions=4), folder, "bench")
    read = spark.read.parquet(str(folder / "days.parquet"))
    at = [DAY, DAY - 30, DAY - 60, DAY - 90, DAY - 120]
    cells = timed("Spark: collapse at five days", len(everyone), lambda: collapse_customers(read, at).toPandas())
    one = cells[cells["day"] == DAY]  # type: ignore[index]
    of_day = f"{int((one['kind'] == 'buying').sum()):,} and {int((one['kind'] == 'spending').sum()):,} cells"
    fitted = timed(f"BG/NBD, Gamma-Gamma, fit, {of_day}", len(everyone), lambda: fit_cells(one))
    print(fitted[DAY])  # type: ignore[index]
    customers_of = spark.read.parquet(str(folder / "values.parquet")).select(
        F.lit("bench").alias("merchant_id"),
        F.monotonically_increasing_id().alias("customer_key"),
        F.lit("").alias("customer_id"),
        F.lit(date(2020, 1, 1)).alias("as_of"),
        *FEATURES,
    )
    for model in placed:
        scored = score_clusters(customers_of, as_of=date(2020, 1, 1), clusters={"bench": model})
        counted = scored.agg(F.sum("cluster_id"), F.sum("cluster_distance"))
        timed(f"Spark: clusters, {model.way}", len(values), counted.collect)
    spark.stop()


def _clusters(values: np.ndarray, way: str) -> ClusterModel | None:
    found = select_clusters(values, merchant_id="bench", as_of=date(2020, 1, 1), candidates=(3, 4), ways=(way,))
    if found.model is None:
        print(f"{way}: {found.reason}")
    return found.model


def _outlook_of(buying: object, x: np.ndarray, t_x: np.ndarray, age: np.ndarray) -> float:
    active = buying.probability_active(30, x, t_x, age)  # type: ignore[attr-defined]
    return float(active.sum() + buying.expected_purchases(30, x, t_x, age).sum())  # type: ignore[attr-defined]


def _in_batches(model: object, known: Histories, size: int = 10_000) -> int:
    """As Spark hands them over: ten thousand customers at a time."""
    scored = 0
    for at in range(0, len(known), size):
        starts = known.starts[at : at + size + 1]
        days = slice(starts[0], starts[-1])
        batch = Histories(
            known.keys[at : at + size], starts - starts[0], known.days[days], known.baskets[days], known.spend[days]
        )
        scored += len(model.score(batch, DAY))  # type: ignore[attr-defined]
    return scored


if __name__ == "__main__":
    main()
