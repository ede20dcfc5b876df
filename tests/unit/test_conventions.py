"""What the design forbids, found by reading the source. Each rule is first shown to catch what it is for."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("lakehouse", "pipelines", "features", "models", "segments", "connectors", "jobs", "apps")
TRANSFORMS = ("pipelines", "features", "models", "segments")
TEXT_ENDINGS = {
    ".py",
    ".toml",
    ".yml",
    ".yaml",
    ".md",
    ".ipynb",
    ".sql",
    ".sh",
    ".properties",
    ".html",
    ".cfg",
    ".json",
}

# Only these may use what Spark Connect lacks.
BELOW_CONNECT = {"lakehouse/session.py", "lakehouse/classes.py", "lakehouse/lookups.py"}

# Where a frame is small by its meaning, and why.
TO_PANDAS_ALLOWED: dict[str, str] = {
    "apps/": "what a screen shows is bounded by the query behind it",
    "models/": "training and evaluation work on a bounded sample",
}

Finding = tuple[int, str]
Rule = Callable[[ast.AST], Iterator[Finding]]


def dotted(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
        case _:
            return "?"


def docstrings(tree: ast.AST) -> set[int]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, owners))
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def reads_the_clock(tree: ast.AST) -> Iterator[Finding]:
    sql_clock = re.compile(
        r"(?i)\b(?:current_(?:date|timestamp)\b|(?:now|curdate|localtimestamp|unix_timestamp)\(\s*\))"
    )
    spark_clock = {"current_date", "current_timestamp", "curdate", "localtimestamp", "now"}
    python_clock = {"datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns", "Timestamp.today"}
    described = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            last, two = name.split(".")[-1], ".".join(name.split(".")[-2:])
            if last in spark_clock or two in python_clock or (last == "unix_timestamp" and not node.args):
                yield node.lineno, f"{name}() reads the clock: take as_of as an argument"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            found = sql_clock.search(node.value)
            if found:
                yield node.lineno, f"SQL reads the clock by {found.group()!r}: pass as_of in"


def goes_below_connect(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {
            "_jvm",
            "_jsparkSession",
            "_jdf",
            "_sc",
            "sparkContext",
            "rdd",
        }:
            yield node.lineno, f".{node.attr} does not exist on Spark Connect"


def calls_to_pandas(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"toPandas", "toLocalIterator"}
        ):
            yield node.lineno, f"{node.func.attr}() brings a whole frame to the driver"


def builds_a_session(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node).endswith("SparkSession.builder"):
            yield node.lineno, "only lakehouse.session builds a session"


def uses_row_udf(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        name = dotted(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        if name in {"udf", "F.udf", "functions.udf"}:
            yield node.lineno, "a row UDF: use built-ins, or a pandas or Arrow function in a file of its own"


def imports_star(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield node.lineno, f"from {node.module} import *"


def sources(*packages: str) -> list[Path]:
    return sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def offences(rule: Rule, *packages: str, allowed: tuple[str, ...] = ()) -> list[str]:
    found = []
    for file in sources(*packages):
        where = file.relative_to(ROOT).as_posix()
        if not where.startswith(allowed or ("\0",)):
            found += [f"{where}:{line}: {what}" for line, what in rule(parsed(file))]
    return found


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (reads_the_clock, "F.current_date()"),
        (reads_the_clock, "functions.now()"),
        (reads_the_clock, "datetime.now(UTC)"),
        (reads_the_clock, "datetime.date.today()"),
        (reads_the_clock, "time.time()"),
        (reads_the_clock, "F.unix_timestamp()"),
        (reads_the_clock, "F.expr('datediff(current_date, d)')"),
        (goes_below_connect, "spark._jvm.x"),
        (goes_below_connect, "spark.sparkContext"),
        (goes_below_connect, "orders.rdd"),
        (calls_to_pandas, "orders.toPandas()"),
        (builds_a_session, "pyspark.sql.SparkSession.builder.getOrCreate()"),
        (uses_row_udf, "@F.udf('int')\ndef f(x): ..."),
        (imports_star, "from pyspark.sql.functions import *"),
    ],
)
def test_the_rule_catches_what_it_is_for(rule: Rule, source: str) -> None:
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (reads_the_clock, 'def f():\n    """Unlike current_date, as_of is an argument."""'),
        (reads_the_clock, "F.unix_timestamp('at')"),
        (reads_the_clock, "time.perf_counter()"),
        (uses_row_udf, "F.pandas_udf('int')"),
        (builds_a_session, "def f(spark: SparkSession): ..."),
    ],
)
def test_the_rule_leaves_the_rest_alone(rule: Rule, source: str) -> None:
    assert not list(rule(ast.parse(source)))


def test_transforms_read_no_clock() -> None:
    assert offences(reads_the_clock, *TRANSFORMS) == []


def test_only_the_lakehouse_goes_below_connect() -> None:
    assert offences(goes_below_connect, *PACKAGES, allowed=tuple(BELOW_CONNECT)) == []


def test_frames_stay_in_spark() -> None:
    assert offences(calls_to_pandas, *PACKAGES, allowed=tuple(TO_PANDAS_ALLOWED)) == []


def test_one_place_builds_sessions() -> None:
    assert offences(builds_a_session, *PACKAGES, allowed=("lakehouse/session.py",)) == []


def test_no_row_udf() -> None:
    assert offences(uses_row_udf, *PACKAGES) == []


def test_no_star_import() -> None:
    assert offences(imports_star, *PACKAGES) == []


def test_a_file_is_named_for_its_idea() -> None:
    vague = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py"}
    assert [str(file.relative_to(ROOT)) for file in sources(*PACKAGES, "tests") if file.name in vague] == []


def test_nothing_names_this_machine() -> None:
    # A Databricks workspace has /Workspace/Users; a person's folder on a laptop does not belong in a repository.
    somebody = re.compile(r"(?<![\w.}])/(?:root|home/[a-z][\w-]*|Users/[a-z][\w-]*)/|[A-Z]:\\\\?Users\\")
    folders = [*PACKAGES, "conf", "docs", "notebooks", "tests", "bench", ".ci"]
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in TEXT_ENDINGS]
    files += [file for file in ROOT.iterdir() if file.is_file() and file.suffix in TEXT_ENDINGS]
    found = []
    for file in files:
        if file == Path(__file__):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if somebody.search(line) or f"{ROOT}/" in line:
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []
