"""The HTTP part of a fake destination: a thread on loopback that hands requests to a handler and plays faults."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What arrived. `path` has no query; `query` keeps the first value of each name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass(frozen=True)
class Answer:
    """What goes back: `body` as JSON, or `raw` as it is. `closes` sends nothing, as a time-out after applying does."""

    status: int
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    closes: bool = False
    raw: bytes | None = None


class Fake:
    """A destination. Subclasses answer in `handle`, name their faults in `play`, and keep `state`.

    `faults` is the schedule: one entry is taken per request, None plays nothing. `seen` holds every request, for tests
    that look at what left. `wrong` collects violations of the contract; a test asserts that it is empty.
    """

    FAULTS: tuple[str, ...] = ("server_error", "applied_then_lost", "unavailable", "throttled")

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self.now = now
        self.faults: deque[str | None] = deque()
        self.seen: list[Request] = []
        self.wrong: list[str] = []
        self.state: dict[str, set[str]] = {}
        self.named: dict[str, str] = {}
        self.on_request: Callable[[str], None] = lambda _: None

    # What a destination overrides ------------------------------------------------------------------------------

    def handle(self, request: Request) -> Answer:
        """Check the request, change the state, answer."""
        raise NotImplementedError

    def play(self, fault: str, request: Request) -> Answer | None:
        """Answer as a fault; None handles the request as usual."""
        match fault:
            case "server_error":
                return Answer(500, {"message": "internal"})
            case "unavailable":
                return Answer(503, {"message": "busy"}, {"Retry-After": "7"})
            case "throttled":
                return Answer(429, {"message": "slow down"}, {"Retry-After": "3"})
            case "applied_then_lost":
                self.handle(request)
                return Answer(0, closes=True)
        raise AssertionError(fault)

    def is_free(self, request: Request) -> bool:
        """Whether a request takes no fault from the schedule."""
        return False

    def make(self, name: str) -> str:
        """Make an audience; destinations allow two of one name."""
        made = str(7001 + len(self.named))
        self.named[made] = name
        return made

    # Plumbing --------------------------------------------------------------------------------------------------

    def check(self, is_right: bool, what: str) -> bool:
        if not is_right:
            self.wrong.append(what)
        return is_right

    def answer(self, request: Request) -> Answer:
        self.seen.append(request)
        fault = self.faults.popleft() if self.faults and not self.is_free(request) else None
        played = self.play(fault, request) if fault else None
        return played if played is not None else self.handle(request)


@contextmanager
def serve(fake: Fake) -> Iterator[str]:
    """Run a fake and yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = None
            request = Request(
                self.command,
                parts.path,
                {k: v[0] for k, v in parse_qs(parts.query).items()},
                {k.lower(): v for k, v in self.headers.items()},
                body,
                raw,
            )
            try:
                answer = fake.answer(request)
            except Exception as e:
                fake.wrong.append(f"fake failed: {type(e).__name__}: {e}")
                answer = Answer(500)
            if answer.closes:
                self.close_connection = True
                return
            content = b"" if answer.status == 204 else json.dumps(answer.body).encode()
            content = content if answer.raw is None else answer.raw
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Closing waits for the next look, and the property tests open hundreds.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
