"""What silver needs to know of each feed, as columns over a frame that carries `source` and `feed`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import reduce
from typing import Any, Literal

from pyspark.sql import Column
from pyspark.sql import functions as F


@dataclass(frozen=True)
class FeedRules:
    """How one feed's rows are to be read.

    Attributes:
        source: Source as in `conf/sources`.
        feed: Feed within it.
        merchant_id: Retailer its rows belong to.
        timezone: IANA zone of its shops; business days are days of this zone.
        currency: ISO 4217 code of its amounts.
        is_sample: Whether the data are a labelled sample, not a customer's.
        key: Canonical fields that identify a record of the feed; empty when nothing does. Of basket lines only
            whether `product_id` is among them matters.
        later_delivery: What a later delivery of a known basket replaces: the `line` with the same key, the whole
            `basket`, or `none` (the first delivery stands).
        repeats_are_lines: Whether equal keys inside one delivery are records of their own; otherwise the later row
            is the same record again.
        basket_prefix: Stands before the feed's own basket numbers.
        cancellation_prefixes: Basket numbers that start so are cancellations.
        cancellation_types: Upper case values of `line_type` that mean the same.
        return_types: Upper case values of `line_type` that mean a return.
        has_returns: Whether a negative quantity means a return; it is refused otherwise.
        has_guests: Whether a line may name no customer.
        adjustment_prefixes: Basket numbers that start so are bookkeeping, not sales.
        adjustment_codes: Conformed product codes that are no merchandise: postage, fees, manual corrections. `*`
            stands for anything.
        default_channel: Channel of lines that name none.
        is_priced: Whether the amount is quantity times price even when an amount is delivered.
        has_reductions: Whether the shelf price is the amount plus the reductions beside it.
        week_one_starts_on: First day of week 1 of the feed's calendar; of promotions only.
    """

    source: str
    feed: str
    merchant_id: str | None
    timezone: str = "UTC"
    currency: str = "USD"
    is_sample: bool = False
    key: tuple[str, ...] = ()
    later_delivery: Literal["line", "basket", "none"] = "line"
    repeats_are_lines: bool = False
    basket_prefix: str = ""
    cancellation_prefixes: tuple[str, ...] = ()
    cancellation_types: tuple[str, ...] = ()
    return_types: tuple[str, ...] = ()
    has_returns: bool = True
    has_guests: bool = True
    adjustment_prefixes: tuple[str, ...] = ()
    adjustment_codes: tuple[str, ...] = ()
    default_channel: str = "store"
    is_priced: bool = False
    has_reductions: bool = False
    week_one_starts_on: date | None = None


@dataclass(frozen=True)
class RuleBook:
    """The rules of every feed, asked for as columns."""

    rules: tuple[FeedRules, ...]

    def known(self) -> Column:
        """True where the row comes from one of the feeds; never null."""
        return F.coalesce(self._named(self.rules), F.lit(False))

    def any_feed(self, which: Callable[[FeedRules], bool]) -> bool:
        """Whether some feed satisfies `which`."""
        return any(which(r) for r in self.rules)

    def where(self, which: Callable[[FeedRules], bool]) -> Column:
        """True where the row's feed satisfies `which`; never null."""
        return F.coalesce(self._named([r for r in self.rules if which(r)]), F.lit(False))

    def value(self, of: Callable[[FeedRules], Any], type_: str = "string") -> Column:
        """The value each row's feed has; null for an unknown feed."""
        return self.choose(lambda r: F.lit(of(r)), type_, same=of)

    def choose(self, made: Callable[[FeedRules], Column], type_: str, same: Callable[[FeedRules], Any]) -> Column:
        """A column made per feed; feeds for which `same` agrees share one branch. Null for an unknown feed."""
        grouped: dict[Any, list[FeedRules]] = {}
        for r in self.rules:
            grouped.setdefault(same(r), []).append(r)
        picked: Column | None = None
        for members in grouped.values():
            named, column = self._named(members), made(members[0])
            picked = F.when(named, column) if picked is None else picked.when(named, column)
        return (picked if picked is not None else F.lit(None)).cast(type_)

    def _named(self, members: Iterable[FeedRules]) -> Column:
        # One comparison with the source where all its feeds agree, as they nearly always do.
        members = list(members)
        whole = [s for s in {m.source: None for m in members} if all(r in members for r in self.rules if r.source == s)]
        single = [(F.col("source") == m.source) & (F.col("feed") == m.feed) for m in members if m.source not in whole]
        named = [F.col("source") == whole[0] if len(whole) == 1 else F.col("source").isin(whole)] if whole else []
        return any_of([*named, *single])


def rule_book(sources: Any, subject: str) -> RuleBook:
    """Read the rules of a subject's feeds; the only place that knows how sources are shaped.

    Args:
        sources: `pipelines.bronze.sources.Sources`, or an iterable of `FeedRules`.
        subject: Subject of the landing table, such as `transactions`.
    """
    if not hasattr(sources, "feeds_of"):
        return RuleBook(tuple(sources))
    return RuleBook(tuple(_read(source, feed) for source, feed in sources.feeds_of(subject)))


_MAX_AHEAD = 2 * 86_400 * 1_000_000  # microseconds


def is_ahead(time: str) -> Column:
    """Whether a landed time or day lies further ahead of the row's arrival than a wrong clock explains: two days."""
    return F.unix_micros(F.col(time).cast("timestamp")) - F.unix_micros("loaded_at") > _MAX_AHEAD


def any_of(conditions: Iterable[Column]) -> Column:
    """True when at least one condition is; false for none."""
    listed = list(conditions)
    return reduce(lambda a, b: a | b, listed) if listed else F.lit(False)


def starts_with_any(column: Column, prefixes: Iterable[str]) -> Column:
    """Whether a text starts with one of the prefixes; false for none."""
    return any_of(column.startswith(p) for p in prefixes)


def matches_any(column: Column, codes: Iterable[str]) -> Column:
    """Whether a text is one of the codes, of which some may hold `*` for anything; false for none."""
    codes = [c.upper() for c in codes]
    plain = [c for c in codes if "*" not in c]
    # A `*` becomes `%`; what LIKE would read as a sign of its own is escaped.
    like = [
        c.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_").replace("*", "%") for c in codes if "*" in c
    ]
    return any_of([*([column.isin(plain)] if plain else []), *(column.like(p) for p in like)])


def blank_is_null(name: str) -> Column:
    """The trimmed text, null when nothing is left."""
    trimmed = F.trim(name)
    return F.when(trimmed != "", trimmed)


def code(name: str) -> Column:
    """A conformed code: trimmed, upper case, null when nothing is left."""
    return F.upper(blank_is_null(name))


def _read(source: Any, feed: Any) -> FeedRules:
    return FeedRules(
        source=source.name,
        feed=feed.name,
        merchant_id=source.merchant_id,
        timezone=source.timezone,
        currency=source.currency,
        is_sample=source.is_sample,
        key=tuple(feed.key),
        later_delivery=feed.later_delivery_replaces,
        repeats_are_lines=feed.repeats == "keep",
        basket_prefix=feed.rules.basket_prefix,
        cancellation_prefixes=tuple(feed.rules.basket_prefix + p for p in feed.rules.cancellation_prefixes),
        cancellation_types=tuple(t.strip().upper() for t in feed.rules.cancellation_types),
        return_types=tuple(t.strip().upper() for t in feed.rules.return_types),
        has_returns=feed.rules.returns != "none",
        has_guests=feed.rules.guest == "customer_missing",
        adjustment_prefixes=tuple(feed.rules.basket_prefix + p for p in feed.rules.adjustment_basket_prefixes),
        adjustment_codes=tuple(feed.rules.adjustment_products),
        default_channel=feed.rules.default_channel,
        is_priced=feed.rules.amount == "quantity_times_price",
        has_reductions=feed.rules.gross == "plus_reductions",
        week_one_starts_on=feed.week_one_starts_on,
    )
