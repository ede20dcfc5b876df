"""The record of ingestion: what was planned, delivered, accepted, refused, and how the sources are declared."""

from __future__ import annotations

from lakehouse.columns import bigint, column, day, flag, instant, integer, text
from lakehouse.declare import Append, Merge, Replace, table

_LANDING = "pipelines.bronze.ingest:land_sources"
_REGISTER = "pipelines.bronze.registers:build_registers"


@table(
    "ingest.stg_raw",
    comment="One row per file of the latest batches; it is written before anything of them is read, so that a run "
    "that dies is finished by the next one.",
    kind=Replace(),
    key=("record_key",),
    producer=_LANDING,
    by_runtime=True,
)
class StgRaw:
    record_key = text("Delivery of these bytes at this path for this feed.")
    batch_id = bigint("Ingest batch; numbers only grow.")
    source = text("Source.")
    feed = text("Feed within the source.")
    subject = text("Subject it lands as.")
    status = text(
        "planned until the batch is in every table, then landed; dropped when nothing of it was read, "
        "refused when the file changed or vanished meanwhile.",
        values=("planned", "landed", "dropped", "refused"),
    )
    file_path = text("Where the file is.")
    file_name = text("Its name.")
    file_type = text("Format, with .gz when compressed.")
    payload_hash = text("SHA-256 of its bytes, hex.")
    size_bytes = bigint("Size in bytes.")
    modified_ns = bigint("Time of last change, nanoseconds since 1970, as the file system says.")
    delivery_seq = bigint("Order among the feed's deliveries; sheets and column deliveries count up on it.")
    change = text("What the file is to its feed.", values=("new", "changed", "redelivered"))
    line_count = bigint("Physical lines of a text file.", optional=True)
    expected_rows = bigint("Rows a columnar file says it holds, or text was seen to hold.", optional=True)
    undecodable_lines = bigint("Lines that are not valid in the file's encoding.")
    encoding = text("Encoding it is read with.")
    staging = text(
        "Whether bronze.stg_<subject> holds all rows of the batch, or refused ones only: it is large.",
        values=("all", "refused"),
    )
    observed = text("Delivered columns as JSON: header, declared name, stored type.")
    schema_hash = text("Hash of delivered columns and declaration.")
    declaration = text("Fingerprint of the feed's declaration.")
    is_sample = flag("Whether the source is a labelled sample.")
    notes = column("array<string>", "What is odd about the file, for people.")
    reason = text("Why it was refused while being read.", optional=True)
    run_id = text("Run that planned it.")
    planned_at = instant("Start of that run, UTC.")


@table(
    "ingest.raw_records",
    comment="The manifest: one row per file delivered to a feed, landed or not. Source rows = accepted + rejected.",
    kind=Merge(),
    key=("record_key",),
    producer=_LANDING,
    by_runtime=True,
)
class RawRecords:
    record_key = text("Delivery of these bytes at this path for this feed.")
    source_system_id = text("Source.", references="ingest.dim_source_system.source_system_id")
    feed = text("Feed within the source.")
    subject = text("Subject it lands as.")
    status_id = text(
        "How the delivery ended.",
        references="ingest.dim_status.status_id",
        values=("landed", "landed_with_rejects", "rejected", "empty", "redelivered", "refused"),
    )
    change = text("What the file was to its feed.", values=("new", "changed", "redelivered"))
    batch_id = bigint("Ingest batch; null when nothing was read.", optional=True)
    file_path = text("Where the file was.")
    file_name = text("Its name.")
    file_type_id = text("Format, with .gz when compressed.", references="ingest.dim_file_type.file_type_id")
    payload_hash = text("SHA-256 of its bytes, hex; empty when it could not be read.")
    size_bytes = bigint("Size in bytes.")
    delivery_seq = bigint("Order among the feed's deliveries.", optional=True)
    rows_read = bigint("Records in the file.")
    rows_accepted = bigint("Records that went to bronze.raw_<subject>.")
    rows_rejected = bigint(
        "Records refused; their reasons are in ingest.ref_parsing_errors.",
        check="rows_read = rows_accepted + rows_rejected",
    )
    checksum_accepted = column("decimal(38,0)", "Sum of row_hash over accepted records.")
    checksum_rejected = column("decimal(38,0)", "Sum of row_hash over refused records.")
    line_count = bigint("Physical lines of a text file.", optional=True)
    schema_hash = text("Delivered columns and declaration.", optional=True)
    declaration = text("Fingerprint of the feed's declaration it was read with.")
    is_sample = flag("Whether the source is a labelled sample.")
    notes = column("array<string>", "What was odd about the file, for people.")
    reason_code = text("Why it was refused, as a code.", optional=True)
    reason = text("Why it was refused, for people.", optional=True)
    run_id = text("Run that recorded it.")
    recorded_at = instant("Start of that run, UTC.")


@table(
    "ingest.ref_parsing_errors",
    comment="One row per refused row and broken rule. Reasons name columns, never values.",
    kind=Append(),
    key=(),
    producer=_LANDING,
    by_runtime=True,
    retention_days=400,
)
class RefParsingErrors:
    source = text("Source.")
    feed = text("Feed within the source.")
    file_id = text("SHA-256 of the file.")
    file_path = text("Where the file was.")
    delivery = text("Delivery the row came in.")
    row_number = bigint(
        "Record within the file (or sheet), 1 for the first after the header; in text no line number, for quoted cells "
        "may hold line breaks."
    )
    column_name = text("Declared column at fault; null when the whole row is.", optional=True)
    reason = text(
        "missing, mistyped, undecodable, too_many (numbers that name deliveries of a file), ragged (more or fewer "
        "cells than the header) or malformed.",
        values=("missing", "mistyped", "undecodable", "too_many", "ragged", "malformed"),
    )
    row_hash = bigint("Hash of the delivered row.")
    batch_id = bigint("Ingest batch.")
    loaded_at = instant("When the batch was read, UTC.")


@table(
    "ingest.ref_file_schema",
    comment="One row per column of each layout a feed has been delivered in, beside what was expected.",
    kind=Merge(),
    key=("source", "feed", "schema_hash", "column_name"),
    producer=_LANDING,
    by_runtime=True,
)
class RefFileSchema:
    source = text("Source.")
    feed = text("Feed within the source.")
    schema_hash = text("Hash of delivered columns and declaration.")
    column_name = text("Header as delivered; the declared name when it is missing.")
    position = integer("Position in the file from 1; null when missing.", optional=True)
    declared_name = text("Declared column it stands for; null for an extra one.", optional=True)
    expected_type = text("Declared type.", optional=True)
    observed_type = text("Type in a columnar file; text otherwise; null when missing.", optional=True)
    is_required = flag("Whether rows need a value.")
    drift = text("How delivery and declaration compare.", values=("as_declared", "alias", "extra", "missing"))
    first_file_id = text("First file seen with this layout.")
    first_batch_id = bigint("Batch of that file.")
    first_seen_at = instant("When, UTC.")


@table(
    "ingest.audit_ingest",
    comment="One row per feed and batch: files, rows, checksums; source rows = accepted + rejected.",
    kind=Append(),
    key=(),
    producer=_LANDING,
    by_runtime=True,
    retention_days=400,
)
class AuditIngest:
    batch_id = bigint("Ingest batch.")
    run_id = text("Run that landed it.")
    source = text("Source.")
    feed = text("Feed within the source.")
    subject = text("Subject.")
    files = integer("Files read.")
    rows_read = bigint("Rows in the files.")
    rows_accepted = bigint("Rows appended to bronze.raw_<subject>.")
    rows_rejected = bigint("Rows refused.")
    checksum_accepted = column("decimal(38,0)", "Sum of row_hash over accepted rows.")
    checksum_rejected = column("decimal(38,0)", "Sum of row_hash over refused rows.")
    size_bytes = bigint("Bytes of the files.")
    landed_at = instant("Start of the run that landed it, UTC.")


@table(
    "ingest.stage_retries",
    comment="One row per file that was refused; each run tries a waiting one again.",
    kind=Merge(),
    key=("source", "feed", "file_path"),
    producer=_LANDING,
    by_runtime=True,
)
class StageRetries:
    source = text("Source.")
    feed = text("Feed within the source.")
    file_path = text("Where the file is.")
    status = text(
        "waiting; resolved when the path has landed; withdrawn when the file is gone.",
        values=("waiting", "resolved", "withdrawn"),
    )
    reason_code = text("Why it was refused last, as a code.")
    reason = text("Why, for people.")
    payload_hash = text("SHA-256 of the refused bytes; empty when they could not be read.")
    attempts = integer("How often it was tried.")
    first_refused_at = instant("First refusal, UTC.")
    last_tried_at = instant("Latest attempt or change of status, UTC.")
    run_id = text("Run of the latest attempt.")


@table(
    "ingest.fact_raw_events",
    comment="One row per file that arrived, for throughput and the health of sources.",
    kind=Replace(),
    key=("event_id",),
    producer="pipelines.bronze.registers:build_raw_events",
    reads=("ingest.raw_records",),
)
class FactRawEvents:
    event_id = bigint("xxhash64(record_key).")
    source_system_id = text("Source.", references="ingest.dim_source_system.source_system_id")
    feed = text("Feed within the source.")
    record_key = text("Manifest row.", references="ingest.raw_records.record_key")
    payload_hash = text("SHA-256 of the file.")
    event_type = text("How the delivery ended.", references="ingest.dim_status.status_id")
    event_ts = instant("When it was recorded, UTC.")
    row_count = bigint("Rows in the file.")
    rejected_count = bigint("Rows refused.")
    size_bytes = bigint("Size in bytes.")


@table(
    "ingest.fact_event_counts",
    comment="One row per source and UTC day on which files arrived.",
    kind=Replace(),
    key=("source_system_id", "event_date"),
    producer="pipelines.bronze.registers:build_event_counts",
    reads=("ingest.fact_raw_events",),
)
class FactEventCounts:
    source_system_id = text("Source.", references="ingest.dim_source_system.source_system_id")
    event_date = day("UTC day.")
    file_count = bigint("Files that arrived.")
    landed_count = bigint("Files of which rows were accepted.")
    refused_count = bigint("Files refused or rejected whole.")
    redelivered_count = bigint("Files that were there already.")
    row_count = bigint("Rows in the files.")
    rejected_count = bigint("Rows refused.")
    size_bytes = bigint("Bytes.")


@table(
    "ingest.dim_schema_version",
    comment="One row per layout a feed has been delivered in, numbered in order of appearance.",
    kind=Replace(),
    key=("source_system_id", "feed", "version_number"),
    producer="pipelines.bronze.registers:build_schema_versions",
    reads=("ingest.ref_file_schema",),
)
class DimSchemaVersion:
    source_system_id = text("Source.", references="ingest.dim_source_system.source_system_id")
    feed = text("Feed within the source.")
    version_number = integer("1 for the first layout seen, then 2, ...")
    schema_hash = text("Delivered columns and declaration.")
    column_count = integer("Columns delivered.")
    extra_columns = column("array<string>", "Delivered but not declared, sorted.")
    missing_columns = column("array<string>", "Declared but not delivered, sorted.")
    has_drift = flag("Whether delivery and declaration differ.")
    first_file_id = text("First file seen with this layout.")
    first_seen_at = instant("When, UTC.")


@table(
    "ingest.dim_source_system",
    comment="One row per declared source, with what it has delivered.",
    kind=Replace(),
    key=("source_system_id",),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class DimSourceSystem:
    source_system_id = text("Name of the source as in conf/sources.")
    description = text("What it is.")
    merchant_id = text("Retailer it delivers for; null for reference data.", optional=True)
    business_unit_id = text("Part of the company.", references="ingest.dim_business_unit.business_unit_id")
    data_owner_id = text("Team that answers for it.", references="ingest.dim_data_owner.data_owner_id")
    time_zone = text("Zone of its business days.")
    currency = text("ISO 4217 code of its amounts.")
    is_sample = flag("Whether its data are made up.")
    label = text("What is shown beside sample data.", optional=True)
    terms = text("What the data may be used for.", optional=True)
    feed_count = integer("Feeds declared.")
    file_count = bigint("Files delivered so far.")
    row_count = bigint("Rows accepted so far.")
    last_delivery_at = instant("Latest delivery, UTC.", optional=True)


@table(
    "ingest.dim_data_owner",
    comment="One row per team that answers for a source or feed.",
    kind=Replace(),
    key=("data_owner_id",),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class DimDataOwner:
    data_owner_id = text("Team.")
    source_count = integer("Sources it owns.")
    feed_count = integer("Feeds it answers for.")


@table(
    "ingest.dim_file_type",
    comment="One row per kind of file that can be delivered.",
    kind=Replace(),
    key=("file_type_id",),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class DimFileType:
    file_type_id = text("Format, with .gz when compressed.")
    file_format = text("csv, jsonl, parquet or excel.")
    description = text("What it is.")
    is_typed = flag("Whether its columns carry types.")
    is_compressed = flag("Whether the file is gzipped as a whole.")
    has_header = flag("Whether the file itself names its columns.")
    feed_count = integer("Declared feeds of the format.")
    file_count = bigint("Files delivered so far.")


@table(
    "ingest.dim_business_unit",
    comment="One row per part of the company that has a source.",
    kind=Replace(),
    key=("business_unit_id",),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class DimBusinessUnit:
    business_unit_id = text("Part of the company.")
    merchant_ids = column("array<string>", "Retailers in it, sorted.")
    source_count = integer("Sources in it.")


@table(
    "ingest.dim_environment",
    comment="One row: the environment these tables belong to.",
    kind=Replace(),
    key=("environment_id",),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class DimEnvironment:
    environment_id = text("Target of the settings.")
    engine = text("Where Spark runs.")
    catalog = text("Unity Catalog name; null when tables are plain folders.", optional=True)
    base_currency = text("ISO 4217 code amounts are converted to.")


@table(
    "ingest.dim_status",
    comment="One row per way a delivery can end.",
    kind=Replace(),
    key=("status_id",),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class DimStatus:
    status_id = text("Status.")
    description = text("What it means.")
    is_accepted = flag("Whether rows of the file were accepted.")
    needs_attention = flag("Whether somebody should look.")
    file_count = bigint("Files with this status.")


@table(
    "ingest.ref_mappings",
    comment="One row per declared column of each feed and the canonical field it fills.",
    kind=Replace(),
    key=("source_system_id", "feed", "column_name"),
    producer=_REGISTER,
    reads=("ingest.raw_records",),
)
class RefMappings:
    source_system_id = text("Source.", references="ingest.dim_source_system.source_system_id")
    feed = text("Feed within the source.")
    column_name = text("Delivered column; the field's name when it is a constant.")
    subject = text("Subject.")
    field_name = text("Canonical field; null when the value is kept aside.", optional=True)
    declared_type = text("Declared type.")
    is_required = flag("Whether rows need a value.")
    constant_value = text("Value of every row when nothing is delivered for it.", optional=True)
    aliases = column("array<string>", "Other headers it is known under.")
