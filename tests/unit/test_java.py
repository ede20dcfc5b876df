from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lakehouse import java
from lakehouse.java import JavaUnavailable, find_java, parse_major


def make_java(home: Path, version: str) -> Path:
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-01' >&2\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture(autouse=True)
def only_what_the_test_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_USUAL_HOMES", ())


@pytest.mark.parametrize(
    ("version", "major"),
    [("17.0.15", 17), ("21", 21), ("17-ea", 17), ("1.8.0_402", 8), ("11.0.2", 11), ("unknown", None)],
)
def test_major_version_is_read_in_old_and_new_numbering(version: str, major: int | None) -> None:
    assert parse_major(version) == major


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    chosen = make_java(tmp_path / "home", "17.0.1")
    other = make_java(tmp_path / "other", "21.0.1")
    found = find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(other.parent)})
    assert (found.executable, found.major, found.home) == (chosen, 17, tmp_path / "home")


def test_an_unsuitable_java_home_does_not_hide_a_good_java_on_path(tmp_path: Path) -> None:
    make_java(tmp_path / "old", "11.0.2")
    good = make_java(tmp_path / "good", "21.0.1")
    assert find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": str(good.parent)}).executable == good


def test_an_unsuitable_java_is_named_together_with_the_way_out(tmp_path: Path) -> None:
    make_java(tmp_path / "old", "1.8.0_402")
    with pytest.raises(
        JavaUnavailable, match=r"needs Java 17 or 21, but found only Java 1\.8\.0_402 at .*apt-get install"
    ):
        find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": ""})


def test_no_java_at_all_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(JavaUnavailable, match="no Java was found in JAVA_HOME or on PATH"):
        find_java({"PATH": str(tmp_path)})


def test_a_broken_java_is_passed_over(tmp_path: Path) -> None:
    broken = make_java(tmp_path / "broken", "17.0.1")
    broken.write_text("#!/bin/sh\nexit 127\n")
    with pytest.raises(JavaUnavailable):
        find_java({"JAVA_HOME": str(tmp_path / "broken"), "PATH": ""})
