"""Braze: membership as an entry of a custom array attribute of the user. Only changes are sent, for they cost points.

Source: Braze REST API, /users/track. Braze does not list who carries an attribute, so it cannot be reconciled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
from pydantic import Field
from pyspark.sql import Column

from connectors.base import BatchDestination, ConsentChannel
from connectors.engine import Limits
from connectors.exchange import OK, Batch, BatchRefused, Outcome
from connectors.http import told
from connectors.pace import Clock, Rate
from connectors.rest import RestConnector, reason_in
from connectors.secret import Secret


class BrazeDestination(BatchDestination):
    """Braze users.

    Attributes:
        kind: Tells it from other destinations.
        base_url: The instance, such as `https://rest.iad-01.braze.com`.
        api_key: Key with `users.track`.
        attribute: Array attribute that names the segments a user is in.
        external_id: What the retailer's Braze calls a user: the customer number, or our digest of it.
    """

    kind: Literal["braze"]
    base_url: str = Field(min_length=1)
    consent: ConsentChannel = "email"
    api_key: Secret
    attribute: str = Field("segments", pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    external_id: Literal["customer_id", "member_id"] = "customer_id"

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The user's id; no address or number is sent."""
        return {"external_id": contact[self.external_id]}

    def connect(self, clock: Clock) -> BrazeConnector:
        """Returns the connector; nothing is sent yet."""
        return BrazeConnector(self, clock)


class BrazeConnector(RestConnector):
    """Tracks attributes."""

    config: BrazeDestination
    limits = Limits(rows=75, rates=(Rate(3_000, 3.0),), removal_keys=("external_id",), bytes=4_000_000, window=40)

    def __init__(self, config: BrazeDestination, clock: Clock) -> None:
        super().__init__(
            config,
            clock,
            headers=lambda: {"Authorization": f"Bearer {config.api_key.reveal()}"},
            throttle=self._wait,
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Send one request. 201 may name rows it refused by their index; 400 refuses all."""
        said = told(self.http.call("POST", "/users/track", self.body(batch)), "message")
        refused: dict[int, str] = {}
        for error in said.get("errors") or []:
            if not isinstance(error, Mapping):
                raise BatchRefused("errors_not_told", may_be_applied=True)
            if error.get("input_array") == "attributes" and error.get("index") is not None:
                refused[int(error["index"])] = reason_in(error.get("type") or "refused")
        return [Outcome("reject", refused[i]) if i in refused else OK for i in range(len(batch.rows))]

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the attributes of a batch. Users that do not exist are not made."""
        change = "add" if batch.op == "add" else "remove"
        name = self.config.audiences.get(batch.place.segment_id, batch.place.segment_id)
        return {
            "attributes": [
                {
                    "external_id": row.keys["external_id"],
                    "_update_existing_only": True,
                    self.config.attribute: {change: [name]},
                }
                for row in batch.rows
            ]
        }

    def _wait(self, answer: httpx.Response) -> float | None:
        """429 tells the second, since 1970, at which requests are taken again."""
        if answer.status_code != 429:
            return None
        reset = answer.headers.get("X-RateLimit-Reset")
        return max(1.0, float(reset) - self.clock.now()) if reset else 3.0
