"""How fast models score, and what fitting BG/NBD on a million customers takes: `python -m bench.models`.

One core and numpy arrays: what one Spark task does between receiving a batch and giving it back.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from models.audience import fit_audience
from models.bgnbd import fit_bgnbd
from models.clustering import place_of
from models.histories import Histories
from models.lifecycle import fit_lifecycle
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
    print(f"{name:<34} {rows:>10,} rows {took:>8.2f} s {rows / took:>12,.0f} rows/s   peak {peak:.1f} GB", flush=True)
    return result


def main() -> None:
    """Prints one line per piece of work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000)
    n = parser.parse_args().customers
    with threadpool_limits(limits=1):
        everyone = timed("make customers", n, lambda: customers(n))
        known = everyone.before(DAY)  # type: ignore[attr-defined]
        x, t_x, age = known.triples(DAY)
        timed("BG/NBD, every customer a row", len(known), lambda: fit_bgnbd(x, t_x, age))
        week = pd.DataFrame({"x": x, "t_x": t_x // 7, "age": age // 7})
        triples = week.value_counts().reset_index()
        timed(
            f"BG/NBD, {len(triples):,} weekly triples",
            len(known),
            lambda: fit_bgnbd(triples["x"], triples["t_x"], triples["age"], triples["count"]),
        )
        sample = customers(TRAINED_ON, seed=2)
        model = timed("life-cycle model, fit", len(sample), lambda: fit_lifecycle(sample, DAY))
        timed("life-cycle model, score", len(known), lambda: _in_batches(model, known))
        values = values_at(known, DAY)
        clusters = select_clusters(values[:TRAINED_ON], merchant_id="bench", as_of=date(2020, 1, 1), candidates=(4,))
        if clusters.model is None:
            print(clusters.reason)
        else:
            timed("clusters, score", len(values), lambda: place_of(values, clusters.model))
        learning = purchases(TRAINED_ON, seed=3)
        seed_keys = np.arange(0, TRAINED_ON, 5)
        audience, _ = timed("audience, fit", TRAINED_ON, lambda: fit_audience(learning, DAY, seed_keys))  # type: ignore[misc]
        # The same ten thousand customers again and again: making a million baskets of twenty would take longest.
        batch = purchases(10_000, seed=4)
        rounds = max(1, n // 10_000)
        timed("audience, score", rounds * 10_000, lambda: [audience.score(batch) for _ in range(rounds)])


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
