"""What passes between the engine, the ledger and a destination: rows, batches, outcomes, and the rules of their state.

The rules are tables, so that the ledger on Delta and any other reads the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from lakehouse.errors import SegmentationError

Op = Literal["add", "remove"]
Lane = Literal["withdrawal", "removal", "addition"]
Verdict = Literal["sending", "ok", "accepted", "reject", "retry", "unknown"]
Status = Literal["waiting", "unknown", "adding", "present", "rejected", "removing", "removed"]

LANES: Final[tuple[Lane, ...]] = ("withdrawal", "removal", "addition")
"""Order of sending: whoever withdrew consent first, then who left, then who came."""

VERDICTS: Final[tuple[Verdict, ...]] = ("sending", "ok", "accepted", "reject", "retry", "unknown")
"""`sending` is written before a request leaves; `accepted` means the destination works on it; `reject` is a row it
refused for good; `retry` was surely not applied; `unknown` may have been applied."""

STATUSES: Final[tuple[Status, ...]] = ("waiting", "unknown", "adding", "present", "rejected", "removing", "removed")
"""What the ledger knows of a row at the destination: `waiting` surely not there yet, `unknown` may be there, `adding`
and `removing` accepted and unfinished, `present` and `removed` acknowledged, `rejected` refused with a reason: by one
of its keys, or by an earlier attempt whose answer was lost, such a row may be there all the same."""

_OP: Final[Mapping[tuple[bool, Status | None], Op]] = {
    (True, None): "add",
    (True, "waiting"): "add",
    (True, "unknown"): "add",
    (True, "removed"): "add",
    (False, "unknown"): "remove",
    (False, "adding"): "remove",
    (False, "present"): "remove",
    (False, "rejected"): "remove",
}

_STATUS: Final[Mapping[tuple[Op, Verdict], Status]] = {
    ("add", "sending"): "unknown",
    ("add", "ok"): "present",
    ("add", "accepted"): "adding",
    ("add", "reject"): "rejected",
    ("add", "unknown"): "unknown",
    ("remove", "sending"): "unknown",
    ("remove", "ok"): "removed",
    ("remove", "accepted"): "removing",
    ("remove", "unknown"): "unknown",
}


UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading an answer raises when its shape is not the one the destination documents."""


def next_op(is_wanted: bool, status: Status | None) -> Op | None:
    """Returns what a row needs, None when nothing.

    A row wanted again while its removal is worked on waits for that to end. A present row is added again when its
    membership would lapse, a rejected one when the mapping changed or the run is forced; that is the plan's business.
    """
    return _OP.get((is_wanted, status))


def next_status(op: Op, verdict: Verdict, status: Status | None) -> Status:
    """Returns the status of a row after the verdict on what was done with it.

    What was surely not applied leaves the row as it was. A removal is never given up: refused, the row still counts
    as there and the next run asks again, unless its addition was refused too, which a lost answer does not unsay. A
    refused renewal does not make a present
    row absent. A row that waited for a job does so no longer, whatever the job came to. A removal does not end the job
    that adds a row: until it has ended it may bring the person, who is removed once more.
    """
    if op == "remove" and status == "adding":
        return "adding"
    if op == "remove" and status == "rejected" and verdict in ("sending", "unknown"):
        return "rejected"
    if (op, verdict, status) == ("remove", "reject", "rejected"):
        return "waiting"
    if verdict == "retry" or (op == "remove" and verdict == "reject"):
        if status in ("adding", "removing"):
            return "unknown"
        return status or ("waiting" if op == "add" else "unknown")
    if (op, verdict, status) == ("add", "reject", "present"):
        return "present"
    return _STATUS[op, verdict]


class NotEligible(SegmentationError):
    """Something other than the eligible audience was handed to a connector or a ledger."""

    exit_code = 2


@dataclass(frozen=True)
class Row:
    """One person at one destination, under one set of keys.

    Attributes:
        member_id: SHA-256 of website and customer number, hex.
        key_set: SHA-256 of the keys, hex; a person whose identifier changes has another.
        event_id: Same for every attempt at one change, different for the next change; what a receiver may drop
            repeats by.
        keys: What the destination matches and removes by: digests, or ids of its own. Never a plain address.
        details: Values that go with an addition to a tool of the retailer's own, such as the address itself. Only for
            destinations that declare them; never stored.
        remote_id: The destination's id for the person, once it told it.
    """

    member_id: str
    key_set: str
    event_id: str
    keys: Mapping[str, str] = field(repr=False)
    details: Mapping[str, str] = field(default_factory=dict, repr=False)
    remote_id: str = field(default="", repr=False)


@dataclass(frozen=True)
class Place:
    """Where a batch belongs: a segment of a website."""

    website_id: str
    segment_id: str


_SEAL: Final = object()


@dataclass(frozen=True)
class Batch:
    """Rows that go out together; made by `cut_batches` and `halves` alone, so it holds nobody the ledger did not plan.

    Attributes:
        key: SHA-256 over operation and events: the same rows for the same change have the same key.
        place: Audience.
        op: add or remove.
        rows: At least one.
    """

    key: str
    place: Place
    op: Op
    rows: tuple[Row, ...]
    seal: object = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise NotEligible("A batch is made from a ledger's plan; members cannot be handed to a connector.")

    def halves(self) -> tuple[Batch, Batch]:
        """Returns the two halves of a batch that was refused as a whole."""
        middle = len(self.rows) // 2
        return self.only(self.rows[:middle]), self.only(self.rows[middle:])

    def only(self, rows: Sequence[Row]) -> Batch:
        """Returns a batch of some of these rows."""
        known = {(r.member_id, r.key_set) for r in self.rows}
        if any((r.member_id, r.key_set) not in known for r in rows):
            raise NotEligible("A part of a batch holds only rows of the batch.")
        return _batch(self.place, self.op, tuple(rows))


def cut_batches(place: Place, op: Op, rows: Iterable[Row], limit: int) -> Iterator[Batch]:
    """Yields batches of at most `limit` rows in the order given; called by ledgers with what they planned."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == limit:
            yield _batch(place, op, tuple(held))
            held = []
    if held:
        yield _batch(place, op, tuple(held))


def _batch(place: Place, op: Op, rows: tuple[Row, ...]) -> Batch:
    said = hashlib.sha256(f"{place.website_id}\x1f{place.segment_id}\x1f{op}".encode())
    for row in rows:
        said.update(row.event_id.encode())
    return Batch(said.hexdigest(), place, op, rows, _SEAL)


def event_id(destination: str, place: Place, op: Op, member_id: str, key_set: str, generation: int) -> str:
    """Returns the id of one change of one row: it stays while the change is tried and never comes again.

    Args:
        destination: Name of the destination.
        place: Audience.
        op: add or remove.
        member_id: See `Row`.
        key_set: See `Row`.
        generation: Grows with every change of the row, acknowledged or followed by the opposite.
    """
    said = "\x1f".join((destination, place.website_id, place.segment_id, op, member_id, key_set, str(generation)))
    return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of one row.

    Attributes:
        verdict: See `VERDICTS`.
        code: Reason in the destination's words, without data of the person.
        remote_id: The destination's id for the person, when it told it.
        receipt: By which the destination answers later for a row it accepted.
    """

    verdict: Verdict
    code: str = ""
    remote_id: str = field(default="", repr=False)
    receipt: str = ""


OK: Final = Outcome("ok")


@dataclass(frozen=True)
class Settled:
    """How a job of the destination's ended.

    Attributes:
        verdict: For every row not named in `rejected`.
        code: Reason when the verdict is not ok; else what the destination adds.
        rejected: Reason by member.
        match_rate: Share of rows the destination could match, as it puts it.
    """

    verdict: Verdict
    code: str = ""
    rejected: Mapping[str, str] = field(default_factory=dict, repr=False)
    match_rate: str = ""


class RetryLater(Exception):
    """Not now: throttled, unreachable, or failing on the destination's side.

    Attributes:
        wait_seconds: How long the destination asks to wait; None leaves it to the engine.
        may_be_applied: Whether the request may have been carried out.
        code: Reason.
    """

    def __init__(self, code: str, *, wait_seconds: float | None = None, may_be_applied: bool) -> None:
        self.code = code
        self.wait_seconds = wait_seconds
        self.may_be_applied = may_be_applied
        super().__init__(code)


class BatchRefused(Exception):
    """The request was refused as a whole for its content: one of its rows, or its size, is at fault.

    Attributes:
        code: Reason.
        may_be_applied: Whether a part of it, or an earlier attempt, may have been carried out.
    """

    def __init__(self, code: str, *, may_be_applied: bool = False) -> None:
        self.code = code
        self.may_be_applied = may_be_applied
        super().__init__(code)


class Halted(Exception):
    """Nothing more can be sent: credentials, permission, terms, or the audience itself.

    Attributes:
        code: Reason.
        whole: Whether it is the destination rather than the one audience.
        may_be_applied: Whether a part of the request, or an earlier attempt, may have been carried out.
    """

    def __init__(self, code: str, *, whole: bool = True, may_be_applied: bool = False) -> None:
        self.code = code
        self.whole = whole
        self.may_be_applied = may_be_applied
        super().__init__(code)
