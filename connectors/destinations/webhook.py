"""A retailer's own service, by signed webhooks.

Source: Standard Webhooks 1.0 (webhook-id, webhook-timestamp, webhook-signature). Each row carries an `event_id` that is
the same for every attempt at one change, and the message id is made of them, so a receiver drops repeats by either.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from connectors.base import OwnDestination
from connectors.engine import Limits
from connectors.exchange import OK, Batch, Halted, Outcome
from connectors.http import json_of
from connectors.pace import Clock
from connectors.rest import RestConnector, reason_in
from connectors.secret import Secret
from lakehouse.errors import SettingsError


class WebhookDestination(OwnDestination):
    """A service of the retailer's.

    Attributes:
        kind: Tells it from other destinations.
        base_url: Where messages are posted.
        secret: Signing secret, `whsec_` and base64.
        rows_per_message: Members per message; small endpoints like 100.
    """

    takes_content: ClassVar[bool] = True
    kind: Literal["webhook"]
    base_url: str = Field(min_length=1)
    secret: Secret
    rows_per_message: int = Field(100, ge=1, le=10_000)

    def connect(self, clock: Clock) -> WebhookConnector:
        """Returns the connector; nothing is sent yet."""
        return WebhookConnector(self, clock)


class WebhookConnector(RestConnector):
    """Posts one message per batch."""

    config: WebhookDestination

    def __init__(self, config: WebhookDestination, clock: Clock) -> None:
        self.limits = Limits(rows=config.rows_per_message, removal_keys=("member_id",), window=10)
        super().__init__(config, clock, headers=dict)

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Post one message, signed over the bytes that leave. The answer may name rows it refuses, by event_id."""
        content = json.dumps(self.body(batch), separators=(",", ":"), ensure_ascii=False).encode()
        answer = self.http.call(
            "POST",
            "",
            content=content,
            headers=sign(self.config.secret.reveal(), batch.key, int(self.clock.now()), content),
            expected=(410,),
        )
        if answer.status_code == 410:
            raise Halted("410")  # the receiver wants no more
        refused = {str(r.get("event_id")): reason_in(r.get("code", "refused")) for r in _rejected(json_of(answer))}
        return [Outcome("reject", refused[r.event_id]) if r.event_id in refused else OK for r in batch.rows]

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the message of a batch."""
        content = self.config.content.get(batch.place.segment_id)
        return {
            "type": "segment.entered" if batch.op == "add" else "segment.exited",
            "segment_id": batch.place.segment_id,
            "website_id": batch.place.website_id,
            **({"content": content} if content and batch.op == "add" else {}),
            "members": [{"event_id": row.event_id, **dict(sorted(row.keys.items()))} for row in batch.rows],
        }


def sign(secret: str, message_id: str, timestamp: int, content: bytes) -> dict[str, str]:
    """Returns the three headers of a message.

    Raises:
        SettingsError: the secret is not `whsec_` and base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise SettingsError("A webhook secret is `whsec_` and base64.") from None
    said = f"{message_id}.{timestamp}.".encode() + content
    digest = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{digest}",
    }


def _rejected(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = said.get("rejected")
    return [r for r in found if isinstance(r, Mapping)] if isinstance(found, list) else []
