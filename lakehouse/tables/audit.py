"""What a run records of itself: one row per step, per file, per refused row."""

from __future__ import annotations

from lakehouse.columns import bigint, column, double, flag, instant, text
from lakehouse.declare import Append, Merge, table


@table(
    "ingest.audit_transforms",
    comment="One row per executed step and output table of a run; the newest successful row says what was consumed. A "
    "row that says `started` is written first where code, definitions or the day are others than last time.",
    kind=Append(),
    key=(),
    producer="lakehouse.runner:run_steps",
    by_runtime=True,
    retention_days=400,
)
class AuditTransforms:
    run_id = text("Run that executed the step.")
    step = text("Producer as module:function.")
    table_name = text("Table written.")
    status = text("How it ended, or that it began.", values=("succeeded", "failed", "started"))
    started_at = instant("Start, UTC.")
    ended_at = instant("End, UTC.")
    seconds = double("Wall seconds.")
    input_versions = column("map<string,bigint>", "Delta version of each table read.")
    output_version = bigint("Delta version after the write.", optional=True)
    slice_values = column(
        "map<string,string>", "Slice that was written, of a table replaced slice by slice.", optional=True
    )
    fingerprint = text("Hash of declaration, code version and parameters; a change makes the step run again.")
    rows_read = bigint("Rows of the inputs (only changed rows for incremental reads).", optional=True)
    rows_written = bigint("Rows inserted, updated or deleted.", optional=True)
    rows_rejected = bigint("Rows refused by this step.", optional=True)
    checksum = column("decimal(38,0)", "Sum of xxhash64 over written rows; independent of order.", optional=True)
    message = text("Error class and message without data, when it failed.", optional=True)


@table(
    "gov.stage_lineage",
    comment="One row per table-to-table edge, from the declarations, with the run that last used it.",
    kind=Merge(),
    key=("upstream", "downstream"),
    producer="lakehouse.runner:run_steps",
    by_runtime=True,
)
class StageLineage:
    upstream = text("Table read.")
    downstream = text("Table written.")
    step = text("Producer that connects them.")
    is_incremental = flag("Whether only changes are read.")
    last_run_id = text("Run that last used the edge.")
    last_used_at = instant("When, UTC.")
