"""Putting what is finished under its name, also where files cannot be renamed, as on volumes of a catalog."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Final

MARKER: Final = "_SUCCESS"
"""File that says of its folder that it is whole."""

_CANNOT: Final = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV}


def move(source: Path, target: Path) -> None:
    """Move a file over what has its new name, or a folder to where none is.

    Where that cannot be done in one step it is copied, then deleted. The marker of a folder is copied last and deleted
    first, so half of a folder never has one.
    """
    try:
        source.replace(target)
    except OSError as e:
        if e.errno not in _CANNOT:
            raise
        _copy_and_delete(source, target)


def _copy_and_delete(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copyfile(source, target)
        source.unlink()
        return
    files = sorted((p for p in source.rglob("*") if p.is_file()), key=lambda p: (p.name == MARKER, p))
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    for file in reversed(files):
        file.unlink()
    shutil.rmtree(source)
