"""Rows and cells of workbook sheets, and what a sheet shows that no cell of it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

_CHUNK = 1 << 20
_MARK = re.compile(rb"<(\w+:)?(f|mergeCell)[\s/>]")
_LONGEST_MARK = 64


def filled_rows(sheet: Any) -> Iterator[tuple[Any, ...]]:
    """Rows of a workbook sheet that hold anything, each as wide as its last cell; the first is the header."""
    # Programs write wrong sizes of sheets, and what lies outside of them would be left out.
    sheet.reset_dimensions()
    return (row for row in sheet.iter_rows(values_only=True) if _is_filled(row))


def cell_text(value: Any) -> str | None:
    """A workbook cell as the text a CSV export would hold; dates in ISO form, whole numbers without a point."""
    match value:
        case None:
            return None
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float() | int() | str():
            return str(value)
        case _ if hasattr(value, "isoformat"):
            return str(value.isoformat()).replace("T", " ")
        case _:
            return str(value)


def unread_cell(sheet: Any) -> tuple[str, str] | None:
    """Code and reason where people see a value in a record and a reader finds none; None where there is no such cell.

    A program may write a formula and leave its result to Excel; of merged cells the first one alone has the value, so
    that the rows below would lack it. What stands beside the header's columns, or above its end, is of no record.
    """
    if not _is_marked(sheet):
        return None
    from openpyxl.utils import range_boundaries
    from openpyxl.xml.functions import iterparse

    sheet.reset_dimensions()
    filled = {at: row for at, row in enumerate(sheet.iter_rows(values_only=True), start=1) if _is_filled(row)}
    header = min(filled)
    named = {at for at, name in enumerate(filled[header], start=1) if name is not None}
    records = sorted(at for at in filled if at > header)

    def holds(row: int, column: int) -> bool:
        return row in filled and column <= len(filled[row]) and filled[row][column - 1] is not None

    with _bytes_of(sheet) as content:
        for _, element in iterparse(content):
            match element.tag.rpartition("}")[2]:
                case "c" if _lacks_result(element):
                    left, row, _, _ = range_boundaries(element.get("r"))
                    if left in named and row >= header:
                        return "formula_without_result", (
                            f"cell {element.get('r', '')} of sheet '{sheet.title}' has a formula whose result is not "
                            "stored; open the workbook in a program that calculates it, and save it there."
                        )
                case "mergeCell":
                    left, first, right, last = range_boundaries(element.get("ref"))
                    is_of_records = any(first < at <= last for at in records)
                    if is_of_records and named.intersection(range(left, right + 1)) and holds(first, left):
                        return "merged_cells", (
                            f"cells {element.get('ref')} of sheet '{sheet.title}' are merged, so that only the first "
                            "row has their value; take them apart and fill each."
                        )
                case "row":
                    element.clear()
    return None


def _is_filled(row: tuple[Any, ...]) -> bool:
    return any(v is not None for v in row)


def _is_marked(sheet: Any) -> bool:
    """Whether there is any formula or merged cell; of bytes alone, as to read every cell again would be dear."""
    with _bytes_of(sheet) as content:
        end = b""
        for chunk in iter(partial(content.read, _CHUNK), b""):
            if _MARK.search(end + chunk):
                return True
            end = chunk[-_LONGEST_MARK:]
    return False


def _bytes_of(sheet: Any) -> Any:
    # There is no public way from a sheet to its file in the archive.
    return sheet._get_source()


def _lacks_result(cell: Any) -> bool:
    """Whether a cell has a formula and no result, which of type `str` may be the empty text."""
    found = {child.tag.rpartition("}")[2]: child.text for child in cell}
    return "f" in found and not found.get("v") and cell.get("t") != "str"
