"""A handful of rows as a frame, which the engine takes as part of the plan instead of as work for a Python process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructField, StructType


def frame_of(spark: SparkSession, schema: StructType, rows: Iterable[Mapping[str, Any]] = ()) -> DataFrame:
    """A frame of a schema and of rows by name; what a row does not name is null.

    Without rows the frame is known to be empty, so that what is joined with it or asked of it is not run at all.

    Args:
        spark: The session.
        schema: Columns in order; whether they may be null is left to whoever writes the frame.
        rows: Values of the columns; naive times are UTC.

    Raises:
        pyarrow.ArrowException: A value is not of its column's type.
    """
    given = list(rows)
    if given:
        schema = StructType([StructField(f.name, f.dataType, True, f.metadata) for f in schema.fields])
    columns = to_arrow_schema(schema, timestamp_utc=True)
    return spark.createDataFrame(pa.Table.from_pylist(given, schema=columns), schema)
