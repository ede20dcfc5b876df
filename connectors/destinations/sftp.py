"""CSV files on a partner's SFTP server: one per batch, under a name made from its content, so a repeat changes nothing.

<folder>/<website>/<segment>/<add|remove>-<first 32 digits of the batch's key>.csv
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field

from connectors.base import BatchDestination
from connectors.engine import Connector, Limits
from connectors.exchange import OK, UNREADABLE, Batch, Halted, Outcome, RetryLater
from connectors.pace import Clock
from connectors.secret import Secret
from lakehouse.extras import need_extra

if TYPE_CHECKING:
    import paramiko


class SftpDestination(BatchDestination):
    """A partner's server.

    Attributes:
        kind: Tells it from other destinations.
        host: Server.
        port: Port.
        user: Account.
        password: Password, where there is no key.
        private_key: Private key in OpenSSH's form: Ed25519, RSA or ECDSA, without a passphrase.
        host_key: The server's public key as in known_hosts, such as `ssh-ed25519 AAAA...`; no other server is trusted.
        folder: Where files go.
        rows_per_file: Members per file.
    """

    keeps_places_apart: ClassVar[bool] = True
    kind: Literal["sftp"]
    host: str = Field(min_length=1)
    port: int = Field(22, ge=1, le=65535)
    user: str = Field(min_length=1)
    password: Secret | None = None
    private_key: Secret | None = None
    host_key: str = Field(pattern=r"^[a-z0-9@.-]+ [A-Za-z0-9+/=]+$")
    folder: str = Field(".", min_length=1)
    rows_per_file: int = Field(100_000, ge=1)

    def connect(self, clock: Clock) -> SftpConnector:
        """Returns the connector; nothing is sent yet."""
        return SftpConnector(self)


class SftpConnector(Connector):
    """Writes beside, looks at the size, and renames: a reader never sees half a file."""

    def __init__(self, config: SftpDestination) -> None:
        self.config = config
        self.limits = Limits(rows=config.rows_per_file, window=1)
        self._client: paramiko.SSHClient | None = None
        self._requests = 0

    @property
    def requests(self) -> int:
        """Files written so far."""
        return self._requests

    def send(self, batch: Batch) -> Sequence[Outcome]:
        """Write one file."""
        need_extra("paramiko", "sftp", "Sending by SFTP")
        import paramiko

        content = self.content(batch)
        self._requests += 1
        try:
            sftp = self._connection().open_sftp()
            parts = (quote(batch.place.website_id, safe=""), quote(batch.place.segment_id, safe=""))
            folder = self.config.folder
            for part in parts:
                folder = f"{folder}/{part.replace('.', '%2E') if not part.strip('.') else part}"
                _make(sftp, folder)
            final = f"{folder}/{batch.op}-{batch.key[:32]}.csv"
            with sftp.open(f"{final}.part", "wb") as file:
                file.write(content)
            if sftp.stat(f"{final}.part").st_size != len(content):
                raise RetryLater("size_differs", may_be_applied=False)
            sftp.posix_rename(f"{final}.part", final)
            sftp.close()
        except (paramiko.AuthenticationException, paramiko.BadHostKeyException) as e:
            raise Halted(type(e).__name__) from None
        except PermissionError:
            raise Halted("permission") from None
        except (paramiko.SSHException, EOFError, OSError) as e:
            self.close()
            raise RetryLater(type(e).__name__, may_be_applied=True) from None
        return [OK] * len(batch.rows)

    def content(self, batch: Batch) -> bytes:
        """Returns the file of a batch: event_id, member_id and keys, with cells no spreadsheet would run."""
        names = sorted({k for row in batch.rows for k in row.keys})
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["event_id", "member_id", *names])
        for row in batch.rows:
            writer.writerow([_safe(v) for v in (row.event_id, row.member_id, *(row.keys.get(n, "") for n in names))])
        return out.getvalue().encode()

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connection(self) -> paramiko.SSHClient:
        import paramiko
        from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

        if self._client is not None:
            return self._client
        c = self.config
        name = c.host if c.port == 22 else f"[{c.host}]:{c.port}"
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        entry = None
        with suppress(paramiko.SSHException, InvalidHostKey):
            entry = HostKeyEntry.from_line(f"{name} {c.host_key}")
        if entry is None or entry.key is None:
            raise Halted("host_key_unreadable")
        client.get_host_keys().add(name, entry.key.get_name(), entry.key)
        client.connect(
            c.host,
            c.port,
            c.user,
            password=c.password.reveal() if c.password else None,
            pkey=_key(c.private_key.reveal()) if c.private_key else None,
            timeout=15,
            allow_agent=False,
            look_for_keys=False,
        )
        self._client = client
        return client


def _key(text: str) -> paramiko.PKey:
    """Returns a private key of whichever kind it is.

    Raises:
        Halted: it cannot be read.
    """
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey):
        with suppress(paramiko.SSHException, AssertionError, *UNREADABLE):
            return kind.from_private_key(io.StringIO(text))
    raise Halted("private_key_unreadable")


def _make(sftp: paramiko.SFTPClient, folder: str) -> None:
    try:
        sftp.stat(folder)
    except FileNotFoundError:
        sftp.mkdir(folder)


def _safe(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else cell
