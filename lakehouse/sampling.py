"""Where a salted hash puts somebody between 0 and 1: the same place on every day, in every run, on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyspark.sql import Column
from pyspark.sql import functions as F

DIGITS: Final = 13
UNIT: Final = 16**DIGITS
"""52 bits of the hash: as many as a double holds exactly."""


def salted_position(keys: Sequence[str], salt: str) -> Column:
    """Position in [0, 1) of whoever the key columns identify; another salt gives an independent one."""
    said = F.concat_ws("\u001f", F.lit(salt), *[F.coalesce(F.col(k).cast("string"), F.lit("")) for k in keys])
    return F.conv(F.substring(F.sha2(said, 256), 1, DIGITS), 16, 10).cast("double") / F.lit(float(UNIT))
