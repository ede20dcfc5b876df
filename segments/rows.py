"""Small constant tables inside a transform, which has no session to make a frame with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def literal_rows(frame: DataFrame, types: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> DataFrame:
    """Returns every row of `frame` beside every constant row.

    Args:
        frame: Usually small: the websites of a day, or the one row of an aggregate.
        types: Names and Spark DDL types of the constant columns.
        rows: Constant values in the order of `types`; lists become arrays.
    """
    struct = "array<struct<" + ",".join(f"`{name}`:{kind}" for name, kind in types.items()) + ">>"
    # Each of its own type, so that a null in one row and a list in another make one array.
    values = [
        F.struct(*[_literal(v).cast(kind).alias(n) for (n, kind), v in zip(types.items(), row, strict=True)])
        for row in rows
    ]
    exploded = frame.select("*", F.explode(F.array(*values).cast(struct)).alias("_row"))
    return exploded.select("*", *[F.col(f"_row.`{name}`") for name in types]).drop("_row")


def _literal(value: Any) -> Any:
    return F.array(*[F.lit(v) for v in value]) if isinstance(value, list | tuple) else F.lit(value)
