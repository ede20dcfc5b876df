"""Google Customer Match through the Data Manager API: members are ingested and removed, and the outcome is asked for.

Source: Data Manager API v1 (audienceMembers.ingest, remove; requestStatus.retrieve), guides on formatting and limits
(2026).
The Google Ads API takes no new Customer Match users since 2026-04-01, so it is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator
from pyspark.sql import Column
from pyspark.sql import functions as F

from connectors.base import BatchDestination
from connectors.engine import Limits, Size
from connectors.exchange import Batch, BatchRefused, Outcome, Place, RetryLater, Settled
from connectors.http import json_of
from connectors.identifiers import EmailRule, hash_identifier, normalise_country, normalise_name, normalise_postal_code
from connectors.oauth import AccessToken
from connectors.pace import Clock, Rate
from connectors.rest import JOINT, RestConnector
from connectors.secret import Secret

Consent = Literal["CONSENT_GRANTED", "CONSENT_DENIED"]
_ADDRESS: Final = ("givenName", "familyName", "regionCode", "postalCode")
_DONE: Final = {"SUCCESS": "ok", "PARTIAL_SUCCESS": "ok", "FAILED": "retry"}


class GoogleDestination(BatchDestination):
    """Google Customer Match.

    Attributes:
        kind: Tells it from other destinations.
        account_id: Google Ads customer id, digits alone.
        login_account_id: Manager account the access is through, when it is.
        client_id: OAuth client.
        client_secret: OAuth client's secret.
        refresh_token: Grants the `datamanager` scope.
        token_url: OAuth token endpoint.
        matches_names: Also send an address: hashed given and family name with country and postal code.
        ad_personalization: Consent sent with every member. Members are those who granted advertising, so their data
            may be used; whether ads may be personalised with it is the retailer's to say.
        terms_accepted: The retailer has accepted Google's Customer Match terms; required.
    """

    makes_audiences: ClassVar[bool] = True
    kind: Literal["google"]
    base_url: str = "https://datamanager.googleapis.com"
    email_rule: EmailRule = "google"
    account_id: str = Field(pattern="^[0-9]+$")
    login_account_id: str | None = Field(None, pattern="^[0-9]+$")
    client_id: str
    client_secret: Secret
    refresh_token: Secret
    token_url: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    matches_names: bool = False
    ad_personalization: Consent = "CONSENT_GRANTED"
    terms_accepted: bool = False
    renew_days: int | None = Field(None, ge=1, le=540)

    @model_validator(mode="after")
    def _has_terms(self) -> GoogleDestination:
        if not self.terms_accepted:
            raise ValueError("terms_accepted must be true: Google takes members only under its Customer Match terms")
        return self

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """Digests of address and number, and with `matches_names` an address, which is one key."""
        found = dict(super().keys(contact))
        if self.matches_names:
            parts = [
                hash_identifier(normalise_name(contact["first_name"])),
                hash_identifier(normalise_name(contact["last_name"])),
                normalise_country(contact["country"]),
                normalise_postal_code(contact["postal_code"]),
            ]
            # Google matches an address only when all four parts are there; concat is null when one is.
            found["address"] = F.concat(parts[0], *[x for p in parts[1:] for x in (F.lit(JOINT), p)])
        return found

    def connect(self, clock: Clock) -> GoogleConnector:
        """Returns the connector; nothing is sent yet."""
        return GoogleConnector(self, clock)


class GoogleConnector(RestConnector):
    """Ingests and removes audience members; both are jobs whose end is asked for half an hour later."""

    config: GoogleDestination
    limits = Limits(
        rows=10_000,
        rates=(Rate(300, 60.0), Rate(100_000, 86_400.0)),
        removal_keys=("email_sha256", "phone_sha256", "address"),
        min_members=100,
        is_advertising=True,
    )

    def __init__(self, config: GoogleDestination, clock: Clock) -> None:
        grant = {
            "grant_type": "refresh_token",
            "client_id": config.client_id,
            "client_secret": config.client_secret,
            "refresh_token": config.refresh_token,
        }
        token = AccessToken(config.token_url, grant, clock)
        super().__init__(config, clock, headers=lambda: {"Authorization": f"Bearer {token()}"}, renew=token.renew)

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Send one request. A refusal names the rows at fault, and the others are sent again without them."""
        verb = "ingest" if batch.op == "add" else "remove"
        answer = self.http.call("POST", f"/v1/audienceMembers:{verb}", self.body(batch), expected=(400,))
        said = json_of(answer)
        if answer.is_success:
            receipt = str(said.get("requestId") or "")
            if not receipt:
                raise RetryLater("no_request_id", may_be_applied=True)
            return [Outcome("accepted", receipt=receipt)] * len(batch.rows)
        faults = _rows_at_fault(said.get("error") or {})
        if not faults or max(faults) >= len(batch.rows):
            raise BatchRefused(str((said.get("error") or {}).get("status") or 400))
        # Nothing of a refused request was carried out.
        return [
            Outcome("reject", faults[i]) if i in faults else Outcome("retry", "refused_for_others")
            for i in range(len(batch.rows))
        ]

    def settle(self, receipt: str) -> Settled | None:
        """Ask for the status of a request; Google counts what it refused and names no row."""
        said = json_of(self.http.call("GET", "/v1/requestStatus:retrieve", params={"requestId": receipt}))
        statuses = said.get("requestStatusPerDestination") or []
        if not statuses or any(s.get("requestStatus") == "PROCESSING" for s in statuses):
            return None
        worst = next((s for s in statuses if s.get("requestStatus") == "FAILED"), statuses[0])
        state = str(worst.get("requestStatus"))
        counts = (worst.get("errorInfo") or {}).get("errorCounts") or []
        reasons = ",".join(f"{c.get('reason')}:{c.get('recordCount')}" for c in counts)
        rate = str(_find(worst, "uploadMatchRateRange") or "")
        verdict = _DONE.get(state, "retry")
        code = f"{state}{' ' + reasons if reasons else ''}" if state != "SUCCESS" else ""
        return Settled("ok" if verdict == "ok" else "retry", code, match_rate=rate)

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the body of a batch."""
        account = {"accountType": "GOOGLE_ADS", "accountId": self.config.account_id}
        destination: dict[str, Any] = {
            "operatingAccount": account,
            "productDestinationId": self.audience_id(batch.place),
        }
        if self.config.login_account_id:
            destination["loginAccount"] = {"accountType": "GOOGLE_ADS", "accountId": self.config.login_account_id}
        made: dict[str, Any] = {
            "destinations": [destination],
            "audienceMembers": [{"userData": {"userIdentifiers": _identifiers(row.keys)}} for row in batch.rows],
            "encoding": "HEX",
        }
        if batch.op == "add":
            made["consent"] = {
                "adUserData": "CONSENT_GRANTED",
                "adPersonalization": self.config.ad_personalization,
            }
            made["termsOfService"] = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        return made

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the account's user list of that name."""
        params = {"pageSize": "1000"}
        while True:
            said = json_of(self.http.call("GET", self._lists(), params=params))
            for found in said.get("userLists") or []:
                if found.get("displayName") == name:
                    return str(found["id"])
            if not (token := str(said.get("nextPageToken") or "")):
                return None
            params = {**params, "pageToken": token}

    def make_audience(self, name: str) -> str:
        """Make a list that is matched by contact; members stay as long as `renew_days` keeps them, or Google allows."""
        days = 540 if self.config.renew_days is None else min(540, self.config.renew_days + 30)
        made = {
            "displayName": name,
            "membershipDuration": f"{days * 86_400}s",
            "ingestedUserListInfo": {
                "uploadKeyTypes": ["CONTACT_ID"],
                "contactIdInfo": {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"},
            },
        }
        return str(json_of(self.http.call("POST", self._lists(), made))["id"])

    def size(self, place: Place) -> Size | None:
        """Returns the members Google reaches in Search and in Display, the smaller first."""
        said = json_of(self.http.call("GET", f"{self._lists()}/{self.audience_id(place)}")).get("sizeInfo") or {}
        counts = [int(said[k]) for k in ("searchNetworkMembersCount", "displayNetworkMembersCount") if k in said]
        return Size(min(counts), max(counts)) if counts else None

    def _lists(self) -> str:
        return f"/v1/accountTypes/GOOGLE_ADS/accounts/{self.config.account_id}/userLists"

    def validate(self, batch: Batch) -> str | None:
        """Let Google check the batch without carrying it out."""
        verb = "ingest" if batch.op == "add" else "remove"
        answer = self.http.call(
            "POST", f"/v1/audienceMembers:{verb}", {**self.body(batch), "validateOnly": True}, expected=(400,)
        )
        if answer.is_success:
            return "valid"
        faults = _rows_at_fault(json_of(answer).get("error") or {})
        return f"refused: {', '.join(sorted(set(faults.values()))) or answer.status_code}"


def _identifiers(keys: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "email_sha256" in keys:
        found.append({"emailAddress": keys["email_sha256"]})
    if "phone_sha256" in keys:
        found.append({"phoneNumber": keys["phone_sha256"]})
    if "address" in keys:
        found.append({"address": dict(zip(_ADDRESS, keys["address"].split(JOINT), strict=True))})
    return found


def _rows_at_fault(error: Mapping[str, Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for detail in error.get("details") or []:
        for violation in detail.get("fieldViolations") or []:
            _, bracket, rest = str(violation.get("field") or "").partition("audience_members[")
            number = rest.partition("]")[0]
            if bracket and number.isdigit():
                found[int(number)] = str(violation.get("reason") or "INVALID_ARGUMENT")
    return found


def _find(said: Any, name: str) -> Any:
    if isinstance(said, Mapping):
        if name in said:
            return said[name]
        return next((f for v in said.values() if (f := _find(v, name)) is not None), None)
    return None
