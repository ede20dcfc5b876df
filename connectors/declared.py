"""YAML files of a folder as settings of one name each, with every problem of every file in one error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lakehouse.errors import SettingsError
from lakehouse.strict import problems_of
from lakehouse.yaml_file import GivenTwice, NotRead, read_yaml, yaml_files

Declared = TypeVar("Declared", bound=BaseModel)


def load_declared(
    folder: Path, what: str, kind_of: Callable[[Mapping[str, Any]], type[Declared]]
) -> dict[str, Declared]:
    """Returns what the YAML files of a folder declare, by name, in order. An absent folder holds nothing.

    Args:
        folder: Where the files are; the stem of each is the name of what it declares.
        what: What is declared, in the plural, for messages.
        kind_of: The model a file's content is read as; raises `ValueError` when there is none.

    Raises:
        SettingsError: naming every unknown, missing or bad value of every file at once.
    """
    found: dict[str, Declared] = {}
    problems: list[str] = []
    for path in yaml_files(folder):
        try:
            content: Any = read_yaml(path)
            said = {"name": path.stem, **(content or {})}
        except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
            # No more than the place: an excerpt could show a secret.
            mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
            at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            what_is = (
                str(error.problem)
                if isinstance(error, GivenTwice)
                else str(error)
                if isinstance(error, NotRead)
                else f"is not a YAML mapping: {type(error).__name__}"
            )
            problems.append(f"{path.name}{at}: {what_is}")
            continue
        try:
            kind = kind_of(said)
        except ValueError as error:
            problems.append(f"{path.name}: {error}")
            continue
        try:
            made = kind.model_validate(said)
        except ValidationError as error:
            problems += [f"{path.name}: {p}" for p in problems_of(error, kind, shows_values=False)]
            continue
        name = str(getattr(made, "name", path.stem))
        if name in found:
            problems.append(f"{path.name}: '{name}' is defined twice")
        found[name] = made
    if problems:
        raise SettingsError("\n  ".join([f"{len(problems)} problem(s) in {what}:", *problems]))
    return {name: found[name] for name in sorted(found)}
