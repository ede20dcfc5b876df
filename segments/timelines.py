"""The events of each customer, read once for every rule that asks about any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from segments.compile import Compiler
from segments.events import CAMPAIGNS, CONTACTS, EVENTS, FACTS, PRODUCTS, REDEMPTIONS, VISITS, Tables, customer_key
from segments.measures import Measure, Span, measures_in, sequences_in, windows_in
from segments.rules import MAX_STEPS, EventStep, Rule, SequenceCondition

RECHECK = "_recheck_on"
_DAY_MICROS = 86_400_000_000


@dataclass(frozen=True)
class Asked:
    """What rules ask of events, each once.

    Attributes:
        measures: Aggregates and the column each is found in.
        sequences: Sequences and the column each is found in.
        windows: Kinds of events with the windows of conditions on them.
    """

    measures: Mapping[Measure, str]
    sequences: Mapping[SequenceCondition, str]
    windows: tuple[tuple[str, Span], ...]

    @classmethod
    def by(cls, rules: Sequence[Rule]) -> Asked:
        """Collects what `rules` ask."""
        measures = {m: f"_m{i}" for i, m in enumerate(measures_in(rules))}
        return cls(measures, {s: f"_q{i}" for i, s in enumerate(sequences_in(rules))}, windows_in(rules))

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return bool(self.measures or self.sequences)

    @property
    def steps(self) -> tuple[EventStep, ...]:
        """Every kind of event with its filter, once, in a stable order."""
        of_sequences = (step for s in self.sequences for step in s.steps)
        return tuple(dict.fromkeys([*(m.step for m in self.measures), *of_sequences]))

    @property
    def events(self) -> tuple[str, ...]:
        """Names of the events asked about, once."""
        return tuple(dict.fromkeys(step.event for step in self.steps))

    def edges(self, event: str) -> list[int]:
        """Ages in days at which an event of a kind comes into a window or leaves it."""
        windows = [span for name, span in self.windows if name == event]
        return sorted({0}.union(*[span.edges for span in (*self._spans(event), *windows)]))

    def first_day(self, event: str, as_of: date) -> date | None:
        """The earliest day on which an event of a kind counts for anything; None when every day does."""
        days = [span.first_day(as_of) for span in self._spans(event)]
        bounded = [day for day in days if day is not None]
        return min(bounded) if len(bounded) == len(days) else None

    def _spans(self, event: str) -> list[Span]:
        spans = [m.span for m in self.measures if m.step.event == event]
        return spans + [Span.of(s.window) for s in self.sequences if any(step.event == event for step in s.steps)]


def measure_events(tables: Tables, asked: Asked, *, as_of: date, customers: DataFrame | None = None) -> DataFrame:
    """One row per customer with an event that anything is asked about.

    Args:
        tables: The tables of `segments.events.SOURCES` by name.
        asked: What is asked.
        as_of: Only events of days before it count.
        customers: customer_key of those wanted; everyone when None.

    Returns:
        customer_key, the columns named in `asked`, and RECHECK: the first `as_of` on which an event comes into a
        window or leaves one, null when none will. Measures of customers without a row are those of no event, see
        `fill_absent`.
    """
    if customers is not None:
        wanted = F.broadcast(customers.select("customer_key"))
        facts = tables[FACTS].join(wanted, on="customer_key", how="left_semi")
        tables = {**tables, FACTS: facts}
    filters = {step: f"_f{i}" for i, step in enumerate(asked.steps)}
    fields = dict.fromkeys((m.step.event, m.field) for m in asked.measures if m.field is not None)
    values: dict[tuple[str, str | None], str] = {of: f"_v{i}" for i, of in enumerate(fields)}
    kinds = [_events_of(name, tables, asked, filters, values, as_of) for name in asked.events]
    if customers is not None:
        kinds = [k.join(wanted, on="customer_key", how="left_semi") for k in kinds]
    happened = reduce(DataFrame.unionByName, kinds)
    aggregates = [_aggregate(m, filters, values, as_of).alias(c) for m, c in asked.measures.items()]
    listed = [_moments(s, filters, as_of).alias(c) for s, c in asked.sequences.items()]
    grouped = happened.groupBy("customer_key").agg(*aggregates, *listed, F.min("_edge").alias(RECHECK))
    followed = [_follows(s, F.col(c)).alias(c) for s, c in asked.sequences.items()]
    return grouped.select("customer_key", *asked.measures.values(), *followed, RECHECK)


def fill_absent(asked: Asked) -> list[Column]:
    """Columns of `asked` over a frame left-joined with `measure_events`: nothing happened counts 0 and adds up to 0."""
    zero = {"count", "sum", "distinct"}
    filled = [F.coalesce(c, F.lit(0)).alias(c) if m.kind in zero else F.col(c) for m, c in asked.measures.items()]
    return filled + [F.coalesce(c, F.lit(False)).alias(c) for c in asked.sequences.values()]


def customers_with_changes(changed: Tables, tables: Tables, asked: Asked) -> DataFrame | None:
    """customer_key of everyone one of whose events is new, different or gone; None when no event is asked about.

    Args:
        changed: Changed rows of the tables of `segments.events.SOURCES`, also those that are gone.
        tables: The same tables whole.
        asked: What is asked of events.
    """
    found: list[DataFrame] = []
    # What visitors do is one table, and its changes name the same customers whatever they did.
    of_visitors = [name for name in asked.events if EVENTS[name].is_of_visitors]
    for name in [n for n in asked.events if n not in of_visitors[1:]]:
        found += [frame.select("customer_key") for frame in _changes_of(name, changed, tables)]
    if not found:
        return None
    return reduce(DataFrame.unionByName, found).where(F.col("customer_key").isNotNull()).distinct()


def _changes_of(event: str, changed: Tables, tables: Tables) -> Iterable[DataFrame]:
    match event:
        case "campaign_contact":
            yield changed[CONTACTS].select(customer_key())
            moved = changed[CAMPAIGNS].select("merchant_id", "campaign_id").distinct()
            contacts = tables[CONTACTS].join(F.broadcast(moved), on=["merchant_id", "campaign_id"], how="left_semi")
            yield contacts.select(customer_key())
        case "coupon_redemption":
            yield changed[REDEMPTIONS].select(customer_key())
        case _ if EVENTS[event].is_of_visitors:
            yield changed[VISITS].where(F.col("customer_id").isNotNull()).select(customer_key())
            # A late login takes events from another customer of the same browser.
            moved = changed[VISITS].select("merchant_id", "visitor_id").distinct()
            theirs = tables[VISITS].where(F.col("customer_id").isNotNull())
            yield theirs.join(F.broadcast(moved), on=["merchant_id", "visitor_id"], how="left_semi").select(
                customer_key()
            )
        case _:
            yield changed[FACTS]
            if event == "item":
                described = changed[PRODUCTS].select("merchant_id", "product_id").distinct()
                yield tables[FACTS].join(F.broadcast(described), on=["merchant_id", "product_id"], how="left_semi")


def _events_of(
    name: str,
    tables: Tables,
    asked: Asked,
    filters: Mapping[EventStep, str],
    values: Mapping[tuple[str, str | None], str],
    as_of: date,
) -> DataFrame:
    event = EVENTS[name]
    passing = Compiler(event.fields, as_of)  # a filter is a rule over fields instead of features
    edges = [F.date_add("day", age + 1) for age in asked.edges(name)]
    is_known = F.lit(True)
    if event.is_of_visitors:
        edges.append(F.date_add("known_on", 1))
        is_known = F.col("known_on") < F.lit(as_of)
    ahead = [F.when(edge > F.lit(as_of), edge) for edge in edges]
    passes = {
        c: F.lit(None).cast("boolean")
        if step.event != name
        else (is_known if step.where is None else is_known & passing.rule(step.where))
        for step, c in filters.items()
    }
    measured = {
        c: F.col(str(field)) if of == name else F.lit(None).cast(EVENTS[of].fields[str(field)].type)
        for (of, field), c in values.items()
    }
    happened, first_day = event.build(tables), asked.first_day(name, as_of)
    if first_day is not None:
        # Older ones fall out of every window, and never come back into one.
        happened = happened.where(F.col("day") >= F.lit(first_day))
    return happened.select(
        "customer_key",
        F.unix_micros("at").alias("at"),
        "day",
        (F.least(*ahead) if len(ahead) > 1 else ahead[0]).alias("_edge"),
        *[column.alias(c) for c, column in (passes | measured).items()],
    )


def _aggregate(
    measure: Measure,
    filters: Mapping[EventStep, str],
    values: Mapping[tuple[str, str | None], str],
    as_of: date,
) -> Column:
    counts = F.col(filters[measure.step]) & measure.span.holds(F.col("day"), as_of)
    if measure.kind == "count":
        return F.count_if(counts)
    if measure.kind == "first_day":
        return F.min(F.when(counts, F.col("day")))
    if measure.kind == "last_at":
        return F.max(F.when(counts, F.col("at")))
    value = F.when(counts, F.col(values[measure.step.event, measure.field]))
    if measure.kind == "distinct":
        return F.size(F.collect_set(value))
    reducers: Mapping[str, Callable[[Column], Column]] = {"sum": F.sum, "avg": F.avg, "min": F.min, "max": F.max}
    return reducers[measure.kind](value)


def _moments(sequence: SequenceCondition, filters: Mapping[EventStep, str], as_of: date) -> Column:
    """Instants of events that can be a step, in order, each with a bit per step it can be in its lowest bits."""
    within = Span.of(sequence.window).holds(F.col("day"), as_of)
    bits = [F.when(F.col(filters[s]), F.lit(1 << i)).otherwise(F.lit(0)) for i, s in enumerate(sequence.steps)]
    steps = reduce(lambda a, b: a.bitwiseOR(b), bits)
    return F.sort_array(F.collect_list(F.when(within & (steps > 0), F.col("at") * F.lit(1 << MAX_STEPS) + steps)))


def _follows(sequence: SequenceCondition, moments: Column) -> Column:
    """Whether the steps follow one another.

    Per step the latest instant is kept at which it can end the sequence so far: the latest leaves the smallest gap to
    what follows. First come those of earlier instants only, so that nothing follows an event of the same instant, then
    those so far, and last the instant itself.
    """
    count = len(sequence.steps)
    start = F.array(*[F.lit(None).cast("bigint") for _ in range(2 * count + 1)])

    def step(state: Column, moment: Column) -> Column:
        at = F.shiftright(moment, MAX_STEPS)
        is_later = F.coalesce(at > F.get(state, F.lit(2 * count)), F.lit(True))
        so_far = [F.get(state, F.lit(count + i)) for i in range(count)]
        before = [F.when(is_later, so_far[i]).otherwise(F.get(state, F.lit(i))) for i in range(count)]
        ends = []
        for i in range(count):
            fits = moment.bitwiseAND(F.lit(1 << i)) > 0
            if i:
                since = at - before[i - 1]
                fits = fits & since.isNotNull()
                if sequence.max_gap_days is not None:
                    fits = fits & (since <= F.lit(sequence.max_gap_days * _DAY_MICROS))
            ends.append(F.when(fits, at).otherwise(so_far[i]))
        return F.array(*before, *ends, at)

    return F.aggregate(moments, start, step, lambda state: F.get(state, F.lit(2 * count - 1)).isNotNull())
