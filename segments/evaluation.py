"""What the rules say of each customer, asked again only of those for whom an answer can have changed.

An answer changes when a feature does, when an event comes, changes or goes, when an event comes into a window or leaves
it, or when a definition changes. The first is seen by comparing the answers to all conditions on features, a scan
without a shuffle of anything wide; the second by the changes of the event tables; the third by a stored day; the last
by a stored hash. Where only definitions changed, the segments of these are evaluated and all other answers are kept.
Everything else stays as it is, and so equals an evaluation of everyone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from lakehouse.hold import Once, as_is
from lakehouse.tables.segment import CustomerEvaluation as E
from segments.catalogue import CUSTOMERS, Feature, declared_features
from segments.compile import Compiler, Names
from segments.earlier import NOT_KNOWN, Earlier
from segments.evaluate import (
    add_branches,
    add_events,
    add_referenced,
    cuts_of,
    join_features,
    literal,
    matches,
    with_cuts,
)
from segments.events import SOURCES, Tables
from segments.language import Segment, ask_for
from segments.references import with_referenced
from segments.rules import (
    Condition,
    EventCondition,
    Leaf,
    Rule,
    SequenceCondition,
    canonical,
    leaves_of,
    segments_in,
)
from segments.tell import say
from segments.timelines import RECHECK, Asked, customers_with_changes

DUE, KEPT, GONE, PUT_OFF, ALONE = range(5)
"""What becomes of a customer: evaluated by all rules, or by changed ones; gone; put off; left alone."""

_SLICE = 100
"""Answers hashed or joined per expression: a call of a thousand arguments makes a method too large to be compiled."""


@dataclass(frozen=True)
class Plan:
    """Definitions taken apart once for an evaluation.

    Attributes:
        segments: Active segments of customers that refresh by themselves.
        needed: These and the segments they ask for.
        definitions: Content hash of all that decides a membership, and when it must be asked again.
        on_features: Conditions on features, each once.
        conditions: Every condition with an answer of its own: those on features first.
        asked: What is asked of events.
    """

    segments: tuple[Segment, ...]
    needed: tuple[Segment, ...]
    definitions: str
    on_features: tuple[Condition, ...]
    conditions: tuple[Leaf, ...]
    asked: Asked

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Plan:
        """Plans the evaluation of definitions; those of guests and inactive ones are left out."""
        active = [s for s in segments if s.is_active and s.entity == "customer"]
        evaluated = tuple(sorted((s for s in active if s.refresh_mode == "auto"), key=lambda s: s.segment_id))
        needed = with_referenced(evaluated, active)
        # Whom a limit kept has not changed since: without it, all answers are looked at again. A manual segment that is
        # not asked for decides nothing by its rule.
        by_rule = {s.segment_id for s in needed}
        decides = [
            [
                s.segment_id,
                s.version * (s.segment_id in by_rule),
                s.priority,
                s.refresh_mode,
                s.max_change_share is not None,
            ]
            for s in active
        ]
        asked = Asked.by([s.rule for s in needed])
        # Who was evaluated with other edges may be waiting for the wrong day.
        edges = sorted([event, asked.edges(event)] for event in asked.events)
        mark = hashlib.sha256(canonical([sorted(decides), edges]).encode()).hexdigest()[:12]
        return cls._made(evaluated, needed, mark)

    @classmethod
    def _made(cls, evaluated: tuple[Segment, ...], needed: tuple[Segment, ...], mark: str) -> Plan:
        leaves = list(dict.fromkeys(leaf for s in needed for leaf in _leaves(s)))
        on_features = tuple(leaf for leaf in leaves if isinstance(leaf, Condition))
        on_events = tuple(leaf for leaf in leaves if isinstance(leaf, EventCondition | SequenceCondition))
        asked = Asked.by([s.rule for s in needed])
        return cls(evaluated, needed, mark, on_features, (*on_features, *on_events), asked)

    def changed_since(self, earlier: Plan) -> Plan:
        """The part with the segments that are new, are defined otherwise, or ask for one that is."""
        was = {s.segment_id: s.version for s in earlier.needed}
        others = {s.segment_id for s in self.needed if was.get(s.segment_id) != s.version}
        others |= {s.segment_id for s in self.segments} - {s.segment_id for s in earlier.segments}
        changed = tuple(s for s in self.segments if others & {n.segment_id for n in with_referenced([s], self.needed)})
        return Plan._made(changed, with_referenced(changed, self.needed), self.definitions)


def evaluate_customers(
    features: DataFrame,
    clusters: DataFrame,
    outlooks: DataFrame,
    audiences: DataFrame,
    customers: DataFrame,
    facts: DataFrame,
    products: DataFrame,
    campaigns: DataFrame,
    contacts: DataFrame,
    redemptions: DataFrame,
    visits: DataFrame,
    fact_changes: DataFrame,
    product_changes: DataFrame,
    campaign_changes: DataFrame,
    contact_changes: DataFrame,
    redemption_changes: DataFrame,
    visit_changes: DataFrame,
    evaluated: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    earlier: Earlier,
    asked: Collection[str] = (),
    hold: Once = as_is,
    previous: DataFrame | None,
) -> DataFrame:
    """Evaluate the rules for everyone for whom an answer can have changed.

    Args:
        features: `feature.customer`, any number of days.
        clusters: `feature.customer_cluster`, any number of days.
        outlooks: `feature.customer_outlook`, any number of days.
        audiences: `feature.customer_audience`, any number of days.
        customers: `gold.dim_customer`, for customer groups.
        facts: `gold.fact_transactions`.
        products: `gold.dim_product`.
        campaigns: `silver.campaign`.
        contacts: `silver.campaign_contact`.
        redemptions: `silver.coupon_redemption`.
        visits: `silver.visitor_event`.
        fact_changes: Rows of `gold.fact_transactions` that changed since the last evaluation, also those gone.
        product_changes: The same of `gold.dim_product`.
        campaign_changes: The same of `silver.campaign`.
        contact_changes: The same of `silver.campaign_contact`.
        redemption_changes: The same of `silver.coupon_redemption`.
        visit_changes: The same of `silver.visitor_event`.
        evaluated: `gold.customer_evaluation` as it is.
        segments: All definitions.
        as_of: The day evaluated for, exclusive edge.
        earlier: The definitions of the last refresh; of those evaluated with them, only what changed is asked again.
        asked: Manual segments this refresh is asked for.
        hold: Returns a frame that is made once, however often it is read.
        previous: None asks for everyone.

    Returns:
        `gold.customer_evaluation` rows of those evaluated again; `_deleted` for customers who have no features that
        day. A website without any features that day, and a customer evaluated for a later day, are left alone, the
        latter unless everyone is asked for.
    """
    whole = dict(zip(SOURCES, (facts, products, campaigns, contacts, redemptions, visits), strict=True))
    changes = (fact_changes, product_changes, campaign_changes, contact_changes, redemption_changes, visit_changes)
    changed = dict(zip(SOURCES, changes, strict=True))
    return evaluate_changed(
        features,
        {
            "feature.customer_cluster": clusters,
            "feature.customer_outlook": outlooks,
            "feature.customer_audience": audiences,
            CUSTOMERS: customers,
        },
        whole,
        changed,
        evaluated,
        segments=ask_for(segments, asked),
        as_of=as_of,
        catalogue=declared_features(),
        earlier=earlier,
        hold=hold,
        is_full=previous is None,
    )


def evaluate_changed(
    features: DataFrame,
    more: Mapping[str, DataFrame],
    tables: Tables,
    changed: Tables,
    evaluated: DataFrame,
    *,
    segments: Sequence[Segment],
    as_of: date,
    catalogue: Mapping[str, Feature],
    earlier: Earlier = NOT_KNOWN,
    hold: Once = as_is,
    is_full: bool,
) -> DataFrame:
    """As `evaluate_customers`, over features given instead of the declared ones, and tables by name."""
    plan = Plan.of(segments)
    before = None if is_full else _other_plan(earlier, plan)
    both = (*plan.needed, *(before.needed if before else ()))
    today = features.where(F.col("as_of") == F.lit(as_of))
    everyone = join_features(today, more, both, as_of=as_of, catalogue=catalogue)
    cuts, names = cuts_of(everyone, [s.rule for s in both])
    cuts = None if cuts is None else hold(cuts)

    compiler = Compiler(catalogue, as_of, names)

    def signature(of: Plan) -> Column:
        return _signature([compiler.rule(c) for c in of.on_features])

    signatures = [signature(plan).alias("_signature")]
    if before is not None:
        signatures.append(signature(before).alias("_signature_before"))
    signed = with_cuts(everyone, cuts).select("customer_key", *signatures)
    moved = customers_with_changes(changed, tables, plan.asked)
    fates = _fates(signed, today, evaluated, moved, plan, before, as_of, is_full=is_full)
    # Of everyone, or of few, only those not treated like the rest are remembered; as one part, for they are read often.
    few = hold(fates.where(F.col("_fate") != F.lit(DUE if is_full else ALONE)).repartition(1))

    def of_few(fate: int) -> DataFrame:
        return few.where(F.col("_fate") == F.lit(fate))

    def present(customers: DataFrame) -> DataFrame:
        return with_cuts(join_features(today, more, both, as_of=as_of, catalogue=catalogue, only=customers), cuts)

    if is_full:
        again = None
        due = with_cuts(everyone, cuts)
        answered = evaluated
    else:
        again = of_few(DUE).select("customer_key")
        due = present(again)
        answered = evaluated.join(F.broadcast(again), on="customer_key", how="left_semi")
    fresh = _evaluate(due, names, tables, again, plan, as_of=as_of, catalogue=catalogue)
    found = _with_reasons(fresh, answered, plan, before)
    # Events of those put off changed on a day they were not evaluated for; these changes will not be shown again.
    is_gone = F.col("_fate") == F.lit(GONE)
    others = few.where(is_gone | (F.col("_fate") == F.lit(PUT_OFF))).select("customer_key", is_gone.alias("_deleted"))
    columns = [c for c in E.__table__.column_names if c != E.recheck_on]  # type: ignore[attr-defined]
    left_alone = evaluated.join(F.broadcast(others), on="customer_key", how="inner").select(
        *columns, F.col(E.evaluated_on).alias(E.recheck_on), "_deleted"
    )
    made = found.unionByName(left_alone)
    if before is None:
        return made
    part = plan.changed_since(before)
    kept = of_few(KEPT)
    asked = present(kept.select("customer_key"))
    mended = _evaluate(asked, names, tables, None, part, as_of=as_of, catalogue=catalogue)
    # One earlier row per customer, so no row is multiplied.
    earlier_rows = evaluated.join(kept.select("customer_key", "_signature"), on="customer_key", how="inner")
    return made.unionByName(_carried_over(mended, earlier_rows, plan, before, part))


def _other_plan(earlier: Earlier, plan: Plan) -> Plan | None:
    """The plan of the earlier definitions; None when they are the same, or are not all known.

    One that a limit held back keeps its rule, which may ask for a segment that is inactive or gone since.
    """
    known = [s for s in earlier.read() if s.is_active and s.entity == "customer"]
    if not frozenset().union(*(segments_in(s.rule) for s in known)) <= {s.segment_id for s in known}:
        return None
    before = Plan.of(known)
    return before if before.segments and before.definitions != plan.definitions else None


def _fates(
    signed: DataFrame,
    today: DataFrame,
    evaluated: DataFrame,
    moved: DataFrame | None,
    plan: Plan,
    earlier: Plan | None,
    as_of: date,
    *,
    is_full: bool,
) -> DataFrame:
    """Everyone present or evaluated before, with what is to be done: narrow rows, the one shuffle of everyone.

    Returns:
        customer_key, _signature and _fate: DUE to be evaluated by all rules, KEPT to be evaluated by changed rules
        only, GONE from the features, PUT_OFF because evaluated for a later day though events changed, or left ALONE.
    """

    def is_by(of: Plan) -> Column:
        return F.col(E.definitions) == F.lit(of.definitions)

    before = evaluated.select(
        E.website_id,
        E.customer_key,
        F.col(E.signature).alias("_was"),
        is_by(plan).alias("_is_by_these"),
        (F.lit(False) if earlier is None else is_by(earlier)).alias("_is_by_earlier"),
        # Asked for everyone, a later day is one that a run which died did not come to publish.
        ((F.col(E.evaluated_on) > F.lit(as_of)) & F.lit(not is_full)).alias("_is_later"),
        F.coalesce(F.col(E.recheck_on) <= F.lit(as_of), F.lit(False)).alias("_is_over"),
    )
    # A key is made of website and number, and has one row on either side.
    both = signed.withColumn("_is_present", F.lit(True)).join(
        before.hint("shuffle_hash"), on="customer_key", how="full_outer"
    )
    # Looked into only for customers without features.
    websites = today.agg(F.collect_set("merchant_id")).scalar()
    is_moved = F.lit(False)
    if moved is not None:
        both = both.join(F.broadcast(moved.withColumn("_moved", F.lit(True))), on="customer_key", how="left")
        is_moved = F.coalesce("_moved", F.lit(False))
    is_present, is_new = F.coalesce("_is_present", F.lit(False)), F.col("_was").isNull()
    may_differ = is_moved | F.coalesce("_is_over", F.lit(False)) | F.lit(is_full)
    is_as_before = F.lit(False)
    if earlier is not None:
        is_as_before = F.col("_is_by_earlier") & (F.col("_was") == F.col("_signature_before"))
    is_same = F.col("_is_by_these") & (F.col("_was") == F.col("_signature"))
    is_gone = F.array_contains(websites, F.col(E.website_id)) & ~F.col("_is_later")
    fate = (
        F.when(~is_present, F.when(is_gone, F.lit(GONE)).when(is_moved, F.lit(PUT_OFF)))
        .when(is_new, F.lit(DUE))
        .when(F.col("_is_later"), F.when(is_moved, F.lit(PUT_OFF)))
        .when(~may_differ & is_as_before, F.lit(KEPT))
        .when(may_differ | ~is_same, F.lit(DUE))
    )
    return both.select("customer_key", "_signature", F.coalesce(fate, F.lit(ALONE)).alias("_fate"))


def _evaluate(
    due: DataFrame,
    names: Names,
    tables: Tables,
    customers: DataFrame | None,
    plan: Plan,
    *,
    as_of: date,
    catalogue: Mapping[str, Feature],
) -> DataFrame:
    """Rows of those evaluated, without reasons."""
    prepared = due
    recheck: Column = F.lit(None).cast("date")
    if plan.asked:
        prepared, names = add_events(
            prepared, names, [s.rule for s in plan.needed], tables, as_of=as_of, customers=customers
        )
        recheck = F.col(RECHECK)
    columns: dict[Rule, str] = {c: f"_c{i}" for i, c in enumerate(plan.conditions)}
    # Each condition is answered once, however many rules it stands in.
    compiler = Compiler(catalogue, as_of, names)
    prepared = prepared.select(
        "*",
        *[compiler.rule(c).alias(column) for c, column in columns.items()],
        recheck.alias(E.recheck_on),
    )
    names = replace(names, answers=columns)
    rules = [s.rule for s in plan.needed]
    prepared, names = add_branches(prepared, names, rules, as_of=as_of, catalogue=catalogue)
    answers = [F.col(c) for c in columns.values()]
    prepared, names = add_referenced(prepared, names, plan.needed, as_of=as_of, catalogue=catalogue)
    found = matches(plan.segments, names, as_of=as_of, catalogue=catalogue)
    return prepared.select(
        F.col("merchant_id").alias(E.website_id),
        E.customer_key,
        E.customer_id,
        found.alias(E.segment_ids),
        _written(answers).alias(E.answers),
        _signature(answers[: len(plan.on_features)]).alias(E.signature),
        F.lit(plan.definitions).alias(E.definitions),
        F.lit(as_of).alias(E.evaluated_on),
        E.recheck_on,
    )


def _with_reasons(fresh: DataFrame, evaluated: DataFrame, plan: Plan, earlier: Plan | None) -> DataFrame:
    """Rows with the conditions whose answer changed, for each segment whose rule became true or ceased to be."""
    before = evaluated.select(
        E.website_id,
        E.customer_key,
        F.col(E.segment_ids).alias("_was"),
        F.col(E.answers).alias("_answered"),
        F.col(E.definitions).alias("_by"),
    )
    # One earlier row per customer, so no row is multiplied.
    both = fresh.join(before, on=[str(E.website_id), str(E.customer_key)], how="left")
    answered = F.when(F.col("_by") == F.lit(plan.definitions), F.col("_answered"))
    if earlier is not None:
        # A condition nobody asked before has not become anything.
        answered = answered.when(
            F.col("_by") == F.lit(earlier.definitions),
            _put_together(plan, _places(earlier, "_answered"), _places(plan, E.answers)),
        )
    both = both.withColumn("_answered", answered)
    position = {c: i for i, c in enumerate(plan.conditions)}
    by_id = {s.segment_id: s for s in plan.needed}
    positions = {s.segment_id: sorted(_positions(s, by_id, position)) for s in plan.segments}
    reasons = F.lit(None).cast("map<string,string>")
    if plan.segments and plan.conditions:
        where = literal({i: p for i, p in positions.items() if p}, "map<string,array<int>>")
        said = literal([say(c) for c in plan.conditions], "array<string>")
        was = F.coalesce("_was", F.array().cast("array<string>"))
        moved = F.array_union(F.array_except(E.segment_ids, was), F.array_except(was, F.col(E.segment_ids)))

        def at(n: Column, answers: str) -> Column:
            return F.substring(F.col(answers), n + 1, F.lit(1))

        def changes_of(segment_id: Column) -> Column:
            own = F.try_element_at(where, segment_id)
            differing = F.filter(own, lambda n: at(n, E.answers) != at(n, "_answered"))
            told = F.transform(
                differing,
                lambda n: F.concat(
                    F.get(said, n),
                    F.lit(" became "),
                    F.when(at(n, E.answers) == "1", F.lit("true"))
                    .when(at(n, E.answers) == "0", F.lit("false"))
                    .otherwise(F.lit("unknown")),
                ),
            )
            return F.coalesce(F.array_join(told, "; "), F.lit(""))

        told = F.map_from_arrays(moved, F.transform(moved, changes_of))
        reasons = F.when(F.col("_answered").isNotNull() & (F.size(moved) > 0), told)
    columns = [c for c in E.__table__.column_names if c != E.reasons]  # type: ignore[attr-defined]
    return both.select(*columns, reasons.alias(E.reasons), F.lit(False).alias("_deleted"))


def _carried_over(mended: DataFrame, before: DataFrame, plan: Plan, earlier: Plan, part: Plan) -> DataFrame:
    """Rows with what the changed segments came to beside what all others were."""
    changed = {s.segment_id for s in part.segments}
    same = F.array(*[F.lit(s.segment_id) for s in plan.segments if s.segment_id not in changed]).cast("array<string>")
    was = before.select(
        E.customer_key,
        "_signature",
        F.array_intersect(E.segment_ids, same).alias("_kept_in"),
        F.col(E.answers).alias("_answered"),
        F.col(E.recheck_on).alias("_until"),
    )
    both = mended.join(was, on=E.customer_key, how="inner")
    own = {
        E.segment_ids: F.sort_array(F.concat("_kept_in", E.segment_ids)),
        E.answers: _put_together(plan, _places(part, E.answers), _places(earlier, "_answered")),
        E.signature: F.col("_signature"),
        E.recheck_on: F.least(E.recheck_on, "_until"),
        E.reasons: F.lit(None).cast("map<string,string>"),
    }
    columns = [own[c].alias(c) if c in own else F.col(c) for c in E.__table__.column_names]  # type: ignore[attr-defined]
    return both.select(*columns, F.lit(False).alias("_deleted"))


def _places(plan: Plan, column: str | Column) -> dict[Leaf, tuple[str, int]]:
    """Where in a column of answers each condition of a plan has its own."""
    return {c: (str(column), i) for i, c in enumerate(plan.conditions)}


def _put_together(plan: Plan, *places: Mapping[Leaf, tuple[str, int]]) -> Column:
    """Answers in the order of `plan`, from the first place that has one; what lies side by side is copied in one."""
    pieces: list[tuple[str, int, int]] = []
    for condition in plan.conditions:
        column, at = next(place[condition] for place in places if condition in place)
        if pieces and pieces[-1][0] == column and sum(pieces[-1][1:]) == at:
            pieces[-1] = (column, pieces[-1][1], pieces[-1][2] + 1)
        else:
            pieces.append((column, at, 1))
    return _concatenated([F.substring(column, at + 1, length) for column, at, length in pieces])


def _positions(segment: Segment, by_id: Mapping[str, Segment], position: Mapping[Leaf, int]) -> set[int]:
    everyone = with_referenced([segment], by_id.values())
    return {position[leaf] for s in everyone for leaf in _leaves(s) if leaf in position}


def _leaves(segment: Segment) -> tuple[Leaf, ...]:
    group = segment.group_condition
    return (*leaves_of(segment.rule), *((group,) if group is not None else ()))


def _written(answers: Sequence[Column]) -> Column:
    said = [F.when(a, F.lit("1")).when(~a, F.lit("0")).otherwise(F.lit("?")) for a in answers]
    return _concatenated(said)


def _concatenated(said: Sequence[Column]) -> Column:
    parts = [F.concat(*said[i : i + _SLICE]) for i in range(0, len(said), _SLICE)]
    return F.concat(*parts) if len(parts) > 1 else (parts[0] if parts else F.lit(""))


def _signature(answers: Sequence[Column]) -> Column:
    # xxhash64 passes over nulls, so unknown needs a value of its own.
    codes = [F.coalesce(a.cast("int"), F.lit(2)) for a in answers]
    parts = [F.xxhash64(*codes[i : i + _SLICE]) for i in range(0, len(codes), _SLICE)]
    return reduce(lambda a, b: F.xxhash64(a, b), parts) if parts else F.lit(0).cast("bigint")
