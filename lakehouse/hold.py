"""Frames that are read several times and made once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

Once = Callable[[DataFrame], DataFrame]
"""Returns a frame that is made once, however often it is read; what producers ask for as `hold`."""

Aside = Callable[[DataFrame], tuple[DataFrame, Callable[[], object]]]
"""Writes a frame and returns one that reads what was written, and what removes it."""


def as_is(frame: DataFrame) -> DataFrame:
    """The frame, not held: for a notebook, where a producer's result is looked at a few times at most."""
    return frame


_KEEPS_NOTHING = ("NOT_SUPPORTED_WITH_SERVERLESS", "CACHE_REQUIRES_NEWER_CLIENT_ON_SERVERLESS")


class Hold:
    """Makes frames once for as long as a block runs: in memory, or in a table where the engine keeps none in memory.

    A serverless environment before version 5, or whose administrator turned caching off, refuses to keep a frame.

        with lake.holding() as hold:
            once = hold(frame)
    """

    def __init__(self, aside: Aside) -> None:
        """Hold frames; `aside` is for engines that keep none."""
        self._aside = aside
        self._ends = ExitStack()

    def __call__(self, frame: DataFrame) -> DataFrame:
        """The frame, computed when it is first read and not again."""
        try:
            held = frame.persist()
            end: Callable[[], object] = held.unpersist
        except PySparkException as e:
            if not any(word in str(e) for word in _KEEPS_NOTHING):
                raise
            held, end = self._aside(frame)
        self._ends.callback(end)
        return held

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of every frame."""
        self._ends.close()
