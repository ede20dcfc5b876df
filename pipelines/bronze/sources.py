"""Sources as declared in `conf/sources/*.yml`: what a feed delivers, how it is read, and what its values mean.

A feed is declared, never coded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from lakehouse.declare import table_of, tables
from lakehouse.errors import SourceDeclarationError, suggest
from pipelines.bronze.time_patterns import pattern_problems

Format = Literal["csv", "jsonl", "parquet", "excel"]
Cadence = Literal["once", "daily", "weekly", "monthly", "on_demand"]

LATE_AFTER = {"daily": 2, "weekly": 10, "monthly": 40}
"""Days without a file after which a feed is late: its cadence, and some for a day without trade or a slow partner."""

ORIGIN: tuple[str, ...] = (
    "source",
    "feed",
    "delivery",
    "delivery_seq",
    "file_id",
    "row_number",
    "row_hash",
    "payload",
    "extra",
    "batch_id",
    "loaded_at",
)
"""Columns that every landing table has beside its canonical fields."""

_TYPE = re.compile(r"text|int|double|date|timestamp|decimal\((\d{1,2}),(\d{1,2})\)")
_LINE_KEY = {"basket_id", "product_id", "line_id"}
_SCHEMES = ("package", "conf", "data", "inbox")


def subjects() -> tuple[str, ...]:
    """Subjects a feed may deliver: those with a declared `bronze.raw_<subject>`."""
    return tuple(name.removeprefix("bronze.raw_") for name in tables() if name.startswith("bronze.raw_"))


def canonical_fields(subject: str) -> tuple[str, ...]:
    """Fields of a subject in declared order."""
    return tuple(c for c in table_of(f"bronze.raw_{subject}").column_names if c not in ORIGIN)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"'{name}' is not a time zone; write it like Europe/London or UTC") from None
    return name


Zone = Annotated[str, AfterValidator(_known_zone)]
CurrencyCode = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Identifier = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Merchant(_Declared):
    """A retailer. Several sources may deliver for one: all but one then give only its `id`.

    Attributes:
        id: Identifies the retailer in every table from silver up.
        name: Name people read.
        country: ISO 3166 alpha-2 code of the country it trades in.
        category: What it sells, such as Grocery.
        opened_on: First business day known; unknown when left out.
    """

    id: Identifier
    name: str | None = None
    country: str | None = Field(default=None, pattern="^[A-Z]{2}$")
    category: str | None = None
    opened_on: date | None = None

    @property
    def is_complete(self) -> bool:
        """Whether this is the full description and not only a reference."""
        return self.name is not None and self.country is not None


class FeedColumn(_Declared):
    """One delivered column.

    Attributes:
        type: `text`, `int`, `decimal(p,s)`, `double`, `date` or `timestamp`.
        to: Canonical field of the subject it fills; left out, the value is kept in the row's `extra`.
        required: Whether a row without a value is refused.
        aliases: Other headers this column has come under.
        formats: Spark's patterns to try in order for dates and timestamps in text; ISO 8601 when left out.
        timezone: Zone the values are in, when it is not the source's `value_timezone` (of days: its `timezone`).
    """

    type: str = "text"
    to: str | None = None
    required: bool = False
    aliases: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    timezone: Zone | None = None

    @field_validator("type")
    @classmethod
    def _type_is_known(cls, value: str) -> str:
        compact = value.replace(" ", "").lower()
        found = _TYPE.fullmatch(compact)
        if not found:
            raise ValueError(f"'{value}' is not a type; types are text, int, decimal(p,s), double, date, timestamp")
        if found[1] and not 0 < int(found[1]) <= 38:
            raise ValueError(f"'{value}': precision is 1 to 38")
        if found[1] and int(found[2]) > int(found[1]):
            raise ValueError(f"'{value}': the scale is larger than the precision")
        return compact

    @field_validator("formats")
    @classmethod
    def _formats_are_readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        problems = [f"'{pattern}': {'; '.join(found)}" for pattern in value if (found := pattern_problems(pattern))]
        if problems:
            raise ValueError(" | ".join(problems))
        return value

    @model_validator(mode="after")
    def _formats_need_a_time_type(self) -> Self:
        if self.formats and self.type not in ("date", "timestamp"):
            raise ValueError(f"formats are for dates and timestamps, not for {self.type}")
        return self


class ReadOptions(_Declared):
    """How the bytes of a text or workbook file are read.

    Attributes:
        delimiter: Between cells of CSV.
        encoding: Declared encoding; a byte order mark in the file wins.
        quote: Around cells that hold a delimiter; empty for none.
        escape: Before a quote inside a quoted cell; a doubled quote when left out.
        header: Whether the first row names the columns; without it columns are taken in declared order.
        decimal_mark: `.`, or `,` with points between thousands. In workbooks and JSON lines, whose own numbers have a
            point, 1.234 is then refused, because it may be either.
        sheets: Workbook sheets to read; all, hidden ones too, when empty.
    """

    delimiter: str = Field(",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    quote: str = Field('"', max_length=1)
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    header: bool = True
    decimal_mark: Literal[".", ","] = "."
    sheets: tuple[str, ...] = ()

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"'{value}' is not an encoding; examples: utf-8, windows-1252, iso-8859-1") from None
        return value.lower()


class Delivery(_Declared):
    """What counts as one delivery of a feed, and in which order deliveries stand.

    Attributes:
        by: `file`, `sheet` (of a workbook) or `column`.
        column: Delivered column whose values name deliveries, when `by` is `column`.
        order: `arrival` puts a file after all that landed before it for the same merchant and subject, whichever
            source or feed delivered it; `name` orders by the first 15 digits in the file name, each number of at
            least two, so that a file which arrives late still takes its place. Both stand in one order: a file that
            arrives stands between the highest number then there and the next.
        values: Order of the values of `column`, first to last. When left out, whole numbers order themselves within
            their file, which may name 999 of them (rows of one that names more are refused); what is no number
            stands before them.
    """

    by: Literal["file", "sheet", "column"] = "file"
    column: str | None = None
    order: Literal["arrival", "name"] = "arrival"
    values: tuple[str, ...] = Field((), max_length=999)

    @field_validator("values", mode="before")
    @classmethod
    def _values_are_text(cls, value: Any) -> Any:
        return tuple(str(v) for v in value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _column_goes_with_by(self) -> Self:
        if (self.by == "column") != (self.column is not None):
            raise ValueError("column and 'by: column' go together")
        return self

    @property
    def is_by_number(self) -> bool:
        """Whether deliveries of one file stand in the order of the numbers in a column."""
        return self.by == "column" and not self.values


class TransactionRules(_Declared):
    """How a merchant's sales feed says what a line is.

    Quantity and money of a return or cancellation are negative, whatever sign they are delivered with. Discounts and
    coupons have the sign of the amount beside them, for they are what was taken off it; a surcharge is none of them.

    Attributes:
        basket_prefix: Put before the basket numbers of this feed, for a merchant with two systems that both count
            from one: their baskets, or lines, would else be taken for each other.
        cancellation_prefixes: Basket numbers that start so cancel a sale.
        adjustment_basket_prefixes: Basket numbers that start so are bookkeeping.
        adjustment_products: Product codes that are postage, fees and corrections; `*` stands for anything. Compared
            with upper case codes.
        returns: How a return looks: `negative_quantity`, or `none` when the feed has no returns, so that a negative
            quantity is refused.
        return_types: Values of the field `line_type` that mean a return as well, in any letter case.
        cancellation_types: Values of the field `line_type` that mean a cancelled sale.
        default_channel: Channel of lines that name none, in lower case, as channels of lines are read.
        guest: Which lines belong to no known customer: `customer_missing`, or `none` when every line must name one.
        amount: `given`, or `quantity_times_price` when the feed delivers prices only.
        gross: `plus_reductions` when the amount is net and reductions are beside it, `same_as_amount` when there are
            none.
    """

    basket_prefix: str = Field("", max_length=20, pattern=r"^\S*$")
    cancellation_prefixes: tuple[str, ...] = ()
    adjustment_basket_prefixes: tuple[str, ...] = ()
    adjustment_products: tuple[str, ...] = ()
    returns: Literal["negative_quantity", "none"] = "negative_quantity"
    return_types: tuple[str, ...] = ()
    cancellation_types: tuple[str, ...] = ()
    default_channel: Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1)] = "store"
    guest: Literal["customer_missing", "none"] = "customer_missing"
    amount: Literal["given", "quantity_times_price"] = "given"
    gross: Literal["plus_reductions", "same_as_amount"] = "same_as_amount"


class Feed(_Declared):
    """One kind of file a source delivers.

    Attributes:
        name: Name within the source.
        subject: What it is about; decides the landing tables and the canonical fields.
        location: File, folder or glob. `package:<package>/<path>` lies inside an installed Python package,
            `conf:<path>` under the conf folder, `data:<path>` under the data directory, `inbox:` is where uploads go.
            `${name}` takes a variable of the settings. Empty where that has no value: the feed is not configured, and a
            run that names its source is refused.
        format: `csv`, `jsonl`, `parquet` or `excel`; text may be gzipped.
        options: How bytes are read.
        cadence: How often files are expected. `segmentation run` and `status` tell of a feed that has brought none for
            2 days (daily), 10 (weekly) or 40 (monthly).
        owner: Team that answers for the feed.
        columns: Expected columns by delivered name. Others are kept in the row's `extra`; those of a Parquet file that
            hold no plain values (lists, bytes, times of day) are left out, with a note.
        constants: Canonical fields with one value for every row.
        delivery: What counts as one delivery.
        key: Canonical fields that identify a record of the source; empty when nothing does. A line of a basket is
            identified by `basket_id` with `product_id`, with `line_id`, or with both.
        later_delivery_replaces: What a later delivery supersedes: the `line` with the same key, the whole `basket`,
            or `none` because deliveries never overlap.
        repeats: Whether rows of one delivery that are equal are real (`keep`) or copies (`drop`): equal by `key`, or
            in every cell where there is no key.
        missing_columns: `reject_rows` refuses each row of a file that lacks a required column, `refuse_file` the file.
            JSON lines lack one that no record names.
        payload: `text` keeps each delivered row as JSON, `columns` relies on the typed columns.
        generator: Sample generator that writes the feed's file before it is read; see `pipelines.bronze.samples`.
        transactions: Rules, for subject `transactions` only.
        week_one_starts_on: First day of week 1, for subject `promotions`, where it is required. A feed that numbers its
            weeks from one every year is declared once per year; weeks of a merchant begin on one weekday.
    """

    name: Identifier
    subject: str
    location: str
    format: Format
    options: ReadOptions = ReadOptions()
    cadence: Cadence = "on_demand"
    owner: str | None = None
    columns: dict[str, FeedColumn] = Field(min_length=1)
    constants: dict[str, str] = Field(default_factory=dict)
    delivery: Delivery = Delivery()
    key: tuple[str, ...] = ()
    later_delivery_replaces: Literal["line", "basket", "none"] = "line"
    repeats: Literal["keep", "drop"] = "drop"
    missing_columns: Literal["reject_rows", "refuse_file"] = "reject_rows"
    payload: Literal["text", "columns"] | None = None
    generator: str | None = None
    transactions: TransactionRules | None = None
    week_one_starts_on: date | None = None

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        known = subjects()
        if self.subject not in known:
            raise ValueError(
                f"subject '{self.subject}' is not one of {', '.join(known)}.{suggest(self.subject, known)}"
            )
        fields = canonical_fields(self.subject)
        problems: list[str] = []
        filled: dict[str, str] = {}
        for column, declared in self.columns.items():
            if declared.to is None:
                continue
            if declared.to not in fields:
                problems.append(
                    f"columns.{column}.to: '{declared.to}' is not a field of {self.subject}."
                    f"{suggest(declared.to, fields) or ' Fields are ' + ', '.join(fields) + '.'}"
                )
            elif declared.to in filled:
                problems.append(f"columns.{column}.to: '{declared.to}' is already filled by '{filled[declared.to]}'.")
            filled[declared.to] = column
        for name in self.constants:
            if name not in fields:
                problems.append(f"constants: '{name}' is not a field of {self.subject}.{suggest(name, fields)}")
            if name in filled:
                problems.append(f"constants: '{name}' is already filled by column '{filled[name]}'.")
        problems += [
            f"key: '{k}' is not a field this feed fills.{suggest(k, filled)}"
            for k in self.key
            if k not in filled and k not in self.constants
        ]
        seen: dict[str, str] = {}
        for column, declared in self.columns.items():
            for header in {normal_name(n) for n in (column, *declared.aliases)}:
                if header in seen:
                    problems.append(f"columns.{column}: its name or alias is also that of '{seen[header]}'.")
                seen[header] = column
        if self.delivery.column and self.delivery.column not in self.columns:
            problems.append(
                f"delivery.column: '{self.delivery.column}' is not a declared column."
                f"{suggest(self.delivery.column, self.columns)}"
            )
        if self.delivery.by == "sheet" and self.format != "excel":
            problems.append("delivery: only excel files have sheets.")
        if self.subject == "transactions":
            problems += self._line_problems(filled)
        if self.transactions is not None and self.subject != "transactions":
            problems.append("transactions: rules are for subject transactions only.")
        if (self.week_one_starts_on is not None) != (self.subject == "promotions"):
            problems.append(
                "week_one_starts_on: subject promotions needs it to tell which days a week is; no other does."
            )
        if self.payload == "text" and self.format == "parquet":
            problems.append("payload: a Parquet file has no text; its columns are the payload.")
        scheme = re.match(r"([a-z]{2,}):(?!//)", self.location)
        if scheme and scheme[1] not in _SCHEMES:
            problems.append(f"location: '{scheme[0]}' is not known.{suggest(scheme[1], _SCHEMES)}")
        if problems:
            raise ValueError(" | ".join(problems))
        return self

    def _line_problems(self, filled: dict[str, str]) -> list[str]:
        key, has = set(self.key), {*filled, *self.constants}
        problems = []
        if key and (not key <= _LINE_KEY or "basket_id" not in key or len(key) < 2):
            problems.append(
                f"key: {', '.join(self.key)}: a line of a basket is identified by basket_id with product_id, with "
                "line_id, or with both. Baskets that are told apart by more than their number need one number first."
            )
        if key and "line_id" not in key and "line_id" in has:
            problems.append("key: line_id is delivered and tells lines of a basket apart; add it, or do not map it.")
        typed = self.rules.return_types or self.rules.cancellation_types
        if typed and "line_type" not in has:
            problems.append("transactions: return_types and cancellation_types are of line_type; map a column to it.")
        if self.rules.returns == "none" and self.rules.return_types:
            problems.append("transactions: 'returns: none' and return_types contradict each other.")
        return problems

    @property
    def rules(self) -> TransactionRules:
        """The transaction rules, the usual ones when none are declared."""
        return self.transactions or TransactionRules()

    @property
    def keeps_payload(self) -> bool:
        """Whether each delivered row is kept as JSON beside its typed columns."""
        return (self.payload or ("columns" if self.format == "parquet" else "text")) == "text"

    @property
    def fingerprint(self) -> str:
        """Hash of what decides how a file's rows are read and typed."""
        parts = {"format", "options", "columns", "constants", "delivery", "subject"}
        said = self.model_dump(mode="json", include=parts)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def declared_name(self, header: str) -> str | None:
        """Return the declared column a delivered header stands for, None for an extra one.

        The exact name or alias wins; else letter case, spaces, hyphens and underscores make no difference.
        """
        for name, declared in self.columns.items():
            if header == name or header in declared.aliases:
                return name
        wanted = normal_name(header)
        for name, declared in self.columns.items():
            if wanted in {normal_name(n) for n in (name, *declared.aliases)}:
                return name
        return None


class Source(_Declared):
    """A system that delivers files for one merchant, or reference data for all.

    Attributes:
        name: The file's stem.
        description: One sentence for people.
        merchant: Retailer the rows belong to; None for reference data such as exchange rates.
        timezone: Zone of the shop: days are business days there.
        value_timezone: Zone that delivered times without an offset are in.
        currency: ISO 4217 code of amounts.
        business_unit: Part of the company the source belongs to.
        owner: Team that answers for it.
        is_sample: True when the data are made up; whoever shows them says so.
        label: What to show beside sample data; required for them.
        terms: What the data may be used for.
        accompanies: Sources this one is ingested together with; `*` for any.
        feeds: The kinds of file.
    """

    name: Identifier
    description: str
    merchant: Merchant | None = None
    timezone: Zone = "UTC"
    value_timezone: Zone = "UTC"
    currency: CurrencyCode
    business_unit: str = "retail"
    owner: str = "data-platform"
    is_sample: bool = False
    label: str | None = None
    terms: str | None = None
    accompanies: tuple[str, ...] = ()
    feeds: tuple[Feed, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        names = [f.name for f in self.feeds]
        problems = [f"feeds: '{n}' is declared twice." for n in sorted({n for n in names if names.count(n) > 1})]
        if self.is_sample and not self.label:
            problems.append("label: sample data must carry a label.")
        if self.merchant is None and any(f.subject not in ("exchange_rates",) for f in self.feeds):
            problems.append("merchant: only exchange rates belong to no merchant.")
        if problems:
            raise ValueError(" | ".join(problems))
        return self

    @property
    def merchant_id(self) -> str | None:
        """The retailer's id, None for reference data."""
        return self.merchant.id if self.merchant else None

    def feed(self, name: str) -> Feed:
        """Return a feed by name, or fail with the closest one."""
        for f in self.feeds:
            if f.name == name:
                return f
        known = [f.name for f in self.feeds]
        raise SourceDeclarationError(
            f"Source '{self.name}' has no feed '{name}'; feeds are {', '.join(known)}.{suggest(name, known)}"
        )

    def zone_of(self, column: FeedColumn) -> str:
        """Zone that a column's values without an offset are in; days are the shop's."""
        return column.timezone or (self.timezone if column.type == "date" else self.value_timezone)


class Sources(BaseModel):
    """Every declared source, with look-ups. Iterates over sources in the order of their names.

    Attributes:
        conf_dir: The `conf` folder they are from.
        sources: They themselves.
        unset: Variables of locations that have no value here, by source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    conf_dir: Path
    sources: tuple[Source, ...]
    unset: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def __iter__(self) -> Iterator[Source]:  # type: ignore[override]
        return iter(self.sources)

    @property
    def fingerprint(self) -> str:
        """Hash of all declarations, independent of where the files lie."""
        said = [s.model_dump(mode="json", exclude={"feeds": {"__all__": {"location"}}}) for s in self.sources]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all sources."""
        return tuple(s.name for s in self.sources)

    @property
    def merchants(self) -> tuple[Merchant, ...]:
        """Every merchant once, by id."""
        found = {s.merchant.id: s.merchant for s in self.sources if s.merchant}
        return tuple(found[k] for k in sorted(found))

    def source(self, name: str) -> Source:
        """Return a source by name, or fail with the closest one."""
        for s in self.sources:
            if s.name == name:
                return s
        raise SourceDeclarationError(
            f"No source is declared as '{name}'; sources are {', '.join(self.names)}.{suggest(name, self.names)}"
        )

    def feeds_of(self, subject: str) -> tuple[tuple[Source, Feed], ...]:
        """Every feed of a subject with its source."""
        return tuple((s, f) for s in self.sources for f in s.feeds if f.subject == subject)

    def of_merchant(self, merchant_id: str) -> tuple[Source, ...]:
        """Sources that deliver for a merchant, those that deliver its sales first."""
        found = [s for s in self.sources if s.merchant_id == merchant_id]
        return tuple(sorted(found, key=lambda s: not any(f.subject == "transactions" for f in s.feeds)))

    def select(self, names: Iterable[str] = ()) -> tuple[Source, ...]:
        """Return the named sources and those that accompany them; all when no name is given.

        Raises:
            SourceDeclarationError: for an unknown name, or a named source of which a location has no value.
        """
        wanted = {self.source(n).name for n in names}
        if not wanted:
            return self.sources
        for name in sorted(wanted & self.unset.keys()):
            raise SourceDeclarationError(
                f"Source '{name}': nobody said where its files are. Say "
                f"{' '.join(f'--var {v}=FOLDER' for v in self.unset[name])}, or set variables in conf/settings."
            )
        return tuple(s for s in self.sources if s.name in wanted or "*" in s.accompanies or wanted & set(s.accompanies))


def late_feeds(sources: Iterable[Source], last_files: Mapping[tuple[str, str], datetime], now: datetime) -> list[str]:
    """Tell of each feed that has brought no file for longer than its cadence allows, in declared order.

    A feed that never brought one is not waited for: not every source that is declared is used everywhere.

    Args:
        sources: The declarations.
        last_files: When source and feed last brought a file that can be read.
        now: As `last_files`, UTC.
    """
    waited = [
        (s, f, now - last_files[s.name, f.name]) for s in sources for f in s.feeds if (s.name, f.name) in last_files
    ]
    return [
        f"{source.name}.{feed.name} is declared {feed.cadence} and has brought no file for {since.days} days"
        for source, feed, since in waited
        if feed.cadence in LATE_AFTER and since > timedelta(days=LATE_AFTER[feed.cadence])
    ]


def normal_name(header: str) -> str:
    """A header without letter case, spaces, hyphens, underscores and dots, for comparison."""
    return re.sub(r"[\s_.\-]+", "", header.strip().lstrip("\ufeff")).casefold()
