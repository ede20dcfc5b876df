"""The jars a local Spark session needs beside Spark's own, fetched once and kept: Delta, and a local file system.

Handing Spark local jars starts a session about 1.6 times faster than letting it resolve packages each time, prints
nothing and works without a network. `python -m lakehouse.jars` fetches them.

Hadoop's own local file system starts a `chmod` or `readlink` process for every file it makes or renames, which is half
the time of a small Delta commit; the third jar makes the same calls within the process.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from filelock import FileLock

from lakehouse.errors import MachineError
from lakehouse.java import find_java

SCALA_LINE: Final = "2.13"
LOCAL_FILES: Final = "0.1.0"
ATTEMPTS: Final = 4
FETCH_SECONDS: Final = 300

# One resolver and no root: Maven Central is what the resolver knows by itself. A local Maven repository is left out on
# purpose, because one that holds a pom without its jar makes the default chain fail.
_IVY_SETTINGS = """<ivysettings>
  <settings defaultResolver="central"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>
"""


class JarsUnavailable(MachineError):
    """The jars are neither in the cache nor to be had from the network.

    Attributes:
        folder: Cache folder that was looked in.
        reason: Last line the resolver gave.
    """

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder = folder
        self.reason = reason
        names = ", ".join(jar.file_name for jar in needed_jars())
        super().__init__(
            f"The jars for Delta are not in {folder} and could not be fetched from Maven Central: {reason}. "
            f"Connect to the network once and run `make setup`, or put {names} into a folder "
            "and name it in SEGMENTATION_JARS."
        )


@dataclass(frozen=True)
class Jar:
    """One artifact of Maven Central."""

    group: str
    artifact: str
    version: str

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return f"{self.artifact}-{self.version}.jar"


def needed_jars() -> tuple[Jar, ...]:
    """Returns the jars that belong to the installed pyspark and delta-spark, and the local file system."""
    spark_line = ".".join(version("pyspark").split(".")[:2])
    delta = version("delta-spark")
    return (
        Jar("io.delta", f"delta-spark_{spark_line}_{SCALA_LINE}", delta),
        Jar("io.delta", "delta-storage", delta),
        Jar("com.globalmentor", "hadoop-bare-naked-local-fs", LOCAL_FILES),
    )


def cache_folder() -> Path:
    """Returns the folder the jars are kept in.

    `SEGMENTATION_JARS` when it is set, else one folder per Delta and Spark version in the user's cache.
    """
    chosen = os.environ.get("SEGMENTATION_JARS")
    if chosen:
        return Path(chosen).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "retail-segmentation" / "jars" / f"delta-{version('delta-spark')}-spark-{version('pyspark')}"


def ensure_jars(
    folder: Path | None = None, fetch: Callable[[tuple[Jar, ...], Path], None] | None = None
) -> tuple[Path, ...]:
    """Returns the jar files, fetching them first when one is missing or damaged.

    Safe to call from many processes at once: one fetches, the others wait for it.

    Args:
        folder: Cache folder; default `cache_folder()`.
        fetch: Puts the jars given into the folder given; default Ivy as it ships with Spark.

    Raises:
        JarsUnavailable: The cache is cold and the network did not help.
        JavaUnavailable: A fetch is needed and there is no Java to do it.
    """
    folder = (folder or cache_folder()).resolve()
    jars = needed_jars()
    files = tuple(folder / jar.file_name for jar in jars)
    if all(is_whole(file) for file in files):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock", timeout=ATTEMPTS * FETCH_SECONDS):
        missing = tuple(jar for jar, file in zip(jars, files, strict=True) if not is_whole(file))
        if missing:
            _fetch_with_retries(missing, folder, fetch or fetch_by_ivy)
    return files


def is_whole(file: Path) -> bool:
    """Says whether a jar is there, not empty, and every entry in it matches its checksum (0.1 s for all)."""
    try:
        with zipfile.ZipFile(file) as archive:
            return bool(archive.namelist()) and archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error):
        return False


def fetch_by_ivy(jars: tuple[Jar, ...], folder: Path) -> None:
    """Resolves jars with the Ivy that Spark ships, in a process and a cache of its own.

    Calling Ivy directly takes 3 s; starting a Spark session only to resolve its packages takes 30.

    Raises:
        ConnectionError: Ivy could not deliver; the message is its own first complaint.
    """
    java = find_java()
    with tempfile.TemporaryDirectory(prefix="segmentation-ivy-") as name:
        work = Path(name)
        settings, module = work / "ivysettings.xml", work / "ivy.xml"
        settings.write_text(_IVY_SETTINGS, encoding="utf-8")
        module.write_text(_ivy_module(jars), encoding="utf-8")
        command: list[str | Path] = [
            java.executable,
            f"-Divy.default.ivy.user.dir={work / 'ivy'}",
            *("-cp", _ivy_jar(), "org.apache.ivy.Main"),
            *("-settings", settings, "-ivy", module, "-cache", work / "cache"),
            *("-retrieve", f"{folder.as_posix()}/[artifact]-[revision].[ext]", "-warn"),
        ]
        try:
            answer = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise ConnectionError(f"no answer within {FETCH_SECONDS} s") from error
    if answer.returncode != 0:
        raise ConnectionError(_complaint(answer.stdout + answer.stderr))


def _fetch_with_retries(jars: tuple[Jar, ...], folder: Path, fetch: Callable[[tuple[Jar, ...], Path], None]) -> None:
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311
        # Beside the target, so that the move is a rename within one file system and nobody ever sees half a jar.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
            arrived = Path(name)
            try:
                fetch(jars, arrived)
            except ConnectionError as error:
                reason = str(error)
                continue
            damaged = [jar.file_name for jar in jars if not is_whole(arrived / jar.file_name)]
            if damaged:
                reason = f"{', '.join(damaged)} arrived damaged"
                continue
            for jar in jars:
                os.replace(arrived / jar.file_name, folder / jar.file_name)  # noqa: PTH105
            return
    raise JarsUnavailable(folder, reason)


def _ivy_jar() -> Path:
    spec = find_spec("pyspark")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = sorted(jar for folder in folders for jar in (Path(folder) / "jars").glob("ivy-*.jar"))
    if not found:
        raise ConnectionError("pyspark is installed without its jars, so there is no Ivy to fetch with")
    return found[-1]


def _ivy_module(jars: tuple[Jar, ...]) -> str:
    dependencies = "".join(
        f"<dependency org={quoteattr(jar.group)} name={quoteattr(jar.artifact)} rev={quoteattr(jar.version)} "
        'transitive="false" conf="*->master"/>'
        for jar in jars
    )
    return (
        '<ivy-module version="2.0"><info organisation="local" module="delta-jars"/>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )


def _complaint(output: str) -> str:
    lines = [line.strip(" \t:") for line in output.splitlines()]
    telling = [line for line in lines if "Exception" in line or "not found" in line or "error" in line.lower()]
    return (telling or [line for line in lines if line] or ["no reason given"])[0]


def main() -> int:
    """Fetches the jars and says in one line where they are."""
    try:
        files = ensure_jars()
    except MachineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(f"Jars ready in {files[0].parent}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
