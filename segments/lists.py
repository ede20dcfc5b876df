"""Static lists of customers: a CSV file each, with a column `customer_id`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from lakehouse.errors import suggest
from segments.nodes import has_controls, short
from segments.rules import Place

MAX_LIST_BYTES: Final = 4 * 1024 * 1024
MAX_MEMBERS: Final = 20_000
"""Members reach Spark as literals of the plan; a longer list belongs in a feed, as a feature."""

_COLUMN: Final = "customer_id"
_OTHERS: Final = {";": "';'", "\t": "tabs", "|": "'|'"}
"""Delimiters that spreadsheets write where we read commas."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def read_lists(folder: Path, complain: Callable[[str, Place], None]) -> Mapping[str, frozenset[str]]:
    """Returns the customer numbers of every `*.csv` of a folder by file name without ending; absent folders have none.

    The ending may be in capitals.

    Args:
        folder: Usually `conf/segments/lists`.
        complain: Told of everything wrong, with its place; a list that is wrong is still named, and empty.
    """
    lists: dict[str, frozenset[str]] = {}
    for path in sorted(p for p in folder.glob("*") if p.suffix.lower() == ".csv"):
        if path.stem in lists:
            complain("there is a list of this name already", Place(f"lists/{path.name}", 1, 1))
        lists[path.stem] = _read(path, lambda m, line, file=path.name: complain(m, Place(f"lists/{file}", line, 1)))  # type: ignore[misc]
    return lists


def _read(path: Path, complain: Callable[[str, int], None]) -> frozenset[str]:
    if not _NAME.fullmatch(path.stem):
        complain("a list is named with lower-case letters, digits and underscores, beginning with a letter", 1)
    try:
        size = path.stat().st_size
        if size > MAX_LIST_BYTES:
            complain(f"is {size:,} bytes; a list may have {MAX_LIST_BYTES:,}", 1)
            return frozenset()
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or type(error).__name__
        complain(f"cannot be read: {why}; put a CSV file with a column '{_COLUMN}' here, or take this away", 1)
        return frozenset()
    except UnicodeDecodeError as error:
        complain("is not UTF-8 text", error.object[: error.start].count(b"\n") + 1)
        return frozenset()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    begins = 1  # a quoted value may hold line breaks
    try:
        for row in reader:
            rows.append((begins, row))
            begins = reader.line_num + 1
    except csv.Error as error:
        complain(f"is not a CSV file: {error}", begins)
        return frozenset()
    header = [name.strip() for name in rows[0][1]] if rows else []
    if _COLUMN not in header:
        others = [name for d, name in _OTHERS.items() if _COLUMN in map(str.strip, ",".join(header).split(d))]
        parted = f"its columns are parted by {others[0]}; part them by ','" if others else ""
        close = suggest(_COLUMN, header) or "".join(f" Did you mean '{h}'?" for h in header if h.lower() == _COLUMN)
        complain(parted or f"has no column '{_COLUMN}'.{close}", 1)
        return frozenset()
    if header.count(_COLUMN) > 1:
        complain(f"has the column '{_COLUMN}' more than once; one of them is needed", 1)
        return frozenset()
    at = header.index(_COLUMN)
    found: set[str] = set()
    for line, row in rows[1:]:
        value = row[at].strip() if len(row) > at else ""
        if has_controls(value):
            complain(f"a '{_COLUMN}' with a control or invisible character, '{short(value)}'", line)
        elif value:
            found.add(value)
        elif any(row):
            complain(f"a row without a '{_COLUMN}'", line)
    if len(found) > MAX_MEMBERS:
        complain(f"has {len(found):,} customers; a list may have {MAX_MEMBERS:,}", 1)
    return frozenset(found)
