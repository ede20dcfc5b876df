"""Where the records of a text file end, by the rules of the parser that reads it afterwards.

Spark's parser lets a quote that nobody closes take all that follows into one cell, and takes the first line break it
sees for that of every line. It says neither, so the bytes are looked through beforehand.
"""

from __future__ import annotations

import re
from enum import Enum, auto

NEVER_IN_JSON = "\x01"
"""A delimiter that JSON forbids unescaped, so that a reader of CSV hands over whole lines of JSON."""


class _At(Enum):
    RECORD = auto()
    CELL = auto()
    PLAIN = auto()
    QUOTED = auto()
    ESCAPED = auto()
    CLOSED = auto()


class RecordScan:
    """Counts the records of a text that comes in pieces, and notices quotes and line breaks that cannot be trusted.

    A quoted cell may hold line breaks. One that does must be closed right before a delimiter or the end of its line,
    and its record must have as many cells as the others: otherwise records of their own may lie inside it.

    Attributes:
        records: Records so far; empty lines are none.
        problem: Why the text cannot be read record by record; None when it can.
        doubtful: Lines on which quoted cells begin that may hold whole records and break no rule.
    """

    def __init__(self, delimiter: str, quote: str, escape: str | None, width: int | None) -> None:
        """`width` is how many cells a record has; None when the first record, the header, says so."""
        self.records = 0
        self.problem: str | None = None
        self.doubtful: list[int] = []
        self._width = width
        # Spark's name for no quote at all, with which it quotes nevertheless.
        self._delimiter, self._quote = delimiter, quote or "\0"
        self._escape = escape or self._quote
        self._at = _At.RECORD
        self._line = 1
        self._cells = 1
        self._opened = self._breaks = self._inside = 0
        self._spans_from: int | None = None
        self._held = ""
        self._first_break: str | None = None
        self._breaks_seen: set[str] = set()
        cell_end, marks = re.escape(self._delimiter), re.escape(self._quote + self._escape)
        self._cell_end = re.compile(f"[{cell_end}\n]")
        self._marks = re.compile(f"[{marks}]")
        self._whole_lines = re.compile(_whole_lines(self._delimiter, self._quote, self._escape))

    @property
    def other_breaks(self) -> tuple[str, ...]:
        """Line breaks to rewrite as a line feed, because not every record ends with the first break there is."""
        if self._first_break == "\r":
            # Spark makes a row of an empty line at the end of such a file.
            return ("\r\n", "\r")
        return () if self._breaks_seen <= {self._first_break} else ("\r\n",)

    def feed(self, text: str) -> None:
        """Take the next piece."""
        text = self._held + text
        # Whether it is half of a break shows with the next piece.
        self._held = "\r" if text.endswith("\r") else ""
        self._take(text[: len(text) - len(self._held)])

    def finish(self) -> None:
        """Take the end of the text."""
        self._take(self._held)
        if self.problem is not None:
            return
        if self._at in (_At.QUOTED, _At.ESCAPED):
            self._refuse(f"the quote that opens on line {self._opened} is never closed")
        elif self._at is not _At.RECORD:
            self._end_record()

    def _take(self, text: str) -> None:
        if self._first_break is None and (found := re.search("\r\n|\n|\r", text)):
            self._first_break = found[0]
        if self._first_break == "\r":
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        at = 0
        while at < len(text) and self.problem is None:
            at = self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        """Go on from a position; returns the next."""
        match self._at:
            case _At.RECORD:
                return self._begin_record(text, at)
            case _At.CELL:
                if text[at] != self._quote:
                    self._at = _At.PLAIN
                    return at
                self._at, self._opened, self._breaks, self._inside = _At.QUOTED, self._line, 0, 0
                return at + 1
            case _At.PLAIN:
                found = self._cell_end.search(text, at)
                if found is None:
                    return len(text)
                if found[0] == "\n":
                    self._saw_break(text, found.start())
                    self._end_record()
                else:
                    self._cells += 1
                    self._at = _At.CELL
                return found.end()
            case _At.QUOTED:
                found = self._marks.search(text, at)
                end = found.start() if found else len(text)
                self._breaks += (breaks := text.count("\n", at, end))
                self._inside += text.count(self._delimiter, at, end)
                self._line += breaks
                if found is None:
                    return end
                self._at = _At.CLOSED if found[0] == self._quote else _At.ESCAPED
                return found.end()
            case _At.ESCAPED:
                self._at = _At.QUOTED
                return at + (text[at] in (self._quote, self._escape))
            case _At.CLOSED:
                return self._after_quote(text, at)

    def _begin_record(self, text: str, at: int) -> int:
        if self._width is not None:
            end = self._whole_lines.match(text, at).end()  # type: ignore[union-attr]
            if end > at:
                lines, pairs = text.count("\n", at, end), text.count("\r\n", at, end)
                self._breaks_seen |= {kind for kind, n in (("\r\n", pairs), ("\n", lines - pairs)) if n}
                self.records += lines
                self._line += lines
                return end
        if text[at] == "\n" or text.startswith("\r\n", at):
            end = text.index("\n", at)
            self._saw_break(text, end)
            self._line += 1
            return end + 1
        self._at = _At.CELL
        return at

    def _after_quote(self, text: str, at: int) -> int:
        if text[at] == self._quote:
            if self._escape == self._quote:
                self._at = _At.QUOTED
            return at + 1
        is_closed = text[at] in (self._delimiter, "\n") or text.startswith("\r\n", at)
        if text[at] == self._escape or (self._breaks and not is_closed):
            self._refuse(
                f"the quote that opens on line {self._opened} meets the next on line {self._line} inside a cell"
            )
            return at
        self._close()
        return at

    def _close(self) -> None:
        self._at = _At.PLAIN
        if not self._breaks:
            return
        if self._spans_from is None:
            self._spans_from = self._opened
        # As many delimiters as whole records between here and there would have.
        if self._width and self._width > 1 and self._inside == self._breaks * (self._width - 1):
            self.doubtful.append(self._opened)

    def _end_record(self) -> None:
        if self._at is _At.CLOSED:
            self._close()
        if self._width is None:
            self._width = self._cells
        if self._spans_from is not None and self._cells != self._width:
            self._refuse(
                f"the record whose quote opens on line {self._spans_from} and that ends on line {self._line} has "
                f"{self._cells} cells where the others have {self._width}"
            )
        self.records += 1
        self._line += 1
        self._cells = 1
        self._spans_from = None
        self._at = _At.RECORD

    def _saw_break(self, text: str, at: int) -> None:
        self._breaks_seen.add("\r\n" if at and text[at - 1] == "\r" else "\n")

    def _refuse(self, what: str) -> None:
        self.problem = f"{what}, so whole rows may lie inside one cell: close or double the quote and deliver it again."


def _whole_lines(delimiter: str, quote: str, escape: str) -> str:
    """Pattern of as many lines as there are that hold something and open no quote they do not close."""
    d, q, e = re.escape(delimiter), re.escape(quote), re.escape(escape)
    if quote == escape:
        quoted = f"{q}[^{q}\n]*+(?:{q}{q}[^{q}\n]*+)*+{q}"
    else:
        quoted = f"{q}[^{q}{e}\n]*+(?:{e}[{q}{e}]?+[^{q}{e}\n]*+)*+{q}++(?!{e})"
    cell = f"(?:{quoted}[^{d}\n]*+|[^{q}{d}\n][^{d}\n]*+|)"
    return f"(?:(?!\r?\n)(?:[^{q}\n]*+\n|{cell}(?:{d}{cell})*+\n))*+"
