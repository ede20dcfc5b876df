"""Kafka: records against brokers that speak its protocol, in this process; and a real one, where it is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connectors.base import BatchDestination
from connectors.brakes import Brakes
from connectors.destinations import kinds
from connectors.engine import Engine
from tests.support.activation import PLACE, Killed, Person, Watched, sha
from tests.support.clock import FakeClock
from tests.support.memory_ledger import MemoryLedger, Wanted

PEOPLE = [Person(n) for n in range(7)]


def wanted(person: Person) -> Wanted:
    return Wanted(person.member_id, {"member_id": person.member_id, "email_sha256": sha(person.email)})


def ledger_of(people: list[Person]) -> MemoryLedger:
    return MemoryLedger("d", {PLACE: [wanted(p) for p in people]}, permitted={p.member_id for p in PEOPLE})


def destination_of(servers: str, **more: Any) -> BatchDestination:
    said = {"name": "bus", "kind": "kafka", "bootstrap_servers": servers, "security": "plaintext", "topic": "segments"}
    made = kinds()["kafka"].model_validate(said | more)
    assert isinstance(made, BatchDestination)
    return made


def run(ledger: MemoryLedger, destination: BatchDestination, step: Any = lambda _: None) -> Any:
    connector = destination.connect(FakeClock())
    try:
        return Engine(Watched(connector, step, 3), ledger, FakeClock(), Brakes(is_confirmed=True)).run()
    finally:
        connector.close()  # type: ignore[attr-defined]


def listed(destination: BatchDestination) -> set[str]:
    return set(destination.connect(FakeClock()).listed(PLACE) or ())


def make_topic(servers: str, name: str) -> str:
    """Ask for a topic as a client does that may make one, which the brokers in this process go by."""
    from confluent_kafka import Producer

    Producer({"bootstrap.servers": servers, "log_level": 0}).list_topics(name, timeout=20)
    return name


def records(servers: str, topic: str) -> list[Any]:
    from confluent_kafka import Consumer, TopicPartition

    reader = Consumer({"bootstrap.servers": servers, "group.id": "t", "enable.partition.eof": True, "log_level": 0})
    parts = list(reader.list_topics(topic, timeout=20).topics[topic].partitions)
    reader.assign([TopicPartition(topic, p, 0) for p in parts])
    found, ends = [], 0
    while ends < len(parts):
        record = reader.poll(20)
        assert record is not None
        if record.error():
            ends += 1
        else:
            found.append(record)
    reader.close()
    return found


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    """Address of librdkafka's own brokers, which live in this process."""
    from confluent_kafka import Producer

    holder = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = holder.list_topics(timeout=20).brokers.values()
    yield f"{broker.host}:{broker.port}"
    holder.flush(1)


def test_a_topic_follows_the_segment_with_tombstones_for_those_who_left(brokers: str) -> None:
    destination = destination_of(brokers, audiences={"vip": "followed"})
    ledger = ledger_of(PEOPLE)
    missing = run(ledger, destination)
    assert (missing.state, missing.code, missing.left) == ("halted", "UNKNOWN_TOPIC_OR_PART", 6)
    make_topic(brokers, "followed")

    assert run(ledger, destination).ok == 7
    ledger.eligible[PLACE] = [wanted(p) for p in PEOPLE[1:]]
    left = run(ledger, destination)
    assert (left.ok, run(ledger, destination).planned) == (1, 0)

    found = records(brokers, "followed")
    gone = [r.key().decode() for r in found if r.value() is None]
    assert gone == [f"shop/vip/{PEOPLE[0].member_id}"]
    first = next(r for r in found if r.key().decode().endswith(PEOPLE[3].member_id))
    assert json.loads(first.value()) == {
        "segment_id": "vip",
        "website_id": "shop",
        "member_id": PEOPLE[3].member_id,
        "email_sha256": sha(PEOPLE[3].email),
    }
    assert {k for k, _ in first.headers()} == {"event_id", "batch_key"}
    assert listed(destination) == {p.member_id for p in PEOPLE[1:]}


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.explicit, Phase.generate),
)
@given(
    days=st.lists(
        st.tuples(st.frozensets(st.integers(0, 6)), st.frozensets(st.integers(0, 6), max_size=2), st.integers(0, 20)),
        min_size=1,
        max_size=3,
    )
)
def test_wherever_a_run_dies_the_newest_records_are_the_segment(brokers: str, days: list[Any]) -> None:
    ledger = ledger_of([])
    destination = destination_of(brokers, audiences={"vip": make_topic(brokers, f"t{sha(repr(days))[:12]}")})
    versions = [0] * 7
    for numbers, renewed, dies_at in days:
        for n in renewed:
            versions[n] += 1
        ledger.eligible[PLACE] = [wanted(Person(n, versions[n])) for n in sorted(numbers)]
        steps = iter(range(dies_at))

        def step(what: str, left: Any = steps) -> None:
            if next(left, None) is None:
                raise Killed(what)

        try:
            run(ledger, destination, step)
        except Killed:
            ledger.step = lambda _: None
        assert run(ledger, destination).state == "done"
    assert listed(destination) == {PEOPLE[n].member_id for n in numbers}
    assert run(ledger, destination).planned == 0


def test_a_broker_that_is_away_leaves_all_to_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from connectors.destinations import kafka

    monkeypatch.setattr(kafka, "_FIRST_ANSWER_SECONDS", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    report = run(ledger_of(PEOPLE[:2]), destination_of(f"127.0.0.1:{port}"))
    assert (report.state, report.ok, report.left) == ("done", 0, 2)


def test_records_acknowledged_before_one_that_halts_may_be_there() -> None:
    class Broker:
        """Takes records until it may no longer."""

        left = 2

        def produce(self, topic: str, *, on_delivery: Any, **record: Any) -> None:
            self.left -= 1
            refusal = SimpleNamespace(name=lambda: "TOPIC_AUTHORIZATION_FAILED")
            on_delivery(None if self.left >= 0 else refusal, None)

        def poll(self, seconds: float) -> None: ...

        purge = flush = lambda self, *seconds: None

    ledger = ledger_of(PEOPLE[:3])
    connector = destination_of("127.0.0.1:9").connect(FakeClock())
    connector._producer = Broker()  # type: ignore[attr-defined]
    report = Engine(connector, ledger, FakeClock()).run()
    assert (report.state, report.code) == ("halted", "TOPIC_AUTHORIZATION_FAILED")
    assert {m.status for m in ledger.members.values()} == {"unknown"}


def test_records_leave_this_machine_encrypted_and_the_password_is_not_shown() -> None:
    with pytest.raises(ValueError, match="for this machine alone"):
        destination_of("broker.example:9092")
    with pytest.raises(ValueError, match="username and password"):
        destination_of("broker.example:9093", security="sasl_ssl", username="shop")
    made = destination_of("broker.example:9093", security="sasl_ssl", username="shop", password="env:KAFKA_PASSWORD")
    assert "KAFKA_PASSWORD" not in f"{made!r}{made.model_dump_json()}"


@pytest.fixture(scope="module")
def real_broker() -> Iterator[str]:
    """Address of an Apache Kafka broker started for the tests, when its jars are on this machine."""
    jars, java = os.environ.get("KAFKA_JARS"), shutil.which("java")
    if not jars or not java or not list(Path(jars).glob("kafka_2.13-*.jar")):
        pytest.skip("no Apache Kafka here: KAFKA_JARS names no folder with kafka_2.13 and what it needs")
    folder = Path(tempfile.mkdtemp(prefix="kafka"))
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    (folder / "server.properties").write_text(
        f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{ports[1]}\n"
        f"listeners=PLAINTEXT://127.0.0.1:{ports[0]},CONTROLLER://127.0.0.1:{ports[1]}\n"
        f"controller.listener.names=CONTROLLER\nlog.dirs={folder / 'data'}\noffsets.topic.replication.factor=1\n"
        "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nauto.create.topics.enable=false\n"
    )
    command = ["nice", "-n", "15", java, "-Xmx256m", "-cp", f"{jars}/*"]
    settings_file = str(folder / "server.properties")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    form = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", settings_file]
    subprocess.run([*command, *form], check=True, **quiet)
    running = subprocess.Popen([*command, "kafka.Kafka", settings_file], **quiet)
    try:
        for _ in range(600):
            with socket.socket() as ask:
                if ask.connect_ex(("127.0.0.1", ports[0])) == 0:
                    break
            assert running.poll() is None, "the broker ended"
            time.sleep(0.2)
        yield f"127.0.0.1:{ports[0]}"
    finally:
        running.terminate()
        running.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_real_broker_keeps_the_newest_record_of_each_person(real_broker: str) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    destination = destination_of(real_broker)
    topic = NewTopic("segments", num_partitions=3, config={"cleanup.policy": "compact", "max.message.bytes": "1000"})
    admin = AdminClient({"bootstrap.servers": real_broker})
    admin.create_topics([topic])["segments"].result(60)

    ledger = ledger_of(PEOPLE)
    assert run(ledger, destination).ok == 7
    too_long = Wanted(PEOPLE[6].member_id, {"member_id": PEOPLE[6].member_id, "customer_id": "x" * 2_000})
    ledger.eligible[PLACE] = [*(wanted(p) for p in PEOPLE[1:6]), too_long]
    report = run(ledger, destination)
    # One left; one has a new record, which the topic refuses; that the old one goes is not asked of the same key.
    assert (report.ok, report.rejected) == (2, 1)
    assert {m.code for m in ledger.members.values()} == {"", "keys_still_in_use", "MSG_SIZE_TOO_LARGE"}
    assert listed(destination) == {p.member_id for p in PEOPLE[1:]}
