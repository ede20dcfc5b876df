"""A clock that passes only when somebody sleeps."""

from __future__ import annotations


class FakeClock:
    """Starts at a fixed instant; `slept` lists the waits."""

    def __init__(self, start: float = 1_767_225_600.0) -> None:
        self.time = start
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
