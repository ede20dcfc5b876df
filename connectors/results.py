"""What a campaign brought: who was in which arm from when, and what either arm bought afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from connectors.audience import Audience, member_id
from connectors.base import DestinationConfig, Holdout
from connectors.campaigns import Campaign
from connectors.exchange import Place
from lakehouse.declare import table_of
from lakehouse.errors import SettingsError
from lakehouse.lake import Lake
from lakehouse.tables.activation import CampaignMember as A
from lakehouse.tables.gold import DimCustomer as D
from lakehouse.tables.gold import FactTransactions as T

LEAST_PEOPLE: Final = 30
"""People of either arm from which on a mean's interval is given; with fewer, chance alone makes wide differences."""
LEAST_OUTCOMES: Final = 5
"""People of either arm who bought, and who did not, from which on a rate's interval is given (rule for the normal
approximation)."""


def assign_arms(
    lake: Lake,
    audience: Audience,
    campaigns: Sequence[Campaign],
    *,
    as_of: date,
    run_id: str,
    held: Collection[Place] = (),
) -> None:
    """Record the arm of everyone who is new in a campaign; whoever is in it already keeps arm and day.

    An arm is what the draw says of a person who may leave, whether or not the destination could use them: a comparison
    of only those it could use with everyone held out would be none.

    Args:
        lake: Holds the table.
        audience: Made for the destination of these campaigns.
        campaigns: Those whose audience was brought up to date.
        as_of: Day of the membership.
        run_id: Run.
        held: Audiences held back: nobody was sent, so there a campaign begins with a run that sends.

    Raises:
        SettingsError: a campaign that has begun has another holdout now.
    """
    if not campaigns:
        return
    if changed := changed_draws(lake, campaigns):
        raise SettingsError(f"{'; '.join(changed.values())}.")
    there = lake.read(A).where(F.col(A.campaign).isin([c.name for c in campaigns]))
    found = None
    for c in campaigns:
        waits = [p.website_id for p in held if p.segment_id == c.segment_id]
        made = plan_arms(audience.frame.where(~F.col("website_id").isin(waits)), c, as_of=as_of, run_id=run_id)
        found = made if found is None else found.unionByName(made)
    assert found is not None  # noqa: S101 - there is a campaign
    key = [str(k) for k in table_of(A).key]
    lake.write(A, found.join(there.select(*key), on=key, how="left_anti"))


def changed_draws(lake: Lake, campaigns: Sequence[Campaign]) -> dict[str, str]:
    """Returns why nobody may be sent for a campaign, by name: it has begun, and its file holds out others now."""
    if not campaigns:
        return {}
    draws = {c.name: _draw(c) for c in campaigns}
    began = lake.read(A).where(F.col(A.campaign).isin(*draws)).select(A.campaign, A.holdout).distinct().collect()
    return {
        name: f"holdout_changed: the campaign {name} has begun with the holdout {draw}, and its file says "
        f"{draws[name]}: people would change arms. Put the holdout back, or give the campaign another name"
        for name, draw in began
        if draw != draws[name]
    }


def keep_holdouts(
    lake: Lake, destinations: Sequence[DestinationConfig], campaigns: Iterable[Campaign], *, as_of: date
) -> tuple[DestinationConfig, ...]:
    """Returns the destinations with the holdouts of campaigns that were switched off and are judged still.

    Whoever was held out would else be sent with the next run, while their purchases count as those of people who were
    not. A holdout that a destination or an active campaign declares for the segment stands; of several campaigns that
    were switched off, that of the one to which people came last.

    Args:
        lake: Holds the arms.
        destinations: With the holdouts of active campaigns.
        campaigns: All of conf/campaigns.
        as_of: Day of the membership.
    """
    ended = {c.name: c for c in campaigns if not c.is_active}
    if not ended:
        return tuple(destinations)
    arms = lake.read(A).where(F.col(A.campaign).isin(*ended))
    drawn = [str(c) for c in (A.campaign, A.destination, A.segment_id, A.holdout, A.held_share)]
    made = {d.name: d for d in destinations}
    last = arms.groupBy(*drawn).agg(F.max(A.assigned_on).alias("last"))
    for r in last.orderBy(F.desc("last"), A.campaign).collect():
        destination = made.get(r.destination)
        is_judged = r.last + timedelta(days=ended[r.campaign].outcome_days) > as_of
        if destination and is_judged and r.segment_id not in destination.holdouts:
            kept = Holdout(share=r.held_share, salt=r.holdout.rpartition(" ")[0])
            made[r.destination] = destination.model_copy(
                update={"holdouts": {**destination.holdouts, r.segment_id: kept}}
            )
    return tuple(made.values())


def plan_arms(audience: DataFrame, campaign: Campaign, *, as_of: date, run_id: str) -> DataFrame:
    """Returns the arm of everyone who may leave for a campaign, held out or not.

    Args:
        audience: Frame of an `Audience`.
        campaign: The campaign.
        as_of: Day of the membership.
        run_id: Run.

    Returns:
        The columns of `gold.campaign_member`.
    """
    is_held = F.col("excluded") == F.lit("held_out")
    members = audience.where((F.col("segment_id") == F.lit(campaign.segment_id)) & F.coalesce(is_held, F.lit(True)))
    return members.select(
        F.lit(campaign.name).alias(A.campaign),
        A.website_id,
        A.member_id,
        F.lit(campaign.destination).alias(A.destination),
        A.segment_id,
        F.when(F.col("excluded").isNull(), F.lit("treated")).otherwise(F.lit("control")).alias(A.arm),
        F.lit(_draw(campaign)).alias(A.holdout),
        F.lit(campaign.holdout.share).alias(A.held_share),
        F.lit(as_of).alias(A.assigned_on),
        F.lit(run_id).alias(A.run_id),
    )


def measure_arms(
    members: DataFrame, customers: DataFrame, facts: DataFrame, *, days: Mapping[str, int], as_of: date
) -> DataFrame:
    """Returns what either arm of each campaign bought in the days after a person's first.

    Everyone counts for the same number of days, so whose days are not over by `as_of` is left to a later day. Somebody
    who bought nothing counts with nothing.

    Args:
        members: `gold.campaign_member`.
        customers: `gold.dim_customer`.
        facts: `gold.fact_transactions`.
        days: Days that count, by campaign; other campaigns are left out.
        as_of: Purchases before this day are counted.

    Returns:
        One row per campaign, website_id and arm: people, held_share (mean), bought (people with a valid purchase),
        amount_mean and amount_variance (of net purchases per person; sample variance, null for one person), waiting
        (people whose days are not over).
    """
    length = _by_campaign(days)
    until = F.date_add(A.assigned_on, length)
    running = members.where(F.col(A.campaign).isin(*days)).select(
        A.campaign, A.website_id, A.member_id, A.arm, A.held_share, A.assigned_on, until.alias("_until")
    )
    known = customers.where(D.is_current).select(
        F.col(D.merchant_id).alias("website_id"),
        D.customer_key,
        member_id(F.col(D.merchant_id), F.col(D.customer_id)).alias("member_id"),
    )
    over = running.where(F.col("_until") <= F.lit(as_of))
    # One current version per customer: the join does not multiply.
    people = over.join(known, on=["website_id", "member_id"], how="inner")
    lines = facts.where(F.col(T.business_date) < F.lit(as_of)).select(
        F.col(T.merchant_id).alias("website_id"), T.customer_key, T.business_date, T.amount, T.is_valid_purchase
    )
    in_time = (F.col(T.business_date) >= F.col(A.assigned_on)) & (F.col(T.business_date) < F.col("_until"))
    spent = (
        people.join(lines, on=["website_id", str(T.customer_key)], how="inner")
        .where(in_time)
        .groupBy(A.campaign, "website_id", "member_id")
        .agg(F.sum(T.amount).cast("double").alias("_amount"), F.max(T.is_valid_purchase).alias("_has_bought"))
    )
    judged = over.join(spent, on=[str(A.campaign), "website_id", "member_id"], how="left")
    amount = F.coalesce("_amount", F.lit(0.0))
    counted = judged.groupBy(A.campaign, "website_id", A.arm).agg(
        F.count(F.lit(1)).alias("people"),
        F.avg(A.held_share).alias("held_share"),
        F.count_if(F.coalesce("_has_bought", F.lit(False))).alias("bought"),
        F.avg(amount).alias("amount_mean"),
        F.var_samp(amount).alias("amount_variance"),
    )
    waiting = (
        running.where(F.col("_until") > F.lit(as_of))
        .groupBy(A.campaign, "website_id", A.arm)
        .agg(F.count(F.lit(1)).alias("waiting"))
    )
    both = counted.join(waiting, on=[str(A.campaign), "website_id", str(A.arm)], how="full_outer")
    return both.select(
        A.campaign,
        "website_id",
        A.arm,
        F.coalesce("people", F.lit(0)).alias("people"),
        "held_share",
        F.coalesce("bought", F.lit(0)).alias("bought"),
        "amount_mean",
        "amount_variance",
        F.coalesce("waiting", F.lit(0)).alias("waiting"),
    )


def _by_campaign(days: Mapping[str, int]) -> Column:
    found = F.lit(0)
    for name, length in sorted(days.items()):
        found = F.when(F.col(A.campaign) == F.lit(name), F.lit(length)).otherwise(found)
    return found


def _draw(campaign: Campaign) -> str:
    return f"{campaign.holdout.salt} {campaign.holdout.share:g}"
