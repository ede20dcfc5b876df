"""The keys of a file under `conf/` as a page tells them, from the pydantic model that reads it and its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def summary_of(model: type[BaseModel]) -> str:
    """Returns what the docstring of a model says before its attributes."""
    return _flat((inspect.getdoc(model) or "").partition("\n\nAttributes:\n")[0])


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """Returns what the docstrings of a model, and of those it is made from, say of each attribute."""
    found: dict[str, str] = {}
    for made_from in (m for m in reversed(model.__mro__) if issubclass(m, BaseModel) and m is not BaseModel):
        attributes = (inspect.getdoc(made_from) or "").partition("\n\nAttributes:\n")[2]
        said = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, flags=re.MULTILINE)
        found |= {name: _flat(meaning) for name, meaning in said}
    return found


def table_of_keys(model: type[BaseModel], names: Iterable[str]) -> list[str]:
    """Returns the lines of a Markdown table: keys of a model, what holds when one is left out, and what each means."""
    meanings = meanings_of(model)
    lines = ["| key | when left out | meaning |", "|---|---|---|"]
    for name in names:
        field = model.model_fields[name]
        meaning = _with_values(meanings[name], field).replace("|", "\\|")
        lines.append(f"| `{name}` | {_left_out(field)} | {meaning} |")
    return lines


def _flat(text: str) -> str:
    return " ".join(text.split())


def _left_out(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    default: Any = field.get_default(call_default_factory=True)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple) and default:
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if isinstance(default, str | int | float) and default != "" else ""


def _with_values(meaning: str, field: FieldInfo) -> str:
    """A meaning with the words a field takes, where it does not tell them itself."""
    kinds = (field.annotation, *get_args(field.annotation))
    words = [w for kind in kinds if get_origin(kind) is Literal for w in get_args(kind)]
    return meaning if all(f"`{w}`" in meaning for w in words) else f"{meaning} {', '.join(f'`{w}`' for w in words)}."
