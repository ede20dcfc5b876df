"""HubSpot: contacts upserted, and put on or taken off a manual list by their record id.

A removal must not need the address, nor an id that a lost answer would have told: contacts carry a digest of their
address in a property with unique values, which the retailer creates once, and are looked up by it.

Source: CRM API v3, contacts batch upsert and read, and list memberships. Errors of a partial success are mapped back by
`objectWriteTraceId`; a 2xx without results is a failure that does not say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import httpx
from pydantic import Field
from pyspark.sql import Column

from connectors.base import BatchDestination, ConsentChannel
from connectors.engine import Limits
from connectors.exchange import OK, Batch, Outcome, Place, RetryLater
from connectors.http import json_of, told
from connectors.identifiers import hash_identifier, normalise_email
from connectors.pace import Clock, Rate
from connectors.rest import RestConnector
from connectors.secret import Secret


class HubSpotDestination(BatchDestination):
    """HubSpot lists. Addresses go as they are: it is the retailer's own CRM.

    Attributes:
        kind: Tells it from other destinations.
        access_token: Token of a private app with scopes for contacts and lists.
        key_property: Text property of contacts with unique values; ours to write.
        contacts_path: Contacts API; HubSpot also dates its paths (`/crm/objects/2026-03/contacts`).
        lists_path: Lists API.
    """

    makes_audiences: ClassVar[bool] = True
    kind: Literal["hubspot"]
    base_url: str = "https://api.hubapi.com"
    consent: ConsentChannel = "email"
    identifiers: tuple[Literal["email"], ...] = ("email",)
    access_token: Secret
    key_property: str = Field("activation_key", pattern="^[a-z][a-z0-9_]*$")
    contacts_path: str = "/crm/v3/objects/contacts"
    lists_path: str = "/crm/v3/lists"

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """A digest of the address, which the contact carries too: what a removal goes by."""
        return {"email_sha256": hash_identifier(normalise_email(contact["email"]))}

    def details(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The address."""
        return {"email": normalise_email(contact["email"])}

    def connect(self, clock: Clock) -> HubSpotConnector:
        """Returns the connector; nothing is sent yet."""
        return HubSpotConnector(self, clock)


class HubSpotConnector(RestConnector):
    """Upserts contacts, then changes the list."""

    config: HubSpotDestination
    limits = Limits(rows=100, rates=(Rate(100, 10.0),), removal_keys=("email_sha256",), window=20)

    def __init__(self, config: HubSpotDestination, clock: Clock) -> None:
        super().__init__(
            config,
            clock,
            headers=lambda: {"Authorization": f"Bearer {config.access_token.reveal()}"},
            throttle=_throttle,
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Bring the list to the batch. Rows the upsert refused are told by trace id and stay off the list."""
        place = f"{self.config.lists_path}/{self.audience_id(batch.place)}/memberships/add-and-remove"
        if batch.op == "remove":
            gone = self._find([row.keys["email_sha256"] for row in batch.rows])
            if gone:
                self._change(place, [], sorted(gone.values()))
            return [OK if r.keys["email_sha256"] in gone else Outcome("ok", "unknown_there") for r in batch.rows]
        answer = self.http.call("POST", f"{self.config.contacts_path}/batch/upsert", self.body(batch))
        said = json_of(answer)
        records = {str(r.get("objectWriteTraceId")): str(r["id"]) for r in said.get("results") or [] if r.get("id")}
        refused = {t: str(e.get("category") or "refused") for e in said.get("errors") or [] for t in _traces(e)}
        if not records and not refused:
            raise RetryLater("empty_results", may_be_applied=True)
        if records:
            self._change(place, sorted(records.values()), [])
        return [_outcome(row.event_id[:32], records, refused) for row in batch.rows]

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the upsert of a batch."""
        return {
            "inputs": [
                {
                    "id": row.details["email"],
                    "idProperty": "email",
                    "objectWriteTraceId": row.event_id[:32],
                    "properties": {
                        "email": row.details["email"],
                        self.config.key_property: row.keys["email_sha256"],
                    },
                }
                for row in batch.rows
            ]
        }

    def _change(self, place: str, added: list[str], removed: list[str]) -> None:
        said = json_of(self.http.call("PUT", place, {"recordIdsToAdd": added, "recordIdsToRemove": removed}))
        if not any(name.startswith("record") for name in said):
            raise RetryLater("empty_results", may_be_applied=True)

    def _find(self, digests: Sequence[str]) -> dict[str, str]:
        """Record ids of contacts by digest; 207 tells of those that do not exist."""
        name = self.config.key_property
        # Two people may share an address, which is one contact: asked for twice, it would seem that one is missing.
        digests = sorted(set(digests))
        answer = self.http.call(
            "POST",
            f"{self.config.contacts_path}/batch/read",
            {"idProperty": name, "properties": [name], "inputs": [{"id": d} for d in digests]},
        )
        found = {str(r["properties"][name]): str(r["id"]) for r in json_of(answer).get("results") or []}
        if len(found) < len(digests) and answer.status_code != 207:
            raise RetryLater("empty_results", may_be_applied=False)
        return found

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the contact list of that name."""
        path = f"{self.config.lists_path}/object-type-id/0-1/name/{quote(name, safe='')}"
        answer = self.http.call("GET", path, expected=(404,))
        found = (json_of(answer).get("list") or {}).get("listId") if answer.is_success else None
        return str(found) if found else None

    def make_audience(self, name: str) -> str:
        """Make a manual list of contacts."""
        body = {"name": name, "objectTypeId": "0-1", "processingType": "MANUAL"}
        return str(json_of(self.http.call("POST", self.config.lists_path, body))["list"]["listId"])

    def listed(self, place: Place) -> Iterator[str]:
        """Yields the record id of every contact on the list."""
        after = ""
        while True:
            params = {"limit": "250", **({"after": after} if after else {})}
            path = f"{self.config.lists_path}/{self.audience_id(place)}/memberships"
            said = told(self.http.call("GET", path, params=params), "results")
            yield from (str(r["recordId"]) for r in said.get("results") or [])
            after = str(((said.get("paging") or {}).get("next") or {}).get("after") or "")
            if not after:
                return


def _outcome(trace: str, records: Mapping[str, str], refused: Mapping[str, str]) -> Outcome:
    if trace in records:
        return Outcome("ok", remote_id=records[trace])
    if trace in refused:
        return Outcome("reject", refused[trace])
    return Outcome("unknown", "not_in_answer")


def _traces(error: Mapping[str, Any]) -> list[str]:
    found = (error.get("context") or {}).get("objectWriteTraceId") or []
    return [str(t) for t in found] if isinstance(found, list) else [str(found)]


def _throttle(answer: httpx.Response) -> float | None:
    """429 with a policy: ten seconds, a second, or the day, which is left to another run."""
    if answer.status_code != 429:
        return None
    policy = str(json_of(answer).get("policyName") or "")
    if policy == "DAILY":
        return 86_400.0
    if policy == "SECONDLY":
        return 1.0
    return float(answer.headers.get("X-HubSpot-RateLimit-Interval-Milliseconds") or 10_000) / 1000
