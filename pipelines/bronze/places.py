"""Where the files of a feed lie: the paths its location names now, and the inbox uploads go to."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import SourceError
from pipelines.bronze.sources import Feed, Source


def locate(source: Source, feed: Feed, conf_dir: Path, data_dir: Path) -> list[Path]:
    """Return the data files a feed's location names now, and those in its inbox, in the order of their names.

    Hidden files (`.x`, `_x`), partial uploads (`.part`, `.tmp`) and folders are not files of a feed.

    Raises:
        SourceError: when the file or folder the location names, or the folder its pattern is for, is not there, a
            package is not installed, or it cannot be looked through.
    """
    with looking_through(source, feed):
        found = _named(feed, conf_dir, data_dir)
        return sorted({*(p for p in found if p.is_file() and not is_hidden(p)), *uploaded(source, feed, data_dir)})


@contextmanager
def looking_through(source: Source, feed: Feed) -> Iterator[None]:
    """Whatever hinders a look through a feed's location is told as a SourceError that names both.

    A name may be too long, a folder closed to us, a pattern no pattern, a home nobody's, a package no package.
    """
    about = f"source '{source.name}', feed '{feed.name}'"
    try:
        yield
    except SourceError as e:
        raise SourceError(f"{about}: {e}") from None
    except (ImportError, OSError, RuntimeError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise SourceError(
            f"{about}: its location '{feed.location}' cannot be looked through ({why}). Correct it, or who may read it."
        ) from None


def _named(feed: Feed, conf_dir: Path, data_dir: Path) -> Iterable[Path]:
    """What the location of a feed names now."""
    if not feed.location or feed.location.startswith("inbox:"):
        return ()
    base = place_of(feed.location, conf_dir, data_dir)
    folder, pattern = split_pattern(base)
    if pattern and folder.is_dir():
        return folder.glob(pattern)
    if base.is_dir():
        return base.iterdir()
    if base.is_file() or feed.generator:
        return (base,)
    raise SourceError(
        f"{folder} does not exist. Correct its location, or the variable it uses, or leave the source out of the run."
    )


def uploaded(source: Source, feed: Feed, data_dir: Path) -> list[Path]:
    """Return the data files in a feed's inbox."""
    folder = inbox(source, feed, data_dir)
    return [p for p in folder.iterdir() if p.is_file() and not is_hidden(p)] if folder.is_dir() else []


def place_of(location: str, conf_dir: Path, data_dir: Path) -> Path:
    """Turn a location into a path, which may be a glob.

    Raises:
        SourceError: when it is inside a Python package that is not installed.
    """
    scheme, colon, rest = location.partition(":")
    if colon and scheme == "conf":
        return conf_dir.resolve() / rest
    if colon and scheme == "data":
        return data_dir.resolve() / rest
    if colon and scheme == "package":
        package, _, inner = rest.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SourceError(
                f"the Python package '{package}' that holds the data is not installed. Install it, or leave the source "
                "out of the run."
            )
        return Path(next(iter(spec.submodule_search_locations))) / inner
    return Path(location).expanduser().absolute()


def split_pattern(place: Path) -> tuple[Path, str]:
    """Split a place into what is there under the name it has and the pattern below it, empty when there is none.

    A folder or file may be called like a pattern: `Sales [2024]`.
    """
    below = list(place.parts)
    found = Path(below.pop(0))
    while below and (not _is_pattern(below[0]) or _is_there(found / below[0])):
        found /= below.pop(0)
    return found, "/".join(below)


def literal(path: Path | str) -> str:
    """A path as Spark takes it for itself and not for a pattern."""
    return re.sub(r"([*?\[\]{}\\])", r"\\\1", str(path))


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")


def _is_there(path: Path) -> bool:
    # A file called `*.csv` does not hide the others of its folder.
    return path.is_dir() or (path.is_file() and not any(c in path.name for c in "*?"))


def inbox(source: Source, feed: Feed, data_dir: Path) -> Path:
    """Folder that uploads of a feed are copied to."""
    return data_dir.resolve() / "inbox" / source.name / feed.name


def is_hidden(path: Path) -> bool:
    """Whether a name marks a file that is not to be read: Spark ignores these too, without a word."""
    return path.name.startswith((".", "_")) or path.name.endswith((".part", ".tmp", ".crc", "._COPYING_"))
