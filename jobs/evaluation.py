"""`segmentation models evaluate`: trains and judges every model on the lakehouse's own past, and prints a table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import functions as F
from rich.console import Console

from jobs.context import Job
from jobs.grids import grid_of
from lakehouse.errors import ModelError
from lakehouse.tables.gold import FactTransactions as T
from models.evaluation import GOALS, Goal, Measured, evaluate_merchant, load_goals, reproduce_cdnow
from models.sampling import read_campaigns, read_purchase_days, read_purchase_lines

MAX_CUSTOMERS = 20_000
"""Customers a merchant's models are judged on, drawn by a hash of their key."""

_SHOWN = {
    "activity": (
        "auc",
        "brier",
        "predicted_to_actual",
        "top_decile_share",
        "top_decile_perfect",
        "spend_correlation",
        "base_rate",
    ),
    "clusters": ("k", "ari", "jaccard_min", "min_share", "spend_r2"),
    "lookalike": ("auc", "auc_sd", "gain", "gain_se", "lift_5", "lift_10", "predicted_to_actual", "categories"),
    "coupons": ("auc", "lift_5", "lift_10", "positives", "candidates"),
}


def evaluate(jobs: Sequence[Job], console: Console, cut_offs: Sequence[date] = (), cdnow: Path | None = None) -> bool:
    """Judge the models of every merchant of some lakehouses; returns whether every goal of theirs was reached.

    What could not be measured was not reached; goals of merchants who are in none of them are noted.

    Args:
        jobs: One per lakehouse.
        console: Where to print.
        cut_offs: Days to judge at; by default the newest three that leave the whole horizon.
        cdnow: The CDNOW sample file, to reproduce the published estimates on.

    Raises:
        SettingsError: `conf/evaluation.yml` is wrong, or names a goal that is none.
    """
    # Before anything is trained, so that a misspelt goal costs no minutes.
    goals_of = [(job, load_goals(job.settings.conf_dir)) for job in jobs]
    is_good = _cdnow(cdnow, console) if cdnow else True
    wanted: set[str] = set()
    met: set[str] = set()
    for job, goals in goals_of:
        wanted |= goals.keys()
        as_of = job.as_of()
        known = job.lake.read("gold.fact_transactions").where(F.col(T.customer_key).isNotNull())
        newest = known.groupBy(T.merchant_id).agg(F.max(T.business_date)).orderBy(T.merchant_id)
        for merchant_id, newest_day in newest.collect():
            # Of days after a retailer's newest sale nobody knows what customers did.
            last = min(as_of, newest_day + timedelta(days=1))
            met.add(merchant_id)
            console.print(f"\n[bold]{merchant_id}[/] before {last}", highlight=False)
            days = read_purchase_days(job.lake, merchant_id, last, MAX_CUSTOMERS)
            lines = read_purchase_lines(job.lake, merchant_id, last, MAX_CUSTOMERS)
            told = lambda text: console.print(f"  [dim]{text}[/]", highlight=False)  # noqa: E731
            try:
                campaigns = read_campaigns(job.lake, merchant_id, last, lines["customer_key"].to_numpy(np.int64))
                horizon, found = evaluate_merchant(days, lines, last, told, cut_offs, campaigns)
            except ModelError as e:
                console.print(f"  {e}", highlight=False, markup=False)
                found = []
            else:
                _print(found, horizon, console)
            is_good &= _goals(found, goals.get(merchant_id, {}), console)
    for merchant_id in sorted(wanted - met):
        console.print(f"\n{merchant_id} has goals and no customers here", highlight=False, markup=False)
    return is_good


def _print(found: Sequence[Measured], horizon: int, console: Console) -> None:
    frame = pd.DataFrame([vars(m) for m in found])
    titles = {
        "activity": f"Activity and value, {horizon} days ahead",
        "clusters": "Clusters, spend of the 90 days after",
        "lookalike": "Lookalike, categories first bought in the 90 days after",
        "coupons": "Lookalike, first coupon redeemed, among the addressed and among all",
    }
    for task, title in titles.items():
        of_task = frame[frame["task"] == task]
        if of_task.empty:
            continue
        cut_offs = sorted(of_task["cut_off"].unique())
        named = f"{title}: mean and spread over {', '.join(str(c) for c in cut_offs)}"
        grid = grid_of("way", title=named, title_justify="left")
        for metric in _SHOWN[task]:
            grid.add_column(metric.replace("_", " "), justify="right")
        for way in dict.fromkeys(of_task["way"]):
            cells = []
            for metric in _SHOWN[task]:
                values = of_task[(of_task["way"] == way) & (of_task["metric"] == metric)]["value"].dropna()
                cells.append(_cell(values, metric))
            grid.add_row(way, *cells)
        console.print(grid)


def _cell(values: pd.Series, metric: str) -> str:
    if values.empty:
        return ""
    if metric in ("k", "categories", "positives", "candidates"):
        return "/".join(f"{v:.0f}" for v in values)
    spread = f" ±{values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}" if metric in ("gain", "gain_se") else f"{values.mean():.3f}{spread}"


def _goals(found: Sequence[Measured], goals: dict[str, Goal], console: Console) -> bool:
    is_good = True
    for name, goal in goals.items():
        values = [m.value for m in found if (m.task, m.way, m.metric) == GOALS[name]]
        mean = float(np.mean(values)) if values else float("nan")
        reached = goal.is_reached(mean)
        best = f"{min(values):.3f} to {max(values):.3f}" if values else "not measured"
        mark = "[green]reached[/]" if reached else "[red]missed[/]"
        console.print(f"  {mark} {name} {mean:.3f} ({best}), {goal}", highlight=False)
        is_good &= reached
    return is_good


def _cdnow(path: Path, console: Console) -> bool:
    console.print("[bold]CDNOW[/], published estimates", highlight=False)
    is_good = True
    for name, (fitted, published) in reproduce_cdnow(path).items():
        off = abs(fitted / published - 1)
        is_good &= off <= 0.005
        mark = "[green]reached[/]" if off <= 0.005 else "[red]missed[/]"
        console.print(f"  {mark} {name} {fitted:.4f}, published {published}, off by {off:.2%}", highlight=False)
    return is_good
