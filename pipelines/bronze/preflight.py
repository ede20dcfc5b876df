"""What can be known of a delivered file before Spark reads it: identity, integrity, encoding and columns.

One pass over the bytes on the driver. A file that cannot be read whole is refused here, so nothing of it lands.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import traceback
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from lakehouse.errors import SegmentationError, suggest
from lakehouse.logs import get_logger
from pipelines.bronze.delimited import NEVER_IN_JSON, RecordScan
from pipelines.bronze.sources import Feed
from pipelines.bronze.workbooks import cell_text, filled_rows, unread_cell

_log = get_logger(__name__)

_CHUNK = 1 << 20
_HEAD = 1 << 20
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe", "^": "caret", "~": "tilde"}
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINES_KEPT = 100
_RECORDS = 200
_MAX_DIGITS = 38

_AGAIN = "Then deliver the file again with a change, such as an empty line at its end: what landed is not read anew."

NOTHING = "void"
"""Spark's name for the type of a column that can hold nulls only."""


@dataclass(frozen=True)
class ReadColumn:
    """A delivered column: its header, the declared column it stands for, and its type in a columnar file.

    Attributes:
        header: As delivered.
        declared: Name in the feed's declaration; None for an extra column.
        stored: Spark type to read it as from a columnar file; None in text. Of one that is left out, its own type.
        is_nanoseconds: Whether it is a Parquet timestamp in nanoseconds, which Spark reads as a whole number.
        is_instant: Whether a stored time is a point in time; otherwise it is what a wall clock showed.
        is_left_out: Whether it is an extra column that holds no plain values (lists, bytes, times of day): it is told,
            and not read.
    """

    header: str
    declared: str | None
    stored: str | None = None
    is_nanoseconds: bool = False
    is_instant: bool = False
    is_left_out: bool = False


@dataclass(frozen=True)
class Sheet:
    """A workbook sheet and its columns."""

    name: str
    columns: tuple[ReadColumn, ...]


@dataclass(frozen=True)
class Identity:
    """Which bytes a file holds: size, time of change and SHA-256."""

    path: str
    size: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class Inspection:
    """What the pass over one file found.

    Attributes:
        identity: Which bytes it holds.
        encoding: Encoding to read text with; a byte order mark wins over the declaration.
        columns: Delivered columns in file order; of JSON lines, those the first records show.
        sheets: Sheets of a workbook.
        lines: Physical lines of text after decompression, 0 for other formats.
        rows: Records a columnar file says it holds or that a text file was seen to hold, None otherwise.
        other_breaks: Line breaks of text to write as line feeds before Spark reads it, because they are mixed.
        largest_group: Rows of its largest row group, which Spark reads in one task.
        undecodable: How many lines are not valid in the encoding.
        undecodable_lines: The first hundred of their numbers, from 1.
        missing: Declared columns that the file lacks; of JSON lines, those that no record names.
        notes: What is odd but does not stop the file, for people.
        refusal: Code and reason when the file must not be read.
    """

    identity: Identity
    encoding: str = "utf-8"
    columns: tuple[ReadColumn, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    lines: int = 0
    rows: int | None = None
    other_breaks: tuple[str, ...] = ()
    largest_group: int = 0
    undecodable: int = 0
    undecodable_lines: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: tuple[str, str] | None = None


class Refused(Exception):
    """The file must not be read; raised and caught inside this module."""

    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


def inspect(path: Path, feed: Feed) -> Inspection:
    """Read a file once and say whether and how it can be landed.

    Args:
        path: The file.
        feed: Its declaration.

    Returns:
        An inspection; `refusal` is set when the file is empty, truncated, vanished, changes while it is read, is not
        what the feed declares, names columns that show another delimiter, or has a quote that is not closed. A file
        nobody thought of is refused too: it must not keep the others out.
    """
    nobody = Identity(str(path), 0, 0, "")
    try:
        before = path.stat()
        identity = Identity(str(path), before.st_size, before.st_mtime_ns, "")
        if before.st_size == 0:
            empty = replace(identity, sha256=hashlib.sha256().hexdigest())
            return Inspection(empty, refusal=("empty_file", "the file is empty (0 bytes)."))
        match feed.format:
            case "parquet":
                found = _inspect_parquet(path, feed)
            case "excel":
                found = _inspect_excel(path, feed)
            case _:
                found = _inspect_text(path, feed, identity)
        if unchanged(found.identity):
            return found
        return replace(found, refusal=("changed_while_read", "the file changed while it was being read; it is left."))
    except FileNotFoundError:
        return Inspection(nobody, refusal=("vanished", "the file disappeared before it could be read."))
    except OSError as e:
        return Inspection(nobody, refusal=("unreadable", f"the file cannot be opened: {e.strerror or e}."))
    except (SegmentationError, ImportError, MemoryError):
        raise
    except Exception as e:
        # The error's text may quote the file, and its trace the text.
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(e.__traceback__)[-3:]]
        _log.error("a file could not be looked into", extra={"error": _kind(e), "where": where})
        said = f"it could not be looked into ({_kind(e)}); check it, and deliver it again."
        return Inspection(identify(path) or nobody, refusal=("unexpected", said))


def identify(path: Path) -> Identity | None:
    """Return which bytes a file holds without looking into them; None when it is not there or not readable."""
    try:
        stat = path.stat()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except OSError:
        return None
    return Identity(str(path), stat.st_size, stat.st_mtime_ns, digest.hexdigest())


def unchanged(identity: Identity) -> bool:
    """Whether the file is still there with the size and time of change it had."""
    try:
        stat = Path(identity.path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (identity.size, identity.modified_ns)


def match_columns(feed: Feed, headers: Iterable[str]) -> tuple[tuple[ReadColumn, ...], tuple[str, ...]]:
    """Pair delivered headers with declared columns.

    Returns:
        Delivered columns in order, and the declared columns nothing stands for.

    Raises:
        Refused: when two headers stand for one declared column.
    """
    found: list[ReadColumn] = []
    taken: dict[str, str] = {}
    for position, header in enumerate(headers):
        name = header.strip() or f"column_{position + 1}"
        declared = feed.declared_name(name)
        if declared is not None and declared in taken:
            raise Refused("ambiguous_column", f"headers '{taken[declared]}' and '{name}' both stand for '{declared}'.")
        if declared is not None:
            taken[declared] = name
        # The engine tells columns apart without regard to capitals.
        own = name.lower()
        repeated = sum(1 for c in found if c.header.lower() == own or c.header.lower().startswith(f"{own} ("))
        found.append(ReadColumn(f"{name} ({repeated + 1})" if repeated else name, declared))
    return tuple(found), tuple(n for n in feed.columns if n not in taken)


def _require_told_apart(names: Sequence[str]) -> None:
    """Columns of a file that the engine reads by their names, without regard to capitals."""
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(name.lower(), name)) != name:
            raise Refused(
                "ambiguous_column", f"columns '{other}' and '{name}' differ in capitals only; give one another name."
            )


def describe_missing(missing: Sequence[str], columns: Sequence[ReadColumn]) -> str:
    """Name missing columns and, where an undeclared header looks alike, what they may have been renamed to."""
    extra = [c.header for c in columns if c.declared is None]
    renamed = [suggest(m, extra).replace("Did you mean", f"Was '{m}' renamed to") for m in missing]
    hint = f" Undeclared columns delivered: {', '.join(extra)}." if extra else ""
    named = ", ".join(f"'{m}'" for m in missing)
    return (
        f"missing column(s) {named}.{''.join(renamed)}{hint} If a column was renamed, add its new name under aliases."
    )


def _inspect_text(path: Path, feed: Feed, identity: Identity) -> Inspection:
    digest = hashlib.sha256()
    try:
        text = _read_text(_plain_bytes(path, digest), feed)
    except Refused as r:
        return Inspection(identify(path) or identity, refusal=(r.code, r.reason))
    base = Inspection(
        replace(identity, sha256=digest.hexdigest()),
        encoding=text.encoding,
        lines=text.lines,
        rows=text.scan.records - (feed.format == "csv" and feed.options.header),
        other_breaks=text.scan.other_breaks,
        undecodable=text.undecodable,
        undecodable_lines=tuple(text.undecodable_lines),
    )
    if text.undecodable:
        first = ", ".join(map(str, text.undecodable_lines[:5]))
        base = replace(base, notes=(f"{text.undecodable} line(s) are not valid {text.encoding}, first: {first}.",))
    if text.scan.doubtful:
        said = f"{len(text.scan.doubtful)} quoted cell(s) hold line breaks and as many delimiters as whole rows"
        base = replace(base, notes=(*base.notes, f"{said}, first on line {text.scan.doubtful[0]}: is a quote missing?"))
    try:
        if feed.format == "jsonl":
            columns, missing = _sniff_json(feed, path, text)
        else:
            columns, missing = _sniff_csv(feed, text.head)
    except Refused as r:
        return replace(base, refusal=(r.code, r.reason))
    if text.scan.problem:
        return replace(base, refusal=("unbalanced_quote", text.scan.problem))
    return _judge_columns(feed, replace(base, columns=columns, missing=missing))


def _judge_columns(feed: Feed, found: Inspection) -> Inspection:
    lacking = [m for m in found.missing if feed.columns[m].required]
    if lacking and feed.missing_columns == "refuse_file":
        return replace(found, refusal=("missing_column", describe_missing(lacking, found.columns)))
    notes = list(found.notes)
    if left_out := [f"{c.header} ({c.stored})" for c in found.columns if c.is_left_out]:
        notes.append(f"undeclared column(s) of no plain values, which are not kept: {', '.join(left_out)}.")
    if found.missing:
        notes.append(f"{describe_missing(found.missing, found.columns)} {_AGAIN}")
    elif extra := [c.header for c in found.columns if c.declared is None and not c.is_left_out]:
        notes.append(f"undeclared column(s) kept aside: {', '.join(extra)}.")
    return replace(found, notes=tuple(notes))


@dataclass
class _Text:
    encoding: str
    scan: RecordScan
    head: str = ""
    lines: int = 0
    undecodable: int = 0
    undecodable_lines: list[int] = field(default_factory=list)


def _read_text(blocks: Iterator[bytes], feed: Feed) -> _Text:
    first = next(blocks, b"")
    if not first:
        raise Refused("empty_file", "the file is empty once decompressed.")
    encoding = _encoding_of(first, feed.options.encoding)
    text = _Text(encoding, _record_scan(feed))
    head = bytearray()
    wide = encoding.startswith(("utf-16", "utf-32"))
    incremental = codecs.getincrementaldecoder(encoding)("strict" if wide else "replace")
    pending: list[bytes] = []
    for block in chain([first], blocks):
        if len(head) < _HEAD:
            head += block
        if wide:
            # Line breaks are not single bytes here, and an invalid pair spoils what follows: refuse rather than guess.
            try:
                decoded = incremental.decode(block)
            except UnicodeDecodeError:
                raise Refused("undecodable", f"the file says it is {encoding} but is not valid {encoding}.") from None
            except UnicodeError:
                raise Refused("undecodable", _unmarked(encoding)) from None
            text.lines += decoded.count("\n")
            text.scan.feed(decoded)
            continue
        text.scan.feed(incremental.decode(block))
        cut = block.rfind(b"\n") + 1
        if not cut:
            pending.append(block)
            continue
        _check_lines(text, b"".join([*pending, block[:cut]]))
        pending = [block[cut:]] if cut < len(block) else []
    try:
        text.scan.feed(incremental.decode(b"", final=True))
    except UnicodeDecodeError:
        raise Refused("truncated", f"the file ends in the middle of a {encoding} character.") from None
    except UnicodeError:
        raise Refused("undecodable", _unmarked(encoding)) from None
    text.scan.finish()
    if rest := b"".join(pending):
        _check_lines(text, rest)
        text.lines += 1
    text.head = bytes(head).decode(encoding, errors="replace")
    return text


def _unmarked(encoding: str) -> str:
    return (
        f"it is declared {encoding} but does not begin with a byte order mark; declare {encoding}-le or {encoding}-be."
    )


def _record_scan(feed: Feed) -> RecordScan:
    if feed.format == "jsonl":
        return RecordScan(NEVER_IN_JSON, "", None, 1)
    width = None if feed.options.header else len(feed.columns)
    return RecordScan(feed.options.delimiter, feed.options.quote, feed.options.escape, width)


def _check_lines(text: _Text, block: bytes) -> None:
    # A byte order mark is valid UTF-8, so plain UTF-8 checks the later blocks of a marked file as well.
    encoding = "utf-8" if text.encoding == "utf-8-sig" else text.encoding
    try:
        block.decode(encoding)
    except UnicodeDecodeError:
        for offset, line in enumerate(block.split(b"\n")):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                text.undecodable += 1
                if len(text.undecodable_lines) < _LINES_KEPT:
                    text.undecodable_lines.append(text.lines + offset + 1)
    text.lines += block.count(b"\n")


def _encoding_of(first: bytes, declared: str) -> str:
    for mark, encoding in _BOMS:
        if first.startswith(mark):
            return encoding
    sample = first[:4096]
    if declared in ("utf-8", "utf8") and len(sample) >= 4 and sample.count(0) > len(sample) // 4:
        return "utf-16-le" if sample[1::2].count(0) >= sample[::2].count(0) else "utf-16-be"
    return declared


def _plain_bytes(path: Path, digest: Any) -> Iterator[bytes]:
    """Yield the file's content, decompressed, while the digest sees the bytes as delivered."""
    raw = _chunks(path)
    first = next(raw, b"")
    is_gzip = first.startswith(b"\x1f\x8b")
    named_gzip = path.suffix.lower() == ".gz"
    if named_gzip and not is_gzip:
        raise Refused("not_gzip", "the name ends in .gz but the content is not gzip; rename the file.")
    if is_gzip and not named_gzip:
        raise Refused("unnamed_gzip", "the content is gzip but the name does not end in .gz; rename the file.")
    if not is_gzip:
        for chunk in chain([first], raw):
            digest.update(chunk)
            yield chunk
        return
    inflate = zlib.decompressobj(wbits=31)
    try:
        for chunk in chain([first], raw):
            digest.update(chunk)
            data = chunk
            while data:
                if inflate.eof:
                    if not data.strip(b"\0"):
                        raise Refused("corrupt_gzip", "zeros follow its gzip content; compress the file again.")
                    inflate = zlib.decompressobj(wbits=31)
                # Bounded output: a small archive of a huge file must not fill the memory.
                out = inflate.decompress(data, _CHUNK)
                if out:
                    yield out
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    except zlib.error as e:
        raise Refused("corrupt_gzip", f"the gzip content is damaged ({e}); ask for the file again.") from None
    if not inflate.eof:
        raise Refused("truncated_gzip", "the gzip content ends too early (truncated); ask for the file again.")


def _sniff_csv(feed: Feed, head: str) -> tuple[tuple[ReadColumn, ...], tuple[str, ...]]:
    if not feed.options.header:
        return tuple(ReadColumn(n, n) for n in feed.columns), ()
    declared = feed.options.delimiter
    headers = _first_record(head, declared, feed.options.quote)
    if not any(cell.strip() for cell in headers):
        raise Refused(
            "no_header",
            "the file has no header: its first row holds blank cells only. Remove what is above the header.",
        )
    score = _matches(feed, headers)
    others = {d: _matches(feed, _first_record(head, d, feed.options.quote)) for d in _DELIMITERS if d != declared}
    best = max(others, key=lambda d: others[d])
    if others[best] > score and others[best] >= min(2, len(feed.columns)):
        raise Refused(
            "wrong_delimiter",
            f"cells are separated by {_DELIMITERS[best]} ('{_shown(best)}') but the feed declares "
            f"{_DELIMITERS.get(declared, 'delimiter')} ('{_shown(declared)}'): set options.delimiter or export again.",
        )
    if score == 0:
        # The row may be data of persons, so it is not shown.
        raise Refused(
            "no_header",
            f"none of the {len(headers)} cell(s) of the first row is a declared column: is the header missing, or is "
            f"it another feed's file? Expected: {', '.join(feed.columns)}.",
        )
    return match_columns(feed, headers)


def _sniff_json(feed: Feed, path: Path, text: _Text) -> tuple[tuple[ReadColumn, ...], tuple[str, ...]]:
    if text.head.lstrip("\ufeff \t\r\n").startswith("["):
        raise Refused("json_array", "the file is one JSON array; JSON lines hold one object per line.")
    # Each record may spell a name in its own way, so that nothing is ambiguous in the file as a whole. A key that no
    # early record has may still come: only then is the file read on.
    columns: list[ReadColumn] = []
    seen: set[str] = set()
    lacking, number = set(feed.columns), 0
    for number, record in enumerate(_json_records(path, text.encoding), start=1):
        if number > _RECORDS and not lacking:
            break
        for key in [k for k in record if k not in seen]:
            declared = feed.declared_name(key)
            if number <= _RECORDS or declared in lacking:
                columns.append(ReadColumn(key, declared))
            lacking.discard(declared or "")
            seen.add(key)
    return tuple(columns), tuple(n for n in feed.columns if n in lacking) if number else ()


def _json_records(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    opening = gzip.open if path.suffix.lower() == ".gz" else open
    with opening(path, "rt", encoding=encoding, errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line.lstrip("\ufeff"))
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def _inspect_parquet(path: Path, feed: Feed) -> Inspection:
    import pyarrow as pa
    from pyarrow import parquet

    known = identify(path)
    if known is None:
        raise FileNotFoundError(path)
    try:
        with parquet.ParquetFile(path) as opened:
            stored, physical, footer = opened.schema_arrow, opened.schema, opened.metadata
    except (pa.ArrowInvalid, pa.ArrowException, OSError, EOFError) as e:
        reason = str(e).splitlines()[0]
        return Inspection(known, refusal=("unreadable_parquet", f"not a whole Parquet file ({reason})."))
    nanoseconds = {
        physical.column(i).path for i in range(len(physical)) if "timeunit=nanoseconds" in _logical(physical.column(i))
    }
    instants = {
        physical.column(i).path for i in range(len(physical)) if "isadjustedtoutc=true" in _logical(physical.column(i))
    }
    # INT96 says nothing of zones and Spark insists on reading it as an instant; its writers put wall clocks in.
    int96 = {physical.column(i).path for i in range(len(physical)) if physical.column(i).physical_type == "INT96"}
    try:
        columns, missing = match_columns(feed, stored.names)
        _require_told_apart(stored.names)
        typed = tuple(
            _stored(
                replace(c, header=f.name, is_nanoseconds=f.name in nanoseconds, is_instant=f.name in instants),
                f.type,
                _spark_type(f.type, f.name in instants | int96, f.name in nanoseconds),
            )
            for c, f in zip(columns, stored, strict=True)
        )
    except Refused as r:
        return Inspection(known, rows=footer.num_rows, refusal=(r.code, r.reason))
    largest = max((footer.row_group(i).num_rows for i in range(footer.num_row_groups)), default=0)
    found = Inspection(known, columns=typed, missing=missing, rows=footer.num_rows, largest_group=largest)
    return _judge_columns(feed, found)


def _logical(column: Any) -> str:
    return str(column.logical_type).lower().replace(" ", "")


def _stored(column: ReadColumn, arrow: Any, spark: str | None) -> ReadColumn:
    if spark is None and column.declared:
        raise Refused(
            "unsupported_column", f"column '{column.header}' is of type {arrow}; feeds hold plain values only."
        )
    return replace(column, stored=spark or str(arrow), is_left_out=spark is None)


def _spark_type(arrow: Any, is_instant: bool, is_nanoseconds: bool) -> str | None:
    """What Spark reads a type of Arrow as; None where that is no plain value."""
    import pyarrow.types as t

    if is_nanoseconds:
        return "bigint"
    if t.is_timestamp(arrow):
        return "timestamp" if is_instant else "timestamp_ntz"
    if t.is_decimal(arrow) and arrow.precision <= _MAX_DIGITS:
        return f"decimal({arrow.precision},{arrow.scale})"
    if t.is_dictionary(arrow):
        return _spark_type(arrow.value_type, is_instant, is_nanoseconds)
    for is_type, spark in (
        (t.is_int8, "tinyint"),
        (t.is_int16, "smallint"),
        (t.is_int32, "int"),
        (t.is_int64, "bigint"),
        (t.is_uint8, "smallint"),
        (t.is_uint16, "int"),
        (t.is_uint32, "bigint"),
        (t.is_uint64, "decimal(20,0)"),
        (t.is_float32, "float"),
        (t.is_float64, "double"),
        (t.is_boolean, "boolean"),
        (t.is_date, "date"),
        (t.is_string, "string"),
        (t.is_large_string, "string"),
        (t.is_string_view, "string"),
        (t.is_null, NOTHING),
    ):
        if is_type(arrow):
            return spark
    return None


def _inspect_excel(path: Path, feed: Feed) -> Inspection:
    from openpyxl import load_workbook

    known = identify(path)
    if known is None:
        raise FileNotFoundError(path)
    if path.suffix.lower() not in (".xlsx", ".xlsm"):
        return Inspection(known, refusal=("not_a_workbook", "only .xlsx and .xlsm workbooks are read; save it as one."))
    sheets: list[Sheet] = []
    missing: dict[str, None] = {}
    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            # Not `sheetnames`: charts have sheets of their own.
            there = {s.title: s for s in book.worksheets}
            wanted = feed.options.sheets or tuple(there)
            absent = [s for s in wanted if s not in there]
            if absent:
                names = ", ".join(there)
                raise Refused("missing_sheet", f"the workbook has no sheet {', '.join(absent)}; sheets are {names}.")
            for name in wanted:
                first = next(filled_rows(there[name]), None)
                if first is None:
                    continue
                columns, lacking = match_columns(feed, [cell_text(v) or "" for v in first])
                if not any(c.declared for c in columns):
                    raise Refused(
                        "no_header", f"the first filled row of sheet '{name}' names none of the declared columns."
                    )
                if unread := unread_cell(there[name]):
                    raise Refused(*unread)
                sheets.append(Sheet(name, columns))
                missing |= dict.fromkeys(lacking)
        finally:
            book.close()
    except Refused as r:
        return Inspection(known, refusal=(r.code, r.reason))
    except (OSError, MemoryError):
        raise
    except Exception as e:
        # Damaged bytes end in errors of the archive, of its packing, of XML or of what is made of them.
        return Inspection(known, refusal=("unreadable_workbook", f"not a whole workbook ({_kind(e)})."))
    if not sheets:
        return Inspection(known, refusal=("empty_file", "the workbook has no sheet with a header."))
    return _judge_columns(
        feed, Inspection(known, columns=sheets[0].columns, sheets=tuple(sheets), missing=tuple(missing))
    )


def widened(feed: Feed, columns: Sequence[ReadColumn], width: int) -> tuple[ReadColumn, ...]:
    """Columns of a sheet and further ones without a header, up to a width."""
    return match_columns(feed, [*(c.header for c in columns), *[""] * (width - len(columns))])[0]


def _kind(error: Exception) -> str:
    """Class of an error with its module, since several are called no more than `error`."""
    return f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")


def _matches(feed: Feed, headers: Sequence[str]) -> int:
    return len({d for h in headers if (d := feed.declared_name(h.strip())) is not None})


def _first_record(head: str, delimiter: str, quote: str) -> list[str]:
    # The default limit of 131,072 characters per cell would refuse files that Spark reads.
    csv.field_size_limit(1 << 30)
    plain = io.StringIO(head.lstrip("\ufeff"), newline="")
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    for record in csv.reader(plain, delimiter=delimiter, quotechar=quote or None, quoting=quoting):
        # Spark passes over empty lines and takes anything else for the header, be its cells blank or not.
        if record:
            return record
    return []


def _shown(delimiter: str) -> str:
    return "\\t" if delimiter == "\t" else delimiter


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
