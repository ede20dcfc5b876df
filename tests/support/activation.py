"""People, destinations and runs for tests of activation that need no Spark."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from connectors.base import BatchDestination
from connectors.brakes import Brakes
from connectors.destinations import kinds
from connectors.engine import Engine
from connectors.exchange import Batch, Outcome, Place
from connectors.ledger import RunReport
from connectors.pace import Patience
from tests.support.clock import FakeClock
from tests.support.fakes.advertising import TOKEN, FakeGoogle, FakeMeta, FakeTikTok
from tests.support.fakes.server import Fake, serve
from tests.support.fakes.tools import (
    SECRET,
    FakeBraze,
    FakeHubSpot,
    FakeKlaviyo,
    FakeMailchimp,
    FakeMarketingCloud,
    FakeReceiver,
)
from tests.support.memory_ledger import MemoryLedger, Wanted

PLACE = Place("shop", "vip")
AUDIENCE = "4711"


class Killed(BaseException):
    """The process died here."""


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Person:
    """Somebody with an address that may change and a number that may be a housemate's too."""

    number: int
    version: int = 0
    house: int | None = None

    @property
    def member_id(self) -> str:
        return sha(f"shop\x1f{self.number}")

    @property
    def email(self) -> str:
        return f"p{self.number}.v{self.version}@x.example"

    @property
    def phone(self) -> str:
        return f"+4930{self.house if self.house is not None else 1000 + self.number:06d}"


@dataclass(frozen=True)
class World:
    """A kind of destination: its fake, its settings, what a person is there."""

    kind: str
    fake: type[Fake]
    settings: Mapping[str, Any]
    keys: Callable[[Person], dict[str, str]]
    details: Callable[[Person], dict[str, str]]
    items: Callable[[Person], set[str]]
    place: str = AUDIENCE
    unusable: Callable[[Person], str] = lambda p: sha(p.email)
    token_path: str = ""

    def wanted(self, person: Person) -> Wanted:
        return Wanted(person.member_id, self.keys(person), self.details(person))

    def destination(self, url: str) -> BatchDestination:
        said = {
            "name": self.kind,
            "kind": self.kind,
            "base_url": url,
            "audiences": {"vip": self.place},
            **self.settings,
        }
        if self.token_path:
            said["token_url"] = url + self.token_path
        made = kinds()[self.kind].model_validate(said)
        assert isinstance(made, BatchDestination)
        return made


def _nothing(person: Person) -> dict[str, str]:
    return {}


def _address(person: Person) -> dict[str, str]:
    return {"email": person.email}


_TOKEN = {"access_token": "env:TEST_TOKEN"}
_KEY = {"api_key": "env:TEST_TOKEN"}

WORLDS = {
    w.kind: w
    for w in (
        World(
            "meta",
            FakeMeta,
            _TOKEN,
            lambda p: {"EXTERN_ID": p.member_id, "EMAIL": sha(p.email), "PHONE": sha(p.phone)},
            _nothing,
            lambda p: {f"EXTERN_ID:{p.member_id}", f"EMAIL:{sha(p.email)}", f"PHONE:{sha(p.phone)}"},
        ),
        World(
            "tiktok",
            FakeTikTok,
            {**_TOKEN, "advertiser_id": "123"},
            lambda p: {"EMAIL_SHA256": sha(p.email), "PHONE_SHA256": sha(p.phone)},
            _nothing,
            lambda p: {f"EMAIL_SHA256:{sha(p.email)}", f"PHONE_SHA256:{sha(p.phone)}"},
        ),
        World(
            "google",
            FakeGoogle,
            {
                "account_id": "1234567890",
                "client_id": "app",
                "client_secret": "env:TEST_TOKEN",
                "refresh_token": "env:TEST_TOKEN",
                "terms_accepted": True,
            },
            lambda p: {"email_sha256": sha(p.email), "phone_sha256": sha(p.phone)},
            _nothing,
            lambda p: {f"emailAddress:{sha(p.email)}", f"phoneNumber:{sha(p.phone)}"},
            token_path="/token",
        ),
        World(
            "klaviyo",
            FakeKlaviyo,
            {**_KEY, "settle_seconds": 0},
            lambda p: {"external_id": p.member_id, "email_sha256": sha(p.email)},
            _address,
            lambda p: {p.member_id},
            unusable=lambda p: p.email,
        ),
        World(
            "hubspot",
            FakeHubSpot,
            _TOKEN,
            lambda p: {"email_sha256": sha(p.email)},
            _address,
            lambda p: {p.email},
            unusable=lambda p: p.email,
        ),
        World(
            "mailchimp",
            FakeMailchimp,
            {**_KEY, "list_id": "abc123"},
            lambda p: {"email_md5": hashlib.md5(p.email.encode()).hexdigest()},
            _address,
            lambda p: {hashlib.md5(p.email.encode()).hexdigest()},
            unusable=lambda p: p.email,
        ),
        World(
            "braze",
            FakeBraze,
            _KEY,
            lambda p: {"external_id": str(p.number)},
            _nothing,
            lambda p: {str(p.number)},
            unusable=lambda p: str(p.number),
        ),
        World(
            "marketing_cloud",
            FakeMarketingCloud,
            {"client_id": "app", "client_secret": "env:TEST_TOKEN", "job_seconds": 60},
            lambda p: {"member_id": p.member_id, "email_sha256": sha(p.email)},
            _address,
            lambda p: {p.member_id},
            unusable=lambda p: p.email,
            token_path="/v2/token",
        ),
        World(
            "webhook",
            FakeReceiver,
            {"secret": "env:TEST_SECRET", "rows_per_message": 4},
            lambda p: {"member_id": p.member_id, "email_sha256": sha(p.email)},
            _nothing,
            lambda p: {p.member_id},
            place="vip",
        ),
    )
}


def present(fake: Fake, world: World) -> set[str]:
    """Who is in the fake's audience, in the terms of `World.items`."""
    there = fake.state.get(world.place, set())
    if isinstance(fake, FakeHubSpot):
        addresses = {record: address for address, record in fake.records.items()}
        return {addresses[r] for r in there}
    return set(there)


@contextmanager
def opened(world: World, clock: FakeClock) -> Iterator[tuple[Fake, BatchDestination]]:
    """A fake that serves and the settings of a destination that points to it."""
    os.environ["TEST_TOKEN"] = TOKEN
    os.environ["TEST_SECRET"] = SECRET
    fake = world.fake(clock.now)
    with serve(fake) as url:
        yield fake, world.destination(url)


@dataclass
class Watched:
    """A connector that says when it is about to send and when it has sent; small batches make many of them."""

    connector: Any
    step: Callable[[str], None]
    rows: int

    @property
    def limits(self) -> Any:
        from dataclasses import replace

        own = self.connector.limits
        return replace(own, rows=min(own.rows, self.rows), window=2)

    @property
    def requests(self) -> int:
        return self.connector.requests

    def send(self, batch: Batch) -> Sequence[Outcome]:
        self.step("before_send")
        outcomes = self.connector.send(batch)
        self.step("after_send")
        return outcomes

    def settle(self, receipt: str) -> Any:
        return self.connector.settle(receipt)


def run_once(
    ledger: MemoryLedger,
    destination: BatchDestination,
    clock: FakeClock,
    *,
    step: Callable[[str], None] = lambda _: None,
    rows: int = 4,
    brakes: Brakes | None = None,
    attempts: int = 3,
    **more: Any,
) -> RunReport:
    """One run of the engine."""
    ledger.step = step
    connector = destination.connect(clock)
    try:
        return Engine(
            Watched(connector, step, rows),
            ledger,
            clock,
            brakes or Brakes(is_confirmed=True),
            Patience(attempts=attempts),
            **more,
        ).run()
    finally:
        connector.http.close()  # type: ignore[attr-defined]
        ledger.step = lambda _: None
