"""What the platform writes down of itself: the audit log of steps, and any other handful of rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from lakehouse.lake import Lake, WriteResult


class AuditLog:
    """Audit rows of a run, held back half a minute so that a hundred small steps are not a hundred commits.

    A row lost in a crash makes its step run again, which changes nothing, so holding back is safe.
    """

    def __init__(self, lake: Lake, flush_seconds: float = 30.0) -> None:
        """Read the newest success of every step."""
        self._lake = lake
        self._every = flush_seconds
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()
        self._last = self._newest()

    def last(self, step: str) -> dict[str, Any] | None:
        """The newest successful audit row of a step, None when it never succeeded."""
        return self._last.get(step)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Record rows; they reach the table within half a minute or at `flush`."""
        with self._lock:
            added = list(rows)
            self._rows += added
            self._last |= {row["step"]: row for row in added if row["status"] == "succeeded"}
            due = time.monotonic() - self._flushed > self._every
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        with self._lock:
            rows, self._rows = self._rows, []
            self._flushed = time.monotonic()
        if rows:
            append_rows(self._lake, "ingest.audit_transforms", rows)

    def _newest(self) -> dict[str, dict[str, Any]]:
        if not self._lake.exists("ingest.audit_transforms"):
            return {}
        audits = self._lake.for_rows(0).read("ingest.audit_transforms").where("status = 'succeeded'")
        newest: dict[str, dict[str, Any]] = {}
        for row in audits.orderBy("ended_at").collect():
            newest[row["step"]] = row.asDict()
        return newest


def append_rows(lake: Lake, name: str, rows: list[dict[str, Any]]) -> WriteResult:
    """Write a handful of records of the platform itself; not for data."""
    lake = lake.for_rows(len(rows))
    t = lake.ensure(name)
    return lake.write(t, lake.frame(t, rows))
