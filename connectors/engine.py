"""The run of one destination: settle, plan, brake, send, record; killed anywhere, the next run completes it.

Delivery is at least once, and safe to repeat: destinations hold sets, and each change of a row carries an id of its
own for those that do not. `sending` is recorded before a request leaves, so that what a dead run may have sent is
known to be unknown, and is sent again.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from connectors.brakes import Brakes, PlacePlan
from connectors.exchange import (
    LANES,
    UNREADABLE,
    Batch,
    BatchRefused,
    Halted,
    Lane,
    Outcome,
    Place,
    RetryLater,
    Settled,
)
from connectors.ledger import Ledger, OpenReceipt, RowOutcome, RunReport
from connectors.pace import Clock, Patience, Rate
from lakehouse.logs import get_logger

log = get_logger(__name__)
T = TypeVar("T")

_SWITCHED_OFF: Final = Halted("switched_off")


def understand(ask: Callable[..., T], *said: Any) -> T:
    """Returns what a connector makes of an answer; one whose shape is not the destination's tells nothing.

    What stands between, such as a gateway, answers in words of its own. That must not end the run: other audiences
    and destinations wait behind it, withdrawals among them.

    Raises:
        RetryLater: the answer could not be read; what became of the request is not known.
    """
    try:
        return ask(*said)
    except UNREADABLE as e:
        # The place alone: the message may repeat what was in the answer.
        at = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(at.filename).name}:{at.lineno}"
        log.warning("answer not understood", extra={"error": type(e).__name__, "where": where})
        raise RetryLater("answer_not_understood", may_be_applied=True) from None


@dataclass(frozen=True)
class Limits:
    """What a destination takes.

    Attributes:
        rows: Rows per request.
        rates: Requests per time.
        removal_keys: Keys a removal can be made by; a row left with none of them needs no removal. Empty means any.
        keeps_key_sets: Whether each set of keys of a person is a row of its own there, which a removal always takes.
        bytes: Size of a request's body.
        min_members: People from which on the destination uses an audience; fewer is noted, not refused.
        reads_names: Whether it flags audiences by their name.
        is_advertising: Whether it is an advertising platform; an audience made there has no name that hints at health
            or money.
        window: Batches between two commits of the ledger; what may be sent again after a crash.
    """

    rows: int
    rates: tuple[Rate, ...] = ()
    removal_keys: tuple[str, ...] = ()
    keeps_key_sets: bool = False
    bytes: int | None = None
    min_members: int = 0
    reads_names: bool = False
    is_advertising: bool = False
    window: int = 5


@dataclass(frozen=True)
class Size:
    """People a destination says it reaches by an audience: a range, or the same number twice."""

    low: int
    high: int


class Connector(Protocol):
    """A destination that takes batches.

    Attributes:
        limits: What it takes.
        listed_by: What `listed` yields: `remote_id`, `member_id`, or the name of a key.
    """

    limits: Limits
    listed_by: str = "remote_id"

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Carry out one batch and return one outcome per row, in their order.

        Raises:
            RetryLater: not now.
            BatchRefused: the request was refused as a whole; a part of it may pass.
            Halted: nothing more can be sent.
        """

    @property
    def requests(self) -> int:
        """Requests made so far."""

    def settle(self, receipt: str) -> Settled | None:
        """Ask how an accepted job ended; None while it runs. Most leave no job open."""
        raise Halted("no_jobs", whole=False)

    def body(self, batch: Batch) -> Any:
        """Returns what would leave for a batch, for a dry run to show redacted."""
        return [dict(row.keys) for row in batch.rows]

    def validate(self, batch: Batch) -> str | None:
        """Let the destination check a batch without carrying it out; None when it has no such way."""
        return None

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the audience of a name there, None when there is none."""
        raise Halted("makes_no_audiences", whole=False)

    def make_audience(self, name: str) -> str:
        """Make an audience and return its id."""
        raise Halted("makes_no_audiences", whole=False)

    def size(self, place: Place) -> Size | None:
        """Returns how many people the destination says it reaches by an audience; None when it does not tell."""
        return None

    def listed(self, place: Place) -> Iterable[str] | None:
        """Yields who is in an audience there, by `listed_by`; None when the destination does not tell."""
        return None


@dataclass
class Engine:
    """Runs one destination.

    Attributes:
        connector: The destination.
        ledger: Its state.
        clock: Time.
        brakes: What stops a run.
        patience: How long a batch is tried.
        is_stopped: Asked before every batch; the kill switch.
        settle_seconds: How long to wait, after sending, for jobs to end.
        progress: Told of rows done and planned.
    """

    connector: Connector
    ledger: Ledger
    clock: Clock
    brakes: Brakes = field(default_factory=Brakes)
    patience: Patience = field(default_factory=Patience)
    is_stopped: Callable[[], bool] = lambda: False
    settle_seconds: float = 0.0
    progress: Callable[[int, int], None] | None = None
    _halted: set[Place] = field(default_factory=set)
    _reached: set[Place] = field(default_factory=set)
    _added: set[Place] = field(default_factory=set)
    _end: Halted | None = None

    def run(self) -> RunReport:
        """Bring the destination to who is eligible now; running twice sends nothing the second time."""
        report = RunReport()
        if self.is_stopped():
            report.state, report.code = "stopped", _SWITCHED_OFF.code
            return report
        self.ledger.begin()
        self._settle(report, 0.0)
        self.ledger.fold()
        report.plans = list(self.ledger.plan())
        report.held = {p.place: why for p in report.plans if (why := self.brakes.held(p)) is not None}
        for lane in LANES:
            if report.state != "running" or not self._send_lane(lane, report):
                break
        self.ledger.fold()
        if report.state == "running" and report.accepted and self.settle_seconds:
            self._settle(report, self.settle_seconds)
            self.ledger.fold()
        if report.state == "running":
            report.state = "done"
        report.behind |= (report.failed.keys() - self._reached) | self._halted
        report.unsent = {p.place for p in report.plans if p.additions} - self._added | self._halted
        report.requests = self.connector.requests
        self.ledger.finish(report)
        log.info(
            "activation ended",
            extra={"state": report.state, "rows": report.planned, "ok": report.ok, "code": report.code},
        )
        return report

    def _send_lane(self, lane: Lane, report: RunReport) -> bool:
        places = [p.place for p in report.plans if _rows_of(p, lane)]
        if lane != "withdrawal":
            places = [p for p in places if p not in report.held]
        if not places:
            return True
        total = sum(p.withdrawals + p.removals + p.additions for p in report.plans)
        limits = self.connector.limits
        for window in self.ledger.windows(lane, places, limit=limits.rows, batches=limits.window):
            if not self._is_over():
                self.ledger.sending(window)
                done = [o for batch in window for o in self._deliver(batch)]
                self.ledger.record(done)
                self._count(report, done, lane)
                if self.progress:
                    self.progress(report.planned, total)
            if self._end is not None:
                report.state = "stopped" if self._end is _SWITCHED_OFF else "halted"
                report.code = self._end.code
                return False
        return True

    def _count(self, report: RunReport, done: Sequence[RowOutcome], lane: Lane) -> None:
        for o in done:
            report.planned += 1
            is_left = False
            match o.outcome.verdict:
                case "ok":
                    report.ok += 1
                case "accepted":
                    report.accepted += 1
                case "reject":
                    report.rejected += 1
                    is_left = lane == "withdrawal"
                case _:
                    report.left += 1
                    is_left = True
            if not is_left:
                self._reached.add(o.place)
                if lane == "addition":
                    self._added.add(o.place)
                continue
            report.failed.setdefault(o.place, o.outcome.code)
            if lane == "withdrawal":
                report.behind.add(o.place)

    def _is_over(self) -> bool:
        """Whether nothing more may be sent: the destination halted, or the switch was thrown."""
        if self._end is None and self.is_stopped():
            self._end = _SWITCHED_OFF
        return self._end is not None

    def _deliver(self, batch: Batch) -> list[RowOutcome]:
        """Send a batch to its end: retried while it makes sense, halved while it is refused as a whole."""
        found: dict[tuple[str, str], RowOutcome] = {}

        def note(part: Batch, outcomes: Sequence[Outcome]) -> None:
            for row, outcome in zip(part.rows, outcomes, strict=True):
                found[row.member_id, row.key_set] = RowOutcome(batch.key, batch.place, batch.op, row, outcome)

        # Each part with whether something of it may be there already, which no later answer about the part unsays.
        waiting = [(batch, False)]
        # What is left of the row's keys belongs to people who stay, so there is nothing to take away.
        limits = self.connector.limits
        usable = set(limits.removal_keys)
        can_share = batch.op == "remove" and not limits.keeps_key_sets
        shared = [r for r in batch.rows if can_share and not (usable & set(r.keys) if usable else r.keys)]
        if shared:
            note(batch.only(shared), [Outcome("ok", "keys_still_in_use")] * len(shared))
            rest = [r for r in batch.rows if (r.member_id, r.key_set) not in found]
            waiting = [(batch.only(rest), False)] if rest else []
        while waiting:
            part, may_be_applied = waiting.pop()
            if part.place in self._halted or self._is_over():
                note(part, [_left("not_reached", may_be_applied)] * len(part.rows))
                continue
            try:
                note(part, self._attempt(part, may_be_applied))
            except BatchRefused as refused:
                if len(part.rows) > 1:
                    waiting += [(half, refused.may_be_applied) for half in reversed(part.halves())]
                else:
                    note(part, [Outcome("reject", refused.code)])
            except Halted as halted:
                if halted.whole:
                    self._end = halted
                else:
                    self._halted.add(part.place)
                note(part, [_left(halted.code, halted.may_be_applied)] * len(part.rows))
        return [found[r.member_id, r.key_set] for r in batch.rows]

    def _attempt(self, batch: Batch, may_be_applied: bool) -> list[Outcome]:
        """Send until every row has a lasting verdict or patience ends; rows to be tried again go alone."""
        outcomes: dict[int, Outcome] = {}
        open_rows = list(range(len(batch.rows)))
        attempt = 0
        while open_rows:
            part = batch if len(open_rows) == len(batch.rows) else batch.only([batch.rows[i] for i in open_rows])
            attempt += 1
            asked: float | None = None
            try:
                sent = understand(self.connector.send, part)
            except RetryLater as later:
                may_be_applied |= later.may_be_applied
                asked = later.wait_seconds
                outcomes |= dict.fromkeys(open_rows, _left(later.code, may_be_applied))
            except (BatchRefused, Halted) as e:
                if len(part.rows) == len(batch.rows):
                    e.may_be_applied |= may_be_applied
                    raise
                # Some rows of the batch have their verdict already, so it cannot be refused as a whole any more.
                outcomes |= dict.fromkeys(open_rows, Outcome("unknown", "refused_after_part"))
                break
            else:
                sent = [_left(o.code, may_be_applied) if o.verdict == "retry" else o for o in sent]
                outcomes |= dict(zip(open_rows, sent, strict=True))
                open_rows = [i for i in open_rows if outcomes[i].verdict in ("retry", "unknown")]
                if not open_rows:
                    break
            wait = self.patience.wait(attempt, asked)
            if wait is None:
                break
            self.clock.sleep(wait)
        return [outcomes[i] for i in range(len(batch.rows))]

    def _settle(self, report: RunReport, seconds: float) -> None:
        """Ask after open jobs, until all have ended or `seconds` have passed."""
        until = self.clock.now() + seconds
        pause = 1.0
        waiting: list[OpenReceipt] = list(self.ledger.receipts())
        while waiting:
            still = []
            for receipt in waiting:
                try:
                    settled = understand(self.connector.settle, receipt.receipt)
                except RetryLater:
                    settled = None
                except (BatchRefused, Halted) as e:
                    if isinstance(e, Halted) and e.whole:
                        return
                    # The job is not told of any more: whether it was done is unknown, so its rows are sent again.
                    settled = Settled("unknown", e.code)
                if settled is None:
                    still.append(receipt)
                    continue
                if receipt.op == "remove" and settled.verdict == "ok" and settled.code:
                    # A part of it failed, and of whom is not told. Asking again changes nothing for the others.
                    settled = replace(settled, verdict="unknown")
                self.ledger.settle(receipt, settled)
                if settled.match_rate:
                    report.match_rates[receipt.place] = settled.match_rate
            waiting = still
            if not waiting or self.clock.now() + pause > until:
                return
            self.clock.sleep(pause)
            pause = min(60.0, pause * 2)


def _left(code: str, may_be_applied: bool) -> Outcome:
    return Outcome("unknown" if may_be_applied else "retry", code)


def _rows_of(plan: PlacePlan, lane: Lane) -> int:
    return {"withdrawal": plan.withdrawals, "removal": plan.removals, "addition": plan.additions}[lane]
