"""Erased people: once nothing of theirs is at a destination, their digests leave the ledger too, and a proof stays."""

from __future__ import annotations

from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from lakehouse.declare import table_of
from lakehouse.lake import DELETED, Lake
from lakehouse.tables.activation import ActivationErasure as E
from lakehouse.tables.activation import ActivationMember as M
from lakehouse.tables.activation import CampaignMember as C
from lakehouse.tables.activation import Suppression as S

GONE = ("removed", "waiting")
"""Statuses of rows of which the destination holds nothing."""


def forget_erased(lake: Lake, destination: str, *, run_id: str, recorded_at: datetime) -> None:
    """Take what is kept of erased people out of the ledger of a destination.

    Somebody of whom something may still be there keeps all their rows, for the removal goes by them. The proof is
    written first, so a run that dies in between leaves rows that the next one takes out. The journal of what was sent
    keeps the digest of the person for as long as its retention says: it is what the proof rests on.

    Args:
        lake: Holds suppressions and ledger.
        destination: Its name.
        run_id: Run.
        recorded_at: When the run started, UTC.
    """
    people = _erased(lake).where(F.col(S.destination).isin("*", destination)).select(S.website_id, S.member_id)
    if not people.limit(1).collect():
        return
    members = lake.read(M).where(F.col(M.destination) == F.lit(destination))
    rows = members.join(people, on=["website_id", "member_id"], how="left_semi")
    proofs = prove_erasure(rows, run_id=run_id, recorded_at=recorded_at)
    if proofs.limit(1).collect():
        lake.write(E, proofs)
        # Somebody sent again after an earlier proof may be there still.
        proved = (F.col(E.destination) == F.lit(destination)) & (F.col(E.run_id) == F.lit(run_id))
        done = lake.read(E).where(proved).select(E.website_id, E.member_id)
        lake.write(M, _gone(rows.join(done, on=["website_id", "member_id"], how="left_semi"), M))


def forget_arms(lake: Lake) -> None:
    """Take the arms of erased people out of campaigns, whatever the destination and whether it is active or not."""
    if not lake.exists(C):
        return
    who = _erased(lake).select(*[F.col(c).alias(f"_{c}") for c in (S.website_id, S.member_id, S.destination)])
    same = [F.col(c) == F.col(f"_{c}") for c in (C.website_id, C.member_id)]
    barred = (F.col("_destination") == "*") | (F.col("_destination") == F.col(C.destination))
    arms = lake.read(C).join(who, on=[*same, barred], how="left_semi")
    if arms.limit(1).collect():
        lake.write(C, _gone(arms, C))


def prove_erasure(rows: DataFrame, *, run_id: str, recorded_at: datetime) -> DataFrame:
    """Returns the proof for every erased person of whom a destination holds nothing any more.

    Args:
        rows: Of `gold.activation_member`, those of erased people at one destination.
        run_id: Run.
        recorded_at: When it started, UTC.

    Returns:
        The columns of `gold.activation_erasure`.
    """
    is_gone = F.col(M.status).isin(*GONE)
    counted = rows.groupBy(M.website_id, M.member_id, M.destination).agg(
        F.count_if(F.col(M.status) == "removed").alias(E.rows_removed),
        F.count_if(F.col(M.status) == "waiting").alias(E.rows_never_sent),
        F.count_if(~is_gone).alias("_left"),
        F.max(F.when(F.col(M.status) == "removed", F.col(M.acknowledged_at))).alias(E.acknowledged_at),
    )
    done = counted.where("_left = 0").withColumns({"run_id": F.lit(run_id), "recorded_at": F.lit(recorded_at)})
    return done.select(*table_of(E).column_names)


def _erased(lake: Lake) -> DataFrame:
    return lake.read(S).where(F.col(S.reason) == "erased")


def _gone(rows: DataFrame, table: type) -> DataFrame:
    return rows.select(*table_of(table).column_names, F.lit(True).alias(DELETED))
