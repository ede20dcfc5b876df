"""The ledger on Delta against a fake Meta: what leaves, what is written down, and a run that dies."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from connectors.activation import Activation, ActivationHeld, activation_queue, proof_of_removal
from connectors.audience import plan_audience
from connectors.base import BatchDestination
from connectors.campaigns import Campaign, apply_campaigns
from connectors.delta_ledger import open_ledger
from connectors.engine import Engine
from connectors.erasure import forget_erased
from connectors.exchange import Batch, NotEligible, Place, Row
from connectors.results import keep_holdouts, measure_arms
from connectors.secret import Secret
from connectors.suppression import suppress
from connectors.switch import set_switch
from jobs import activate as commands
from jobs.context import Job
from jobs.progress import Progress
from jobs.segments import published_day
from lakehouse.errors import MachineError, SettingsError
from lakehouse.lake import Lake
from tests.support.activation import AUDIENCE, WORLDS, Killed, Watched, opened, present, sha
from tests.support.clock import FakeClock
from tests.support.fakes.advertising import FakeMeta
from tests.support.fakes.server import Answer, Request
from tests.support.lakes import opened_lake
from tests.support.rows import rows

pytestmark = [pytest.mark.spark, pytest.mark.delta, pytest.mark.slow]

AT = datetime(2026, 1, 1)
PEOPLE = {
    1: ("ann", " Ann@X.example", "+49 30 1"),
    2: ("bob", "bob@x.example", "+49 30 2"),  # bob and cy share a telephone
    3: ("cy", "cy@x.example", "+49 30 2"),
    4: ("dee", "dee@x.example", "+49 30 4"),
    5: ("eve", "eve@x.example", "+49 30 5"),
}


@pytest.fixture(scope="module")
def prepared(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with opened_lake(spark, tmp_path_factory.mktemp("activation") / "lake") as lake:
        segment = {"segment_id": "vip", "name": "Best customers", "version": "v1", "is_active": True}
        lake.write("gold.customer_segment", rows(spark, "gold.customer_segment", [segment]))
        write_people(lake, PEOPLE, AT)
        grant(lake, {"ann": True, "bob": True, "cy": True, "dee": True, "eve": False})
        put_in_segment(lake, [1, 2, 3, 4, 5])
        return lake.settings.data_dir


@pytest.fixture
def shop(lake: Lake) -> Lake:
    return lake


@pytest.fixture
def meta() -> Iterator[tuple[FakeMeta, BatchDestination, FakeClock]]:
    clock = FakeClock()
    with opened(WORLDS["meta"], clock) as (fake, destination):
        assert isinstance(fake, FakeMeta)
        yield fake, destination, clock


def write_people(lake: Lake, people: dict[int, tuple[str, str, str]], at: datetime) -> None:
    made = rows(
        lake.spark,
        "gold.dim_customer",
        [
            {"customer_key": k, "merchant_id": "shop", "customer_id": n, "email": e, "phone": p, "valid_from": at}
            for k, (n, e, p) in people.items()
        ],
    )
    lake.write("gold.dim_customer", made.drop("customer_sk", "valid_to", "is_current"))


def grant(lake: Lake, choices: dict[str, bool]) -> None:
    made = [
        {"merchant_id": "shop", "customer_id": n, "channel": "ads", "is_granted": g, "changed_at": AT}
        for n, g in choices.items()
    ]
    lake.write("silver.consent", rows(lake.spark, "silver.consent", made))


def put_in_segment(lake: Lake, keys: list[int], gone: tuple[int, ...] = ()) -> None:
    made = [
        {
            "segment_id": "vip",
            "website_id": "shop",
            "customer_key": k,
            "customer_id": PEOPLE[k][0],
            "_deleted": k in gone,
        }
        for k in [*keys, *gone]
    ]
    lake.write("gold.customer_segment_customer", rows(lake.spark, "gold.customer_segment_customer", made))


def activation(lake: Lake, destination: BatchDestination, clock: FakeClock, run_id: str, **more: Any) -> Activation:
    clock.sleep(60)
    more = {"is_confirmed": True, **more}
    return Activation(lake, [destination], date(2026, 1, 2), run_id, AT, clock, **more)


def member(name: str) -> str:
    return sha(f"shop\x1f{name}")


def items(*names: str, phones: tuple[str, ...], **addresses: str) -> set[str]:
    known = {n: e.strip().lower() for n, e, _ in PEOPLE.values()} | addresses
    found = {f"EXTERN_ID:{member(n)}" for n in names} | {f"EMAIL:{sha(known[n])}" for n in names}
    return found | {f"PHONE:{sha(p)}" for p in phones}


def statuses(lake: Lake) -> dict[str, list[str]]:
    names = {member(n): n for n, _, _ in PEOPLE.values()}
    found: dict[str, list[str]] = {}
    for r in lake.read("gold.activation_member").select("member_id", "status").collect():
        found.setdefault(names[r.member_id], []).append(r.status)
    return {n: sorted(s) for n, s in sorted(found.items())}


def changes_of(fake: FakeMeta) -> list[Request]:
    """Requests that change an audience; others ask how many it reaches."""
    return [r for r in fake.seen if r.method != "GET"]


def test_a_destination_follows_consent_membership_and_identifiers(
    shop: Lake, meta: tuple[FakeMeta, BatchDestination, FakeClock]
) -> None:
    fake, destination, clock = meta
    ann_to_dee = ("49301", "49302", "49304")

    report = activation(shop, destination, clock, "one").run()["meta"]

    assert (report.state, report.planned, report.ok) == ("done", 4, 4)
    assert fake.state[AUDIENCE] == items("ann", "bob", "cy", "dee", phones=ann_to_dee)
    again = activation(shop, destination, clock, "two").run()["meta"]
    assert (again.planned, again.requests, len(changes_of(fake))) == (0, 0, 1)

    # Bob withdraws, dee leaves the segment, ann has a new address. Bob's telephone is cy's too, and stays.
    grant(shop, {"bob": False})
    put_in_segment(shop, [1, 2, 3, 5], gone=(4,))
    write_people(shop, {1: ("ann", "ann@new.example", "+49 30 1")}, datetime(2026, 1, 2))
    (preview,) = activation(shop, destination, clock, "look").preview()
    (plan,) = preview.plans
    assert (plan.withdrawals, plan.removals, plan.additions, plan.present) == (1, 2, 1, 4)
    assert '"payload"' in preview.body  # of who would be added, whoever goes first
    assert len(changes_of(fake)) == 1

    # The run dies when the first batch has arrived and nothing of it is written down.
    dying = Watched(destination.connect(clock), Killer("after_send"), rows=1)
    with pytest.raises(Killed):
        Engine(dying, activation(shop, destination, clock, "dies").ledger(destination), clock).run()
    assert shop.read("gold.activation_run").where("run_id = 'dies'").collect()[0].state == "running"
    third = activation(shop, destination, clock, "three").run()["meta"]

    first = changes_of(fake)[1]
    assert first.method == "DELETE"  # the withdrawal went first
    assert sha("bob@x.example") in first.raw.decode()
    assert (third.planned, third.ok) == (4, 4)
    assert fake.state[AUDIENCE] == items("ann", "cy", phones=("49301", "49302"), ann="ann@new.example")
    assert statuses(shop) == {"ann": ["present", "removed"], "bob": ["removed"], "cy": ["present"], "dee": ["removed"]}
    assert fake.wrong == []
    assert sha("eve@x.example") not in "".join(r.raw.decode() for r in fake.seen)

    # The ledger proves the removal, adds up, and holds neither addresses nor the keys of whoever is gone.
    proof = [(r.op, r.verdict) for r in proof_of_removal(shop, "shop", [member("bob")]).collect()]
    assert proof == [("add", "sending"), ("add", "ok"), ("remove", "sending"), ("remove", "sending"), ("remove", "ok")]
    assert {r.status: r["count"] for r in activation_queue(shop).groupBy("status").count().collect()} == {
        "completed": 5
    }
    runs = {r.run_id: r for r in shop.read("gold.activation_run").collect()}
    assert all(r.is_folded for r in runs.values())
    assert [(runs[i].planned, runs[i].ok) for i in ("one", "two", "three")] == [(4, 4), (0, 0), (4, 4)]
    batches = shop.read("gold.activation_batch").where("state = 'settled'").agg(F.sum("rows"), F.sum("ok")).collect()[0]
    assert tuple(batches) == (8, 8)
    told = json.dumps([r.asDict() for t in TABLES for r in shop.read(t).collect()], default=str)
    assert "x.example" not in told
    assert sha("bob@x.example") not in json.dumps([r.asDict() for r in shop.read(TABLES[0]).collect()], default=str)

    # Whoever is suppressed goes at the next run; a stopped destination sends nothing.
    suppress(shop, "shop", ["cy"], reason="erased", suppressed_on=date(2026, 1, 2), run_id="s")
    set_switch(shop, "meta", is_stopped=True, reason="looking into it", changed_at=AT, run_id="s")
    assert activation(shop, destination, clock, "four").run()["meta"].state == "stopped"
    assert sha("cy@x.example") in "".join(fake.state[AUDIENCE])
    set_switch(shop, "meta", is_stopped=False, reason=None, changed_at=AT, run_id="s")
    # Half of those there would go, but a withdrawal is not held back by a brake.
    five = activation(shop, destination, clock, "five", is_confirmed=False).run()["meta"]
    assert (five.planned, five.held) == (1, {})
    assert fake.state[AUDIENCE] == items("ann", phones=("49301",), ann="ann@new.example")

    # Cy was erased: the ledger holds nothing of cy but the proof. Bob only withdrew.
    assert statuses(shop) == {"ann": ["present", "removed"], "bob": ["removed"], "dee": ["removed"]}
    (proof_of_cy,) = shop.read("gold.activation_erasure").collect()
    assert (proof_of_cy.member_id, proof_of_cy.rows_removed, proof_of_cy.run_id) == (member("cy"), 1, "five")
    assert activation(shop, destination, clock, "six").run()["meta"].planned == 0
    assert shop.count("gold.activation_erasure") == 1


def test_an_erased_person_who_was_sent_again_stays_in_the_ledger_until_that_is_taken_back(lake: Lake) -> None:
    suppress(lake, "shop", ["cy", "dee"], reason="erased", suppressed_on=date(2026, 1, 2), run_id="s")
    said = {"destination": "meta", "website_id": "shop", "segment_id": "vip", "last_op": "remove"}

    def end(**found: str) -> dict[str, list[str]]:
        made = [said | {"member_id": member(n), "status": status} for n, status in found.items()]
        lake.write("gold.activation_member", rows(lake.spark, "gold.activation_member", made))
        forget_erased(lake, "meta", run_id="-".join(found.values()), recorded_at=AT)
        return statuses(lake)

    assert end(cy="removed") == {}
    assert end(cy="unknown", dee="removed") == {"cy": ["unknown"]}
    assert end(cy="removed", dee="removed") == {}


def test_members_of_another_day_than_the_last_refresh_cannot_leave(shop: Lake) -> None:
    refreshed = [{"segment_id": "vip", "website_id": "shop", "as_of": date(2026, 1, d)} for d in (2, 3)]
    for of_day in refreshed:
        part = {"as_of": of_day["as_of"]}
        made = rows(shop.spark, "gold.customer_segment_refresh", [of_day])
        shop.write("gold.customer_segment_refresh", made, slice_of=part)

    def day(said: Any) -> date:
        newest_delivered = date(2026, 1, 4)  # of which no segments were made yet
        job: Any = SimpleNamespace(lake=shop, settings=SimpleNamespace(as_of=said), as_of=lambda: newest_delivered)
        job.segments_are_of = lambda: Job.segments_are_of(job)
        return published_day(job)

    assert [day("latest"), day("today"), day(date(2026, 1, 3))] == [date(2026, 1, 3)] * 3
    for other in (2, 4):
        with pytest.raises(SettingsError, match=f"--as-of 2026-01-0{other}: members here are those of 2026-01-03"):
            day(date(2026, 1, other))


TABLES = ("gold.activation_member", "gold.activation_outcome", "gold.activation_plan", "gold.activation_batch")


class Killer:
    """Dies at the first step of a name."""

    def __init__(self, at: str) -> None:
        self.at = at

    def __call__(self, what: str) -> None:
        if what == self.at:
            raise Killed(what)


def test_nothing_but_the_eligible_audience_can_be_handed_over(
    lake: Lake, meta: tuple[FakeMeta, BatchDestination, FakeClock]
) -> None:
    _, destination, clock = meta
    spark = lake.spark
    frames = [
        rows(spark, t)
        for t in (
            "gold.customer_segment_customer",
            "gold.dim_customer",
            "silver.consent",
            "gold.activation_suppression",
        )
    ]
    other = destination.model_copy(update={"name": "other"})
    planned = plan_audience(*frames, destination=other)
    say: dict[str, Any] = {"run_id": "r", "started_at": AT, "clock": clock}

    with pytest.raises(NotEligible):
        open_ledger(lake, destination, planned, {"vip": "VIP"}, **say)
    with pytest.raises(NotEligible):
        open_ledger(lake, destination, frames[0], {"vip": "VIP"}, **say)  # type: ignore[arg-type]
    with pytest.raises(NotEligible):
        type(planned)(destination, frames[0], (), (), frames[0])
    with pytest.raises(NotEligible):
        Batch("key", Place("shop", "vip"), "add", (Row("m", "k", "e", {"EMAIL": "x"}),))


@pytest.mark.parametrize("kind", ["klaviyo", "webhook"])
def test_a_tool_gets_the_address_where_it_needs_it_and_the_ledger_never(shop: Lake, kind: str) -> None:
    clock = FakeClock()
    choices = [
        {"merchant_id": "shop", "customer_id": n, "channel": "email", "is_granted": True, "changed_at": AT}
        for n in ("ann", "eve")
    ]
    shop.write("silver.consent", rows(shop.spark, "silver.consent", choices))
    who = {"klaviyo": ("ann", "eve"), "webhook": ("ann", "bob", "cy", "dee")}[kind]  # mail, or advertising
    with opened(WORLDS[kind], clock) as (fake, destination):
        for run_id in ("one", "two", "three"):  # an import job is asked twice before it is done
            report = activation(shop, destination, clock, run_id).run()[kind]
        assert (report.planned, fake.wrong) == (0, [])
        assert fake.state[WORLDS[kind].place] == {member(n) for n in who}
        sent = "".join(r.raw.decode() for r in fake.seen)
        (check,) = activation(shop, destination, clock, "look").reconcile()
        if kind == "klaviyo":
            for answer in (Answer(403), Answer(200, raw=b"<html>")):
                fake.handle = lambda r, answer=answer: answer  # type: ignore[method-assign, misc]
                (away,) = activation(shop, destination, clock, "look").reconcile()
                assert (away.ledger, away.there, away.unasked != "") == (2, None, True)
    assert ("ann@x.example" in sent) == (kind == "klaviyo")
    assert (check.ledger, check.there, check.missing, check.extra) == (len(who), {"klaviyo": 2}.get(kind), 0, 0)
    told = json.dumps([r.asDict() for t in TABLES for r in shop.read(t).collect()], default=str)
    assert "x.example" not in told


def test_another_audience_is_filled_once_the_old_one_is_empty(
    shop: Lake, meta: tuple[FakeMeta, BatchDestination, FakeClock]
) -> None:
    fake, destination, clock = meta

    def run(run_id: str, audience: str, **more: Any) -> Any:
        named = destination.model_copy(update={"audiences": {"vip": audience}})
        report = activation(shop, named, clock, run_id, **more).run()["meta"]
        there = {a: sum(i.startswith("EXTERN_ID") for i in found) for a, found in fake.state.items()}
        return report.held.get(Place("shop", "vip"), "").partition(":")[0], there

    def die(*_: Any) -> None:
        raise Killed("sent")

    with pytest.raises(Killed):
        activation(shop, destination.model_copy(update={"audiences": {"vip": "11"}}), clock, "dies").run(die)
    assert run("one", "22", is_confirmed=False) == ("audience_changed", {"11": 4})
    grant(shop, {"bob": False})
    assert run("two", "22", is_confirmed=False) == ("audience_changed", {"11": 3})
    # Also while a campaign waits for its day.
    said = {"name": "later", "segment": "vip", "destination": "meta", "schedule": {"starts_on": "2027-01-01"}}
    later = Campaign.model_validate({**said, "holdout": {"share": 0.01, "salt": "a"}})
    assert run("three", "22", campaigns=[later]) == ("", {"11": 0})
    assert run("four", "22") == ("", {"11": 0, "22": 3})
    # Somebody says that the old one is gone.
    assert run("five", "33", is_forced=True) == ("", {"11": 0, "22": 3, "33": 3})
    assert run("six", "33", is_confirmed=False) == ("", {"11": 0, "22": 3, "33": 3})


def test_who_leaves_at_one_retailer_stays_in_an_audience_shared_with_another(shop: Lake) -> None:
    # Zoe of the club is ann of the shop: one address.
    zoe = {"merchant_id": "club", "customer_key": 6, "customer_id": "zoe", "email": "ann@x.example", "valid_from": AT}
    person = rows(shop.spark, "gold.dim_customer", [zoe]).drop("customer_sk", "valid_to", "is_current")
    shop.write("gold.dim_customer", person)
    of = [("shop", "ann"), ("shop", "bob"), ("club", "zoe")]
    choices = [
        {"merchant_id": m, "customer_id": n, "channel": "email", "is_granted": True, "changed_at": AT} for m, n in of
    ]
    shop.write("silver.consent", rows(shop.spark, "silver.consent", choices))
    there = {"segment_id": "vip", "website_id": "club", "customer_key": 6, "customer_id": "zoe"}

    def reconcile(run_id: str, *, is_zoe_in: bool) -> list[tuple[Any, ...]]:
        made = rows(shop.spark, "gold.customer_segment_customer", [there | {"_deleted": not is_zoe_in}])
        shop.write("gold.customer_segment_customer", made)
        activation(shop, destination, clock, run_id).run()
        assert present(fake, world) == {md5(f"{n}@x.example".encode()).hexdigest() for n in ("ann", "bob")}
        found = activation(shop, destination, clock, "look").reconcile()
        return [(r.place.website_id, r.ledger, r.there, r.missing, r.extra) for r in found]

    world, clock = WORLDS["mailchimp"], FakeClock()
    with opened(world, clock) as (fake, destination):
        assert reconcile("one", is_zoe_in=True) == [("club", 1, 1, 0, 0), ("shop", 2, 2, 0, 0)]
        assert reconcile("two", is_zoe_in=False) == [("shop", 2, 2, 0, 0)]
    assert fake.wrong == []


def test_who_withdraws_leaves_an_audience_shared_with_a_campaign_that_waits(shop: Lake) -> None:
    spark, at = shop.spark, {"segment_id": "calm", "website_id": "shop", "customer_key": 1, "customer_id": "ann"}
    calm = {"segment_id": "calm", "name": "Calm", "version": "v1", "is_active": True}
    shop.write("gold.customer_segment", rows(spark, "gold.customer_segment", [calm]))
    shop.write("gold.customer_segment_customer", rows(spark, "gold.customer_segment_customer", [at]))
    choice = {"merchant_id": "shop", "customer_id": "ann", "channel": "email", "changed_at": AT}
    said = {"name": "later", "segment": "calm", "destination": "mailchimp", "schedule": {"starts_on": "2027-01-01"}}
    campaign = Campaign.model_validate({**said, "holdout": {"share": 0.01, "salt": "a"}})

    def run(run_id: str, *, is_granted: bool) -> tuple[int, dict[str, list[str]]]:
        shop.write("silver.consent", rows(spark, "silver.consent", [choice | {"is_granted": is_granted}]))
        activation(shop, both, clock, run_id, campaigns=[campaign]).run()
        return len(present(fake, world)), statuses(shop)

    world, clock = WORLDS["mailchimp"], FakeClock()
    with opened(world, clock) as (fake, destination):
        both = destination.model_copy(update={"audiences": {"vip": AUDIENCE, "calm": AUDIENCE}})
        assert run("one", is_granted=True) == (1, {"ann": ["present"]})
        # Whoever leaves one segment stays while the other, which has not sent them, has them too.
        put_in_segment(shop, [2], gone=(1,))
        assert run("two", is_granted=True) == (1, {"ann": ["present"]})
        assert run("three", is_granted=False) == (0, {"ann": ["removed"]})
    assert fake.wrong == []


def test_a_destination_without_its_secret_does_not_keep_the_others_waiting(shop: Lake) -> None:
    clock = FakeClock()
    with opened(WORLDS["webhook"], clock) as (fake, destination):
        first = destination.model_copy(update={"name": "a_first", "secret": Secret("env:NOWHERE")})
        both = Activation(shop, [first, destination], date(2026, 1, 2), "one", AT, clock)
        with pytest.raises(MachineError, match="env:NOWHERE"):
            both.run()
    assert len(fake.state["vip"]) == 4
    assert shop.read("gold.activation_run").where("destination = 'webhook'").collect()[0].state == "done"


def test_a_dry_run_says_so_where_the_destination_cannot_be_asked(shop: Lake) -> None:
    clock = FakeClock()
    choice = {"merchant_id": "shop", "customer_id": "ann", "channel": "ads", "is_granted": True, "changed_at": AT}
    shop.write("silver.consent", rows(shop.spark, "silver.consent", [choice | {"is_sample": True}]))
    with opened(WORLDS["google"], clock) as (fake, destination):
        fake.handle = lambda r: Answer(401)  # type: ignore[method-assign]
        (preview,) = activation(shop, destination, clock, "look").preview(validate=True)
    assert preview.plans[0].additions == 4
    assert preview.validated == "nothing, it cannot be asked (token_401)"
    assert "1 of the people have contact details or consent of a sample, not of a customer" in preview.notes


@pytest.mark.parametrize("is_named", [True, False])
def test_whoever_withdraws_leaves_a_segment_that_is_sent_no_longer(shop: Lake, is_named: bool) -> None:
    clock = FakeClock()
    with opened(WORLDS["webhook"], clock) as (fake, destination):
        # All active segments, or those its file names.
        destination = destination.model_copy(update={"audiences": {}, "segments": ("vip",) if is_named else ()})
        assert activation(shop, destination, clock, "one").run()["webhook"].ok == 4
        retired = {"segment_id": "vip", "name": "Best customers", "version": "v1", "is_active": False}
        shop.write("gold.customer_segment", rows(shop.spark, "gold.customer_segment", [retired]))
        put_in_segment(shop, [], gone=(1, 2, 3, 4, 5))
        grant(shop, {"bob": False})

        two = activation(shop, destination, clock, "two", is_confirmed=False).run()["webhook"]
        assert fake.state["vip"] == {member(n) for n in ("ann", "cy", "dee")}
        assert two.held == {Place("shop", "vip"): "segment_empty"}

        three = activation(shop, destination, clock, "three").run()["webhook"]
        assert (three.ok, fake.state["vip"]) == (3, set())
        assert activation(shop, destination, clock, "four", is_confirmed=False).run()["webhook"].planned == 0


def sales(lake: Lake, *lines: tuple[int, date, float]) -> None:
    made = [
        {
            "transaction_id": n,
            "merchant_id": "shop",
            "customer_key": key,
            "customer_id": PEOPLE[key][0],
            "business_date": day,
            "amount": Decimal(str(amount)),
            "is_valid_purchase": amount > 0,
        }
        for n, (key, day, amount) in enumerate(lines)
    ]
    lake.write("gold.fact_transactions", rows(lake.spark, "gold.fact_transactions", made))


def test_a_campaign_keeps_its_arms_and_counts_what_they_buy_afterwards(
    shop: Lake, meta: tuple[FakeMeta, BatchDestination, FakeClock]
) -> None:
    fake, plain, clock = meta

    def campaign(salt: str = "a", **more: Any) -> Campaign:
        said = {"name": "spring", "segment": "vip", "destination": "meta", "outcome_days": 10}
        return Campaign.model_validate({**said, "holdout": {"share": 0.5, "salt": salt}, **more})

    def run(run_id: str, as_of: date, said: Campaign) -> Any:
        clock.sleep(60)
        (made,) = apply_campaigns([plain], [said])
        assert isinstance(made, BatchDestination)
        work = Activation(shop, [made], as_of, run_id, AT, clock, campaigns=[said], is_confirmed=True)
        return work.run()["meta"]

    waits = run("early", date(2026, 1, 2), campaign(schedule={"starts_on": "2026-01-02"}))  # it is still the first
    assert (waits.held[Place("shop", "vip")], fake.state) == ("not_due: starts on 2026-01-02", {})
    assert shop.count("gold.campaign_member") == 0

    # It begins with a run that reaches somebody.
    handle, fake.handle = fake.handle, lambda request: Answer(503)  # type: ignore[method-assign]
    assert run("away", date(2026, 1, 2), campaign()).failed == {Place("shop", "vip"): "503"}
    assert shop.count("gold.campaign_member") == 0
    fake.handle = handle  # type: ignore[method-assign]

    assert run("one", date(2026, 1, 2), campaign()).state == "done"
    names = {member(n): n for n, _, _ in PEOPLE.values()}
    arms = {names[r.member_id]: r.arm for r in shop.read("gold.campaign_member").collect()}
    sent = {n for n in names.values() if f"EXTERN_ID:{member(n)}" in fake.state[AUDIENCE]}
    # Eve never agreed, so she is in neither arm; the others are where the draw put them, and only those treated left.
    assert set(arms) == {"ann", "bob", "cy", "dee"}
    assert set(arms.values()) == {"treated", "control"}
    assert {n for n, arm in arms.items() if arm == "treated"} == sent

    # A day later eve agrees. Who was there keeps arm and day, and she comes in with hers.
    grant(shop, {"eve": True})
    run("two", date(2026, 1, 3), campaign())
    days = {names[r.member_id]: (r.arm, r.assigned_on.day) for r in shop.read("gold.campaign_member").collect()}
    assert {n: d for n, d in days.items() if n != "eve"} == {n: (arm, 2) for n, arm in arms.items()}
    assert days["eve"][1] == 3
    there = set(fake.state[AUDIENCE])
    other = run("three", date(2026, 1, 3), campaign(salt="b"))
    assert "people would change arms" in other.held[Place("shop", "vip")]
    assert (other.planned, fake.state[AUDIENCE]) == (0, there)

    jan = [date(2026, 1, n) for n in range(1, 32)]
    # Switched off, its holdout stays until everyone's days are over, eve's last.
    ended = campaign(is_active=False)
    (judged,) = keep_holdouts(shop, [plain], [ended], as_of=jan[11])
    assert judged.holdouts == {"vip": ended.holdout}
    assert keep_holdouts(shop, [plain], [ended], as_of=jan[12]) == (plain,)
    # Ann: before, within, after. Bob: a purchase and a return of part of it. Dee: only the day after hers are over.
    sales(shop, (1, jan[0], 99), (1, jan[1], 5), (1, jan[10], 7), (1, jan[11], 50), (2, jan[3], 8), (2, jan[4], -3),
          (4, jan[11], 70))  # fmt: skip
    spent = {"ann": 12.0, "bob": 5.0, "cy": 0.0, "dee": 0.0}
    # On the twelfth the ten days of those who came on the second are over, and eve's are not.
    read = [shop.read(f"gold.{t}") for t in ("campaign_member", "dim_customer", "fact_transactions")]
    found = {r.arm: r for r in measure_arms(*read, days={"spring": 10}, as_of=jan[11]).collect()}
    for arm in ("treated", "control"):
        of = [spent[n] for n, a in arms.items() if a == arm]
        assert (found[arm].people, found[arm].bought) == (len(of), sum(v > 0 for v in of))
        assert found[arm].amount_mean == pytest.approx(sum(of) / len(of))
        assert found[arm].held_share == 0.5
    assert {arm: r.waiting for arm, r in found.items()} == {a: int(a == days["eve"][0]) for a in found}
    later = measure_arms(*read, days={"spring": 10}, as_of=jan[12]).collect()
    assert sum(r.people for r in later) == 5
    assert measure_arms(*read, days={"autumn": 10}, as_of=jan[12]).collect() == []


def test_of_two_ended_campaigns_the_later_keeps_its_holdout(
    lake: Lake, meta: tuple[FakeMeta, BatchDestination, FakeClock]
) -> None:
    _, plain, _ = meta
    ended, made = [], []
    for name, is_late in (("one", True), ("two", False)):
        said = {"name": name, "segment": "vip", "destination": "meta", "is_active": False}
        ended.append(Campaign.model_validate({**said, "holdout": {"share": 0.5, "salt": name}}))
        arm = {"campaign": name, "destination": "meta", "website_id": "shop", "arm": "treated"}
        drawn = {"holdout": f"{name} 0.5", "held_share": 0.5}
        for n in range(8):  # of every other segment it is the later one
            day = date(2026, 1, 1 + ((n % 2 == 0) == is_late))
            made.append(arm | drawn | {"segment_id": f"s{n}", "member_id": member(f"p{n}"), "assigned_on": day})
    lake.write("gold.campaign_member", rows(lake.spark, "gold.campaign_member", made))

    (kept,) = keep_holdouts(lake, [plain], ended, as_of=date(2026, 1, 3))

    assert {s: h.salt for s, h in kept.holdouts.items()} == {f"s{n}": ("one", "two")[n % 2] for n in range(8)}


def test_a_campaign_begins_on_each_website_with_the_run_that_sends_there(
    shop: Lake, meta: tuple[FakeMeta, BatchDestination, FakeClock]
) -> None:
    _, plain, clock = meta
    zoe = {"merchant_id": "club", "customer_key": 6, "customer_id": "zoe"}
    at = {"valid_from": AT, "email": "zoe@x.example"}
    person = rows(shop.spark, "gold.dim_customer", [zoe | at]).drop("customer_sk", "valid_to", "is_current")
    shop.write("gold.dim_customer", person)
    choice = {"merchant_id": "club", "customer_id": "zoe", "channel": "ads", "is_granted": True, "changed_at": AT}
    shop.write("silver.consent", rows(shop.spark, "silver.consent", [choice]))
    there = {"segment_id": "vip", "website_id": "club", "customer_key": 6, "customer_id": "zoe"}

    def keep_zoe(is_member: bool) -> None:
        made = [there | {"_deleted": not is_member}]
        shop.write("gold.customer_segment_customer", rows(shop.spark, "gold.customer_segment_customer", made))

    said = {"name": "spring", "segment": "vip", "destination": "meta", "holdout": {"share": 0.01, "salt": "a"}}
    campaign = Campaign.model_validate(said)
    (made,) = apply_campaigns([plain], [campaign])
    assert isinstance(made, BatchDestination)
    put_in_segment(shop, [], gone=(1, 2, 3, 4, 5))
    keep_zoe(True)
    assert activation(shop, made, clock, "before").run()["meta"].ok == 1

    # Nobody of the club is in the segment any more, which a brake holds; the shop's people come.
    keep_zoe(False)
    put_in_segment(shop, [1, 2, 3, 4, 5])
    (preview,) = activation(shop, made, clock, "look", is_confirmed=False).preview()
    assert preview.held == {Place("club", "vip"): "segment_empty"}
    assert '"... 2 more"' in preview.body  # of the four who would come
    work = activation(shop, made, clock, "one", is_confirmed=False, campaigns=[campaign])
    report = work.run()["meta"]
    assert (report.ok, report.held) == (4, preview.held)
    arms = {(r.website_id, r.member_id): r.run_id for r in shop.read("gold.campaign_member").collect()}
    assert arms == {("shop", member(n)): "one" for n in ("ann", "bob", "cy", "dee")}


def test_commands_show_before_they_send_and_say_what_was_held(shop: Lake, tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=140)
    folder = tmp_path / "conf" / "destinations"
    folder.mkdir(parents=True)

    def job(run_id: str) -> Any:
        run = SimpleNamespace(run_id=run_id, started_at=AT)
        settings = SimpleNamespace(conf_dir=tmp_path / "conf", as_of="latest")
        sources = SimpleNamespace(merchants=[SimpleNamespace(id="new")])
        made: Any = SimpleNamespace(lake=shop, settings=settings, run=run, sources=sources)
        made.as_of, made.segments_are_of = lambda: date(2026, 1, 2), lambda: None
        return made

    with opened(WORLDS["tiktok"], FakeClock()) as (fake, made):
        said = {"kind": "tiktok", "base_url": made.base_url, "access_token": "env:TEST_TOKEN", "advertiser_id": "123"}
        (folder / "ads.yml").write_text(json.dumps(said | {"new_audiences": {"vip": "Best customers"}}))

        commands.print_preview(job("look"), console, (), validate=True)
        assert (fake.seen, fake.named) == ([], {})
        assert "the audience 'Best customers' is found by its name or made" in out.getvalue()
        assert '"... 2 more"' in out.getvalue()
        assert sha("ann@x.example") not in out.getvalue()
        commands.activate(job("one"), Progress(console), console)
        ((made_there, name),) = fake.named.items()
        assert (name, len(fake.state[made_there])) == ("Best customers", 7)  # four addresses, three telephones
        (size,) = shop.read("gold.activation_size").collect()
        assert (size.eligible, size.reached_low, size.reached_high) == (4, 7, 7)

        assert commands.suppress(job("say"), "shop", ["bob", "Bob"], reason="asked", destination="ads") == (2, 1)
        with pytest.raises(SettingsError, match="No retailer is called 'shp'; there are new, shop"):
            commands.suppress(job("say"), "shp", ["bob"], reason="asked", destination="ads")
        assert commands.suppress(job("say"), "new", ["zoe"], reason="asked", destination="ads") == (1, 1)
        with pytest.raises(SettingsError, match="A reason is one of asked, complaint"):
            commands.suppress(job("say"), "shop", ["bob"], reason="why not", destination="ads")
        with pytest.raises(SettingsError, match="No destination is called 'adds'"):
            commands.switch(job("say"), "adds", is_stopped=True, reason=None)
        put_in_segment(shop, [1], gone=(2, 3, 4, 5))
        with pytest.raises(ActivationHeld, match="removes_50%_of_present"):
            commands.activate(job("two"), Progress(console), console)
        assert f"EMAIL_SHA256:{sha('bob@x.example')}" not in fake.state[made_there]
        commands.activate(job("three"), Progress(console), console, is_confirmed=True)
        assert fake.state[made_there] == {f"EMAIL_SHA256:{sha('ann@x.example')}", f"PHONE_SHA256:{sha('+49301')}"}

        (folder / "ads.yml").write_text(json.dumps(said | {"is_active": False}))
        commands.activate(job("four"), Progress(console), console)
        assert "ads is not active, and 1 people may be there" in out.getvalue()
        (folder / "ads.yml").write_text(json.dumps(said | {"new_audiences": {"vip": "Best customers"}}))

        assert len(fake.named) == 1
        commands.print_queue(job("look"), console)
        commands.print_reconciliation(job("look"), console, ())
    assert "completed  4" in out.getvalue()
    assert "not told" in out.getvalue()

    proof = Console(file=io.StringIO(), record=True, width=140)
    commands.print_proof(job("look"), proof, "shop", ["nobody", "bob"])
    text = proof.export_text()
    lines = [line.split() for line in text.splitlines()]
    assert [(n[0], *n[3:7]) for n in lines[1:-1]][-2:] == [
        ("2", "ads", "vip", "remove", "sending"),
        ("2", "ads", "vip", "remove", "ok"),
    ]
    assert "1 of 2 were never sent" in text
    assert "bob" not in text
    with pytest.raises(SettingsError, match="No retailer is called 'shp'"):
        commands.print_proof(job("look"), proof, "shp", ["bob"])
