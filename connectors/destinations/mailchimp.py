"""Mailchimp: members of an audience put on or taken off a static segment. Nobody's subscription is ever changed.

Source: Marketing API 3.0, `lists/{id}` batch and `lists/{id}/segments/{id}`. Mailchimp knows a member by the MD5 of the
lower-cased address. It sends no rate headers: 429, or a bare 403, means ten connections are in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import httpx
from pydantic import Field
from pyspark.sql import Column
from pyspark.sql import functions as F

from connectors.base import BatchDestination, ConsentChannel
from connectors.engine import Limits
from connectors.exchange import OK, Batch, BatchRefused, Halted, Outcome, Place, RetryLater
from connectors.http import gone, json_of, told
from connectors.identifiers import normalise_email
from connectors.pace import Clock, Rate
from connectors.rest import RestConnector, reason_in
from connectors.secret import Secret


class MailchimpDestination(BatchDestination):
    """Mailchimp static segments. Addresses go as they are: it is the retailer's own mailing tool.

    Attributes:
        kind: Tells it from other destinations.
        base_url: With the data centre, such as `https://us6.api.mailchimp.com`.
        api_key: Key of the account.
        list_id: Audience of Mailchimp's that holds the segments; `audiences` names the static segments.
    """

    makes_audiences: ClassVar[bool] = True
    kind: Literal["mailchimp"]
    base_url: str = Field(min_length=1)
    consent: ConsentChannel = "email"
    identifiers: tuple[Literal["email"], ...] = ("email",)
    api_key: Secret
    list_id: str = Field(pattern="^[A-Za-z0-9]+$")

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The MD5 Mailchimp knows a member by."""
        return {"email_md5": F.md5(F.encode(normalise_email(contact["email"]), "UTF-8"))}

    def details(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The address."""
        return {"email": normalise_email(contact["email"])}

    def connect(self, clock: Clock) -> MailchimpConnector:
        """Returns the connector; nothing is sent yet."""
        return MailchimpConnector(self, clock)


class MailchimpConnector(RestConnector):
    """Adds in bulk; takes off one by one, for only that works without the address."""

    config: MailchimpDestination
    limits = Limits(rows=500, rates=(Rate(10, 1.0),), removal_keys=("email_md5",))
    listed_by = "email_md5"

    def __init__(self, config: MailchimpDestination, clock: Clock) -> None:
        super().__init__(
            config,
            clock,
            headers=lambda: {"Authorization": f"Bearer {config.api_key.reveal()}"},
            throttle=_throttle,
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Bring the static segment to the batch. Only members of the audience can be on it; others are told."""
        place = f"/3.0/lists/{self.config.list_id}/segments/{self.audience_id(batch.place)}"
        if batch.op == "remove":
            for number, row in enumerate(batch.rows):
                try:
                    # 404: it is off the segment already.
                    gone(self.http.call("DELETE", f"{place}/members/{row.keys['email_md5']}", expected=(404,)))
                except (BatchRefused, Halted, RetryLater) as stopped:
                    stopped.may_be_applied |= number > 0
                    raise
            return [OK] * len(batch.rows)
        said = told(self.http.call("POST", place, self.body(batch)), "total_added", "error_count")
        refused: dict[str, str] = {}
        for error in said.get("errors") or []:
            for address in error.get("email_addresses") or []:
                refused[str(address)] = reason_in(error.get("error") or "refused")
        missing = int(said.get("error_count") or 0) > 0 and not refused
        if missing:
            return [Outcome("unknown", "errors_not_told")] * len(batch.rows)
        return [Outcome("reject", refused[e]) if (e := r.details["email"]) in refused else OK for r in batch.rows]

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the change of a static segment."""
        return {"members_to_add": [row.details["email"] for row in batch.rows]}

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the static segment of that name."""
        offset = 0
        while True:
            params = {"type": "static", "count": "1000", "offset": str(offset), "fields": "segments.id,segments.name"}
            path = f"/3.0/lists/{self.config.list_id}/segments"
            found = json_of(self.http.call("GET", path, params=params)).get("segments") or []
            for segment in found:
                if segment.get("name") == name:
                    return str(segment["id"])
            offset += len(found)
            if len(found) < 1000:
                return None

    def make_audience(self, name: str) -> str:
        """Make a static segment without members."""
        body = {"name": name, "static_segment": []}
        return str(json_of(self.http.call("POST", f"/3.0/lists/{self.config.list_id}/segments", body))["id"])

    def listed(self, place: Place) -> Iterator[str]:
        """Yields the MD5 of every member of the static segment."""
        offset = 0
        path = f"/3.0/lists/{self.config.list_id}/segments/{self.audience_id(place)}/members"
        while True:
            params = {"count": "1000", "offset": str(offset), "fields": "members.id,total_items"}
            found = told(self.http.call("GET", path, params=params), "members")["members"]
            yield from (str(m["id"]) for m in found)
            offset += len(found)
            if len(found) < 1000:
                return


def _throttle(answer: httpx.Response) -> float | None:
    if answer.status_code == 429 or (answer.status_code == 403 and not json_of(answer)):
        return 10.0
    return None
