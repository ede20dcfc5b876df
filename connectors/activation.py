"""Segments to destinations that take additions and removals: plan, send, reconcile, and the queue as people see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from connectors.audience import Audience, plan_audience
from connectors.audiences import (
    audiences_in_use,
    flagged_audiences,
    keep_audiences,
    known_audiences,
    leave_audiences,
    missing_audiences,
    name_audiences,
    record_sizes,
)
from connectors.base import BatchDestination
from connectors.brakes import Brakes, PlacePlan
from connectors.campaigns import NOT_DUE, Campaign, load_activation, load_campaigns, not_due
from connectors.changes import audience_of
from connectors.delivery import choose_destinations, inactive_segments, published_segments
from connectors.delta_ledger import DeltaLedger, fold_dead_runs, open_ledger
from connectors.engine import Connector, Engine, understand
from connectors.erasure import GONE, forget_arms, forget_erased
from connectors.exchange import Batch, BatchRefused, Halted, Place, RetryLater
from connectors.ledger import RunReport
from connectors.pace import Clock, Patience, SystemClock
from connectors.rest import redact
from connectors.results import LEAST_PEOPLE, assign_arms, changed_draws, keep_holdouts
from connectors.switch import Switch
from lakehouse.errors import SegmentationError, SettingsError
from lakehouse.lake import Lake
from lakehouse.logs import get_logger
from lakehouse.settings import Settings
from lakehouse.tables.activation import ActivationMember as M
from lakehouse.tables.activation import ActivationOutcome as O

log = get_logger(__name__)


class ActivationHeld(SegmentationError):
    """A brake held something back, or a destination did not take it; what could be sent was."""

    exit_code = 10


@dataclass(frozen=True)
class Preview:
    """What a dry run found for one destination.

    Attributes:
        destination: Name.
        plans: One per audience.
        held: Why an audience's removals and additions would wait.
        notes: What to know before sending: audiences below the destination's minimum, audiences that would be made.
        body: First body of additions that would leave, redacted; empty when nobody would be added.
        validated: The destination's own verdict on it, where it gives one.
    """

    destination: str
    plans: Sequence[PlacePlan]
    held: dict[Place, str]
    notes: tuple[str, ...] = ()
    body: str = ""
    validated: str | None = None


@dataclass(frozen=True)
class Reconciliation:
    """One audience, by the ledger and by the destination.

    Attributes:
        destination: Name.
        place: Audience.
        ledger: People the ledger holds for present.
        there: People the destination lists, less those of others it is shared with; None when it lists none to us.
        missing: Of the ledger's, those not listed.
        extra: Listed, and not the ledger's.
        unasked: Why the destination, which lists them, could not be asked.
    """

    destination: str
    place: Place
    ledger: int
    there: int | None
    missing: int = 0
    extra: int = 0
    unasked: str = ""


@dataclass
class Activation:
    """Everything a command needs for some destinations; made by `open_activation`. `served` names all active ones."""

    lake: Lake
    destinations: Sequence[BatchDestination]
    as_of: date
    run_id: str
    started_at: datetime
    clock: Clock = field(default_factory=SystemClock)
    campaigns: Sequence[Campaign] = ()
    is_confirmed: bool = False
    is_forced: bool = False
    served: Collection[str] = ()

    def run(self, progress: Callable[[str, int, int], None] | None = None) -> dict[str, RunReport]:
        """Bring every destination to who is eligible now; returns a report per destination.

        Raises:
            SegmentationError: what was wrong with the first that could not begin, such as a secret that is not there;
                the others have been served all the same, for withdrawals must not wait behind it.
        """
        reports, failed = {}, []
        for declared in self.destinations:
            try:
                reports[declared.name] = self._bring(declared, progress)
            except SegmentationError as e:
                log.exception("destination not served", extra={"destination": declared.name})
                failed.append(e)
        forget_arms(self.lake)
        if failed:
            raise failed[0]
        return reports

    def unserved(self) -> dict[str, int]:
        """People who may be at a destination that is not active or not declared any more: no run takes them away."""
        if not self.lake.exists(M):
            return {}
        left = self.lake.read(M).where(~F.col(M.status).isin(*GONE) & ~F.col(M.destination).isin([*self.served]))
        counted = left.groupBy(M.destination).agg(F.count_distinct(M.website_id, M.member_id)).orderBy(M.destination)
        return {r[0]: r[1] for r in counted.collect()}

    def _bring(self, declared: BatchDestination, progress: Callable[[str, int, int], None] | None) -> RunReport:
        name = declared.name
        told = (lambda done, total: progress(name, done, total)) if progress else None
        is_stopped = Switch(self.lake, name)
        # Which audience people are in is asked of all that was sent, also by a run that died.
        fold_dead_runs(self.lake, known_audiences(self.lake, declared))
        destination, moved = audiences_in_use(self.lake, declared)
        if moved and self.is_forced and self.is_confirmed:
            leave_audiences(self.lake, declared, moved)
            destination, moved = audiences_in_use(self.lake, declared)
        waiting = self._waiting(name)
        # Confirmed, the old audience is emptied also while a campaign waits: nobody is added to it.
        waiting = {s: why for s, why in waiting.items() if s not in moved} if self.is_confirmed else waiting | moved
        if missing_audiences(destination) and not is_stopped():
            destination, unmade = name_audiences(
                self.lake,
                destination,
                destination.connect(self.clock),
                run_id=self.run_id,
                clock=self.clock,
                without=waiting,
            )
            waiting |= unmade
        keep_audiences(self.lake, destination, run_id=self.run_id, clock=self.clock)
        connector = destination.connect(self.clock)
        audience = self.audience(destination)
        engine = Engine(
            connector,
            self.ledger(destination, audience, without=moved),
            self.clock,
            self._brakes(destination, connector.limits.reads_names, waiting),
            Patience(attempts=destination.attempts),
            is_stopped,
            destination.settle_seconds,
            told,
        )
        report = engine.run()
        if report.state == "done":
            record_sizes(self.lake, destination, connector, report, run_id=self.run_id, clock=self.clock)
            held = {*report.held, *report.unsent}
            sent = {p.place.segment_id for p in report.plans if p.place not in held} - {*moved}
            began = [c for c in self.campaigns if c.destination == name and c.segment_id in sent]
            assign_arms(self.lake, audience, began, as_of=self.as_of, run_id=self.run_id, held=held)
            forget_erased(self.lake, name, run_id=self.run_id, recorded_at=self.started_at)
        return report

    def preview(self, *, validate: bool = False) -> list[Preview]:
        """Plan and change nothing: counts, what a brake would hold, and one redacted body per destination.

        Args:
            validate: Also let the destination check that body, where it can do so without carrying it out.
        """
        found = []
        for declared in self.destinations:
            destination, moved = audiences_in_use(self.lake, declared)
            missing = missing_audiences(destination)
            # An id that is nobody's stands in for those that are still to come.
            audiences = {**dict.fromkeys(missing, "0"), **destination.audiences}
            shown = destination.model_copy(update={"audiences": audiences})
            audience = self.audience(shown)
            ledger = self.ledger(shown, audience, without=moved)
            plans = ledger.plan(write=False)
            connector = shown.connect(self.clock)
            flagged = flagged_audiences(destination, connector.limits.is_advertising)
            waiting = self._waiting(declared.name) | flagged | moved
            brakes = self._brakes(destination, connector.limits.reads_names, waiting)
            held = {p.place: why for p in plans if (why := brakes.held(p)) is not None}
            least = connector.limits.min_members
            notes = tuple(
                f"{p.place.segment_id}: {p.eligible:,} people, {destination.kind} uses an audience from {least:,} on"  # type: ignore[attr-defined]
                for p in plans
                if 0 < p.eligible < least
            )
            named = [(s, name) for s, name in missing.items() if s not in flagged]
            notes += tuple(f"{s}: the audience '{name}' is found by its name or made" for s, name in named)
            notes += tuple(self._few_held_out(declared.name, plans))
            notes += _samples(audience, [p.place.segment_id for p in plans])
            body, verdict = "", None
            # What a campaign is going to send is looked at before its day.
            growing = [p.place for p in plans if p.additions and held.get(p.place, NOT_DUE).startswith(NOT_DUE)]
            for batch in next(ledger.windows("addition", growing, limit=connector.limits.rows, batches=1), ()):
                body = json.dumps(redact(connector.body(batch)), indent=2)
                verdict = _verdict(connector, batch) if validate else None
            found.append(Preview(declared.name, plans, held, notes, body, verdict))
        return found

    def reconcile(self) -> list[Reconciliation]:
        """Compare who the ledger holds for present with who the destination lists; one that is away stops no other."""
        found = []
        for declared in self.destinations:
            destination, _ = audiences_in_use(self.lake, declared)
            connector = destination.connect(self.clock)
            rows = self.lake.read(M).where((F.col(M.destination) == destination.name) & (F.col(M.status) == "present"))
            present = rows.withColumn("_audience", audience_of(destination))
            counted = present.groupBy("_audience", M.website_id, M.segment_id).count().collect()
            for audience in {r[0] for r in counted}:
                places = {Place(r[1], r[2]): r[3] for r in counted if r[0] == audience}
                theirs, unasked = _listed(connector, next(iter(places)))
                if theirs is None:
                    found += [Reconciliation(declared.name, p, n, None, unasked=unasked) for p, n in places.items()]
                    continue
                by = connector.listed_by
                known_by = F.col(by) if by in (M.remote_id, M.member_id) else F.col(M.keys)[by]
                ours: dict[Place, set[str]] = {p: set() for p in places}
                mine = present.where(F.col("_audience") == F.lit(audience))
                for r in mine.select(M.website_id, M.segment_id, known_by).collect():
                    ours[Place(r[0], r[1])].add(r[2])
                everyone = set().union(*ours.values())
                # Retailers and segments may share an audience: of those listed, the others' own are nobody's extra.
                for place, own in ours.items():
                    there = theirs - (everyone - own)
                    counts = len(own), len(there), len(own - theirs), len(theirs - everyone)
                    found.append(Reconciliation(declared.name, place, *counts))
        return sorted(found, key=lambda r: (r.destination, r.place.website_id, r.place.segment_id))

    def audience(self, destination: BatchDestination) -> Audience:
        """Returns who is in a segment now, and whether they may be sent there."""
        return plan_audience(
            self.lake.read("gold.customer_segment_customer"),
            self.lake.read("gold.dim_customer"),
            self.lake.read("silver.consent"),
            self.lake.read("gold.activation_suppression"),
            destination=destination,
        )

    def ledger(
        self, destination: BatchDestination, audience: Audience | None = None, without: Collection[str] = ()
    ) -> DeltaLedger:
        """Returns the ledger of a destination for this run, over the audience that is eligible now.

        Args:
            destination: With the ids of its audiences.
            audience: Made for it.
            without: Segments of which nobody is wanted, until their audience is empty.
        """
        inactive = {*inactive_segments(self.lake), *without}
        chosen = [s for s in destination.chosen_segments if s not in inactive]
        known = published_segments(self.lake, chosen)
        names = {s: known[s].name for s in (chosen if destination.chosen_segments else {*known} - {*without})}
        return open_ledger(
            self.lake,
            destination,
            audience or self.audience(destination),
            names,
            run_id=self.run_id,
            started_at=self.started_at,
            clock=self.clock,
            is_forced=self.is_forced,
        )

    def _few_held_out(self, destination: str, plans: Sequence[PlacePlan]) -> Iterator[str]:
        """Campaigns whose holdout is too small for a result; their draw decides, so the number is what to expect."""
        for c in self.campaigns:
            eligible = sum(
                p.eligible for p in plans if c.destination == destination and p.place.segment_id == c.segment_id
            )
            expected = round(eligible * c.holdout.share / (1 - c.holdout.share))
            if eligible and expected < LEAST_PEOPLE:
                yield f"{c.name}: about {expected:,} held out, a result needs {LEAST_PEOPLE}; hold out a larger share"

    def _waiting(self, destination: str) -> dict[str, str]:
        mine = [c for c in self.campaigns if c.destination == destination]
        changed = changed_draws(self.lake, mine)
        due = not_due(mine, destination, self.started_at.date())
        return {**due, **{c.segment_id: changed[c.name] for c in mine if c.name in changed}}

    def _brakes(self, destination: BatchDestination, reads_names: bool, waiting: Mapping[str, str]) -> Brakes:
        return Brakes(destination.max_removed_share, reads_names, self.is_confirmed, waiting)


def open_activation(
    lake: Lake,
    settings: Settings,
    asked: Collection[str] = (),
    *,
    as_of: date,
    run_id: str,
    started_at: datetime,
    is_preview: bool = False,
    **choices: Any,
) -> Activation:
    """Returns the activation of the destinations asked for, all active ones when none is, with their campaigns.

    Args:
        lake: Holds segments, contacts, consent and the ledger.
        settings: Say where destinations and campaigns are declared.
        asked: Names of destinations.
        as_of: Day of the membership.
        run_id: Run.
        started_at: When it started, UTC; campaigns are due by its day.
        is_preview: Those asked for may be inactive; nothing is going to be sent.
        choices: Other attributes of `Activation`.

    Raises:
        SettingsError: a declaration is wrong, or one of those asked for is not active or takes files.
    """
    declared, campaigns = load_activation(settings.conf_dir, asked if is_preview else ())
    declared = keep_holdouts(lake, declared, load_campaigns(settings.conf_dir).values(), as_of=as_of)
    active = choose_destinations(declared, asked)
    chosen = [d for d in active if isinstance(d, BatchDestination)]
    if asked and (files := sorted({d.name for d in active} - {d.name for d in chosen})):
        raise SettingsError(f"{', '.join(files)}: takes files, and those are written by `segmentation export`.")
    served = [d.name for d in declared if d.is_active]
    return Activation(lake, chosen, as_of, run_id, started_at, campaigns=campaigns, served=served, **choices)


def _samples(audience: Audience, segments: Collection[str]) -> tuple[str, ...]:
    """What to know when people made up for the sample data would leave: a platform is sent them like any others."""
    leaving = audience.frame.where(F.col("excluded").isNull() & F.col("segment_id").isin(*segments))
    people = leaving.where("is_sample").select("website_id", "member_id").distinct().count()
    note = f"{people:,} of the people have contact details or consent of a sample, not of a customer"
    return (note,) if people else ()


def _verdict(connector: Connector, batch: Batch) -> str | None:
    """What the destination says of a batch it checks; a dry run goes on where it cannot be asked."""
    try:
        return understand(connector.validate, batch)
    except (BatchRefused, Halted, RetryLater) as e:
        return f"nothing, it cannot be asked ({e.code})"


def _listed(connector: Connector, place: Place) -> tuple[set[str] | None, str]:
    """Who is in an audience there, None where it does not tell; and why it does not where it usually does."""

    def ask() -> set[str] | None:
        listed = connector.listed(place)
        return None if listed is None else set(listed)

    try:
        return understand(ask), ""
    except (BatchRefused, Halted, RetryLater) as e:
        return None, e.code
    except SegmentationError as e:
        return None, str(e)


def activation_queue(lake: Lake) -> DataFrame:
    """Returns the queue people know, as a view of the ledger.

    Returns:
        One row per row of a destination that has something to do or has had: destination, website_id, segment_id,
        member_id, status (pending, completed, failed, retry), code and run_id. `retry` is left to the next run,
        `failed` was refused until something changes.
    """
    status = (
        F.when(F.col(M.status).isin("present", "removed"), F.lit("completed"))
        .when(F.col(M.status) == "rejected", F.lit("failed"))
        .when(F.col(M.status).isin("adding", "removing"), F.lit("pending"))
        .otherwise(F.lit("retry"))
    )
    return lake.read(M).select(
        M.destination, M.website_id, M.segment_id, M.member_id, status.alias("status"), M.code, M.run_id
    )


def proof_of_removal(lake: Lake, website_id: str, member_ids: Collection[str]) -> DataFrame:
    """Returns, for some people, what was sent and acknowledged where and when, in order.

    Returns:
        One row per thing learnt: member_id, destination, segment_id, op, verdict, batch_key, recorded_at.
    """
    mine = lake.read(O).where((F.col(O.website_id) == website_id) & F.col(O.member_id).isin(*member_ids))
    return mine.orderBy(O.recorded_at, O.seq).select(
        O.member_id, O.destination, O.segment_id, O.op, O.verdict, O.batch_key, O.recorded_at
    )
