"""One HTTP core for every REST destination: TLS on, redirects off, no secret or body in an error, verdicts by status.

A status is only the first word. Destinations that say in the body what failed read it themselves, and their way of
throttling is a function of theirs.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from connectors.exchange import UNREADABLE, BatchRefused, Halted, RetryLater
from connectors.pace import Clock, Pace, retry_after
from lakehouse.errors import SettingsError

Throttle = Callable[[httpx.Response], float | None]
"""Seconds to wait when a response is a refusal for too many requests, else None. 0 leaves the wait to the engine."""

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine."""
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@cache
def trusted() -> ssl.SSLContext:
    """Returns the one TLS context: certificates are verified, always. Reading them takes 30 ms, so it is done once."""
    return ssl.create_default_context()


def check_url(url: str) -> str:
    """Returns a base address that is safe to send to: https, or http to this machine; no credentials in it.

    Raises:
        ValueError: saying what is wrong.
    """
    parts = urlsplit(url)
    is_here = parts.hostname in LOOPBACK
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address is https://host/...")
    if parts.scheme == "http" and not is_here:
        raise ValueError("an address uses https; http is for this machine alone")
    if parts.username or parts.password:
        raise ValueError("an address holds no credentials")
    return url.rstrip("/")


class Http:
    """Requests to one destination.

    Attributes:
        requests: How many were made.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Callable[[], Mapping[str, str]],
        clock: Clock,
        pace: Pace,
        throttle: Throttle,
        max_bytes: int | None = None,
        timeout_seconds: float = 60.0,
        renew: Callable[[], None] | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            base_url: Checked with `check_url`.
            headers: Authorisation and versions; asked before every request, so a renewed token is used at once.
            clock: Reads dates in `Retry-After`.
            pace: Keeps within the destination's request limits.
            throttle: The destination's way of saying too many requests.
            max_bytes: Largest body it takes; a larger one is refused here, so that it is cut in halves.
            timeout_seconds: For connecting, and for each wait on an answer.
            renew: Gets a new token when the old one has expired.
        """
        try:
            base = check_url(base_url)
        except ValueError as e:
            raise SettingsError(f"{e}.") from None
        self._base = base
        self._client = httpx.Client(follow_redirects=False, verify=trusted(), timeout=timeout_seconds)
        self._headers = headers
        self._clock = clock
        self._pace = pace
        self._throttle = throttle
        self._max_bytes = max_bytes
        self._renew = renew
        self.requests = 0

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        expected: tuple[int, ...] = (),
    ) -> httpx.Response:
        """Send a request and return its answer when that is a 2xx, or one of `expected`.

        Raises:
            RetryLater: throttled, unreachable, no answer, or a failure on the other side.
            BatchRefused: the content was refused; the code is the status and the destination's own code.
            Halted: credentials, permission, or the place itself.
        """
        if body is not None:
            content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        if content is not None and self._max_bytes is not None and len(content) > self._max_bytes:
            raise BatchRefused("too_large")
        answer = self._send(method, path, content, params, headers)
        if answer.status_code == 401 and self._renew is not None:
            self._renew()
            answer = self._send(method, path, content, params, headers)
        return self._judge(answer, expected)

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        url = path if path.startswith(f"{self._base}/") else self._base + path
        if "://" in path and url != path:
            raise Halted("link_elsewhere")  # a token goes to no host but the destination's own
        sent = {"Accept": "application/json", **self._headers(), **(headers or {})}
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        self._pace.take()
        self.requests += 1
        try:
            return self._client.request(method, url, content=content, params=params, headers=sent)
        except _NEVER_SENT as e:
            raise RetryLater(type(e).__name__, may_be_applied=False) from None
        except httpx.RequestError as e:
            # Not only what breaks on the way: a body that cannot be unpacked does not say what became of the request.
            raise RetryLater(type(e).__name__, may_be_applied=True) from None

    def _judge(self, answer: httpx.Response, expected: tuple[int, ...]) -> httpx.Response:
        status = answer.status_code
        try:
            asked = self._throttle(answer)
        except UNREADABLE:
            asked = None  # not in the destination's dialect, so not from it: the status decides
        if asked is not None:
            raise RetryLater("throttled", wait_seconds=asked or None, may_be_applied=False)
        if answer.is_success or status in expected:
            return answer
        if status in (429, 502, 503, 504):
            told = retry_after(answer.headers.get("Retry-After"), self._clock.now())
            raise RetryLater(str(status), wait_seconds=told, may_be_applied=status != 429)
        if status >= 500 or status == 408:
            raise RetryLater(str(status), may_be_applied=True)
        if answer.is_redirect:
            raise Halted("redirected")
        if status in (401, 403):
            raise Halted(str(status))
        if status in (404, 410):
            raise Halted(str(status), whole=False)
        raise BatchRefused(f"{status}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def standard_throttle(answer: httpx.Response) -> float | None:
    """No dialect of its own: 429 and Retry-After are read for every destination alike."""
    return None


def told(answer: httpx.Response, *names: str) -> dict[str, Any]:
    """Returns a JSON object that holds at least one of these names, as the answers of the destination do.

    Raises:
        RetryLater: it holds none: a page of a proxy, or cut off. What became of the request is not known.
    """
    said = json_of(answer)
    if not any(name in said for name in names):
        raise RetryLater("no_answer_of_theirs", may_be_applied=True)
    return said


def gone(answer: httpx.Response) -> None:
    """Check that a DELETE was answered as one is: 204, or 404 in the destination's words.

    Raises:
        RetryLater: it was not: somebody else answered, and what became of the request is not known.
    """
    if answer.status_code != 204 and not (answer.status_code == 404 and json_of(answer)):
        raise RetryLater("no_answer_of_theirs", may_be_applied=True)


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """Returns a JSON object, empty when the answer is none; a destination behind a proxy may answer with a page."""
    try:
        found = answer.json()
    except (ValueError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
