"""Destinations: one file each, found by the settings class it defines; its `kind` is what a YAML file names."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from connectors.base import DestinationConfig, FileDestination
from connectors.declared import load_declared
from lakehouse.errors import suggest


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
    return tuple(load_declared(folder, "destinations", _kind_of).values())


def _kind_of(said: Mapping[str, Any]) -> type[DestinationConfig]:
    named = str(said.get("kind"))
    kind = kinds().get(named)
    if kind is None:
        raise ValueError(f"kind: '{named}' is none of {', '.join(kinds())}.{suggest(named, kinds())}")
    return kind
