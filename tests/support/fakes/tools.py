"""Klaviyo, HubSpot, Mailchimp, Braze, Marketing Cloud and a webhook's receiver: tools of the retailer's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import unquote

from tests.support.fakes.server import Answer, Fake, Request

TOKEN = "token-of-the-test"
SECRET = "whsec_" + base64.b64encode(b"a secret of the test").decode()


class FakeKlaviyo(Fake):
    """Import jobs and lists; `state` holds external ids per list. A profile whose address is unusable fails its job."""

    FAULTS = Fake.FAULTS

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()
        self.profiles: dict[str, str] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asks_until_done = 1

    def handle(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Klaviyo-API-Key {TOKEN}":
            return Answer(401, {"errors": [{"code": "not_authenticated"}]})
        self.check(bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", request.headers.get("revision", ""))), "revision")
        self.check("subscription" not in request.path and "suppression" not in request.path, "no subscription changes")
        if (request.method, request.path) == ("POST", "/api/profile-bulk-import-jobs"):
            return self._import(request)
        if found := re.fullmatch(r"/api/profile-bulk-import-jobs/([^/]+)(/import-errors)?", request.path):
            return self._job(found[1], int(request.query.get("page[cursor]", 0)) if found[2] else None)
        if (request.method, request.path) == ("GET", "/api/profiles"):
            ids = json.loads(re.fullmatch(r"any\(external_id,(\[.*\])\)", request.query["filter"])[1])  # type: ignore[index]
            self.check(len(ids) <= 100, "at most 100 values in a filter")
            data = [
                {"type": "profile", "id": self.profiles[i], "attributes": {"external_id": i}}
                for i in ids
                if i in self.profiles
            ]
            return Answer(200, {"data": data, "links": {"next": None}})
        if request.path == "/api/lists":
            if request.method == "POST":
                return Answer(
                    201, {"data": {"type": "list", "id": self.make(request.body["data"]["attributes"]["name"])}}
                )
            name = json.loads(re.fullmatch(r"equals\(name,(.*)\)", request.query["filter"])[1])  # type: ignore[index]
            return Answer(200, {"data": [{"type": "list", "id": i} for i, n in self.named.items() if n == name]})
        if (found := re.fullmatch(r"/api/lists/([^/]+)/relationships/profiles", request.path)) and (
            request.method == "DELETE"
        ):
            data = request.body["data"]
            self.check(0 < len(data) <= 1_000, "1 to 1,000 profiles")
            by_id = {v: k for k, v in self.profiles.items()}
            self.state.setdefault(found[1], set()).difference_update(by_id[d["id"]] for d in data)
            return Answer(204)
        if found := re.fullmatch(r"/api/lists/([^/]+)/profiles", request.path):
            data = [
                {"type": "profile", "attributes": {"external_id": i}} for i in sorted(self.state.get(found[1], set()))
            ]
            return Answer(200, {"data": data, "links": {"next": None}})
        self.check(False, f"{request.method} {request.path}")
        return Answer(404)

    def _import(self, request: Request) -> Answer:
        data = request.body["data"]
        profiles = data["attributes"]["profiles"]["data"]
        if len(profiles) > 10_000 or len(request.raw) > 5_000_000:
            return Answer(400, {"errors": [{"code": "invalid"}]})
        (target,) = data["relationships"]["lists"]["data"]
        failed = []
        for p in profiles:
            about = p["attributes"]
            if about["email"] in self.unusable:
                failed.append({"attributes": {"code": "invalid_email", "original_payload": about}})
                continue
            self.profiles.setdefault(about["external_id"], f"P{len(self.profiles)}")
            self.state.setdefault(target["id"], set()).add(about["external_id"])
        job = f"job-{len(self.jobs) + 1}"
        self.jobs[job] = {"left": self.asks_until_done, "failed": failed}
        return Answer(202, {"data": {"type": "profile-bulk-import-job", "id": job}})

    def _job(self, job: str, errors_from: int | None) -> Answer:
        if job not in self.jobs:
            return Answer(404)
        known = self.jobs[job]
        if errors_from is not None:
            until = errors_from + 20
            more = f"/api/profile-bulk-import-jobs/{job}/import-errors?page%5Bcursor%5D={until}"
            is_last = until >= len(known["failed"])
            return Answer(
                200, {"data": known["failed"][errors_from:until], "links": {"next": None if is_last else more}}
            )
        known["left"] -= 1
        status = "processing" if known["left"] >= 0 else "complete"
        return Answer(
            200, {"data": {"id": job, "attributes": {"status": status, "failed_count": len(known["failed"])}}}
        )


class FakeHubSpot(Fake):
    """Contacts and manual lists; `state` holds record ids per list."""

    FAULTS = (*Fake.FAULTS, "empty_success", "secondly")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()
        self.records: dict[str, str] = {}
        self.digests: dict[str, str] = {}

    def handle(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, {"category": "EXPIRED_AUTHENTICATION"})
        if (request.method, request.path) == ("POST", "/crm/v3/objects/contacts/batch/upsert"):
            return self._upsert(request.body["inputs"])
        if (request.method, request.path) == ("POST", "/crm/v3/objects/contacts/batch/read"):
            name = request.body["idProperty"]
            asked = [i["id"] for i in request.body["inputs"]]
            self.check(len(asked) <= 100, "at most 100 inputs")
            results = [{"id": self.digests[d], "properties": {name: d}} for d in asked if d in self.digests]
            return Answer(200 if len(results) == len(asked) else 207, {"status": "COMPLETE", "results": results})
        if request.path == "/crm/v3/lists":
            self.check(request.body["processingType"] == "MANUAL" and request.body["objectTypeId"] == "0-1", "new list")
            return Answer(200, {"list": {"listId": self.make(request.body["name"])}})
        if found := re.fullmatch(r"/crm/v3/lists/object-type-id/0-1/name/(.+)", request.path):
            of = [i for i, n in self.named.items() if n == unquote(found[1])]
            return Answer(200, {"list": {"listId": of[0]}}) if of else Answer(404)
        if found := re.fullmatch(r"/crm/v3/lists/(\d+)/memberships/add-and-remove", request.path):
            members = self.state.setdefault(found[1], set())
            known = set(self.records.values())
            added, removed = request.body["recordIdsToAdd"], request.body["recordIdsToRemove"]
            self.check(set(added) | set(removed) <= known, "records exist")
            members.update(added)
            members.difference_update(removed)
            return Answer(200, {"recordIdsAdded": added, "recordIdsRemoved": removed})
        if found := re.fullmatch(r"/crm/v3/lists/(\d+)/memberships", request.path):
            return Answer(200, {"results": [{"recordId": r} for r in sorted(self.state.get(found[1], set()))]})
        self.check(False, f"{request.method} {request.path}")
        return Answer(404)

    def _upsert(self, inputs: list[dict[str, Any]]) -> Answer:
        if len(inputs) > 100 or len({i["id"] for i in inputs}) < len(inputs):
            return Answer(400, {"category": "VALIDATION_ERROR"})
        results, errors = [], []
        for i in inputs:
            self.check(i["idProperty"] == "email", "idProperty")
            if i["id"] in self.unusable:
                errors.append(
                    {"category": "VALIDATION_ERROR", "context": {"objectWriteTraceId": [i["objectWriteTraceId"]]}}
                )
                continue
            record = self.records.setdefault(i["id"], str(1000 + len(self.records)))
            self.digests[i["properties"]["activation_key"]] = record
            results.append({"id": record, "objectWriteTraceId": i["objectWriteTraceId"]})
        return Answer(207 if errors else 200, {"status": "COMPLETE", "results": results, "errors": errors})

    def play(self, fault: str, request: Request) -> Answer | None:
        match fault:
            case "throttled":
                headers = {"X-HubSpot-RateLimit-Interval-Milliseconds": "10000"}
                return Answer(429, {"policyName": "TEN_SECONDLY_ROLLING"}, headers)
            case "secondly":
                return Answer(429, {"policyName": "SECONDLY"})
            case "empty_success":
                return Answer(200, {"status": "COMPLETE", "results": []})
        return super().play(fault, request)


class FakeMailchimp(Fake):
    """One audience and its static segments; `state` holds MD5s per segment."""

    FAULTS = (*Fake.FAULTS, "bare_403")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()

    def handle(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, {"title": "API Key Invalid"})
        if request.path == "/3.0/lists/abc123/segments":
            if request.method == "POST":
                self.check(request.body["static_segment"] == [], "new segment")
                return Answer(200, {"id": int(self.make(request.body["name"]))})
            return Answer(200, {"segments": [{"id": int(i), "name": n} for i, n in self.named.items()]})
        found = re.fullmatch(r"/3\.0/lists/abc123/segments/(\d+)(/members(/([0-9a-f]{32}))?)?", request.path)
        if not self.check(bool(found), f"{request.method} {request.path}"):
            return Answer(404, {"title": "not found"})
        members = self.state.setdefault(found[1], set())  # type: ignore[index]
        if request.method == "DELETE":
            md5 = found[4]  # type: ignore[index]
            if md5 not in members:
                return Answer(404, {"title": "not found"})
            members.discard(md5)
            return Answer(204)
        if request.method == "GET":
            page = sorted(members)[int(request.query["offset"]) :][: int(request.query["count"])]
            return Answer(200, {"members": [{"id": m} for m in page], "total_items": len(members)})
        self.check(set(request.body) == {"members_to_add"}, "no subscription changes")
        if len(request.body["members_to_add"]) > 500:
            return Answer(400, {"title": "too many"})
        bad = [a for a in request.body["members_to_add"] if a in self.unusable]
        good = [a for a in request.body["members_to_add"] if a not in self.unusable]
        members.update(hashlib.md5(a.encode()).hexdigest() for a in good)
        errors = [{"email_addresses": bad, "error": "Not subscribed"}] if bad else []
        return Answer(200, {"total_added": len(good), "errors": errors, "error_count": len(bad)})

    def play(self, fault: str, request: Request) -> Answer | None:
        match fault:
            case "throttled":
                return Answer(429, {"title": "Too Many Requests"})
            case "bare_403":
                return Answer(403, [])
        return super().play(fault, request)


class FakeBraze(Fake):
    """`/users/track` with an array attribute; `state` holds external ids per entry."""

    FAULTS = Fake.FAULTS

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()

    def handle(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, {"message": "Invalid API key"})
        self.check((request.method, request.path) == ("POST", "/users/track"), request.path)
        attributes = request.body["attributes"]
        if len(attributes) > 75:
            return Answer(400, {"message": "too many"})
        errors = []
        for index, a in enumerate(attributes):
            self.check(a["_update_existing_only"] is True, "no user is made")
            if a["external_id"] in self.unusable:
                errors.append({"type": "invalid external_id", "input_array": "attributes", "index": index})
                continue
            for name in a["segments"].get("add", []):
                self.state.setdefault(name, set()).add(a["external_id"])
            for name in a["segments"].get("remove", []):
                self.state.setdefault(name, set()).discard(a["external_id"])
        return Answer(201, {"message": "success", "attributes_processed": len(attributes), "errors": errors})

    def play(self, fault: str, request: Request) -> Answer | None:
        if fault == "throttled":
            return Answer(429, {"message": "rate limit"}, {"X-RateLimit-Reset": str(int(self.now()) + 2)})
        return super().play(fault, request)


class FakeMarketingCloud(Fake):
    """Data extensions upserted by jobs; `state` holds, per external key, the members whose flag is set.

    A row with an address in `unusable` fails its job, the other rows of which are there all the same.
    """

    FAULTS = (*Fake.FAULTS, "blocked", "expired", "slow_job")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asks_until_done = 1
        self.token = 1

    def is_free(self, request: Request) -> bool:
        return request.path == "/v2/token"

    def handle(self, request: Request) -> Answer:
        if request.path == "/v2/token":
            if request.body["client_secret"] != TOKEN:
                return Answer(401, {"error": "invalid_client"})
            self.check(request.body["grant_type"] == "client_credentials", "grant")
            return Answer(200, {"access_token": f"t{self.token}", "expires_in": 1079})
        if request.headers.get("authorization") != f"Bearer t{self.token}":
            return Answer(401, {"message": "Not Authorized", "errorcode": 0})
        if found := re.fullmatch(r"/data/v1/async/dataextensions/key:([^/]+)/rows", request.path):
            return self._upsert(found[1], request)
        if found := re.fullmatch(r"/data/v1/async/([^/]+)/(status|results)", request.path):
            return self._job(found[1], found[2])
        self.check(False, f"{request.method} {request.path}")
        return Answer(404)

    def _upsert(self, key: str, request: Request) -> Answer:
        self.check(request.method == "PUT" and set(request.body) == {"items"}, "an upsert of items")
        items = request.body["items"]
        if not items or len(request.raw) > 5_000_000:
            return Answer(400, {"resultMessages": [{"resultCode": "InvalidInput"}]})
        rows, members = self.rows.setdefault(key, {}), self.state.setdefault(key, set())
        failed = 0
        for item in items:
            self.check(set(item) == {"member_id", "in_segment", "email"}, "fields of the data extension")
            self.check(item["in_segment"] or item["email"] is None, "no address of whoever left")
            if item["email"] in self.unusable:
                failed += 1
                continue
            member = item["member_id"]
            rows[member] = {**rows.get(member, {}), **item}
            members.add(member) if item["in_segment"] else members.discard(member)
        job = f"0000-{len(self.jobs) + 1}"
        self.jobs[job] = {"left": self.asks_until_done, "rows": len(items), "failed": failed}
        self.asks_until_done = 1
        return Answer(202, {"requestId": job, "resultMessages": []})

    def _job(self, job: str, asked: str) -> Answer:
        known = self.jobs[job]
        if asked == "results":
            items = [{"errorCode": "UnexpectedError", "message": "the row", "status": "Error"}] * known["failed"]
            items += [{"errorCode": "", "message": "", "status": "OK"}] * (known["rows"] - known["failed"])
            return Answer(200, {"page": 1, "pageSize": 50, "count": known["rows"], "items": items[:50]})
        known["left"] -= 1
        state = "Pending" if known["left"] >= 0 else "Complete"
        return Answer(200, {"status": {"requestStatus": state, "hasErrors": bool(known["failed"])}, "requestId": job})

    def play(self, fault: str, request: Request) -> Answer | None:
        match fault:
            case "throttled":
                return Answer(429, {"errorcode": 50100, "retryAfter": 5}, {"Retry-After": "5"})
            case "blocked":
                return Answer(429, {"errorcode": 50200, "message": "Your requests are temporarily blocked."})
            case "expired":
                self.token += 1
                return None
            case "slow_job":
                self.asks_until_done = 9
                return None
        return super().play(fault, request)


class FakeReceiver(Fake):
    """A webhook's receiver that checks signatures and applies each event once; `state` holds members per segment."""

    FAULTS = Fake.FAULTS

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.unusable: set[str] = set()
        self.events: set[str] = set()
        self.repeats = 0

    def handle(self, request: Request) -> Answer:
        said = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.raw
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        right = "v1," + base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
        self.check(request.headers["webhook-signature"] == right, "signature")
        self.check(abs(int(request.headers["webhook-timestamp"]) - self.now()) < 300, "timestamp")
        self.check(len(request.body["members"]) <= 4, "rows per message")
        members = self.state.setdefault(request.body["segment_id"], set())
        rejected = []
        for m in request.body["members"]:
            if m["email_sha256"] in self.unusable:
                rejected.append({"event_id": m["event_id"], "code": "unknown_member"})
                continue
            if m["event_id"] in self.events:
                self.repeats += 1
                continue
            self.events.add(m["event_id"])
            item = m["member_id"]
            members.add(item) if request.body["type"] == "segment.entered" else members.discard(item)
        return Answer(200, {"rejected": rejected})
