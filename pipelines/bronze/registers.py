"""Registers of ingestion: sources, owners, file types, layouts and events, from the declarations and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from lakehouse.settings import Settings
from lakehouse.tables.ingest import (
    DimBusinessUnit,
    DimDataOwner,
    DimEnvironment,
    DimFileType,
    DimSchemaVersion,
    DimSourceSystem,
    DimStatus,
    FactEventCounts,
    FactRawEvents,
    RawRecords,
    RefFileSchema,
    RefMappings,
)
from pipelines.bronze.sources import Sources

_STATUSES = (
    ("landed", "Every row was accepted.", True, False),
    ("landed_with_rejects", "Some rows were refused; their reasons are in ingest.ref_parsing_errors.", True, True),
    ("rejected", "Every row was refused; the file is tried again when its feed is declared anew.", False, True),
    ("empty", "The file has a header and no rows.", False, False),
    ("redelivered", "The same bytes had landed before; nothing was read again.", False, False),
    ("refused", "The file cannot be read whole; nothing of it was read, and it is tried again.", False, True),
)
_FORMATS = (
    ("csv", "Delimited text.", False, True),
    ("jsonl", "One JSON object per line.", False, True),
    ("parquet", "Columnar file with types.", True, True),
    ("excel", "Workbook; each sheet is read on its own.", False, True),
)


def build_registers(records: DataFrame, *, sources: Sources, settings: Settings) -> dict[str, DataFrame]:
    """The dimensions of ingestion, one row per declared thing, with what was delivered for it.

    Args:
        records: `ingest.raw_records`.
        sources: The declarations.
        settings: The target the tables belong to.
    """
    one = records.groupBy().agg(F.count(F.lit(1)).alias("_rows"))
    return {
        "ingest.dim_source_system": _source_systems(one, records, sources),
        "ingest.dim_data_owner": _data_owners(one, sources),
        "ingest.dim_file_type": _file_types(one, records, sources),
        "ingest.dim_business_unit": _business_units(one, sources),
        "ingest.dim_environment": _rows(
            one, DimEnvironment, [(settings.target, settings.spark.engine, settings.catalog, settings.base_currency)]
        ),
        "ingest.dim_status": _statuses(one, records),
        "ingest.ref_mappings": _mappings(one, sources),
    }


def build_raw_events(records: DataFrame) -> DataFrame:
    """One event per file that arrived, whatever became of it."""
    r = RawRecords
    return records.select(
        F.xxhash64(r.record_key).alias(FactRawEvents.event_id),
        r.source_system_id,
        r.feed,
        r.record_key,
        r.payload_hash,
        F.col(r.status_id).alias(FactRawEvents.event_type),
        F.col(r.recorded_at).alias(FactRawEvents.event_ts),
        F.col(r.rows_read).alias(FactRawEvents.row_count),
        F.col(r.rows_rejected).alias(FactRawEvents.rejected_count),
        r.size_bytes,
    )


def build_event_counts(events: DataFrame) -> DataFrame:
    """Files, rows and bytes per source and UTC day."""
    e, c = FactRawEvents, FactEventCounts
    kind = F.col(e.event_type)
    return events.groupBy(e.source_system_id, F.to_date(e.event_ts).alias(c.event_date)).agg(
        F.count(F.lit(1)).alias(c.file_count),
        F.count_if(kind.isin("landed", "landed_with_rejects")).alias(c.landed_count),
        F.count_if(kind.isin("refused", "rejected")).alias(c.refused_count),
        F.count_if(kind == "redelivered").alias(c.redelivered_count),
        F.sum(e.row_count).alias(c.row_count),
        F.sum(e.rejected_count).alias(c.rejected_count),
        F.sum(e.size_bytes).alias(c.size_bytes),
    )


def build_schema_versions(schemas: DataFrame) -> DataFrame:
    """Layouts of each feed in order of appearance; the hash breaks ties within a batch."""
    s, v = RefFileSchema, DimSchemaVersion
    drift = F.col(s.drift)
    layouts = schemas.groupBy(s.source, s.feed, s.schema_hash).agg(
        F.count_if(drift != "missing").cast("int").alias(v.column_count),
        F.sort_array(F.collect_list(F.when(drift == "extra", F.col(s.column_name)))).alias(v.extra_columns),
        F.sort_array(F.collect_list(F.when(drift == "missing", F.col(s.column_name)))).alias(v.missing_columns),
        F.min_by(s.first_file_id, s.first_batch_id).alias(v.first_file_id),
        F.min(s.first_seen_at).alias(v.first_seen_at),
        F.min(s.first_batch_id).alias("_batch"),
    )
    appearance = Window.partitionBy(s.source, s.feed).orderBy("_batch", s.schema_hash)
    return layouts.select(
        F.col(s.source).alias(v.source_system_id),
        s.feed,
        F.row_number().over(appearance).alias(v.version_number),
        s.schema_hash,
        v.column_count,
        v.extra_columns,
        v.missing_columns,
        (F.size(v.extra_columns) + F.size(v.missing_columns) > 0).alias(v.has_drift),
        v.first_file_id,
        v.first_seen_at,
    )


def _source_systems(one: DataFrame, records: DataFrame, sources: Sources) -> DataFrame:
    t = DimSourceSystem
    delivered = records.groupBy(RawRecords.source_system_id).agg(
        F.count(F.lit(1)).alias("_files"),
        F.sum(RawRecords.rows_accepted).alias("_rows"),
        F.max(RawRecords.recorded_at).alias("_last"),
    )
    declared = _rows(
        one,
        t,
        [
            (
                s.name,
                s.description,
                s.merchant_id,
                s.business_unit,
                s.owner,
                s.timezone,
                s.currency,
                s.is_sample,
                s.label,
                s.terms,
                len(s.feeds),
                0,
                0,
                None,
            )
            for s in sources
        ],
    )
    # One row per source on both sides.
    return declared.join(delivered, on=t.source_system_id, how="left").select(
        *[c for c in t.__table__.column_names if c not in (t.file_count, t.row_count, t.last_delivery_at)],
        F.coalesce("_files", F.lit(0)).alias(t.file_count),
        F.coalesce("_rows", F.lit(0)).alias(t.row_count),
        F.col("_last").alias(t.last_delivery_at),
    )


def _data_owners(one: DataFrame, sources: Sources) -> DataFrame:
    owned = {s.owner for s in sources} | {f.owner or s.owner for s in sources for f in s.feeds}
    return _rows(
        one,
        DimDataOwner,
        [
            (o, sum(s.owner == o for s in sources), sum((f.owner or s.owner) == o for s in sources for f in s.feeds))
            for o in sorted(owned)
        ],
    )


def _file_types(one: DataFrame, records: DataFrame, sources: Sources) -> DataFrame:
    t = DimFileType
    feeds = [f for s in sources for f in s.feeds]
    declared = [
        (f"{name}.gz" if zipped else name, name, text, typed, zipped, header, sum(f.format == name for f in feeds), 0)
        for name, text, typed, header in _FORMATS
        for zipped in (False, True)
        # Parquet and workbooks are compressed inside.
        if not zipped or name in ("csv", "jsonl")
    ]
    delivered = records.groupBy(F.col(RawRecords.file_type_id).alias(t.file_type_id)).agg(
        F.count(F.lit(1)).alias("_files")
    )
    # One row per file type on both sides.
    return (
        _rows(one, t, declared)
        .join(delivered, on=t.file_type_id, how="left")
        .select(
            *[c for c in t.__table__.column_names if c != t.file_count],
            F.coalesce("_files", F.lit(0)).alias(t.file_count),
        )
    )


def _business_units(one: DataFrame, sources: Sources) -> DataFrame:
    units = sorted({s.business_unit for s in sources})
    return _rows(
        one,
        DimBusinessUnit,
        [
            (
                u,
                sorted({s.merchant_id for s in sources if s.business_unit == u and s.merchant_id}),
                sum(s.business_unit == u for s in sources),
            )
            for u in units
        ],
    )


def _statuses(one: DataFrame, records: DataFrame) -> DataFrame:
    t = DimStatus
    seen = records.groupBy(RawRecords.status_id).agg(F.count(F.lit(1)).alias("_files"))
    # One row per status on both sides.
    return (
        _rows(one, t, [(*s, 0) for s in _STATUSES])
        .join(seen, on=t.status_id, how="left")
        .select(
            *[c for c in t.__table__.column_names if c != t.file_count],
            F.coalesce("_files", F.lit(0)).alias(t.file_count),
        )
    )


def _mappings(one: DataFrame, sources: Sources) -> DataFrame:
    rows: list[tuple[Any, ...]] = []
    for s in sources:
        for f in s.feeds:
            rows += [
                (s.name, f.name, name, f.subject, c.to, c.type, c.required, None, list(c.aliases))
                for name, c in f.columns.items()
            ]
            rows += [
                (s.name, f.name, name, f.subject, name, "text", False, value, [])
                for name, value in f.constants.items()
                if name not in f.columns
            ]
    return _rows(one, RefMappings, rows)


def _rows(one: DataFrame, declared: type, rows: Sequence[tuple[Any, ...]]) -> DataFrame:
    """Rows of constants in a declared table's columns, from any frame of one row: a transform has no session."""
    columns = declared.__table__.columns
    structs = [
        F.struct(*[_literal(value, c.spec.type).alias(str(c)) for value, c in zip(row, columns, strict=True)])
        for row in rows
    ]
    return one.select(F.inline(F.array(*structs)))


def _literal(value: Any, kind: str) -> Column:
    if isinstance(value, list):
        return F.array(*[F.lit(v) for v in value]).cast(kind)
    return F.lit(value).cast(kind)
