"""What a destination needs, and what it was told: the two transforms between an audience, a journal and its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from connectors.audience import Audience
from connectors.base import BatchDestination
from connectors.erasure import GONE
from connectors.exchange import STATUSES, VERDICTS, next_op, next_status
from lakehouse.declare import table_of
from lakehouse.tables.activation import ActivationMember as M
from lakehouse.tables.activation import ActivationOutcome as O
from lakehouse.tables.activation import ActivationPlan as P

BUCKETS: Final = 256
"""Parts a plan is read in."""
PLACE: Final = ("website_id", "segment_id")
ROW: Final = (*PLACE, "member_id", "key_set")


def plan_changes(
    audience: Audience,
    members: DataFrame,
    *,
    destination: BatchDestination,
    segments: Sequence[str],
    run_id: str,
    started_at: datetime,
    is_forced: bool,
) -> DataFrame:
    """Returns one row per change that brings a destination to its audience; none when it is there.

    A removal is sent with those of its keys that nobody who stays has too: taking away a telephone that two people
    share would take both away. See `_without_shared_keys` for who counts as staying.

    Args:
        audience: Made for the destination.
        members: `gold.activation_member` of the destination and these segments.
        destination: Says when a membership is renewed, and under which mapping rows are sent.
        segments: Segments that leave.
        run_id: Run that plans.
        started_at: When it started, UTC; renewals count from there.
        is_forced: Also send refused rows that have not changed.

    Returns:
        The columns of `gold.activation_plan`.
    """
    eligible = audience.frame.where(F.col("excluded").isNull() & F.col("segment_id").isin(*segments))
    wanted = eligible.select(*PLACE, "member_id", _keys_of(audience.keys).alias("keys"))
    wanted = wanted.withColumn("key_set", _key_set(F.col("keys"))).withColumn("_is_wanted", F.lit(True))
    # Neither side has a row twice: a member is in a segment once, and the ledger keeps one row per key.
    both = wanted.join(members.withColumnRenamed("keys", "_there_keys"), on=list(ROW), how="full_outer")
    is_wanted = F.coalesce("_is_wanted", F.lit(False))
    again = (F.col(M.status) == "rejected") & (F.lit(is_forced) | (F.col(M.mapping) != F.lit(destination.mapping)))
    if destination.renew_days:
        old = started_at - timedelta(days=destination.renew_days)
        again = again | ((F.col(M.status) == "present") & (F.col(M.acknowledged_at) < F.lit(old)))
    rules = {f"{str(w).lower()}|{s or ''}": next_op(w, s) for w in (True, False) for s in (None, *STATUSES)}
    op = F.coalesce(
        _lookup(rules, is_wanted.cast("string"), F.coalesce(M.status, F.lit(""))),
        F.when(is_wanted & again, F.lit("add")),
    )
    permitted = audience.permitted.withColumn("_is_permitted", F.lit(True))
    # One row per person at most is permitted.
    changes = both.withColumn("op", op).where(F.col("op").isNotNull())
    changes = changes.join(permitted, on=["website_id", "member_id"], how="left")
    lane = (
        F.when(F.col("op") == "add", F.lit("addition"))
        .when(F.col("_is_permitted"), F.lit("removal"))
        .otherwise(F.lit("withdrawal"))
    )
    made = changes.select(
        F.lit(destination.name).alias(P.destination),
        *ROW,
        "op",
        lane.alias(P.lane),
        F.coalesce("keys", "_there_keys").alias(P.stored_keys),
        M.remote_id,
        _generation().alias(P.generation),
        F.pmod(F.xxhash64("member_id", "key_set"), F.lit(BUCKETS)).cast("int").alias(P.bucket),
        F.lit(run_id).alias(P.run_id),
    )
    additions = made.where("op = 'add'").withColumn("keys", F.col(P.stored_keys))
    is_there = F.coalesce(~F.col(M.status).isin(*GONE), F.lit(False))
    sharers = both.where(is_wanted).select(*PLACE, "keys", is_there.alias("_is_there"))
    removals = _without_shared_keys(made.where("op = 'remove'"), sharers, audience_of(destination))
    columns = table_of(P).column_names
    return additions.select(*columns).unionByName(removals.select(*columns))


def fold_journal(
    journal: DataFrame, plan: DataFrame, members: DataFrame, *, destination: BatchDestination, run_id: str
) -> DataFrame:
    """Returns the members of a destination that a run's journal changes; folding it twice gives the same.

    Args:
        journal: Of `gold.activation_outcome`, the last row of the run for each row sent.
        plan: `gold.activation_plan` of the run.
        members: `gold.activation_member` of the destination.
        destination: The destination.
        run_id: The run.

    Returns:
        The columns of `gold.activation_member`, one row per row that was sent.
    """
    said = journal.select(
        *ROW,
        "op",
        "verdict",
        "seq",
        O.recorded_at,
        *[F.col(c).alias(f"_new_{c}") for c in ("code", "receipt", "remote_id")],
    )
    sent = plan.select(*ROW, F.col(P.stored_keys).alias("_plan_keys"))
    known = members.drop("destination").withColumnRenamed("run_id", "_folded_run")
    # Neither join multiplies: plan and members have one row per key.
    made = said.join(sent, on=list(ROW), how="left").join(known, on=list(ROW), how="left")
    # What was folded already must not be counted twice.
    is_folded = (F.col("_folded_run") == F.lit(run_id)) & (F.col(M.last_seq) >= F.col("seq"))
    rules = {
        f"{op}|{verdict}|{status or ''}": next_status(op, verdict, status)
        for op in ("add", "remove")
        for verdict in VERDICTS
        for status in (None, *STATUSES)
    }
    status = _lookup(rules, F.col("op"), F.col("verdict"), F.coalesce(M.status, F.lit("")))
    is_ok = F.col("verdict") == "ok"
    is_amid = (F.col("op") == "remove") & (F.col("_status") == "adding")  # of a job that adds, which is still asked for
    nothing = F.create_map().cast("map<string,string>")
    kept = F.when(F.col("_status") == "removed", nothing).otherwise(F.coalesce("_plan_keys", "keys", nothing))
    new = made.where(~F.coalesce(is_folded, F.lit(False))).withColumn("_status", status)
    return new.select(
        F.lit(destination.name).alias(M.destination),
        *ROW,
        F.col("_status").alias(M.status),
        kept.alias(M.keys),
        F.col("op").alias(M.last_op),
        F.col("_new_code").alias(M.code),
        F.when(is_amid, F.col(M.receipt)).otherwise(F.col("_new_receipt")).alias(M.receipt),
        F.coalesce("_new_remote_id", M.remote_id).alias(M.remote_id),
        F.lit(destination.mapping).alias(M.mapping),
        (_generation() + is_ok.cast("int")).alias(M.generation),
        F.when(is_ok, F.col(O.recorded_at)).otherwise(F.col(M.acknowledged_at)).alias(M.acknowledged_at),
        F.col("seq").alias(M.last_seq),
        F.lit(run_id).alias(M.run_id),
    )


def _without_shared_keys(removals: DataFrame, wanted: DataFrame, audience: Column) -> DataFrame:
    """Removals with the keys nobody wanted in the audience has, which may be none; `stored_keys` stays whole.

    Whoever is wanted in another place of the audience and not there yet may not come for long, so a removal that shares
    a key with nobody else waits: carried out without the key, it would leave nothing to take the key away by. A
    withdrawal does not wait, and takes the key away.
    """
    key, place = ["_audience", "_name", "_value"], F.concat_ws("\u001f", *PLACE)
    single = removals.select("*", audience.alias("_audience"), F.explode_outer(P.stored_keys).alias("_name", "_value"))
    sharers = wanted.select(
        audience.alias("_audience"), place.alias("_place"), "_is_there", F.explode("keys").alias("_name", "_value")
    )
    used = sharers.groupBy(*key).agg(
        F.bool_or("_is_there").alias("_is_there"), F.collect_set("_place").alias("_places")
    )
    single = single.join(used, on=key, how="left")  # one row per key
    is_patient = F.col(P.lane) == "removal"
    is_used = F.coalesce(F.col("_is_there") | (is_patient & F.array_contains("_places", place)), F.lit(False))
    waits = is_patient & F.col("_places").isNotNull() & ~is_used
    pair = F.when(F.col("_name").isNotNull(), F.struct("_name", "_value"))
    free = F.when(~is_used, pair)
    return (
        single.groupBy(*[c for c in removals.columns if c != P.stored_keys])
        .agg(
            F.map_from_entries(F.collect_list(free)).alias("keys"),
            F.map_from_entries(F.collect_list(pair)).alias(P.stored_keys),
            F.bool_or(waits).alias("_waits"),
        )
        .where(~F.col("_waits"))
    )


def audience_of(destination: BatchDestination) -> Column:
    """Which audience a row belongs to at the destination: what two retailers or segments send to one id is one."""
    if destination.keeps_places_apart:
        return F.concat_ws("\u001f", *PLACE)
    known = F.col("segment_id")
    return F.coalesce(_lookup(destination.audiences, known), known) if destination.audiences else known


def _generation() -> Column:
    """Of the change `op` of a row: the opposite of the last one is a new change, whatever became of that."""
    is_other = F.coalesce(F.col(M.last_op) != F.col("op"), F.lit(False))
    return F.coalesce(M.generation, F.lit(0)) + is_other.cast("int")


def _keys_of(names: Sequence[str]) -> Column:
    """The keys a person has, as a map in the order of the destination's settings; those unknown are left out."""
    pairs = [F.struct(F.lit(name).alias("key"), F.col(name).alias("value")) for name in names]
    return F.map_from_entries(F.filter(F.array(*pairs), lambda pair: pair["value"].isNotNull()))


def _key_set(keys: Column) -> Column:
    return F.sha2(F.encode(F.to_json(F.array_sort(F.map_entries(keys))), "UTF-8"), 256)


def _lookup(table: Mapping[str, str | None], *parts: Column) -> Column:
    """The value a table of rules has for a combination; null where it has none."""
    pairs = [F.lit(x) for key, value in table.items() if value is not None for x in (key, value)]
    return F.try_element_at(F.create_map(*pairs), F.concat_ws("|", *parts))
