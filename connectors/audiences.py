"""Audiences at destinations: found by their name or made, and how many people the destination says it reaches."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyspark.sql import functions as F

from connectors.base import BatchDestination
from connectors.brakes import flagged_words
from connectors.engine import Connector, understand
from connectors.exchange import BatchRefused, Halted, RetryLater
from connectors.ledger import RunReport
from connectors.pace import Clock, utc_now
from lakehouse.lake import Lake
from lakehouse.records import append_rows
from lakehouse.tables.activation import ActivationAudience as A
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
        row = {
            A.destination: destination.name,
            A.segment_id: segment,
            A.name: name,
            A.audience_id: audience,
            A.is_made: found is None,
            A.run_id: run_id,
            A.recorded_at: utc_now(clock),
        }
        rows.append({str(k): v for k, v in row.items()})
    if not rows:
        return destination, waiting
    append_rows(lake, "gold.activation_audience", rows)
    return known_audiences(lake, destination), waiting


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
        append_rows(lake, "gold.activation_size", rows)
