from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.classes import archive_file, reading_options
from lakehouse.java import Java

JAVA = Java(Path("java"), "17.0.1", 17)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENTATION_JARS", str(tmp_path))


def test_without_an_archive_java_gets_no_option() -> None:
    assert reading_options(JAVA) == ""


def test_a_whole_archive_is_used() -> None:
    file = archive_file(JAVA, 7)
    file.write_bytes(b"archive")
    assert f'"-XX:SharedArchiveFile={file}"' in reading_options(JAVA)


def test_a_shortened_archive_is_left_alone_because_java_crashes_on_it() -> None:
    archive_file(JAVA, 7).write_bytes(b"arch")
    assert reading_options(JAVA) == ""


def test_the_archive_of_another_java_is_not_used() -> None:
    archive_file(Java(Path("java"), "21.0.1", 21), 7).write_bytes(b"archive")
    assert reading_options(JAVA) == ""
