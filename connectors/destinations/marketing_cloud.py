"""Salesforce Marketing Cloud: rows of a data extension upserted by a job; whoever leaves stays as a row that says so.

Rows cannot be deleted this way, so a removal sets the flag to false and empties the address. Sends and journeys filter
on the flag. The end of a job says whether there were errors; which row had one it does not say in a way that can be
relied on, so a request waits for its job and is halved until the row stands alone.

Source: Marketing Cloud REST API, data/v1/async/dataextensions/key:{key}/rows, data/v1/async/{id}/status and results,
rate limiting errors 50100 and 50200. Salesforce publishes no number of requests; partners keep to 5 MB a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

import httpx
from pydantic import Field, field_validator
from pyspark.sql import Column

from connectors.base import BatchDestination, ConsentChannel
from connectors.engine import Limits
from connectors.exchange import Batch, BatchRefused, Halted, Outcome, RetryLater, Settled
from connectors.http import check_url, json_of
from connectors.identifiers import hash_identifier, normalise_email
from connectors.oauth import AccessToken
from connectors.pace import Clock, retry_after
from connectors.rest import RestConnector
from connectors.secret import Secret

_BLOCKED_SECONDS: Final = 300.0
"""Wait after error 50200, which says that requests are blocked and not for how long."""
_FIELD: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,49}$"


class MarketingCloudDestination(BatchDestination):
    """Marketing Cloud data extensions. Addresses go as they are: it is the retailer's own mailing tool.

    Attributes:
        kind: Tells it from other destinations.
        base_url: `https://SUBDOMAIN.rest.marketingcloudapis.com`; `audiences` names data extensions by external key.
        token_url: `https://SUBDOMAIN.auth.marketingcloudapis.com/v2/token`.
        client_id: Installed package with server-to-server access to data extensions.
        client_secret: Its secret.
        account_id: Business unit (MID), when not the package's own.
        member_field: Text field of 64 characters; the data extension's primary key.
        flag_field: Boolean field: whether the person is in the segment.
        email_field: Nullable address field.
        job_seconds: How long a request waits for its job; a job that takes longer is asked for by the next run.
    """

    takes_content: ClassVar[bool] = True
    kind: Literal["marketing_cloud"]
    base_url: str = Field(min_length=1)
    token_url: str = Field(min_length=1)
    consent: ConsentChannel = "email"
    identifiers: tuple[Literal["email"], ...] = ("email",)
    client_id: str
    client_secret: Secret
    account_id: str | None = Field(None, pattern="^[0-9]+$")
    member_field: str = Field("member_id", pattern=_FIELD)
    flag_field: str = Field("in_segment", pattern=_FIELD)
    email_field: str = Field("email", pattern=_FIELD)
    job_seconds: float = Field(120.0, ge=0)

    @field_validator("token_url")
    @classmethod
    def _asks_safely(cls, url: str) -> str:
        return check_url(url)

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The member's id, and a digest that tells when the address has changed."""
        return {"member_id": contact["member_id"], "email_sha256": hash_identifier(normalise_email(contact["email"]))}

    def details(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """The address."""
        return {"email": normalise_email(contact["email"])}

    def connect(self, clock: Clock) -> MarketingCloudConnector:
        """Returns the connector; nothing is sent yet."""
        return MarketingCloudConnector(self, clock)


class MarketingCloudConnector(RestConnector):
    """Upserts by job, and waits for the job."""

    config: MarketingCloudDestination
    limits = Limits(rows=10_000, removal_keys=("member_id",), bytes=5_000_000)

    def __init__(self, config: MarketingCloudDestination, clock: Clock) -> None:
        grant: dict[str, Any] = {
            "grant_type": "client_credentials",
            "client_id": config.client_id,
            "client_secret": config.client_secret,
        }
        if config.account_id:
            grant["account_id"] = config.account_id
        token = AccessToken(config.token_url, grant, clock, as_json=True)
        super().__init__(
            config,
            clock,
            headers=lambda: {"Authorization": f"Bearer {token()}"},
            throttle=self._wait,
            renew=token.renew,
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Start a job and wait for its end, halving what had errors; a long job is left to the next run."""
        path = f"/data/v1/async/dataextensions/key:{quote(self.audience_id(batch.place), safe='')}/rows"
        answer = self.http.call("PUT", path, self.body(batch))
        receipt = str(json_of(answer).get("requestId") or "")
        if not receipt:
            raise RetryLater("no_request_id", may_be_applied=True)
        until, pause = self.clock.now() + self.config.job_seconds, 1.0
        while (settled := self._ask(receipt)) is None:
            if self.clock.now() + pause > until:
                return [Outcome("accepted", receipt=receipt)] * len(batch.rows)
            self.clock.sleep(pause)
            pause = min(15.0, pause * 2)
        if settled.verdict == "unknown":
            raise BatchRefused(settled.code, may_be_applied=True)
        return [Outcome(settled.verdict, settled.code)] * len(batch.rows)

    def _ask(self, receipt: str) -> Settled | None:
        """The end of a job; None while it runs or cannot be asked for. The job itself has been taken."""
        try:
            return self.settle(receipt)
        except (RetryLater, Halted, BatchRefused):
            return None

    def settle(self, receipt: str) -> Settled | None:
        """Ask how a job ended; with errors among several rows it is unknown which of them are there."""
        said = json_of(self.http.call("GET", f"/data/v1/async/{receipt}/status")).get("status") or {}
        state = str(said.get("requestStatus") or "")
        if state not in ("Complete", "Completed", "Error"):
            return None
        if state != "Error" and not said.get("hasErrors"):
            return Settled("ok")
        found = json_of(self.http.call("GET", f"/data/v1/async/{receipt}/results"))
        codes = {str(i.get("errorCode")) for i in found.get("items") or [] if i.get("status") == "Error"}
        # The message that comes with a code repeats values of the row, so it is not kept.
        code = ",".join(sorted(codes))[:60] or "job_error"
        return Settled("reject" if found.get("count") == 1 else "unknown", code)

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the rows of a batch; the campaign's content fills fields of the same names."""
        c = self.config
        content = c.content.get(batch.place.segment_id, {}) if batch.op == "add" else {}
        is_member = batch.op == "add"
        return {
            "items": [
                {
                    **content,
                    c.member_field: row.keys["member_id"],
                    c.flag_field: is_member,
                    c.email_field: row.details["email"] if is_member else None,
                }
                for row in batch.rows
            ]
        }

    def _wait(self, answer: httpx.Response) -> float | None:
        """429 tells seconds in header or body (50100), or that requests are blocked, without an end (50200)."""
        if answer.status_code != 429:
            return None
        said = json_of(answer)
        told = retry_after(answer.headers.get("Retry-After") or str(said.get("retryAfter") or ""), self.clock.now())
        return told or (_BLOCKED_SECONDS if said.get("errorcode") == 50200 else 0.0)
