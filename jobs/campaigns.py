"""Campaigns: what there is, the lookalikes some need, and what they brought."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from rich.console import Console

from connectors.campaigns import Campaign, load_campaigns
from connectors.results import LEAST_OUTCOMES, LEAST_PEOPLE, measure_arms
from jobs.context import Job
from jobs.grids import grid_of
from jobs.progress import Progress
from lakehouse.errors import SettingsError, suggest
from lakehouse.records import write_rows
from segments.lift import Lift, RatioCheck, check_sample_ratio, lift_of_means, lift_of_rates

CONFIDENCE: Final = 0.95


def choose_campaigns(job: Job, names: Collection[str]) -> list[Campaign]:
    """Returns the campaigns named, all of conf/campaigns when none is.

    Raises:
        SettingsError: one of those named is not declared.
    """
    declared = load_campaigns(job.settings.conf_dir)
    if unknown := sorted(set(names) - set(declared)):
        raise SettingsError(
            f"No campaign is called {', '.join(unknown)}.{suggest(unknown[0], declared)} "
            f"Campaigns are {', '.join(declared) or 'none'}; each is a file in conf/campaigns."
        )
    return [declared[name] for name in (sorted(set(names)) or declared)]


def prepare(job: Job, progress: Progress, console: Console, names: Collection[str]) -> None:
    """Make the lookalikes that campaigns address and publish them as segments; the others need nothing made."""
    from jobs.audiences import expand

    for c in choose_campaigns(job, names):
        if (like := c.lookalike) is None:
            console.print(f"{c.name}: addresses the segment {c.segment_id}", highlight=False)
            continue
        size = (like.size, like.share, like.min_score)
        made = expand(job, progress, like.merchant, like.seed, size, like.leave_out, like.without)
        console.print(
            f"{c.name}: {made['audience_id']}, {made['customers']:,} customers, lift {made['expected_lift']:.2f} on "
            "customers the model had not seen",
            highlight=False,
        )


def print_campaigns(job: Job, console: Console) -> None:
    """Show every campaign: where it goes, what is held out, and whether it is due today."""
    grid = grid_of("campaign", "active", "segment", "destination", "held out", "days", "today", "what for")
    for c in load_campaigns(job.settings.conf_dir).values():
        due = c.schedule.why_not(job.run.started_at.date()) or "due"
        share = f"{c.holdout.share:.0%}"
        days, active = str(c.outcome_days), "yes" if c.is_active else "no"
        grid.add_row(c.name, active, c.segment_id, c.destination, share, days, due, c.description)
    console.print(grid)


def measure(job: Job, names: Collection[str] = ()) -> list[dict[str, Any]]:
    """Compare those addressed with those held out, record it in `gold.campaign_result`, and return the rows.

    A person's days count from the first day of theirs in the campaign, and only of people whose days are over.
    """
    campaigns = {c.name: c for c in choose_campaigns(job, names)}
    as_of = job.as_of()
    arms = measure_arms(
        job.lake.read("gold.campaign_member"),
        job.lake.read("gold.dim_customer"),
        job.lake.read("gold.fact_transactions"),
        days={c.name: c.outcome_days for c in campaigns.values()},
        as_of=as_of,
    )
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in arms.collect():
        found.setdefault((row["campaign"], row["website_id"]), {})[row["arm"]] = row.asDict()
    rows = [
        {
            "campaign": name,
            "website_id": website,
            "as_of": as_of,
            "outcome_days": campaigns[name].outcome_days,
            "confidence": CONFIDENCE,
            "content": {k: str(v) for k, v in campaigns[name].content.items()},
            "run_id": job.run.run_id,
            "measured_at": job.run.started_at,
            **judged,
        }
        for (name, website), said in sorted(found.items())
        for judged in judge(said.get("treated"), said.get("control"))
    ]
    if rows:
        write_rows(job.lake, "gold.campaign_result", rows)
    return rows


def measure_all(job: Job, progress: Progress) -> None:
    """Measure every campaign that has begun; nothing is done where none has."""
    if not job.lake.exists("gold.campaign_member"):
        return
    with progress.task("export", "results of campaigns") as done:
        done(f"{len(measure(job))} rows")


def judge(treated: Mapping[str, Any] | None, control: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Returns a row per metric from what `measure_arms` counted of either arm.

    There is no lift where an arm has fewer than two people, and no interval where it is too small for one.
    """
    nobody = {"people": 0, "bought": 0, "waiting": 0, "amount_mean": None, "amount_variance": None, "held_share": None}
    t, c = treated or nobody, control or nobody
    sizes = {"treated": t["people"], "control": c["people"]}
    counted = {
        "treated_people": t["people"],
        "control_people": c["people"],
        "waiting_people": t["waiting"] + c["waiting"],
    }
    if min(sizes.values()) < 2:
        return [{"metric": metric, **counted} for metric in ("bought", "amount")]
    share = (t["held_share"] * t["people"] + c["held_share"] * c["people"]) / sum(sizes.values())
    ratio = check_sample_ratio(sizes, {"treated": 1 - share, "control": share})
    bought = lift_of_rates((t["bought"], t["people"]), (c["bought"], c["people"]), confidence=CONFIDENCE)
    spent = lift_of_means(
        (t["people"], t["amount_mean"], t["amount_variance"]),
        (c["people"], c["amount_mean"], c["amount_variance"]),
        confidence=CONFIDENCE,
    )
    enough = min(sizes.values()) >= LEAST_PEOPLE
    either = min(n for a in (t, c) for n in (a["bought"], a["people"] - a["bought"])) >= LEAST_OUTCOMES
    return [_row("bought", counted, bought, ratio, enough and either), _row("amount", counted, spent, ratio, enough)]


def print_results(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Show what campaigns brought, with the interval, and what cannot be trusted."""
    if not rows:
        console.print("No campaign has begun: activate its destination first.", highlight=False)
        return
    columns = (
        "campaign",
        "website",
        "metric",
        "addressed",
        "held out",
        "with",
        "without",
        "difference",
        "95 %",
        "note",
    )
    grid = grid_of(*columns)
    for r in rows:
        people = [f"{r['treated_people']:,}", f"{r['control_people']:,}"]
        waiting = f"{r['waiting_people']:,} still within their {r['outcome_days']} days" if r["waiting_people"] else ""
        if r.get("difference") is None:
            grid.add_row(r["campaign"], r["website_id"], r["metric"], *people, "", "", "", "", waiting or "too few")
            continue
        form = "{:.1%}" if r["metric"] == "bought" else "{:,.2f}"
        values = [form.format(r[k]) for k in ("treated_value", "control_value", "difference")]
        is_given = r["low"] is not None
        interval = " to ".join(form.format(r[k]) for k in ("low", "high")) if is_given else "too few to say"
        suspect = "sizes of the arms are not those of the draw: do not trust it" if r["is_suspect"] else ""
        note = "; ".join(x for x in (suspect, waiting) if x)
        grid.add_row(r["campaign"], r["website_id"], r["metric"], *people, *values, interval, note)
    console.print(grid)


def _row(metric: str, counted: Mapping[str, Any], lift: Lift, ratio: RatioCheck, is_enough: bool) -> dict[str, Any]:
    return {
        "metric": metric,
        **counted,
        "treated_value": lift.treated,
        "control_value": lift.control,
        "difference": lift.difference,
        "low": lift.low if is_enough else None,
        "high": lift.high if is_enough else None,
        "relative": lift.relative,
        "p_value": lift.p_value if is_enough else None,
        "sample_ratio_p": ratio.p_value,
        "is_suspect": ratio.is_suspect,
    }
