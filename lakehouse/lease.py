"""Who may write to a catalog: one run at a time, the one whose name is in a row that Delta lets one of two change.

A run renews its lease while it goes on. One that died holds it no longer than the last renewal says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from pyspark.errors import PySparkException

from lakehouse.ddl import literal
from lakehouse.errors import RunLocked
from lakehouse.lake import Lake
from lakehouse.logs import get_logger

_log = get_logger(__name__)

_LASTS: Final = timedelta(minutes=15)
_RENEWED_AFTER: Final = 240.0
_LOOKS_AFTER: Final = 20.0
_OVER: Final = timedelta(seconds=-1)


@contextmanager
def lease(lake: Lake, run_id: str, wait_seconds: float) -> Iterator[None]:
    """Hold the catalog of a lake for a run.

    Args:
        lake: Of a catalog.
        run_id: Who asks.
        wait_seconds: How long to wait for another run.

    Raises:
        RunLocked: naming the holder, when it still writes after that; or at the end, when another took over because
            this run could not renew its lease.
    """
    table = lake.aside("_lease")
    lake.spark.sql(f"CREATE TABLE IF NOT EXISTS {table} USING delta AS SELECT '' AS run_id, {_in(_OVER)} AS expires_at")
    until = time.monotonic() + wait_seconds
    ours = f"run_id = {literal(run_id)}"
    while not _change(lake, table, run_id, f"{ours} OR expires_at < {_in(timedelta())}"):
        left = until - time.monotonic()
        if left <= 0:
            holder = lake.spark.read.table(table).collect()[0]
            raise RunLocked(
                f"Another run is writing to the catalog '{lake.settings.catalog}' (run {holder['run_id']}; it says so "
                f"again before {holder['expires_at']} UTC, or has died). Wait for it to end, or say how long to wait "
                "with --wait SECONDS."
            )
        time.sleep(min(left, _LOOKS_AFTER))
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lake, table, run_id, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        was_ours = _change(lake, table, run_id, ours, _OVER)
    if not was_ours:
        raise RunLocked(
            f"Run {run_id} could not say in time that it goes on, and another has written to the catalog "
            f"'{lake.settings.catalog}' meanwhile. Run it again: what it has written stays, and the rest is made."
        )


def _renew(lake: Lake, table: str, run_id: str, ended: threading.Event) -> None:
    while not ended.wait(_RENEWED_AFTER):
        try:
            _change(lake, table, run_id, f"run_id = {literal(run_id)}")
        except Exception as e:  # the next time may go well, and until then the lease lasts
            _log.warning("lease not renewed", extra={"error": type(e).__name__})


def _change(lake: Lake, table: str, run_id: str, where: str, lasts: timedelta | None = None) -> bool:
    """Whether the row was as asked for and is this run's now; of two runs that change it at once Delta refuses one."""
    put = f"run_id = {literal(run_id)}, expires_at = {_in(lasts or _LASTS)}"
    try:
        changed = lake.spark.sql(f"UPDATE {table} SET {put} WHERE {where}")  # noqa: S608
        return bool(changed.collect()[0]["num_affected_rows"])
    except PySparkException as e:
        if "concurrent" not in f"{type(e).__name__} {e}".lower():
            raise
        return False


def _in(later: timedelta) -> str:
    at = datetime.now(UTC).replace(tzinfo=None, microsecond=0) + later
    return f"TIMESTAMP {literal(at.isoformat(sep=' '))}"
