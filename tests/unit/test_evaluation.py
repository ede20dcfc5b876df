"""The evaluation of models as a whole, on made-up customers; without Spark."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from jobs import evaluation
from lakehouse.errors import ModelError, SettingsError
from models.evaluation import Goal, Measured, cut_offs_before, evaluate_merchant, load_goals
from models.histories import EPOCH
from models.redemption import judge_redemption
from tests.unit.test_lifecycle_model import shop
from tests.unit.test_lookalike import tastes

LAST = date.fromordinal(EPOCH + 520)


def test_cut_offs_leave_their_horizon_and_enough_history() -> None:
    assert cut_offs_before(LAST, 90, LAST - timedelta(days=320)) == [
        LAST - timedelta(days=90),
        LAST - timedelta(days=120),
    ]
    assert cut_offs_before(LAST, 90, LAST - timedelta(days=200)) == []


def test_models_stand_beside_their_baselines_at_every_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("models.stability.BOOTSTRAPS", 2)  # how steady clusters are is asked elsewhere

    horizon, found = evaluate_merchant(shop(), pd.DataFrame(), LAST, told.append)

    auc = pd.DataFrame([vars(m) for m in found if (m.task, m.metric) == ("activity", "auc")])
    mean = auc.groupby("way")["value"].mean()
    assert auc["cut_off"].nunique() == 3
    assert auc["cut_off"].max() == LAST - timedelta(days=horizon)
    assert mean["life-cycle model"] > mean["recency"]
    assert {"R + F + M sum", "BG/NBD + Gamma-Gamma"} <= set(mean.index)
    assert len({m.cut_off for m in found if m.task == "clusters"}) >= 2
    assert any("no categories" in t for t in told)


@pytest.mark.parametrize(
    ("sales", "given", "said"),
    [
        (shop(days=150), [], "leave no cut-off"),
        (shop(), [LAST - timedelta(days=5)], "fewer than the"),
    ],
)
def test_too_little_to_judge_by_is_said(sales: pd.DataFrame, given: list[date], said: str) -> None:
    last = date.fromordinal(EPOCH + int(sales["day"].max()) + 1)

    with pytest.raises(ModelError, match=said):
        evaluate_merchant(sales, pd.DataFrame(), last, lambda _: None, given)


def test_redeemers_are_found_among_the_addressed_and_among_all() -> None:
    lines = tastes(n=900, days=420)
    random = np.random.default_rng(2)
    even = [k for k in range(0, 900, 2) if random.random() < 0.7]
    odd = [k for k in range(1, 900, 2) if random.random() < 0.05]
    who = np.array(even + odd)
    early = random.random(len(who)) < 0.5
    redemptions = pd.DataFrame(
        {"campaign_id": np.where(early, "old", "new"), "customer_key": who, "day": np.where(early, 250, 305)}
    )
    campaigns = pd.DataFrame({"campaign_id": ["new", "old"], "starts": [300, 240], "ends": [330, 260]})
    contacts = pd.DataFrame({"campaign_id": "new", "customer_key": range(600)})

    judged = judge_redemption(lines, campaigns, contacts, redemptions, 420)

    assert set(judged["campaign_id"]) == {"new"}  # nobody had redeemed before the old one
    assert set(judged["audience"]) == {"addressed", "all"}
    of_all = judged[judged["audience"] == "all"].set_index("way")
    assert of_all.loc["seed_regression", "auc"] > 0.7 > of_all.loc["activity", "auc"]
    addressed = judged[judged["audience"] == "addressed"]
    assert (addressed["candidates"] < of_all["candidates"].iloc[0]).all()
    assert judge_redemption(lines, campaigns, contacts, redemptions, 340)["audience"].unique().tolist() == ["addressed"]
    assert judge_redemption(lines, campaigns, contacts, redemptions.head(5), 420).empty


def test_goals_of_a_merchant_that_cannot_be_measured_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evaluation.yml").write_text(
        "goals: {shop: {activity_auc: {at_least: 0.8}}, elsewhere: {activity_auc: {at_least: 0.8}}}", encoding="utf-8"
    )

    def too_few(*_: object) -> None:
        raise ModelError("too few customers")

    monkeypatch.setattr(evaluation, "F", MagicMock())
    monkeypatch.setattr(evaluation, "read_purchase_days", MagicMock())
    monkeypatch.setattr(evaluation, "read_purchase_lines", MagicMock())
    monkeypatch.setattr(evaluation, "read_campaigns", MagicMock())
    monkeypatch.setattr(evaluation, "evaluate_merchant", too_few)
    job = MagicMock()
    job.settings.conf_dir = tmp_path
    job.as_of.return_value = LAST
    merchants = job.lake.read().where().groupBy().agg().orderBy().collect
    console = Console(record=True)

    merchants.return_value = [("shop", LAST)]
    assert not evaluation.evaluate([job], console)
    said = console.export_text()
    assert "missed activity_auc nan (not measured)" in said
    assert "elsewhere has goals and no customers here" in said
    merchants.return_value = [("another", LAST)]
    assert evaluation.evaluate([job], console)


def test_each_retailer_is_judged_up_to_the_day_after_its_newest_sale_and_no_later_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, date] = {}

    def judge(days: str, lines: object, last: date, *_: object) -> tuple[int, list[Any]]:
        asked[days] = last
        return 90, []

    monkeypatch.setattr(evaluation, "F", MagicMock())
    monkeypatch.setattr(evaluation, "read_purchase_days", lambda _, merchant_id, *__: merchant_id)
    monkeypatch.setattr(evaluation, "read_purchase_lines", MagicMock())
    monkeypatch.setattr(evaluation, "read_campaigns", MagicMock())
    monkeypatch.setattr(evaluation, "evaluate_merchant", judge)
    monkeypatch.setattr(evaluation, "_print", MagicMock())
    job = MagicMock()
    job.settings.conf_dir = tmp_path
    job.as_of.return_value = date(2018, 1, 1)
    job.lake.read().where().groupBy().agg().orderBy().collect.return_value = [
        ("ended", date(2011, 12, 9)),
        ("newest", date(2017, 12, 31)),
        ("newer", date(2018, 3, 1)),
    ]

    evaluation.evaluate([job], Console(record=True))

    assert asked == {"ended": date(2011, 12, 10), "newest": date(2018, 1, 1), "newer": date(2018, 1, 1)}


def test_a_goal_is_reached_by_the_mean_of_what_was_measured() -> None:
    def measured(metric: str, *values: float) -> list[Measured]:
        way = "life-cycle model"
        return [Measured("activity", way, metric, LAST - timedelta(days=n), v) for n, v in enumerate(values)]

    found = [*measured("auc", 0.75, 0.875), *measured("brier", 0.25), Measured("activity", "recency", "auc", LAST, 0.1)]
    goals = {
        ("activity_auc", 0.8125, None): "reached activity_auc 0.812 (0.750 to 0.875), at least 0.8125",
        ("activity_auc", 0.82, None): "missed activity_auc 0.812 (0.750 to 0.875), at least 0.82",
        ("activity_brier", None, 0.25): "reached activity_brier 0.250 (0.250 to 0.250), at most 0.25",
        ("activity_brier", None, 0.2): "missed activity_brier 0.250 (0.250 to 0.250), at most 0.2",
    }
    for (name, least, most), said in goals.items():
        console = Console(record=True, width=200)
        assert evaluation._goals(found, {name: Goal(at_least=least, at_most=most)}, console) == said.startswith(
            "reached"
        )
        assert console.export_text().strip() == said
    both = {"activity_auc": Goal(at_least=0.8), "activity_brier": Goal(at_most=0.2)}
    assert not evaluation._goals(found, both, Console(quiet=True)), "one of two is missed"


def test_a_table_tells_mean_and_spread_of_every_way() -> None:
    console = Console(record=True, width=200)
    early = LAST - timedelta(days=30)
    found = [
        Measured("clusters", "k-means, log", "k", early, 4),
        Measured("clusters", "k-means, log", "k", LAST, 5),
        Measured("clusters", "k-means, log", "ari", early, 0.75),
        Measured("clusters", "k-means, log", "ari", LAST, 0.875),
        Measured("clusters", "R + F + M sum", "ari", LAST, 0.5),
    ]

    evaluation._print(found, 90, console)

    said = [line.split() for line in console.export_text().splitlines()]
    assert ["k-means,", "log", "4/5", "0.812", "±0.088"] in said
    assert ["R", "+", "F", "+", "M", "sum", "0.500"] in said


def test_goals_are_read_and_mistakes_told_together(tmp_path: Path) -> None:
    assert load_goals(tmp_path) == {}
    file = tmp_path / "evaluation.yml"
    file.write_text("goals: {shop: {activity_auc: {at_least: 0.8}}}", encoding="utf-8")
    assert load_goals(tmp_path) == {"shop": {"activity_auc": Goal(at_least=0.8)}}
    file.write_text("goals: {shop: {activity_auc: {at_leest: 0.8}, x: {at_most: a}}}", encoding="utf-8")
    with pytest.raises(SettingsError, match="2 problem"):
        load_goals(tmp_path)


def test_a_goal_that_nothing_could_miss_or_measure_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, job = tmp_path / "evaluation.yml", MagicMock()
    job.settings.conf_dir = tmp_path
    monkeypatch.setattr(evaluation, "reproduce_cdnow", lambda _: pytest.fail("something was trained"))
    for goals, said in (
        ("{activity_auc: {}}", "a goal says at_least, at_most or both"),
        ("{activity_acu: {at_least: 0.8}}", "'activity_acu' is no goal. Did you mean 'activity_auc'?"),
        ("{x: {at_least: 0.8}}", "'x' is no goal. Goals are activity_auc, "),
    ):
        file.write_text(f"goals: {{shop: {goals}}}", encoding="utf-8")
        with pytest.raises(SettingsError, match=re.escape(said)):
            evaluation.evaluate([job], Console(), cdnow=tmp_path)
    job.as_of.assert_not_called()


def test_a_goal_is_kept_within_both_its_bounds() -> None:
    between = Goal(at_least=0.2, at_most=0.4)

    assert str(between) == "at least 0.2 and at most 0.4"
    assert [between.is_reached(x) for x in (0.1, 0.2, 0.4, 0.5, float("nan"))] == [False, True, True, False, False]
    assert Goal(at_most=0).is_reached(0)
