"""The one place that builds a Spark session: on this machine, on Databricks, or through Spark Connect."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pyspark.sql import SparkSession

from lakehouse.classes import reading_options
from lakehouse.errors import MachineError
from lakehouse.jars import ensure_jars
from lakehouse.java import find_java
from lakehouse.lookups import remember_classes

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

Engine = Literal["local", "databricks", "connect"]

FEW_ROWS_CONF: Final[Mapping[str, str]] = {
    # Making, compiling and loading Java for a thousand rows costs more than reading them.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
    # Nor does a table of few files gain by a look at what each holds, which takes two queries of Delta's own.
    "spark.databricks.delta.stats.skipping": "false",
}
"""What makes small tables fast and large ones slow, and can be set for a session."""

TEST_CONF: Final[Mapping[str, str]] = {
    **FEW_ROWS_CONF,
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "1",
    "spark.rdd.compress": "false",
    "spark.shuffle.compress": "false",
    "spark.shuffle.spill.compress": "false",
    "spark.buffer.pageSize": "1m",
}
"""What makes tiny frames fast and large ones slow. For tests only."""

# Files and logs written within the process; Hadoop's way starts a process for each, see `lakehouse.jars`.
_LOCAL_FILES: Final = {
    "spark.hadoop.fs.file.impl": "com.globalmentor.apache.hadoop.fs.BareLocalFileSystem",
    "spark.delta.logStore.file.impl": "io.delta.storage.LocalLogStore",
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}

# Any engine: what an answer depends on must not differ between a laptop and Databricks.
_SEMANTICS: Final = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}


class SparkSettings(BaseModel):
    """How to get a Spark session.

    Attributes:
        engine: `local` starts Spark in this process, `databricks` takes the session of the cluster or serverless
            environment, `connect` talks to the Spark Connect server named by `remote`.
        master: Spark master of the local engine.
        driver_memory: Heap of the local engine, such as `4g`; unset takes 40 % of the memory, 1 to 12 GB.
        shuffle_partitions: Partitions after a shuffle; unset takes the cores, 2 to 8, on the local engine and leaves
            the choice to Spark elsewhere.
        remote: Spark Connect address, such as `sc://localhost:15002`. Not shown, because it can carry a token.
        conf: Further Spark settings; they win over everything chosen here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Engine = "local"
    master: str = "local[*]"
    driver_memory: str | None = Field(default=None, pattern=r"^\d+[kmgKMG]$")
    shuffle_partitions: int | None = Field(default=None, ge=1)
    remote: str | None = Field(default=None, pattern=r"^sc://", repr=False)
    conf: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _connect_needs_an_address(self) -> Self:
        if self.engine == "connect" and not self.remote:
            raise ValueError("spark.engine is 'connect', so spark.remote must say where, such as sc://localhost:15002")
        return self


def build_session(spark: SparkSettings, data_dir: Path, app_name: str = "segmentation") -> SparkSession:
    """Returns the session of the engine the settings name.

    A process has one classic session: asking again returns it, with the run-time settings of the new request applied.

    Args:
        spark: Engine and its settings.
        data_dir: Folder of the lakehouse; the local engine keeps its scratch files and warehouse under `_spark` in it.
        app_name: Name shown by Spark's own tools.

    Raises:
        JavaUnavailable: The local engine finds no Java it can run on.
        JarsUnavailable: The jars are not there and cannot be fetched.
    """
    quieten_libraries()
    _use_utc()
    match spark.engine:
        case "local":
            return _build_local(spark, data_dir, app_name)
        case "databricks":
            return _configure_running(SparkSession.builder.appName(app_name).getOrCreate(), spark)
        case "connect":
            builder = SparkSession.builder.remote(str(spark.remote)).appName(app_name)
            return _configure_running(builder.getOrCreate(), spark)


def session_for_few_rows(spark: SparkSession) -> SparkSession:
    """Returns a second session of the local engine, of the same process and catalog, that runs plans as they are."""
    second = spark.newSession()
    for name, value in FEW_ROWS_CONF.items():
        second.conf.set(name, value)
    return second


def quieten_libraries() -> None:
    """Turns off what libraries send home, unless the user has decided otherwise."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def local_conf(spark: SparkSettings, data_dir: Path) -> dict[str, str]:
    """Returns every Spark setting of the local engine, the user's own included.

    Fetches the jars when they are not there yet; starts nothing.
    """
    scratch = data_dir.resolve() / "_spark"
    memory = spark.driver_memory or default_driver_memory()
    conf = {
        **_SEMANTICS,
        **_LOCAL_FILES,
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # Derby lets one process in at a time; tables are registered by location instead.
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": (scratch / "warehouse").as_uri(),
        "spark.local.dir": str(scratch / "tmp"),
        # As on Databricks, where a table without USING is a Delta table.
        "spark.sql.sources.default": "delta",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # The defaults of the next three are made for a cluster: 200, 50 and 10000 tasks, which on a few cores cost
        # 1.8 times the CPU of a run, 3 times the time of a Delta write and 15 times that of a VACUUM.
        "spark.sql.shuffle.partitions": str(spark.shuffle_partitions or min(8, max(2, os.cpu_count() or 2))),
        # Few rows stay in one partition; a few million would no longer fit the memory of two, and spilling them costs
        # more than adding them up.
        "spark.sql.adaptive.coalescePartitions.initialPartitionNum": "8",
        # Up to 4 MB stay one task; more are as many tasks as there are cores, of up to 32 MB each.
        "spark.sql.adaptive.coalescePartitions.parallelismFirst": "true",
        "spark.sql.adaptive.coalescePartitions.minPartitionSize": "4m",
        "spark.sql.adaptive.advisoryPartitionSizeInBytes": "32m",
        # Files of a table follow the order of what was read, so that a span of days lies in few of them.
        "spark.sql.files.maxPartitionBytes": "32m",
        "spark.databricks.delta.snapshotPartitions": "2",
        # With every commit Delta would note all files of the table, and run a query for it.
        "spark.databricks.delta.allFilesInCrc.enabled": "false",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
        # Wide projections of conditions make the optimizer derive thousands of facts it has no use for.
        "spark.sql.constraintPropagation.enabled": "false",
        # The JVM never compiles a method larger than this: Spark then makes smaller ones, a tenth of the time.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.sql.ui.explainMode": "simple",
        # The place in our code where each column was made, for messages of errors: it takes longer than making it.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.sql.dataFrameQueryContext.enabled": "false",
        # Each aggregation of each task takes a page, 64 MB by default: for the many small tables that is all garbage.
        "spark.buffer.pageSize": "4m",
        # Nobody looks at a user interface that is off; its records of a thousand plans are half a gigabyte.
        "spark.sql.ui.retainedExecutions": "10",
        "spark.ui.retainedJobs": "20",
        "spark.ui.retainedStages": "20",
        "spark.ui.retainedTasks": "100",
        "spark.driver.memory": memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Without it workers take whatever `python3` is first on PATH.
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
    }
    if _megabytes(memory) >= _HASHING_MB:
        # Hashing the smaller side costs a third of sorting both, where one task's part of it is this small.
        conf["spark.sql.adaptive.maxShuffledHashJoinLocalMapThreshold"] = "32m"
    conf |= spark.conf
    wanted = spark.conf.get("spark.driver.extraJavaOptions", "")
    conf["spark.driver.extraJavaOptions"] = " ".join(part for part in (_java_options(wanted), wanted) if part)
    # On the class path from the start, because the file system is needed before `spark.jars` are looked at.
    paths = [*map(str, ensure_jars()), spark.conf.get("spark.driver.extraClassPath", "")]
    conf["spark.driver.extraClassPath"] = os.pathsep.join(path for path in paths if path)
    return conf


_HASHING_MB: Final = 4096
"""Heap from which a join may hash instead of sort: a hashed side must fit, a sorted one can be put on disk."""


def _megabytes(heap: str) -> int:
    return int(heap[:-1]) * {"k": 1, "m": 1 << 10, "g": 1 << 20}[heap[-1].lower()] >> 10


def default_driver_memory() -> str:
    """Returns 40 % of the memory this process may use, between 1 and 12 GB, in the form Spark takes."""
    megabytes = int(_usable_memory() * 0.4) >> 20
    return f"{min(12 * 1024, max(1024, megabytes))}m"


@contextmanager
def start_connect_server(spark: SparkSettings, data_dir: Path, timeout: float = 120) -> Iterator[str]:
    """Runs a Spark Connect server with Delta on loopback and yields its `sc://` address.

    The server is a process of its own, so this process may keep a classic session. It ends with the block, and also
    when this process dies. The address carries a token made for this server: do not print it.

    Args:
        spark: Settings of the local engine the server runs on.
        data_dir: Folder for scratch files and the warehouse.
        timeout: Seconds to wait for the start.

    Raises:
        ConnectServerFailed: The server did not come up; the message ends with what it said last.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    said = data_dir / "_spark" / "connect-server.log"
    said.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(24)
    request = {"spark": spark.model_dump(), "data_dir": str(data_dir), "token": token}
    environ = {name: value for name, value in os.environ.items() if name not in _CONNECT_VARIABLES}
    environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    with said.open("wb") as errors:
        server = subprocess.Popen(
            [sys.executable, "-c", "from lakehouse.session import _serve; _serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ,
            text=True,
        )
    try:
        port = _await_port(server, json.dumps(request), timeout)
        if port is None:
            raise ConnectServerFailed(said)
        yield f"sc://localhost:{port}/;token={token}"
    finally:
        if server.stdin:
            server.stdin.close()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if server.stdout:
            server.stdout.close()


@contextmanager
def connect_session(address: str) -> Iterator[ConnectSession]:
    """Yields a Spark Connect session beside any classic one.

    PySpark decides by an environment variable whether `F.col` makes a classic or a Connect column, so inside the
    block functions make Connect columns, and the classic session must wait.

    Args:
        address: What `start_connect_server` yielded.
    """
    from pyspark.sql.connect.session import SparkSession as Connect

    before = os.environ.get("SPARK_CONNECT_MODE_ENABLED")
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    session = Connect.builder.remote(address).create()
    try:
        for name, value in _SEMANTICS.items():
            session.conf.set(name, value)
        yield session
    finally:
        session.stop()
        if before is None:
            os.environ.pop("SPARK_CONNECT_MODE_ENABLED", None)
        else:
            os.environ["SPARK_CONNECT_MODE_ENABLED"] = before


class ConnectServerFailed(MachineError):
    """The Spark Connect server did not start.

    Attributes:
        log: File with everything it said.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "it said nothing"
        super().__init__(f"The Spark Connect server did not start: {last}. All of it is in {log}.")


_CONNECT_VARIABLES: Final = frozenset(
    {"SPARK_CONNECT_MODE_ENABLED", "SPARK_REMOTE", "SPARK_LOCAL_REMOTE", "SPARK_CONNECT_AUTHENTICATE_TOKEN"}
)


def _build_local(spark: SparkSettings, data_dir: Path, app_name: str) -> SparkSession:
    java = find_java()
    os.environ["JAVA_HOME"] = str(java.home)
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master(spark.master).appName(app_name)
    conf = local_conf(spark, data_dir)
    if "ArchiveClassesAtExit" not in conf["spark.driver.extraJavaOptions"]:
        conf["spark.driver.extraJavaOptions"] = (
            f"{conf['spark.driver.extraJavaOptions']} {reading_options(java)}".strip()
        )
    for name, value in conf.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    # Installs the converter that turns a commit conflict into its own Python class; without it every conflict
    # arrives as a bare Py4JJavaError.
    import delta.exceptions.captured  # noqa: F401

    remember_classes(session)
    return session


def _configure_running(session: SparkSession, spark: SparkSettings) -> SparkSession:
    chosen = dict(_SEMANTICS)
    if spark.shuffle_partitions:
        chosen["spark.sql.shuffle.partitions"] = str(spark.shuffle_partitions)
    for name, value in {**chosen, **spark.conf}.items():
        session.conf.set(name, value)
    return session


# Planning a thousand queries is a great deal of code that runs seldom, so that compiling it cost a quarter of a run.
# With less put into one method Java compiles in half the time; what tasks lose by it is a third of what is gained. A
# method waits for twice as many calls before it is compiled again; that of a task is noticed by its loops all the same.
# The sweeper looks for compiled code to drop whenever half a percent of the space has changed. Java 21 has none.
_JAVA_COMPILER: Final = (
    "-XX:+IgnoreUnrecognizedVMOptions -XX:InlineSmallCode=600 -XX:FreqInlineSize=200 "
    "-XX:LiveNodeCountInliningCutoff=6000 -XX:SweeperThreshold=10 "
    "-XX:Tier4InvocationThreshold=10000 -XX:Tier4MinInvocationThreshold=1200 -XX:Tier4CompileThreshold=30000"
)


def _java_options(wanted: str) -> str:
    quiet = (Path(__file__).with_name("log4j2.properties")).resolve().as_uri()
    # What G1 saves in pauses, which nobody notices here, it costs in work beside the tasks.
    collector = "" if re.search(r"-XX:\+Use\w+GC\b", wanted) else " -XX:+UseParallelGC"
    return f"{_JAVA_COMPILER} -Dlog4j2.configurationFile={quiet} -Duser.timezone=UTC{collector}"


def _use_utc() -> None:
    # `collect` turns a timestamp into a naive datetime of the process's zone, whatever the session's zone is.
    os.environ["TZ"] = "UTC"
    if hasattr(time, "tzset"):
        time.tzset()


def _usable_memory() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        physical = 10 << 30
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        return min(physical, int(limit.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return physical


def _await_port(server: subprocess.Popen[str], request: str, timeout: float) -> int | None:
    from threading import Timer

    if server.stdin is None or server.stdout is None:
        return None
    watchdog = Timer(timeout, server.kill)
    watchdog.start()
    try:
        server.stdin.write(request + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
    except BrokenPipeError:
        return None
    finally:
        watchdog.cancel()
    return int(answer) if answer.strip().isdigit() else None


def _serve() -> None:
    request = json.loads(sys.stdin.readline())
    asked = SparkSettings.model_validate(request["spark"])
    conf = {
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.connect.authenticate.token": request["token"],
        **asked.conf,
    }
    local = asked.model_copy(update={"engine": "local", "conf": conf})
    session = build_session(local, Path(request["data_dir"]), "segmentation-connect")
    jvm: Any = session.sparkContext._jvm
    # A Scala object; its class has no static doors, so it is reached by the name the compiler gives it.
    service = getattr(getattr(jvm.org.apache.spark.sql.connect.service, "SparkConnectService$"), "MODULE$")
    print(service.localPort(), flush=True)  # noqa: T201
    # The parent holds the other end: it closes it to end the server, and its death closes it too.
    sys.stdin.read()
    session.stop()
