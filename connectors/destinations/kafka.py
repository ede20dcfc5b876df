"""Kafka topics: a record per change of a person, keyed by segment and person; a removal is a tombstone.

key `website/segment/member` (each quoted); value JSON: segment_id, website_id, member_id and keys, or nothing when the
person left; headers `event_id`, the same in every attempt at one change, and `batch_key`. On a topic with
`cleanup.policy=compact` the newest record of each key is who is in the segment now.

Source: Apache Kafka, idempotent producer (KIP-98) and log compaction; librdkafka's configuration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal
from urllib.parse import quote, unquote

from pydantic import Field, model_validator

from connectors.base import OwnDestination
from connectors.engine import Connector, Limits
from connectors.exchange import OK, Batch, Halted, Outcome, Place, RetryLater, Row
from connectors.http import LOOPBACK
from connectors.pace import Clock
from connectors.secret import Secret
from lakehouse.extras import need_extra
from lakehouse.logs import get_logger

if TYPE_CHECKING:
    import confluent_kafka

log = get_logger(__name__)

_FOR_PEOPLE: Final = frozenset(
    {
        "_AUTHENTICATION",
        "_SSL",
        "CLUSTER_AUTHORIZATION_FAILED",
        "INVALID_CONFIG",
        "SASL_AUTHENTICATION_FAILED",
        "TOPIC_AUTHORIZATION_FAILED",
        "TOPIC_EXCEPTION",
        "UNKNOWN_TOPIC_OR_PART",
        "_UNKNOWN_TOPIC",
    }
)
"""Errors that trying again does not mend."""
_FIRST_ANSWER_SECONDS: Final = 30.0
_ABOUT_THE_RECORD: Final = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG"})


class KafkaDestination(OwnDestination):
    """A Kafka topic.

    Attributes:
        kind: Tells it from other destinations.
        bootstrap_servers: `host:port`, several by comma.
        topic: Topic, which must exist; `audiences` may name another per segment.
        security: How the connection is protected; `plaintext` to this machine alone.
        sasl_mechanism: How the account is proved, with `sasl_ssl`.
        username: Account.
        password: Its password.
        rows_per_batch: Records between two commits of the ledger.
        acknowledged_within_seconds: Time for the brokers to acknowledge a batch.
    """

    takes_content: ClassVar[bool] = True
    kind: Literal["kafka"]
    bootstrap_servers: str = Field(pattern=r"^[^\s,]+:\d+(,[^\s,]+:\d+)*$")
    topic: str = Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")
    security: Literal["ssl", "sasl_ssl", "plaintext"] = "ssl"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str | None = None
    password: Secret | None = None
    rows_per_batch: int = Field(10_000, ge=1, le=100_000)
    acknowledged_within_seconds: float = Field(120.0, gt=0)

    @model_validator(mode="after")
    def _is_protected(self) -> KafkaDestination:
        hosts = [server.rpartition(":")[0] for server in self.bootstrap_servers.split(",")]
        if self.security == "plaintext" and not set(hosts) <= LOOPBACK:
            raise ValueError("security: plaintext is for this machine alone; use ssl or sasl_ssl")
        if (self.security == "sasl_ssl") != bool(self.username and self.password):
            raise ValueError("username and password go with security: sasl_ssl, and it with them")
        return self

    def connect(self, clock: Clock) -> KafkaConnector:
        """Returns the connector; nothing is sent yet."""
        return KafkaConnector(self)


class KafkaConnector(Connector):
    """Produces records, and takes each for sent once all replicas in sync have it."""

    listed_by = "member_id"

    def __init__(self, config: KafkaDestination) -> None:
        self.config = config
        self.limits = Limits(rows=config.rows_per_batch, removal_keys=("member_id",))
        self._producer: confluent_kafka.Producer | None = None
        self._requests = 0

    @property
    def requests(self) -> int:
        """Batches produced so far."""
        return self._requests

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Produce a record per row and wait until the brokers have answered for each."""
        need_extra("confluent_kafka", "kafka", "Sending to Kafka")
        from confluent_kafka import KafkaException

        self._requests += 1
        topic = self._topic(batch.place)
        answers: dict[int, Outcome] = {}

        def told(number: int) -> Any:
            return lambda error, _: answers.__setitem__(number, OK if error is None else _outcome(error.name()))

        producer = self._connected(topic)
        try:
            for number, row in enumerate(batch.rows):
                record = self._record(batch, row)
                while True:
                    try:
                        producer.produce(topic, on_delivery=told(number), **record)
                        break
                    except BufferError:  # the queue is full: let some of it leave
                        producer.poll(1.0)
                producer.poll(0)
            producer.flush(self.config.acknowledged_within_seconds)
        except KafkaException as e:
            self.close()
            raise _failure(e.args[0].name(), may_be_applied=True) from None
        for code in {o.code for o in answers.values()} & _FOR_PEOPLE:
            self.close()
            # Of the other records of the batch some may have been acknowledged, or be on their way.
            raise Halted(code, may_be_applied=True)
        if len(answers) < len(batch.rows):
            self.close()  # what still waits in the queue is dropped: it is sent again, in order
        return [answers.get(n, Outcome("unknown", "not_acknowledged")) for n in range(len(batch.rows))]

    def body(self, batch: Batch) -> Any:
        """Returns the records of a batch."""
        made = [self._record(batch, row) for row in batch.rows]
        return [{"key": r["key"].decode(), "value": json.loads(r["value"]) if r["value"] else None} for r in made]

    def listed(self, place: Place) -> Iterator[str]:
        """Yields the id of every member whose newest record is no tombstone; reads the topic from its beginning."""
        need_extra("confluent_kafka", "kafka", "Sending to Kafka")
        from confluent_kafka import Consumer, KafkaException, TopicPartition

        topic = self._topic(place)
        prefix = f"{quote(place.website_id, safe='')}/{quote(place.segment_id, safe='')}/"
        there: set[str] = set()
        # No group: nothing is committed, whoever reads the topic otherwise is not disturbed.
        reader = Consumer(
            {**self._settings(), "group.id": "reconcile", "enable.auto.commit": False, "enable.partition.eof": True}
        )
        try:
            parts = reader.list_topics(topic, timeout=_FIRST_ANSWER_SECONDS).topics[topic].partitions
            reader.assign([TopicPartition(topic, p, 0) for p in parts])
            left = set(parts)
            while left:
                record = reader.poll(30.0)
                if record is None:
                    raise RetryLater("topic_not_read", may_be_applied=False)
                if (error := record.error()) is not None:
                    if error.name() != "_PARTITION_EOF":
                        raise _failure(error.name(), may_be_applied=False)
                    left.discard(record.partition())
                    continue
                key = (record.key() or b"").decode()
                if key.startswith(prefix):
                    member = unquote(key.removeprefix(prefix))
                    there.discard(member) if record.value() is None else there.add(member)
        except KafkaException as e:
            raise _failure(e.args[0].name(), may_be_applied=False) from None
        finally:
            reader.close()
        yield from sorted(there)

    def close(self) -> None:
        """Let the producer go; what it has not sent is dropped."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None

    def _topic(self, place: Place) -> str:
        return self.config.audiences.get(place.segment_id, self.config.topic)

    def _record(self, batch: Batch, row: Row) -> dict[str, Any]:
        place = batch.place
        key = "/".join(quote(part, safe="") for part in (place.website_id, place.segment_id, row.member_id))
        said: dict[str, Any] = {
            "segment_id": place.segment_id,
            "website_id": place.website_id,
            **dict(sorted(row.keys.items())),
        }
        if content := self.config.content.get(place.segment_id):
            said["content"] = content
        value = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode() if batch.op == "add" else None
        headers = [("event_id", row.event_id.encode()), ("batch_key", batch.key.encode())]
        return {"key": key.encode(), "value": value, "headers": headers}

    def _connected(self, topic: str) -> confluent_kafka.Producer:
        from confluent_kafka import KafkaException, Producer

        if self._producer is not None:
            return self._producer
        made = Producer(
            {
                **self._settings(),
                "acks": "all",
                "enable.idempotence": True,
                "delivery.timeout.ms": int(self.config.acknowledged_within_seconds * 1000),
                # The partition of a key must be the one any other client would choose.
                "partitioner": "murmur2_random",
            }
        )
        try:
            found = made.list_topics(topic, timeout=_FIRST_ANSWER_SECONDS).topics[topic]
        except KafkaException as e:
            raise _failure(e.args[0].name(), may_be_applied=False) from None
        if found.error is not None:
            raise _failure(found.error.name(), may_be_applied=False)
        self._producer = made
        return made

    def _settings(self) -> dict[str, Any]:
        c = self.config
        said: dict[str, Any] = {
            "bootstrap.servers": c.bootstrap_servers,
            "security.protocol": c.security,
            "allow.auto.create.topics": False,
            "logger": log,
            # Connections that come and go are the client's business; what fails is told by the record.
            "log_level": 2,
        }
        if c.username and c.password:
            said |= {
                "sasl.mechanism": c.sasl_mechanism,
                "sasl.username": c.username,
                "sasl.password": c.password.reveal(),
            }
        return said


def _outcome(code: str) -> Outcome:
    return Outcome("reject" if code in _ABOUT_THE_RECORD else "unknown", code)


def _failure(code: str, *, may_be_applied: bool) -> Exception:
    return (
        Halted(code, may_be_applied=may_be_applied)
        if code in _FOR_PEOPLE
        else RetryLater(code, may_be_applied=may_be_applied)
    )
