"""Activation, measured: what engine and connector cost by themselves, whatever the audience's size.

    python -m bench.activation --people 1000000

Rows are made on the way, as a ledger reads them from a table, and sent to a stand-in for Meta in a process of its own,
which keeps the audience. No Spark takes part.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import resource
import time
from collections import deque
from typing import Any

from connectors.base import BatchDestination
from connectors.brakes import PlacePlan
from connectors.destinations import kinds
from connectors.engine import Engine
from connectors.exchange import Place, Row, cut_batches
from connectors.pace import SystemClock
from tests.support.fakes.advertising import TOKEN, FakeMeta
from tests.support.fakes.server import serve
from tests.support.memory_ledger import MemoryLedger


def send(size: int) -> None:
    """Send so many people to an empty audience; the stand-in says how many digests it holds."""
    destination, here, stand_in = _meta()
    place = Place("shop", "vip")

    class Rows(MemoryLedger):
        def plan(self, *, write: bool = True) -> list[PlacePlan]:
            return [PlacePlan(place, "VIP", size, size, 0, 0, 0, size)]

        def windows(self, lane: Any, places: Any, *, limit: int, batches: int) -> Any:
            for first in range(0, size, limit * batches):
                made = [_row(n) for n in range(first, min(size, first + limit * batches))]
                yield list(cut_batches(place, "add", made, limit))

        def sending(self, batches: Any) -> None:
            pass

        def record(self, outcomes: Any) -> None:
            pass

    began = time.perf_counter()
    report = Engine(destination.connect(SystemClock()), Rows("meta"), SystemClock()).run()
    seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{report.ok:,} rows in {report.requests} requests, {seconds:.1f} s; {most:,.0f} MB at most")
    here.send("count")
    print(f"the stand-in holds {here.recv():,} digests")
    stand_in.terminate()


def _row(n: int) -> Row:
    member, address, number = (hashlib.sha256(f"{kind}{n}".encode()).hexdigest() for kind in ("m", "e", "p"))
    return Row(member, member, member, {"EXTERN_ID": member, "EMAIL": address, "PHONE": number})


def _meta() -> tuple[BatchDestination, Any, Any]:
    """Settings of a destination that is the stand-in, a pipe to it, and its process."""
    os.environ["BENCH_TOKEN"] = TOKEN
    spawned = multiprocessing.get_context("spawn")
    here, there = spawned.Pipe()
    stand_in = spawned.Process(target=_stand_in, args=(there,), daemon=True)
    stand_in.start()
    said = {"name": "meta", "kind": "meta", "base_url": here.recv(), "access_token": "env:BENCH_TOKEN"}
    made = kinds()["meta"].model_validate({**said, "audiences": {"vip": "4711"}})
    assert isinstance(made, BatchDestination)
    return made, here, stand_in


def _stand_in(pipe: Any) -> None:
    fake = FakeMeta()
    fake.seen = deque(maxlen=1)  # type: ignore[assignment]
    with serve(fake) as url:
        pipe.send(url)
        pipe.recv()
        assert fake.wrong == []
        pipe.send(sum(len(s) for s in fake.state.values()))
        time.sleep(5)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(prog="python -m bench.activation")
    asked.add_argument("--people", type=int, default=100_000)
    send(asked.parse_args().people)
