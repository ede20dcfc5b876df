"""What is new: the files of a feed against the manifest, and the batches in which the new ones land."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pyspark.sql import functions as F

from lakehouse.errors import SourceError
from lakehouse.lake import Lake
from pipelines.bronze.places import locate, looking_through, uploaded
from pipelines.bronze.preflight import Identity, Inspection, identify, inspect
from pipelines.bronze.records import (
    ACCEPTED,
    MANIFEST,
    PLAN,
    RETRIES,
    SCHEMAS,
    FeedResult,
    Record,
    RunLike,
    manifest_row,
    plan_row,
    record_key,
    retry_row,
)
from pipelines.bronze.rows import SEQUENCE_STEP
from pipelines.bronze.samples import generate
from pipelines.bronze.sources import Feed, Source

MAX_FILES = 64
"""Files of one batch: each text file is a branch of the plan Spark makes."""

LARGE_ROWS = 250_000
"""Rows from which a batch of columnar files is not staged as a whole."""

_LEAST_BYTES = 10
"""Bytes a row of text takes at the least."""


class Book:
    """What the manifest knows of some sources, and the numbers it gives out.

    Args:
        lake: Where the manifest is.
        run: Who asks.
        sources: Names of the sources whose files are asked for.
        declared: All sources there are, where places are asked for.
    """

    def __init__(self, lake: Lake, run: RunLike, sources: Collection[str], declared: Iterable[Source] = ()) -> None:
        self.run = run
        self._whole, self._lake = lake, lake.for_rows(0)
        self._next: int | None = None
        self._declared = tuple(declared)
        self._places: dict[tuple[str | None, str], set[int]] = {}
        self._files: dict[tuple[str, str], list[Record]] = {}
        for r in self._rows(MANIFEST, {"source_system_id": sources}):
            self._files.setdefault((r["source_system_id"], r["feed"]), []).append(r)
        self.retries = {(r["source"], r["feed"], r["file_path"]): r for r in self._rows(RETRIES, {"source": sources})}
        layouts = self._rows(SCHEMAS, {"source": sources}, "source", "feed", "schema_hash")
        self.layouts = {(r["source"], r["feed"], r["schema_hash"]) for r in layouts}

    def files(self, source: Source, feed: Feed) -> list[Record]:
        """Manifest rows of a feed."""
        return self._files.get((source.name, feed.name), [])

    def next_place(self, source: Source, feed: Feed) -> int:
        """The place after all that are taken, for a file in the order of arrival.

        Beside files in the order of names it is not the next whole step, which belongs to the next name, unless files
        hold several deliveries, which count up within the step.
        """
        newest = max(self.places(source, feed), default=0)
        beside = [f for s in self._beside(source) for f in s.feeds if f.subject == feed.subject]
        is_named = any(f.delivery.order == "name" for f in beside)
        if is_named and all(f.delivery.by == "file" for f in beside):
            return newest + 1
        return (newest // SEQUENCE_STEP + 1) * SEQUENCE_STEP

    def places(self, source: Source, feed: Feed) -> set[int]:
        """Places taken of a subject by the sources of a merchant, which stand in one order. Add what is taken.

        Those of sources that are declared no more count for every merchant: one may go on under another name, whose
        deliveries come after.
        """
        of = (source.merchant_id, feed.subject)
        if of not in self._places:
            others = {s.name for s in self._declared if s.merchant_id != source.merchant_id}
            own = (r for r in self._placed if r["subject"] == feed.subject and r["source_system_id"] not in others)
            self._places[of] = {r["delivery_seq"] for r in own} - {None}
        return self._places[of]

    def place_after(self, source: Source, feed: Feed, number: int) -> int:
        """The place after all that are taken of a number in a name, for what a file of that name holds now.

        Of the sheets or values that are deliveries within a file only the rows tell how far they counted up.
        """
        of_number = range(number * SEQUENCE_STEP, (number + 1) * SEQUENCE_STEP)
        newest = last = max([of_number[0], *(p for p in self.places(source, feed) if p in of_number)])
        raw = f"bronze.raw_{feed.subject}"
        if (feed.delivery.by != "file" or feed.format == "excel") and self._whole.exists(raw):
            rows = self._whole.read(raw).where((F.col("source") == source.name) & (F.col("feed") == feed.name))
            within = rows.where(F.col("delivery_seq").between(of_number[0], of_number[-1]))
            newest = max(newest, within.agg(F.max("delivery_seq").alias("n")).collect()[0]["n"] or 0)
        # As many as the last one counted up must fit, or they would be places of the next number.
        return newest + 1 if newest + 1 + (newest - last) in of_number else of_number[0]

    @cached_property
    def _placed(self) -> list[Record]:
        return self._rows(MANIFEST, {}, "source_system_id", "subject", "delivery_seq")

    def _beside(self, source: Source) -> list[Source]:
        return [s for s in self._declared if s.merchant_id == source.merchant_id]

    def closed(self, key: tuple[str, str, str], status: str) -> list[Record]:
        """The row of a file that waits to be tried again, with the status that ends it; none when none waits."""
        row = self.retries.get(key)
        if row is None or row["status"] in ("resolved", status):
            return []
        return [row | {"status": status, "last_tried_at": self.run.started_at, "run_id": self.run.run_id}]

    def next_batch(self) -> int:
        """A number that no batch had before."""
        if self._next is None:
            newest = [
                self._lake.read(name).agg(F.max("batch_id").alias("n")).collect()[0]["n"]
                for name in (PLAN, MANIFEST)
                if self._lake.exists(name)
            ]
            self._next = max((n for n in newest if n is not None), default=0)
        self._next += 1
        return self._next

    def _rows(self, name: str, where: Mapping[str, Collection[str]], *only: str) -> list[Record]:
        if not self._lake.exists(name):
            return []
        rows = self._lake.read(name)
        for column, values in where.items():
            rows = rows.where(F.col(column).isin(*sorted(values)))
        return [r.asDict() for r in (rows.select(*only).distinct() if only else rows).collect()]


@dataclass(frozen=True)
class File:
    """A file to land and its row of the plan."""

    inspection: Inspection
    plan: Record


@dataclass(frozen=True)
class Batch:
    """Files of one feed that land together."""

    source: Source
    feed: Feed
    batch_id: int
    files: tuple[File, ...]

    def numbered(self, number: int) -> Batch:
        """The batch with its number, which its files' rows of the plan carry as well."""
        files = tuple(replace(f, plan=f.plan | {"batch_id": number}) for f in self.files)
        return replace(self, batch_id=number, files=files)

    @property
    def name(self) -> str:
        """`source.feed`."""
        return f"{self.source.name}.{self.feed.name}"

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(f.inspection.identity.size for f in self.files)

    @property
    def is_large(self) -> bool:
        """Whether only its refused rows are staged."""
        return bool(self.files[0].plan["staging"] == "refused")

    @property
    def rows(self) -> int:
        """Rows it holds, or as many as its bytes can hold when the files do not say."""
        known = [(f.inspection.rows, f.inspection.identity) for f in self.files]
        return sum(rows if rows is not None else about.size // _LEAST_BYTES for rows, about in known)


@dataclass
class Survey:
    """What one look at a feed's files found: files to land, manifest rows of others, and what to try again."""

    source: Source
    feed: Feed
    files: list[File] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    retries: list[Record] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """`source.feed`."""
        return f"{self.source.name}.{self.feed.name}"

    def result(self) -> FeedResult:
        """What is known before anything lands."""
        notes = tuple(f"{Path(f.inspection.identity.path).name}: {n}" for f in self.files for n in f.inspection.notes)
        if self.followed:
            notes += (followed_note(self.followed),)
        if self.tied:
            notes += (_tied_note(self.tied),)
        return FeedResult(
            self.source.name, self.feed.name, refused_files=tuple(self.refused), seconds=self.seconds, notes=notes
        )

    def batches(self) -> list[Batch]:
        """Batches of up to `MAX_FILES` files, in their order; `waves` numbers them."""
        made: list[Batch] = []
        for chunk in (self.files[i : i + MAX_FILES] for i in range(0, len(self.files), MAX_FILES)):
            is_large = self.feed.format == "parquet" and sum(f.inspection.rows or 0 for f in chunk) > LARGE_ROWS
            staging = "refused" if is_large else "all"
            files = tuple(replace(f, plan=f.plan | {"staging": staging}) for f in chunk)
            made.append(Batch(self.source, self.feed, 0, files))
        return made


def survey(lake: Lake, book: Book, source: Source, feed: Feed) -> Survey:
    """Look at the files of a feed: which are new, which are known, which cannot be read."""
    began = time.monotonic()
    found = Survey(source, feed)
    paths = _paths(lake, found)
    present = None if found.refused else {str(p) for p in paths}
    known = book.files(source, feed)
    known_paths = {r["file_path"] for r in known}
    delivered = {r["payload_hash"] for r in known if _is_delivered(r, feed)}
    done = {(r["file_path"], r["payload_hash"]) for r in known if _is_delivered(r, feed) or _is_copy(r, delivered)}
    landed_paths = {r["file_path"] for r in known if r["status_id"] in ACCEPTED}
    placed = {r["delivery_seq"] // SEQUENCE_STEP: r["file_path"] for r in known if _has_rows(r)}
    newest_at = {r["file_path"]: r for r in sorted(filter(_has_rows, known), key=lambda r: r["delivery_seq"])}
    for path in sorted(paths, key=lambda p: (_natural(p.name), str(p))):
        if not _is_text(path):
            told = os.fsencode(path).decode(errors="backslashreplace")
            found.refused.append((told, "its name is not UTF-8; rename the file"))
            continue
        seen = identify(path) if str(path) in known_paths else None
        if seen and (seen.path, seen.sha256) in done:
            found.retries += book.closed((source.name, feed.name, seen.path), "resolved")
            newest = newest_at.get(seen.path)
            if newest and newest["payload_hash"] != seen.sha256 and is_followed(known, feed, seen):
                found.followed.append(path.name)
            continue
        looked = inspect(path, feed)
        here = looked.identity
        if looked.refusal:
            found.refused.append((here.path or str(path), looked.refusal[1]))
            found.retries.append(_retry(book, source, feed, here.path, here.sha256, looked.refusal))
            if not any(r["record_key"] == record_key(source, feed, here) for r in known):
                found.records.append(manifest_row(book.run, source, feed, looked, "refused"))
        elif here.sha256 in delivered:
            found.records.append(manifest_row(book.run, source, feed, looked, "redelivered"))
            found.retries += book.closed((source.name, feed.name, here.path), "resolved")
            if is_followed(known, feed, here):
                found.followed.append(path.name)
        else:
            delivered.add(here.sha256)
            by_name = feed.delivery.order == "name"
            # An upload lies in the inbox under a name that begins with its hash.
            taken = book.places(source, feed)
            if by_name:
                number = _digits(path.name.removeprefix(f"{here.sha256[:12]}-"))
                place = number * SEQUENCE_STEP
                if placed.setdefault(number, here.path) != here.path:
                    found.tied.append(f"{path.name} and {Path(placed[number]).name}")
                if here.path in newest_at:
                    # A file that changed keeps its place among the others, and stands after what it held before.
                    place = book.place_after(source, feed, number)
            else:
                place = book.next_place(source, feed)
            taken.add(place)
            change = "changed" if here.path in landed_paths else "new"
            row = plan_row(book.run, source, feed, looked, change, place)
            found.files.append(File(looked, row))
    if present is not None:
        waiting = [key for key in book.retries if key[:2] == (source.name, feed.name)]
        found.retries += [r for key in waiting if key[2] not in present for r in book.closed(key, "withdrawn")]
    found.seconds = time.monotonic() - began
    return found


def _paths(lake: Lake, found: Survey) -> list[Path]:
    """Files of a feed that are there; of one whose location cannot be looked through, which is told, the uploads."""
    source, feed, settings = found.source, found.feed, lake.settings
    paths: list[Path] = []
    try:
        with looking_through(source, feed):
            paths = uploaded(source, feed, settings.data_dir)
            if feed.generator:
                generate(feed.generator, source, feed, settings.conf_dir, settings.data_dir)
        paths = locate(source, feed, settings.conf_dir, settings.data_dir)
    except SourceError as e:
        found.refused.append((feed.location, str(e)))
    return paths


def is_followed(known: Sequence[Record], feed: Feed, file: Identity) -> bool:
    """Whether later deliveries, which may have replaced their rows, came after the bytes of a file.

    The bytes are not landed once more for that: a folder that is copied elsewhere would bring back what was corrected.
    In the order of names only what was delivered at the same path is later; other files have places of their own.
    """
    if feed.later_delivery_replaces == "none":
        return False
    beside = [r for r in known if _has_rows(r) and (feed.delivery.order == "arrival" or r["file_path"] == file.path)]
    numbers = [(r["delivery_seq"], r["payload_hash"] == file.sha256) for r in beside]
    own = max((n for n, is_own in numbers if is_own), default=None)
    return own is not None and own < max(n for n, _ in numbers)


def followed_note(names: Sequence[str]) -> str:
    """What to tell of files that `is_followed` is true of."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"{', '.join(names[:5])}{more}: not read, these bytes were delivered before and a later delivery has followed. "
        "To deliver them as the newest, change the file, for example by an empty line at its end."
    )


def _tied_note(pairs: Sequence[str]) -> str:
    more = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
    return (
        f"{'; '.join(pairs[:5])}{more}: the numbers in their names do not tell which came later, so that nothing tells "
        "which of two rows about one thing is to count. Number the files within their first 15 digits, or declare "
        "order: arrival."
    )


def _has_rows(record: Record) -> bool:
    return record["status_id"] in ACCEPTED and record["delivery_seq"] is not None and record["rows_accepted"] > 0


def _retry(book: Book, source: Source, feed: Feed, path: str, payload_hash: str, refusal: tuple[str, str]) -> Record:
    key = (source.name, feed.name, path)
    return retry_row(book.retries.get(key), book.run, key, payload_hash, refusal)


def _is_delivered(record: Record, feed: Feed) -> bool:
    """Whether a file's bytes need no further look; one rejected whole gets one when its feed is declared anew."""
    if record["status_id"] == "rejected":
        return bool(record["declaration"] == feed.fingerprint)
    return record["status_id"] in ACCEPTED


def _is_copy(record: Record, delivered: set[str]) -> bool:
    return record["status_id"] == "redelivered" and record["payload_hash"] in delivered


def waves(batches: Sequence[Batch], book: Book) -> list[list[Batch]]:
    """Batches side by side, no subject twice in one wave: a subject has one `stg_` table.

    Numbers go up from wave to wave. What is written of a wave is written under its highest number, and Delta takes a
    lower one than the last for a repeat and ignores it.
    """
    waves: list[list[Batch]] = []
    for b in batches:
        for wave in waves:
            if all(w.feed.subject != b.feed.subject for w in wave):
                wave.append(b)
                break
        else:
            waves.append([b])
    return [[b.numbered(book.next_batch()) for b in wave] for wave in waves]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `file9` before `file10`."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _digits(name: str) -> int:
    """The number a name is placed by: its digits, where 2024-9-30 stands before 2024-10-1."""
    return int("".join(n.zfill(2) for n in re.findall(r"\d+", name, re.ASCII))[:15] or 0)
