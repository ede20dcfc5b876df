"""What failed in the engine, for people: its own messages are a page of Java and quote values of rows."""

from __future__ import annotations

import re
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException

_FILE = re.compile(r"file:(/[^\s'\"),]+)")

_GONE = (
    "FILE_NOT_EXIST",
    "FILE_NOT_FOUND",
    "VERSION_NOT_FOUND",
    "NO_RECREATABLE_HISTORY_FOUND",
    "TRUNCATED_TRANSACTION_LOG",
)


def is_of_engine(error: Exception) -> bool:
    """Whether an error comes from the engine and not from Python."""
    return isinstance(error, Py4JError | PySparkException)


def cause_of(error: Exception) -> str:
    """Kind of error; of the engine's its condition, of others the first line."""
    if isinstance(error, Py4JJavaError):
        causes = _causes(error.java_exception)
        conditions = [c for c in map(_condition, causes) if c]
        return _named(causes[-1].getClass().getName(), conditions[-1] if conditions else None)
    # These are about a plan, or say what our own code says: no row is quoted.
    is_ours = isinstance(error, PySparkException) and error.getCondition() == "USER_RAISED_EXCEPTION"
    if isinstance(error, PySparkException) and not (is_ours or isinstance(error, AnalysisException)):
        return _named(type(error).__name__, error.getCondition())
    if isinstance(error, Py4JError):
        return type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def is_not_kept(error: Exception) -> bool:
    """Whether the engine looked for a data file or a commit that is not there any more."""
    return is_of_engine(error) and any(condition in cause_of(error) for condition in _GONE)


def file_of(error: Exception) -> str | None:
    """The file the engine stopped at, where it names one."""
    found = _FILE.search(str(error)) if is_of_engine(error) else None
    # What follows may be the end of a sentence and not of the name.
    return re.sub(r"/+", "/", found[1]).rstrip(".:;") if found else None


def _named(kind: str, condition: str | None) -> str:
    return f"{kind} [{condition}]" if condition else kind


def _causes(error: Any) -> list[Any]:
    """An error of the JVM and what it goes back to, in order; a chain may lead round in a circle."""
    found = [error]
    while (error := error.getCause()) is not None and len(found) < 20:
        found.append(error)
    return found


def _condition(error: Any) -> str | None:
    try:
        return error.getCondition()  # type: ignore[no-any-return]
    except Py4JError:  # Not an error of Spark's own.
        return None
