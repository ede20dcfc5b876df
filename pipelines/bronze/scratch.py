"""Files that Spark cannot read as they lie are rewritten for it: workbooks, rare encodings, names, places."""

from __future__ import annotations

import codecs
import gzip
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipelines.bronze.preflight import Inspection, ReadColumn, Sheet, identify, widened
from pipelines.bronze.rows import SEQUENCE_STEP, Part
from pipelines.bronze.sources import Feed
from pipelines.bronze.workbooks import cell_text, filled_rows

_SPARK_ENCODINGS = {
    "utf-8",
    "utf8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-16le",
    "utf-16be",
    "utf-32",
    "iso-8859-1",
    "latin-1",
    "us-ascii",
    "ascii",
}
_AWKWARD = frozenset('*?[]{}\\:%#"')
# Spark unpacks by the name alone. Nothing but gzip passes preflight packed, and Spark knows that in small letters only.
_CODECS = frozenset((".bz2", ".deflate", ".lz4", ".snappy", ".zst", ".GZ", ".Gz", ".gZ"))
_ROWS = 20_000
_CHUNK = 1 << 20


class Scratch:
    """Rewritten files of one batch; they are gone when the block ends."""

    def __init__(self, data_dir: Path, batch_id: int, *, is_remote: bool = False) -> None:
        """Nothing is written before a file needs it. Spark that is remote sees the data directory and volumes only."""
        self._folder = _folder(data_dir) / f"batch-{batch_id}"
        self._seen = (data_dir.resolve(), Path("/Volumes")) if is_remote else (Path("/"),)

    def __enter__(self) -> Self:
        """The numbers of batches are new, so nothing is there."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the rewritten files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def copy(self, found: Inspection) -> Path | None:
        """Copy a file, so that nobody can change it while it is read; None when it is no longer what was inspected."""
        target = self._place(found.identity.sha256, Path(found.identity.path).suffix)
        try:
            shutil.copyfile(found.identity.path, target)
        except OSError:
            return None
        copied = identify(target)
        return target if copied and copied.sha256 == found.identity.sha256 else None

    def parts(self, feed: Feed, found: Inspection, delivery_seq: int) -> list[Part]:
        """Return what Spark reads for one inspected file, rewriting it first where needed."""
        path = Path(found.identity.path)
        if feed.format == "excel":
            return self._sheets(feed, found, path, delivery_seq)
        encoding = found.encoding
        readable = path
        if feed.format != "parquet" and (encoding not in _SPARK_ENCODINGS or found.other_breaks):
            readable, encoding = self._transcode(path, found), "utf-8"
        elif _AWKWARD & set(str(path)) or path.suffix in _CODECS or not any(map(path.is_relative_to, self._seen)):
            suffixes = (s.lower() for s in path.suffixes)
            readable = self._place(found.identity.sha256, "".join(s for s in suffixes if s in _KNOWN_SUFFIXES))
            shutil.copyfile(path, readable)
        layout = {"csv": "csv", "jsonl": "jsonl", "parquet": "columns"}[feed.format]
        part = Part(
            path=str(readable),
            layout=layout,
            columns=tuple(c for c in found.columns if not c.is_left_out),
            file_id=found.identity.sha256,
            file_path=found.identity.path,
            delivery=path.name,
            delivery_seq=delivery_seq,
            encoding=encoding,
            has_undecodable=found.undecodable > 0,
        )
        return [part]

    def _transcode(self, path: Path, found: Inspection) -> Path:
        target = self._place(found.identity.sha256, ".txt")
        opening = gzip.open if path.suffix.lower() == ".gz" else open
        decode = codecs.getincrementaldecoder(found.encoding)("replace").decode
        held = ""
        with opening(path, "rb") as raw, target.open("w", encoding="utf-8", newline="") as out:
            while chunk := raw.read(_CHUNK):
                text = held + decode(chunk)
                # It may be half of a line break.
                held = "\r" if text.endswith("\r") else ""
                out.write(_with_line_feeds(text[: len(text) - len(held)], found))
            out.write(_with_line_feeds(held + decode(b"", final=True), found))
        return target

    def _sheets(self, feed: Feed, found: Inspection, path: Path, delivery_seq: int) -> list[Part]:
        from openpyxl import load_workbook

        by_sheet = feed.delivery.by == "sheet" or len(found.sheets) > 1
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            return [
                Part(
                    path=str(target),
                    layout="columns",
                    columns=self._copy_sheet(feed, book[sheet.name], sheet, target),
                    file_id=found.identity.sha256,
                    file_path=found.identity.path,
                    delivery=sheet.name if by_sheet else path.name,
                    delivery_seq=delivery_seq + min(i, SEQUENCE_STEP - 1),
                )
                for i, sheet in enumerate(found.sheets)
                for target in [self._place(f"{found.identity.sha256}-{i}", ".parquet")]
            ]
        finally:
            book.close()

    def _copy_sheet(self, feed: Feed, opened: Any, sheet: Sheet, target: Path) -> tuple[ReadColumn, ...]:
        """Write the rows of a sheet as Parquet; returns its columns, with those that have cells but no header."""
        columns = sheet.columns
        width = _write_rows(filled_rows(opened), columns, target)
        if width > len(columns):
            columns = widened(feed, columns, width)
            _write_rows(filled_rows(opened), columns, target)
        return columns

    def _place(self, stem: str, suffix: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{stem}{suffix}"


def clear(data_dir: Path) -> None:
    """Remove the files that batches of a run that died have left: they hold what was delivered."""
    shutil.rmtree(_folder(data_dir), ignore_errors=True)


def _folder(data_dir: Path) -> Path:
    return data_dir.resolve() / "_ingest"


def _write_rows(rows: Iterator[tuple[object, ...]], columns: Sequence[ReadColumn], target: Path) -> int:
    """Write what comes after the header into these columns; returns how many the rows would fill."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(c.header, pa.string()) for c in columns])
    width = filled = len(columns)
    next(rows, None)
    with parquet.ParquetWriter(target, schema) as out:
        while chunk := list(islice(rows, _ROWS)):
            filled = max([filled, *(_filled_width(r) for r in chunk if len(r) > filled)])
            cells = [[cell_text(r[i]) if i < len(r) else None for r in chunk] for i in range(width)]
            out.write_table(pa.table([pa.array(c, pa.string()) for c in cells], schema=schema))
    return filled


def _filled_width(row: Sequence[object]) -> int:
    return max(i for i, value in enumerate(row, start=1) if value is not None)


def _with_line_feeds(text: str, found: Inspection) -> str:
    for other in found.other_breaks:
        text = text.replace(other, "\n")
    return text


_KNOWN_SUFFIXES = (".csv", ".txt", ".json", ".jsonl", ".parquet", ".gz")
