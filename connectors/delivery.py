"""Segments to destinations: read what is published, plan the audience, deliver, and write down what left."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from connectors.audience import member_id, plan_audience
from connectors.base import DestinationConfig, Export, ExportedSegment, FileDestination
from connectors.campaigns import load_activation, load_campaigns, not_due
from connectors.erasure import forget_arms
from connectors.files import FileConnector
from connectors.remote_files import RemoteFileConnector
from connectors.results import assign_arms, changed_draws, keep_holdouts
from connectors.switch import Switch
from lakehouse.errors import SettingsError, suggest
from lakehouse.lake import Lake, WriteResult
from lakehouse.records import write_rows
from lakehouse.settings import Settings
from lakehouse.tables.activation import CampaignMember as A
from lakehouse.tables.activation import SegmentExport as E
from lakehouse.tables.segment import CustomerSegment as S

READS = (
    "gold.customer_segment",
    "gold.customer_segment_customer",
    "gold.dim_customer",
    "silver.consent",
    "gold.activation_suppression",
    "gold.activation_switch",
)
"""What an export depends on, besides the destinations."""


def exported_folders(lake: Lake, settings: Settings, as_of: date) -> list[Path] | None:
    """Folders here of the exports recorded for a day, None when a file of theirs is gone."""
    ledger = lake.read("gold.segment_export").where(F.col("as_of") == F.lit(as_of)).select("path").distinct()
    ledger = ledger.where(~F.col("path").contains("://"))
    files = [settings.data_dir.resolve() / r[0] for r in ledger.collect()]
    return sorted({f.parent for f in files}) if all(f.is_file() for f in files) else None


def export_segments(
    lake: Lake,
    settings: Settings,
    *,
    as_of: date,
    run_id: str,
    started_at: datetime,
    told: Callable[[str], None] = lambda _: None,
) -> tuple[tuple[Export, ...], WriteResult]:
    """Export the published members of active segments as files and record each in `gold.segment_export`.

    Files that hold members of a segment that was switched off since, on the same day, are emptied; from those of a
    campaign that waits for its day, or whose holdout was changed after it began, whoever may no longer be there is
    taken out, and nobody is added. Arms of erased people are forgotten. Destinations that take additions and removals
    are `connectors.activation`'s.

    Rerun with the same members it writes nothing; killed anywhere, the next run completes it.

    Args:
        lake: Holds the published segments, contacts and consent.
        settings: Say where destinations are declared and where the data directory is.
        as_of: Day the membership was published for.
        run_id: Run that exports.
        started_at: When it started, UTC.
        told: Called with a sentence for each destination that the kill switch keeps from being written to, and for each
            campaign whose holdout was changed.

    Returns:
        The exports, and what recording them wrote.

    Raises:
        SettingsError: A destination names a segment that does not exist.
    """
    declared, campaigns = load_activation(settings.conf_dir)
    declared = keep_holdouts(lake, declared, load_campaigns(settings.conf_dir).values(), as_of=as_of)
    chosen = [d for d in choose_destinations(declared, ()) if isinstance(d, FileDestination)]
    inactive = inactive_segments(lake)
    known = published_segments(lake, {s for d in chosen for s in d.segments if s not in inactive})
    members = lake.read("gold.customer_segment_customer").where(F.col("segment_id").isin([*known]))
    customers, consents = lake.read("gold.dim_customer"), lake.read("silver.consent")
    suppressions = lake.read("gold.activation_suppression")
    exports: list[Export] = []
    for destination in chosen:
        if Switch(lake, destination.name)():
            told(f"{destination.name} is stopped by the switch, nothing was written")
            continue
        mine = [c for c in campaigns if c.destination == destination.name]
        draws = changed_draws(lake, mine)
        changed = {c.segment_id: draws[c.name] for c in mine if c.name in draws}
        for segment, why in changed.items():
            told(f"{destination.name} {segment}: {why}")
        # Whoever was sent stays, whatever the draw says now: nobody changes arms.
        kept = {s: h for s, h in destination.holdouts.items() if s not in changed}
        destination = destination.model_copy(update={"holdouts": kept})
        waiting = {**not_due(mine, destination.name, started_at.date()), **changed}
        asked = set(destination.segments) or {*known, *inactive}
        withdrawing = _exported(lake, destination.name, as_of) & set(waiting)
        wanted = [(known | inactive)[s] for s in sorted(asked - (set(waiting) - withdrawing))]
        stay = _without_newcomers(lake, members, destination.name, withdrawing)
        audience = plan_audience(stay, customers, consents, suppressions, destination=destination)
        connector = (
            RemoteFileConnector(destination, lake.spark)
            if destination.location
            else FileConnector(destination, _folder_of(destination, settings))
        )
        exports += connector.deliver(audience, wanted, as_of=as_of, run_id=run_id, started_at=started_at)
        began = [c for c in mine if c.segment_id not in waiting and known.get(c.segment_id) in wanted]
        assign_arms(lake, audience, began, as_of=as_of, run_id=run_id)
    forget_arms(lake)
    # Rows come from the manifests, so a run that died before this line is made up for by the next.
    ledger = [row for e in exports for row in _ledger_rows(e, settings)]
    nothing = WriteResult(0, lake.version("gold.segment_export"), 0)
    return tuple(exports), write_rows(lake, "gold.segment_export", ledger) if ledger else nothing


def _exported(lake: Lake, destination: str, as_of: date) -> set[str]:
    """Segments of which a destination has files of a day."""
    written = lake.read(E).where((F.col(E.destination) == F.lit(destination)) & (F.col(E.as_of) == F.lit(as_of)))
    return {r[0] for r in written.select(E.segment_id).distinct().collect()}


def _without_newcomers(lake: Lake, members: DataFrame, destination: str, segments: Collection[str]) -> DataFrame:
    """Members, of some segments only those who were sent for the campaign that addresses them."""
    if not segments:
        return members
    arms = lake.read(A).where((F.col(A.destination) == F.lit(destination)) & (F.col(A.arm) == "treated"))
    told = members.withColumn("member_id", member_id(F.col("website_id"), F.col("customer_id")))
    key = [str(A.segment_id), str(A.website_id), str(A.member_id)]
    stay = told.join(arms.select(*key), on=key, how="left_semi").drop("member_id").select(*members.columns)
    is_theirs = F.col("segment_id").isin([*segments])
    return members.where(~is_theirs).unionByName(stay.where(is_theirs))


def published_segments(lake: Lake, asked: Collection[str]) -> dict[str, ExportedSegment]:
    """Returns the active segments by id.

    Raises:
        SettingsError: one of those asked for is not among them.
    """
    known = _segments(lake, F.col(S.is_active))
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise SettingsError(
            f"No active segment is published as {', '.join(unknown)}.{suggest(unknown[0], known)} "
            "Segments are defined in conf/segments and published by `segmentation segments`; the lookalikes of a "
            "campaign are made by `segmentation campaigns prepare`."
        )
    return known


def inactive_segments(lake: Lake) -> dict[str, ExportedSegment]:
    """Returns the segments published as inactive by id: they have no members, which is no mistake of naming."""
    return _segments(lake, ~F.col(S.is_active))


def choose_destinations(declared: tuple[DestinationConfig, ...], asked: Collection[str]) -> list[DestinationConfig]:
    """Returns the active destinations asked for, all when none is.

    Raises:
        SettingsError: one of those asked for is not declared or not active.
    """
    active = {d.name: d for d in declared if d.is_active}
    unknown = sorted(set(asked) - set(active))
    if unknown:
        raise SettingsError(
            f"No active destination is called {', '.join(unknown)}.{suggest(unknown[0], active)} "
            f"Destinations are {', '.join(active) or 'none'}; each is a file in conf/destinations."
        )
    return [active[name] for name in (sorted(asked) or sorted(active))]


def _segments(lake: Lake, which: Column) -> dict[str, ExportedSegment]:
    found = lake.read("gold.customer_segment").where(which).orderBy(S.segment_id)
    return {r[0]: ExportedSegment(*r) for r in found.select(S.segment_id, S.name, S.version).collect()}


def _ledger_rows(export: Export, settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "destination": export.destination,
            "website_id": export.website_id,
            "segment_id": export.segment.segment_id,
            "version": export.segment.version,
            "as_of": export.as_of,
            "format": f.format,
            "path": _relative(f.path, settings.data_dir),
            "sha256": f.sha256,
            "rows": f.rows,
            "bytes": f.bytes,
            "members": export.members,
            "eligible": export.eligible,
            "excluded": dict(export.excluded),
            "consent": export.consent,
            "is_sample": export.is_sample,
            "run_id": export.run_id,
            "exported_at": export.exported_at,
        }
        for f in export.files
    ]


def _folder_of(destination: FileDestination, settings: Settings) -> Path:
    if destination.folder is not None:
        return settings.data_dir / destination.folder
    return settings.exports_dir or settings.data_dir / "exports"


def _relative(path: Path | str, data_dir: Path) -> str:
    if isinstance(path, str):
        return path
    base = data_dir.resolve()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
