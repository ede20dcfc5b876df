"""Sources and files for tests: a feed of three columns, and files of it in every state a file can arrive in."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.bronze.sources import Source

COLUMNS: dict[str, Any] = {
    "id": {"to": "customer_id", "required": True, "aliases": ["ID No"]},
    "channel": {"to": "channel"},
    "status": {"to": "status"},
    "when": {"type": "timestamp", "to": "changed_at", "required": True},
}
HEADER = "id,channel,status,when"


@dataclass(frozen=True)
class FakeRun:
    """A run with a fixed start."""

    run_id: str = "run-1"
    started_at: datetime = datetime(2026, 1, 2, 3, 4, 5)


def make_source(location: Path | str, *, name: str = "shop", feeds: list[Mapping[str, Any]] | None = None, **feed: Any):
    """Return a source with one consents feed named `people`, or with the given feeds."""
    usual = {"name": "people", "subject": "consents", "format": "csv", "location": str(location), "columns": COLUMNS}
    return Source.model_validate(
        {
            "name": name,
            "description": "Test source.",
            "merchant": {"id": "shop", "name": "Shop", "country": "GB"},
            "timezone": "Europe/London",
            "value_timezone": "Europe/London",
            "currency": "GBP",
            "feeds": feeds if feeds is not None else [usual | feed],
        }
    )


def csv_text(*ids: str, header: str = HEADER) -> str:
    """CSV with one good row per id."""
    return "\n".join([header, *(f"{i},email,granted,2020-01-01 10:00:00" for i in ids)]) + "\n"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file, gzipped when its name says so."""
    folder.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(
        gzip.compress(data, mtime=0) if name.endswith(".gz") and not data.startswith(b"\x1f\x8b") else data
    )
    return path
