"""Destinations: one file each, found by the settings class it defines; its `kind` is what a YAML file names."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from connectors.base import DestinationConfig, FileDestination
from lakehouse.errors import SettingsError, suggest


@cache
def kinds() -> dict[str, type[DestinationConfig]]:
    """Returns the settings class of every kind of destination."""
    found: dict[str, type[DestinationConfig]] = {"files": FileDestination}
    for module in pkgutil.iter_modules(__path__):
        for made in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(made, type) and issubclass(made, DestinationConfig) and "kind" in made.model_fields:
                found[module.name] = made
    return dict(sorted(found.items()))


def load_destinations(folder: Path) -> tuple[DestinationConfig, ...]:
    """Returns the destinations of the `*.yml` files of a folder, by name. An absent folder holds none.

    Raises:
        SettingsError: Names every unknown, missing or bad value of every file at once.
    """
    found: dict[str, DestinationConfig] = {}
    problems: list[str] = []
    for path in sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")]):
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            said = {"name": path.stem, **(content or {})}
        except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
            problems.append(f"{path.name}: is not a YAML mapping: {type(error).__name__}")
            continue
        kind = kinds().get(str(said.get("kind")))
        if kind is None:
            named = str(said.get("kind"))
            problems.append(f"{path.name}: kind: '{named}' is none of {', '.join(kinds())}.{suggest(named, kinds())}")
            continue
        try:
            made = kind.model_validate(said)
        except ValidationError as error:
            problems += [
                f"{path.name}: {'.'.join(str(p) for p in e['loc'])}: {e['msg']}."
                + (suggest(str(e["loc"][-1]), kind.model_fields) if e["type"] == "extra_forbidden" else "")
                for e in error.errors(include_input=False, include_url=False)
            ]
            continue
        if made.name in found:
            problems.append(f"{path.name}: destination '{made.name}' is defined twice")
        found[made.name] = made
    if problems:
        raise SettingsError("\n  ".join([f"{len(problems)} problem(s) in destinations:", *problems]))
    return tuple(found[name] for name in sorted(found))
