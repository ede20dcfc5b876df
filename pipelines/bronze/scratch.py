"""Files that Spark cannot read as they lie are rewritten for it: workbooks, rare encodings, awkward names."""

from __future__ import annotations

import codecs
import gzip
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.bronze.preflight import Inspection, Sheet, cell_text, identify
from pipelines.bronze.rows import SEQUENCE_STEP, Part
from pipelines.bronze.sources import Feed

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

    def __init__(self, data_dir: Path, batch_id: int) -> None:
        """Nothing is written before a file needs it."""
        self._folder = data_dir.resolve() / "_ingest" / f"batch-{batch_id}"

    def __enter__(self) -> Self:
        """Clear what a run that died may have left."""
        shutil.rmtree(self._folder, ignore_errors=True)
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
        elif _AWKWARD & set(str(path)) or path.suffix in _CODECS:
            suffixes = (s.lower() for s in path.suffixes)
            readable = self._place(found.identity.sha256, "".join(s for s in suffixes if s in _KNOWN_SUFFIXES))
            shutil.copyfile(path, readable)
        layout = {"csv": "csv", "jsonl": "jsonl", "parquet": "columns"}[feed.format]
        part = Part(
            path=str(readable),
            layout=layout,
            columns=found.columns,
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
                    path=str(self._write_sheet(book[sheet.name].iter_rows(values_only=True), sheet, found, i)),
                    layout="columns",
                    columns=sheet.columns,
                    file_id=found.identity.sha256,
                    file_path=found.identity.path,
                    delivery=sheet.name if by_sheet else path.name,
                    delivery_seq=delivery_seq + min(i, SEQUENCE_STEP - 1),
                )
                for i, sheet in enumerate(found.sheets)
            ]
        finally:
            book.close()

    def _write_sheet(self, rows: Iterator[tuple[object, ...]], sheet: Sheet, found: Inspection, number: int) -> Path:
        import pyarrow as pa
        from pyarrow import parquet

        target = self._place(f"{found.identity.sha256}-{number}", ".parquet")
        schema = pa.schema([(c.header, pa.string()) for c in sheet.columns])
        width = len(sheet.columns)
        next(rows, None)
        with parquet.ParquetWriter(target, schema) as out:
            while chunk := list(islice(rows, _ROWS)):
                # Sheets often end in formatted but empty rows.
                filled = [r for r in chunk if any(v is not None for v in r)]
                cells = [[cell_text(r[i]) if i < len(r) else None for r in filled] for i in range(width)]
                out.write_table(pa.table([pa.array(c, pa.string()) for c in cells], schema=schema))
        return target

    def _place(self, stem: str, suffix: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{stem}{suffix}"


def _with_line_feeds(text: str, found: Inspection) -> str:
    for other in found.other_breaks:
        text = text.replace(other, "\n")
    return text


_KNOWN_SUFFIXES = (".csv", ".txt", ".json", ".jsonl", ".parquet", ".gz")
