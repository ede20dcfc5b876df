"""A small table read as its files has the rows that Delta reads, whatever was done to it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from chispa import assert_df_equality
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import IntegerType, StructType

from lakehouse.files import data_files
from lakehouse.frames import frame_of


def by_delta(spark: SparkSession, folder: Path, version: int | None = None) -> DataFrame:
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(str(folder))


def assert_same(spark: SparkSession, folder: Path, version: int | None = None) -> None:
    files = data_files(folder, version)
    assert files is not None
    found, wanted = files.read(spark), by_delta(spark, folder, version)
    assert found is not None
    assert_df_equality(found, wanted, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True)
    assert files.rows == wanted.count()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a table's own folder"


def test_every_version_of_a_table_with_a_past_is_read(spark: SparkSession, folder: Path) -> None:
    name = f"delta.`{folder}`"
    often = "TBLPROPERTIES ('delta.checkpointInterval' = '3')"  # Delta sums its log up at the third version
    spark.sql(f"CREATE TABLE {name} (id INT NOT NULL, said STRING) USING delta CLUSTER BY (id) {often}")
    for n in range(4):
        spark.sql(f"INSERT INTO {name} VALUES ({n}, 'it''s {n}'), ({n + 100}, NULL)")
    spark.sql(f"ALTER TABLE {name} ADD COLUMNS (more DECIMAL(18,2))")
    spark.sql(f"UPDATE {name} SET more = id / 4 WHERE id < 2")
    spark.sql(f"DELETE FROM {name} WHERE id > 101")
    assert list((folder / "_delta_log").glob("*.checkpoint.parquet"))
    for version in (None, 0, 1, 3, 4, 5, 6):
        assert_same(spark, folder, version)


def test_values_that_stand_in_paths_come_back_with_their_types(spark: SparkSession, folder: Path) -> None:
    made = spark.createDataFrame(
        [(date(2024, 2, 29), "a/b c%20=d", 1), (date(2024, 3, 1), "01", 2), (None, None, 3)],
        "day date, place string, n int",
    )
    made.write.format("delta").partitionBy("day", "place").save(str(folder))
    assert_same(spark, folder)


def test_a_table_without_rows_is_known_to_be_empty(spark: SparkSession, folder: Path) -> None:
    spark.sql(f"CREATE TABLE delta.`{folder}` (id INT, at TIMESTAMP, tags MAP<STRING, INT>) USING delta")
    files = data_files(folder)
    assert files is not None
    assert files.rows == 0
    found = files.read(spark)
    assert found is not None
    assert found.count() == 0
    assert found.dtypes == by_delta(spark, folder).dtypes


def test_what_files_alone_do_not_tell_is_left_to_delta(spark: SparkSession, tmp_path: Path) -> None:
    for feature in ("'delta.enableDeletionVectors' = 'true'", "'delta.columnMapping.mode' = 'name'"):
        folder = tmp_path / f"t{len(feature)}"
        spark.sql(f"CREATE TABLE delta.`{folder}` (id INT) USING delta TBLPROPERTIES ({feature})")
        assert data_files(folder) is None
    assert data_files(tmp_path / "nothing here") is None


def test_a_folder_that_reads_like_a_pattern_is_left_to_delta(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "t[ab]"
    frame_of(spark, StructType().add("id", IntegerType()), [{"id": 1}]).write.format("delta").save(str(folder))
    files = data_files(folder)
    assert files is not None
    assert files.read(spark) is None
