"""Files of settings as typed models: every problem of a file in one error, each with its place and a guess."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lakehouse.errors import SettingsError, suggest
from lakehouse.yaml_file import NotRead, read_yaml

Made = TypeVar("Made", bound=BaseModel)


class Strict(BaseModel):
    """A part of a file of settings: what it does not know is a mistake, and it stays as it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_model(path: Path, model: type[Made]) -> Made:
    """What a YAML file says, as a model; an empty file says nothing.

    Raises:
        SettingsError: It cannot be read as a mapping, or listing everything in it that is unknown, missing or bad.
    """
    try:
        return model.model_validate(read_mapping(path))
    except ValidationError as e:
        raise refused(path, problems_of(e, model)) from None


def read_mapping(path: Path) -> dict[str, Any]:
    """What a YAML file says by name; nothing for an empty one.

    Raises:
        SettingsError: It cannot be read, is no text in UTF-8, no YAML, or no mapping.
    """
    try:
        found = read_yaml(path)
    except NotRead as e:
        raise SettingsError(f"{path}: {e}.") from None
    except UnicodeDecodeError as e:
        raise SettingsError(f"{path} is not text in UTF-8: byte {e.start + 1} cannot be one.") from None
    except yaml.YAMLError as e:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(found, dict | None):
        raise SettingsError(f"{path} holds a {type(found).__name__}, not settings by name.")
    return found or {}


def refused(path: Path, problems: Sequence[str]) -> SettingsError:
    """The error that tells all problems of a file."""
    return SettingsError(f"{path}: {len(problems)} problem(s): {'; '.join(problems)}")


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    *,
    place: Callable[[Sequence[str]], str] = ".".join,
    shows_values: bool = True,
) -> list[str]:
    """What is wrong, a line each: where, what, and the closest there is of what could be meant.

    A validator that finds several problems parts them by ` | `.

    Args:
        error: From reading what somebody wrote as `model`.
        model: Its keys, and those of its parts, are what an unknown one may have been meant for.
        place: Makes text of the keys that lead to a problem.
        shows_values: Whether to quote a value that is none of those allowed; not where it might be a secret.
    """
    found: list[str] = []
    for e in error.errors(include_url=False):
        where, text = place([str(p) for p in e["loc"]]), e["msg"].removeprefix("Value error, ")
        if e["type"] == "extra_forbidden":
            text = f"there is no such setting.{suggest(str(e['loc'][-1]), sorted(set(_keys_of(model))))}"
        elif e["type"] == "literal_error":
            allowed = re.findall(r"'([^']+)'", str((e.get("ctx") or {}).get("expected", "")))
            text += f"; got {e['input']!r}" if shows_values else ""
            text += f".{suggest(str(e['input']), allowed)}"
        found += [f"{where}: {part}" if where else part for part in text.split(" | ")]
    return found


def _keys_of(annotation: Any) -> Iterator[str]:
    """Keys that a model and the models within it take."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield field.alias or name
            yield from _keys_of(field.annotation)
    for part in get_args(annotation):
        yield from _keys_of(part)
