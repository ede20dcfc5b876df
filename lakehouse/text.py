"""Text as keys and comparisons take it."""

from __future__ import annotations

from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

# Unicode's white space, and NUL, the space of no width and the byte order mark. No more, as each costs time per text.
_UNSEEN: Final = "\x00\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\u00a0\u1680" + "".join(
    chr(c) for c in (*range(0x2000, 0x200C), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)
)


def bare(text: Column | str) -> Column:
    """A text without what nobody sees at its ends: spaces of any script and width, tabs, line breaks.

    Spark's `trim` takes the space character alone, so that a stray line break would make another key. A regular
    expression would double the code that Spark makes of a row.
    """
    return F.btrim(text, F.lit(_UNSEEN))
