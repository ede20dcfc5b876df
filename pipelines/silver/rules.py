"""What silver needs to know of each source, as columns over a frame that carries `source`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

LaterDelivery = Literal["line", "basket", "none"]


@dataclass(frozen=True)
class SourceRules:
    """How one source's rows are to be read.

    Attributes:
        name: Source as in `conf/sources`.
        merchant_id: Retailer its rows belong to.
        timezone: IANA zone of its shops; business days are days of this zone.
        currency: ISO 4217 code of its amounts.
        cancellation_prefixes: Basket numbers that start so are cancellations.
        adjustment_prefixes: Basket numbers that start so are bookkeeping, not sales.
        adjustment_codes: Regular expressions, matched over the whole conformed code, of products that are no
            merchandise: postage, fees, manual corrections.
        later_delivery: What a later delivery of a known basket replaces: the `line` with the same key, the whole
            `basket`, or `none` (the first delivery stands).
        repeats_are_lines: Whether a product named twice in one basket of one delivery, without line number, is two
            lines; otherwise the later row is the same line again.
        default_channel: Channel of lines that name none.
        is_sample: Whether the data are a labelled sample, not a customer's.
    """

    name: str
    merchant_id: str
    timezone: str = "UTC"
    currency: str = "USD"
    cancellation_prefixes: tuple[str, ...] = ()
    adjustment_prefixes: tuple[str, ...] = ()
    adjustment_codes: tuple[str, ...] = ()
    later_delivery: LaterDelivery = "line"
    repeats_are_lines: bool = True
    default_channel: str = "store"
    is_sample: bool = False


@dataclass(frozen=True)
class RuleBook:
    """The rules of every source, asked for as columns."""

    rules: tuple[SourceRules, ...]

    def known(self) -> Column:
        """True where `source` is one of ours."""
        return F.coalesce(F.col("source").isin([r.name for r in self.rules]), F.lit(False))

    def value(self, of: Callable[[SourceRules], Any], type_: str = "string") -> Column:
        """The value each row's source has; null for an unknown source."""
        return self.choose(lambda r: F.lit(of(r)), type_, same=of)

    def choose(
        self,
        of: Callable[[SourceRules], Column],
        type_: str,
        same: Callable[[SourceRules], Any] | None = None,
    ) -> Column:
        """A column picked by each row's source; sources for which `same` agrees share one branch."""
        grouped: dict[Any, list[SourceRules]] = {}
        for i, r in enumerate(self.rules):
            grouped.setdefault(same(r) if same else i, []).append(r)
        picked: Column | None = None
        for members in grouped.values():
            named = F.col("source").isin([m.name for m in members])
            made = of(members[0])
            picked = F.when(named, made) if picked is None else picked.when(named, made)
        return (picked if picked is not None else F.lit(None)).cast(type_)

    def any_source(self, which: Callable[[SourceRules], bool]) -> bool:
        """Whether some source satisfies `which`."""
        return any(which(r) for r in self.rules)

    def where(self, which: Callable[[SourceRules], bool]) -> Column:
        """True where the row's source satisfies `which`."""
        names = [r.name for r in self.rules if which(r)]
        return F.coalesce(F.col("source").isin(names), F.lit(False)) if names else F.lit(False)


def rule_book(sources: Any) -> RuleBook:
    """Read the rules out of the typed sources; the only place that knows how those are shaped.

    Args:
        sources: `pipelines.bronze.sources.Sources`, or any iterable or mapping of sources, or of `SourceRules`.
    """
    listed: Any = getattr(sources, "sources", sources)
    if isinstance(listed, Mapping):
        listed = listed.values()
    rules = [s if isinstance(s, SourceRules) else _read(s) for s in listed]
    return RuleBook(tuple(sorted(rules, key=lambda r: r.name)))


def any_of(conditions: Iterable[Column]) -> Column:
    """True when at least one condition is; false for none."""
    return reduce(lambda a, b: a | b, conditions, F.lit(False))


def starts_with_any(column: Column, prefixes: Iterable[str]) -> Column:
    """Whether a text starts with one of the prefixes; false for none."""
    return any_of(column.startswith(p) for p in prefixes)


def matches_any(column: Column, patterns: Iterable[str]) -> Column:
    """Whether a whole text matches one of the regular expressions; plain ones become one membership test."""
    patterns = tuple(patterns)
    plain = [p for p in patterns if p.replace(" ", "").isalnum()]
    rest = [p for p in patterns if p not in plain]
    found = [column.isin(plain)] if plain else []
    if rest:
        found.append(column.rlike("^(?:" + "|".join(rest) + ")$"))
    return any_of(found)


def _read(source: Any) -> SourceRules:
    merchant = _first(source, "merchant_id", "merchant")
    merchant = getattr(merchant, "merchant_id", merchant)
    return SourceRules(
        name=str(_first(source, "name", "source")),
        merchant_id=str(merchant or _first(source, "name", "source")),
        timezone=str(_first(source, "timezone", "zone") or "UTC"),
        currency=str(_first(source, "currency") or "USD"),
        cancellation_prefixes=_texts(_first(source, "cancellation_prefixes", "cancellation_prefix")),
        adjustment_prefixes=_texts(_first(source, "adjustment_prefixes", "adjustment_basket_prefixes")),
        adjustment_codes=_texts(_first(source, "adjustment_codes", "adjustment_patterns", "adjustment_code_patterns")),
        later_delivery=_first(source, "later_delivery_replaces", "later_delivery") or "line",
        repeats_are_lines=bool(_first(source, "repeats_are_lines", default=True)),
        default_channel=str(_first(source, "default_channel", "channel") or "store"),
        is_sample=bool(_first(source, "is_sample", default=False)),
    )


def _first(source: Any, *names: str, default: Any = None) -> Any:
    for holder in (source, getattr(source, "rules", None), getattr(source, "transactions", None)):
        for name in names:
            found = getattr(holder, name, None)
            if found is not None:
                return found
    return default


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(v) for v in value)
