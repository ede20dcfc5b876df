"""YAML files that people edit, read so that every mistake ends in an error of YAML that says where it stands."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lakehouse.errors import SettingsError


class GivenTwice(yaml.constructor.ConstructorError):
    """A key stands twice in one mapping; its `problem` names the key and no value."""


class NotRead(yaml.YAMLError):
    """A file is not there, is a folder, or may not be read."""


def yaml_files(folder: Path) -> list[Path]:
    """Returns the `.yml` and `.yaml` files of a folder, also those in capitals, in order; an absent one holds none."""
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in (".yml", ".yaml"))


def yaml_named(folder: Path, name: str) -> Path:
    """Returns the YAML file of a name in a folder; `name.yml`, which is not there, where there is none.

    Raises:
        SettingsError: There are two.
    """
    found = [p for p in yaml_files(folder) if p.stem == name]
    if len(found) > 1:
        raise SettingsError(f"{folder} holds {' and '.join(p.name for p in found)}; keep one of them.")
    return found[0] if found else folder / f"{name}.yml"


def read_yaml(path: Path) -> Any:
    """Returns what a YAML file holds, as `parse_yaml` does.

    Raises:
        NotRead: It cannot be read at all.
        UnicodeDecodeError: It is not UTF-8.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise NotRead(f"it cannot be read: {e.strerror or type(e).__name__}") from None


def parse_yaml(text: str) -> Any:
    """Returns what YAML text holds.

    Raises:
        yaml.YAMLError: It is not YAML, nested without end, gives a key twice, or has a day there is not.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


def parse_value(text: str) -> Any:
    """Returns what YAML text holds; a value that stands alone is left as text, for 2024 may well name a folder.

    Raises:
        yaml.YAMLError: As `parse_yaml` does.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null"):
        return node.value
    return parse_yaml(text)


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as e:
            # 2018-02-30 looks like a day; the error of Python names no place.
            raise yaml.constructor.ConstructorError(None, None, f"'{node.value}': {e}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                # YAML takes the last one, so that an earlier one is edited in vain.
                raise GivenTwice(None, None, f"'{key.value}' is given twice", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)
