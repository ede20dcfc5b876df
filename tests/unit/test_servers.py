"""PostgreSQL and SFTP against real servers that the tests start."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from connectors.base import BatchDestination
from connectors.destinations import kinds
from connectors.engine import Engine
from connectors.exchange import RetryLater, cut_batches, event_id
from tests.support.activation import PLACE, Killed, Person, Watched, sha
from tests.support.clock import FakeClock
from tests.support.memory_ledger import MemoryLedger, Wanted

PEOPLE = [Person(n) for n in range(7)]


def wanted(person: Person) -> Wanted:
    return Wanted(person.member_id, {"member_id": person.member_id, "email_sha256": sha(person.email)})


def ledger_of(people: list[Person]) -> MemoryLedger:
    return MemoryLedger("d", {PLACE: [wanted(p) for p in people]}, permitted={p.member_id for p in PEOPLE})


def run(ledger: MemoryLedger, destination: BatchDestination) -> Any:
    connector = destination.connect(FakeClock())
    try:
        return Engine(Watched(connector, lambda _: None, 3), ledger, FakeClock()).run()
    finally:
        connector.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL server of the tests' own."""
    initdb, server = shutil.which("initdb"), shutil.which("postgres")
    if not initdb or not server:
        pytest.skip("no PostgreSQL server on this machine: initdb and postgres are not on the path")
    user: str | None = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no account called postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if user:
        shutil.chown(folder, user)
    as_user: dict[str, Any] = {"user": user, "cwd": folder} if user else {"cwd": folder}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([initdb, "-D", folder / "data", "-U", "tester", "-A", "trust", "-N"], check=True, **quiet, **as_user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    running = subprocess.Popen([server, "-D", folder / "data", *options], **quiet, **as_user)
    try:
        import psycopg

        dsn = f"host=127.0.0.1 port={port} user=tester dbname=postgres"
        for _ in range(100):
            try:
                psycopg.connect(dsn).close()
                break
            except psycopg.OperationalError:
                threading.Event().wait(0.1)
        yield dsn
    finally:
        running.terminate()
        running.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def members(dsn: str) -> dict[str, bool]:
    import psycopg

    with psycopg.connect(dsn) as c:
        return dict(c.execute("SELECT member_id, is_member FROM public.segment_member").fetchall())


def member_rows(dsn: str, member_id: str) -> list[Any]:
    import psycopg

    asked = "SELECT keys, is_member FROM public.segment_member WHERE member_id = %s ORDER BY is_member"
    with psycopg.connect(dsn) as c:
        return c.execute(asked, (member_id,)).fetchall()


def test_a_table_follows_the_segment(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DSN", postgres)
    destination = kinds()["postgres"].model_validate({"name": "pg", "kind": "postgres", "dsn": "env:TEST_DSN"})
    assert isinstance(destination, BatchDestination)
    ledger = ledger_of(PEOPLE)

    assert run(ledger, destination).ok == 7
    ledger.eligible[PLACE] = [wanted(p) for p in PEOPLE[1:]]
    assert (run(ledger, destination).ok, run(ledger, destination).planned) == (1, 0)

    assert members(postgres) == {p.member_id: p.number > 0 for p in PEOPLE}
    # Another address is another row, and the old one is no member's any more.
    ledger.eligible[PLACE] = [wanted(Person(1, version=1)), *(wanted(p) for p in PEOPLE[2:])]
    assert (run(ledger, destination).ok, run(ledger, destination).planned) == (2, 0)
    assert member_rows(postgres, PEOPLE[1].member_id) == [({}, False), (wanted(Person(1, version=1)).keys, True)]
    connector = destination.connect(FakeClock())
    assert set(connector.listed(PLACE) or ()) == {p.member_id for p in PEOPLE[1:]}
    assert "TEST_DSN" not in repr(destination)


def test_a_dead_run_leaves_whole_batches_and_the_next_completes_them(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DSN", postgres)
    said = {"name": "pg", "kind": "postgres", "dsn": "env:TEST_DSN", "table": "other"}
    destination = kinds()["postgres"].model_validate(said)
    assert isinstance(destination, BatchDestination)
    ledger = ledger_of(PEOPLE)

    def die(what: str) -> None:
        if what == "after_send":
            raise Killed(what)

    with pytest.raises(Killed):
        Engine(Watched(destination.connect(FakeClock()), die, 3), ledger, FakeClock()).run()
    assert run(ledger, destination).ok == 7
    connector = destination.connect(FakeClock())
    assert set(connector.listed(PLACE) or ()) == {p.member_id for p in PEOPLE}


def test_a_missing_database_leaves_all_to_the_next_run(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_DSN", postgres.replace("dbname=postgres", "dbname=nothing"))
    destination = kinds()["postgres"].model_validate({"name": "pg", "kind": "postgres", "dsn": "env:TEST_DSN"})
    assert isinstance(destination, BatchDestination)
    report = run(ledger_of(PEOPLE), destination)
    assert (report.state, report.ok, report.left) == ("done", 0, 7)
    with pytest.raises(RetryLater) as away:
        list(destination.connect(FakeClock()).listed(PLACE) or ())
    assert "tester" not in f"{away.value!r}"


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[tuple[int, str, Path]]:
    """Port, host key and folder of an SFTP server of the tests' own."""
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    root = tmp_path / "root"
    root.mkdir()

    class Server(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("shop", "secret")

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: Any) -> bool:
            return username == "shop"

    loop = asyncio.new_event_loop()
    started: asyncio.Future[Any] | None = None

    async def start() -> Any:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[key],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(root).encode()),
        )

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    started = asyncio.run_coroutine_threadsafe(start(), loop)  # type: ignore[assignment]
    server = started.result(20)  # type: ignore[union-attr, call-arg]
    try:
        yield server.get_port(), key.export_public_key().decode().strip(), root
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def test_files_on_a_server_are_whole_and_the_same_again(
    sftp: tuple[int, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, key, root = sftp
    monkeypatch.setenv("TEST_PASSWORD", "secret")
    said = {"name": "partner", "kind": "sftp", "host": "127.0.0.1", "port": port, "user": "shop", "folder": "/"}
    said |= {"password": "env:TEST_PASSWORD", "host_key": " ".join(key.split()[:2])}
    destination = kinds()["sftp"].model_validate(said)
    assert isinstance(destination, BatchDestination)
    ledger = ledger_of(PEOPLE)

    assert run(ledger, destination).ok == 7
    ledger.eligible[PLACE] = [wanted(p) for p in PEOPLE[1:]]
    assert run(ledger, destination).ok == 1

    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    assert [f.split("-")[0] for f in files] == ["shop/vip/add"] * 3 + ["shop/vip/remove"]
    lines = [line for f in files[:3] for line in (root / f).read_text().splitlines()[1:]]
    assert {line.split(",")[1] for line in lines} == {p.member_id for p in PEOPLE}
    before = {f: (root / f).read_bytes() for f in files}
    assert run(ledger_of(PEOPLE), destination).ok == 7  # a ledger that forgot writes the same files
    assert {f: (root / f).read_bytes() for f in files} == before

    monkeypatch.setenv("TEST_PASSWORD", "wrong")
    assert run(ledger_of(PEOPLE), destination).state == "halted"
    other = said | {"host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ5dGVzIHRoYXQgYXJlIG5vdCB0aGlzIHNlcnZlcidz"}
    stranger = kinds()["sftp"].model_validate(other)
    assert isinstance(stranger, BatchDestination)
    monkeypatch.setenv("TEST_PASSWORD", "secret")
    assert run(ledger_of(PEOPLE), stranger).state == "halted"


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
    ],
    ids=["ed25519", "rsa", "ecdsa"],
)
def test_a_server_is_opened_by_a_key_of_any_kind(
    key: Any, sftp: tuple[int, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, host_key, root = sftp
    said = {"name": "partner", "kind": "sftp", "host": "127.0.0.1", "port": port, "user": "shop", "folder": "/"}
    said |= {"private_key": "env:TEST_KEY", "host_key": " ".join(host_key.split()[:2])}

    def send(private_key: str, **more: str) -> Any:
        monkeypatch.setenv("TEST_KEY", private_key)
        destination = kinds()["sftp"].model_validate(said | more)
        assert isinstance(destination, BatchDestination)
        report = run(ledger_of(PEOPLE), destination)
        return report.state, report.code, report.ok

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH)
    text = key.private_bytes(*form, serialization.NoEncryption()).decode()
    assert send(text) == ("done", "", 7)
    assert len(list(root.rglob("*.csv"))) == 3
    for unreadable in (
        text[:120],
        "none",
        key.private_bytes(*form, serialization.BestAvailableEncryption(b"x")).decode(),
    ):
        assert send(unreadable) == ("halted", "private_key_unreadable", 0)
    for unreadable in ("ssh-ed25519 AAAA", "ssh-ed25519 AAA"):
        assert send(text, host_key=unreadable) == ("halted", "host_key_unreadable", 0)


def test_cells_a_spreadsheet_would_run_are_text() -> None:
    from connectors.destinations.sftp import SftpDestination
    from connectors.exchange import Row

    config = SftpDestination(name="p", kind="sftp", host="h", user="u", host_key="ssh-ed25519 AAAA")
    event = event_id("p", PLACE, "add", "m", "k", 0)
    (batch,) = cut_batches(PLACE, "add", [Row("m", "k", event, {"a": "=1+1", "b": "@x", "c": "ok"})], 1)
    assert config.connect(FakeClock()).content(batch).decode().splitlines() == [
        "event_id,member_id,a,b,c",
        f"{event},m,'=1+1,'@x,ok",
    ]
