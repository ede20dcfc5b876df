"""A file somebody hands in lands like any other: it is copied to its feed's inbox and read from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lakehouse.errors import SourceDeclarationError, SourceError
from lakehouse.lake import Lake
from lakehouse.moves import move
from pipelines.bronze.ingest import land_source
from pipelines.bronze.places import inbox, is_hidden
from pipelines.bronze.preflight import identify, inspect
from pipelines.bronze.records import FeedResult, Progress, RunLike
from pipelines.bronze.sources import Feed, Source
from pipelines.bronze.survey import Book, followed_note, is_followed

_SUFFIXES = {
    "csv": (".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz"),
    "jsonl": (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz"),
    "parquet": (".parquet",),
    "excel": (".xlsx", ".xlsm"),
}

_UNFINISHED = ".part"
_NAME_BYTES = 255
"""What file systems allow a name."""


def ingest_file(
    lake: Lake,
    file: Path,
    source: Source,
    feed: str | None = None,
    *,
    run: RunLike,
    declared: Iterable[Source] = (),
    progress: Progress | None = None,
) -> FeedResult:
    """Copy an uploaded file to its feed's inbox and land it. The same bytes handed in twice land once.

    Args:
        lake: Where tables are.
        file: The upload; it is left where it is.
        source: Source it belongs to.
        feed: Feed it belongs to; found by the file's columns when the source has several.
        run: Who lands it.
        declared: All sources there are, see `land_sources`.
        progress: Told of start and end.

    Raises:
        SourceError: when the file is not there, cannot be read, or fits no feed or several.
    """
    if not file.is_file():
        raise SourceDeclarationError(f"{file} is not a file.")
    chosen = source.feed(feed) if feed else choose_feed(source, file)
    found = inspect(file, chosen)
    if found.refusal:
        raise SourceError(f"{file.name} cannot be landed in {source.name}.{chosen.name}: {found.refusal[1]}")
    folder = inbox(source, chosen, lake.settings.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _stored_name(file, found.identity.sha256)
    was_there = target.is_file()
    if not was_there:
        # Copied under a name that is not read, then renamed: a run that looks meanwhile sees all of it or nothing.
        unfinished = target.with_name(f"{target.name}{_UNFINISHED}")
        shutil.copyfile(file, unfinished)
        move(unfinished, target)
    copied = identify(target)
    if copied is None or copied.sha256 != found.identity.sha256:
        target.unlink(missing_ok=True)
        raise SourceError(f"{file.name} changed while it was copied; hand it in again.")
    result = land_source(lake, source, [chosen.name], run=run, declared=declared, progress=progress)[0]
    known = Book(lake, run, [source.name]).files(source, chosen)
    if was_there and is_followed(known, chosen, copied):
        return replace(result, notes=(*result.notes, followed_note([file.name])))
    if was_there and not result.files_new and not result.refused_files:
        return replace(
            result, notes=(*result.notes, f"{file.name}: these bytes are in already, nothing was to be done.")
        )
    return result


def _stored_name(file: Path, sha256: str) -> str:
    """Name of an upload in the inbox; of a long one the end of its stem is left out."""
    name = file.name.lstrip("._") if is_hidden(file) else file.name
    prefix = f"{sha256[:12]}-"
    room = _NAME_BYTES - len(prefix) - len(_UNFINISHED)
    if len(name.encode()) > room:
        known = sorted((s for some in _SUFFIXES.values() for s in some), key=len, reverse=True)
        cut = next((len(s) for s in known if name.lower().endswith(s)), 0)
        stem, suffix = name[: len(name) - cut], name[len(name) - cut :]
        name = stem.encode()[: room - cut].decode(errors="ignore") + suffix
    return prefix + name


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
        raise SourceError(
            f"{file.name} fits several feeds of '{source.name}': {names}. Name the one it is for with --feed."
        )
    raise SourceError(f"{file.name} fits no feed of '{source.name}': {'; '.join(reasons)}")
