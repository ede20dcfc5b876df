"""Reading and writing declared tables: what is stored in one goes through here.

Every write is safe to repeat: appends carry a transaction id, merges compare before they touch, replaces replace, and
leave a small table that has the rows already as it is.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property, reduce
from pathlib import Path
from shutil import rmtree
from typing import Any
from weakref import WeakKeyDictionary

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from lakehouse import ddl
from lakehouse.access import Access, load_access
from lakehouse.declare import ASIDE, SCHEMAS, Append, Merge, Replace, ReplaceSlice, Scd1, Scd2, Table, table_of, tables
from lakehouse.errors import MigrationRefused, SegmentationError, SettingsError
from lakehouse.files import DataFiles, data_files, keeps_changes, table_properties
from lakehouse.frames import frame_of
from lakehouse.hold import Hold
from lakehouse.scd import rebuild_timeline
from lakehouse.session import session_for_few_rows
from lakehouse.settings import Settings
from lakehouse.unity import PROTECTION, needs_protection, protection

DELETED = "_deleted"
Which = str | type | Table

_NAMED: WeakKeyDictionary[SparkSession, dict[str, str]] = WeakKeyDictionary()
"""Which folder each name means in a session."""

FEW_ROWS = 100_000
"""Rows up to which plans are run as they are; compiling them first pays for more rows only."""

_KEPT = timedelta(days=7)
"""How long Delta keeps files that no newest version needs."""

_HELD = "_held_"
"""How the names of tables begin that hold a frame for a while."""

_SMALL = 2_000_000
"""Rows up to which a merge goes straight to MERGE; above, a narrow scan first finds whether and where rows match."""


@dataclass(frozen=True)
class WriteResult:
    """What a write did. `rows_written` counts inserted, updated and deleted rows; `checksum` sums their hashes."""

    rows_written: int
    version: int | None
    checksum: int | None = None


class Lake:
    """Declared tables in one place: folders under `data_dir`, or schemas of a catalog."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        """Open the lakehouse of `settings`; nothing is created until a table is first used.

        In a catalog `schema.table` means its tables from here on, in the whole session.
        """
        if settings.catalog:
            spark.catalog.setCurrentCatalog(settings.catalog)
        self.spark = spark
        self.settings = settings
        self._few: Lake | None = None
        self._named = _NAMED.setdefault(spark, {})
        self._ready: set[str] = set()
        self._counted: dict[str, tuple[int, int]] = {}
        self._schemas: set[str] = set()
        self._lock = threading.Lock()
        self._table_locks: dict[str, threading.Lock] = {}

    def for_rows(self, rows: int) -> Lake:
        """This lakehouse in the session that is fastest for work on so many rows.

        A run is a hundred small steps and a few large ones, and each engine setting suits one of the two. Frames of one
        plan come from one session. Rows marked as gone are left out only where Delta looks into files first.
        """
        if rows > FEW_ROWS or self.settings.spark.engine != "local" or self.settings.deletion_vectors:
            return self
        with self._lock:
            if self._few is None:
                self._few = copy(self)
                self._few._few = self._few
                self._few.spark = session_for_few_rows(self.spark)
            return self._few

    # Names and places ------------------------------------------------------------------------------------------

    def name(self, which: Which) -> str:
        """What SQL calls a table: its quoted name in the catalog, or its folder.

        A folder cannot be mistaken for another's, as a name could once one session has opened two lakehouses.
        """
        t = table_of(which)
        parts = [self.settings.catalog, t.schema, t.short] if self.settings.catalog else ["delta", str(self.path(t))]
        return ".".join(ddl.quote(p) for p in parts)

    def path(self, which: Which) -> Path:
        """Folder of a table when there is no catalog."""
        t = table_of(which)
        return self.settings.data_dir.resolve() / t.schema / t.short

    def exists(self, which: Which) -> bool:
        """Whether the table has been created."""
        t = table_of(which)
        if self.settings.catalog:
            return bool(self.spark.catalog.tableExists(f"{self.settings.catalog}.{t.name}"))
        return newest_version(self.path(t)) is not None

    def version(self, which: Which) -> int | None:
        """Newest Delta version, None before the table exists."""
        t = table_of(which)
        if not self.settings.catalog:
            return newest_version(self.path(t))
        if not self.exists(t):
            return None
        newest = self.spark.sql(f"DESCRIBE HISTORY {self.name(t)} LIMIT 1").select("version").collect()
        return int(newest[0]["version"])

    def version_on(self, which: Which, day: date) -> int:
        """Newest version that existed at the end of a UTC day.

        Raises:
            SettingsError: There was none, or it is not known any more.
        """
        # Whoever looks back holds no lock, so the table is left as it is.
        t = table_of(which)
        after = datetime.combine(day + timedelta(days=1), datetime.min.time())
        history = self.spark.sql(f"DESCRIBE HISTORY {self.name(t)}")
        until = F.max(F.when(F.col("timestamp") < F.lit(after), F.col("version"))).alias("until")
        told = history.agg(until, F.min("version").alias("first"), F.min("timestamp").alias("since")).collect()[0]
        if told["until"] is None and told["first"]:
            raise SettingsError(
                f"What {t.name} held on {day} is not kept any more: its log goes back to {told['since']:%Y-%m-%d}."
            )
        if told["until"] is None:
            raise SettingsError(f"{t.name} did not exist yet on {day}; its first version is younger.")
        return int(told["until"])

    def count(self, which: Which, *, version: int | None = None) -> int:
        """Rows of a table; Delta answers from its log without reading data, and what was counted once is remembered."""
        t = table_of(which)
        if self.settings.catalog and version is None:
            return int(self.read(t).count()) if self.exists(t) else 0
        at = self.version(t) if version is None else version
        if at is None:
            return 0
        known = self._counted.get(t.name)
        if known is None or known[0] != at:
            files = self._files(t, at)
            told = None if files is None else files.rows
            counted = int(self.read(t, version=at).count()) if told is None else told
            known = self._counted[t.name] = (at, counted)
        return known[1]

    # Reading ---------------------------------------------------------------------------------------------------

    def read(self, which: Which, *, version: int | None = None, day: date | None = None) -> DataFrame:
        """Return a table, now or as it was.

        Args:
            which: Name, declaring class or declaration.
            version: Delta version to read.
            day: UTC day at whose end to read.

        Returns:
            The declared columns in declared order. A declared table that nothing has written yet reads as empty, and a
            column declared after the version was written is null.
        """
        t = table_of(which)
        if not self.exists(t):
            return self.empty(t)
        if day is not None:
            version = self.version_on(t, day)
        stored = self._read_files(t, version)
        if stored is None:
            reader = self.spark.read.format("delta")
            if version is not None:
                reader = reader.option("versionAsOf", version)
            stored = reader.table(self.name(t)) if self.settings.catalog else reader.load(str(self.path(t)))
        have = tuple(stored.columns)
        if have == t.column_names:
            return stored
        return stored.select(
            *[str(c) if str(c) in have else F.lit(None).cast(c.spec.type).alias(str(c)) for c in t.columns]
        )

    def _read_files(self, t: Table, version: int | None) -> DataFrame | None:
        """A small table as its files; None where Delta is to read it."""
        files = self._files(t, version)
        is_small = files is not None and files.rows is not None and files.rows <= FEW_ROWS
        return files.read(self.spark) if files is not None and is_small else None

    def _files(self, t: Table, version: int | None) -> DataFiles | None:
        is_here = self.settings.spark.engine == "local" and not self.settings.catalog
        return data_files(self.path(t), version) if is_here else None

    def frame(self, which: Which, rows: Iterable[Mapping[str, Any]]) -> DataFrame:
        """A frame of the declared schema with a handful of rows; what a row does not name is null."""
        return frame_of(self.spark, ddl.struct_of(table_of(which)), rows)

    def empty(self, which: Which) -> DataFrame:
        """A frame of the declared schema without rows."""
        return self.frame(which, ())

    def read_changes(
        self, which: Which, since: int | None, *, until: int | None = None, also_before: bool = False
    ) -> DataFrame:
        """Return rows whose content changed after version `since`, each key once, with `_deleted`.

        Rows of a table that is only appended to do not change: one that was removed is past its retention, or was
        erased, and what was made of it stays. A table that is replaced names what it held and what it holds.

        Args:
            which: A table declared with `change_feed`.
            since: Last version already seen; None asks for the whole table.
            until: Version to stop at, the newest when None.
            also_before: Return every state a changed row has had as well, with `_deleted` true: whoever held it then.
        """
        t = table_of(which)
        newest = until if until is not None else self.version(t)
        if newest is None or since == newest:
            return self.empty(t).withColumn(DELETED, F.lit(False))
        if since is None or since > newest or not t.change_feed:
            return self.read(t, version=newest).withColumn(DELETED, F.lit(False))
        reader = (
            self.spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", since + 1)
            .option("endingVersion", newest)
        )
        feed = reader.table(self.name(t)) if self.settings.catalog else reader.load(str(self.path(t)))
        if isinstance(t.kind, Append):
            feed = feed.where(F.col("_change_type") == "insert")
        if also_before:
            is_gone = F.col("_change_type").isin("update_preimage", "delete")
            return feed.select(*t.column_names, is_gone.alias(DELETED))
        rows = feed.where(F.col("_change_type") != "update_preimage")
        if t.key and newest - since > 1 and not isinstance(t.kind, Append):
            last = Window.partitionBy(*t.key).orderBy(
                F.col("_commit_version").desc(), (F.col("_change_type") == "delete").asc()
            )
            rows = rows.withColumn("_rank", F.row_number().over(last)).where("_rank = 1")
        return rows.select(*t.column_names, (F.col("_change_type") == "delete").alias(DELETED))

    def tells_changes(self, which: Which, since: int, until: int, seen_at: datetime) -> bool:
        """Whether what `read_changes` needs for these versions is still there: a vacuum removes it after a week.

        Args:
            which: The table.
            since: Last version already seen.
            until: Version to stop at.
            seen_at: When it was seen, UTC; what changed since is younger.
        """
        t = table_of(which)
        if since >= until or not t.change_feed:
            return True
        if not self.settings.catalog:
            return keeps_changes(self.path(t), since + 1, until)
        # The platform vacuums by itself, and says nowhere what it took.
        edge = datetime.now(UTC).replace(tzinfo=None) - _KEPT
        if seen_at > edge:
            return True
        history = self.spark.sql(f"DESCRIBE HISTORY {self.name(t)}").where(F.col("version") == since + 1)
        first = history.select("timestamp").collect()
        return bool(first) and first[0]["timestamp"] > edge

    def sql(self, query: str) -> DataFrame:
        """Run a query written by a developer; declared tables it names are made known to the session first."""
        if self.settings.catalog:
            return self.spark.sql(query)
        for schema, short in set(re.findall(r"\b(\w+)`?\.`?(\w+)\b", query)):
            if schema in SCHEMAS and f"{schema}.{short}" in tables() and self.exists(f"{schema}.{short}"):
                self._register(table_of(f"{schema}.{short}"))
        return self.spark.sql(query)

    def register_all(self) -> None:
        """Make every existing table known by name in the session, for notebooks; in a catalog they are."""
        if self.settings.catalog:
            return
        for name, t in tables().items():
            if self.exists(name):
                self._register(t)

    # Creating and migrating --------------------------------------------------------------------------------------

    def ensure(self, which: Which) -> Table:
        """Create the table, or bring an existing one to its declaration, once per process.

        Raises:
            MigrationRefused: when the declaration cannot be applied without losing or rewriting data, or what it says
                of people is not protected in the catalog.
        """
        t = table_of(which)
        if t.name in self._ready:
            return t
        with self._lock_of(t):
            if t.name in self._ready:
                return t
            if self.exists(t):
                self._migrate(t)
            else:
                self._require_protection(t, {})
                if self.settings.catalog:
                    self._schema(t.schema)
                self.spark.sql(
                    ddl.create_statement(t, self.name(t), None, deletion_vectors=self.settings.deletion_vectors)
                )
                self._counted[t.name] = (0, 0)
            self._ready.add(t.name)
        return t

    def aside(self, short: str) -> str:
        """Quoted name of a table of the run's own, which is not declared; its schema is made when it is not there."""
        return f"{self._schema(ASIDE)}.{ddl.quote(short)}"

    def _lock_of(self, t: Table) -> threading.Lock:
        with self._lock:
            return self._table_locks.setdefault(t.name, threading.Lock())

    def _schema(self, schema: str) -> str:
        """Create a schema, once per process; returns its quoted name."""
        name = ".".join(ddl.quote(p) for p in (self.settings.catalog, schema) if p)
        with self._lock:
            if schema not in self._schemas:
                self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {name} COMMENT {ddl.literal(SCHEMAS[schema])}")
                self._schemas.add(schema)
        return name

    def _register(self, t: Table) -> None:
        """Let `schema.table` mean this lakehouse's table; of two opened by one session, the one that asked last."""
        place = str(self.path(t))
        if self._named.get(t.name) == place:
            return
        self._schema(t.schema)
        name = f"{ddl.quote(t.schema)}.{ddl.quote(t.short)}"
        self.spark.sql(f"DROP TABLE IF EXISTS {name}")
        self.spark.sql(f"CREATE TABLE {name} USING delta LOCATION {ddl.literal(place)}")
        self._named[t.name] = place

    def _migrate(self, t: Table) -> None:
        vectors = self.settings.deletion_vectors
        # What the engine says of a table takes it a query over the table's files.
        noted = {} if self.settings.catalog else table_properties(self.path(t))
        if ddl.is_as_declared(t, noted, deletion_vectors=vectors):
            return
        asked = ("properties", "clusteringColumns", "partitionColumns", "description")
        detail = self.spark.sql(f"DESCRIBE DETAIL {self.name(t)}").select(*asked).collect()[0]
        stored = dict(detail["properties"] or {})
        self._require_protection(t, stored)
        if ddl.is_as_declared(t, stored, deletion_vectors=vectors):
            return
        plan = ddl.plan_migration(
            t,
            self.name(t),
            self.spark.table(self.name(t)).schema,
            stored,
            tuple(detail["clusteringColumns"] or ()),
            tuple(detail["partitionColumns"] or ()),
            detail["description"],
            deletion_vectors=vectors,
            key_holds=not ddl.is_key_changed(t, stored) or self._key_holds(t),
        )
        plan.require(t.name)
        ddl.Migration((), self._broken(t, ddl.new_checks(t, stored))).require(t.name)
        for statement in plan.statements:
            self.spark.sql(statement)
        if stored.get(ddl.VECTORS) == "true" and not vectors:
            self.spark.sql(f"REORG TABLE {self.name(t)} APPLY (PURGE)")

    @cached_property
    def _access(self) -> Access:
        return load_access(self.settings.conf_dir)

    def _require_protection(self, t: Table, stored: Mapping[str, str]) -> None:
        """Refuse to make or write what readers of its schema would see unmasked; a script puts policies into force."""
        if not (catalog := self.settings.catalog):
            return
        if needs_protection(t, self._access) and stored.get(PROTECTION) != protection(t, self._access):
            raise MigrationRefused(
                f"{t.name}: what it says of people is not protected in the catalog '{catalog}' as declared. First run "
                f"there what `segmentation tables ddl {t.name} --target unity --catalog {catalog}` prints, or that of "
                "all tables. Nothing was changed."
            )

    def _key_holds(self, t: Table) -> bool:
        """Whether the declared key tells the stored rows apart."""
        if not t.key:
            return True
        lacks = reduce(lambda a, b: a | b, [F.col(k).isNull() for k in t.key])
        rows = self.read(t).groupBy(*t.key).agg(F.count(F.lit(1)).alias("rows"))
        return rows.where(lacks | (F.col("rows") > 1)).limit(1).isEmpty()

    def _broken(self, t: Table, checks: Mapping[str, str]) -> tuple[str, ...]:
        """What stored rows say against checks that are new to them; one that is null is broken, as Delta has it."""
        if not checks:
            return ()
        counts = [F.count_if(~F.coalesce(F.expr(p), F.lit(False))).alias(name) for name, p in checks.items()]
        found = self.read(t).agg(*counts).collect()[0]
        return tuple(
            f"the check '{name}' ({predicate}) is broken by {found[name]:,} row(s) in the table"
            for name, predicate in checks.items()
            if found[name]
        )

    # Writing ---------------------------------------------------------------------------------------------------

    def write(
        self,
        which: Which,
        frame: DataFrame,
        *,
        txn: tuple[str, int] | None = None,
        slice_of: Mapping[str, Any] | None = None,
        is_whole: bool = False,
        audit: Callable[[DataFrame], None] | None = None,
    ) -> WriteResult:
        """Write a frame by the table's kind.

        Args:
            which: The table.
            frame: Its columns by name; more columns are an error, except `_deleted` where rows are merged.
            txn: Application id and number of this write; an append already made under them is ignored.
            slice_of: Values of a ReplaceSlice table's `by` columns, when the caller knows them; else they are read
                from the frame.
            is_whole: Whether the frame is all there is to be, so that rows held whose key it lacks are removed where
                rows are merged.
            audit: Called with the rows as they will stand before anything is published; it raises to stop the write.

        Raises:
            SegmentationError: when the frame lacks declared columns or brings others.
        """
        t = self.ensure(which)
        rows = self._conform(t, frame)
        with self.holding() as hold:
            if isinstance(t.kind, Scd2):
                # What is said of a thing is looked at several times.
                rows = rebuild_timeline(self.read(t), hold(rows), t)
            if audit is None:
                return self._write(t, rows, txn, slice_of, is_whole)
            held = hold(rows)
            audit(held.where(~F.col(DELETED)).drop(DELETED) if DELETED in held.columns else held)
            if isinstance(t.kind, Replace) and self._has_exactly(t, held):
                return WriteResult(0, self.version(t), 0)
            return self._write(t, held, txn, slice_of, is_whole)

    def _has_exactly(self, t: Table, rows: DataFrame) -> bool:
        """Whether a small table holds just these rows: not replaced, it wakes none of those who read it."""
        if self.count(t) > FEW_ROWS or any(c.spec.type.startswith("map") for c in t.columns):
            return False
        columns = [ddl.quote(c) for c in t.column_names]
        both = rows.select(*columns, F.lit(1).alias("_more")).unionAll(
            self.read(t).select(*columns, F.lit(-1).alias("_more"))
        )
        return both.groupBy(*columns).agg(F.sum("_more").alias("_more")).where("_more != 0").limit(1).isEmpty()

    def holding(self) -> Hold:
        """What makes frames once that are read several times, for as long as a block runs."""
        return Hold(self._write_aside)

    def _write_aside(self, frame: DataFrame) -> tuple[DataFrame, Callable[[], object]]:
        short = f"{_HELD}{datetime.now(UTC):%Y%m%d}_{uuid.uuid4().hex}"
        if not self.settings.catalog:
            folder = self.settings.data_dir.resolve() / "_spark" / short
            frame.write.format("delta").save(str(folder))
            return self.spark.read.format("delta").load(str(folder)), lambda: rmtree(folder, ignore_errors=True)
        # Nothing masks it, so nobody but the pipeline may read it, also where a run that dies leaves it.
        name = self.aside(short)
        frame.write.format("delta").saveAsTable(name)
        return self.spark.read.table(name), lambda: self.spark.sql(f"DROP TABLE IF EXISTS {name}")

    # Maintenance -----------------------------------------------------------------------------------------------

    def delete(self, which: Which, where: str, *, dry_run: bool = False) -> int:
        """Remove rows for which `where`, a predicate written by a developer, is true; returns how many."""
        t = self.ensure(which)
        found = int(self.read(t).where(where).count())
        if found and not dry_run:
            self.spark.sql(f"DELETE FROM {self.name(t)} WHERE {where}")
        return found

    def file_count(self, which: Which) -> int:
        """Data files of the newest version."""
        t = self.ensure(which)
        return int(self.spark.sql(f"DESCRIBE DETAIL {self.name(t)}").select("numFiles").collect()[0][0])

    def optimize(self, which: Which) -> None:
        """Compact small files and lay rows out by the clustering columns."""
        self.spark.sql(f"OPTIMIZE {self.name(self.ensure(which))}")

    def vacuum(self, which: Which) -> None:
        """Delete files no version of the last seven days needs; a younger table has none."""
        t = self.ensure(which)
        if not self.settings.catalog and _age_of(self.path(t)) < _KEPT:
            return
        self.spark.sql(f"VACUUM {self.name(t)}")

    def sweep(self) -> None:
        """Drop frames that runs which died before today's held aside."""
        today = f"{_HELD}{datetime.now(UTC):%Y%m%d}"
        if not self.settings.catalog:
            for folder in (self.settings.data_dir.resolve() / "_spark").glob(f"{_HELD}*"):
                if folder.name < today:
                    rmtree(folder, ignore_errors=True)
            return
        place = self._schema(ASIDE)
        for found in self.spark.sql(f"SHOW TABLES IN {place} LIKE '{_HELD}*'").select("tableName").collect():
            if found["tableName"] < today:
                self.spark.sql(f"DROP TABLE IF EXISTS {self.aside(found['tableName'])}")

    # How kinds of tables are written -----------------------------------------------------------------------------

    def _write(
        self,
        t: Table,
        rows: DataFrame,
        txn: tuple[str, int] | None,
        slice_of: Mapping[str, Any] | None,
        is_whole: bool,
    ) -> WriteResult:
        match t.kind:
            case Append():
                return self._insert(t, rows, {}, "append", txn)
            case Replace():
                return self._insert(t, rows, {}, "overwrite", txn)
            case ReplaceSlice(by):
                slices = [dict(slice_of)] if slice_of else [r.asDict() for r in rows.select(*by).distinct().collect()]
                if not slices:
                    return WriteResult(0, self.version(t), 0)
                where = " OR ".join(
                    "(" + " AND ".join(f"{ddl.quote(c)} = {_typed_literal(s[c])}" for c in by) + ")" for s in slices
                )
                return self._insert(t, rows, {"replaceWhere": where}, "overwrite", txn)
            case Merge() | Scd2():
                return self._merge(t, rows, t.column_names, is_whole)
            case Scd1(tracked):
                return self._merge(t, rows, tracked or t.column_names, is_whole)

    def _conform(self, t: Table, frame: DataFrame) -> DataFrame:
        given = set(frame.columns)
        managed: set[str] = set()
        if isinstance(t.kind, Scd2):
            managed = {t.key[0], "valid_to", "is_current"}
        wanted = [c for c in t.columns if str(c) not in managed]
        missing = [str(c) for c in wanted if str(c) not in given]
        allowed = set(t.column_names) | ({DELETED} if isinstance(t.kind, Merge | Scd1 | Scd2) else set())
        extra = sorted(given - allowed)
        if missing or extra:
            raise SegmentationError(
                f"{t.name}: the frame to write lacks {missing or 'nothing'} and brings undeclared "
                f"{extra or 'nothing'}; its producer is {t.producer}."
            )
        types = {f.name: f.dataType for f in frame.schema.fields}
        if not managed and list(types.items()) == [(str(c), ddl.data_type(c)) for c in wanted]:
            return frame
        columns: list[SparkColumn] = []
        for c in wanted:
            want = ddl.data_type(c)
            columns.append(F.col(c) if types[str(c)] == want else F.col(c).cast(want).alias(str(c)))
        if DELETED in given:
            columns.append(F.col(DELETED))
        return frame.select(*columns)

    def _insert(
        self, t: Table, rows: DataFrame, options: Mapping[str, str], mode: str, txn: tuple[str, int] | None
    ) -> WriteResult:
        seen = Observation(f"write_{uuid.uuid4().hex}")
        writer = rows.observe(seen, F.count(F.lit(1)).alias("rows"), checksum(t).alias("checksum"))
        before = self.version(t)
        if before == 0 and not options and self._counted.get(t.name) == (0, 0):
            # Just made here, so there is nothing to overwrite; to find that out Delta would run three queries.
            mode = "append"
        out = writer.write.format("delta").mode(mode).options(**options)
        if txn:
            out = out.option("txnAppId", txn[0]).option("txnVersion", txn[1])
        if self.settings.catalog:
            out.saveAsTable(self.name(t))
        else:
            out.save(str(self.path(t)))
        after = self.version(t)
        if after == before:
            return WriteResult(0, after, 0)
        written = int(seen.get["rows"])
        known = self._counted.pop(t.name, None)
        if after is not None and not options:
            if mode == "overwrite":
                self._counted[t.name] = (after, written)
            elif known is not None and known[0] == before == after - 1:
                self._counted[t.name] = (after, known[1] + written)
        return WriteResult(written, after, int(seen.get["checksum"] or 0))

    def _merge(self, t: Table, rows: DataFrame, compared: tuple[str, ...], is_whole: bool = False) -> WriteResult:
        has_deleted = DELETED in rows.columns
        stored = self.count(t)
        if stored == 0:
            new = rows.where(~F.col(DELETED)).drop(DELETED) if has_deleted else rows
            return self._insert(t, new, {}, "append", None)
        with self.holding() as hold:
            held = hold(rows)
            total = held.agg(F.count(F.lit(1)).alias("rows"), checksum(t).alias("checksum")).collect()[0]
            if not total["rows"] and not is_whole:
                return WriteResult(0, self.version(t), 0)
            summed = int(total["checksum"] or 0)
            where = ""
            if stored > _SMALL and total["rows"] <= _SMALL and not is_whole:
                found = self._matches(t, held)
                if found is None:
                    new = held.where(~F.col(DELETED)).drop(DELETED) if has_deleted else held
                    return self._insert(t, new, {}, "append", None)
                where = found
            affected = self._run_merge(t, held, compared, has_deleted, where, is_whole)
            return WriteResult(affected, self.version(t), summed)

    def _matches(self, t: Table, rows: DataFrame) -> str | None:
        """Where in the table rows of these keys lie, as a condition on `t`; None when it holds none of them.

        Hashes among the key are enough to look for: a few rows too many only make the condition wider.
        """
        probe = [k for k in t.key if t.column(k).spec.type == "bigint"] or list(t.key)
        about = [c for c in t.cluster_by[:1] if not t.column(c).spec.optional and c not in probe]
        edges = [F.count(F.lit(1)).alias("rows"), *(f(c).alias(f.__name__) for c in about for f in (F.min, F.max))]
        stored = self.read(t).select(*probe, *about)
        found = stored.join(F.broadcast(rows.select(*probe)), on=probe, how="left_semi").agg(*edges).collect()[0]
        if not found["rows"]:
            return None
        return "".join(
            f" AND t.{ddl.quote(c)} BETWEEN {_typed_literal(found['min'])} AND {_typed_literal(found['max'])}"
            for c in about
        )

    def _run_merge(
        self,
        t: Table,
        rows: DataFrame,
        compared: tuple[str, ...],
        has_deleted: bool,
        where: str = "",
        is_whole: bool = False,
    ) -> int:
        source = f"merge_source_{uuid.uuid4().hex}"
        rows.createOrReplaceTempView(source)
        q = ddl.quote
        on = " AND ".join(f"t.{q(k)} = s.{q(k)}" for k in t.key)
        others = [c for c in t.column_names if c not in t.key]
        comparable = [c for c in compared if c not in t.key and not t.column(c).spec.type.startswith("map")]
        differs = " OR ".join(f"NOT (t.{q(c)} <=> s.{q(c)})" for c in comparable) or "false"
        deleted = f"s.{q(DELETED)}" if has_deleted else "false"
        clauses = []
        if has_deleted:
            clauses.append(f"WHEN MATCHED AND {deleted} THEN DELETE")
        if others:
            sets = ", ".join(f"t.{q(c)} = s.{q(c)}" for c in others)
            clauses.append(f"WHEN MATCHED AND ({differs}) THEN UPDATE SET {sets}")
        columns = ", ".join(q(c) for c in t.column_names)
        values = ", ".join(f"s.{q(c)}" for c in t.column_names)
        clauses.append(f"WHEN NOT MATCHED AND NOT {deleted} THEN INSERT ({columns}) VALUES ({values})")
        if is_whole:
            clauses.append("WHEN NOT MATCHED BY SOURCE THEN DELETE")
        try:
            done = self.spark.sql(
                f"MERGE INTO {self.name(t)} AS t USING {source} AS s ON {on}{where} {' '.join(clauses)}"
            ).collect()
            return int(done[0]["num_affected_rows"]) if done else 0
        finally:
            self.spark.catalog.dropTempView(source)


def checksum(which: Which) -> SparkColumn:
    """Aggregate that sums a 64-bit hash per row: equal for equal rows in any order, additive over parts."""
    t = table_of(which)
    columns = [t.column(c) for c in t.content] or t.columns
    hashed = [F.to_json(F.col(c)) if c.spec.type.startswith("map") else F.col(c) for c in columns]
    return exact_sum(F.xxhash64(*hashed))


def exact_sum(whole: SparkColumn) -> SparkColumn:
    """Sum of a bigint over up to two thousand million rows as `decimal(38,0)`, null for none.

    The upper and the lower halves are added by themselves, which fits 64 bits and costs a third of adding decimals.
    """
    upper = F.sum(F.shiftright(whole, 32)).cast("decimal(38,0)")
    lower = F.sum(whole.bitwiseAND(F.lit(0xFFFFFFFF))).cast("decimal(38,0)")
    return (upper * F.lit(2**32).cast("decimal(38,0)") + lower).cast("decimal(38,0)")


def newest_version(path: Path) -> int | None:
    """Newest Delta version of a table's folder, None before there is a table; needs no engine."""
    log = path / "_delta_log"
    if not log.is_dir():
        return None
    versions = [int(p.name[:20]) for p in log.iterdir() if len(p.name) == 25 and p.name.endswith(".json")]
    return max(versions, default=None)


def _age_of(path: Path) -> timedelta:
    """Time since the oldest commit of a folder's log that is still there."""
    oldest = min(p.stat().st_mtime for p in (path / "_delta_log").glob("*.json"))
    return timedelta(seconds=time.time() - oldest)


def _typed_literal(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case int() | Decimal() | float():
            return str(value)
        case datetime():
            return f"TIMESTAMP {ddl.literal(value.isoformat(sep=' '))}"
        case date():
            return f"DATE {ddl.literal(value.isoformat())}"
        case _:
            return ddl.literal(str(value))
