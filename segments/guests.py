"""Guests: visitors of a web shop and sales without a customer, and the segments they fall into.

A sale without a customer is a guest of its own, since nothing in it says who bought. A visitor is a browser over time,
until a login shows whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.hold import Once, as_is
from lakehouse.joins import rows_named
from lakehouse.keys import key_of_customer
from lakehouse.tables.gold import FactTransactions as T
from lakehouse.tables.segment import CustomerSegmentGuest as S
from lakehouse.tables.segment import CustomerSegmentGuestHistory as H
from lakehouse.tables.segment import CustomerSegmentPromotion as P
from lakehouse.tables.segment import GuestVisit as G
from lakehouse.tables.segment import Visitor as W
from lakehouse.tables.silver import VisitorEvent as V
from segments.catalogue import GUEST_TABLES, declared_features
from segments.compile import Compiler, Names, is_true
from segments.earlier import NOT_KNOWN, Earlier, is_redefined
from segments.evaluate import add_branches, add_events
from segments.events import VISITS, as_visitors
from segments.language import Segment
from segments.rules import Rule
from segments.timelines import Asked

if TYPE_CHECKING:
    from lakehouse.settings import Settings


def build_guest_visits(changed: DataFrame, sales: DataFrame, visits: DataFrame) -> DataFrame:
    """One row per sale without a customer that has a new or changed line.

    Args:
        changed: Changed rows of `gold.fact_transactions`.
        sales: All of them; a sale is measured whole, whichever of its lines changed.
        visits: `gold.guest_visit` as published.

    Returns:
        `gold.guest_visit` rows; `_deleted` for a sale that has no line left or turned out to be a customer's.
    """
    keys: list[str] = [T.merchant_id, T.basket_id]
    is_guest = F.col(T.customer_key).isNull()
    # Browsers are named by a hash of their number, which may be that of a receipt.
    visitor = F.sha2(F.concat_ws("\u001f", T.merchant_id, F.lit("sale"), T.basket_id), 256).alias(G.visitor_id)
    lines = rows_named(sales.where(is_guest), changed.where(is_guest), keys)
    cents = F.sum((F.col(T.amount) * 100).cast("bigint"))
    measured = lines.groupBy(*keys).agg(
        F.min(T.posted_ts).alias(G.bought_at),
        F.min(T.business_date).alias(G.bought_on),
        F.min(T.channel_id).alias(G.channel_id),
        F.min(T.store_id).alias(G.store_id),
        F.count_if(F.col(T.txn_type) == "sale").alias(G.lines),
        (cents.cast("decimal(20,0)") / 100).cast("decimal(18,2)").alias(G.net_amount),
    )
    kept = measured.where(F.col(G.lines) > 0)
    columns = G.__table__.column_names  # type: ignore[attr-defined]
    found = kept.select("*", visitor).select(*columns, F.lit(False).alias("_deleted"))
    # One visit per sale. What was a guest's and no longer is: every line gone, or since booked on a customer.
    again = changed.select(*keys).join(visits.select(*keys, G.visitor_id), on=keys, how="inner").distinct()
    gone = again.join(kept.select(*keys), on=keys, how="left_anti")
    same: list[str] = [G.merchant_id, G.visitor_id]
    return found.unionByName(gone.select(*same, F.lit(True).alias("_deleted")), allowMissingColumns=True)


def build_visitors(events: DataFrame, *, as_of: date) -> DataFrame:
    """One row per visitor with an event before `as_of`; visits, pages, the address left last, and the last login.

    Args:
        events: `silver.visitor_event`, any days.
        as_of: Exclusive edge.
    """
    seen = events.where(F.col(V.happened_on) < F.lit(as_of))

    def last(column: str) -> Column:
        return F.max_by(column, F.when(F.col(column).isNotNull(), F.struct(V.happened_at, V.event_id)))

    login = F.when(F.col(V.event_type) == "login", F.col(V.customer_id))
    counted = (
        seen.withColumn("_login", login)
        .groupBy(W.merchant_id, W.visitor_id)
        .agg(
            F.min(V.happened_at).alias(W.first_visit_at),
            F.max(V.happened_at).alias(W.last_visit_at),
            F.min(V.happened_on).alias(W.first_visit_on),
            F.max(V.happened_on).alias(W.last_visit_on),
            F.count_if(F.col(V.event_type) == "visit").alias(W.visits),
            F.count_if(F.col(V.event_type) == "page_view").alias(W.page_views),
            last(V.email).alias(W.email),
            last("_login").alias(W.customer_id),
            F.max(V.is_sample).alias(W.is_sample),
        )
    )
    is_known = F.col(W.customer_id).isNotNull()
    made = {
        str(W.has_email): F.col(W.email).isNotNull(),
        str(W.customer_key): F.when(is_known, key_of_customer(W.merchant_id, W.customer_id)),
    }
    columns = W.__table__.column_names  # type: ignore[attr-defined]
    return counted.select(*[made.get(c, F.col(c)).alias(c) for c in columns])


def place_guests(
    sales: DataFrame,
    visitors: DataFrame,
    events: DataFrame,
    placed: DataFrame,
    stays: DataFrame,
    promoted: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    run_id: str,
    started_at: datetime,
    settings: Settings,
    earlier: Earlier = NOT_KNOWN,
    hold: Once = as_is,
) -> Mapping[str, DataFrame]:
    """Place every guest before `as_of` in the guest segments whose rule is true; who has logged in, as the customer.

    A visitor who logs in leaves (`logged_in`), and their customer is in as long as the rule stays true of the visitor.
    Stays before the login become the customer's as well, by their number, and keep their days; they stay theirs when
    another customer logs in. Each table is held against itself, so a run that died between two of them is completed by
    the next.

    Args:
        sales: `gold.guest_visit`.
        visitors: `gold.visitor`.
        events: `silver.visitor_event`.
        placed: `gold.customer_segment_guest` as published.
        stays: `gold.customer_segment_guest_history` as published.
        promoted: `gold.customer_segment_promotion` as published.
        segments: All definitions; those of guests that are active are evaluated.
        as_of: The day evaluated for, exclusive edge.
        run_id: Run that evaluates.
        started_at: When it started, UTC.
        settings: How long guests are kept, where not as declared.
        earlier: The definitions of the last refresh, to tell exits by a changed one.
        hold: Returns a frame that is made once, however often it is read.

    Returns:
        Changed rows of the three tables by name, `_deleted` where they are to go. Guests seen longer ago than
        `gold.customer_segment_guest` keeps are in no segment.
    """
    active = [s for s in segments if s.is_active and s.entity == "guest"]
    guests = _guests(sales, visitors, as_of, settings)
    owned = hold(_with_owners(stays, events, as_of))
    matched = hold(_matched(guests, events, active, as_of))
    is_customer = F.col("_customer_key").isNotNull()
    return {
        GUESTS: _guest_rows(matched.where(~is_customer), placed, as_of),
        GUEST_HISTORY: _stay_rows(
            matched, guests, owned, active, as_of=as_of, run_id=run_id, started_at=started_at, earlier=earlier
        ),
        PROMOTIONS: _promotion_rows(matched.where(is_customer), owned, promoted),
    }


GUESTS = "gold.customer_segment_guest"
GUEST_HISTORY = "gold.customer_segment_guest_history"
PROMOTIONS = "gold.customer_segment_promotion"


def _guests(sales: DataFrame, visitors: DataFrame, as_of: date, settings: Settings) -> DataFrame:
    """Visitors and sales without a customer under one set of columns, as far back as guests are kept."""
    kept_days = settings.days_kept(S.__table__) or 0  # type: ignore[attr-defined]
    browsers = visitors.select(
        "*", F.col(W.last_visit_on).alias("_on"), F.col(W.customer_key).alias("_customer_key")
    ).drop(W.customer_key)
    buyers = sales.select(
        "*",
        F.col(G.bought_at).alias(W.first_visit_at),
        F.col(G.bought_at).alias(W.last_visit_at),
        F.lit(False).alias(W.is_sample),
        F.col(G.bought_on).alias("_on"),
    )
    known = browsers.unionByName(buyers, allowMissingColumns=True)
    of_time = (F.col("_on") < F.lit(as_of)) & (F.col("_on") >= F.date_sub(F.lit(as_of), kept_days))
    # Under the name events are joined by: the visitor in the place of a customer, see `as_visitors`.
    return known.where(of_time).withColumn("customer_key", key_of_customer(W.merchant_id, W.visitor_id))


def preview_guests(
    sales: DataFrame,
    visitors: DataFrame,
    events: DataFrame,
    placed: DataFrame,
    segment: Segment,
    *,
    as_of: date,
    settings: Settings,
) -> DataFrame:
    """One row per website: what publishing a definition of guests would give.

    Args:
        sales: `gold.guest_visit`.
        visitors: From `build_visitors` for the day.
        events: `silver.visitor_event`.
        placed: `gold.customer_segment_guest` as published.
        segment: The definition.
        as_of: The day.
        settings: As of `place_guests`.

    Returns:
        website_id; guests (visitors who have logged in left out); members; logged_in (visitors who have, and whose
        customer is in); published; entering; leaving; and per step of the waterfall `alone_<n>` and `left_<n>`, as in
        `segments.inspect.preview_segment`.
    """
    catalogue = declared_features(GUEST_TABLES)
    guests, names = _prepared(_guests(sales, visitors, as_of, settings), events, [segment.rule], as_of)
    compiler = Compiler(catalogue, as_of, names)
    steps = compiler.steps(segment)
    published = placed.where(F.col(S.segment_id) == F.lit(segment.segment_id)).select(
        S.visitor_id, F.lit(True).alias("_was_in")
    )
    answered = guests.select(
        F.col(W.merchant_id).alias(S.website_id),
        W.visitor_id,
        F.col("_customer_key").isNull().alias("_is_guest"),
        is_true(compiler.segment(segment)).alias("_is_in"),
        *[is_true(step).alias(f"_p{n}") for n, step in enumerate(steps)],
    ).join(published, on=str(S.visitor_id), how="left")  # a guest is published once per segment
    is_guest, is_in, was_in = F.col("_is_guest"), F.col("_is_in"), F.coalesce("_was_in", F.lit(False))
    will_be_in = is_guest & is_in & F.lit(segment.is_active)
    so_far = [is_guest]
    for n in range(len(steps)):
        so_far.append(so_far[-1] & F.col(f"_p{n}"))
    return (
        answered.groupBy(S.website_id)
        .agg(
            F.count_if(is_guest).alias("guests"),
            F.count_if(is_guest & is_in).alias("members"),
            F.count_if(~is_guest & is_in).alias("logged_in"),
            F.count_if(was_in).alias("published"),
            F.count_if(will_be_in & ~was_in).alias("entering"),
            F.count_if(was_in & ~will_be_in).alias("leaving"),
            *[F.count_if(is_guest & F.col(f"_p{n}")).alias(f"alone_{n}") for n in range(len(steps))],
            *[F.count_if(so_far[n + 1]).alias(f"left_{n}") for n in range(len(steps))],
        )
        .orderBy(S.website_id)
    )


def _prepared(guests: DataFrame, events: DataFrame, rules: Sequence[Rule], as_of: date) -> tuple[DataFrame, Names]:
    """Guests with a column for everything rules ask of them."""
    names = Names()
    if Asked.by(rules):
        guests, names = add_events(guests, names, rules, {VISITS: as_visitors(events)}, as_of=as_of)
    return add_branches(guests, names, rules, as_of=as_of, catalogue=declared_features(GUEST_TABLES))


def _matched(guests: DataFrame, events: DataFrame, active: Sequence[Segment], as_of: date) -> DataFrame:
    """One row per guest and segment whose rule is true, with the guest's columns."""
    catalogue = declared_features(GUEST_TABLES)
    guests, names = _prepared(guests, events, [s.rule for s in active], as_of)
    compiler = Compiler(catalogue, as_of, names)
    found = [
        F.when(
            compiler.segment(s),
            F.struct(F.lit(s.segment_id).alias(S.segment_id), F.lit(s.version).alias(S.version)),
        )
        for s in active
    ]
    shape = "array<struct<segment_id:string,version:string>>"
    listed = F.array_compact(F.array(*found)) if found else F.array().cast(shape)
    return guests.select("*", F.explode(listed).alias("_in")).select(
        "*", F.col(f"_in.{S.segment_id}"), F.col(f"_in.{S.version}"), F.col(W.merchant_id).alias(S.website_id)
    )


def _guest_rows(matched: DataFrame, placed: DataFrame, as_of: date) -> DataFrame:
    keys: list[str] = [S.visitor_id, S.segment_id]
    told: list[str] = [S.version, S.first_visit_at, S.last_visit_at, S.page_views, S.email, S.is_sample]
    now = matched.select(*keys, S.website_id, *told)
    before = placed.select(*keys, F.col(S.added_on).alias("_added_on"), F.struct(*told).alias("_was"))
    # One row per guest and segment on either side.
    both = now.join(before, on=keys, how="left")
    changed = both.where(~F.col("_was").eqNullSafe(F.struct(*told)))
    made = {str(S.added_on): F.coalesce("_added_on", F.lit(as_of))}
    columns = S.__table__.column_names  # type: ignore[attr-defined]
    entered = changed.select(*[made.get(c, F.col(c)).alias(c) for c in columns], F.lit(False).alias("_deleted"))
    left = placed.select(*keys).join(now.select(*keys), on=keys, how="left_anti")
    return entered.unionByName(left.select(*keys, F.lit(True).alias("_deleted")), allowMissingColumns=True)


def _with_owners(stays: DataFrame, events: DataFrame, as_of: date) -> DataFrame:
    """Stays with the customer they belong to as events do: of the last login up to their beginning, else of the first.

    Returns:
        The stays with `_owner`, a customer number; null where nobody has logged in.
    """
    is_login = (F.col(V.event_type) == F.lit("login")) & F.col(V.customer_id).isNotNull()
    login = F.struct(V.happened_at, V.event_id, V.happened_on, V.customer_id)
    logins = (
        events.where(is_login & (F.col(V.happened_on) < F.lit(as_of)))
        .groupBy(F.col(V.merchant_id).alias(H.website_id), H.visitor_id)
        .agg(F.sort_array(F.collect_list(login)).alias("_logins"))
    )
    before = F.filter("_logins", lambda x: x[str(V.happened_on)] < F.col(H.entered_on))
    owner = F.coalesce(F.try_element_at(before, F.lit(-1)), F.get("_logins", F.lit(0)))
    # One row per visitor, so no stay is multiplied.
    both = stays.join(logins, on=[str(H.website_id), str(H.visitor_id)], how="left")
    return both.select(*stays.columns, owner[str(V.customer_id)].alias("_owner"))


def _stay_rows(
    matched: DataFrame,
    guests: DataFrame,
    stays: DataFrame,
    active: Sequence[Segment],
    *,
    as_of: date,
    run_id: str,
    started_at: datetime,
    earlier: Earlier,
) -> DataFrame:
    keys: list[str] = [H.segment_id, H.website_id, H.visitor_id]
    wanted = matched.where(F.col("_customer_key").isNull()).select(*keys, F.col(S.version).alias("_version"))
    seen = guests.select(
        F.col(W.merchant_id).alias(H.website_id),
        H.visitor_id,
        F.lit(True).alias("_is_seen"),
        "_customer_key",
    )
    is_open = F.col(H.exited_on).isNull()
    # A guest is one row, and is in a segment once, so neither join multiplies.
    known = stays.join(seen, on=[str(H.website_id), str(H.visitor_id)], how="left").join(
        wanted.withColumn("_is_in", F.lit(True)), on=keys, how="left"
    )
    versions = F.create_map(*[F.lit(x) for s in active for x in (s.segment_id, s.version)]).cast("map<string,string>")
    version = F.try_element_at(versions, F.col(H.segment_id))
    # Stays begun by a later `as_of` are left alone.
    is_exit = is_open & F.col("_is_in").isNull() & (F.col(H.entered_on) <= F.lit(as_of))
    is_owned = F.col("_owner").isNotNull()
    is_promoted = is_owned & ~F.col("_owner").eqNullSafe(F.col(H.customer_id))
    reason = (
        F.when(F.col("_is_seen").isNull(), F.lit("visitor_absent"))
        .when(version.isNull(), F.lit("segment_inactive"))
        .when(F.col("_customer_key").isNotNull(), F.lit("logged_in"))
        .when(is_redefined(F.col(H.segment_id), version, F.col(H.entry_version), earlier), F.lit("definition_changed"))
        .otherwise(F.lit("rule_not_true"))
    )
    ended = {
        str(H.customer_key): F.when(is_owned, key_of_customer(H.website_id, "_owner")).otherwise(F.col(H.customer_key)),
        str(H.customer_id): F.coalesce("_owner", H.customer_id),
        str(H.exited_on): F.when(is_exit, F.lit(as_of)).otherwise(F.col(H.exited_on)),
        str(H.exit_version): F.when(is_exit, version).otherwise(F.col(H.exit_version)),
        str(H.exit_reason): F.when(is_exit, reason).otherwise(F.col(H.exit_reason)),
        str(H.exit_run_id): F.when(is_exit, F.lit(run_id)).otherwise(F.col(H.exit_run_id)),
        str(H.exited_at): F.when(is_exit, F.lit(started_at)).otherwise(F.col(H.exited_at)),
    }
    columns = H.__table__.column_names  # type: ignore[attr-defined]
    changed = known.where(is_exit | is_promoted).select(*[ended.get(c, F.col(c)).alias(c) for c in columns])
    begun = {
        str(H.entered_on): F.lit(as_of),
        str(H.entry_version): F.col("_version"),
        str(H.entry_run_id): F.lit(run_id),
        str(H.entered_at): F.lit(started_at),
    }
    entered = wanted.join(stays.where(is_open).select(*keys), on=keys, how="left_anti").select(
        *keys, *[c.alias(name) for name, c in begun.items()]
    )
    return changed.unionByName(entered, allowMissingColumns=True)


def _promotion_rows(matched: DataFrame, stays: DataFrame, promoted: DataFrame) -> DataFrame:
    keys: list[str] = list(P.__table__.key)  # type: ignore[attr-defined]
    owned: list[str] = [H.segment_id, H.website_id, H.visitor_id, P.customer_id]
    own = stays.withColumn(P.customer_id, F.col("_owner"))
    since = own.groupBy(*owned).agg(F.min(H.entered_on).alias(P.visitor_since))
    now = (
        matched.withColumn("customer_key", F.col("_customer_key"))
        .select(*keys, P.customer_id, P.version)
        .join(since, on=owned, how="left")  # one earliest stay per guest, segment and customer
    )
    # Of a set, so that null equals null: who was not in before the login has no day.
    entered = now.subtract(promoted.select(*now.columns)).select("*", F.lit(False).alias("_deleted"))
    left = promoted.select(*keys).join(now.select(*keys), on=keys, how="left_anti")
    return entered.unionByName(left.select(*keys, F.lit(True).alias("_deleted")), allowMissingColumns=True)
