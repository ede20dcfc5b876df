"""Activation commands: what is sent to audiences and lists, and what people see of it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType
from rich.console import Console

from connectors.activation import Activation, ActivationHeld, activation_queue, proof_of_removal
from connectors.activation import open_activation as open_for
from connectors.campaigns import NOT_DUE
from jobs.context import Job, require_retailer
from jobs.grids import grid_of
from jobs.progress import Progress
from jobs.segments import published_day
from jobs.terminal import escape, plain
from lakehouse.errors import SettingsError
from lakehouse.frames import frame_of
from lakehouse.logs import get_logger

log = get_logger(__name__)

_NONE_ACTIVE = (
    "Besides files, which `segmentation export` writes, no destination of conf/destinations is active "
    "(is_active: true). With --dry-run and --destination NAME one that is not shows what it would send."
)


_NUMBERS = StructType([StructField("customer_id", StringType())])


def open_activation(job: Job, names: Collection[str], **choices: Any) -> Activation:
    """Returns the activation of the destinations named, all active ones when none is.

    Raises:
        SettingsError: The run is for another day than the membership is of.
    """
    return open_for(
        job.lake,
        job.settings,
        names,
        as_of=published_day(job),
        run_id=job.run.run_id,
        started_at=job.run.started_at,
        **choices,
    )


def activate(
    job: Job,
    progress: Progress,
    console: Console,
    names: Collection[str] = (),
    *,
    is_confirmed: bool = False,
    is_forced: bool = False,
) -> None:
    """Send to every destination, and say what became of it.

    Raises:
        ActivationHeld: a brake held something back, or a destination did not take it; what could be sent was.
    """
    work = open_activation(job, names, is_confirmed=is_confirmed, is_forced=is_forced)
    _tell_unserved(work, console)
    _send(work, progress, console)


def activate_all(work: Activation, progress: Progress) -> ActivationHeld | None:
    """Send to every active destination, within a run of everything; returns what was held back rather than raise it."""
    _tell_unserved(work, progress.console)
    if not work.destinations:
        return None
    try:
        _send(work, progress, progress.console)
    except ActivationHeld as held:
        return held
    return None


def _tell_unserved(work: Activation, console: Console) -> None:
    for name, people in work.unserved().items():
        log.warning("people at a destination that is not active", extra={"destination": name, "people": people})
        console.print(
            f"{name} is not active, and {people:,} people may be there: nobody who withdraws or is erased is taken "
            "away. A run does it where is_active is true.",
            highlight=False,
            markup=False,
        )


def _send(work: Activation, progress: Progress, console: Console) -> None:
    with progress.task("activate", f"{len(work.destinations)} destinations") as done:
        reports = work.run()
        done(sum(r.ok + r.accepted for r in reports.values()))
    if not reports:
        console.print(_NONE_ACTIVE)
        return
    grid = grid_of("destination", "state", "sent", "ok", "accepted", "refused", "left", "note")
    problems = []
    for name, r in sorted(reports.items()):
        held = [f"{p.segment_id}: {why}" for p, why in [*r.held.items(), *r.failed.items()]]
        counts = [f"{n:,}" for n in (r.planned, r.ok, r.accepted, r.rejected, r.left)]
        grid.add_row(name, r.state, *counts, escape("; ".join([*filter(None, [r.code]), *held])))
        # That a campaign waits for its day is no problem.
        problems += [f"{name} {p.segment_id}: {why}" for p, why in r.held.items() if not why.startswith(NOT_DUE)]
        if r.state == "halted":
            problems.append(f"{name} {r.code}")
        elif r.state == "done":
            problems += [f"{name} {p.segment_id}: {why}" for p, why in r.failed.items() if p in r.behind]
    console.print(grid)
    if problems:
        is_behind = any(r.behind and r.state != "stopped" for r in reports.values())
        withdrawals = "may be among what was left, which the next run sends" if is_behind else "were sent all the same"
        raise ActivationHeld(
            f"{'; '.join(problems)}. Withdrawals {withdrawals}. Look with --dry-run; --confirm sends what a brake held "
            "back."
        )


def print_preview(job: Job, console: Console, names: Collection[str], *, validate: bool) -> None:
    """Show what a run would do, and one redacted body per destination."""
    previews = open_activation(job, names, is_preview=True).preview(validate=validate)
    for found in previews:
        console.print(found.destination, style="bold", highlight=False)
        grid = grid_of("website", "segment", "members", "eligible", "present", "withdraw", "remove", "add", "held")
        for p in found.plans:
            counts = (p.members, p.eligible, p.present, p.withdrawals, p.removals, p.additions)
            why = found.held.get(p.place, "")
            grid.add_row(p.place.website_id, p.place.segment_id, *[f"{c:,}" for c in counts], why)
        console.print(grid)
        for note in found.notes:
            console.print(note, highlight=False, markup=False)
        if found.body:
            console.print(found.body, highlight=False, markup=False)
        if found.validated:
            console.print(f"the destination says: {plain(found.validated)}", highlight=False, markup=False)
    if not previews:
        console.print(_NONE_ACTIVE)


def print_reconciliation(job: Job, console: Console, names: Collection[str]) -> None:
    """Show ledger and destination side by side.

    Raises:
        ActivationHeld: they differ, or a destination could not be asked.
    """
    grid = grid_of("destination", "website", "segment", "ledger", "there", "missing", "extra")
    differ, unasked = [], []
    for r in open_activation(job, names).reconcile():
        there = "not asked" if r.unasked else "not told" if r.there is None else f"{r.there:,}"
        grid.add_row(
            r.destination,
            r.place.website_id,
            r.place.segment_id,
            f"{r.ledger:,}",
            there,
            f"{r.missing:,}",
            f"{r.extra:,}",
        )
        if r.missing or r.extra:
            differ.append(f"{r.destination} {r.place.segment_id}")
        if r.unasked:
            unasked.append(f"{r.destination} {r.place.segment_id} ({r.unasked.rstrip('.')})")
    console.print(grid)
    problems = [f"Ledger and destination differ: {', '.join(differ)}."] if differ else []
    problems += [f"It could not be asked who is in {', '.join(unasked)}."] if unasked else []
    if problems:
        raise ActivationHeld(" ".join(problems))


def print_queue(job: Job, console: Console) -> None:
    """Show the queue: rows per destination, segment and status."""
    grid = grid_of("destination", "website", "segment", "status", "rows")
    counted = activation_queue(job.lake).groupBy("destination", "website_id", "segment_id", "status").count()
    for r in counted.orderBy("destination", "website_id", "segment_id", "status").collect():
        grid.add_row(*r[:4], f"{r[4]:,}")
    console.print(grid)


def switch(job: Job, name: str, *, is_stopped: bool, reason: str | None) -> None:
    """Stop a destination or let it go on; `*` is all of them."""
    from connectors.switch import set_switch

    if name != "*":
        _known(job, name)
    set_switch(
        job.lake,
        name,
        is_stopped=is_stopped,
        reason=reason,
        changed_at=job.run.started_at,
        run_id=job.run.run_id,
    )


def read_numbers(file: Path) -> list[str]:
    """Customer numbers of a text file, one a line; `-` is standard input.

    Raises:
        SettingsError: The file cannot be read, or is no text in UTF-8.
    """
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        # Spreadsheets begin a text with a mark that is part of no number.
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as e:
        raise SettingsError(f"{file} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise SettingsError(
            f"{file} is not text in UTF-8: byte {e.start + 1:,} cannot be one. Save it as such."
        ) from None
    return [line.strip() for line in lines if line.strip()]


def suppress(
    job: Job, website_id: str, customer_ids: Sequence[str], *, reason: str, destination: str
) -> tuple[int, int]:
    """Record people as suppressed from now on.

    Returns:
        Rows written, and how many of the numbers are those of no customer so far: recorded as well, for one may come.

    Raises:
        SettingsError: The retailer, the reason or the destination is not known.
        SourceError: The retailer has no customers here, and what conf/sources says of it cannot be told.
    """
    from connectors.suppression import suppress as record
    from lakehouse.tables.activation import Suppression

    allowed = Suppression.reason.spec.values
    if reason not in allowed:
        raise SettingsError(f"A reason is one of {', '.join(allowed)}, not '{reason}'.")
    if destination != "*":
        _known(job, destination)
    require_retailer(job, website_id)
    asked = set(customer_ids)
    lake = job.lake
    own = (
        lake.read("gold.dim_customer").where(F.col("merchant_id") == F.lit(website_id)).select("customer_id").distinct()
    )
    named = frame_of(lake.spark, _NUMBERS, [{"customer_id": c} for c in sorted(asked)])
    known = named.join(own, on="customer_id", how="left_semi").count()
    written = record(
        job.lake,
        website_id,
        customer_ids,
        destination=destination,
        reason=reason,
        suppressed_on=job.run.started_at.date(),
        run_id=job.run.run_id,
    )
    return written, len(asked) - known


def print_proof(job: Job, console: Console, website_id: str, customer_ids: Sequence[str]) -> None:
    """Show what was sent of people and what became of it; who is told by their place among the numbers, not by them.

    Raises:
        SettingsError: The retailer is not known.
    """
    from connectors.suppression import member_of

    require_retailer(job, website_id)
    places = {member_of(website_id, c): place for place, c in enumerate(customer_ids, 1)}
    grid = grid_of("number", "at (UTC)", "destination", "segment", "change", "said", "batch")
    found = sorted(proof_of_removal(job.lake, website_id, places).collect(), key=lambda r: places[r["member_id"]])
    for r in found:
        at = f"{r['recorded_at']:%Y-%m-%d %H:%M:%S}"
        place = str(places[r["member_id"]])
        grid.add_row(place, at, r["destination"], r["segment_id"], r["op"], r["verdict"], r["batch_key"])
    if found:
        console.print(grid)
    unsent = len(places) - len({r["member_id"] for r in found})
    console.print(f"{unsent:,} of {len(places):,} were never sent, as far back as is kept", highlight=False)


def _known(job: Job, name: str) -> None:
    from connectors.destinations import load_destinations

    declared = [d.name for d in load_destinations(job.settings.conf_dir / "destinations")]
    if name not in declared:
        raise SettingsError(f"No destination is called '{name}'; there are {', '.join(declared)}.")
