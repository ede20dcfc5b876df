"""Time for connectors: a clock that tests replace, the destination's request limits, and waits between attempts."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time and lets it pass."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)


def utc_now(clock: Clock) -> datetime:
    """Returns the time in UTC as tables hold it: without a zone."""
    return datetime.fromtimestamp(clock.now(), UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Rate:
    """At most `requests` within any `seconds`."""

    requests: int
    seconds: float


class Pace:
    """Holds requests back so that no limit of the destination is exceeded."""

    def __init__(self, rates: tuple[Rate, ...], clock: Clock) -> None:
        self._clock = clock
        self._windows = [(rate, deque[float]()) for rate in rates]

    def take(self) -> None:
        """Wait until one more request is within every limit, and count it."""
        for rate, sent in self._windows:
            now = self._clock.now()
            while sent and sent[0] <= now - rate.seconds:
                sent.popleft()
            if len(sent) >= rate.requests:
                self._clock.sleep(max(0.0, sent[0] + rate.seconds - now))
                sent.popleft()
        now = self._clock.now()
        for _, sent in self._windows:
            sent.append(now)


@dataclass(frozen=True)
class Patience:
    """How long a batch is tried before it is left to the next run.

    Attributes:
        attempts: Requests per batch at most.
        first_seconds: Wait after the first failure; it doubles with each further one.
        longest_seconds: Wait at most, and the longest wait of the destination's that is honoured within a run.
    """

    attempts: int = 5
    first_seconds: float = 2.0
    longest_seconds: float = 300.0

    def wait(self, attempt: int, asked: float | None) -> float | None:
        """Seconds before the next attempt, None when the batch is better left to the next run.

        Args:
            attempt: Attempts made, 1 or more.
            asked: What the destination asked for; it overrules ours.
        """
        if attempt >= self.attempts or (asked is not None and asked > self.longest_seconds):
            return None
        if asked is not None:
            return max(0.0, asked)
        return float(min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1)))


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds a `Retry-After` header asks for, as a number or an HTTP date; None when it says neither.

    Source: RFC 9110, section 10.2.3.
    """
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return None
