"""The kill switch of each destination, read between batches, so that a run that is under way stops too."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import functions as F

from lakehouse.lake import Lake
from lakehouse.records import write_rows
from lakehouse.tables.activation import ActivationSwitch as W


def set_switch(
    lake: Lake, destination: str, *, is_stopped: bool, reason: str | None, changed_at: datetime, run_id: str
) -> None:
    """Stop a destination, or let it go on; `*` is all of them."""
    row = {
        str(W.destination): destination,
        str(W.is_stopped): is_stopped,
        str(W.reason): reason,
        str(W.changed_at): changed_at,
        str(W.run_id): run_id,
    }
    write_rows(lake, "gold.activation_switch", [row])


class Switch:
    """Says whether a destination is stopped; the table is read again only when it has changed."""

    def __init__(self, lake: Lake, destination: str) -> None:
        self._lake = lake
        self._destination = destination
        self._version: int | None = -1
        self._is_stopped = False

    def __call__(self) -> bool:
        """Whether nothing may be sent."""
        version = self._lake.version(W)
        if version != self._version:
            mine = self._lake.read(W).where(F.col(W.destination).isin("*", self._destination) & F.col(W.is_stopped))
            self._is_stopped = bool(mine.limit(1).collect())
            self._version = version
        return self._is_stopped
