"""Secrets are named, never written: `env:NAME`, `file:PATH` or `databricks:SCOPE/KEY`, and print as `***`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lakehouse.errors import MachineError

_FORM = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|databricks:[^/]+/[^/]+)$")


class Secret:
    """A reference to a secret. It is looked up when it is needed and kept nowhere."""

    def __init__(self, reference: str) -> None:
        if not _FORM.match(reference):
            # The text is not repeated: whoever wrote the secret itself here must not find it in a log.
            raise ValueError("a secret is written as env:NAME, file:PATH or databricks:SCOPE/KEY, never as its value")
        self._reference = reference

    def reveal(self) -> str:
        """Return the secret.

        Raises:
            MachineError: naming the reference, when nothing is there.
        """
        how, _, where = self._reference.partition(":")
        if how == "env":
            found = os.environ.get(where, "")
        elif how == "file":
            path = Path(where)
            found = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        else:
            found = _databricks(*where.split("/", 1))
        if not found:
            raise MachineError(f"The secret {self._reference} is empty or not there.")
        return found

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._reference == self._reference

    def __hash__(self) -> int:
        return hash(self._reference)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic read it from text and write it as `***`."""
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def _validate(cls, value: Any) -> Secret:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str):
            raise ValueError("a secret is written as text")  # noqa: TRY004 - pydantic collects ValueError
        return cls(value)


def _databricks(scope: str, key: str) -> str:
    try:
        from databricks.sdk.runtime import dbutils
    except ImportError as e:
        raise MachineError(
            f"The secret databricks:{scope}/{key} can only be read on Databricks; use env: or file: elsewhere."
        ) from e
    return str(dbutils.secrets.get(scope, key))
