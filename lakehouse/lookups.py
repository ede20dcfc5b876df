"""Fewer questions to the JVM: what a Java class has is asked once.

For every `F.col` PySpark asks which class `functions` is, then whether that has a method `col`, and then calls it. A
run makes twenty thousand columns, so that two of three messages to the JVM, each a search through its classes, ask what
has been answered before.
"""

from __future__ import annotations

from typing import Any, Final

from py4j.java_gateway import JavaClass, JavaMember
from pyspark.sql import SparkSession

_ASKED_MOST: Final = (
    "functions",
    "PythonUtils",
    "PythonSQLUtils",
    "org.apache.spark.sql.functions",
    "org.apache.spark.sql.api.python.PythonSQLUtils",
    "org.apache.spark.sql.classic.SparkSession",
)
"""Names under which PySpark looks for classes, as it writes them."""


class KnownClass(JavaClass):  # type: ignore[misc]
    """A Java class that remembers which methods it has; values of fields are asked for every time."""

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if isinstance(found, JavaMember):
            # An attribute of the object itself is found before this method is called again.
            self.__dict__[name] = found
        return found


def remember_classes(session: SparkSession) -> None:
    """Let PySpark find the classes it asks for most without a question; for the process, which has one JVM."""
    jvm: Any = session.sparkContext._jvm
    for name in _ASKED_MOST:
        if name not in vars(jvm):
            known = getattr(jvm, name)
            # As an attribute it is found first; PySpark reads names with dots by `getattr` as well.
            setattr(jvm, name, KnownClass(known._fqn, known._gateway_client))
