"""Whatever fails and wherever a run dies: in the end the destination holds exactly those who may be there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connectors.base import BatchDestination
from tests.support.activation import PLACE, WORLDS, Killed, Person, World, opened, present, run_once
from tests.support.clock import FakeClock
from tests.support.fakes.server import Request
from tests.support.memory_ledger import MemoryLedger

UNUSABLE = range(80, 82)
"""People whose identifiers the destination refuses."""
DAYS = st.lists(
    st.tuples(
        st.frozensets(st.integers(0, 9), max_size=10),  # numbers of those eligible
        st.frozensets(st.integers(0, 9), max_size=3),  # of those, whose address is new
        st.frozensets(st.integers(0, 9), max_size=4),  # who have not withdrawn consent, of those not eligible
        st.lists(st.integers(0, 7), max_size=12),  # faults by number, 7 and beyond play none
        st.integers(0, 40),  # step at which the first run of the day dies
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("kind", sorted(WORLDS))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
    # Shrinking replays whole runs for minutes; the first failing case is small enough to read.
    phases=(Phase.explicit, Phase.generate),
)
@given(days=DAYS)
def test_the_destination_ends_with_exactly_those_who_may_be_there(kind: str, days: list[tuple[Any, ...]]) -> None:
    world = WORLDS[kind]
    clock = FakeClock()
    ledger = MemoryLedger(kind)
    versions = dict.fromkeys(range(10), 0)
    ever: set[str] = set()
    with opened(world, clock) as (fake, destination):
        fake.unusable = {world.unusable(person(n)) for n in UNUSABLE}  # type: ignore[attr-defined]
        for numbers, renewed, still_agree, faults, dies_at in days:
            for n in renewed:
                versions[n] += 1
            people = [person(n, versions[n]) for n in sorted(numbers)] + [person(n) for n in UNUSABLE]
            ledger.eligible = {PLACE: [world.wanted(p) for p in people]}
            ledger.permitted = {p.member_id for p in people} | {person(n).member_id for n in still_agree}
            fake.faults.extend(world.fake.FAULTS[f] if f < len(world.fake.FAULTS) else None for f in faults)
            before = len(fake.seen)
            run_and_die(ledger, destination, clock, dies_at)
            report = run_once(ledger, destination, clock)
            assert report.ok + report.accepted + report.rejected + report.left == report.planned
            if report.state == "done":
                assert report.planned == ledger.plans[-1]
            now = {trace for p in people for trace in traces(world, p)}
            ever |= now
            for request in fake.seen[before:]:
                assert values(request) <= (now if is_addition(request) else ever)
        fake.faults.clear()
        for _ in range(15):
            last = run_once(ledger, destination, clock)
            clock.sleep(3600)
            if not last.planned and not ledger.receipts() and last.state == "done":
                break
    assert fake.wrong == []
    usable = [p for p in people if p.number not in UNUSABLE]
    assert present(fake, world) == {item for p in usable for item in world.items(p)}
    assert (last.planned, last.state) == (0, "done")


def person(number: int, version: int = 0) -> Person:
    # 0 and 1, 2 and 3, ... share a telephone.
    return Person(number, version, house=number // 2 if number < 10 else None)


def run_and_die(ledger: MemoryLedger, destination: BatchDestination, clock: FakeClock, dies_at: int) -> None:
    left = dies_at

    def step(what: str) -> None:
        nonlocal left
        if left == 0:
            left = -1
            raise Killed(what)
        left -= 1

    try:
        run_once(ledger, destination, clock, step=step)
    except Killed:
        clock.sleep(60)


def traces(world: World, p: Person) -> set[str]:
    return {*world.keys(p).values(), *world.details(p).values()}


def is_addition(request: Request) -> bool:
    body = request.body
    if not isinstance(body, dict) or request.method in ("GET", "DELETE"):
        return False
    if "members_to_add" in body or request.path.endswith("upsert") or "profile-bulk-import" in request.path:
        return True
    if "batch_data" in body:
        return bool(body["action"] == "add")
    if "audienceMembers" in body:
        return request.path.endswith("ingest")
    if "items" in body:
        return bool(body["items"][0]["in_segment"])
    if "attributes" in body:
        return "add" in body["attributes"][0]["segments"]
    if "type" in body:
        return bool(body["type"] == "segment.entered")
    return "payload" in body


def values(request: Request) -> set[str]:
    """Digests, addresses and customer numbers in a request, without the ids of the events."""
    said = " ".join((request.path, *request.query.values(), request.raw.decode()))
    text = re.sub(r'"(event_id|objectWriteTraceId)":"[0-9a-f]+"', "", said)
    found = set(re.findall(r"[0-9a-f]{64}|[0-9a-f]{32}(?![0-9a-f])|p\d+\.v\d+@x\.example", text))
    return found | set(re.findall(r'"external_id":"([^"]+)"', text))
