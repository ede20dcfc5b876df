"""Who owns, reads and sees what: `conf/bundle/access.yml`, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lakehouse.columns import Pii
from lakehouse.declare import ASIDE, SCHEMAS, tables
from lakehouse.errors import suggest
from lakehouse.strict import Strict, read_model, refused

Privilege = Literal["SELECT", "MODIFY", "CREATE TABLE", "EXECUTE", "READ VOLUME", "WRITE VOLUME"]

MASKS_IN = "gov"
"""Schema of the functions that mask columns and filter rows."""

MODELS_IN = "feature"
"""Schema models are registered in."""

# MANAGE and APPLY TAG, so that whoever runs the script, being in the group, can own and protect tables the jobs made.
_OF_PIPELINE = ("USE SCHEMA", "SELECT", "MODIFY", "CREATE TABLE", "EXECUTE", "MANAGE", "APPLY TAG")


class OwnerRule(Strict):
    """The team behind an owner named in declarations."""

    group: str
    description: str


class GrantRule(Strict):
    """Privileges of one group on schemas. USE CATALOG and USE SCHEMA follow by themselves.

    `*` is all schemas but the one where the pipeline holds frames aside, which nobody else reads.
    """

    group: str
    schemas: Literal["*"] | tuple[str, ...]
    privileges: tuple[Privilege, ...]

    @property
    def schema_names(self) -> tuple[str, ...]:
        """The schemas by name."""
        return tuple(s for s in SCHEMAS if s != ASIDE) if self.schemas == "*" else tuple(self.schemas)


class PiiRule(Strict):
    """Who sees a class of personal data, and what everyone else sees."""

    shown_to: tuple[str, ...]
    others_see: Literal["redacted", "null"]


class RowRule(Strict):
    """Which groups see the rows of which merchant, in tables that have one of `columns`."""

    columns: tuple[str, ...]
    all: tuple[str, ...]
    merchants: dict[str, tuple[str, ...]]


class VolumeRule(Strict):
    """A volume for files."""

    schema_name: str = Field(alias="schema")
    name: str
    comment: str
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()


class Access(Strict):
    """All of `access.yml`."""

    pipeline_group: str
    operators: str
    owners: dict[str, OwnerRule]
    grants: tuple[GrantRule, ...]
    pii: dict[Pii, PiiRule]
    rows: RowRule
    volumes: tuple[VolumeRule, ...]

    @property
    def readers(self) -> tuple[str, ...]:
        """Groups besides the pipeline's that may read anything."""
        of_volumes = {g for v in self.volumes for g in (*v.readers, *v.writers)}
        return tuple(sorted({g.group for g in self.grants} | of_volumes))

    def privileges_on(self, schema: str) -> dict[str, tuple[str, ...]]:
        """What each group may do with a schema, as SQL says it."""
        models = ("CREATE MODEL",) if schema == MODELS_IN else ()
        found: dict[str, dict[str, None]] = {self.pipeline_group: dict.fromkeys((*_OF_PIPELINE, *models))}

        def grant(group: str, *privileges: str) -> None:
            found.setdefault(group, {}).update(dict.fromkeys(("USE SCHEMA", *privileges)))

        for g in self.grants:
            if schema in g.schema_names:
                grant(g.group, *g.privileges)
        for v in self.volumes:
            if v.schema_name == schema:
                for group in (*v.readers, *v.writers):
                    grant(group)
        if schema == MASKS_IN:
            # A masked column calls its function with the reader's rights.
            for group in self.readers:
                grant(group, "EXECUTE")
        return {group: tuple(privileges) for group, privileges in found.items()}

    def privileges_on_volume(self, volume: VolumeRule) -> dict[str, tuple[str, ...]]:
        """What each group may do with a volume."""
        both = ("READ VOLUME", "WRITE VOLUME")
        found: dict[str, tuple[str, ...]] = {self.pipeline_group: both, **dict.fromkeys(volume.readers, both[:1])}
        return found | dict.fromkeys(volume.writers, both)


def load_access(conf_dir: Path) -> Access:
    """Read `bundle/access.yml`.

    Raises:
        SettingsError: listing every problem: unknown keys, schemas or columns, owners and classes without a rule, and
            grants on what is the pipeline's alone.
    """
    path = conf_dir / "bundle" / "access.yml"
    access = read_model(path, Access)
    owners = {t.owner for t in tables().values()}
    problems = [f"owner '{o}' is not described" for o in sorted(owners - set(access.owners))]
    problems += [f"pii class '{p.value}' has no rule" for p in Pii if p not in access.pii]
    used = [s for g in access.grants if g.schemas != "*" for s in g.schemas] + [v.schema_name for v in access.volumes]
    problems += [f"there is no schema '{s}'.{suggest(s, SCHEMAS)}" for s in dict.fromkeys(used) if s not in SCHEMAS]
    columns = {c for t in tables().values() for c in t.column_names}
    # No row would be kept from anyone by a column that is nowhere.
    problems += [
        f"rows: no table has a column '{c}'.{suggest(c, columns)}" for c in access.rows.columns if c not in columns
    ]
    if ASIDE in used:
        problems.append(f"schema '{ASIDE}' is for the pipeline alone: what is in it has no masks")
    if problems:
        raise refused(path, problems)
    return access
