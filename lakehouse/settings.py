"""Typed settings per target: `conf/settings/<target>.yml`, then environment, then arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from lakehouse.errors import SettingsError, suggest
from lakehouse.session import SparkSettings
from lakehouse.strict import Strict, problems_of, read_mapping, refused
from lakehouse.yaml_file import parse_value, yaml_files, yaml_named

if TYPE_CHECKING:
    from lakehouse.declare import Table

Target = str

_PREFIX = "SEGMENTATION_"
_NO_SETTINGS = ("CONF_DIR", "DEBUG", "JARS", "KILL_SEED", "KILLS", "SHARED_DATA")
"""What else is read from the environment under the prefix, the last three by tests."""


class Settings(Strict):
    """Everything that differs between a laptop, staging and production.

    Attributes:
        target: Name of the target, the stem of the file it came from.
        data_dir: Folder that holds every table as `<schema>/<table>` when there is no catalog.
        exports_dir: Folder of exported files, where a destination names none; `exports` in `data_dir` when unset.
        reports_dir: Folder of reports (`_reports`) and pages of data checks (`_quality`); `data_dir` when unset. In a
            catalog `data_dir` holds uploads as they came, so what others are to read is in a volume of its own.
        catalog: Unity Catalog name; None keeps tables as plain folders under `data_dir`.
        conf_dir: Folder with sources, segments, destinations and quality rules.
        spark: How to get a session.
        base_currency: ISO 4217 code that amounts are converted to.
        as_of: Day up to which events count, exclusive. `latest` is the day after the newest business day delivered,
            and no earlier than the day segments are of; `today` is the run's UTC day.
        sources: Names of sources a run ingests; empty means every one that says where its files are.
        variables: Values for `${name}` in `conf/sources`, such as where a feed's files are.
        parallel_steps: Steps that may run at once in one session.
        deletion_vectors: Whether merges mark rows instead of rewriting files. Off locally, so that every Delta reader
            can read the folders.
        lock_wait_seconds: How long a second run waits for the first before it refuses.
        keep_as_of_days: Days of daily slices of features and of customers that `maintain` keeps; month ends stay.
        retention_days: Days of history `maintain` keeps per table, where not those of its declaration.
    """

    target: str = "local"
    data_dir: Path = Path(".lakehouse")
    exports_dir: Path | None = None
    reports_dir: Path | None = None
    catalog: str | None = None
    conf_dir: Path = Path("conf")
    spark: SparkSettings = SparkSettings()
    base_currency: str = Field("USD", pattern="^[A-Z]{3}$")
    as_of: Literal["latest", "today"] | date = "latest"
    sources: tuple[str, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    parallel_steps: int = Field(3, ge=1, le=16)
    deletion_vectors: bool = False
    lock_wait_seconds: float = Field(0, ge=0)
    keep_as_of_days: int = Field(35, ge=1)
    retention_days: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)

    def days_kept(self, table: Table) -> int | None:
        """Days of history that `maintain` keeps of a table; None for all."""
        return self.retention_days.get(table.name, table.retention_days)

    @field_validator("data_dir", "exports_dir", "reports_dir")
    @classmethod
    def _is_a_folder(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            folder = value.expanduser()
        except RuntimeError:
            raise ValueError(f"{value} begins with nobody's home") from None
        there = next((p for p in (folder, *folder.parents) if p.exists()), None)
        if there and not there.is_dir():
            raise ValueError(f"{there} is not a folder")
        return folder


def find_conf() -> Path:
    """Return the folder SEGMENTATION_CONF_DIR names, else `conf/` of the working tree, else the wheel's copy."""
    if said := os.environ.get("SEGMENTATION_CONF_DIR"):
        return Path(said)
    for base in (Path.cwd(), Path(__file__).resolve().parents[1]):
        if (base / "conf" / "settings").is_dir():
            return base / "conf"
    return Path(__file__).resolve().parent / "_conf"


def load_settings(target: str = "local", conf_dir: Path | None = None, **overrides: Any) -> Settings:
    """Return the settings of a target; later wins: file, `SEGMENTATION_*` environment, `overrides` that are not None.

    Raises:
        SettingsError: naming every unknown, missing or bad value at once, and the targets there are.
    """
    conf = conf_dir or find_conf()
    path = yaml_named(conf / "settings", target)
    if not path.is_file():
        known = [p.stem for p in yaml_files(conf / "settings")]
        raise SettingsError(
            f"There is no target '{target}': {path} does not exist. Targets are {', '.join(known) or 'none'}."
            f"{suggest(target, known)}"
        )
    values: dict[str, Any] = read_mapping(path)
    values |= {"target": target, "conf_dir": conf}
    from_env, problems = _from_environment()
    values |= from_env
    given = {k: v for k, v in overrides.items() if v is not None}
    more, variables = given.pop("variables", {}), values.get("variables") or {}
    values |= given | {"variables": variables | more if isinstance(variables, dict) else variables}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as e:

        def place(keys: Sequence[str]) -> str:
            first, *rest = keys
            return ".".join([_PREFIX + first.upper() if first in from_env and first not in given else first, *rest])

        problems += problems_of(e, Settings, place=place)
    if problems:
        raise refused(path, problems)
    return settings


def _from_environment() -> tuple[dict[str, Any], list[str]]:
    """What `SEGMENTATION_*` says by setting, and what is wrong with it."""
    known = Settings.model_fields.keys() - {"conf_dir", "target"}
    found: dict[str, Any] = {}
    problems = []
    for variable in sorted(v for v in os.environ if v.startswith(_PREFIX)):
        name, said = variable.removeprefix(_PREFIX), os.environ[variable]
        if name in _NO_SETTINGS:
            continue
        if name.lower() not in known:
            # Secrets and places of sources are variables too, which users name as they like.
            if (guess := suggest(name.lower(), known)) or name == "TARGET":
                problems.append(f"{variable} is not a setting.{guess}")
            continue
        try:
            found[name.lower()] = parse_value(said)
        except yaml.YAMLError:
            problems.append(f"{variable} is not YAML: {said[:100]!r}")
    return found, problems
