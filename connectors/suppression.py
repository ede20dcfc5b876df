"""People who must not be sent anywhere, or not to some destinations, whatever they agreed to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import date

from lakehouse.lake import Lake
from lakehouse.records import write_rows
from lakehouse.tables.activation import Suppression as S


def member_of(website_id: str, customer_id: str) -> str:
    """Returns the digest that stands for a customer outside, as `connectors.audience.member_id` makes it of columns."""
    return hashlib.sha256(f"{website_id}\x1f{customer_id}".encode()).hexdigest()


def suppress(
    lake: Lake,
    website_id: str,
    customer_ids: Iterable[str],
    *,
    destination: str = "*",
    reason: str,
    suppressed_on: date,
    run_id: str,
) -> int:
    """Record people as suppressed; the next run takes them away wherever they are. Returns rows written.

    Customer numbers are kept as the digest destinations know, so that an erased person leaves no number behind.

    Args:
        lake: Holds the table.
        website_id: Retailer.
        customer_ids: Customer numbers.
        destination: A destination's name; `*` for all.
        reason: One of those the table allows.
        suppressed_on: Day of recording; it holds from then on, whatever day a run is for.
        run_id: Run that records it.
    """
    rows = [
        {
            str(S.website_id): website_id,
            str(S.member_id): member_of(website_id, customer),
            str(S.destination): destination,
            str(S.reason): reason,
            str(S.suppressed_on): suppressed_on,
            str(S.run_id): run_id,
        }
        for customer in sorted(set(customer_ids))
    ]
    return write_rows(lake, "gold.activation_suppression", rows).rows_written if rows else 0
