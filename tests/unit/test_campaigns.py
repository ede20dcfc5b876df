"""Campaigns: what a file may say, what it makes of its destination, when it is due, and what its arms are judged by."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console

from connectors.brakes import Brakes, PlacePlan
from connectors.campaigns import Campaign, Schedule, apply_campaigns, load_activation, load_campaigns, not_due
from connectors.destinations import kinds
from connectors.exchange import Place, Row, cut_batches, event_id
from jobs.campaigns import judge, print_campaigns, print_results
from jobs.context import Job
from lakehouse.errors import SettingsError
from lakehouse.settings import load_settings
from segments.load import load_segments
from tests.support.activation import PLACE, WORLDS, Person
from tests.support.clock import FakeClock

CONF = Path(__file__).parents[2] / "conf"
HOLDOUT = {"share": 0.2, "salt": "s"}


def campaign(name: str = "spring", **more: object) -> Campaign:
    return Campaign.model_validate({"name": name, "segment": "vip", "destination": "hook", "holdout": HOLDOUT, **more})


def hook(**more: object) -> object:
    said = {"name": "hook", "kind": "webhook", "base_url": "https://x.example", "secret": "env:X", **more}
    return kinds()["webhook"].model_validate(said)


def test_the_sample_campaigns_are_whole_once_they_are_made_active() -> None:
    names = ["win_back", "vip_early_access", "cross_sell_yogurt"]
    campaigns = load_campaigns(CONF)
    assert set(names) <= set(campaigns)
    assert not any(campaigns[n].is_active for n in names)
    declared, active = load_activation(CONF, [campaigns[n].destination for n in names])
    assert {c.name for c in active} >= set(names)
    destinations = {d.name: d for d in declared}
    segments = {s.segment_id for s in load_segments(CONF / "segments")}
    for name in names:
        c = campaigns[name]
        made = destinations[c.destination]
        assert c.description
        assert c.content
        assert made.holdouts[c.segment_id] == c.holdout
        assert c.segment_id in made.audiences  # type: ignore[attr-defined]
        assert (c.lookalike.seed if c.lookalike else c.segment_id) in segments


def test_the_list_of_campaigns_says_what_each_is_for() -> None:
    said = Console(file=io.StringIO(), record=True, width=200)
    job = Job(load_settings("local", CONF))

    print_campaigns(job, said)

    assert "Let the best customers in a day early." in said.export_text()


def test_a_campaign_says_its_holdout_and_content_for_its_destination() -> None:
    said = campaign(content={"code": "HELLO"})
    (made,) = apply_campaigns([hook(segments=["loyal"])], [said])  # type: ignore[list-item]
    assert made.holdouts == {"vip": said.holdout}
    assert made.content == {"vip": {"code": "HELLO"}}  # type: ignore[attr-defined]
    assert made.segments == ("loyal", "vip")
    (every,) = apply_campaigns([hook()], [said])  # type: ignore[list-item]
    assert every.segments == ()  # it takes every segment anyway


@pytest.mark.parametrize("kind", ["klaviyo", "webhook", "marketing_cloud"])
def test_content_goes_along_with_those_who_come(kind: str) -> None:
    world, person = WORLDS[kind], Person(1)
    config = world.destination("http://127.0.0.1:1").model_copy(update={"content": {"vip": {"code": "HELLO"}}})
    event = event_id(kind, PLACE, "add", person.member_id, "k", 0)
    row = Row(person.member_id, "k", event, world.keys(person), world.details(person))
    for op in ("add", "remove"):
        (batch,) = cut_batches(PLACE, op, [row], 1)  # type: ignore[arg-type]
        body = config.connect(FakeClock()).body(batch)
        # Klaviyo is never asked for the import of somebody who leaves.
        assert ("HELLO" in str(body)) == (op == "add" or kind == "klaviyo")


@pytest.mark.parametrize(
    ("campaigns", "destinations", "said"),
    [
        ([campaign()], [], "destination 'hook' does not exist"),
        ([campaign()], [hook(is_active=False)], "destination 'hook' is not active"),
        ([campaign(), campaign("autumn")], [hook()], "spring sends 'vip' to 'hook' too"),
        ([campaign()], [hook(holdouts={"vip": HOLDOUT})], "has a holdout of 'vip' itself"),
    ],
)
def test_what_cannot_be_is_told(campaigns: list[Campaign], destinations: list[object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        apply_campaigns(destinations, campaigns)  # type: ignore[arg-type]


def test_every_problem_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "campaigns"
    folder.mkdir()
    (folder / "one.yml").write_text("segment: a\nlookalike: {seed: b, merchant: m}\ndestination: d\n")
    (folder / "two.yml").write_text("segmnt: a\ndestination: d\nholdout: {share: 2, salt: s}\n")
    with pytest.raises(SettingsError) as raised:
        load_campaigns(tmp_path)
    told = str(raised.value)
    assert "one.yml: lookalike: give one of size, share and min_score" in told
    assert "two.yml: segmnt: there is no such setting. Did you mean 'segment'?" in told
    assert "two.yml: holdout.share" in told


def test_a_destination_that_takes_no_content_says_so() -> None:
    with pytest.raises(ValueError, match="takes no content"):
        kinds()["meta"].model_validate({"name": "m", "kind": "meta", "access_token": "env:X", "content": {"vip": {}}})


def test_a_campaign_is_due_on_its_days_alone() -> None:
    schedule = Schedule(starts_on=date(2026, 1, 5), ends_on=date(2026, 1, 9), weekdays=("mon", "fri"))
    days = {d: schedule.why_not(date(2026, 1, d)) for d in (2, 5, 6, 9, 12)}
    assert days == {
        2: "not_due: starts on 2026-01-05",
        5: None,
        6: "not_due: runs on mon, fri",
        9: None,
        12: "not_due: ended on 2026-01-09",
    }
    with pytest.raises(ValueError, match="before starts_on"):
        Schedule(starts_on=date(2026, 1, 2), ends_on=date(2026, 1, 1))

    waiting = not_due([campaign(schedule={"starts_on": "2026-01-05"})], "hook", date(2026, 1, 4))
    plan = PlacePlan(Place("shop", "vip"), "VIP", 10, 10, 0, 2, 0, 10)
    # Confirming what a brake held does not bring a day nearer; withdrawals are never held, whatever this says.
    assert Brakes(is_confirmed=True, waiting=waiting).held(plan) == "not_due: starts on 2026-01-05"


def test_arms_are_judged_by_rate_and_mean_and_by_their_sizes() -> None:
    treated = {"people": 800, "held_share": 0.2, "bought": 240, "amount_mean": 11.0, "amount_variance": 100.0}
    control = {"people": 200, "held_share": 0.2, "bought": 40, "amount_mean": 10.0, "amount_variance": 100.0}
    bought, amount = judge({**treated, "waiting": 3}, {**control, "waiting": 1})

    assert (bought["treated_value"], bought["control_value"], round(bought["difference"], 6)) == (0.3, 0.2, 0.1)
    # Wald: 0.1 +- 1.959964 * sqrt(0.3 * 0.7 / 800 + 0.2 * 0.8 / 200)
    assert (round(bought["low"], 4), round(bought["high"], 4)) == (0.0361, 0.1639)
    assert (amount["difference"], amount["relative"]) == (1.0, 0.1)
    assert (bought["sample_ratio_p"], bought["is_suspect"], bought["waiting_people"]) == (1.0, False, 4)
    (_, skewed) = judge({**treated, "waiting": 0}, {**control, "people": 320, "waiting": 0})
    assert skewed["is_suspect"]
    # Seven of seven bought: the difference is told, an interval would claim what seven people cannot show.
    few = {**control, "people": 7, "bought": 7, "waiting": 0}
    assert [(r["difference"] is None, r["low"], r["p_value"]) for r in judge({**treated, "waiting": 0}, few)] == [
        (False, None, None),
        (False, None, None),
    ]
    rare = judge({**treated, "waiting": 0}, {**control, "bought": 4, "waiting": 0})
    assert [r["low"] is None for r in rare] == [True, False]
    alone = judge({**treated, "waiting": 0}, None)
    assert [(r["metric"], r["control_people"], r.get("difference")) for r in alone] == [
        ("bought", 0, None),
        ("amount", 0, None),
    ]


def test_results_lose_no_letter_and_no_digit_on_a_narrow_screen() -> None:
    row = {
        "campaign": "cross_sell_yogurt",
        "website_id": "complete_journey",
        "metric": "amount",
        "treated_people": 12345,
        "control_people": 3045,
        "waiting_people": 0,
        "outcome_days": 28,
        "treated_value": 1234.56,
        "control_value": 1200.12,
        "difference": 34.44,
        "low": -12.34,
        "high": 81.22,
        "is_suspect": True,
    }
    out = io.StringIO()
    print_results([row], Console(file=out, width=80))
    said = out.getvalue()
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    for text in ("cross_s", "ell_yog", "urt", "1,234.", "56", "81.22"):
        assert text in said
