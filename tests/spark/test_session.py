from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError
from pyspark.sql import functions as F

from lakehouse.session import SparkSettings, default_driver_memory, local_conf

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def test_a_timestamp_comes_back_in_utc(spark: SparkSession) -> None:
    row = spark.sql("SELECT timestamp'2024-07-01 12:00:00' AS at, current_timezone() AS zone").first()
    assert row is not None
    assert (row.at, row.zone) == (datetime(2024, 7, 1, 12), "UTC")


def test_workers_run_on_the_interpreter_of_the_driver(spark: SparkSession) -> None:
    import sys

    from pyspark.sql.types import StringType

    where = F.udf(lambda _: sys.executable, StringType())  # a row UDF is the shortest way into a worker
    assert spark.range(1).select(where("id")).collect() == [(sys.executable,)]


def test_what_a_java_class_has_is_asked_once(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    from py4j.clientserver import ClientServerConnection

    asked: list[str] = []
    send = ClientServerConnection.send_command

    def counted(self: ClientServerConnection, command: str) -> str:
        asked.append(command[0])
        return str(send(self, command))

    F.abs(F.col("a"))
    monkeypatch.setattr(ClientServerConnection, "send_command", counted)
    made = F.abs(F.col("b"))
    # Calls; what Python drops in between (m) is told to Java as well.
    assert [kind for kind in asked if kind != "m"] == ["c", "c"]
    assert spark.sql("SELECT -1 AS b").select(made).collect() == [(1,)]


def test_a_function_that_java_lacks_is_refused_each_time(spark: SparkSession) -> None:
    from py4j.protocol import Py4JError

    functions = spark.sparkContext._jvm.functions  # type: ignore[union-attr]
    for _ in range(2):
        with pytest.raises(Py4JError, match="no_such"):
            functions.no_such  # noqa: B018


@pytest.mark.parametrize(("heap", "hashes"), [("1g", False), ("4095m", False), ("4096m", True), ("12G", True)])
def test_only_with_room_for_it_a_join_hashes_a_large_side(tmp_path: Path, heap: str, hashes: bool) -> None:
    conf = local_conf(SparkSettings(driver_memory=heap), tmp_path)
    assert ("spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold" in conf) is hashes


def test_the_users_settings_win_and_java_options_add_up(tmp_path: Path) -> None:
    extra = {"spark.driver.extraJavaOptions": "-Dmine=1", "spark.sql.ansi.enabled": "false"}
    conf = local_conf(SparkSettings(shuffle_partitions=3, driver_memory="3g", conf=extra), tmp_path)
    assert conf["spark.sql.ansi.enabled"] == "false"
    assert (conf["spark.sql.shuffle.partitions"], conf["spark.driver.memory"]) == ("3", "3g")
    assert conf["spark.driver.extraJavaOptions"].endswith("-Duser.timezone=UTC -XX:+UseParallelGC -Dmine=1")


def test_java_is_started_with_one_collector_the_users_if_there_is_one(tmp_path: Path) -> None:
    asked = SparkSettings(conf={"spark.driver.extraJavaOptions": "-XX:+UseG1GC"})
    assert "UseParallelGC" not in local_conf(asked, tmp_path)["spark.driver.extraJavaOptions"]


def test_memory_stays_within_its_bounds() -> None:
    assert 1024 <= int(default_driver_memory().removesuffix("m")) <= 12 * 1024


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError, match="shufle_partitions"):
        SparkSettings.model_validate({"shufle_partitions": 3})


def test_connect_needs_an_address_and_does_not_show_it() -> None:
    with pytest.raises(ValidationError, match=r"spark\.remote must say where"):
        SparkSettings(engine="connect")
    assert "secret" not in repr(SparkSettings(engine="connect", remote="sc://host/;token=secret"))


@pytest.mark.delta
class TestTwoJarsCarry:
    """What we rely on works with delta-spark and delta-storage alone."""

    @pytest.fixture
    def table(self, spark: SparkSession, tmp_path: Path) -> str:
        name = f"delta.`{tmp_path / 'table'}`"
        spark.sql(f"CREATE TABLE {name} (id INT, n INT) TBLPROPERTIES (delta.enableChangeDataFeed = true)")
        spark.sql(f"INSERT INTO {name} VALUES (1, 10), (2, 20)")
        return name

    def test_merge_and_time_travel(self, spark: SparkSession, table: str) -> None:
        spark.sql(
            f"MERGE INTO {table} t USING (SELECT 2 AS id, 21 AS n UNION ALL SELECT 3, 30) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )
        assert sorted(spark.sql(f"SELECT * FROM {table}").collect()) == [(1, 10), (2, 21), (3, 30)]
        assert sorted(spark.sql(f"SELECT * FROM {table} VERSION AS OF 1").collect()) == [(1, 10), (2, 20)]

    def test_change_data_feed(self, spark: SparkSession, table: str, tmp_path: Path) -> None:
        spark.sql(f"DELETE FROM {table} WHERE id = 1")
        changes = spark.read.option("readChangeFeed", "true").option("startingVersion", 2)
        assert changes.load(str(tmp_path / "table")).select("id", "_change_type").collect() == [(1, "delete")]

    def test_stream_from_one_table_into_another(self, spark: SparkSession, table: str, tmp_path: Path) -> None:
        stream = spark.readStream.format("delta").load(str(tmp_path / "table")).writeStream.format("delta")
        stream = stream.option("checkpointLocation", str(tmp_path / "checkpoint")).trigger(availableNow=True)
        stream.start(str(tmp_path / "copy")).awaitTermination()
        assert spark.read.load(str(tmp_path / "copy")).count() == 2

    def test_optimize_joins_small_files(self, spark: SparkSession, table: str, tmp_path: Path) -> None:
        spark.sql(f"INSERT INTO {table} VALUES (3, 30)")
        spark.sql(f"OPTIMIZE {table}")
        assert spark.sql(f"DESCRIBE DETAIL {table}").select("numFiles").collect() == [(1,)]

    def test_a_commit_conflict_arrives_as_its_own_class(self, spark: SparkSession, table: str) -> None:
        from delta.exceptions import captured
        from pyspark.errors.exceptions import captured as spark_captured

        assert spark_captured.convert_exception.__module__ == captured.__name__
