"""A file somebody hands in lands like any other: it is copied to its feed's inbox and read from there."""

from __future__ import annotations

import shutil
from pathlib import Path

from lakehouse.errors import SourceError
from lakehouse.lake import Lake
from pipelines.bronze.ingest import land_source
from pipelines.bronze.places import inbox, is_hidden
from pipelines.bronze.preflight import identify, inspect
from pipelines.bronze.records import FeedResult, Progress, RunLike
from pipelines.bronze.sources import Feed, Source

_SUFFIXES = {
    "csv": (".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz"),
    "jsonl": (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz"),
    "parquet": (".parquet",),
    "excel": (".xlsx", ".xlsm"),
}


def ingest_file(
    lake: Lake, file: Path, source: Source, feed: str | None = None, *, run: RunLike, progress: Progress | None = None
) -> FeedResult:
    """Copy an uploaded file to its feed's inbox and land it. The same bytes handed in twice land once.

    Args:
        lake: Where tables are.
        file: The upload; it is left where it is.
        source: Source it belongs to.
        feed: Feed it belongs to; found by the file's columns when the source has several.
        run: Who lands it.
        progress: Told of start and end.

    Raises:
        SourceError: when the file is not there, cannot be read, or fits no feed or several.
    """
    if not file.is_file():
        raise SourceError(f"{file} is not a file.")
    chosen = source.feed(feed) if feed else choose_feed(source, file)
    found = inspect(file, chosen)
    if found.refusal:
        raise SourceError(f"{file.name} cannot be landed in {source.name}.{chosen.name}: {found.refusal[1]}")
    folder = inbox(source, chosen, lake.settings.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    name = file.name.lstrip("._") if is_hidden(file) else file.name
    target = folder / f"{found.identity.sha256[:12]}-{name}"
    if not target.is_file():
        # Copied under a name that is not read, then renamed: a run that looks meanwhile sees all of it or nothing.
        unfinished = target.with_name(f"{target.name}.part")
        shutil.copyfile(file, unfinished)
        unfinished.replace(target)
    copied = identify(target)
    if copied is None or copied.sha256 != found.identity.sha256:
        target.unlink(missing_ok=True)
        raise SourceError(f"{file.name} changed while it was copied; hand it in again.")
    return land_source(lake, source, [chosen.name], run=run, progress=progress)[0]


def choose_feed(source: Source, file: Path) -> Feed:
    """Return the one feed of a source whose format and required columns a file has.

    Raises:
        SourceError: when none or several fit.
    """
    if len(source.feeds) == 1:
        return source.feeds[0]
    fitting: list[Feed] = []
    reasons: list[str] = []
    for f in source.feeds:
        if not file.name.lower().endswith(_SUFFIXES[f.format]):
            reasons.append(f"{f.name} takes {f.format} files")
            continue
        found = inspect(file, f)
        lacking = [m for m in found.missing if f.columns[m].required]
        if found.refusal:
            reasons.append(f"{f.name}: {found.refusal[1]}")
        elif lacking:
            reasons.append(f"{f.name}: lacks {', '.join(lacking)}")
        else:
            fitting.append(f)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(f.name for f in fitting)
        raise SourceError(f"{file.name} fits several feeds of '{source.name}': {names}. Name the one it is for.")
    raise SourceError(f"{file.name} fits no feed of '{source.name}': {'; '.join(reasons)}")
