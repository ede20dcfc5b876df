"""Klaviyo lists: profiles imported into a list by a job, and taken off it. Nobody is ever subscribed or unsubscribed.

Subscribing clears a person's suppressions and unsubscribing somebody who is not on the list does it everywhere, so
neither is a way in or out of a segment.

Source: Klaviyo API, revision 2025-10-15 (profile-bulk-import-jobs, lists/relationships/profiles).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from pyspark.sql import Column

from connectors.base import BatchDestination, ConsentChannel
from connectors.engine import Limits
from connectors.exchange import OK, Batch, BatchRefused, Outcome, Place, RetryLater, Settled
from connectors.http import gone, json_of, told
from connectors.identifiers import hash_identifier, normalise_email
from connectors.pace import Clock, Rate
from connectors.rest import RestConnector
from connectors.secret import Secret

_LOOKED_UP = 100


class KlaviyoDestination(BatchDestination):
    """Klaviyo lists. Addresses go as they are: it is the retailer's own mailing tool.

    Attributes:
        kind: Tells it from other destinations.
        api_key: Private key with scopes for profiles and lists.
        revision: Version of the API.
    """

    takes_content: ClassVar[bool] = True
    makes_audiences: ClassVar[bool] = True
    kind: Literal["klaviyo"]
    base_url: str = "https://a.klaviyo.com"
    consent: ConsentChannel = "email"
    identifiers: tuple[Literal["email"], ...] = ("email",)
    api_key: Secret
    revision: str = Field("2025-10-15", pattern=r"^\d{4}-\d{2}-\d{2}$")
    settle_seconds: float = Field(120.0, ge=0)

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The member's id as `external_id`, and a digest that tells when the address has changed."""
        digest = hash_identifier(normalise_email(contact["email"]))
        return {"external_id": contact["member_id"], "email_sha256": digest}

    def details(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The address."""
        return {"email": normalise_email(contact["email"])}

    def connect(self, clock: Clock) -> KlaviyoConnector:
        """Returns the connector; nothing is sent yet."""
        return KlaviyoConnector(self, clock)


class KlaviyoConnector(RestConnector):
    """Imports by job, removes by profile id."""

    config: KlaviyoDestination
    limits = Limits(
        rows=1_000,
        rates=(Rate(10, 1.0), Rate(150, 60.0)),
        removal_keys=("external_id",),
        bytes=5_000_000,
    )
    listed_by = "external_id"

    def __init__(self, config: KlaviyoDestination, clock: Clock) -> None:
        super().__init__(
            config,
            clock,
            headers=lambda: {
                "Authorization": f"Klaviyo-API-Key {config.api_key.reveal()}",
                "revision": config.revision,
                "Accept": "application/vnd.api+json",
                "Content-Type": "application/vnd.api+json",
            },
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Start an import, or look profiles up and take them off the list. Somebody unknown there is off it."""
        if batch.op == "add":
            said = json_of(self.http.call("POST", "/api/profile-bulk-import-jobs", self.body(batch)))
            job = str((said.get("data") or {}).get("id") or "")
            if not job:
                raise RetryLater("no_job_id", may_be_applied=True)
            return [Outcome("accepted", receipt=job)] * len(batch.rows)
        ids = [row.keys["external_id"] for row in batch.rows]
        known = {
            k: v for start in range(0, len(ids), _LOOKED_UP) for k, v in self._find(ids[start : start + _LOOKED_UP])
        }
        if known:
            off = {"data": [{"type": "profile", "id": known[i]} for i in ids if i in known]}
            gone(self.http.call("DELETE", f"/api/lists/{self.audience_id(batch.place)}/relationships/profiles", off))
        return [OK if i in known else Outcome("ok", "unknown_there") for i in ids]

    def settle(self, receipt: str) -> Settled | None:
        """Ask for an import's status, and for the profiles it refused."""
        said = json_of(self.http.call("GET", f"/api/profile-bulk-import-jobs/{receipt}"))
        about = (said.get("data") or {}).get("attributes") or {}
        if about.get("status") not in ("complete", "cancelled"):
            return None
        if about["status"] == "cancelled":
            return Settled("retry", "cancelled")
        rejected = dict(self._refused(receipt)) if int(about.get("failed_count") or 0) else {}
        if not rejected and about.get("failed_count"):
            raise BatchRefused("errors_not_told")
        return Settled("ok", rejected=rejected)

    def _refused(self, receipt: str) -> Iterator[tuple[str, str]]:
        """Yields member and reason of every profile an import refused; Klaviyo tells them in pages of 20."""
        path: str | None = f"/api/profile-bulk-import-jobs/{receipt}/import-errors"
        while path:
            said = told(self.http.call("GET", path), "data")
            for error in said["data"]:
                about = error.get("attributes") or {}
                original = about.get("original_payload") or {}
                member = original.get("external_id") or (original.get("attributes") or {}).get("external_id")
                yield str(member), str(about.get("code") or "invalid")
            path = (said.get("links") or {}).get("next")

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the import job of a batch; the campaign's content goes along as properties of the profile."""
        content = self.config.content.get(batch.place.segment_id)
        return {
            "data": {
                "type": "profile-bulk-import-job",
                "attributes": {
                    "profiles": {
                        "data": [
                            {
                                "type": "profile",
                                "attributes": {
                                    "external_id": row.keys["external_id"],
                                    **row.details,
                                    **({"properties": content} if content else {}),
                                },
                            }
                            for row in batch.rows
                        ]
                    }
                },
                "relationships": {"lists": {"data": [{"type": "list", "id": self.audience_id(batch.place)}]}},
            }
        }

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the list of that name."""
        found = json_of(self.http.call("GET", "/api/lists", params={"filter": f"equals(name,{json.dumps(name)})"}))
        return next((str(x["id"]) for x in found.get("data") or []), None)

    def make_audience(self, name: str) -> str:
        """Make a list."""
        body = {"data": {"type": "list", "attributes": {"name": name}}}
        return str(json_of(self.http.call("POST", "/api/lists", body))["data"]["id"])

    def listed(self, place: Place) -> Iterator[str]:
        """Yields the external id of every profile on the list."""
        path: str | None = f"/api/lists/{self.audience_id(place)}/profiles"
        params: Mapping[str, str] | None = {"fields[profile]": "external_id", "page[size]": "100"}
        while path:
            said = told(self.http.call("GET", path, params=params), "data")
            yield from (str((p.get("attributes") or {}).get("external_id")) for p in said.get("data") or [])
            path, params = (said.get("links") or {}).get("next"), None

    def _find(self, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        params = {"filter": f"any(external_id,{json.dumps(list(ids), separators=(',', ':'))})", "page[size]": "100"}
        # Whoever is not found is taken to be off the list, so that nothing was found must have been said.
        for profile in told(self.http.call("GET", "/api/profiles", params=params), "data")["data"]:
            yield str((profile.get("attributes") or {}).get("external_id")), str(profile["id"])
