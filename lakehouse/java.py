"""Finding a Java that Spark can run on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lakehouse.errors import MachineError

SUPPORTED_MAJORS = (17, 21)
"""Major versions Spark 4.1 is built and tested for."""

INSTALL_HINT = (
    "Debian/Ubuntu: sudo apt-get install openjdk-17-jre-headless; "
    "macOS: brew install openjdk@17; "
    "Windows: winget install EclipseAdoptium.Temurin.17.JRE"
)

# Where packages put a Java without making it the default one.
_USUAL_HOMES = (
    "/usr/lib/jvm/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk@*",
    "/usr/local/opt/openjdk@*",
)


class JavaUnavailable(MachineError):
    """No Java on this machine can run Spark.

    Attributes:
        found: What was found instead, as `(executable, version)` pairs.
    """

    def __init__(self, found: Iterable[tuple[Path, str]] = ()) -> None:
        self.found = tuple(found)
        wanted = " or ".join(str(major) for major in SUPPORTED_MAJORS)
        seen = ", ".join(f"{version} at {executable}" for executable, version in self.found)
        problem = f"found only Java {seen}" if seen else "no Java was found in JAVA_HOME or on PATH"
        super().__init__(f"Spark needs Java {wanted}, but {problem}. Install it and try again: {INSTALL_HINT}.")


@dataclass(frozen=True)
class Java:
    """One Java installation.

    Attributes:
        executable: The `java` program.
        version: Full version as it reports it, such as `17.0.15`.
        major: First number that matters, such as 17.
    """

    executable: Path
    version: str
    major: int

    @property
    def home(self) -> Path:
        """Folder to use as `JAVA_HOME`, links resolved."""
        return self.executable.resolve().parent.parent


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """Returns the first Java that Spark can run on.

    Looks at `JAVA_HOME`, then `PATH`, then the folders packages install to, so an old default does not hide a good one.

    Args:
        environ: Environment variables to look at.

    Raises:
        JavaUnavailable: None is suitable; the message says what was found and how to install one.
    """
    unsuitable: list[tuple[Path, str]] = []
    for executable in _candidates(environ):
        version = read_version(executable)
        if version is None:
            continue
        major = parse_major(version)
        if major in SUPPORTED_MAJORS:
            return Java(executable, version, major)
        unsuitable.append((executable, version))
    raise JavaUnavailable(unsuitable)


def read_version(executable: Path) -> str | None:
    """Asks a `java` program for its version; None when it does not run or does not say."""
    try:
        answer = subprocess.run(  # noqa: S603
            [executable, "-version"], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    stated = re.search(r'version "([^"]+)"', answer.stderr + answer.stdout)
    return stated.group(1) if stated and answer.returncode == 0 else None


def parse_major(version: str) -> int | None:
    """Returns the major version of a Java version text.

    Examples:
        `17.0.15` and `17-ea` are 17; `1.8.0_402` is 8, the numbering used before Java 9.
    """
    numbers = re.match(r"(?:1\.)?(\d+)", version)
    return int(numbers.group(1)) if numbers else None


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    program = "java.exe" if os.name == "nt" else "java"
    seen: set[Path] = set()
    for executable in _places(environ, program):
        if executable.is_file() and executable.resolve() not in seen:
            seen.add(executable.resolve())
            yield executable


def _places(environ: Mapping[str, str], program: str) -> Iterator[Path]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"]) / "bin" / program
    on_path = shutil.which(program, path=environ.get("PATH", ""))
    if on_path:
        yield Path(on_path)
    for pattern in _USUAL_HOMES:
        for home in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield home / "bin" / program


def main() -> int:
    """Says nothing when a suitable Java is there, else in one sentence what is missing."""
    try:
        find_java()
    except JavaUnavailable as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
