"""The ledger in memory: the same journal, the same fold and the same rules as the one on Delta, without Spark."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from connectors.brakes import PlacePlan
from connectors.erasure import GONE
from connectors.exchange import (
    Batch,
    Lane,
    Op,
    Place,
    Row,
    Settled,
    Status,
    Verdict,
    cut_batches,
    event_id,
    next_op,
    next_status,
)
from connectors.ledger import OpenReceipt, RowOutcome, RunReport

Key = tuple[Place, str, str]


@dataclass(frozen=True)
class Wanted:
    """Someone who is eligible now."""

    member_id: str
    keys: Mapping[str, str]
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def key_set(self) -> str:
        return "|".join(f"{k}={v}" for k, v in sorted(self.keys.items()))


@dataclass(frozen=True)
class Member:
    """State of one row."""

    status: Status
    keys: Mapping[str, str]
    generation: int = 0
    remote_id: str = ""
    receipt: str = ""
    code: str = ""
    last_op: Op | None = None


def generation_of(member: Member, op: Op) -> int:
    return member.generation + (member.last_op not in (None, op))


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    key: Key
    op: Op
    verdict: Verdict
    batch_key: str
    keys: Mapping[str, str]
    code: str = ""
    remote_id: str = ""
    receipt: str = ""


@dataclass
class MemoryLedger:
    """State survives whoever uses it; `step` is called around every commit and may raise to kill the run there."""

    destination: str
    eligible: dict[Place, list[Wanted]] = field(default_factory=dict)
    members_of: dict[Place, int] = field(default_factory=dict)
    permitted: set[str] = field(default_factory=set)
    step: Callable[[str], None] = lambda _: None
    members: dict[Key, Member] = field(default_factory=dict)
    journal: list[Entry] = field(default_factory=list)
    folded: int = 0
    planned: dict[Place, dict[Lane, list[Row]]] = field(default_factory=dict)
    plans: list[int] = field(default_factory=list)
    runs: list[RunReport] = field(default_factory=list)
    forced: bool = False

    def begin(self) -> None:
        self.step("begin")
        self.fold()

    def receipts(self) -> Sequence[OpenReceipt]:
        found = {
            OpenReceipt(m.receipt, key[0], "add" if m.status == "adding" else "remove")
            for key, m in self.members.items()
            if m.status in ("adding", "removing") and m.receipt
        }
        return sorted(found, key=lambda r: r.receipt)

    def settle(self, receipt: OpenReceipt, settled: Settled) -> int:
        self.step("settle")
        waits = {"add": "adding", "remove": "removing"}[receipt.op]
        rows = [(k, m) for k, m in self.members.items() if m.receipt == receipt.receipt and m.status == waits]
        for key, m in rows:
            rejected = settled.rejected.get(key[1])
            verdict: Verdict = "reject" if rejected is not None else settled.verdict
            verdict = verdict if m.last_op == receipt.op else "unknown"
            self.journal.append(Entry(key, receipt.op, verdict, receipt.receipt, m.keys, rejected or settled.code))
        self.step("settled")
        return len(rows)

    def plan(self, *, write: bool = True) -> Sequence[PlacePlan]:
        self.step("plan")
        plans: list[PlacePlan] = []
        planned: dict[Place, dict[Lane, list[Row]]] = {}
        for place in sorted(
            {*self.eligible, *(k[0] for k in self.members)}, key=lambda p: (p.website_id, p.segment_id)
        ):
            wanted = {(w.member_id, w.key_set): w for w in self.eligible.get(place, [])}
            lanes: dict[Lane, list[Row]] = {"withdrawal": [], "removal": [], "addition": []}
            there = {k[1:]: m for k, m in self.members.items() if k[0] == place}
            gone = {k for k in wanted if k not in there or there[k].status in GONE}
            for member_id, key_set in sorted({*wanted, *there}):
                m = there.get((member_id, key_set))
                w = wanted.get((member_id, key_set))
                op = next_op(w is not None, m.status if m else None)
                if op is None and w is not None and m is not None and m.status == "rejected" and self.forced:
                    op = "add"
                if op is None:
                    continue
                generation = generation_of(m, op) if m else 0
                lane: Lane = "addition" if op == "add" else "removal" if member_id in self.permitted else "withdrawal"
                # Whoever withdraws does not leave a key to somebody who may never come.
                stays = [s for k, s in wanted.items() if lane == "removal" or k not in gone]
                in_use = {pair for s in stays for pair in s.keys.items()}
                keys = dict(w.keys) if w else {n: v for n, v in m.keys.items() if (n, v) not in in_use}  # type: ignore[union-attr]
                row = Row(
                    member_id,
                    key_set,
                    event_id(self.destination, place, op, member_id, key_set, generation),
                    keys,
                    dict(w.details) if w else {},
                    m.remote_id if m else "",
                )
                lanes[lane].append(row)
            planned[place] = lanes
            present = sum(m.status == "present" for m in there.values())
            sizes = [len(lanes[lane]) for lane in ("withdrawal", "removal", "addition")]
            members = self.members_of.get(place, len(wanted))
            refused = sum(there[r.member_id, r.key_set].status == "rejected" for r in lanes["removal"])
            plans.append(PlacePlan(place, place.segment_id, members, len(wanted), present, *sizes, refused))
        if write:
            self.planned = planned
            self.plans.append(sum(p.withdrawals + p.removals + p.additions for p in plans))
        return plans

    def windows(self, lane: Lane, places: Collection[Place], *, limit: int, batches: int) -> Iterator[Sequence[Batch]]:
        op: Op = "add" if lane == "addition" else "remove"
        cut = [b for place in places for b in cut_batches(place, op, self.planned[place][lane], limit)]
        for start in range(0, len(cut), batches):
            yield cut[start : start + batches]

    def sending(self, batches: Sequence[Batch]) -> None:
        self.step("sending")
        for b in batches:
            self.journal += [
                Entry((b.place, r.member_id, r.key_set), b.op, "sending", b.key, self._stored(b.place, r))
                for r in b.rows
            ]
        self.step("sent")

    def record(self, outcomes: Sequence[RowOutcome]) -> None:
        self.step("record")
        for o in outcomes:
            said = o.outcome
            key = (o.place, o.row.member_id, o.row.key_set)
            keys = self._stored(o.place, o.row)
            entry = Entry(key, o.op, said.verdict, o.batch_key, keys, said.code, said.remote_id, said.receipt)
            self.journal.append(entry)
        self.step("recorded")

    def fold(self) -> None:
        self.step("fold")
        # The last word on a row counts: what `sending` announced is forgotten once its outcome is known.
        for e in {e.key: e for e in self.journal[self.folded :]}.values():
            before = self.members.get(e.key) or Member("waiting", e.keys)
            status = next_status(e.op, e.verdict, before.status if e.key in self.members else None)
            self.members[e.key] = replace(
                before,
                status=status,
                keys={} if status == "removed" else e.keys or before.keys,
                generation=generation_of(before, e.op) + (e.verdict == "ok"),
                remote_id=e.remote_id or before.remote_id,
                receipt=before.receipt if (e.op, status) == ("remove", "adding") else e.receipt,
                code=e.code,
                last_op=e.op,
            )
        self.folded = len(self.journal)
        self.step("folded")

    def finish(self, report: RunReport) -> None:
        self.step("finish")
        self.runs.append(report)

    def _stored(self, place: Place, row: Row) -> Mapping[str, str]:
        # A removal is sent with the keys nobody else uses, and remembered with all of them until it is acknowledged.
        m = self.members.get((place, row.member_id, row.key_set))
        return m.keys if m and m.keys else row.keys
