"""Table declarations: one class says all there is to say of a table, and a registry knows every one of them.

A declaration imports nothing above `lakehouse` and starts no JVM. `producer` and `reads` are strings; a test
resolves them. Mistakes fail at import and say what exists.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lakehouse.columns import Column, column, strictest
from lakehouse.errors import DeclarationError, suggest

SCHEMAS: dict[str, str] = {
    "bronze": "Rows as they were delivered, with file, position and hash; immutable.",
    "silver": "Typed, conformed, deduplicated subjects, and the rejected rows beside them with the reason.",
    "gold": "Dimensions, facts, references and audits that people query; segments and their members.",
    "feature": "One row per customer and day the features were true for.",
    "ingest": "The record of ingestion itself: sources, files, schemas, errors, retries, audits.",
    "ops": "The record of operation: services, logs, alerts, retention.",
    "gov": "The record of governance: datasets, owners, quality results, lineage, certifications.",
    "cost": "The record of cost: usage, prices, allocations.",
    "campaign": "Campaign tests, variations, recommendations and their results.",
    "success": "Customer health, churn and feedback.",
    "aside": "What a running step holds for a while, without masks; for the pipeline alone.",
}

ASIDE = "aside"
"""Schema without declared tables, of which `*` in `access.yml` says nothing."""


@dataclass(frozen=True)
class Append:
    """Rows are only ever added; a replayed write is ignored."""


@dataclass(frozen=True)
class Replace:
    """The whole content is replaced by each write."""


@dataclass(frozen=True)
class ReplaceSlice:
    """Each write replaces the rows whose `by` values it carries (for example one `as_of` day)."""

    by: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """Rows are upserted on the table's key. A written frame may carry a boolean `_deleted` to remove a key."""


@dataclass(frozen=True)
class Scd1:
    """Like Merge, but a row is touched only when a `tracked` column differs, and a key absent from the frame stays."""

    tracked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scd2:
    """Versions per `business_key`; a new version starts when a `tracked` column differs.

    The table must declare `valid_from`, `valid_to` (null = open) and `is_current`, and as key one bigint surrogate,
    which the lakehouse fills with a hash of business key and `valid_from`. The written frame carries the business
    key, the attributes and `valid_from` (when the values became true).

    What is written of a thing is all of its history: stored versions that the frame lacks go.
    """

    business_key: tuple[str, ...]
    tracked: tuple[str, ...]


Kind = Append | Replace | ReplaceSlice | Merge | Scd1 | Scd2


class Changes(str):
    """A read of only the rows that changed since the reader's last success.

    The frame has the table's columns and `_deleted` (true when the row is gone). On a reader's first run, and after
    its code or declaration changed, it is the whole table with `_deleted` false.

    Attributes:
        also_before: Whether changed rows also come as they were before, with `_deleted` true. A reader who asks which
            customers, days or baskets to make again needs them: a corrected row can have left one for another.
    """

    also_before: bool

    def __new__(cls, name: str, also_before: bool = False) -> Changes:
        """A table's name that says how it is read."""
        made = super().__new__(cls, name)
        made.also_before = also_before
        return made


def changes(name: str, *, also_before: bool = False) -> Changes:
    """Declare an incremental read of `name`; see `Changes`."""
    return Changes(name, also_before)


@dataclass(frozen=True)
class Table:
    """A declared table. `columns` are in declared order; `name` is `schema.table`."""

    name: str
    comment: str
    kind: Kind
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    producer: str
    reads: tuple[str, ...] = ()
    owner: str = "data-platform"
    cluster_by: tuple[str, ...] = ()
    checks: Mapping[str, str] = field(default_factory=dict)
    change_feed: bool = False
    retention_days: int | None = None
    ages_by: Literal["clock", "data"] = "clock"
    freshness_hours: int | None = None
    by_runtime: bool = False
    subject: str = ""
    content: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()

    @property
    def schema(self) -> str:
        """The schema part of the name."""
        return self.name.split(".")[0]

    @property
    def short(self) -> str:
        """The table part of the name."""
        return self.name.split(".")[1]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Plain names in declared order."""
        return tuple(str(c) for c in self.columns)

    def column(self, name: str) -> Column:
        """Return the declared column, or fail with the closest name."""
        for c in self.columns:
            if c == name:
                return c
        raise DeclarationError(f"{self.name} has no column '{name}'.{suggest(name, self.column_names)}")

    @property
    def pii_columns(self) -> tuple[Column, ...]:
        """Columns that say something about a person."""
        return tuple(c for c in self.columns if c.spec.pii is not None)

    @property
    def all_checks(self) -> dict[str, str]:
        """Named SQL predicates: table checks, column checks and closed value sets; null, unknown, passes."""
        # Delta takes a CHECK that is null for violated, unlike SQL, so unknown is let through here.
        found = {name: f"coalesce({check}, true)" for name, check in self.checks.items()}
        for c in self.columns:
            unknown = f"{c} IS NULL OR " if c.spec.optional else ""
            if c.spec.check:
                found[f"{c}_check"] = f"{unknown}({c.spec.check})" if unknown else c.spec.check
            if c.spec.values:
                quoted = ", ".join("'" + v.replace("'", "''") + "'" for v in c.spec.values)
                found[f"{c}_values"] = f"{unknown}{c} IN ({quoted})"
        return found


_REGISTRY: dict[str, Table] = {}


def table(
    name: str,
    *,
    comment: str,
    kind: Kind,
    key: Iterable[str],
    producer: str,
    reads: Iterable[str] = (),
    owner: str = "data-platform",
    cluster_by: Iterable[str] = (),
    checks: Mapping[str, str] | None = None,
    change_feed: bool = False,
    retention_days: int | None = None,
    ages_by: Literal["clock", "data"] = "clock",
    freshness_hours: int | None = None,
    by_runtime: bool = False,
    subject: str = "",
    content: Iterable[str] = (),
    retired: Iterable[str] = (),
) -> Callable[[type], type]:
    """Declare a table; the decorated class keeps its attributes as named columns and gains `__table__`.

    Args:
        name: `schema.table`.
        comment: One sentence with the grain.
        kind: How writes land, see the kinds above.
        key: Columns that identify a row; empty only for `Append` and `Replace`.
        producer: `module:function` that makes it. Tables naming the same producer are made by one call, which
            returns a mapping from table name to frame.
        reads: Tables the producer takes, in the order of its positional parameters; `changes(name)` for an
            incremental read.
        owner: Team that answers for it.
        cluster_by: Columns to lay files out by.
        checks: Named SQL predicates over a row.
        change_feed: Whether readers may ask for its changes.
        retention_days: Days of history `maintain` keeps, None for all.
        ages_by: What those days are counted back from: the clock, for rows dated by when they were recorded; or the
            newest row, for rows dated by when something happened, which in delivered data can be long ago.
        freshness_hours: Hours after which it counts as stale, None for no promise.
        by_runtime: True when the platform itself appends to it while running (audits, logs), so it is no step.
        subject: Folder of the dictionary it is listed under; the schema when empty.
        content: Columns that tell rows and all they say apart, when few do: the checksum and the statistics of files
            are of these. All columns, and those of the key, when empty.
        retired: Columns an older declaration had. A table that still has them keeps them, null in new rows.
    """

    def declare(cls: type) -> type:
        inherited = [a for base in reversed(cls.__mro__[1:]) for a in vars(base).items()]
        named = {n: c for n, c in [*inherited, *vars(cls).items()] if isinstance(c, Column)}
        columns = tuple(Column(n, c.spec) for n, c in named.items())
        for c in columns:
            setattr(cls, str(c), c)
        made = Table(
            name=name,
            comment=comment,
            kind=kind,
            key=tuple(str(k) for k in key),
            columns=columns,
            producer=producer,
            reads=tuple(reads),
            owner=owner,
            cluster_by=tuple(str(c) for c in cluster_by),
            checks=dict(checks or {}),
            change_feed=change_feed,
            retention_days=retention_days,
            ages_by=ages_by,
            freshness_hours=freshness_hours,
            by_runtime=by_runtime,
            subject=subject,
            content=tuple(content),
            retired=tuple(retired),
        )
        _validate(made)
        _REGISTRY[name] = made
        cls.__table__ = made  # type: ignore[attr-defined]
        cls.__doc__ = cls.__doc__ or comment
        return cls

    return declare


def tables() -> dict[str, Table]:
    """Every declared table by name, after importing all modules of `lakehouse.tables`."""
    import lakehouse.tables as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"lakehouse.tables.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def declared_order() -> list[str]:
    """Names of all tables in the order they were declared."""
    tables()
    return list(_REGISTRY)


def table_of(which: str | type | Table) -> Table:
    """Return the declaration for a name, a declaring class or a `Table`."""
    if isinstance(which, Table):
        return which
    if isinstance(which, str):
        known = _REGISTRY if which in _REGISTRY else tables()
        if which not in known:
            raise DeclarationError(f"No table is declared as '{which}'.{suggest(which, known)}")
        return known[which]
    declared = getattr(which, "__table__", None)
    if not isinstance(declared, Table):
        raise DeclarationError(f"{which!r} is not a declared table.")
    return declared


def landing(subject: str, fields: Mapping[str, Column], *, comment: str, owner: str = "data-platform") -> None:
    """Declare `bronze.stg_<subject>` and `bronze.raw_<subject>` for one subject a feed may deliver.

    `stg_` holds the batch being landed, good rows and bad, so a file is parsed once; `raw_` keeps every good row.
    `fields` are the canonical fields; all may be null here, for what a value must be is silver's business.
    """
    canonical = {n: c.with_(optional=True, check=None, values=()) for n, c in fields.items()}
    # What was delivered is as personal as anything it was taken apart into.
    personal = strictest(c.spec.pii for c in fields.values())
    origin = {
        "source": column("string", "Name of the source as in conf/sources."),
        "feed": column("string", "Name of the feed within the source."),
        "delivery": column("string", "Name of the delivery the row came in; the file name unless the feed says else."),
        "delivery_seq": column("bigint", "Order of deliveries within the feed; the later one wins a correction."),
        "file_id": column("string", "SHA-256 of the file's bytes, hex; `ingest.raw_records` says where it was."),
        "row_number": column("bigint", "Position within the file, 1 for the first data row."),
        "row_hash": column("bigint", "xxhash64 of all delivered values; equal rows have equal hashes."),
        "payload": column(
            "string",
            "Delivered row as JSON; null for columnar files, whose columns are the payload.",
            optional=True,
            pii=personal,
        ),
        "extra": column(
            "map<string,string>", "Delivered columns outside the mapping, kept aside.", optional=True, pii=personal
        ),
        "batch_id": column("bigint", "Number of the ingest batch."),
        "loaded_at": column("timestamp", "When the batch was read, UTC."),
    }
    # Few rows are refused, and these say where to look. Of many million rows the path would be a tenth of the work.
    errors = {
        "file_path": column("string", "Where the file was when read."),
        "parse_errors": column("array<string>", "Why the row was refused; null when it was accepted.", optional=True),
    }
    producer = "pipelines.bronze.landing:land"
    stg = type(f"Stg_{subject}", (), {**canonical, **origin, **errors})
    raw = type(f"Raw_{subject}", (), {**canonical, **origin})
    table(
        f"bronze.stg_{subject}",
        comment=f"{comment} The batch being landed, good rows and bad.",
        kind=Replace(),
        key=(),
        producer=producer,
        owner=owner,
        by_runtime=True,
        subject=subject,
    )(stg)
    table(
        f"bronze.raw_{subject}",
        comment=f"{comment} One row per delivered record, immutable.",
        kind=Append(),
        key=("file_id", "delivery", "row_number"),
        producer=producer,
        owner=owner,
        by_runtime=True,
        change_feed=True,
        subject=subject,
        content=("batch_id", "row_number", "row_hash"),
        retired=("file_path",),
    )(raw)


def _validate(made: Table) -> None:
    names = made.column_names
    if made.name.count(".") != 1 or made.schema not in SCHEMAS:
        raise DeclarationError(f"{made.name}: the name must be schema.table with a schema of {', '.join(SCHEMAS)}.")
    if made.name in _REGISTRY and _REGISTRY[made.name].columns != made.columns:
        raise DeclarationError(f"{made.name} is declared twice with different columns.")
    if not names:
        raise DeclarationError(f"{made.name} declares no column.")
    named: list[tuple[str, Iterable[str]]] = [
        ("key", made.key),
        ("cluster_by", made.cluster_by),
        ("content", made.content),
    ]
    match made.kind:
        case ReplaceSlice(by):
            named.append(("kind by", by))
        case Scd1(tracked):
            named.append(("kind tracked", tracked))
        case Scd2(business_key, tracked):
            named += [("kind business_key", business_key), ("kind tracked", tracked)]
            named.append(("SCD2", ("valid_from", "valid_to", "is_current")))
            if len(made.key) != 1:
                raise DeclarationError(f"{made.name}: an SCD2 table has one surrogate as its key.")
    for what, wanted in named:
        for w in wanted:
            if w not in names:
                raise DeclarationError(
                    f"{made.name}: {what} names '{w}', which is not a column; columns are {', '.join(names)}"
                )
    if not made.key and not isinstance(made.kind, Append | Replace):
        raise DeclarationError(f"{made.name}: a {type(made.kind).__name__} table needs a key.")
    for c in made.columns:
        if not c.spec.comment:
            raise DeclarationError(f"{made.name}.{c} has no comment.")
    if ":" not in made.producer:
        raise DeclarationError(f"{made.name}: producer must be 'module:function', not '{made.producer}'.")
