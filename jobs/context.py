"""What every job starts from: settings, lakehouse, configuration, the run and the lock that keeps runs apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from lakehouse.declare import SCHEMAS
from lakehouse.errors import RunLocked, SettingsError, SourceError, suggest
from lakehouse.lake import Lake
from lakehouse.lease import lease
from lakehouse.logs import configure_logs, get_logger
from lakehouse.records import AuditLog
from lakehouse.runner import Run
from lakehouse.session import build_session
from lakehouse.settings import Settings, load_settings

if TYPE_CHECKING:
    from pipelines.bronze.sources import Sources

log = get_logger(__name__)


def open_lake(target: str = "local", data_dir: str | Path | None = None, **overrides: Any) -> Lake:
    """Open a lakehouse for a notebook or a shell, with every existing table known by name in the session.

    Args:
        target: Settings to use, a file name in `conf/settings`.
        data_dir: Folder of the tables, when not the one the settings say.
        overrides: Any other field of `Settings`.
    """
    settings = load_settings(target, data_dir=Path(data_dir) if data_dir else None, **overrides)
    lake = Lake(build_session(settings.spark, settings.data_dir), settings)
    lake.register_all()
    return lake


def is_there(settings: Settings) -> bool:
    """Whether there is a lakehouse; one of a catalog is taken to be there."""
    return bool(settings.catalog) or any((settings.data_dir / schema).is_dir() for schema in SCHEMAS)


def require_lakehouse(settings: Settings) -> None:
    """Refuse to read a lakehouse that is not there, which would be read as one where nobody is in anything.

    Raises:
        SettingsError: There is none.
    """
    if not is_there(settings):
        raise SettingsError(f"There is no lakehouse in {settings.data_dir}; start with: segmentation run")


@dataclass
class Job:
    """One command's context. The session starts when something first needs it."""

    settings: Settings
    run: Run = field(default_factory=Run.begin)

    @classmethod
    def start(
        cls,
        target: str = "local",
        data_dir: Path | None = None,
        as_of: date | None = None,
        verbose: bool = False,
        writes: bool = True,
        **overrides: Any,
    ) -> Job:
        """Load settings and set up logs, which only a job that `writes` keeps where there is no lakehouse."""
        settings = load_settings(target, data_dir=data_dir, as_of=as_of, **overrides)
        job = cls(settings)
        has_folder = not settings.catalog and (writes or is_there(settings))
        configure_logs(settings.data_dir if has_folder else None, verbose=verbose, run_id=job.run.run_id)
        return job

    @cached_property
    def lake(self) -> Lake:
        """The lakehouse, opened on first use."""
        return Lake(build_session(self.settings.spark, self.settings.data_dir), self.settings)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Configuration objects that producers may ask for by name, checked."""
        from features.rules import load_feature_rules
        from pipelines.gold.finance_conf import load_finance

        conf = self.settings.conf_dir
        return {
            "feature_rules": load_feature_rules(conf, self.websites),
            "sources": self.sources,
            "finance": load_finance(conf),
        }

    @cached_property
    def audit_log(self) -> AuditLog:
        """What every step did last."""
        return AuditLog(self.lake)

    @cached_property
    def sources(self) -> Sources:
        """Declared sources, checked."""
        from pipelines.bronze.load_sources import load_sources

        return load_sources(self.settings.conf_dir, self.settings.variables)

    @property
    def websites(self) -> tuple[str, ...]:
        """Declared retailers, which segments may name; none where sources cannot be told, as commands that read say."""
        try:
            return tuple(m.id for m in self.sources.merchants)
        except SourceError:
            return ()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lakehouse for a run that writes.

        Raises:
            RunLocked: naming the holder, when another run still writes after `lock_wait_seconds`.
        """
        if self.settings.catalog:
            with lease(self.lake, self.run.run_id, self.settings.lock_wait_seconds):
                yield
            return
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        holder = self.settings.data_dir / "_run.json"
        lock = FileLock(self.settings.data_dir / "_run.lock")
        try:
            lock.acquire(timeout=self.settings.lock_wait_seconds)
        except Timeout:
            raise RunLocked(
                f"Another run is writing to {self.settings.data_dir} ({_describe(holder)}). Wait for it to end, or say "
                "how long to wait with --wait SECONDS."
            ) from None
        try:
            holder.write_text(
                json.dumps({"pid": os.getpid(), "run_id": self.run.run_id, "started_at": f"{self.run.started_at} UTC"}),
                encoding="utf-8",
            )
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def as_of(self) -> date:
        """The day up to which events count, exclusive.

        One that follows the newest delivered day stays where it was when a correction takes that day's sales away, for
        membership does not go back.

        Raises:
            SettingsError: when it has not come yet, or is to follow the newest delivered day and nothing was delivered.
        """
        said, today = self.settings.as_of, datetime.now(UTC).date()
        if isinstance(said, date):
            # Where it is tomorrow already, the day that ends there is two days ahead of this one.
            if said > today + timedelta(days=2):
                raise SettingsError(
                    f"--as-of {said}: that day has not come yet, so nobody knows who is in a segment then."
                )
            return said
        if said == "today":
            return today
        from pyspark.sql import functions as F

        newest = self.lake.read("gold.fact_transactions").agg(F.max("business_date").alias("d")).collect()[0]["d"]
        if newest is None:
            raise SettingsError(
                "There are no transactions yet, so no day to segment as of. Ingest a source first "
                "(segmentation ingest), or give a day with --as-of."
            )
        following = date.fromordinal(newest.toordinal() + 1)
        made_for = self.segments_are_of() or following
        if made_for > max(following, today + timedelta(days=2)):
            raise SettingsError(
                f"Segments here were made for {made_for}, a day that has not come yet, and membership does not go "
                "back. Start anew in a folder of its own with --data-dir."
            )
        return max(following, made_for)

    def segments_are_of(self) -> date | None:
        """The day segments were last made for; None before the first time."""
        from pyspark.sql import functions as F

        # Sizes are measured of manual segments, too, which refresh nothing.
        days = self.lake.read("gold.customer_segment_size").agg(F.max("as_of").alias("day"))
        days = days.unionAll(self.lake.read("gold.customer_segment_refresh").agg(F.max("as_of")))
        return days.agg(F.max("day")).collect()[0][0]


def require_retailer(job: Job, merchant_id: str) -> None:
    """Refuse a retailer that is neither declared nor has customers here, for these outlive its declaration.

    Raises:
        SettingsError: There is no such retailer, with those there are.
        SourceError: It has no customers here, and what `conf/sources` says of it cannot be told.
    """
    known = {r[0] for r in job.lake.read("gold.dim_customer").select("merchant_id").distinct().collect()}
    if merchant_id not in known:
        known |= {m.id for m in job.sources.merchants}
    if merchant_id not in known:
        there = ", ".join(sorted(known)) or "none"
        raise SettingsError(f"No retailer is called '{merchant_id}'; there are {there}.{suggest(merchant_id, known)}")


def _describe(holder: Path) -> str:
    try:
        said = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {said['pid']}, run {said['run_id']}, since {said['started_at']}"
    except (OSError, ValueError, KeyError):
        return "holder unknown"
