"""Builds rows of a declared table: name what the case is about, the declaration fills the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BooleanType, StructField, StructType

from lakehouse.columns import Column
from lakehouse.ddl import struct_of
from lakehouse.declare import table_of
from lakehouse.frames import frame_of


def rows(spark: SparkSession, which: str | type, cases: Iterable[Mapping[str, Any]] = ()) -> DataFrame:
    """Return a frame of the table's columns; values a case leaves out are null where allowed, else a plain default.

    A case may also carry `_deleted`. Unknown names fail, so a renamed column breaks its tests at once.
    """
    table = table_of(which)
    cases = list(cases)
    schema = struct_of(table)
    if any("_deleted" in c for c in cases):
        schema = StructType([*schema.fields, StructField("_deleted", BooleanType())])
    known = set(schema.fieldNames())
    for c in cases:
        assert set(c) <= known, f"{table.name} has no {sorted(set(c) - known)}"
    plain = {f: _default(table.columns, f) for f in schema.fieldNames()}
    filled = [{**plain, **c} for c in cases]
    loose = StructType([StructField(f.name, f.dataType, True) for f in schema.fields])
    return frame_of(spark, loose, filled)


def _default(columns: Iterable[Column], name: str) -> Any:
    if name == "_deleted":
        return False
    spec = next(c for c in columns if c == name).spec
    if spec.optional:
        return None
    if spec.values:
        return spec.values[0]
    kind = spec.type.split("(")[0].split("<")[0]
    return {
        "string": "x",
        "int": 0,
        "bigint": 0,
        "double": 0.0,
        "boolean": False,
        "decimal": Decimal(0),
        "date": date(2020, 1, 1),
        "timestamp": datetime(2020, 1, 1),
        "array": [],
        "map": {},
    }[kind]
