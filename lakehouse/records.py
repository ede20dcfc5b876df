"""What the platform writes down of itself: the audit log of steps, and any other handful of rows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from lakehouse.lake import Lake, WriteResult


class AuditLog:
    """Audit rows of a run, held back half a minute so that a hundred small steps are not a hundred commits.

    A row lost in a crash makes its step run again, which changes nothing, so holding back is safe. What a step is about
    to do otherwise than before is written at once: nothing else would tell whose rows a crash left behind.
    """

    def __init__(self, lake: Lake, flush_seconds: float = 30.0) -> None:
        """Read the newest success of every step, and what was tried since."""
        self._lake = lake
        self._every = flush_seconds
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._lock = threading.Lock()
        self._ended: dict[str, list[dict[str, Any]]] = {}
        self._tried: dict[str, set[str]] = {}
        self._note(self._stored())

    def last(self, step: str) -> dict[str, Any] | None:
        """The newest successful audit row of a step, None when it never succeeded."""
        rows = self._ended.get(step)
        return rows[-1] if rows else None

    def written(self, step: str) -> list[dict[str, Any]]:
        """All rows of the newest success of a step, one per table."""
        return self._ended.get(step, [])

    def tried(self, step: str) -> set[str]:
        """Fingerprints under which a step began, or failed, since its newest success."""
        return self._tried.get(step, set())

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Record, before anything is written, steps that begin under another fingerprint than they last ended."""
        if rows:
            self.add(rows)
            self.flush()

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Record rows; they reach the table within half a minute or at `flush`."""
        with self._lock:
            added = list(rows)
            self._rows += added
            self._note(added)
            due = time.monotonic() - self._flushed > self._every
        if due:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        with self._lock:
            rows, self._rows = self._rows, []
            self._flushed = time.monotonic()
        if rows:
            write_rows(self._lake, "ingest.audit_transforms", rows)

    def _note(self, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            step = row["step"]
            if row["status"] != "succeeded":
                self._tried.setdefault(step, set()).add(row["fingerprint"])
                continue
            self._tried.pop(step, None)
            known = self._ended.get(step)
            if known and (known[0]["run_id"], known[0]["started_at"]) == (row["run_id"], row["started_at"]):
                known.append(row)
            else:
                self._ended[step] = [row]

    def _stored(self) -> list[dict[str, Any]]:
        if not self._lake.exists("ingest.audit_transforms"):
            return []
        audits = self._lake.for_rows(0).read("ingest.audit_transforms")
        return [row.asDict() for row in audits.orderBy("ended_at").collect()]


def write_rows(lake: Lake, name: str, rows: list[dict[str, Any]]) -> WriteResult:
    """Write a handful of records of the platform itself, by the table's kind and as one file; not for data."""
    lake = lake.for_rows(len(rows))
    t = lake.ensure(name)
    return lake.write(t, lake.frame(t, rows).coalesce(1))
