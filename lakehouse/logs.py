"""Logs: JSON lines in a file for machines, one short line on stderr for people, and nobody's data in either."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from lakehouse.errors import SettingsError

ROOT: Final = "segmentation"
_NOISY: Final = (
    "py4j",
    "great_expectations",
    "mlflow",
    "alembic",
    "matplotlib",
    "httpx",
    "httpcore",
    "urllib3",
    "grpc",
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "told"}

# Order matters: a secret may hold an @, an address may hold digits.
_MASKS: Final = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 ***"),
    (
        re.compile(
            r"(?i)(\b[\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|signature)[\w-]*[\"']?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&}\])]+)"
        ),
        r"\1***",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bdapi[0-9a-f]{32}\b|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "***"),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), "***"),
    (re.compile(r"[\w.%+'-]+@[\w-]+(?:\.[\w-]+)+"), "<e-mail>"),
    # International form, or national digits in at least three groups. Dates, times, decimals and plain long numbers
    # (counts, run ids, versions) stay readable.
    (re.compile(r"(?<![\w.])\+\d[\d ().-]{6,}\d(?!\w)"), "<phone>"),
    (re.compile(r"(?<![\w.:/-])\(?0?\d{2,4}\)?[ .-]\d{2,4}(?:[ .-]\d{2,4}){1,3}(?![\w:/-])(?!\.\d)"), "<phone>"),
)
_DATE_LIKE: Final = re.compile(r"(?:19|20)\d{2}[-. ](?:0?[1-9]|1[0-2])[-. ](?:0?[1-9]|[12]\d|3[01])")


def get_logger(name: str) -> logging.Logger:
    """Returns the logger of one part of the product, such as `get_logger(__name__)`.

    Pass what happened as the message and what it happened to as fields:
    `log.info("table written", extra={"table": "gold.dim_customer", "rows": 120})`. Keys and counts, never row values.
    """
    return logging.getLogger(name if name == ROOT or name.startswith(f"{ROOT}.") else f"{ROOT}.{name}")


def configure_logs(
    data_dir: Path | None = None, *, verbose: bool = False, stream: TextIO | None = None, run_id: str | None = None
) -> Path | None:
    """Sends the product's log to a file and to people; calling it again replaces what the last call set up.

    Args:
        data_dir: Lakehouse folder; the file is `_logs/<day>.jsonl` in it, one per UTC day, appended to. Without a
            folder there is no file.
        verbose: Show information on stderr too; by default only warnings and errors.
        stream: Where people read; default stderr.
        run_id: Written into every line of the file.

    Returns:
        The file, or None.

    Raises:
        SettingsError: when the file cannot be written.
    """
    root = logging.getLogger(ROOT)
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG)
    root.propagate = False

    people = logging.StreamHandler(stream or sys.stderr)
    people.setLevel(logging.INFO if verbose else logging.WARNING)
    people.setFormatter(LineFormatter())
    # `extra={"told": True}`: the command has said it to people in its own words.
    people.addFilter(lambda record: not getattr(record, "told", False))
    root.addHandler(people)

    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)

    if data_dir is None:
        return None
    file = data_dir / "_logs" / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a", encoding="utf-8").close()
    except OSError as e:
        raise SettingsError(
            f"data_dir: {data_dir} cannot be written ({e.strerror or e}). Name another folder, or get the right to it."
        ) from None
    machines = logging.FileHandler(file, encoding="utf-8", delay=True)
    machines.setLevel(logging.DEBUG if os.environ.get("SEGMENTATION_DEBUG") else logging.INFO)
    machines.setFormatter(JsonFormatter(run_id))
    root.addHandler(machines)
    return file


def redact(text: str) -> str:
    """Masks what looks like an e-mail address, a telephone number or a secret.

    A net under the rule that no row value is ever logged, not a licence to log one.

    Examples:
        `mail to ann@example.com failed` becomes `mail to <e-mail> failed`; `token=abc123` becomes `token=***`.
    """
    for pattern, mask in _MASKS:
        text = pattern.sub(lambda found, mask=mask: _mask(found, mask), text)  # type: ignore[misc]
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, run, the extra fields, and the error if any."""

    def __init__(self, run_id: str | None = None) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if self._run_id:
            line["run_id"] = self._run_id
        line |= {name: _safe(name, value) for name, value in _fields(record).items() if name not in line}
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            line["error"] = {"type": type(error).__name__, "message": redact(str(error))[:2000]}
            line["trace"] = redact(self.formatException(record.exc_info))[-8000:]
        return json.dumps(line, ensure_ascii=False, default=str)


class LineFormatter(logging.Formatter):
    """One line for people: level, message, fields. Traces are in the file."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        fields = " ".join(f"{name}={_safe(name, value)}" for name, value in _fields(record).items())
        error = record.exc_info[1] if record.exc_info else None
        reason = (
            f": {type(error).__name__}: {redact(str(error)).splitlines()[0] if str(error) else ''}" if error else ""
        )
        parts = (record.levelname.lower(), redact(record.getMessage()) + reason, fields)
        return " ".join(part for part in parts if part).replace("\n", " ")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _safe(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _safe(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_safe(name, inner) for inner in value]
    # Redacted together with its name, because a secret is often known only by it.
    return redact(f"{name}={value}").removeprefix(f"{name}=")


def _mask(found: re.Match[str], mask: str) -> str:
    if mask == "<phone>" and _DATE_LIKE.match(found.group()):
        return found.group()
    return found.expand(mask) if "\\" in mask else mask
