"""Every model against what really followed several past days, beside the obvious baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from lakehouse.errors import ModelError, suggest
from lakehouse.strict import Strict, read_model, refused
from lakehouse.yaml_file import yaml_named
from models.adoption import CATEGORIES, judge_adoption
from models.bgnbd import fit_bgnbd
from models.gammagamma import fit_gammagamma
from models.histories import EPOCH, Histories, day_number
from models.judging import Judgement, judge, rfm_sum
from models.lifecycle import choose_horizon, fit_lifecycle
from models.redemption import judge_redemption
from models.sampling import Campaigns
from models.segmentation_test import HORIZON, judge_groupings

Told = Callable[[str], None]

GOALS = {
    "activity_auc": ("activity", "life-cycle model", "auc"),
    "activity_brier": ("activity", "life-cycle model", "brier"),
    "top_decile_share": ("activity", "life-cycle model", "top_decile_share"),
    "cluster_ari": ("clusters", "k-means, log", "ari"),
    "cluster_spend_r2": ("clusters", "k-means, log", "spend_r2"),
    "adoption_auc": ("lookalike", "pooled", "auc"),
}
"""Task, way and metric that each goal of `conf/evaluation.yml` is about."""


class Goal(Strict):
    """What a number should be: at least, at most, or between the two."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _can_be_missed(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a goal says at_least, at_most or both")
        return self

    def __str__(self) -> str:
        bounds = {"at least": self.at_least, "at most": self.at_most}
        return " and ".join(f"{how} {bound}" for how, bound in bounds.items() if bound is not None)

    def is_reached(self, value: float) -> bool:
        """Whether a number is within the bounds; one that was not measured (NaN) is not."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class _Goals(Strict):
    goals: dict[str, dict[str, Goal]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """One number of one day.

    Attributes:
        task: activity, clusters, lookalike or coupons.
        way: Model or baseline.
        metric: What is measured.
        cut_off: Day it was measured at.
        value: The number.
    """

    task: str
    way: str
    metric: str
    cut_off: date
    value: float


def load_goals(conf_dir: Path) -> dict[str, dict[str, Goal]]:
    """Returns the goals of each merchant by their names in `GOALS`, from `evaluation.yml`.

    Raises:
        SettingsError: listing every problem of the file.
    """
    path = yaml_named(conf_dir, "evaluation")
    if not path.is_file():
        return {}
    found = read_model(path, _Goals).goals
    there_are = f" Goals are {', '.join(GOALS)}."
    problems = [
        f"goals.{merchant_id}: '{name}' is no goal.{suggest(name, GOALS) or there_are}"
        for merchant_id, goals in found.items()
        for name in goals
        if name not in GOALS
    ]
    if problems:
        raise refused(path, problems)
    return found


def cut_offs_before(last: date, horizon: int, first: date, wanted: int = 3) -> list[date]:
    """Returns days 30 apart whose whole horizon lies before `last`, newest first, with 180 days or more of history."""
    days = [last.toordinal() - horizon - 30 * i for i in range(wanted)]
    return [date.fromordinal(d) for d in days if d - first.toordinal() >= 180]


def judge_activity(days: pd.DataFrame, cut_offs: Sequence[date], horizon: int, told: Told) -> list[Measured]:
    """The life-cycle model and its baselines at several days; all learn from what lies before each only."""
    histories = Histories.of(days)
    found: list[Measured] = []
    for cut_off in cut_offs:
        day = day_number(cut_off)
        known = histories.before(day)
        model = fit_lifecycle(histories, day, horizon=horizon)
        scores = model.score(histories, day)
        bought, spent = histories.outcome(known.keys, day, horizon)
        did = bought > 0
        x, t_x, age = known.triples(day)
        by_buying = model.buying.probability_active(horizon, x, t_x, age)
        plain = rfm_sum(known, day)
        value = model.buying.expected_purchases(horizon, x, t_x, age)
        if model.spending is not None:
            value = value * scores["basket_value"].to_numpy()
        judged = {
            "life-cycle model": judge(
                did, spent, scores["probability_active"].to_numpy(), scores["expected_spend"].to_numpy()
            ),
            "BG/NBD + Gamma-Gamma": judge(did, spent, by_buying, value),
            "R + F + M sum": judge(did, spent, plain, is_probability=False),
            "recency": judge(did, spent, t_x - age, is_probability=False),
        }
        for way, j in judged.items():
            found += [Measured("activity", way, m, cut_off, v) for m, v in _numbers(j).items()]
        told(f"activity {cut_off}: AUC {judged['life-cycle model'].auc:.3f}, {len(known):,} customers")
    return found


def judge_clusters(days: pd.DataFrame, cut_offs: Sequence[date], told: Told) -> list[Measured]:
    """The groupings the protocol takes, and the plain R + F + M sum, at several days."""
    histories = Histories.of(days)
    found: list[Measured] = []
    for cut_off in cut_offs:
        judged = judge_groupings(histories, day_number(cut_off))
        for row in judged[judged["is_chosen"] | (judged["way"] == "R + F + M sum")].itertuples():
            numbers = {"k": row.k, "ari": row.ari, "jaccard_min": row.jaccard_min, "min_share": row.min_share,
                       "spend_r2": row.spend_r2}  # fmt: skip
            found += [Measured("clusters", row.way, m, cut_off, float(v)) for m, v in numbers.items()]
        chosen = judged[judged["is_chosen"]]
        told(f"clusters {cut_off}: " + ", ".join(f"{r.way} k {r.k}" for r in chosen.itertuples()))
    return found


def judge_lookalikes(
    lines: pd.DataFrame, cut_offs: Sequence[date], told: Told, categories: int = CATEGORIES
) -> list[Measured]:
    """Category adoption at several days: mean over categories, and the paired gain over one regression per seed."""
    found: list[Measured] = []
    for cut_off in cut_offs:
        try:
            judged = judge_adoption(lines, day_number(cut_off), categories)
        except ModelError as e:
            told(f"lookalike {cut_off}: {e}")
            continue
        wide = judged.pivot(index="category", columns="way", values="auc")
        for way, of_way in judged.groupby("way"):
            gain = wide[way] - wide["seed_regression"]
            numbers = {
                "auc": of_way["auc"].mean(),
                "auc_sd": of_way["auc"].std(),
                "gain": gain.mean(),
                "gain_se": gain.std() / np.sqrt(len(gain)),
                "lift_5": of_way["lift_5"].mean(),
                "lift_10": of_way["lift_10"].mean(),
                "predicted_to_actual": of_way["predicted_to_actual"].mean(),
                "categories": len(of_way),
            }
            found += [Measured("lookalike", str(way), m, cut_off, float(v)) for m, v in numbers.items()]
        told(f"lookalike {cut_off}: AUC {wide['pooled'].mean():.3f} over {len(wide)} categories")
    return found


def judge_coupons(lines: pd.DataFrame, campaigns: Campaigns, last: date, told: Told) -> list[Measured]:
    """Redemption at the start of every large enough campaign, among the addressed and among all."""
    judged = judge_redemption(lines, campaigns.campaigns, campaigns.contacts, campaigns.redemptions, day_number(last))
    if judged.empty:
        told("coupons: no campaign has enough households who redeemed for the first time")
        return []
    told(f"coupons: campaigns {', '.join(judged['campaign_id'].astype(str).unique())}")
    return [
        Measured(
            "coupons",
            f"{row['way']}, {row['audience']}",
            metric,
            date.fromordinal(int(row["day"]) + EPOCH),
            float(row[metric]),
        )
        for row in judged.sort_values(["audience", "way", "day"]).to_dict("records")
        for metric in ("auc", "lift_5", "lift_10", "positives", "candidates")
    ]


def reproduce_cdnow(path: Path) -> dict[str, tuple[float, float]]:
    """Returns per parameter what is fitted on the CDNOW sample and what was published.

    Args:
        path: The 1/10 sample: master id, customer, day (YYYYMMDD), units, spend, separated by blanks.

    Source: Fader, Hardie and Lee (2005) for BG/NBD; Fader and Hardie (2013) for Gamma-Gamma.
    """
    sales = pd.read_csv(path, sep=r"\s+", header=None, names=["master_id", "customer", "day", "units", "spend"])
    sales["day"] = pd.to_datetime(sales["day"], format="%Y%m%d")
    end = pd.Timestamp("1997-09-30")
    days = sales[sales["day"] <= end].groupby(["customer", "day"], as_index=False)["spend"].sum()
    by = days.groupby("customer")["day"].agg(["min", "max", "size"])
    bg = fit_bgnbd(by["size"] - 1, (by["max"] - by["min"]).dt.days / 7, (end - by["min"]).dt.days / 7)
    repeats = days[days["day"] > days.groupby("customer")["day"].transform("min")]
    spent = repeats.groupby("customer")["spend"].agg(["size", "mean"])
    gg = fit_gammagamma(spent["size"], spent["mean"])
    return {
        "r": (bg.r, 0.243),
        "alpha": (bg.alpha, 4.414),
        "a": (bg.a, 0.793),
        "b": (bg.b, 2.426),
        "log likelihood": (bg.log_likelihood, -9582.4),
        "p": (gg.p, 6.25),
        "q": (gg.q, 3.74),
        "gamma": (gg.gamma, 15.44),
    }


def evaluate_merchant(
    days: pd.DataFrame,
    lines: pd.DataFrame,
    last: date,
    told: Told,
    given: Sequence[date] = (),
    campaigns: Campaigns | None = None,
) -> tuple[int, list[Measured]]:
    """Everything for one merchant; returns the horizon of activity in days, and the numbers.

    Args:
        days: customer_key, day, baskets, spend.
        lines: customer_key, item, category, day; empty where no categories are known.
        last: Day after the newest sale.
        told: Called with progress.
        given: Cut-off days; by default the newest three that leave the whole horizon, 30 days apart.
        campaigns: The merchant's campaigns, where it delivers any.

    Raises:
        ModelError: when there is too little history for any cut-off.
    """
    histories = Histories.of(days)
    first = date.fromordinal(int(histories.days.min()) + EPOCH)
    horizon = choose_horizon(histories, day_number(last))
    chosen = list(given) or cut_offs_before(last, horizon, first)
    if not chosen:
        raise ModelError(f"{(last - first).days} days of history leave no cut-off with {horizon} days to look ahead.")
    late = [d for d in chosen if (last - d).days < horizon]
    if late:
        raise ModelError(f"Cut-off {late[0]} leaves fewer than the {horizon} days that are predicted.")
    found = judge_activity(days, chosen, horizon, told)
    longer = [d for d in chosen if (last - d).days >= HORIZON]
    if not given and len(longer) < 2:
        longer = cut_offs_before(last, HORIZON, first, 2)
    found += judge_clusters(days, longer, told)
    if len(lines):
        found += judge_lookalikes(lines, longer, told)
        if campaigns is not None and len(campaigns.redemptions):
            found += judge_coupons(lines, campaigns, last, told)
    else:
        told("lookalike: this merchant delivers no categories, so there is nothing to come to")
    return horizon, found


def _numbers(j: Judgement) -> dict[str, float]:
    found = {
        "auc": j.auc,
        "brier": j.brier,
        "predicted_to_actual": j.predicted_to_actual,
        "top_decile_share": j.top_decile_share,
        "top_decile_perfect": j.top_decile_perfect,
        "spend_correlation": j.spend_correlation,
        "base_rate": j.base_rate,
    }
    return {k: float("nan") if v is None else float(v) for k, v in found.items()}
