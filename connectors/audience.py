"""Who may leave: members joined with consent, identifiers hashed, raw contact details dropped in the same plan."""

from __future__ import annotations

from typing import Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from connectors.base import DestinationConfig
from connectors.identifiers import hash_identifier, normalise_email, normalise_phone
from lakehouse.tables.gold import DimCustomer as D
from lakehouse.tables.segment import CustomerSegmentCustomer as C
from lakehouse.tables.silver import Consent

REASONS: Final = ("no_consent", "no_identifier")
"""Why a member is left out, in the order they are asked; a member has the first that applies."""


def plan_audience(
    members: DataFrame, customers: DataFrame, consents: DataFrame, *, destination: DestinationConfig
) -> DataFrame:
    """One row per member with digests, and the reason when they may not leave.

    A member leaves when consent for the destination's channel is on record and granted, and at least one identifier
    can be made. No record is no consent.

    Args:
        members: `gold.customer_segment_customer`.
        customers: `gold.dim_customer`; the current versions are used.
        consents: `silver.consent`.
        destination: Its consent channel, identifiers and normalisation.

    Returns:
        segment_id, website_id, member_id (SHA-256 of website and customer number), one `<identifier>_sha256` per
        identifier of the destination (null when unknown or when the member may not leave), excluded (null when they
        may) and is_sample. No raw identifier is in it.
    """
    contacts = customers.where(D.is_current).select(
        F.col(D.merchant_id).alias(C.website_id),
        F.col(D.customer_key),
        F.col(D.email).alias("_email"),
        F.col(D.phone).alias("_phone"),
        F.col(D.is_sample_contact).alias("_is_sample_contact"),
    )
    choices = consents.where(F.col(Consent.channel) == F.lit(destination.consent)).select(
        F.col(Consent.merchant_id).alias(C.website_id),
        C.customer_id,
        F.col(Consent.is_granted).alias("_is_granted"),
        F.col(Consent.is_sample).alias("_is_sample_consent"),
    )
    # Neither join multiplies: one current version per customer, one choice per customer and channel.
    known = members.select(C.segment_id, C.website_id, C.customer_key, C.customer_id).join(
        contacts, on=[str(C.website_id), str(C.customer_key)], how="left"
    )
    known = known.join(choices, on=[str(C.website_id), str(C.customer_id)], how="left")

    made: dict[str, Column] = {}
    for identifier in destination.identifiers:
        if identifier == "email":
            made["email_sha256"] = hash_identifier(normalise_email(F.col("_email"), destination.email_rule))
        else:
            made["phone_sha256"] = hash_identifier(normalise_phone(F.col("_phone"), destination.phone_rule))
    hashed = known.select("*", *[digest.alias(name) for name, digest in made.items()])
    is_granted = F.coalesce("_is_granted", F.lit(False))
    has_identifier = F.coalesce(*made).isNotNull()
    excluded = F.when(~is_granted, F.lit("no_consent")).when(~has_identifier, F.lit("no_identifier"))
    return hashed.select(
        C.segment_id,
        C.website_id,
        member_id(F.col(C.website_id), F.col(C.customer_id)).alias("member_id"),
        *[F.when(excluded.isNull(), F.col(name)).alias(name) for name in made],
        excluded.alias("excluded"),
        (F.coalesce("_is_sample_contact", F.lit(False)) | F.coalesce("_is_sample_consent", F.lit(False))).alias(
            "is_sample"
        ),
    )


def member_id(website_id: Column, customer_id: Column) -> Column:
    """Returns a member's stable id outside: SHA-256 over website and customer number, kept apart by a separator."""
    return hash_identifier(F.concat_ws("\u001f", website_id, customer_id))
