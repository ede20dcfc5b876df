"""TikTok audiences by segment mapping. The envelope is always HTTP 200: `code` is the verdict.

Source: Business API v1.3 `segment/mapping`. No official page gives a batch size; 1,000 rows is what partners keep to.
TikTok's pages conflict on phone numbers and on `+suffix`: we send `+` and digits, and keep the suffix, as its newer
page does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import httpx
from pydantic import Field
from pyspark.sql import Column

from connectors.base import BatchDestination
from connectors.engine import Limits, Size
from connectors.exchange import OK, Batch, BatchRefused, Halted, Outcome, Place, RetryLater
from connectors.http import json_of
from connectors.pace import Clock, Rate
from connectors.rest import RestConnector
from connectors.secret import Secret

_KEYS: Final = {"email_sha256": "EMAIL_SHA256", "phone_sha256": "PHONE_SHA256"}
_THROTTLED: Final = {40016: 1.0, 40100: 1.0, 40133: 300.0}
"""Seconds until access returns: the next second, or five minutes."""


class TikTokDestination(BatchDestination):
    """TikTok custom audiences.

    Attributes:
        kind: Tells it from other destinations.
        access_token: Long-term token of the app.
        advertiser_id: Advertiser the audiences belong to.
    """

    makes_audiences: ClassVar[bool] = True
    kind: Literal["tiktok"]
    base_url: str = "https://business-api.tiktok.com"
    access_token: Secret
    advertiser_id: str = Field(pattern="^[0-9]+$")

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """Digests under TikTok's names."""
        return {_KEYS[name]: column for name, column in super().keys(contact).items()}

    def connect(self, clock: Clock) -> TikTokConnector:
        """Returns the connector; nothing is sent yet."""
        return TikTokConnector(self, clock)


class TikTokConnector(RestConnector):
    """Posts to `segment/mapping`."""

    config: TikTokDestination
    limits = Limits(
        rows=1_000,
        rates=(Rate(10, 1.0), Rate(600, 60.0)),
        removal_keys=("EMAIL_SHA256", "PHONE_SHA256"),
        bytes=1_000_000,
        min_members=1_000,
        is_advertising=True,
    )

    def __init__(self, config: TikTokDestination, clock: Clock) -> None:
        super().__init__(
            config, clock, headers=lambda: {"Access-Token": config.access_token.reveal()}, throttle=_throttle
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Send one request. TikTok does not say which rows of a partial success failed, so it is halved."""
        self._asked("POST", "segment/mapping", self.body(batch))
        return [OK] * len(batch.rows)

    def _asked(
        self, method: str, what: str, body: Any = None, params: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """The data of an answer whose code is 0; the others are told as what the engine does about them."""
        said = json_of(self.http.call(method, f"/open_api/v1.3/{what}/", body, params=params))
        code = int(said.get("code", -1))
        if code == 0:
            return said.get("data") or {}
        if code == 20001:
            raise BatchRefused("20001_partial", may_be_applied=True)
        if code in (40104, 40105):
            raise Halted(str(code))
        if code in (40001, 40300):
            raise Halted(str(code))
        if code in (40004, 40006):
            raise Halted(str(code), whole=False)
        if 50000 <= code < 60000 or code == -1:
            raise RetryLater(str(code), may_be_applied=True)
        raise BatchRefused(str(code))

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the advertiser's audience of that name."""
        return next((str(a["audience_id"]) for a in self._audiences() if a.get("name") == name), None)

    def make_audience(self, name: str) -> str:
        """Make an audience to map people to."""
        body = {"action": "create", "advertiser_id": self.config.advertiser_id, "custom_audience_name": name}
        return str(self._asked("POST", "segment/audience", body)["audience_id"])

    def size(self, place: Place) -> Size | None:
        """Returns the people TikTok covers."""
        asked = {"advertiser_id": self.config.advertiser_id, "custom_audience_ids": f'["{self.audience_id(place)}"]'}
        found = self._asked("GET", "dmp/custom_audience/get", params=asked).get("list") or []
        covered = ((found[0].get("audience_details") or {}) if found else {}).get("cover_num")
        return Size(int(covered), int(covered)) if covered is not None else None

    def _audiences(self) -> Iterator[Mapping[str, Any]]:
        page, pages = 1, 1
        while page <= pages:
            asked = {"advertiser_id": self.config.advertiser_id, "page": str(page), "page_size": "100"}
            said = self._asked("GET", "dmp/custom_audience/list", params=asked)
            yield from said.get("list") or []
            pages, page = int((said.get("page_info") or {}).get("total_page") or 1), page + 1

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the body of a batch: every row follows the positions of `id_schema`, `{}` where it has nothing."""
        schema = [k for k in _KEYS.values() if any(k in row.keys for row in batch.rows)]
        audience = [self.audience_id(batch.place)]
        return {
            "advertiser_ids": [self.config.advertiser_id],
            "action": "add" if batch.op == "add" else "delete",
            "id_schema": schema,
            "batch_data": [
                [{"id": row.keys[k], "audience_ids": audience} if k in row.keys else {} for k in schema]
                for row in batch.rows
            ],
        }


def _throttle(answer: httpx.Response) -> float | None:
    return _THROTTLED.get(int(json_of(answer).get("code") or 0))
