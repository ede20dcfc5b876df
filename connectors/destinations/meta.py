"""Meta Custom Audiences: rows of hashed identifiers added to and deleted from an audience.

Source: Marketing API, custom audiences guide (2026-04-28), reference of /users, Graph API rate limiting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import httpx
from pydantic import Field
from pyspark.sql import Column
from pyspark.sql import functions as F

from connectors.base import BatchDestination
from connectors.engine import Limits, Size
from connectors.exchange import OK, Batch, BatchRefused, Halted, Outcome, Place, RetryLater
from connectors.http import json_of
from connectors.identifiers import PhoneRule, hash_identifier, meta_city, meta_name, meta_zip, normalise_country
from connectors.pace import Clock, Rate
from connectors.rest import JOINT, RestConnector, reason_in
from connectors.secret import Secret

SCHEMA: Final = ("EXTERN_ID", "EMAIL", "PHONE", "FN", "LN", "CT", "ZIP", "COUNTRY")
_ABOUT: Final = SCHEMA[3:]
_THROTTLED: Final = frozenset({4, 17, 32, 613, 80003})
_AGAIN: Final = frozenset({1, 2, 2650})
_TOKEN: Final = frozenset({102, 190})
_GONE: Final = frozenset({2655, 1487366, 471})
_FORBIDDEN: Final = frozenset({10, 200, 294})


class MetaDestination(BatchDestination):
    """Meta Custom Audiences.

    Attributes:
        kind: Tells it from other destinations.
        access_token: System user's token; sent as a header, never in the address.
        ad_account_id: Account in which audiences are made; only for `new_audiences`.
        matches_names: Also send hashed names, city and postal code; they raise the match rate of rows that carry an
            address or a number.
        limited_data_use: Country and state codes of Meta's limited data use, or `off`. With it every row carries the
            `LDU` option (US privacy laws); (0, 0) lets Meta locate the person.
    """

    makes_audiences: ClassVar[bool] = True
    kind: Literal["meta"]
    base_url: str = "https://graph.facebook.com/v25.0"
    phone_rule: PhoneRule = "digits"
    access_token: Secret
    ad_account_id: str | None = Field(None, pattern="^[0-9]+$")
    matches_names: bool = False
    limited_data_use: tuple[int, int] | Literal["off"] = "off"

    def keys(self, contact: Mapping[str, Column]) -> dict[str, Column]:
        """EXTERN_ID as it is, EMAIL and PHONE hashed, and the rest as one key, for it says nothing by itself."""
        made = super().keys(contact)
        named = {"email_sha256": "EMAIL", "phone_sha256": "PHONE"}
        found = {named[name]: column for name, column in made.items()}
        if self.matches_names:
            parts = {
                "FN": meta_name(contact["first_name"]),
                "LN": meta_name(contact["last_name"]),
                "CT": meta_city(contact["city"]),
                "ZIP": meta_zip(contact["postal_code"], contact["country"]),
                "COUNTRY": F.lower(normalise_country(contact["country"])),
            }
            found["ABOUT"] = F.concat_ws(JOINT, *[F.coalesce(hash_identifier(parts[n]), F.lit("")) for n in _ABOUT])
        return {"EXTERN_ID": contact["member_id"], **found}

    def connect(self, clock: Clock) -> MetaConnector:
        """Returns the connector; nothing is sent yet."""
        return MetaConnector(self, clock)


class MetaConnector(RestConnector):
    """Posts to and deletes from `/{audience}/users`."""

    config: MetaDestination
    limits = Limits(
        rows=10_000,
        rates=(Rate(5_000, 3600.0),),
        removal_keys=("EXTERN_ID", "EMAIL", "PHONE"),
        min_members=100,
        reads_names=True,
        is_advertising=True,
    )

    def __init__(self, config: MetaDestination, clock: Clock) -> None:
        super().__init__(
            config,
            clock,
            headers=lambda: {"Authorization": f"Bearer {config.access_token.reveal()}"},
            throttle=_throttle,
        )

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Send one session of one request; a refused row is found again by its values, which Meta sends back."""
        method = "POST" if batch.op == "add" else "DELETE"
        body = self.body(batch)
        said = self._asked(method, f"/{self.audience_id(batch.place)}/users", body)
        if "num_received" not in said and "audience_id" not in said:
            raise RetryLater("no_answer_of_theirs", may_be_applied=True)
        invalid = int(said.get("num_invalid_entries") or 0)
        if not invalid:
            return [OK] * len(batch.rows)
        samples = {_values(k): str(v) for k, v in (said.get("invalid_entry_samples") or {}).items()}
        data = [tuple(str(v) for v in row[: len(SCHEMA)]) for row in body["payload"]["data"]]
        reasons = [samples.get(row) for row in data]
        if sum(r is not None for r in reasons) < invalid and len(batch.rows) > 1:
            # Meta names samples only; halves are sent until each refused row is named. Adding twice changes nothing.
            raise BatchRefused("invalid_entries_not_named", may_be_applied=True)
        if sum(r is not None for r in reasons) < invalid:
            return [Outcome("reject", "invalid_entry")]
        return [OK if r is None else Outcome("reject", reason_in(r)) for r in reasons]

    def find_audience(self, name: str) -> str | None:
        """Returns the id of the account's audience of that name."""
        path, params = self._of_account(), {"fields": "id,name", "limit": "500"}
        while True:
            said = self._asked("GET", path, params=params)
            for audience in said.get("data") or []:
                if audience.get("name") == name:
                    return str(audience["id"])
            after = str(((said.get("paging") or {}).get("cursors") or {}).get("after") or "")
            if not after or not (said.get("paging") or {}).get("next"):
                return None
            params = {**params, "after": after}

    def make_audience(self, name: str) -> str:
        """Make a custom audience of the retailer's own customers."""
        body = {"name": name, "subtype": "CUSTOM", "customer_file_source": "USER_PROVIDED_ONLY"}
        return str(self._asked("POST", self._of_account(), body)["id"])

    def size(self, place: Place) -> Size | None:
        """Returns Meta's estimate; it tells none, as -1, of an audience that is too small or still filled."""
        fields = "approximate_count_lower_bound,approximate_count_upper_bound"
        said = self._asked("GET", f"/{self.audience_id(place)}", params={"fields": fields})
        low, high = (int(said.get(f) or -1) for f in fields.split(","))
        return Size(low, high) if low >= 0 else None

    def _of_account(self) -> str:
        if self.config.ad_account_id is None:
            raise Halted("no_ad_account_id", whole=False)
        return f"/act_{self.config.ad_account_id}/customaudiences"

    def _asked(self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None) -> Any:
        answer = self.http.call(method, path, body, params=params, expected=(400, 401, 403, 404))
        said = json_of(answer)
        if "error" in said or not answer.is_success:
            raise _failure(said.get("error") or {}, answer.status_code)
        return said

    def body(self, batch: Batch) -> dict[str, Any]:
        """Returns the body of a batch."""
        option = self.config.limited_data_use
        about = [""] * len(_ABOUT)
        data: list[list[Any]] = []
        for row in batch.rows:
            known = row.keys.get("ABOUT", "").split(JOINT) if row.keys.get("ABOUT") else about
            values: list[Any] = [*(row.keys.get(name, "") for name in SCHEMA[:3]), *known]
            if option != "off":
                values += [["LDU"], *option]
            data.append(values)
        schema = list(SCHEMA)
        if option != "off":
            schema += ["DATA_PROCESSING_OPTIONS", "DATA_PROCESSING_OPTIONS_COUNTRY", "DATA_PROCESSING_OPTIONS_STATE"]
        return {
            "session": {
                "session_id": int(batch.key[:15], 16),
                "batch_seq": 1,
                "last_batch_flag": True,
                "estimated_num_total": len(data),
            },
            "payload": {"schema": schema, "data": data},
        }


def _failure(error: Mapping[str, Any], status: int) -> Exception:
    code = int(error.get("code") or 0)
    sub = int(error.get("error_subcode") or 0)
    said = f"{code or status}" + (f".{sub}" if sub else "")
    if code in _AGAIN or sub in _AGAIN or error.get("is_transient"):
        return RetryLater(said, may_be_applied=True)
    if code in _TOKEN or code in _FORBIDDEN or status in (401, 403):
        return Halted(said)
    if code in _GONE or sub in _GONE or (code, sub) == (100, 1713230) or status == 404:
        return Halted(said, whole=False)
    return BatchRefused(said)


def _throttle(answer: httpx.Response) -> float | None:
    """Meta sends no Retry-After: minutes until access returns stand in a header, per use case."""
    error = json_of(answer).get("error") or {}
    if int(error.get("code") or 0) not in _THROTTLED and answer.status_code != 429:
        return None
    try:
        usage = json.loads(answer.headers.get("X-Business-Use-Case-Usage", "{}"))
        minutes = max(
            (float(u.get("estimated_time_to_regain_access") or 0) for uses in usage.values() for u in uses), default=0.0
        )
    except (ValueError, AttributeError, TypeError):
        minutes = 0.0
    return minutes * 60


def _values(sample: str) -> tuple[str, ...]:
    try:
        found = json.loads(sample)
    except ValueError:
        return ()
    return tuple(str(v) for v in found[: len(SCHEMA)]) if isinstance(found, list) else ()
