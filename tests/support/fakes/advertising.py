"""Meta, TikTok and Google: sets of digests per audience."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.fakes.server import Answer, Fake, Request

DIGEST = re.compile(r"^[0-9a-f]{64}$")
TOKEN = "token-of-the-test"


class FakeMeta(Fake):
    """`POST|DELETE /{audience}/users`. A value in `unusable` makes its row invalid; `state` holds `SCHEMA:value`."""

    FAULTS = (*Fake.FAULTS, "busy_code", "transient")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()
        self.names_samples = True

    def handle(self, request: Request) -> Answer:
        if request.path == "/act_55/customaudiences" and request.headers.get("authorization") == f"Bearer {TOKEN}":
            if request.method == "POST":
                self.check(
                    request.body["subtype"] == "CUSTOM" and "customer_file_source" in request.body, "new audience"
                )
                return Answer(200, {"id": self.make(request.body["name"])})
            return Answer(200, {"data": [{"id": i, "name": n} for i, n in self.named.items()], "paging": {}})
        if (found := re.fullmatch(r"/(\d+)", request.path)) and request.method == "GET":
            size = 1_000 if self.state.get(found[1]) else -1
            bounds = {"approximate_count_lower_bound": size, "approximate_count_upper_bound": size}
            return Answer(200, {"id": found[1], **bounds})
        found = re.fullmatch(r"(?:/v\d+\.\d)?/(\d+)/users", request.path)
        if not self.check(bool(found) and request.method in ("POST", "DELETE"), f"{request.method} {request.path}"):
            return Answer(404, {"error": {"code": 803}})
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, {"error": {"code": 190, "message": "expired"}})
        self.check(not request.query, "nothing stands in the address, a token least of all")
        payload, session = request.body["payload"], request.body["session"]
        self.check({"session_id", "batch_seq", "last_batch_flag"} <= set(session), "session")
        schema, data = payload["schema"], payload["data"]
        if len(data) > 10_000:
            return Answer(400, {"error": {"code": 100, "error_subcode": 1885126}})
        audience = self.state.setdefault(found[1], set())  # type: ignore[index]
        samples: dict[str, str] = {}
        invalid = 0
        for row in data:
            self.check(len(row) == len(schema), "a row has a value per column")
            values = dict(zip(schema, row, strict=True))
            for name, value in values.items():
                if name in ("EMAIL", "PHONE", "FN", "LN", "CT", "ZIP", "COUNTRY"):
                    self.check(value == "" or bool(DIGEST.match(value)), f"{name} is a digest")
            if self.unusable & {str(v) for v in row}:
                invalid += 1
                if self.names_samples:
                    samples[json.dumps(row)] = "Empty or malformed value"
                continue
            for name in ("EXTERN_ID", "EMAIL", "PHONE"):
                if values.get(name):
                    item = f"{name}:{values[name]}"
                    audience.add(item) if request.method == "POST" else audience.discard(item)
        return Answer(
            200,
            {
                "audience_id": found[1],  # type: ignore[index]
                "session_id": str(session["session_id"]),
                "num_received": len(data),
                "num_invalid_entries": invalid,
                "invalid_entry_samples": samples,
            },
        )

    def play(self, fault: str, request: Request) -> Answer | None:
        match fault:
            case "throttled":
                usage = {"1": [{"type": "custom_audience", "estimated_time_to_regain_access": 2}]}
                headers = {"X-Business-Use-Case-Usage": json.dumps(usage)}
                return Answer(400, {"error": {"code": 80003, "message": "too many calls"}}, headers)
            case "busy_code":
                return Answer(400, {"error": {"code": 2650, "message": "update failed"}})
            case "transient":
                return Answer(500, {"error": {"code": 2, "is_transient": True}})
        return super().play(fault, request)


class FakeTikTok(Fake):
    """`segment/mapping`; the envelope is 200 whatever happens."""

    FAULTS = (*Fake.FAULTS, "throttled_minutes", "service")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()

    def handle(self, request: Request) -> Answer:
        if request.headers.get("access-token") != TOKEN:
            return Answer(200, {"code": 40105, "message": "token"})
        if request.path == "/open_api/v1.3/segment/audience/":
            self.check(request.body["action"] == "create" and request.body["advertiser_id"] == "123", "new audience")
            return Answer(200, {"code": 0, "data": {"audience_id": self.make(request.body["custom_audience_name"])}})
        if request.path == "/open_api/v1.3/dmp/custom_audience/list/":
            found = [{"audience_id": i, "name": n} for i, n in self.named.items()]
            page = int(request.query["page"])  # one a page
            info = {"total_page": max(1, len(found))}
            return Answer(200, {"code": 0, "data": {"list": found[page - 1 : page], "page_info": info}})
        if request.path == "/open_api/v1.3/dmp/custom_audience/get/":
            (asked,) = json.loads(request.query["custom_audience_ids"])
            details = {"audience_id": asked, "cover_num": len(self.state.get(asked, ()))}
            return Answer(200, {"code": 0, "data": {"list": [{"audience_details": details}]}})
        self.check((request.method, request.path) == ("POST", "/open_api/v1.3/segment/mapping/"), request.path)
        said = request.body
        self.check(set(said) == {"advertiser_ids", "action", "id_schema", "batch_data"}, "body")
        self.check(said["action"] in ("add", "delete"), "action")
        if len(said["batch_data"]) > 1_000 or len(request.raw) > 1_000_000:
            return Answer(200, {"code": 40002, "message": "too many"})
        is_partial = False
        for row in said["batch_data"]:
            self.check(len(row) == len(said["id_schema"]), "a row follows id_schema")
            if self.unusable & {cell.get("id") for cell in row}:
                is_partial = True
                continue
            for name, cell in zip(said["id_schema"], row, strict=True):
                if not cell:
                    continue
                self.check(bool(DIGEST.match(cell["id"])), "id is a digest")
                for audience in cell["audience_ids"]:
                    items = self.state.setdefault(audience, set())
                    item = f"{name}:{cell['id']}"
                    items.add(item) if said["action"] == "add" else items.discard(item)
        return Answer(200, {"code": 20001 if is_partial else 0, "message": "OK", "data": {}})

    def play(self, fault: str, request: Request) -> Answer | None:
        match fault:
            case "throttled":
                return Answer(200, {"code": 40100, "message": "qps"})
            case "throttled_minutes":
                return Answer(200, {"code": 40133, "message": "qpm"})
            case "service":
                return Answer(200, {"code": 51021, "message": "service"})
        return super().play(fault, request)


class FakeGoogle(Fake):
    """Ingest, remove and request status, and the token endpoint; a job is carried out when it has been asked for."""

    FAULTS = (*Fake.FAULTS, "expired", "exhausted")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()
        self.jobs: dict[str, int] = {}
        self.asks_until_done = 1
        self.token = 1
        self.fails: set[str] = set()
        self.parse: Any = None

    def is_free(self, request: Request) -> bool:
        return request.path == "/token"

    def handle(self, request: Request) -> Answer:
        if request.path == "/token":
            return Answer(200, {"access_token": f"t{self.token}", "expires_in": 3599})
        if request.headers.get("authorization") != f"Bearer t{self.token}":
            return Answer(401, {"error": {"status": "UNAUTHENTICATED"}})
        if request.path == "/v1/requestStatus:retrieve":
            return self._status(request.query["requestId"])
        if found := re.fullmatch(r"/v1/accountTypes/GOOGLE_ADS/accounts/1234567890/userLists(?:/(\d+))?", request.path):
            return self._lists(request, found[1])
        verb = request.path.removeprefix("/v1/audienceMembers:")
        self.check(request.method == "POST" and verb in ("ingest", "remove"), f"{request.method} {request.path}")
        said = request.body
        if self.parse is not None:
            self.parse(verb, said)
        if verb == "ingest":
            self.check(said["consent"]["adUserData"] == "CONSENT_GRANTED", "consent")
            self.check("termsOfService" in said, "terms")
        if len(said["audienceMembers"]) > 10_000:
            return Answer(400, {"error": {"status": "INVALID_ARGUMENT"}})
        rows = [{_identifier(i) for i in member["userData"]["userIdentifiers"]} for member in said["audienceMembers"]]
        for row in rows:
            self.check(0 < len(row) <= 10, "one to ten identifiers")
            for item in row:
                kind, _, value = item.partition(":")
                self.check(kind == "address" or bool(DIGEST.match(value)), f"{kind} is a digest")
        faults = [i for i, row in enumerate(rows) if {v.partition(":")[2] for v in row} & self.unusable]
        if faults:
            violations = [{"field": f"audience_members[{i}].user_data", "reason": "INVALID_FORMAT"} for i in faults]
            return Answer(400, {"error": {"status": "INVALID_ARGUMENT", "details": [{"fieldViolations": violations}]}})
        if said.get("validateOnly"):
            return Answer(200, {})
        (destination,) = said["destinations"]
        audience = self.state.setdefault(destination["productDestinationId"], set())
        for row in rows:
            audience.update(row) if verb == "ingest" else audience.difference_update(row)
        receipt = f"request-{len(self.jobs) + 1}"
        self.jobs[receipt] = self.asks_until_done
        return Answer(200, {"requestId": receipt})

    def _lists(self, request: Request, asked: str | None) -> Answer:
        if asked:
            reached = str(len(self.state.get(asked, ())))
            return Answer(200, {"id": asked, "sizeInfo": {"searchNetworkMembersCount": reached}})
        if request.method == "GET":
            return Answer(200, {"userLists": [{"id": i, "displayName": n} for i, n in self.named.items()]})
        if self.parse is not None:
            self.parse("userList", request.body)
        self.check("membershipDuration" in request.body, "new list")
        return Answer(200, {"id": self.make(request.body["displayName"])})

    def _status(self, receipt: str) -> Answer:
        if not self.check(receipt in self.jobs, f"unknown receipt {receipt}"):
            return Answer(404, {"error": {"status": "NOT_FOUND"}})
        self.jobs[receipt] -= 1
        state = "PROCESSING" if self.jobs[receipt] >= 0 else "FAILED" if receipt in self.fails else "SUCCESS"
        told: dict[str, Any] = {"requestStatus": state}
        if state == "SUCCESS":
            told["audienceMembersIngestionStatus"] = {
                "userDataIngestionStatus": {"recordCount": 1, "uploadMatchRateRange": "MATCH_RATE_RANGE_71_TO_80"}
            }
        return Answer(200, {"requestStatusPerDestination": [told]})

    def play(self, fault: str, request: Request) -> Answer | None:
        match fault:
            case "expired":
                self.token += 1
                return None
            case "exhausted":
                return Answer(429, {"error": {"status": "RESOURCE_EXHAUSTED"}})
        return super().play(fault, request)


def _identifier(said: dict[str, Any]) -> str:
    ((kind, value),) = said.items()
    if kind == "address":
        return "address:" + "|".join(value[k] for k in ("givenName", "familyName", "regionCode", "postalCode"))
    return f"{kind}:{value}"
