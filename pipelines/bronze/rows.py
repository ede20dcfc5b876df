"""Delivered rows become typed rows: every value in its canonical column, every refusal with its reasons.

Two pure steps: `read_delivered` gives the cells as they are with exact positions, `type_rows` gives the landing table's
columns. A refused row keeps what could be typed; its `parse_errors` say why, as `reason:column` without values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructField, StructType

from lakehouse import ddl
from lakehouse.declare import Table, table_of
from lakehouse.frames import frame_of
from pipelines.bronze.delimited import NEVER_IN_JSON
from pipelines.bronze.places import literal
from pipelines.bronze.preflight import NOTHING, ReadColumn
from pipelines.bronze.sources import Feed, FeedColumn, Source, canonical_fields, normal_name

REPLACEMENT = "\ufffd"
"""What a decoder puts for bytes it cannot read."""

SEQUENCE_STEP = 1000
"""Deliveries inside one file count up on the file's number; more than these in one file are not told apart."""

_ROW = "_row"
_BAD = "_bad"
_LINE = "_line"
_NAME = "_name"
_NUMBER = "_number"
_PLACE = "_place"
_ABOUT = {"_file_id": "string", "_file_path": "string", "_delivery": "string", "_delivery_seq": "bigint"}
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
_TEXT = (None, "string", NOTHING)
# A byte order mark stands within a text where files were joined.
_WHITE = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\ufeff"
_END = "end of line"
_LEFT_OUT = r"(?U)[\s_.\-\ufeff]+"
_DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_CELL_ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A")
_ISO_DAY = r"^\d{4}-\d{1,2}-\d{1,2}"
# Java takes three letters for a zone by a table of its own: BST is Bangladesh, not Britain in summer.
_ISO_TIME = _ISO_DAY + r"([ T][\d:.]*\s*(Z|UTC|GMT|[+-]\d\d(:?\d\d)?|[A-Za-z]+(/[A-Za-z0-9_+-]+)+)?)?$"
# 1.234.567,89: no number in groups starts with 0.
_GROUPED = r"^-?[1-9]\d{0,2}(\.\d{3})+(,\d+)?$"
_GROUPED_OR_NOT = r"^-?[1-9]\d{0,2}\.\d{3}$"


@dataclass(frozen=True)
class Part:
    """What one read takes: a file, or one sheet of a workbook.

    Attributes:
        path: Where Spark reads it; differs from `file_path` when the file had to be rewritten first.
        layout: `csv`, `jsonl` or `columns` (Parquet).
        columns: Delivered columns in file order.
        file_id: SHA-256 of the delivered file.
        file_path: Where the delivered file is.
        delivery: Name of the delivery, when it is not a column's value.
        delivery_seq: Its order.
        encoding: Encoding of text.
        has_undecodable: Whether some lines are not valid in that encoding.
        span: First and last row (exclusive) to take of a columnar file; None for all.
    """

    path: str
    layout: str
    columns: tuple[ReadColumn, ...]
    file_id: str
    file_path: str
    delivery: str
    delivery_seq: int
    encoding: str = "utf-8"
    has_undecodable: bool = False
    span: tuple[int, int] | None = None


def alike(parts: Iterable[Part]) -> list[tuple[Part, ...]]:
    """Parts that one read takes: columnar files of one layout that their names tell apart; any other by itself.

    A plan with a branch per file is compiled branch by branch, which for many files costs more than reading them.
    """
    groups: list[list[Part]] = []
    for part in parts:
        group = next((g for g in groups if _joins(part, g)), None)
        if group is None:
            groups.append([part])
        else:
            group.append(part)
    return [tuple(group) for group in groups]


def _joins(part: Part, group: Sequence[Part]) -> bool:
    first, name = group[0], Path(part.path).name
    can_join = all(_has_row_names(p) for p in (part, first)) and first.columns == part.columns
    return can_join and name not in {Path(p.path).name for p in group}


def _has_row_names(part: Part) -> bool:
    # Spark names the file of a row as a URL does, which is what it is called for plain names only.
    return part.layout == "columns" and part.span is None and _PLAIN.fullmatch(Path(part.path).name) is not None


def read_delivered(spark: SparkSession, feed: Feed, parts: Sequence[Part]) -> DataFrame:
    """One row per record of some parts that are `alike`.

    A text file is one partition however large it is, which makes positions exact; columnar files carry them.

    Returns:
        Cells `c0`, `c1`, ... in file order (or `_line` for JSON); `_row`, the position in the part from 0; and of the
        part `_file_id`, `_file_path`, `_delivery` and `_delivery_seq`.
    """
    part = parts[0]
    about = [(p.file_id, p.file_path, p.delivery, p.delivery_seq) for p in parts]
    known = list(zip(_ABOUT, about[0], strict=True))
    if part.layout == "columns":
        typed = [c for c in part.columns if c.stored != NOTHING]
        stored = StructType([StructField(c.header, DataType.fromDDL(c.stored or "string")) for c in typed])
        cells = [_stored_cell(c).alias(f"c{i}") for i, c in enumerate(part.columns)]
        cells.append(F.col("_metadata.row_index").alias(_ROW))
        frame = spark.read.schema(stored).parquet(*[literal(p.path) for p in parts])
        if len(parts) == 1:
            rows = frame.select(*cells, *[F.lit(value).alias(name) for name, value in known])
            return rows.where(F.col(_ROW).between(part.span[0], part.span[1] - 1)) if part.span else rows
        columns = {_NAME: "string", **_ABOUT}
        named = [
            dict(zip(columns, (Path(p.path).name, *said), strict=True)) for p, said in zip(parts, about, strict=True)
        ]
        files = frame_of(spark, StructType.fromDDL(", ".join(f"{n} {t}" for n, t in columns.items())), named)
        return frame.select(*cells, F.col("_metadata.file_name").alias(_NAME)).join(F.broadcast(files), on=_NAME)
    is_json = part.layout == "jsonl"
    names = [_LINE] if is_json else [f"c{i}" for i in range(len(part.columns))]
    options = {
        # Not split: a line break inside quotes does not end a record, and positions count from the file's start.
        "multiLine": True,
        "header": feed.options.header and not is_json,
        "enforceSchema": True,
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _BAD,
        "encoding": _spark_encoding(part.encoding),
        "sep": NEVER_IN_JSON if is_json else feed.options.delimiter,
        "quote": "" if is_json else feed.options.quote,
        "escape": "" if is_json else feed.options.escape or feed.options.quote,
        "maxCharsPerColumn": -1,
        "maxColumns": 20_000,
    }
    text = ", ".join(f"{ddl.quote(n)} string" for n in [*names, _BAD])
    frame = spark.read.schema(text).options(**options).csv(literal(part.path))
    position = F.monotonically_increasing_id().alias(_ROW)
    return frame.select(*names, _BAD, position, *[F.lit(value).alias(name) for name, value in known])


def _stored_cell(column: ReadColumn) -> Column:
    # How a column of a type without values is stored says nothing of what it would hold.
    return F.lit(None).cast("string") if column.stored == NOTHING else F.col(ddl.quote(column.header))


def type_rows(
    delivered: DataFrame, source: Source, feed: Feed, part: Part, batch_id: int, loaded_at: datetime
) -> DataFrame:
    """One row per delivered record in the columns of `bronze.stg_<subject>`.

    Args:
        delivered: From `read_delivered`.
        source: Gives the zone of times.
        feed: Gives columns, types and mapping.
        part: What was read; any one of several parts.
        batch_id: Ingest batch.
        loaded_at: Start of the run, UTC.

    Returns:
        `parse_errors` is null for an accepted row. A required cell that is blank is `missing:<column>`, one that is
        not of the declared type `mistyped:<column>`, one with bytes outside the encoding `undecodable:<column>`; a
        line with more or fewer cells than the header is `ragged:row`, one that is no JSON object, or that names a
        declared column twice, `malformed:row`; of a file that names more deliveries by number than are told apart each
        row is `too_many:<column>`.
    """
    landing = table_of(f"bronze.stg_{feed.subject}")
    rows = delivered
    if part.layout == "jsonl":
        rows = _parse_lines(delivered, feed, part)
    cells = _cells(feed, part)
    # Nobody checks the bytes of a Parquet file's texts before. Some engines call a null not valid.
    undecodable = {
        name: cell.isNotNull() & ~F.is_valid_utf8(cell) for name, (cell, stored) in cells.items() if stored == "string"
    }
    trimmed = {name: _trimmed(cell) for name, (cell, stored) in cells.items() if stored in _TEXT}
    # A step of its own, so that each cell is trimmed once for all that asks for it.
    rows = rows.withColumns({f"t{i}": text for i, text in enumerate(trimmed.values())})
    cells |= {name: (F.col(f"t{i}"), None) for i, name in enumerate(trimmed)}
    typed: dict[str, Column] = {}
    refusals: list[tuple[Column, str]] = []
    for name, declared in feed.columns.items():
        cell, stored = cells.get(name, (None, None))
        field = declared.to
        target = landing.column(field).spec.type if field else None
        if cell is None:
            if declared.required:
                refusals.append((F.lit(True), f"missing:{name}"))
            continue
        observed = next((c for c in part.columns if c.declared == name), ReadColumn(name, name))
        read_as = _as_its_field(declared, target)
        value, present, may_fail = _typed(cell, stored, observed, read_as, source.zone_of(read_as), feed, target)
        if field:
            typed[field] = value
        if declared.required:
            refusals.append((~present, f"missing:{name}"))
        if may_fail:
            refusals.append((present & value.isNull(), f"mistyped:{name}"))
        if part.has_undecodable:
            undecodable[name] = F.contains(cell, F.lit(REPLACEMENT))
        if name in undecodable:
            refusals.append((undecodable[name], f"undecodable:{name}"))
    if feed.delivery.is_by_number and (number := _number(feed, part)) is not None:
        rows = _placed(rows.withColumn(_NUMBER, number))
        refusals.append((F.col(_NUMBER).isNotNull() & F.col(_PLACE).isNull(), f"too_many:{feed.delivery.column}"))
    errors = _errors(refusals, part)
    out = {f: typed[f] if f in typed else _constant(feed, landing, f) for f in canonical_fields(feed.subject)}
    out |= _origin(source, feed, part, batch_id, loaded_at)
    out["parse_errors"] = errors
    return rows.select(*[out[str(c)].alias(str(c)) for c in landing.columns])


def union_rows(frames: Iterable[DataFrame]) -> DataFrame:
    """All rows of frames with the same columns in the same order."""
    return reduce(DataFrame.unionAll, frames)


def _parse_lines(lines: DataFrame, feed: Feed, part: Part) -> DataFrame:
    """Adds `_map`, the one JSON object of each line, and `_names`, the declared columns of its keys in their order.

    Both are null when a line holds anything else or more, or when two of its keys stand for one column.

    The parser stops after the first value, and what follows would be lost without a word. Each line is therefore read
    as the first of two elements, and only a line that ends with its object lets the parser reach the second.
    """
    pair = F.from_json(F.concat(F.lit("["), _LINE, F.lit(f',{{"{_END}":0}}]')), "array<map<string,string>>")
    is_alone = (F.size("_pair") == 2) & F.map_contains_key(F.get("_pair", F.lit(1)), _END)
    names = F.transform(F.map_keys("_map"), lambda key: _named(feed, part, key))
    declared = F.array_compact("_names")
    is_clear = F.size(F.array_distinct(declared)) == F.size(declared)
    return (
        lines.withColumn("_pair", pair)
        .withColumn("_map", F.when(is_alone, F.get("_pair", F.lit(0))))
        .withColumn("_names", names)
        .withColumn("_map", F.when(is_clear, F.col("_map")))
        .drop("_pair")
    )


def _cells(feed: Feed, part: Part) -> dict[str, tuple[Column, str | None]]:
    if part.layout != "jsonl":
        return {c.declared: (F.col(f"c{i}"), c.stored) for i, c in enumerate(part.columns) if c.declared}
    return {
        name: (F.get(F.map_values("_map"), F.array_position("_names", F.lit(name)).cast("int") - 1), None)
        for name in feed.columns
    }


def _named(feed: Feed, part: Part, key: Column) -> Column:
    """The declared column a key stands for, as `Feed.declared_name` has it; each record may write it its own way."""
    known = [(n, name) for name, declared in feed.columns.items() for n in (name, *declared.aliases)]
    exact = dict(known) | {c.header: c.declared for c in part.columns if c.declared}
    loose = {normal_name(n): name for n, name in known}
    # Spelled as known is usual, and looking that up is cheap.
    return F.coalesce(_looked_up(exact, key), _looked_up(loose, F.lower(F.regexp_replace(key, _LEFT_OUT, ""))))


def _looked_up(names: Mapping[str, str], key: Column) -> Column:
    return F.try_element_at(F.create_map(*[F.lit(x) for pair in names.items() for x in pair]), key)


def _as_its_field(declared: FeedColumn, target: str | None) -> FeedColumn:
    """A text that fills a time or a number is read as one, in the zone and with the marks of its feed."""
    if declared.type != "text" or target in (None, "string"):
        return declared
    return declared.model_copy(update={"type": "int" if target == "bigint" else target})


def _typed(
    cell: Column,
    stored: str | None,
    observed: ReadColumn,
    declared: FeedColumn,
    zone: str,
    feed: Feed,
    target: str | None,
) -> tuple[Column, Column, bool]:
    """The value in its canonical type, whether there is one, and whether typing can fail."""
    if stored is None:
        if declared.type == "text":
            may_fail = feed.format == "excel"
            text = F.when(~cell.isin(*_CELL_ERRORS), cell) if may_fail else cell
            return _into(text, "string", target, cell.isNotNull(), zone, may_fail=may_fail)
        value = _from_text(cell, declared, zone, feed)
        return _into(value, _spark_name(declared.type), target, cell.isNotNull(), zone, may_fail=True)
    if stored in ("float", "double"):
        # Writers without a null for numbers put NaN.
        cell = F.when(~F.isnan(cell), cell)
    value, kind, may_fail = _from_stored(cell, stored, observed, declared, zone)
    return _into(value, kind, target, cell.isNotNull(), zone, may_fail=may_fail)


def _trimmed(cell: Column) -> Column:
    """Text without white space around it; null when nothing else is there."""
    plain = F.trim(cell)
    last = F.substring(plain.cast("binary"), -1, 1)
    # Looking for every kind of white space costs five times as much, so only text with odd ends is looked through.
    is_odd = (plain < "!") | (plain > "~") | (last < F.lit(b"!")) | (last > F.lit(b"~"))
    return F.nullif(F.when(is_odd, F.btrim(cell, F.lit(_WHITE))).otherwise(plain), F.lit(""))


def _into(
    value: Column, kind: str, target: str | None, present: Column, zone: str, *, may_fail: bool = False
) -> tuple[Column, Column, bool]:
    if target is None or target == kind:
        return value, present, may_fail
    if (kind, target) == ("date", "timestamp"):
        return _to_utc(value.cast("timestamp"), zone), present, may_fail
    if (kind, target) == ("timestamp", "date"):
        local = value if zone == "UTC" else F.from_utc_timestamp(value, zone)
        return local.cast("date"), present, may_fail
    if target == "string":
        return value.cast("string"), present, may_fail
    return value.try_cast(target), present, True


def _from_text(text: Column, declared: FeedColumn, zone: str, feed: Feed) -> Column:
    match declared.type:
        case "int":
            # Whole numbers beside blanks are often exported as 12.0.
            return F.regexp_replace(_with_point(text, feed), r"\.0+$", "").try_cast("bigint")
        case "date":
            tries = [F.try_to_timestamp(text, F.lit(f)).cast("date") for f in declared.formats]
            if not tries or feed.format == "excel":
                # Spark takes the day and drops whatever follows it; only a time of day may.
                is_whole = text.rlike(_ISO_DAY) & text.try_cast("timestamp").isNotNull()
                tries.append(F.when(is_whole, text.try_cast("date")))
            return F.coalesce(*tries)
        case "timestamp":
            return _timestamp_from_text(text, declared, zone, feed)
        case number:
            digits = _with_point(text, feed)
            # Java also reads its own notations: 1d, 0x1p3, Infinity.
            return (F.when(digits.rlike(_DECIMAL), digits) if number == "double" else digits).try_cast(number)


def _with_point(text: Column, feed: Feed) -> Column:
    """A number's text with a point before its decimals and no other; null when its marks are not the declared ones."""
    if feed.options.decimal_mark == ".":
        return text
    grouped = F.when(text.rlike(_GROUPED), F.translate(text, ",.", "."))
    pointed = F.translate(text, ",", ".")
    if feed.format in ("excel", "jsonl"):
        # Their own numbers have a point before the decimals, so it may be one of those or a group.
        return F.when(~text.rlike(_GROUPED_OR_NOT), F.coalesce(grouped, pointed))
    return F.coalesce(grouped, F.when(~text.contains("."), pointed))


def _timestamp_from_text(text: Column, declared: FeedColumn, zone: str, feed: Feed) -> Column:
    tries: list[Column] = []
    for pattern in declared.formats:
        parsed = F.try_to_timestamp(text, F.lit(pattern))
        names_zone = re.search(r"[XxZzVO]", re.sub(r"'[^']*'", "", pattern))
        tries.append(parsed if names_zone else _to_utc(parsed, zone))
    if not tries or feed.format == "excel":
        # Spark would take a time alone and put the day it runs on before it.
        iso = F.when(text.rlike(_ISO_TIME), text.try_cast("timestamp"))
        with_offset = text.rlike(_ISO_DAY + r"[ T].*[A-Za-z+-]")
        tries.append(iso if zone == "UTC" else F.when(with_offset, iso).otherwise(_to_utc(iso, zone)))
    return F.coalesce(*tries)


def _from_stored(
    cell: Column, stored: str, observed: ReadColumn, declared: FeedColumn, zone: str
) -> tuple[Column, str, bool]:
    if observed.is_nanoseconds:
        cell, stored = F.timestamp_micros(F.call_function("div", cell, F.lit(1000))), "timestamp"
    elif stored == "timestamp_ntz":
        cell, stored = cell.cast("timestamp"), "timestamp"
    match declared.type:
        case "timestamp" if stored == "timestamp":
            return (cell if observed.is_instant else _to_utc(cell, zone)), "timestamp", False
        case "timestamp":
            return _to_utc(cell.try_cast("timestamp"), zone), "timestamp", True
        case "int" if stored in ("tinyint", "smallint", "int", "bigint"):
            return (cell if stored == "bigint" else cell.cast("bigint")), "bigint", False
        case "int":
            whole = cell.try_cast("bigint")
            return F.when(whole == cell, whole), "bigint", True
        case "text":
            return cell.cast("string"), "string", False
        case other:
            wanted = _spark_name(other)
            return (cell, wanted, False) if wanted == stored else (cell.try_cast(wanted), wanted, True)


def _errors(refusals: list[tuple[Column, str]], part: Part) -> Column:
    nothing = F.lit(None).cast("array<string>")
    found = nothing
    if refusals:
        some = reduce(lambda a, b: a | b, [condition for condition, _ in refusals])
        reasons = F.array_compact(F.array(*[F.when(condition, F.lit(code)) for condition, code in refusals]))
        found = F.when(some, reasons).otherwise(nothing)
    if part.layout == "csv":
        # Cells of such a line may stand under the wrong header, so nothing else is said of them.
        return F.when(F.col(_BAD).isNotNull(), F.array(F.lit("ragged:row"))).otherwise(found)
    if part.layout == "jsonl":
        return F.when(F.col("_map").isNull(), F.array(F.lit("malformed:row"))).otherwise(found)
    return found


def _constant(feed: Feed, landing: Table, field: str) -> Column:
    return F.lit(feed.constants.get(field)).cast(landing.column(field).spec.type)


def _origin(source: Source, feed: Feed, part: Part, batch_id: int, loaded_at: datetime) -> dict[str, Column]:
    delivery, sequence = _delivery(feed, part)
    return {
        "source": F.lit(source.name),
        "feed": F.lit(feed.name),
        "delivery": delivery,
        "delivery_seq": sequence,
        "file_id": F.col("_file_id"),
        "file_path": F.col("_file_path"),
        "row_number": (F.col(_ROW) + 1).cast("bigint"),
        "row_hash": _row_hash(feed, part),
        "payload": _payload(feed, part),
        "extra": _extra(feed, part),
        "batch_id": F.lit(batch_id).cast("bigint"),
        "loaded_at": F.lit(loaded_at).cast("timestamp"),
    }


def _delivery(feed: Feed, part: Part) -> tuple[Column, Column]:
    base = F.col("_delivery_seq").cast("bigint")
    named = _named_delivery(feed, part)
    if named is None:
        return F.col("_delivery"), base
    place = F.col(_PLACE)
    if feed.delivery.values:
        place = F.array_position(F.array(*[F.lit(v) for v in feed.delivery.values]), named)
    return F.coalesce(named, "_delivery"), base + F.coalesce(place, F.lit(0))


def _named_delivery(feed: Feed, part: Part) -> Column | None:
    cell, _ = _cells(feed, part).get(feed.delivery.column or "", (None, None))
    return None if cell is None else _trimmed(cell.cast("string"))


def _number(feed: Feed, part: Part) -> Column | None:
    named = _named_delivery(feed, part)
    return None if named is None else F.regexp_replace(named, r"\.0+$", "").try_cast("bigint")


def _placed(rows: DataFrame) -> DataFrame:
    """Adds `_place`, that of `_number` among those of its file; null without a number, or where there are too many.

    Small numbers are their own place. Others, such as months, are counted; a file is read once more for that, which is
    cheaper than to sort its rows.
    """
    of_file = Window.partitionBy("_file_id")
    numbers = rows.where(F.col(_NUMBER).isNotNull()).select("_file_id", _NUMBER).distinct()
    counted = numbers.select(
        "*",
        ((F.min(_NUMBER).over(of_file) >= 0) & (F.max(_NUMBER).over(of_file) < SEQUENCE_STEP)).alias("_are_small"),
        F.row_number().over(of_file.orderBy(_NUMBER)).cast("bigint").alias("_rank"),
        F.count(F.lit(1)).over(of_file).alias("_count"),
    )
    place = F.when(F.col("_are_small"), F.col(_NUMBER)).otherwise(F.col("_rank"))
    places = counted.where(F.col("_are_small") | (F.col("_count") < SEQUENCE_STEP)).select(
        "_file_id", _NUMBER, place.alias(_PLACE)
    )
    # A number is there once per file, so the join keeps each row once.
    return rows.join(F.broadcast(places), on=["_file_id", _NUMBER], how="left")


def _row_hash(feed: Feed, part: Part) -> Column:
    # The name of the delivery is left out: the same record delivered again is the same record.
    if part.layout == "jsonl":
        cells = _cells(feed, part)
        named = [cell for name, (cell, _) in cells.items() if name != feed.delivery.column]
        return F.when(F.col("_map").isNull(), F.xxhash64(_LINE)).otherwise(
            _hash(*named, F.to_json(_json_rest(feed, part, mapped_only=False)))
        )
    kept = [i for i, c in enumerate(part.columns) if c.declared is None or c.declared != feed.delivery.column]
    hashed = _hash(*[F.col(f"c{i}") for i in kept])
    return F.when(F.col(_BAD).isNotNull(), F.xxhash64(_BAD)).otherwise(hashed) if part.layout == "csv" else hashed


def _hash(*cells: Column) -> Column:
    """A null leaves a hash as it was, so which cells are null is hashed as well."""
    return F.xxhash64(*cells, *[c.isNull() for c in cells])


def _payload(feed: Feed, part: Part) -> Column:
    if not feed.keeps_payload:
        return F.lit(None).cast("string")
    if part.layout == "jsonl":
        return F.col(_LINE)
    whole = F.to_json(F.struct(*[F.col(f"c{i}").alias(c.header) for i, c in enumerate(part.columns)]))
    if part.layout == "columns":
        return whole
    return F.when(F.col(_BAD).isNotNull(), F.to_json(F.struct(F.col(_BAD).alias("line")))).otherwise(whole)


def _extra(feed: Feed, part: Part) -> Column:
    if part.layout == "jsonl":
        rest = _json_rest(feed, part, mapped_only=True)
        return F.when(F.size(rest) > 0, rest)
    pairs: list[Column] = []
    for i, c in enumerate(part.columns):
        mapped = c.declared is not None and feed.columns[c.declared].to is not None
        if not mapped and (c.declared is None or c.declared != feed.delivery.column):
            pairs += [F.lit(c.header), F.col(f"c{i}").cast("string")]
    return F.create_map(*pairs) if pairs else F.lit(None).cast("map<string,string>")


def _json_rest(feed: Feed, part: Part, *, mapped_only: bool) -> Column:
    known = [
        name
        for name, declared in feed.columns.items()
        if declared.to is not None or name == feed.delivery.column or not mapped_only
    ]
    return F.map_filter("_map", lambda key, _: ~F.coalesce(_named(feed, part, key).isin(known), F.lit(False)))


def _to_utc(local: Column, zone: str) -> Column:
    return local if zone == "UTC" else F.to_utc_timestamp(local, zone)


def _spark_name(declared: str) -> str:
    return {"text": "string", "int": "bigint"}.get(declared, declared)


def _spark_encoding(encoding: str) -> str:
    # Java drops the mark of UTF-16 by itself, and Spark's reader that of UTF-8.
    return {
        "utf-8-sig": "utf-8",
        "utf-16-le": "utf-16le",
        "utf-16-be": "utf-16be",
        "latin-1": "iso-8859-1",
        "ascii": "us-ascii",
        "utf8": "utf-8",
    }.get(encoding, encoding)
