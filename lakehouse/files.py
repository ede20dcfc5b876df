"""What the log of a table on this machine says, found without a query of the engine's own.

To read a version for the first time Delta runs two queries, which for a thousand rows is most of the work.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from lakehouse.frames import frame_of

_MOST_FILES = 32
"""Files up to which Spark looks at them in the driver; for more it starts a job."""

_PATTERN = frozenset("*?[]{}\\")
"""What would make a path a pattern."""


@dataclass(frozen=True)
class DataFiles:
    """The files whose rows are the rows of one version of a table.

    Attributes:
        folder: The table's folder.
        schema: The columns of that version.
        partitions: Columns whose values stand in the files' paths.
        paths: The files.
        rows: How many rows they hold; None where a file does not say.
    """

    folder: Path
    schema: StructType
    partitions: tuple[str, ...]
    paths: tuple[str, ...]
    rows: int | None

    def read(self, spark: SparkSession) -> DataFrame | None:
        """Their rows, the columns in the order of the schema; None where they are better read by Delta."""
        if not self.paths:
            return frame_of(spark, self.schema)
        if len(self.paths) > _MOST_FILES or any(_PATTERN.intersection(p) for p in self.paths):
            return None
        reader = spark.read.schema(self.schema)
        if not self.partitions:
            return reader.parquet(*self.paths)
        # Spark puts what paths say after what files hold.
        return reader.option("basePath", str(self.folder)).parquet(*self.paths).select(*self.schema.names)


def data_files(folder: Path, version: int | None = None) -> DataFiles | None:
    """The files of a version of a table, the newest when None.

    None where files alone do not tell the rows, as in a table that asks its readers for more than the first version of
    Delta's protocol: one with deletion vectors or renamed columns.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(str(folder), version=version)
    except DeltaError:
        return None
    if table.protocol().min_reader_version != 1:
        return None
    added = table.get_add_actions()
    # As the log has them: below the folder, and written as addresses are.
    paths = tuple(str(folder / unquote(p)) for p in added.column("path").to_pylist())
    if not all(map(os.path.exists, paths)):
        return None
    counts = added.column("num_records").to_pylist()
    return DataFiles(
        folder,
        StructType.fromJson(json.loads(table.schema().to_json())),
        tuple(table.metadata().partition_columns),
        paths,
        None if None in counts else sum(counts),
    )


def table_properties(folder: Path) -> dict[str, str]:
    """The properties of a table as its log has them; none where that cannot be read here."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return dict(DeltaTable(str(folder)).metadata().configuration)
    except DeltaError:
        return {}


def keeps_changes(folder: Path, first: int, last: int) -> bool:
    """Whether every file that tells what some versions of a table changed is still there, and so are their commits."""
    for version in range(first, last + 1):
        commit = folder / "_delta_log" / f"{version:020d}.json"
        if not commit.exists():
            return False
        actions = [json.loads(line) for line in commit.read_text(encoding="utf-8").splitlines()]
        # A commit without files of its own for changes tells them by those it added and removed.
        told = [a["cdc"] for a in actions if "cdc" in a] or [
            a[k] for a in actions for k in ("add", "remove") if k in a and a[k]["dataChange"]
        ]
        if not all((folder / unquote(f["path"])).exists() for f in told):
            return False
    return True
