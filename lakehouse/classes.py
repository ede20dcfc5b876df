"""An archive of the Java classes a session loads, so that the next one maps them instead of reading 300 jars.

Optional: `make faster` writes it (about a minute, 180 MB); sessions use it when it fits and ignore it when it does not.
Measured on two busy cores, in turn, twice: session start 6.1 and 4.0 s against 10.8 and 8.0, the first Delta write and
read 11.9 and 6.5 s against 14.2 and 10.4.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lakehouse.errors import MachineError
from lakehouse.jars import cache_folder
from lakehouse.java import Java, find_java

# A stale archive is no reason to say anything: Java then loads the classes the slow way.
_SILENT = "-Xlog:cds*=off -Xlog:class+path=off"


def archive_file(java: Java, size: int | str) -> Path:
    """Returns where the archive of one Java and one pyspark lies; both are part of what makes it valid.

    Its size is in its name, because Java checks a damaged archive but crashes on a shortened one.
    """
    spec = find_spec("pyspark")
    place = hashlib.sha256(f"{java.executable.resolve()}|{spec.origin if spec else ''}".encode()).hexdigest()[:12]
    return cache_folder() / f"classes-java-{java.version}-{place}-{size}.jsa"


def reading_options(java: Java) -> str:
    """Returns the Java options that use the archive, or nothing when there is none."""
    for file in _archives(java):
        if file == archive_file(java, file.stat().st_size):
            return f'"-XX:SharedArchiveFile={file}" -Xshare:auto {_SILENT}'
    return ""


def write_archive() -> Path:
    """Runs a short session on a scratch table and keeps the classes it loaded."""
    from lakehouse.session import SparkSettings, build_session

    java, folder = find_java(), cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".classes-", dir=folder) as name:
        fresh, table = Path(name) / "fresh.jsa", f"delta.`{name}/table`"
        options = {"spark.driver.extraJavaOptions": f'"-XX:ArchiveClassesAtExit={fresh}" {_SILENT}'}
        spark = build_session(SparkSettings(conf=options), Path(name))
        # S608: the only thing put into these statements is the name of a folder made above.
        spark.sql(f"CREATE TABLE {table} AS SELECT id, id % 3 AS part, current_date() AS day FROM range(100)")  # noqa: S608
        spark.sql(
            f"MERGE INTO {table} t USING (SELECT 1L AS id, 9L AS part, current_date() AS day) s ON t.id = s.id "
            "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
        )
        spark.sql(f"SELECT part, count(*), row_number() OVER (ORDER BY part) FROM {table} GROUP BY part").collect()  # noqa: S608
        # Java writes the archive when it ends, and it ends when its standard input does.
        process: Any = getattr(spark.sparkContext._gateway, "proc", None)
        spark.stop()
        if process is None:
            raise MachineError("Spark was started by somebody else, so its classes cannot be archived.")
        process.stdin.close()
        process.wait(timeout=300)
        target = archive_file(java, fresh.stat().st_size)
        older = [file for file in _archives(java) if file != target]
        fresh.replace(target)
        for file in older:
            file.unlink(missing_ok=True)
    return target


def _archives(java: Java) -> list[Path]:
    pattern = archive_file(java, "*")
    return sorted(pattern.parent.glob(pattern.name))


def main() -> int:
    """Writes the archive and says in one line where it is."""
    try:
        file = write_archive()
    except MachineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    print(f"Sessions now start from {file} ({file.stat().st_size >> 20} MB)")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
