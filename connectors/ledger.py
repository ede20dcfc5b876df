"""What the engine asks of a ledger. The product's is on Delta; tests have one in memory of the same shape."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from connectors.brakes import PlacePlan
from connectors.exchange import Batch, Lane, Op, Outcome, Place, Row, Settled

RunState = Literal["running", "done", "stopped", "halted"]


@dataclass(frozen=True)
class RowOutcome:
    """The outcome of one row of a batch, as it is written down."""

    batch_key: str
    place: Place
    op: Op
    row: Row
    outcome: Outcome


@dataclass(frozen=True)
class OpenReceipt:
    """A job a destination accepted and has not been asked about to the end."""

    receipt: str
    place: Place
    op: Op


@dataclass
class RunReport:
    """What a run did, in rows.

    Attributes:
        state: done; stopped by the switch; halted by the destination; running while it runs or when it died.
        plans: One per audience.
        held: Why an audience's removals and additions waited.
        planned: Rows put into batches.
        ok: Acknowledged.
        accepted: Taken for later.
        rejected: Refused for good.
        left: Left to the next run: throttled, unanswered, or not reached.
        failed: Why rows of an audience were left, as the first of them was told.
        behind: Audiences of those that halted, took nothing, or keep somebody who withdrew.
        unsent: Audiences that halted or took none of the additions planned: no campaign begins there.
        requests: Requests made.
        match_rates: What the destination last said it could match, by audience.
        code: Why it stopped or halted.
    """

    state: RunState = "running"
    plans: list[PlacePlan] = field(default_factory=list)
    held: dict[Place, str] = field(default_factory=dict)
    planned: int = 0
    ok: int = 0
    accepted: int = 0
    rejected: int = 0
    left: int = 0
    failed: dict[Place, str] = field(default_factory=dict)
    behind: set[Place] = field(default_factory=set)
    unsent: set[Place] = field(default_factory=set)
    requests: int = 0
    match_rates: dict[Place, str] = field(default_factory=dict)
    code: str = ""


class Ledger(Protocol):
    """Durable state of one destination. Every method commits before it returns, and may be called again."""

    def begin(self) -> None:
        """Take in what runs that died wrote down, and record that this one runs."""

    def receipts(self) -> Sequence[OpenReceipt]:
        """Jobs still open at the destination."""

    def settle(self, receipt: OpenReceipt, settled: Settled) -> int:
        """Record the end of a job for every row that waits for it; returns how many rows."""

    def plan(self, *, write: bool = True) -> Sequence[PlacePlan]:
        """Compare who is eligible with what the destination acknowledged. `write=False` records nothing."""

    def windows(self, lane: Lane, places: Collection[Place], *, limit: int, batches: int) -> Iterator[Sequence[Batch]]:
        """Yields planned batches of a lane, at most `batches` of at most `limit` rows at a time, in a stable order."""

    def sending(self, batches: Sequence[Batch]) -> None:
        """Record that these batches are about to leave."""

    def record(self, outcomes: Sequence[RowOutcome]) -> None:
        """Record outcomes of rows."""

    def fold(self) -> None:
        """Bring the state of members to what this run recorded."""

    def finish(self, report: RunReport) -> None:
        """Record how the run ended."""
