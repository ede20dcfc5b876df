"""Requests other projects' tests recorded, beside ours for the same people; what contradicts the contract is told.

Compared are method, path without the API's version, and those parts of the body that say who goes in or out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.base import BatchDestination
from connectors.destinations import kinds
from connectors.exchange import Batch, Op, Place, Row, cut_batches
from tests.support.activation import sha
from tests.support.clock import FakeClock
from tests.support.fakes.advertising import TOKEN
from tests.support.fakes.server import Fake, Request, serve
from tests.support.fakes.tools import FakeHubSpot, FakeKlaviyo

pytestmark = pytest.mark.shared_data

PLACE = Place("shop", "vip")
Case = dict[str, Any]

LEGACY = "Google Ads offline user data jobs: closed to new users since 2026-04-01; we use the Data Manager API"
NO_AUDIENCE = "no membership of a list or an audience: events, companies, deals, custom objects or plain profiles"
SUBSCRIPTION = "changes subscriptions, which clears suppressions or unsubscribes everywhere; we never do"
ONE_BY_ONE = "one profile per request; we import a batch by a job, which the same contract offers"
OTHER_KEYS = "profiles looked up by address or number; ours by external_id, so that no address is needed to remove"
NO_REQUEST = "nothing was sent; we leave such people out before a batch is made, or take no such setting"
DOTS = "strips dots from every address; TikTok's page says lower case and no spaces"
OTHER_ENDPOINT = "contacts created or updated by two calls; we upsert, which is one and may be repeated"


def test_recorded_requests_are_ours_or_contradict_the_contract(shared_data: Path) -> None:
    path = shared_data / "connector-cases" / "payloads.jsonl"
    if not path.exists():
        pytest.skip(f"no recorded cases at {path}")
    ours = {
        "meta_custom_audience": meta,
        "tiktok_audience": tiktok,
        "google_customer_match": lambda case: LEGACY,
        "klaviyo": klaviyo,
        "hubspot": hubspot,
    }
    cases = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    found = Counter((c["destination"], ours[c["destination"]](c)) for c in cases if c["destination"] in ours)

    assert dict(found) == {
        ("meta_custom_audience", None): 10,
        ("meta_custom_audience", NO_REQUEST): 1,
        ("tiktok_audience", None): 10,
        ("tiktok_audience", DOTS): 1,
        ("tiktok_audience", NO_REQUEST): 3,
        ("google_customer_match", LEGACY): 7,
        ("klaviyo", None): 2,
        ("klaviyo", OTHER_KEYS): 6,
        ("klaviyo", ONE_BY_ONE): 6,
        ("klaviyo", SUBSCRIPTION): 4,
        ("klaviyo", NO_REQUEST): 8,
        ("klaviyo", NO_AUDIENCE): 5,
        ("hubspot", None): 4,
        ("hubspot", NO_AUDIENCE): 23,
        ("hubspot", OTHER_ENDPOINT): 2,
        ("hubspot", NO_REQUEST): 2,
    }


def meta(case: Case) -> str | None:
    recorded = case["expected"]["requests"]
    if not recorded:
        return NO_REQUEST
    for request in recorded:
        op: Op = "add" if request["method"] == "POST" else "remove"
        audience = re.search(r"/(\d+)/users$", request["url"])[1]  # type: ignore[index]
        schema = request["body"]["payload"]["schema"]
        theirs = [dict(zip(schema, row, strict=True)) for row in request["body"]["payload"]["data"]]
        ids = {row["EXTERN_ID"] for row in theirs}
        rows = []
        for p in people(case):
            if p["externalId"] in ids:
                keys = {"EXTERN_ID": p["externalId"], "EMAIL": once(p["email"].strip().lower())}
                if "phone" in p:
                    keys["PHONE"] = sha(re.sub(r"\D", "", p["phone"]).lstrip("0"))
                rows.append(keys)
        body = body_of("meta", {"access_token": "env:X"}, audience, op, rows)["payload"]
        mine = [dict(zip(body["schema"], row, strict=True)) for row in body["data"]]
        for t, m in zip(theirs, mine, strict=True):
            assert {k: t[k] for k in ("EXTERN_ID", "EMAIL", "PHONE")} == {
                k: m[k] for k in ("EXTERN_ID", "EMAIL", "PHONE")
            }, case["id"]
    return None


def tiktok(case: Case) -> str | None:
    recorded = case["expected"]["requests"]
    if not recorded:
        return NO_REQUEST
    if any("." in p["email"].split("@")[0] or "+" in p["email"] for p in people(case)):
        return DOTS
    members = case["rows"][0]["membership"]
    for request in recorded:
        theirs = request["body"]
        op: Op = "add" if theirs["action"] == "add" else "remove"
        # Telephones are left out: these are digests of bare digits, ours of `+` and digits; TikTok's pages conflict.
        rows = [
            {"EMAIL_SHA256": sha(p["email"])}
            for n, p in enumerate(people(case))
            if not isinstance(members, list) or members[n] is (op == "add")
        ]
        audience = theirs["batch_data"][0][0]["audience_ids"][0]
        mine = body_of("tiktok", {"access_token": "env:X", "advertiser_id": "123"}, audience, op, rows)
        kept = [n for n, name in enumerate(theirs["id_schema"]) if name == "EMAIL_SHA256"]
        assert mine == {
            **theirs,
            "id_schema": [theirs["id_schema"][n] for n in kept],
            "batch_data": [[row[n] for n in kept] for row in theirs["batch_data"]],
        }, case["id"]
    return None


def klaviyo(case: Case) -> str | None:
    recorded = case["expected"]["requests"]
    if not recorded:
        return NO_REQUEST
    paths = [r["url"].split(".com")[1].split("?")[0].strip("/") for r in recorded]
    if any("subscription" in p for p in paths):
        return SUBSCRIPTION
    if any("event" in p for p in paths):
        return NO_AUDIENCE
    if any(p == "api/profiles" and r["method"] == "POST" for p, r in zip(paths, recorded, strict=True)):
        return ONE_BY_ONE
    if all(p == "api/profile-bulk-import-jobs" for p in paths):
        for request in recorded:
            data = request["body"]["data"]
            lists = data.get("relationships", {}).get("lists", {}).get("data")
            if not lists:
                return NO_AUDIENCE
            theirs = data["attributes"]["profiles"]["data"]
            rows = [{"external_id": f"e{n}"} for n in range(len(theirs))]
            details = [{"email": t["attributes"]["email"]} for t in theirs]
            mine = body_of("klaviyo", {"api_key": "env:X"}, lists[0]["id"], "add", rows, details)["data"]
            assert (mine["type"], mine["relationships"]) == (data["type"], data["relationships"])
            assert [p["attributes"]["email"] for p in mine["attributes"]["profiles"]["data"]] == [
                d["email"] for d in details
            ]
        return None
    if not all("any(external_id," in r["url"] for r in recorded if r["method"] == "GET"):
        return OTHER_KEYS
    looked_up, removed = recorded
    fake = FakeKlaviyo()
    (profile,) = looked_up["response"]["body"]["data"]
    fake.profiles = {case["rows"][0]["payload"]["external_id"]: profile["id"]}
    rows = [{"external_id": i} for i in fake.profiles]
    asked, deleted = sent(fake, "klaviyo", {"api_key": "env:TEST_TOKEN"}, paths[-1].split("/")[2], "remove", rows)
    assert (asked.method, asked.path) == (looked_up["method"], f"/{paths[0]}")
    assert asked.query["filter"] == parse_qs(urlsplit(looked_up["url"]).query)["filter"][0]
    assert (deleted.method, deleted.path, deleted.body) == (removed["method"], f"/{paths[-1]}", removed["body"])
    return None


def hubspot(case: Case) -> str | None:
    recorded = case["expected"]["requests"]
    if not recorded:
        return NO_REQUEST
    if not any("/lists/" in r["url"] for r in recorded):
        return OTHER_ENDPOINT if "upsertContact" in case["description"] else NO_AUDIENCE
    upserts = [r for r in recorded if r["url"].endswith("batch/upsert")]
    changes = [r for r in recorded if r["url"].endswith("add-and-remove")]
    assert upserts
    for upsert, change in zip(upserts, changes, strict=True):
        theirs = upsert["body"]["inputs"]
        fake = FakeHubSpot()
        fake.records = dict(zip([t["id"] for t in theirs], change["body"]["recordIdsToAdd"], strict=True))
        rows = [{"email_sha256": sha(t["id"])} for t in theirs]
        details = [{"email": t["id"]} for t in theirs]
        path = urlsplit(change["url"]).path
        upserted, added = sent(
            fake, "hubspot", {"access_token": "env:TEST_TOKEN"}, path.split("/")[4], "add", rows, details
        )
        for t, m in zip(theirs, upserted.body["inputs"], strict=True):
            assert (t["id"], t["idProperty"], t["properties"]["email"]) == (
                m["id"],
                m["idProperty"],
                m["properties"]["email"],
            ), case["id"]
        assert (added.method, added.path, added.body) == (change["method"], path, change["body"])
    return None


def people(case: Case) -> list[dict[str, Any]]:
    payload = case["rows"][0]["payload"]
    return payload if isinstance(payload, list) else [payload]


def once(value: str) -> str:
    return value if re.fullmatch("[0-9a-f]{64}", value) else hashlib.sha256(value.encode()).hexdigest()


def body_of(
    kind: str,
    settings: dict[str, Any],
    audience: str,
    op: Op,
    keys: list[dict[str, str]],
    details: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    body: dict[str, Any] = connector_of(kind, settings, audience).body(batch_of(op, keys, details))
    return body


def sent(
    fake: Fake,
    kind: str,
    settings: dict[str, Any],
    audience: str,
    op: Op,
    keys: list[dict[str, str]],
    details: list[dict[str, str]] | None = None,
) -> list[Request]:
    """What a destination is told where that takes several requests, the later ones made of its answers."""
    os.environ["TEST_TOKEN"] = TOKEN
    with serve(fake) as url:
        connector_of(kind, {"base_url": url, **settings}, audience).send(batch_of(op, keys, details))
    return fake.seen


def connector_of(kind: str, settings: dict[str, Any], audience: str) -> Any:
    made = kinds()[kind].model_validate({"name": kind, "kind": kind, "audiences": {"vip": audience}, **settings})
    assert isinstance(made, BatchDestination)
    return made.connect(FakeClock())


def batch_of(op: Op, keys: list[dict[str, str]], details: list[dict[str, str]] | None) -> Batch:
    told = details or [{} for _ in keys]
    rows = [Row(f"m{n}", "k", sha(str(n)), k, d) for n, (k, d) in enumerate(zip(keys, told, strict=True))]
    return next(iter(cut_batches(PLACE, op, rows, 10_000)))
