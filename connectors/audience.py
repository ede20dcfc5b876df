"""Who may leave: the join nobody can skip. Connectors and ledgers take an `Audience`, and only this join makes one.

may leave = in the segment, and consent for the purpose, in a region the destination is for,
less suppressed or erased, less held out, with an identifier it can be matched by
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from connectors.base import DestinationConfig, Holdout
from connectors.exchange import NotEligible
from connectors.identifiers import hash_identifier, normalise_country
from lakehouse.sampling import salted_position
from lakehouse.tables.activation import Suppression
from lakehouse.tables.gold import DimCustomer as D
from lakehouse.tables.segment import CustomerSegmentCustomer as C
from lakehouse.tables.silver import Consent

REASONS: Final = ("suppressed", "no_consent", "region", "no_identifier", "held_out")
"""Why a member is left out, in the order they are asked; a member has the first that applies.

Held out comes last, so that those held out are as those sent in everything else, and the two can be compared."""

_SEAL: Final = object()
_CONTACT: Final = (D.email, D.phone, D.first_name, D.last_name, D.postal_code, D.city, D.country)


@dataclass(frozen=True)
class Audience:
    """Members of segments, whether they may leave, and by what; only `plan_audience` makes one.

    Attributes:
        destination: Whom it was made for; no other destination takes it.
        frame: One row per member; see `plan_audience`.
        keys: Names of the key columns of the frame.
        details: Names of its columns of details, for tools of the retailer's own.
        permitted: website_id and member_id of everyone who agreed and is not suppressed, in whatever segment, region
            or shop. Whoever is there and not in it has withdrawn, which no brake holds; a slip in `regions` or
            `websites` is no withdrawal.
    """

    destination: DestinationConfig
    frame: DataFrame
    keys: tuple[str, ...]
    details: tuple[str, ...]
    permitted: DataFrame
    seal: object = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise NotEligible("An audience is made by connectors.audience.plan_audience alone.")


def plan_audience(
    members: DataFrame,
    customers: DataFrame,
    consents: DataFrame,
    suppressions: DataFrame,
    *,
    destination: DestinationConfig,
) -> Audience:
    """Returns every member with keys, and the reason when they may not leave.

    No record is no consent. A country that is not known is outside every region.

    Args:
        members: `gold.customer_segment_customer`.
        customers: `gold.dim_customer`; the current versions are used.
        consents: `silver.consent`.
        suppressions: `gold.activation_suppression`; one holds as soon as it is there, whatever day members are of.
        destination: Its consent channel, regions, holdouts, keys and details.

    Returns:
        An audience whose frame has segment_id, website_id, member_id (SHA-256 of website and customer number), one
        column per key (null when unknown or when the member may not leave), one per detail (the same), excluded (null
        when they may leave) and is_sample. No raw identifier is in it but the details a destination declares.
    """
    contacts = customers.where(D.is_current).select(
        F.col(D.merchant_id).alias(C.website_id),
        F.col(D.customer_id).alias(C.customer_id),
        F.col(D.customer_key),
        *[F.col(c).alias(f"_{c}") for c in _CONTACT],
        F.col(D.is_sample_contact).alias("_is_sample_contact"),
    )
    choices = consents.where(F.col(Consent.channel) == F.lit(destination.consent)).select(
        F.col(Consent.merchant_id).alias(C.website_id),
        C.customer_id,
        F.col(Consent.is_granted).alias("_is_granted"),
        F.col(Consent.is_sample).alias("_is_sample_consent"),
    )
    barred = suppressions.where(F.col(Suppression.destination).isin("*", destination.name))
    # One row per person, however many destinations they are barred from.
    barred = barred.groupBy(Suppression.website_id, Suppression.member_id).agg(F.lit(True).alias("_is_barred"))
    me = member_id(F.col(C.website_id), F.col(C.customer_id))
    wanted = F.lit(True)
    if destination.websites:
        wanted = F.col(C.website_id).isin(*destination.websites)
    # None of the joins multiplies: one current version per customer, one choice per customer and channel, one bar.
    everyone = contacts.join(choices, on=[str(C.website_id), str(C.customer_id)], how="left")
    everyone = everyone.withColumn("member_id", me).join(barred, on=["website_id", "member_id"], how="left")
    is_granted = F.coalesce("_is_granted", F.lit(False))
    is_barred = F.coalesce("_is_barred", F.lit(False))
    is_inside = F.lit(True)
    if destination.regions:
        is_inside = F.coalesce(normalise_country(F.col("_country")).isin(*destination.regions), F.lit(False))
    permitted = everyone.where(is_granted & ~is_barred).select("website_id", "member_id")

    asked = members.where(wanted).select(C.segment_id, C.website_id, C.customer_key, C.customer_id)
    # Somebody in a segment and no longer among the customers has been erased: they stay, without consent.
    known = asked.join(everyone.drop(str(C.customer_id)), on=[str(C.website_id), str(C.customer_key)], how="left")
    known = known.withColumn("member_id", me)
    contact = {str(c): F.col(f"_{c}") for c in _CONTACT}
    contact |= {"member_id": F.col("member_id"), "customer_id": F.col(C.customer_id)}
    keys, details = destination.keys(contact), destination.details(contact)
    own = [F.col(f"_key_{name}") for name in keys if name not in _NOT_PERSONAL]
    matched = F.coalesce(*own).isNotNull() if own else F.lit(True)
    excluded = (
        F.when(is_barred, F.lit("suppressed"))
        .when(~is_granted, F.lit("no_consent"))
        .when(~is_inside, F.lit("region"))
        .when(~matched, F.lit("no_identifier"))
        .when(_held_out(destination.holdouts), F.lit("held_out"))
    )
    made = known.select(
        "*",
        *[column.alias(f"_key_{name}") for name, column in keys.items()],
        *[column.alias(f"_detail_{name}") for name, column in details.items()],
    )
    frame = made.withColumn("excluded", excluded).select(
        C.segment_id,
        C.website_id,
        "member_id",
        *[
            F.when(F.col("excluded").isNull(), F.col(f"_key_{name}")).alias(name)
            for name in keys
            if name != "member_id"  # which is there already
        ],
        *[F.when(F.col("excluded").isNull(), F.col(f"_detail_{name}")).alias(f"detail_{name}") for name in details],
        "excluded",
        (F.coalesce("_is_sample_contact", F.lit(False)) | F.coalesce("_is_sample_consent", F.lit(False))).alias(
            "is_sample"
        ),
    )
    return Audience(destination, frame, tuple(keys), tuple(f"detail_{d}" for d in details), permitted, _SEAL)


_NOT_PERSONAL: Final = frozenset({"EXTERN_ID", "external_id", "member_id", "ABOUT"})
"""Keys that every member has; somebody with nothing else cannot be matched, unless a destination asks for no more."""


def member_id(website_id: Column, customer_id: Column) -> Column:
    """Returns a member's stable id outside: SHA-256 over website and customer number, kept apart by a separator."""
    return hash_identifier(F.concat_ws("\u001f", website_id, customer_id))


def _held_out(holdouts: dict[str, Holdout]) -> Column:
    """Whether a member belongs to the holdout of their segment: by a salted hash, so always the same people."""
    held = F.lit(False)
    for segment, holdout in sorted(holdouts.items()):
        position = salted_position([C.website_id, C.customer_id], holdout.salt)
        held = F.when(F.col(C.segment_id) == F.lit(segment), position < F.lit(holdout.share)).otherwise(held)
    return held
