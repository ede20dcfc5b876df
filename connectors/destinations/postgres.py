"""A table in PostgreSQL: members staged and merged in one transaction; whoever leaves stays as a row that says so.

website_id, segment_id, member_id, key_set (together the key), is_member, keys jsonb, event_id, changed_at
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from connectors.base import OwnDestination
from connectors.engine import Connector, Limits
from connectors.exchange import OK, Batch, BatchRefused, Halted, Outcome, Place, RetryLater
from connectors.pace import Clock
from connectors.secret import Secret
from lakehouse.extras import need_extra

if TYPE_CHECKING:
    import psycopg

_HERE = ("", "localhost", "127.0.0.1", "::1")


class PostgresDestination(OwnDestination):
    """A table of the retailer's own.

    Attributes:
        kind: Tells it from other destinations.
        dsn: Connection string. The connection is encrypted unless it is to this machine.
        table_schema: Schema of the table.
        table: Table; made when it is not there.
        rows_per_transaction: Members merged at once.
    """

    kind: Literal["postgres"]
    dsn: Secret
    table_schema: str = Field("public", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    table: str = Field("segment_member", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    rows_per_transaction: int = Field(5_000, ge=1, le=100_000)

    def connect(self, clock: Clock) -> PostgresConnector:
        """Returns the connector; nothing is sent yet."""
        return PostgresConnector(self, clock)


class PostgresConnector(Connector):
    """Merges batches; each is one transaction, so it is there whole or not at all."""

    listed_by = "member_id"

    def __init__(self, config: PostgresDestination, clock: Clock) -> None:
        self.config = config
        self.limits = Limits(rows=config.rows_per_transaction, keeps_key_sets=True, window=10)
        self._clock = clock
        self._open: psycopg.Connection | None = None
        self._requests = 0

    @property
    def requests(self) -> int:
        """Transactions so far."""
        return self._requests

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Stage the batch by COPY and merge it, in one transaction."""
        need_extra("psycopg", "postgres", "Sending to PostgreSQL")
        import psycopg
        from psycopg import sql

        is_member = batch.op == "add"
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        self._requests += 1
        try:
            connection = self._connection()
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(sql.SQL("CREATE TEMP TABLE staged (LIKE {}) ON COMMIT DROP").format(self._name()))
                with cursor.copy(sql.SQL("COPY staged FROM STDIN")) as copy:
                    for row in batch.rows:
                        keys = json.dumps(dict(row.keys)) if is_member else "{}"
                        place = (batch.place.website_id, batch.place.segment_id)
                        copy.write_row((*place, row.member_id, row.key_set, is_member, keys, row.event_id, now))
                cursor.execute(
                    sql.SQL(
                        "INSERT INTO {0} AS t SELECT * FROM staged "
                        "ON CONFLICT (website_id, segment_id, member_id, key_set) DO UPDATE SET "
                        "is_member = excluded.is_member, keys = excluded.keys, event_id = excluded.event_id, "
                        "changed_at = excluded.changed_at WHERE t.event_id <> excluded.event_id"
                    ).format(self._name())
                )
        except psycopg.Error as e:
            raise self._judge(e) from None
        return [OK] * len(batch.rows)

    def listed(self, place: Place) -> Iterator[str]:
        """Yields the id of every member."""
        need_extra("psycopg", "postgres", "Sending to PostgreSQL")
        import psycopg
        from psycopg import sql

        statement = sql.SQL("SELECT DISTINCT member_id FROM {} WHERE website_id = %s AND segment_id = %s AND is_member")
        try:
            with self._connection().cursor() as cursor:
                for (member,) in cursor.execute(statement.format(self._name()), (place.website_id, place.segment_id)):
                    yield str(member)
        except psycopg.Error as e:
            raise self._judge(e) from None

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _name(self) -> psycopg.sql.Identifier:
        from psycopg import sql

        return sql.Identifier(self.config.table_schema, self.config.table)

    def _connection(self) -> psycopg.Connection:
        import psycopg
        from psycopg import conninfo, sql

        if self._open is not None and not self._open.closed:
            return self._open
        said = conninfo.conninfo_to_dict(self.config.dsn.reveal())
        host = str(said.get("host") or said.get("hostaddr") or "")
        if host not in _HERE and not host.startswith("/"):
            said.setdefault("sslmode", "verify-full")
            if said["sslmode"] in ("disable", "allow", "prefer"):
                raise Halted("tls_is_off")
        self._open = psycopg.connect(
            conninfo.make_conninfo(**{k: str(v) for k, v in said.items() if v is not None}),
            autocommit=True,
            connect_timeout=15,
        )
        self._open.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (website_id text, segment_id text, member_id text, key_set text, "
                "is_member boolean NOT NULL, keys jsonb NOT NULL, event_id text NOT NULL, "
                "changed_at timestamptz NOT NULL, PRIMARY KEY (website_id, segment_id, member_id, key_set))"
            ).format(self._name())
        )
        return self._open

    def _judge(self, error: psycopg.Error) -> Exception:
        """Class of SQLSTATE: 08, 40, 53, 57 pass; 28 and 42 are for people; 22 and 23 are about a row."""
        self.close()
        state = error.sqlstate or ""
        if state[:2] in ("28", "42", "3D"):
            return Halted(state)
        if state[:2] in ("22", "23"):
            return BatchRefused(state)
        return RetryLater(state or type(error).__name__, may_be_applied=True)
