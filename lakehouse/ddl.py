"""DDL from a declaration, and the difference between a declaration and a table that already exists."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pyspark.sql.types import ByteType, DataType, DecimalType, IntegerType, LongType, ShortType, StructField, StructType

from lakehouse.columns import Column
from lakehouse.declare import ReplaceSlice, Table
from lakehouse.errors import MigrationRefused

FINGERPRINT = "segmentation.declaration"
KEY = "segmentation.key"
"""Table property with the columns that identified a row when it was last brought to its declaration."""

VECTORS = "delta.enableDeletionVectors"


def quote(name: str) -> str:
    """Quote one identifier for Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


def literal(value: str) -> str:
    """Quote one string for Spark SQL, whatever it holds."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    # Spark puts the value of a variable for ${name}, in literals too.
    return "'" + escaped.replace("${", "$\\{") + "'"


def data_type(column: Column) -> DataType:
    """The Spark type of a declared column."""
    return _type_called(column.spec.type)


@cache
def _type_called(name: str) -> DataType:
    # The engine reads the name, and few types serve all columns.
    return DataType.fromDDL(name)


def struct_of(table: Table) -> StructType:
    """The declared schema, with nullability and comments, in declared order."""
    return StructType(
        [StructField(str(c), data_type(c), c.spec.optional, {"comment": c.spec.comment}) for c in table.columns]
    )


def partition_columns(table: Table) -> tuple[str, ...]:
    """Slices are partitions, so replacing one never reads another."""
    return table.kind.by if isinstance(table.kind, ReplaceSlice) else ()


def properties(table: Table, *, deletion_vectors: bool = False) -> dict[str, str]:
    """Delta table properties a declaration asks for, CHECK constraints and its fingerprint among them."""
    found = {f"delta.constraints.{name}": check for name, check in sorted(table.all_checks.items())}
    found[VECTORS] = str(deletion_vectors).lower()
    found["delta.dataSkippingStatsColumns"] = ",".join(_stats_columns(table))
    found["delta.enableChangeDataFeed"] = str(table.change_feed).lower()
    found[FINGERPRINT] = fingerprint(table)
    found[KEY] = ",".join(table.key)
    return found


def is_as_declared(table: Table, existing_properties: Mapping[str, str], *, deletion_vectors: bool = False) -> bool:
    """Whether nothing has changed since a table was last brought to its declaration."""
    wanted = properties(table, deletion_vectors=deletion_vectors)
    same = all(existing_properties.get(name) == wanted[name] for name in (FINGERPRINT, VECTORS))
    return same and not is_key_changed(table, existing_properties)


def is_key_changed(table: Table, existing_properties: Mapping[str, str]) -> bool:
    """Whether other columns identified a row; tables made before that was noted are taken at their word."""
    return existing_properties.get(KEY, ",".join(table.key)) != ",".join(table.key)


def fingerprint(table: Table) -> str:
    """Hash of all that shows in the stored table: columns, types, comments, checks, layout. The key has its own."""
    said = {
        "columns": [(str(c), c.spec.type, c.spec.optional, c.spec.comment) for c in table.columns],
        "checks": sorted(table.all_checks.items()),
        "layout": [table.cluster_by, partition_columns(table), table.change_feed],
        "comment": table.comment,
    }
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def create_statement(table: Table, name: str, location: str | None, *, deletion_vectors: bool = False) -> str:
    """The CREATE TABLE statement of a declaration.

    Args:
        table: The declaration.
        name: Quoted name to create it under.
        location: Folder of the table; None for a table the catalog manages.
        deletion_vectors: See `Settings.deletion_vectors`.
    """
    columns = ",\n  ".join(
        f"{quote(c)} {c.spec.type}{'' if c.spec.optional else ' NOT NULL'} COMMENT {literal(c.spec.comment)}"
        for c in table.columns
    )
    props = ", ".join(
        f"{literal(k)} = {literal(v)}" for k, v in properties(table, deletion_vectors=deletion_vectors).items()
    )
    partitions = partition_columns(table)
    layout = ""
    if partitions:
        layout = f"\nPARTITIONED BY ({', '.join(map(quote, partitions))})"
    elif table.cluster_by:
        layout = f"\nCLUSTER BY ({', '.join(map(quote, table.cluster_by))})"
    where = f"\nLOCATION {literal(location)}" if location else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {name} (\n  {columns}\n) USING delta{layout}{where}\n"
        f"COMMENT {literal(table.comment)}\nTBLPROPERTIES ({props})"
    )


@dataclass(frozen=True)
class Migration:
    """What brings an existing table to its declaration: statements to run in order, or reasons it cannot be done."""

    statements: tuple[str, ...]
    refused: tuple[str, ...]

    def require(self, table: str) -> None:
        """Raise `MigrationRefused` with every reason when something cannot be applied."""
        if self.refused:
            raise MigrationRefused(
                f"{table}: the declaration cannot be applied to the existing table: {'; '.join(self.refused)}. "
                "Nothing was changed."
            )


def plan_migration(
    table: Table,
    name: str,
    existing: StructType,
    existing_properties: Mapping[str, str],
    existing_clustering: tuple[str, ...] = (),
    existing_partitions: tuple[str, ...] = (),
    existing_comment: str | None = None,
    *,
    deletion_vectors: bool = False,
    key_holds: bool = True,
) -> Migration:
    """Compare a declaration with the stored table and say how to get there.

    Additive changes are applied: new optional columns, wider types, comments, null allowed where it was not,
    constraints that stored rows keep (the caller has seen to `new_checks`), properties, clustering, and another key
    that tells the stored rows apart (`key_holds`). What would lose or reinterpret data is refused with the reason.
    """
    add: list[str] = []
    refused: list[str] = []
    widened: set[str] = set()
    stored = {f.name: f for f in existing.fields}
    for c in table.columns:
        field = stored.pop(str(c), None)
        want = data_type(c)
        if field is None:
            if c.spec.optional:
                add.append(
                    f"ALTER TABLE {name} ADD COLUMNS ({quote(c)} {c.spec.type} COMMENT {literal(c.spec.comment)})"
                )
            else:
                refused.append(f"new column '{c}' must be optional, since existing rows have no value for it")
            continue
        if field.dataType != want:
            if _widens(field.dataType, want):
                widened.add(c.lower())
                add.append(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
                add.append(f"ALTER TABLE {name} ALTER COLUMN {quote(c)} TYPE {c.spec.type}")
            else:
                refused.append(
                    f"column '{c}' is {field.dataType.simpleString()} and cannot become {want.simpleString()} in place"
                )
        if not field.nullable and c.spec.optional:
            add.append(f"ALTER TABLE {name} ALTER COLUMN {quote(c)} DROP NOT NULL")
        if field.nullable and not c.spec.optional:
            refused.append(f"column '{c}' allows null in the table and cannot be made required in place")
        if (field.metadata or {}).get("comment") != c.spec.comment:
            add.append(f"ALTER TABLE {name} ALTER COLUMN {quote(c)} COMMENT {literal(c.spec.comment)}")
    for gone, field in stored.items():
        if gone not in table.retired:
            refused.append(f"column '{gone}' is in the table but no longer declared")
        elif not field.nullable:
            add.append(f"ALTER TABLE {name} ALTER COLUMN {quote(gone)} DROP NOT NULL")
    if not key_holds:
        refused.append(f"rows in the table share, or lack, the new key ({', '.join(table.key)})")
    drop, put = _constraint_changes(table, name, existing_properties, widened)
    add = [*drop, *add, *put]
    if existing_comment != table.comment:
        add.append(f"COMMENT ON TABLE {name} IS {literal(table.comment)}")
    partitions = partition_columns(table)
    if existing_partitions != partitions:
        refused.append(
            f"its files are partitioned by {', '.join(existing_partitions) or 'nothing'} and cannot be by "
            f"{', '.join(partitions) or 'nothing'} in place"
        )
    elif not partitions and tuple(existing_clustering) != table.cluster_by:
        by = f"({', '.join(map(quote, table.cluster_by))})" if table.cluster_by else "NONE"
        add.append(f"ALTER TABLE {name} CLUSTER BY {by}")
    plain = {
        k: v
        for k, v in properties(table, deletion_vectors=deletion_vectors).items()
        if not k.startswith("delta.constraints.") and existing_properties.get(k) != v
    }
    if plain:
        pairs = ", ".join(f"{literal(k)} = {literal(v)}" for k, v in plain.items())
        add.append(f"ALTER TABLE {name} SET TBLPROPERTIES ({pairs})")
    return Migration(tuple(add), tuple(refused))


def new_checks(table: Table, existing_properties: Mapping[str, str]) -> dict[str, str]:
    """CHECK constraints that a stored table lacks or has with another predicate, by name."""
    stored = _stored_checks(existing_properties)
    return {k.lower(): v for k, v in table.all_checks.items() if stored.get(k.lower()) != v}


def _constraint_changes(
    table: Table, name: str, existing_properties: Mapping[str, str], widened: set[str]
) -> tuple[list[str], list[str]]:
    """Constraints to drop before columns change and to add after: one that names a column keeps it from being wider."""
    unconcerned = {k: v for k, v in existing_properties.items() if widened.isdisjoint(re.findall(r"\w+", v.lower()))}
    put = new_checks(table, unconcerned)
    kept = {k.lower() for k in table.all_checks} - put.keys()
    drop = [k for k in _stored_checks(existing_properties) if k not in kept]
    return [f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {quote(k)}" for k in drop], [
        f"ALTER TABLE {name} ADD CONSTRAINT {quote(k)} CHECK ({predicate})" for k, predicate in put.items()
    ]


def _stored_checks(existing_properties: Mapping[str, str]) -> dict[str, str]:
    prefix = "delta.constraints."
    return {k.removeprefix(prefix): v for k, v in existing_properties.items() if k.startswith(prefix)}


def _stats_columns(table: Table) -> tuple[str, ...]:
    """Columns that get min/max statistics: key or content, layout and dates; on all columns they cost a fifth more."""
    partitions = partition_columns(table)
    simple = {str(c) for c in table.columns if not c.spec.type.startswith(("map", "array", "struct", "boolean"))}
    dated = [str(c) for c in table.columns if c.spec.type in ("date", "timestamp")]
    chosen = dict.fromkeys([*table.cluster_by, *(table.content or table.key), *dated])
    return (
        tuple(c for c in chosen if c in simple and c not in partitions)[:12]
        or tuple(sorted(simple - set(partitions)))[:1]
    )


def _widens(old: DataType, new: DataType) -> bool:
    whole = (ByteType, ShortType, IntegerType, LongType)
    if isinstance(old, whole) and isinstance(new, whole):
        return whole.index(type(old)) < whole.index(type(new))
    if isinstance(old, DecimalType) and isinstance(new, DecimalType):
        return new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale
    return False
