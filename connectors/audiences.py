"""Audiences at destinations: found by their name or made, and how many people the destination says it reaches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pyspark.sql import functions as F

from connectors.base import BatchDestination
from connectors.brakes import flagged_words
from connectors.engine import Connector, understand
from connectors.erasure import GONE
from connectors.exchange import BatchRefused, Halted, RetryLater
from connectors.ledger import RunReport
from connectors.pace import Clock, utc_now
from lakehouse.lake import Lake
from lakehouse.records import write_rows
from lakehouse.tables.activation import ActivationAudience as A
from lakehouse.tables.activation import ActivationMember as M
from lakehouse.tables.activation import ActivationSize as S


def known_audiences(lake: Lake, destination: BatchDestination) -> BatchDestination:
    """Returns the destination with the ids of those of its new audiences that were found or made before."""
    if not destination.new_audiences:
        return destination
    mine = (
        lake.read(A).where(F.col(A.destination) == F.lit(destination.name)).select(A.segment_id, A.name, A.audience_id)
    )
    ids = {r[0]: r[2] for r in mine.collect() if destination.new_audiences.get(r[0]) == r[1]}
    return destination.model_copy(update={"audiences": {**destination.audiences, **ids}})


def audiences_in_use(lake: Lake, destination: BatchDestination) -> tuple[BatchDestination, dict[str, str]]:
    """Returns the destination with the ids of its audiences, and by segment why one is to be emptied first.

    Whoever was sent is in the audience they were sent to. Where the settings name another now, or none, that one is
    used until nobody is left in it: removals would else be sent to an audience that has never had the people.
    """
    destination = known_audiences(lake, destination)
    if destination.keeps_places_apart:
        return destination, {}
    there = lake.read(M).where((F.col(M.destination) == destination.name) & ~F.col(M.status).isin(*GONE))
    used = lake.read(A).where(F.col(A.destination) == F.lit(destination.name)).select(A.segment_id, A.audience_id)
    rows = used.join(there.select(M.segment_id), on=str(A.segment_id), how="left_semi").collect()
    moved = {r[0]: r[1] for r in rows if destination.audiences.get(r[0]) != r[1]}
    why = {
        s: f"audience_changed: its audience was {was}, is {destination.audiences.get(s, 'another or none')}: --confirm "
        "empties the old one, and the run after that fills the new one"
        for s, was in moved.items()
    }
    new = {s: n for s, n in destination.new_audiences.items() if s not in moved}
    return destination.model_copy(update={"audiences": {**destination.audiences, **moved}, "new_audiences": new}), why


def leave_audiences(lake: Lake, destination: BatchDestination, segments: Collection[str]) -> None:
    """Take nobody to be in the audiences of segments any more: a person says that they are gone or were emptied."""
    mine = (F.col(M.destination) == F.lit(destination.name)) & F.col(M.segment_id).isin(*segments)
    rows = lake.read(M).where(mine & ~F.col(M.status).isin(*GONE))
    lake.write(M, rows.withColumn(str(M.status), F.lit("waiting")))


def keep_audiences(lake: Lake, destination: BatchDestination, *, run_id: str, clock: Clock) -> None:
    """Write down which audience each segment is sent to, before anything is."""
    used = lake.read(A).where(F.col(A.destination) == F.lit(destination.name)).select(A.segment_id, A.audience_id)
    known = {r[0]: r[1] for r in used.collect()}
    rows = [
        _row(destination, segment, audience, audience, is_made=False, run_id=run_id, clock=clock)
        for segment, audience in sorted(destination.audiences.items())
        if known.get(segment) != audience
    ]
    if rows and not destination.keeps_places_apart:
        write_rows(lake, "gold.activation_audience", rows)


def missing_audiences(destination: BatchDestination) -> dict[str, str]:
    """Returns the names of those new audiences that have no id yet, by segment."""
    return {s: n for s, n in sorted(destination.new_audiences.items()) if s not in destination.audiences}


def flagged_audiences(destination: BatchDestination, is_advertising: bool) -> dict[str, str]:
    """Returns why audiences are not made for their names, by segment; of tools of the retailer's own, none."""
    if not is_advertising:
        return {}
    found = {s: flagged_words(name, s) for s, name in missing_audiences(destination).items()}
    return {s: f"name_flagged: {', '.join(words)}" for s, words in found.items() if words}


def name_audiences(
    lake: Lake,
    destination: BatchDestination,
    connector: Connector,
    *,
    run_id: str,
    clock: Clock,
    without: Collection[str] = (),
) -> tuple[BatchDestination, Mapping[str, str]]:
    """Find or make the audiences that are known by name alone, and keep their ids.

    One of the same name is used, so a run that died between making an audience and writing it down makes no second.

    Args:
        lake: Holds the ids.
        destination: With those ids that are known.
        connector: Of the destination.
        run_id: Run.
        clock: Tells when it is written down.
        without: Segments whose audience is not needed yet.

    Returns:
        The destination with all ids, and why an audience was not made, by segment.
    """
    waiting = flagged_audiences(destination, connector.limits.is_advertising)
    rows = []
    for segment, name in missing_audiences(destination).items():
        if segment in waiting or segment in without:
            continue
        try:
            found = understand(connector.find_audience, name)
            audience = found or understand(connector.make_audience, name)
        except (Halted, RetryLater, BatchRefused) as e:
            waiting[segment] = f"audience_not_made: {e.code}"
            continue
        rows.append(_row(destination, segment, name, audience, is_made=found is None, run_id=run_id, clock=clock))
    if not rows:
        return destination, waiting
    write_rows(lake, "gold.activation_audience", rows)
    return known_audiences(lake, destination), waiting


def _row(
    destination: BatchDestination, segment: str, name: str, audience: str, *, is_made: bool, run_id: str, clock: Clock
) -> dict[str, Any]:
    row = {
        A.destination: destination.name,
        A.segment_id: segment,
        A.name: name,
        A.audience_id: audience,
        A.is_made: is_made,
        A.run_id: run_id,
        A.recorded_at: utc_now(clock),
    }
    return {str(k): v for k, v in row.items()}


def record_sizes(
    lake: Lake, destination: BatchDestination, connector: Connector, report: RunReport, *, run_id: str, clock: Clock
) -> None:
    """Write down what the destination says of each audience: people reached, and the part it matched.

    What it does not tell, or not now, is left out: a run that sent everything does not fail for a count.
    """
    rows = []
    for plan in report.plans:
        try:
            size = understand(connector.size, plan.place)
        except (Halted, RetryLater, BatchRefused):
            size = None
        rate = report.match_rates.get(plan.place)
        if size is None and rate is None:
            continue
        row = {
            S.run_id: run_id,
            S.destination: destination.name,
            S.website_id: plan.place.website_id,
            S.segment_id: plan.place.segment_id,
            S.eligible: plan.eligible,
            S.reached_low: size.low if size else None,
            S.reached_high: size.high if size else None,
            S.match_rate: rate,
            S.measured_at: utc_now(clock),
        }
        rows.append({str(k): v for k, v in row.items()})
    if rows:
        write_rows(lake, "gold.activation_size", rows)
