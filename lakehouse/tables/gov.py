"""What governance asks of a lakehouse, filled from the declarations and from the checks of every run."""

from __future__ import annotations

from lakehouse.columns import bigint, column, day, double, flag, instant, integer, text
from lakehouse.declare import Append, Replace, ReplaceSlice, table

CHECK_STATUSES = ("passed", "failed", "error")
SEVERITIES = ("blocking", "warning")
DRIFT_LEVELS = ("calm", "watch", "alarm")
SENSITIVITIES = ("open", "internal", "confidential", "restricted")

_FROM_DECLARATIONS = "lakehouse.catalogue:record_catalog"


@table(
    "gov.fact_data_quality",
    comment="One row per check of a table and run; counts only, never a value of a row.",
    kind=Append(),
    key=("dq_id",),
    producer="lakehouse.quality:quality_gate",
    by_runtime=True,
    retention_days=400,
)
class FactDataQuality:
    dq_id = text("Hash of run, dataset, check and time.")
    dataset_id = text("Table checked.", references="gov.dim_dataset.dataset_id")
    check_name = text("Name of the check within its table.")
    check_status = text("error = could not be evaluated, counts as failed.", values=CHECK_STATUSES)
    checked_ts = instant("When, UTC.")
    severity = text("blocking = a failure stops the publish.", values=SEVERITIES)
    run_id = text("Run that checked.")
    expectation = text("Great Expectations type.")
    column_name = text("Column checked; null for a check of several columns or of the table.", optional=True)
    moment = text(
        "before_publish = the whole frame was measured first; while_writing = row by row in the write.",
        values=("before_publish", "while_writing"),
    )
    element_count = bigint("Rows looked at.", optional=True)
    unexpected_count = bigint(
        "Rows that failed; null where the check is not about rows or the write was cut short.", optional=True
    )
    unexpected_percent = double("unexpected_count per 100 rows looked at.", optional=True)
    message = text("Why it could not be evaluated, without data.", optional=True)


@table(
    "gov.dim_dataset",
    comment="One row per declared table.",
    kind=Replace(),
    key=("dataset_id",),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class DimDataset:
    dataset_id = text("Name of the table, schema.table.")
    schema_name = text("Schema.")
    table_name = text("Table within the schema.")
    subject = text("Subject it is listed under.")
    description = text("One sentence with the grain.")
    kind = text("How writes land: Append, Replace, ReplaceSlice, Merge, Scd1, Scd2.")
    key_columns = column("array<string>", "Columns that identify a row; empty when none do.")
    column_count = integer("Columns.")
    owner_id = text("Team that answers for it.", references="gov.dim_owner.owner_id")
    sensitivity_id = text("The highest of its columns.", references="gov.dim_sensitivity.sensitivity_id")
    producer = text("Function that makes it.")
    reads = column("array<string>", "Tables it is made from.")
    is_made_by_runtime = flag("Whether the platform writes it while running, so it is no step of its own.")
    has_change_feed = flag("Whether readers may ask for its changes.")
    retention_days = integer("Days of history kept; null for all.", optional=True)
    declaration = text("Hash of columns, types, checks and layout.")
    catalog_fingerprint = text("Hash of all declarations this catalogue was made from.")
    recorded_ts = instant("When it was recorded, UTC.")


@table(
    "gov.dim_owner",
    comment="One row per team that owns a table.",
    kind=Replace(),
    key=("owner_id",),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class DimOwner:
    owner_id = text("Team as named in declarations.")
    group_name = text("Account group of the team.")
    description = text("What the team answers for.")
    dataset_count = integer("Tables it owns.")


@table(
    "gov.dim_tag",
    comment="One row per tag key and value in use.",
    kind=Replace(),
    key=("tag_id",),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class DimTag:
    tag_id = text("level:key=value.")
    tag_key = text("Key.")
    tag_value = text("Value.")
    level = text("What carries it.", values=("table", "column"))
    applied_to = column("array<string>", "Tables, or schema.table.column, that carry it.")


@table(
    "gov.dim_classification",
    comment="One row per thing a column may say about a person.",
    kind=Replace(),
    key=("classification_id",),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class DimClassification:
    classification_id = text("identifier, contact, quasi, or none.")
    description = text("What it means.")
    sensitivity_id = text("How such a column is treated.", references="gov.dim_sensitivity.sensitivity_id")
    masking = text("What a reader without the right sees.")
    column_count = integer("Columns so classified.")


@table(
    "gov.dim_sensitivity",
    comment="One row per level of sensitivity, least first.",
    kind=Replace(),
    key=("sensitivity_id",),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class DimSensitivity:
    sensitivity_id = text("Level.", values=SENSITIVITIES)
    level = integer("0 is the least sensitive.")
    description = text("Who may read it.")
    dataset_count = integer("Tables of the level.")


@table(
    "gov.ref_sla",
    comment="One row per table with a promise of freshness.",
    kind=Replace(),
    key=("dataset_id",),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class RefSla:
    dataset_id = text("Table.", references="gov.dim_dataset.dataset_id")
    owner_id = text("Team that promises.", references="gov.dim_owner.owner_id")
    freshness_hours = integer("Hours after which it counts as stale.")
    blocking_checks = integer("Checks that must pass before it is published.")
    warning_checks = integer("Checks whose failure is recorded.")


@table(
    "gov.dim_status",
    comment="One row per status a check or a step may have.",
    kind=Replace(),
    key=("subject", "status_id"),
    producer=_FROM_DECLARATIONS,
    by_runtime=True,
)
class DimStatus:
    subject = text("What carries it.", values=("check", "step"))
    status_id = text("Status.")
    is_good = flag("Whether nothing needs to be done.")
    description = text("Meaning.")


@table(
    "gov.model_drift",
    comment="One row per merchant, measure and `as_of`: how far customers have moved since the model began.",
    kind=ReplaceSlice(by=("as_of",)),
    key=("merchant_id", "as_of", "kind", "measure"),
    producer="models.drift:measure_drift",
    reads=("feature.customer", "feature.customer_outlook", "gold.customer_segment_size"),
    owner="data-science",
)
class ModelDrift:
    merchant_id = text("Retailer.")
    as_of = day("Day compared.")
    kind = text("What drifted.", values=("feature", "score", "segment"))
    measure = text("Feature, score or segment.")
    reference_as_of = day("Day compared with: the first the model version scored; for a segment the size before.")
    model_version = text("Registered model version; null for a segment.", optional=True)
    customers = bigint("Customers on `as_of`.")
    reference_customers = bigint("Customers on the day compared with.")
    stability_index = double("Population stability index over tenths of the day compared with.")
    level = text("calm below 0.1, watch up to 0.25, alarm above.", values=DRIFT_LEVELS)
